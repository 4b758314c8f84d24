// Which step size survives, live: the error after 25 steps over the step size, of networks with one
// hidden layer and several widths, in NTK parameterisation and in muP. No network of width N trains
// here. Training sees of it only A = eta_2 W^T W, z = eta_1 |a|^2, b = W^T a and q = eta_1 eta_2, and
// these follow a recursion of 16 by 16 matrices. Its start is drawn as what it is in a network of
// width N, a Wishart matrix and what belongs to it, from as many random numbers at each width. They
// are the same numbers at all widths: so the curves move evenly when the width is dragged.

import controls from "./transfer.json" with { type: "json" };
import { border, line, live, make, short, write } from "./kit.js";
import { normal, uniform } from "./numbers.js";

export const INPUTS = 16, STEPS = 25, NARROW = 32, NETWORKS = 4;
export const ETAS = Float64Array.from({ length: 33 }, (_, i) => 2 ** (i / 4 - 6.5));
const DIVERGED = 1e3; // counts as the error of what has diverged
const D = INPUTS, LAM = Float64Array.from({ length: D }, (_, k) => 1 / (k + 1));
const TARGET = LAM.map((x) => Math.sqrt(x) / Math.hypot(...LAM)); // b*, with an error of one at b = 0

// --- What is drawn -----------------------------------------------------------------------------

/** A chi-squared number from a normal one: Wilson and Hilferty (1931), good to a hundredth here. */
const chiSquared = (n, x) => n * (1 - 2 / (9 * n) + x * Math.sqrt(2 / (9 * n))) ** 3;

/** Normal numbers of which a Wishart matrix is made, a vector beside it, and one for what is left. */
function numbers(random) {
  const some = (n) => Float64Array.from({ length: n }, () => normal(random));
  return { square: some(D * D), vector: some(D), rest: normal(random) };
}

/** What `NETWORKS` networks and their samples are made of, whatever the width. */
export function draws(seed) {
  const random = uniform(seed);
  return Array.from({ length: NETWORKS }, () => ({ start: numbers(random), data: numbers(random) }));
}

/**
 * G^T G and G^T x, with G of n by D normal numbers and x of n, and |x|^2: G = Q R, R^T R is G^T G, and
 * of x only Q^T x counts, which is normal, and the length of the rest (Bartlett 1933).
 */
export function wishart(n, { square, vector, rest }) {
  const R = square.map((x, i) => {
    const row = Math.floor(i / D), column = i % D;
    return row === column ? Math.sqrt(chiSquared(n - row, x)) : row < column ? x : 0;
  });
  const gram = new Float64Array(D * D), image = new Float64Array(D);
  for (let l = 0; l < D; l++) {
    for (let i = l; i < D; i++) {
      image[i] += R[l * D + i] * vector[l];
      for (let j = l; j < D; j++) gram[i * D + j] += R[l * D + i] * R[l * D + j];
    }
  }
  return { gram, image, length: vector.reduce((sum, x) => sum + x * x, chiSquared(n - D, rest)) };
}

/** Where training starts at width N, of a step eta = 1. At width NARROW both are one network. */
export function startOf(N, gamma0, mup, drawn) {
  const { gram, image, length } = wishart(N, drawn), n = N / NARROW;
  const small = gamma0 * NARROW * Math.sqrt(n) * (mup ? Math.sqrt(n) : 1); // one over a weight of a
  return {
    A: gram.map((x) => x / N),
    z: length / N,
    b: image.map((x) => x / small),
    q: gamma0 ** 2 / (mup ? 1 : n),
  };
}

/** The covariance C of the inputs and v = C b*; or what P samples with noise on their labels say of it. */
export function seenOf({ data, P, delta }, drawn) {
  if (!data) return { v: LAM.map((x, k) => x * TARGET[k]) };
  const { gram, image } = wishart(P, drawn), root = LAM.map(Math.sqrt);
  const C = gram.map((x, i) => x * root[Math.floor(i / D)] * root[i % D] / P);
  const v = image.map((x, i) => {
    let sum = delta * root[i] * x / P;
    for (let j = 0; j < D; j++) sum += C[i * D + j] * TARGET[j];
    return sum;
  });
  return { C, v };
}

// --- The recursion -----------------------------------------------------------------------------

const A = new Float64Array(D * D), b = new Float64Array(D), g = new Float64Array(D);
const Ag = new Float64Array(D), u = new Float64Array(D), last = new Float64Array(D);

/** The negative gradient v - C b. */
function look({ C, v }) {
  if (!C) for (let i = 0; i < D; i++) g[i] = v[i] - LAM[i] * b[i];
  else {
    for (let i = 0; i < D; i++) {
      let sum = v[i];
      for (let j = 0; j < D; j++) sum -= C[i * D + j] * b[j];
      g[i] = sum;
    }
  }
}

/** The error after STEPS steps, at most DIVERGED. */
export function errorAfter(start, eta, seen) {
  const q = eta * eta * start.q;
  let z = eta * start.z;
  for (let i = 0; i < D * D; i++) A[i] = eta * start.A[i];
  b.set(start.b);
  u.fill(0);
  g.fill(0);
  for (let t = 0; t < STEPS; t++) {
    last.set(g); // A has still to move by u g^T + g u^T of the last step before it meets the new g
    look(seen);
    let bg = 0, gAg = 0;
    Ag.fill(0);
    for (let i = 0; i < D; i++) { // A is symmetric: half of it will do
      const gi = g[i], ui = u[i], li = last[i], row = i * D;
      let sum = (A[row + i] += 2 * ui * li) * gi;
      for (let j = i + 1; j < D; j++) {
        const now = A[row + j] + ui * last[j] + li * u[j];
        A[row + j] = now;
        sum += now * g[j];
        Ag[j] += now * gi;
      }
      Ag[i] += sum;
      bg += b[i] * gi;
      gAg += Ag[i] * gi;
    }
    if (!(Math.abs(bg) < 1e12)) return DIVERGED;
    for (let i = 0; i < D; i++) {
      u[i] = q * (b[i] + z / 2 * g[i]);
      b[i] += Ag[i] + (z + q * bg) * g[i];
    }
    z += q * (2 * bg + gAg);
  }
  let error = 0;
  for (let i = 0; i < D; i++) error += LAM[i] * (b[i] - TARGET[i]) ** 2;
  return error < DIVERGED ? error : DIVERGED;
}

/** The mean of log10 of the error over the networks drawn, at each step size. */
export function valley(settings, N, mup, drawn = draws(settings.seed)) {
  const found = new Float64Array(ETAS.length);
  for (const each of drawn) {
    const start = startOf(N, settings.gamma0, mup, each.start), seen = seenOf(settings, each.data);
    for (let i = 0; i < found.length; i++) found[i] += Math.log10(errorAfter(start, ETAS[i], seen)) / drawn.length;
  }
  return found;
}

/** Where a valley is lowest, among the step sizes. */
export const best = (curve) => curve.indexOf(Math.min(...curve));

// --- The figure --------------------------------------------------------------------------------

const PHONE = 540; // pixels: below, the panels stand one below the other
const LOW = [-6.5, -2.6], HIGH = 0.8; // of both axes, for each kind of data: nothing moves them
const WIDTHS = 4, FAINT = [1, 0.5, 0.72, 1]; // how much of its colour a width gets
const NAMES = ["NTK", "muP"];

/** The widths shown: the narrow one, the widest, and two between. */
export const widths = (N) =>
  Array.from({ length: WIDTHS }, (_, i) => Math.round(NARROW * (N / NARROW) ** (i / (WIDTHS - 1))));

const step = (x) => short(x, 2);

/** The places of the two panels, and where a step size stands in the first. */
function panels(width, height) {
  const stacked = width < PHONE, wide = stacked ? width - 62 : (width - 124) / 2;
  return NAMES.map((_, i) => {
    const left = 50 + (stacked ? 0 : i * (wide + 62)), above = stacked ? i * height / 2 : 0;
    return { left, right: left + wide, top: above + 24, bottom: above + (stacked ? height / 2 : height) - 42 };
  });
}

const from = Math.log(ETAS[0]), span = Math.log(ETAS[ETAS.length - 1]) - from;
const across = ({ left, right }, eta) => left + (Math.log(eta) - from) / span * (right - left);

/** The parts of a curve that lie below a height, each cut off where it leaves. */
function cut(points, top) {
  const found = [];
  points.forEach(([x, y], i) => {
    const [x0, y0] = points[i - 1] ?? [x, y];
    if ((y < top) !== (y0 < top)) found.push([x0 + (x - x0) * (top - y0) / (y - y0), top]);
    found.push(y < top ? [NaN, NaN] : [x, y]);
  });
  return found;
}

/** Move texts, each with its y, so far apart that all can be read, between two heights. */
function apart(texts, top, bottom, room = 14) {
  texts.sort((one, other) => one.y - other.y);
  texts.forEach((text, i) => { text.y = Math.max(text.y, i ? texts[i - 1].y + room : top); });
  texts.reverse().forEach((text, i) => { text.y = Math.min(text.y, i ? texts[i - 1].y - room : bottom); });
}

function figure(stage) {
  const { settings, canvas } = stage;
  let drawn, seed, curves; // of the two panels, for each width; only the narrow one before all are shown
  const shape = () => (settings.shown ? widths(settings.N) : [NARROW]);
  const show = make("button", { type: "button" });
  show.addEventListener("click", () => stage.set("shown", 1 - settings.shown));

  function change(name) {
    if ((name === "P" || name === "delta") && !settings.data) stage.set("data", 1); // and that draws
    else if (name === "guess") stage.paint(), say();
    else run();
  }

  function run() {
    if (seed !== settings.seed) drawn = draws(seed = settings.seed);
    show.textContent = settings.shown ? "Guess again" : "Show the wide networks";
    const narrow = valley(settings, NARROW, true, drawn);
    curves = NAMES.map((_, mup) => shape().map((N, i) => (i ? valley(settings, N, mup, drawn) : narrow)));
    stage.paint();
    say();
  }

  function say() {
    const { N, guess, shown, data, P, delta } = settings, at = (curve) => ETAS[best(curve)], narrow = at(curves[0][0]);
    const on = data ? `On ${P} samples with noise ${short(delta)}, the` : "The";
    const first = `${on} best step at width ${NARROW} is ${step(narrow)}`;
    if (!shown) {
      stage.say(
        `${first}. Where will it be at width ${N} under NTK? Your guess is ${step(guess)}: move it, then show.`,
        `Error after ${STEPS} steps over the step size, at width ${NARROW}.`);
      return;
    }
    const moves = (wide) => {
      const ratio = wide / narrow;
      if (Math.abs(Math.log2(ratio)) < 0.3) return `${step(wide)}, ${ratio === 1 ? "it stays" : "it stays, up to the grid"}`;
      return `${step(wide)}, ${ratio > 1 ? `${short(ratio, 2)} times as long` : `shorter by a factor of ${short(1 / ratio, 2)}`}`;
    };
    const [ntk, mup] = curves.map((each) => at(each[WIDTHS - 1])), missed = Math.log2(guess / ntk);
    const close = Math.abs(missed) < 0.3 ? "right" : `a factor of ${short(2 ** Math.abs(missed), 2)} too ${missed > 0 ? "long" : "short"}`;
    stage.say(
      `${first}. At width ${N} under NTK: ${moves(ntk)}; your guess, ${step(guess)}, was ${close}. Under muP: ${moves(mup)}.`,
      `Error after ${STEPS} steps over the step size, at widths ${widths(N).join(", ")}: NTK and muP.`);
  }

  function draw(pen, width, height, colours) {
    panels(width, height).forEach((panel, i) => picture(pen, panel, i, colours));
  }

  function picture(pen, panel, i, colours) {
    const { top, bottom, left, right } = panel, low = LOW[settings.data];
    const y = (value) => bottom - (Math.max(value, low) - low) / (HIGH - low) * (bottom - top);
    const put = border(pen, panel, `error after ${STEPS} steps, ${NAMES[i]}`, colours.ink);
    for (let n = 0; n >= low; n -= settings.data ? 1 : 2) put(y(n), short(10 ** n, 2));
    for (const eta of [0.03, 0.1, 0.3, 1]) {
      pen.fillRect(across(panel, eta), bottom, 1, 4);
      write(pen, String(eta), across(panel, eta), bottom + 17, colours.ink, "center");
    }
    write(pen, "step size η", (left + right) / 2, bottom + 33, colours.ink, "center");
    const texts = [], names = widths(settings.N);
    curves[i].forEach((curve, n) => {
      const colour = n ? colours.rises : colours.falls, at = best(curve), x = across(panel, ETAS[at]);
      const points = [...curve].map((value, j) => [across(panel, ETAS[j]), value > HIGH ? bottom - (value - low) / (HIGH - low) * (bottom - top) : y(value)]);
      pen.globalAlpha = FAINT[n];
      pen.setLineDash([2, 4]);
      line(pen, [[x, n ? y(curve[at]) : top], [x, bottom]], colour, n ? 1.2 : 1.6);
      pen.setLineDash([]);
      line(pen, cut(points, top), colour, n ? 1.4 + 0.3 * n : 2);
      pen.globalAlpha = 1;
      pen.fillStyle = colour;
      pen.beginPath();
      pen.arc(x, y(curve[at]), 4.5, 0, 2 * Math.PI);
      pen.fill();
      texts.push({ text: n ? String(names[n]) : `width ${NARROW}`, x, y: y(curve[at]) + (settings.data ? 17 : 5), colour }); // a flat valley leaves no room beside it
    });
    apart(texts, top + 40, bottom - 6);
    for (const { text, x, y: height, colour } of texts) {
      const beside = x - 9 - 8 * text.length < left; // no room on the left, where nothing else is
      write(pen, text, x + (beside ? 9 : -9), height, colour, beside ? "start" : "right");
    }
    if (i) return;
    const x = across(panel, settings.guess), late = x > right - 80;
    pen.setLineDash([7, 4]);
    line(pen, [[x, top], [x, bottom]], colours.fourth, 2);
    pen.setLineDash([]);
    write(pen, "your guess", x + (late ? -6 : 6), top + 12, colours.fourth, late ? "right" : "start");
  }

  // The guess can be dragged in the picture, too, as long as the answer is hidden.
  let held = null;
  canvas.style.touchAction = "pan-y pinch-zoom"; // up and down scrolls the page
  function drag(event) {
    const [panel] = panels(canvas.clientWidth, canvas.clientHeight);
    const share = (event.offsetX - panel.left) / (panel.right - panel.left);
    if (event.type === "pointerdown") {
      if (settings.shown || share < 0 || share > 1 || event.offsetY > panel.bottom) return;
      held = event.pointerId;
      canvas.setPointerCapture(held);
    } else if (held !== event.pointerId) return;
    stage.set("guess", Number(Math.exp(from + share * span).toPrecision(2)));
  }
  canvas.addEventListener("pointerdown", drag);
  canvas.addEventListener("pointermove", drag);
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });

  const another = ["New networks", () => stage.set("seed", 1 + Math.floor(Math.random() * 999999))];
  const height = (width) => (width < PHONE ? 36 : 20);
  return { height, buttons: [show, another], change, draw, start: run };
}

export default live("transfer", controls, figure);
