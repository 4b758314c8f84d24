// Feature compression, live. A network of width d = N = K n learns one-hot labels of K classes of n
// whitened samples, whose inputs are the unit vectors. It trains as the theorem says in case 2: in
// cores of 2K by 2K, the last of K by 2K, while the N - 2K directions that are left keep the scale
// eps. Of the start the core needs A = W_L...W_1(0) / eps^L alone, which is K random orthonormal rows.

import controls from "./features.json" with { type: "json" };
import { axes, line, live, make, many, short, training, write } from "./kit.js";
import { Layers, normal, orthonormalise, uniform } from "./numbers.js";

function dot(x, y) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
}

/** Orthonormal rows that span what these do, each those before it. */
export function orthonormalRows(rows) {
  const k = rows.length, d = rows[0].length;
  const columns = Float64Array.from({ length: d * k }, (_, i) => rows[i % k][Math.floor(i / k)]);
  orthonormalise(columns, d, k, uniform(1));
  return rows.map((_, j) => Float64Array.from({ length: d }, (_, i) => columns[i * k + j]));
}

/** Rows of normal numbers. */
export function gaussian(rows, N, random) {
  return Array.from({ length: rows }, () => Float64Array.from({ length: N }, () => normal(random)));
}

/** A network in training, as its core. */
export class Network extends Layers {
  constructor({ K, n, L, eps }, A) {
    const k = 2 * K, N = K * n, filled = (entry) => Float64Array.from({ length: k * k }, (_, i) => entry(i));
    // V_1 as rows: first the classes, along which the target acts, then what else the start sees.
    const means = Array.from({ length: K }, (_, c) =>
      Float64Array.from({ length: N }, (_, i) => (Math.floor(i / n) === c ? 1 / Math.sqrt(n) : 0)));
    const V = orthonormalRows([...means, ...A]);
    const target = filled((i) => (i % (k + 1) === 0 && i < K * k ? Math.sqrt(n) : 0));
    const Ws = Array.from({ length: L }, () => filled((i) => (i % (k + 1) ? 0 : eps)));
    // The last layer has K rows. Zeros below them get no gradient, and make all layers square.
    Ws[L - 1] = filled((i) => (i < K * k ? eps * dot(A[Math.floor(i / k)], V[i % k]) : 0));
    // The target's largest singular value is sqrt(n); at 2 / (L n^(1 - 1/L)) steps would overshoot.
    super(Ws, target, k, 0.6 / (L * n ** (1 - 1 / L)));
    Object.assign(this, { K, n, eps, N, V, first: this.loss });
  }

  classOf(i) {
    return Math.floor(i / this.n);
  }

  get fitted() {
    return this.loss <= 1e-16 * this.first;
  }

  /** W_l ... W_1 of the core; what a layer 0 would be is the identity. */
  product(l) {
    return l > 0 ? this.prefix[l - 1] : Float64Array.from({ length: this.k ** 2 }, (_, i) => (i % (this.k + 1) ? 0 : 1));
  }

  /** Inner products of the class means in layer l, with the grand mean taken off. */
  gram(l) {
    const { K, n, k } = this, P = this.product(l), means = [];
    for (let c = 0; c < K; c++) means.push(Float64Array.from({ length: k }, (_, i) => P[i * k + c] / Math.sqrt(n)));
    const grand = means[0].map((_, i) => means.reduce((sum, mean) => sum + mean[i], 0) / K);
    const centred = means.map((mean) => mean.map((x, i) => x - grand[i]));
    return centred.map((x) => centred.map((y) => dot(x, y)));
  }

  /** C_l, the scatter within the classes over that between them. */
  compression(l) {
    const { K, N, k, eps } = this, P = this.product(l);
    // A sample less its mean lies in the last K directions of the core, and outside of it. The
    // former are orthonormal over all samples, so that only what the layers do to them counts.
    let within = (N - 2 * K) * eps ** (2 * l);
    P.forEach((x, i) => { if (i % k >= K) within += x * x; });
    const between = this.gram(l).reduce((sum, row, c) => sum + row[c], 0);
    return (within / N) / (between / K);
  }
}

/**
 * The samples of layer l in a plane, as [x, y]; the mean square radius of the class means is one.
 *
 * The means: orthogonally projected on a plane of their span, that on which means of equal distance
 * are a regular polygon. (Their principal directions would not do: equal means have none.) What
 * is not the mean: the projection G, two rows in the space of samples, the same for all layers.
 * One factor for a layer makes the scatter within over that between, as drawn, C_l.
 */
export function plane(network, G, l) {
  const { K, N, k, V, eps } = network, P = network.product(l), gram = network.gram(l);
  const turn = K > 2 ? Math.PI / 2 : 0;
  const corners = [Math.cos, Math.sin].map((f) => gram.map((_, c) => f(turn + (2 * Math.PI * c) / K)));
  const along = corners.map((corner) => gram.map((row) => dot(corner, row))); // U^T means
  const [uu, uv, vv] = [[0, 0], [0, 1], [1, 1]].map(([a, b]) => dot(along[a], corners[b])); // U^T U
  const xs = along[0].map((x) => x / Math.sqrt(uu));
  const ys = along[1].map((y, c) => (K > 2 ? (y - (uv / uu) * along[0][c]) / Math.sqrt(vv - uv * uv / uu) : 0));
  const radius = Math.sqrt((dot(xs, xs) + dot(ys, ys)) / K);
  const means = xs.map((x, c) => [x / radius, ys[c] / radius]);

  const away = G.map((g) => { // what G makes of each sample less its mean
    const seen = V.map((v) => dot(g, v)); // G V
    const mapped = V.map((_, j) => seen.reduce((sum, x, i) => sum + x * P[i * k + j], 0)); // G V P
    return Float64Array.from({ length: N }, (_, i) => {
      const c = network.classOf(i);
      let value = eps ** l * (g[i] - seen[c] * V[c][i]);
      for (let j = K; j < k; j++) value += (mapped[j] - eps ** l * seen[j]) * V[j][i];
      return value;
    });
  });
  const scatter = away.reduce((sum, row) => sum + dot(row, row), 0) / N;
  const factor = Math.sqrt(network.compression(l) / scatter);
  const points = Array.from({ length: N }, (_, i) =>
    means[network.classOf(i)].map((x, axis) => x + factor * away[axis][i]));
  return { points, means };
}

// --- The figure --------------------------------------------------------------------------------

const MOST = 10000; // steps, if the loss has not vanished before
const STAND = 250, MOVE = 500; // milliseconds of a journey in a layer, and on to the next
const LEAST = 0.17; // of half the frame: the mean radius of the class means
const COLOURS_OF = ["rises", "falls", "third", "fourth", "fifth"];
const MARKERS = [ // each adds one marker of radius r to a path
  (pen, x, y, r) => { pen.moveTo(x + r, y); pen.arc(x, y, r, 0, 2 * Math.PI); },
  (pen, x, y, r) => pen.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r),
  (pen, x, y, r) => polygon(pen, [[x, y - 1.2 * r], [x + 1.1 * r, y + 0.8 * r], [x - 1.1 * r, y + 0.8 * r]]),
  (pen, x, y, r) => {
    pen.moveTo(x - r, y - r); pen.lineTo(x + r, y + r);
    pen.moveTo(x - r, y + r); pen.lineTo(x + r, y - r);
  },
  (pen, x, y, r) => polygon(pen, [[x, y - 1.4 * r], [x + r, y], [x, y + 1.4 * r], [x - r, y]]),
];
const low = (l) => "₀₁₂₃₄₅₆₇"[l];

function polygon(pen, [first, ...others]) {
  pen.moveTo(...first);
  others.forEach((corner) => pen.lineTo(...corner));
  pen.closePath();
}

function figure(stage) {
  const { settings } = stage;
  let network, G, reach, whole = 300; // reach of layer 0 in its plane; steps of the last whole run
  let here = 0, frame = 0, travelling = false; // the place on a journey, between layers too
  const over = () => network.fitted || network.t >= MOST;
  const layer = () => Math.min(settings.layer, network.L - 1);

  const trained = training(stage, {
    begin() {
      const random = uniform(settings.seed), { K, n } = settings;
      network = new Network(settings, orthonormalRows(gaussian(K, K * n, random)));
      G = gaussian(2, K * n, random);
      reach = Math.max(...plane(network, G, 0).points.flat().map(Math.abs));
      here = layer();
    },
    advance() {
      network.advance();
      if (over()) whole = network.t;
    },
    over,
    step: () => network.t,
    steps: () => whole,
    note() {}, // what is drawn is the network itself
    say,
  });

  const travel = make("button", { type: "button", textContent: "Travel" });
  travel.addEventListener("click", () => (frame ? arrive() : leave()));

  function leave() {
    const start = performance.now();
    travel.textContent = "Stop";
    stage.say("On the way through the layers.", "The samples on their way.");
    frame = requestAnimationFrame(function next(now) {
      const passed = Math.max(now - start, 0) / (STAND + MOVE);
      const reached = Math.min(Math.floor(passed), network.L - 1);
      show(reached);
      if (reached === network.L - 1) return arrive();
      const moved = Math.max((passed - reached) * (STAND + MOVE) - STAND, 0) / MOVE;
      here = reached + (stage.still ? 0 : moved);
      stage.paint();
      frame = requestAnimationFrame(next);
    });
  }

  function show(l) {
    travelling = true;
    stage.set("layer", l);
    travelling = false;
  }

  function stop() {
    cancelAnimationFrame(frame);
    frame = 0;
    travel.textContent = "Travel";
    here = layer();
  }

  function arrive() {
    stop();
    stage.paint();
    say();
  }

  function change(name) {
    if (travelling) return;
    if (name === "layer") {
      show(layer());
      arrive();
    } else {
      stop();
      trained.run();
      show(layer());
    }
  }

  function say() {
    const { L, n, K, eps, t, loss, first, fitted } = network, l = layer();
    const C = Array.from({ length: L }, (_, l) => network.compression(l));
    const factors = C.slice(1).map((x, l) => x / C[l]);
    const [least, most] = [short(Math.min(...factors)), short(Math.max(...factors))];
    stage.say(
      (fitted
        ? `Trained for ${many(t, "step")}, loss ${short(loss)}: `
        : `After ${many(t, "step")} training has not finished, the loss is still ${short(loss)}, of ${short(first)} at the start: `)
      + `each layer multiplies C by ${least === most ? least : `${least} to ${most}`}; `
      + `ε²/n^(1/L) is ${short(eps ** 2 / n ** (1 / L))}. Layer ${l} is shown, C${low(l)} = ${short(C[l])}.`,
      `The samples of ${K} classes in layer ${l}, and the compression C of each layer.`);
  }

  const between = (l, of) => { // what stands at layer l, or on the straight way to the next
    const from = Math.floor(l), share = l - from, start = of(from);
    if (share === 0) return start;
    const end = of(from + 1);
    return start.map((point, i) => point.map((x, axis) => (1 - share) * x + share * end[i][axis]));
  };

  function draw(pen, width, height, colours) {
    const narrow = width < 560;
    const side = narrow ? Math.min(width - 2, 320) : Math.min(height - 52, 0.46 * width);
    const left = narrow ? (width - side) / 2 : 1;
    drawPlane(pen, { left, top: 24, side }, colours);
    drawCompression(pen, narrow
      ? { left: 52, right: width - 12, top: side + 92, bottom: height - 40 }
      : { left: side + 72, right: width - 12, top: 24, bottom: height - 40 }, colours);
  }

  function drawPlane(pen, { left, top, side }, colours) {
    const { K, N } = network, half = side / 2, unit = Math.max((half - 9) / reach, LEAST * half);
    const [x, y] = [(u) => left + half + u * unit, (v) => top + half - v * unit];
    const all = between(here, (l) => Object.values(plane(network, G, l)).flat());
    const [points, means] = [all.slice(0, N), all.slice(N)];
    const within = ([u, v]) => Math.max(Math.abs(u), Math.abs(v)) * unit <= half - 5;
    for (let c = 0; c < K; c++) {
      const marker = MARKERS[c];
      pen.strokeStyle = pen.fillStyle = colours[COLOURS_OF[c]];
      pen.lineWidth = 1.3;
      pen.beginPath();
      points.forEach((point, i) => {
        if (network.classOf(i) === c && within(point)) marker(pen, x(point[0]), y(point[1]), 2.8);
      });
      pen.fill();
      pen.stroke();
      pen.beginPath();
      marker(pen, x(means[c][0]), y(means[c][1]), 8);
      pen.stroke();
      pen.lineWidth = 1.8;
      pen.beginPath();
      marker(pen, left + 52 + 34 * c, top + side + 17, 4);
      pen.fill();
      pen.stroke();
      write(pen, String(c + 1), left + 62 + 34 * c, top + side + 22, colours.ink);
    }
    write(pen, "class", left, top + side + 22, colours.ink);
    const l = Math.floor(here), outside = N - points.filter(within).length;
    write(pen, here === l ? `layer ${l}: C${low(l)} = ${short(network.compression(l))}` : `from layer ${l} to ${l + 1}`,
      left, top - 9, colours.ink);
    if (outside) write(pen, `${outside} of ${N} outside`, left + side, top - 9, colours.rest, "right");
    pen.strokeStyle = colours.rest;
    pen.lineWidth = 1;
    pen.strokeRect(left, top, side, side);
  }

  function drawCompression(pen, panel, colours) {
    const { L, n, eps } = network, { left, right, top, bottom } = panel;
    const C = Array.from({ length: L }, (_, l) => network.compression(l));
    const predicted = C.map((_, l) => C[0] * (eps ** 2 / n ** (1 / L)) ** l);
    const x = (l) => left + 14 + (l / (L - 1)) * (right - left - 28);
    const y = axes(pen, panel, [...C, ...predicted], "compression C of layer l", colours.ink, 1e-40);
    pen.setLineDash([5, 4]);
    line(pen, predicted.map((value, l) => [x(l), y(value)]), colours.rest, 1.5);
    line(pen, [[left + 10, bottom - 14], [left + 34, bottom - 14]], colours.rest, 1.5);
    pen.setLineDash([]);
    write(pen, "ε²/n^(1/L) a layer", left + 40, bottom - 10, colours.ink);
    const [[, now]] = between(here, (l) => [[l, Math.log(C[l])]]);
    pen.strokeStyle = pen.fillStyle = colours.ink;
    pen.lineWidth = 1.8;
    pen.beginPath();
    C.forEach((value, l) => MARKERS[0](pen, x(l), y(value), 3.5));
    MARKERS[0](pen, left + 22, bottom - 32, 3.5);
    pen.fill();
    write(pen, "trained", left + 40, bottom - 28, colours.ink);
    pen.strokeStyle = colours.ink;
    pen.beginPath();
    MARKERS[0](pen, x(here), y(Math.exp(now)), 8);
    pen.stroke();
    for (let l = 0; l < L; l++) write(pen, String(l), x(l), bottom + 17, colours.ink, "center");
    write(pen, "layer l", (left + right) / 2, bottom + 34, colours.ink, "center");
  }

  function end() {
    trained.halt();
    cancelAnimationFrame(frame);
  }

  const another = ["New start", () => stage.set("seed", 1 + Math.floor(Math.random() * 999999))];
  return {
    height: (width) => (width < 560 ? 37 : 23),
    buttons: [travel, ...trained.buttons, another], change, draw, end,
    start() {
      trained.run();
      show(layer());
    },
  };
}

export default live("features", controls, figure);
