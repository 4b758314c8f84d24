// The law of parsimony, live. A deep linear network of width d trains here as the theorem says:
// a core of 2r by 2r matrices, and one number rho for the d - 2r directions that are left. How the
// core begins depends on the start and the target through one r by r matrix alone, the overlap
// M = V^T (W_L...W_1(0) / eps^L)^T U of the target's singular vectors; it is drawn as what it is, a
// block of a random orthogonal d by d matrix, without an array of that size.

import controls from "./law.json" with { type: "json" };
import { axes, line, live, many, short, training, write } from "./kit.js";
import { cholesky, Layers, multiply, normal, uniform } from "./numbers.js";

/** A chi-squared number with n degrees of freedom: a sum of n squares, without a loop over n. */
export function chiSquared(random, n) {
  if (n < 1) return 0;
  if (n === 1) return normal(random) ** 2;
  const a = n / 2 - 1 / 3; // Marsaglia and Tsang (2000)
  for (;;) {
    const x = normal(random);
    const v = (1 + x / Math.sqrt(9 * a)) ** 3;
    if (v > 0 && Math.log(random()) < x * x / 2 + a * (1 - v + Math.log(v))) return 2 * a * v;
  }
}

/** An r by r block of a random orthogonal d by d matrix, exactly (d >= 2r). */
export function overlap(d, r, random) {
  // r columns are G (G^T G + T^T T)^(-1/2) up to a rotation: G are r rows of normal numbers, and
  // T stands for the d - r others, of which only T^T T counts (Bartlett 1933).
  const G = Float64Array.from({ length: r * r }, () => normal(random));
  const T = new Float64Array(r * r);
  for (let i = 0; i < r; i++) {
    T[i * r + i] = Math.sqrt(chiSquared(random, d - r - i));
    for (let j = i + 1; j < r; j++) T[i * r + j] = normal(random);
  }
  const gram = multiply(G, G, r, new Float64Array(r * r), "A");
  const rest = multiply(T, T, r, new Float64Array(r * r), "A");
  const R = cholesky(gram.map((x, i) => x + rest[i]), r);
  for (let i = 0; i < r; i++) {
    for (let j = 0; j < r; j++) { // G R^(-1), row by row
      let sum = G[i * r + j];
      for (let l = 0; l < j; l++) sum -= G[i * r + l] * R[l * r + j];
      G[i * r + j] = sum / R[j * r + j];
    }
  }
  return G;
}

/** The singular values of the target: r of them from 3 down to 1. */
export function strengths(r) {
  return Float64Array.from({ length: r }, (_, i) => (r > 1 ? 3 - (2 * i) / (r - 1) : 3));
}

/** The target in the core's bases: [M; S] Sigma [I 0], where S^T S = I - M^T M. */
function coreTarget(M, r) {
  const k = 2 * r, sigma = strengths(r);
  const left = multiply(M, M, r, new Float64Array(r * r), "A").map((x, i) => (i % (r + 1) ? 0 : 1) - x);
  const S = cholesky(left, r);
  const target = new Float64Array(k * k);
  for (let i = 0; i < r; i++) {
    for (let j = 0; j < r; j++) {
      target[i * k + j] = M[i * r + j] * sigma[j];
      target[(r + i) * k + j] = S[i * r + j] * sigma[j];
    }
  }
  return target;
}

/** A network in training: the core, and rho. */
export class Network extends Layers {
  constructor({ d, r, L, eps, eta, lam }, M) {
    const k = 2 * r, start = () => Float64Array.from({ length: k * k }, (_, i) => (i % (k + 1) ? 0 : eps));
    super(Array.from({ length: L }, start), coreTarget(M, r), k, eta, lam);
    Object.assign(this, { d, rho: eps });
  }

  get loss() {
    return this.square / 2 + (this.d - this.k) / 2 * this.rho ** (2 * this.L);
  }

  advance() {
    super.advance();
    this.rho *= 1 - this.eta * this.lam - this.eta * this.rho ** (2 * this.L - 2);
  }

  get finite() {
    return Number.isFinite(this.loss) && this.loss < 1e12;
  }
}

// --- The figure --------------------------------------------------------------------------------

const POINTS = 250; // of each curve

function figure(stage) {
  const { settings } = stage;
  let network, history;
  const every = () => Math.floor(settings.steps / POINTS) | 1; // odd: else a zigzag of two steps is a line
  const over = () => network.t >= settings.steps || !network.finite;
  const shown = () => Math.min(settings.layer, settings.L);

  function note() {
    const { t, rho, loss, finite } = network;
    if (finite && history.at(-1)?.t !== t) history.push({ t, rho, loss, spectra: network.spectra() });
  }

  const trained = training(stage, {
    begin() {
      network = new Network(settings, overlap(settings.d, settings.r, uniform(settings.seed)));
      history = [];
      note();
    },
    advance() {
      network.advance();
      if (network.t % every() === 0 || over()) note();
    },
    over,
    step: () => network.t,
    steps: () => settings.steps,
    note,
    say,
  });

  function change(name) {
    if (name !== "layer") trained.run();
    stage.set("layer", shown());
    if (name !== "layer") return;
    stage.paint();
    say();
  }

  /** How many singular values of the layer are above rho, below, and equal to it. */
  function counts() {
    const { rho, spectra } = history[history.length - 1], values = spectra[shown() - 1];
    const above = values.filter((x) => x > rho * (1 + 1e-9)).length;
    const below = values.filter((x) => x < rho * (1 - 1e-9)).length;
    return { rho, above, below, equal: settings.d - above - below };
  }

  function say() {
    const layer = shown(), { rho, above, below, equal } = counts();
    stage.say(
      network.finite
        ? `After ${many(network.t, "step")}: in layer ${layer}, ${many(above, "singular value")} above ρ, `
          + `${below} below, and ${equal} equal to ρ = ${short(rho)}. Loss ${short(network.loss)}.`
        : `After ${many(network.t, "step")} the loss is beyond all bounds: this step η is too large.`,
      `Singular values of layer ${layer} and loss, by step.`);
  }

  function draw(pen, width, height, colours) {
    const { r, steps } = settings, layer = shown();
    const left = 58, right = width - 92, place = (t) => left + (t / steps) * (right - left);
    const panel = { left, right, top: 22, bottom: height * 0.66 };
    const below = { left, right, top: height * 0.66 + 34, bottom: height - 34 };
    const values = history.flatMap(({ rho, spectra }) => [Math.abs(rho), ...spectra[layer - 1]]);
    const y = axes(pen, panel, values, `singular values of W${"₁₂₃₄₅₆"[layer - 1]}`, colours.ink);
    const curve = (what, name, thick, at = y, bottom = panel.bottom) =>
      line(pen, history.map((point) => [place(point.t), Math.min(at(what(point)), bottom)]), colours[name], thick);
    curve(({ rho }) => Math.abs(rho), "rest", 4);
    for (let i = 0; i < 2 * r; i++) {
      curve(({ spectra }) => spectra[layer - 1][i], i < r ? "rises" : "falls", 1.8);
    }
    const last = history[history.length - 1].spectra[layer - 1], found = counts();
    const middle = y(Math.abs(found.rho)), end = right + 6;
    write(pen, `${found.equal} equal ρ`, end, middle + 4, colours.rest);
    if (found.above) write(pen, `${found.above} above`, end, Math.min(y(last[r - 1]), middle - 15) + 4, colours.rises);
    if (found.below) write(pen, `${found.below} below`, end, Math.max(y(last[r]), middle + 15) + 4, colours.falls);
    const loss = axes(pen, below, history.map((point) => point.loss), "loss", colours.ink);
    curve((point) => point.loss, "ink", 1.8, loss, below.bottom);
    write(pen, "step t", (left + right) / 2, height - 4, colours.ink, "center");
    write(pen, "0", left, height - 18, colours.ink, "center");
    write(pen, String(steps), right, height - 18, colours.ink, "center");
  }

  const another = ["New start", () => stage.set("seed", 1 + Math.floor(Math.random() * 999999))];
  const start = () => change("");
  return { height: 25, buttons: [...trained.buttons, another], change, draw, start, end: trained.halt };
}

export default live("law", controls, figure);
