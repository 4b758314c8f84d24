// Matrix completion, live. Two networks of width 2r train side by side on the observed entries of a
// d by d matrix of rank r: one compressed from a wide network's start (scheme A), whose outer factors
// have a rate of their own, the other from a random start. No theorem makes this smaller: they are
// trained as they are. A step looks at the observed entries alone; all are worked out where the
// error is drawn.

import controls from "./completion.json" with { type: "json" };
import { axes, line, live, make, many, short, training, write } from "./kit.js";
import { orthonormal, orthonormalise, squares, times, turnRows, uniform } from "./numbers.js";

/** The start's scale: the deeper, the larger, or the first mode would never get away from it. */
export const startScale = (L) => 10 ** (L - 5);

/** A target of rank r, with random singular vectors and singular values from 1 down to 1/2. */
export function lowRank(d, r, random) {
  const U = orthonormal(d, r, random), V = orthonormal(d, r, random);
  const strong = U.map((x, i) => x * (r > 1 ? 1 - (i % r) / (2 * (r - 1)) : 1));
  return times(d, r, d, strong, V, undefined, "B");
}

/** A mask in which each entry is observed with probability p. */
export function sample(d, p, random) {
  return Uint8Array.from({ length: d * d }, () => (random() < p ? 1 : 0));
}

/** The observed entries of Phi: where they are, and what they are. */
export function observe(mask, Phi, d) {
  const places = [...mask.keys()].filter((i) => mask[i]);
  return {
    rows: Int32Array.from(places, (i) => Math.floor(i / d)),
    columns: Int32Array.from(places, (i) => i % d),
    values: Float64Array.from(places, (i) => Phi[i]),
  };
}

/** The first r left and right singular vectors of M, as columns. */
export function leading(M, d, r, random) {
  const turned = turnRows(Float64Array.from(M), d, d); // = J M, whose rows are s_i v_i
  const lengths = squares(turned, d, d);
  const order = [...lengths.keys()].sort((a, b) => lengths[b] - lengths[a]).slice(0, r);
  const V = Float64Array.from({ length: d * r }, (_, i) => turned[order[i % r] * d + Math.floor(i / r)]);
  orthonormalise(V, d, r, random); // they are orthogonal; where M has a lower rank, any will do
  return { U: orthonormalise(times(d, d, r, M, V), d, r, random), V };
}

/**
 * The compressed network's start, as lop_utils.compression.compress makes it: V spans [V_r, A^T U_r],
 * U = A V, and the L inner layers are eps I. A is the wide network's product over eps^L.
 */
export function compressedStart({ U, V }, A, d, r, L, eps, random) {
  const k = 2 * r, AU = times(d, d, r, A, U, undefined, "A");
  const both = Float64Array.from({ length: d * k }, (_, i) => {
    const row = Math.floor(i / k), j = i % k;
    return j < r ? V[row * r + j] : AU[row * r + j - r];
  });
  const Q = orthonormalise(both, d, k, random);
  const inner = Array.from({ length: L }, () =>
    Float64Array.from({ length: k * k }, (_, i) => (i % (k + 1) ? 0 : eps)));
  return { P: times(d, d, k, A, Q), Q, inner };
}

/** The narrow network's start: L layers of width k, each eps times a random isometry. */
export function narrowStart(d, k, L, eps, random) {
  const scaled = (n) => orthonormal(n, k, random).map((x) => eps * x);
  return { P: scaled(d), Q: scaled(d), inner: Array.from({ length: L - 2 }, () => scaled(k)) };
}

/**
 * A network P W_m ... W_1 Q^T in training on the observed entries, by gradient descent on
 * half the sum of their squared errors: P and Q at the rate `outerEta`, what is between at `eta`.
 */
export class Network {
  constructor({ P, Q, inner }, seen, d, k, eta, outerEta) {
    const core = () => new Float64Array(k * k), tall = () => new Float64Array(d * k);
    Object.assign(this, { P, Q, inner, seen, d, k, eta, outerEta, t: 0 });
    this.prefix = Array.from({ length: inner.length + 1 }, core); // W_l ... W_1
    for (let i = 0; i < k; i++) this.prefix[0][i * (k + 1)] = 1;
    this.sweep = [core(), core()]; // W_{l+1}^T ... W_m^T P^T R Q, and the next
    this.gradient = core();
    this.B = tall(); // P W_m ... W_1
    this.RQ = tall(); // R Q and R^T B, where R is the error on the observed entries
    this.RB = tall();
    this.gradientP = tall();
    this.look();
  }

  /** Work out the products, the errors and the loss of the present weights. */
  look() {
    const { P, Q, inner, prefix, B, RQ, RB, d, k } = this, { rows, columns, values } = this.seen;
    inner.forEach((W, l) => times(k, k, k, W, prefix[l], prefix[l + 1]));
    times(d, k, k, P, prefix[inner.length], B);
    RQ.fill(0);
    RB.fill(0);
    let square = 0;
    for (let n = 0; n < values.length; n++) {
      const i = rows[n] * k, j = columns[n] * k;
      let error = -values[n];
      for (let l = 0; l < k; l++) error += B[i + l] * Q[j + l];
      square += error * error;
      for (let l = 0; l < k; l++) {
        RQ[i + l] += error * Q[j + l];
        RB[j + l] += error * B[i + l];
      }
    }
    this.loss = square / 2;
  }

  advance() {
    const { P, Q, inner, prefix, RQ, RB, gradient, gradientP, d, k, eta, outerEta } = this;
    let [S, next] = this.sweep;
    times(k, d, k, P, RQ, S, "A");
    times(d, k, k, RQ, prefix[inner.length], gradientP, "B");
    for (let l = inner.length - 1; l >= 0; l--) {
      times(k, k, k, S, prefix[l], gradient, "B");
      if (l > 0) times(k, k, k, inner[l], S, next, "A"); // with the weights of before the step
      for (let i = 0; i < k * k; i++) inner[l][i] -= eta * gradient[i];
      [S, next] = [next, S];
    }
    for (let i = 0; i < d * k; i++) {
      P[i] -= outerEta * gradientP[i];
      Q[i] -= outerEta * RB[i];
    }
    this.t += 1;
    this.look();
  }

  get finite() {
    return Number.isFinite(this.loss) && this.loss < 1e12;
  }

  /** The completed matrix. */
  product(out) {
    return times(this.d, this.k, this.d, this.B, this.Q, out, "B");
  }
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** A mask as text: six entries a character (base64url). */
export function encode(mask) {
  let text = "";
  for (let i = 0; i < mask.length; i += 6) {
    let digit = 0;
    for (let bit = 0; bit < 6; bit++) digit = 2 * digit + (mask[i + bit] ?? 0);
    text += DIGITS[digit];
  }
  return text;
}

/** The mask of a text, or null if it is not one for a d by d matrix. */
export function decode(text, d) {
  if (text.length !== Math.ceil(d * d / 6)) return null;
  return Uint8Array.from({ length: d * d }, (_, i) => (DIGITS.indexOf(text[Math.floor(i / 6)]) >> (5 - i % 6)) & 1);
}

/**
 * How densely a mask lies: its largest singular value over d. For a sample by chance this is p; where
 * entries are crowded it is more, and eta over it stays stable.
 */
export function density({ rows, columns }, d) {
  let x = new Float64Array(d).fill(1), size = 0;
  for (let round = 0; round < 30; round++) {
    const y = new Float64Array(d), next = new Float64Array(d);
    rows.forEach((i, n) => { y[i] += x[columns[n]]; });
    rows.forEach((i, n) => { next[columns[n]] += y[i]; });
    size = Math.sqrt(Math.hypot(...next));
    if (size > 0) x = next.map((each) => each / size ** 2);
  }
  return size / d;
}

/** What the networks are asked: a target, what is seen of it, and what the compressed start needs. */
export function problem({ d, r, p, target, sample: seed, painted }) {
  const random = uniform(target), Phi = lowRank(d, r, random), A = orthonormal(d, d, random);
  const mask = decode(painted, d) ?? sample(d, p, uniform(seed + 1e6)); // not the target's numbers
  const seen = observe(mask, Phi, d);
  const vectors = leading(Phi.map((x, i) => x * mask[i]), d, r, random); // of the sample over p, too
  return { Phi, A, mask, seen, vectors, dense: density(seen, d), norm: Math.hypot(...Phi) };
}

/** The two networks of a setting, compressed and narrow, at their start. */
export function networks({ d, r, L, gamma, eta, target }, { A, seen, dense, vectors }) {
  const k = 2 * r, eps = startScale(L), rate = dense > 0 ? eta / dense : 0, random = uniform(target + 2e6);
  const compressed = compressedStart(vectors, A, d, r, L, eps, random);
  return [
    new Network(compressed, seen, d, k, rate, gamma * rate),
    new Network(narrowStart(d, k, L, eps, random), seen, d, k, rate, rate),
  ];
}

/** The relative error of a matrix on all entries. */
export function recovery(W, { Phi, norm }) {
  let square = 0;
  for (let i = 0; i < W.length; i++) square += (W[i] - Phi[i]) ** 2;
  return Math.sqrt(square) / norm;
}

// --- The figure --------------------------------------------------------------------------------

const POINTS = 250; // of each curve
const NAMES = ["compressed", "narrow"], HUES = ["third", "fourth"];
const RECOVERED = 0.01;

/** Where the three matrices and the curves stand: in a row, or on a phone the first by itself. */
function layout(width) {
  const wide = width >= 480, gap = 20, top = 24;
  const side = (width - 2 * gap) / 3, half = (width - gap) / 2, first = wide ? side : 0.7 * width;
  const next = wide ? top : top + first + 32;
  const at = (i) => (wide ? { x: i * (side + gap), y: top, side } : { x: (i - 1) * (half + gap), y: next, side: half });
  const panelTop = next + (wide ? side : half) + 40, bottom = panelTop + 160;
  return {
    maps: [{ x: 0, y: top, side: first }, at(1), at(2)],
    panel: { left: 58, right: width - 88, top: panelTop, bottom },
    height: bottom + 36,
  };
}

function figure(stage) {
  const { settings, canvas } = stage;
  let asked, key, nets, matrices, history, places = layout(720);
  let stroke = null; // what is being painted: { mask, value, last }
  const cursor = { row: 0, column: 0, shown: false };
  const every = () => Math.max(1, Math.round(settings.steps / POINTS));
  const diverged = () => nets.findIndex((net) => !net.finite);
  const over = () => asked.dense === 0 || nets[0].t >= settings.steps || diverged() >= 0;

  function note() {
    if (history.at(-1)?.t === nets[0].t) return;
    nets.forEach((net, i) => net.product(matrices[i]));
    history.push({ t: nets[0].t, errors: matrices.map((W) => recovery(W, asked)) });
  }

  const trained = training(stage, {
    begin() {
      const { d, r, p, target, sample: seed, painted } = settings;
      const now = JSON.stringify([d, r, p, target, seed, painted]);
      if (now !== key) [key, asked] = [now, problem(settings)]; // a rate changes none of it
      nets = networks(settings, asked);
      matrices = nets.map(() => new Float64Array(d * d));
      history = [];
      note();
    },
    advance() {
      nets.forEach((net) => net.advance());
      if (nets[0].t % every() === 0 || over()) note();
    },
    over,
    step: () => nets[0].t,
    steps: () => settings.steps,
    note,
    say,
  });

  function change(name) {
    if (["d", "p", "sample"].includes(name) && settings.painted) return stage.set("painted", "");
    stroke = null;
    cursor.row = Math.min(cursor.row, settings.d - 1);
    cursor.column = Math.min(cursor.column, settings.d - 1);
    trained.run();
  }

  function say() {
    const { d, r } = settings, { t, errors } = history[history.length - 1], bad = diverged();
    const count = asked.seen.values.length, free = r * (2 * d - r);
    const told = (i) => {
      const first = history.find((point) => point.errors[i] < RECOVERED);
      return `${NAMES[i]} ${short(errors[i])}${first ? ` (first below 0.01 at step ${first.t})` : ""}`;
    };
    const seen = `${count} of ${d * d} entries are observed, to determine r(2d\u00a0−\u00a0r)\u00a0= ${free} numbers`
      + `${count < free ? ": too few" : ""}.`;
    stage.say(
      count === 0 ? "Nothing is observed: paint some entries, or take a new sample."
        : bad >= 0 ? `After ${many(t, "step")} the ${NAMES[bad]} network is beyond all bounds: this step η, or rate γ, is too large. ${seen}`
          : `After ${many(t, "step")}: recovery error ${told(0)}, ${told(1)}. ${seen}`,
      "Observed matrix, its two completions, and their recovery error by step. "
        + "Arrow keys move over the observed matrix; space shows or hides entries.");
  }

  // Painting: a brush of three by three entries that shows or hides, as its first entry asks for.

  function dab(mask, row, column, value) {
    for (let i = Math.max(row - 1, 0); i <= Math.min(row + 1, settings.d - 1); i++) {
      for (let j = Math.max(column - 1, 0); j <= Math.min(column + 1, settings.d - 1); j++) mask[i * settings.d + j] = value;
    }
  }

  function cellAt({ offsetX, offsetY }, outside = false) {
    const { x, y, side } = places.maps[0], { d } = settings;
    const row = Math.floor((offsetY - y) / side * d), column = Math.floor((offsetX - x) / side * d);
    return outside || (row >= 0 && row < d && column >= 0 && column < d) ? { row, column } : null;
  }

  function paintTo({ row, column }) {
    const { last, mask, value } = stroke;
    const far = Math.max(Math.abs(row - last.row), Math.abs(column - last.column), 1);
    for (let i = 1; i <= far; i++) {
      const way = (from, to) => Math.round(from + (i / far) * (to - from));
      dab(mask, way(last.row, row), way(last.column, column), value);
    }
    stroke.last = { row, column };
    stage.paint();
  }

  function begun(cell) {
    const mask = Uint8Array.from(asked.mask);
    return { mask, value: 1 - mask[cell.row * settings.d + cell.column], last: cell };
  }

  function finish() {
    const { mask } = stroke;
    stroke = null;
    stage.set("painted", encode(mask));
  }

  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application"); // else a screen reader keeps the arrow keys
  canvas.style.touchAction = "pan-y pinch-zoom"; // up and down scrolls the page; sideways paints
  canvas.addEventListener("pointerdown", (event) => {
    const cell = event.isPrimary && event.button === 0 && cellAt(event);
    if (!cell) return;
    trained.halt();
    canvas.setPointerCapture(event.pointerId);
    Object.assign(cursor, cell, { shown: false });
    stroke = { ...begun(cell), pointer: event.pointerId };
    paintTo(cell);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (stroke && stroke.pointer !== event.pointerId) return; // a second finger
    if (stroke) paintTo(cellAt(event, true));
    else canvas.style.cursor = cellAt(event) ? "crosshair" : "";
  });
  canvas.addEventListener("pointerup", (event) => stroke?.pointer === event.pointerId && finish());
  canvas.addEventListener("pointercancel", () => { // the page scrolls: it was not meant to paint
    if (stroke) change("painted");
  });
  canvas.addEventListener("focus", () => {
    cursor.shown = canvas.matches(":focus-visible");
    stage.paint();
  });
  canvas.addEventListener("blur", () => {
    cursor.shown = false;
    stage.hint("");
    stage.paint();
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.ctrlKey || event.altKey || event.metaKey || !(move || event.key === " ")) return;
    event.preventDefault();
    const { d } = settings, inside = (x) => Math.min(Math.max(x, 0), d - 1);
    cursor.shown = true;
    if (!move) {
      stroke = begun(cursor);
      paintTo(cursor);
      return finish();
    }
    cursor.row = inside(cursor.row + move[0]);
    cursor.column = inside(cursor.column + move[1]);
    stage.paint();
    const seen = asked.mask[cursor.row * d + cursor.column] ? "observed" : "hidden";
    stage.hint(`Row ${cursor.row + 1}, column ${cursor.column + 1}: ${seen}.`);
  });

  // Drawing.

  const sheet = make("canvas"), sheetPen = sheet.getContext("2d");

  /** Draw a matrix: from one hue through the grey of zero to another; what is hidden is left out. */
  function map(pen, { x, y, side }, W, mask, title, hue, colours) {
    const { d } = settings, most = 2.5 * asked.norm / d; // 2.5 times a usual entry is full colour
    const [low, middle, high] = ["falls", "rest", "rises"].map((name) =>
      [1, 3, 5].map((i) => parseInt(colours[name].slice(i, i + 2), 16)));
    if (sheet.width !== d) sheet.width = sheet.height = d;
    const image = sheetPen.createImageData(d, d);
    for (let i = 0; i < d * d; i++) {
      if (mask && !mask[i]) continue;
      const strength = Math.min(Math.abs(W[i]) / most, 1), end = W[i] < 0 ? low : high;
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = middle[c] + strength * (end[c] - middle[c]);
      image.data[4 * i + 3] = 255 * (0.22 + 0.78 * strength);
    }
    sheetPen.putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(sheet, x, y, side, side);
    pen.strokeStyle = colours.rest;
    pen.lineWidth = 1;
    pen.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
    write(pen, title, x, y - 8, hue);
  }

  function draw(pen, width, height, colours) {
    places = layout(width);
    const { d, steps } = settings, { maps, panel } = places, { left, right } = panel;
    map(pen, maps[0], asked.Phi, stroke?.mask ?? asked.mask, "observed", colours.ink, colours);
    NAMES.forEach((name, i) => map(pen, maps[i + 1], matrices[i], null, name, colours[HUES[i]], colours));
    if (cursor.shown) {
      const { x, y, side } = maps[0], cell = side / d;
      pen.strokeStyle = colours.ink;
      pen.lineWidth = 2;
      pen.strokeRect(x + (cursor.column - 1) * cell, y + (cursor.row - 1) * cell, 3 * cell, 3 * cell);
    }
    const shown = (error) => Math.min(error, 10); // a network that runs away leaves the axis alone
    const y = axes(pen, panel, history.flatMap(({ errors }) => errors.map(shown)), "recovery error", colours.ink);
    const ends = NAMES.map((_, i) => y(shown(history[history.length - 1].errors[i])));
    const middle = (ends[0] + ends[1]) / 2, apart = Math.max(Math.abs(ends[0] - ends[1]) / 2, 8);
    NAMES.forEach((name, i) => {
      line(pen, history.map(({ t, errors }) => [left + (t / steps) * (right - left), y(shown(errors[i]))]), colours[HUES[i]]);
      const lower = ends[i] > ends[1 - i] || (ends[i] === ends[1 - i] && i === 1);
      write(pen, name, right + 6, middle + (lower ? apart : -apart) + 4, colours[HUES[i]]);
    });
    write(pen, "step t", (left + right) / 2, height - 4, colours.ink, "center");
    write(pen, "0", left, height - 18, colours.ink, "center");
    write(pen, String(steps), right, height - 18, colours.ink, "center");
  }

  const seed = () => 1 + Math.floor(Math.random() * 999999);
  const sampled = ["New sample", () => stage.set("sample", seed())];
  const emptied = ["Hide all", () => stage.set("painted", encode(new Uint8Array(settings.d ** 2)))];
  const another = ["New target", () => stage.set("target", seed())];
  return {
    height: (width) => layout(width).height / 16,
    buttons: [...trained.buttons, sampled, emptied, another],
    change, draw, start: trained.run, end: trained.halt,
  };
}

export default live("completion", controls, figure);
