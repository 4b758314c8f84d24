// The law of parsimony, live. A deep linear network of width d trains here as the theorem says:
// a core of 2r by 2r matrices, and one number rho for the d - 2r directions that are left (one for
// each layer: under Muon they differ). How the core begins depends on the start and the target through
// one r by r matrix alone, the overlap M = V^T (W_L...W_1(0) / eps^L)^T U of the target's singular
// vectors; it is drawn as what it is, a block of a random orthogonal d by d matrix, without an array of
// that size.

import controls from "./law.json" with { type: "json" };
import { axes, line, live, many, short, training, write } from "./kit.js";
import { METHODS } from "./methods.js";
import { cholesky, Layers, multiply, normal, orthonormal, times, uniform } from "./numbers.js";

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

const scaled = (k, eps, rows = k) =>
  Float64Array.from({ length: k * k }, (_, i) => (i % (k + 1) || i >= rows * k ? 0 : eps));

/**
 * Where the core of a network with this overlap starts. With r outputs (case 2) the last layer is r by
 * 2r, with rows of zeros below. The target is Sigma [M^T S^T], that of case 1 from the other side, with
 * M = U^T (W_L...W_1(0) / eps^L) V.
 */
export function coreStart({ d, r, L, eps, outputs = 0 }, M) {
  const k = 2 * r, target = coreTarget(M, r);
  const Ws = Array.from({ length: L }, (_, l) => scaled(k, eps, outputs && l === L - 1 ? r : k));
  const turned = target.map((_, i) => target[(i % k) * k + Math.floor(i / k)]);
  return { Ws, k, rest: d - k, target: outputs ? turned : target };
}

const WHOLE = 20; // the width of a network without a core

/** Where a whole network starts. */
export function wholeStart({ r, L, eps, outputs = 0 }, random) {
  const k = WHOLE, rows = outputs ? r : k, sigma = strengths(r);
  const Ws = Array.from({ length: L }, () => orthonormal(k, k, random).map((x) => eps * x));
  Ws[L - 1].fill(0, rows * k);
  const strong = orthonormal(rows, r, random).map((x, i) => x * sigma[i % r]);
  const target = new Float64Array(k * k);
  target.set(times(rows, r, k, strong, orthonormal(k, r, random), undefined, "B"));
  return { Ws, k, rest: 0, target };
}

/** A network in training: the core, and rho of each layer, for the `rest` of its directions. */
export class Network extends Layers {
  constructor({ r, L, eps, eta, lam, method = 0, outputs = 0 }, { Ws, target, k, rest }) {
    super(Ws, target, k, eta, lam);
    const rhos = new Float64Array(L).fill(eps);
    if (outputs) rhos[L - 1] = 0; // r rows have no room for the rest
    Object.assign(this, { r, rest, rhos, narrow: outputs > 0 });
    this.ways = Ws.map(() => METHODS[method].make(k, rest));
  }

  get loss() {
    return this.square / 2 + this.rest / 2 * this.rhos.reduce((all, rho) => all * rho ** 2, 1);
  }

  advance() {
    const { rhos } = this; // with r outputs one of them is zero
    this.pulls = rhos.map((rho, l) => rhos.reduce((all, other, j) => (j === l ? all : all * other ** 2), rho));
    super.advance();
  }

  move(l, G) {
    const { eta, lam, rhos } = this, W = this.Ws[l];
    rhos[l] -= eta * this.ways[l](G, this.pulls[l], W, rhos[l], lam);
    for (let i = 0; i < W.length; i++) W[i] -= eta * G[i];
  }

  /** How many singular values of layer l, from 1, are rho. */
  equal(l) {
    return this.narrow && l === this.L ? 0 : this.rest;
  }

  /** The other singular values of each layer. */
  spectra() {
    const found = super.spectra();
    if (this.narrow) found[this.L - 1] = found[this.L - 1].slice(0, this.r); // the others are rows of zeros
    return found;
  }

  get finite() {
    return Number.isFinite(this.loss) && this.loss < 1e12;
  }
}

// --- The figure --------------------------------------------------------------------------------

const POINTS = 250; // of each curve

function figure(stage) {
  const { settings } = stage;
  let network, history, longest, key; // a run that is repeated keeps its axes
  const every = () => Math.floor(settings.steps / POINTS) | 1; // odd: else a zigzag of two steps is a line
  const over = () => network.t >= settings.steps || !network.finite;
  const shown = () => Math.min(settings.layer, settings.L);
  const method = () => METHODS[settings.method];

  function note() {
    const { t, rhos, loss, finite } = network;
    if (!finite || history.at(-1)?.t === t) return;
    history.push({ t, rhos: rhos.slice(), loss, spectra: network.spectra() });
  }

  const trained = training(stage, {
    begin() {
      const random = uniform(settings.seed), now = JSON.stringify({ ...settings, layer: 0 });
      const start = method().whole ? wholeStart(settings, random)
        : coreStart(settings, overlap(settings.d, settings.r, random));
      network = new Network(settings, start);
      if (now !== key) longest = [];
      else if (history.length > longest.length) longest = history;
      key = now;
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

  /** How many singular values of the layer are above rho, below, and equal to it; or epsilon, without a core. */
  function counts() {
    const { rhos, spectra } = history[history.length - 1], layer = shown(), values = spectra[layer - 1];
    const { whole } = method(), near = whole ? 0.01 : 1e-9, rho = whole ? settings.eps : Math.abs(rhos[layer - 1]);
    const above = values.filter((x) => x > rho * (1 + near)).length;
    const below = values.filter((x) => x < rho * (1 - near)).length;
    return { rho, above, below, equal: network.equal(layer) + values.length - above - below };
  }

  function say() {
    const layer = shown(), { rho, above, below, equal } = counts(), { whole, said } = method();
    const all = many(above, "singular value"), [mark, near] = whole ? ["ε", "within one per cent of"] : ["ρ", "equal to"];
    const where = whole ? `${said}, on a network of width ${WHOLE}, whatever d` : said;
    const found = rho
      ? `${all} above ${mark}, ${below} below, and ${equal} ${near} ${mark} = ${short(rho)}`
      : `the last, ${all}, and no ρ`;
    stage.say(
      `After ${many(network.t, "step")}${where}${network.finite
        ? `: in layer ${layer}, ${found}. Loss ${short(network.loss)}.`
        : " the loss is beyond all bounds: this step η is too large."}`,
      `Singular values of layer ${layer} and loss, by step.`);
  }

  function draw(pen, width, height, colours) {
    const { r, steps } = settings, layer = shown(), { whole } = method();
    const left = 58, right = width - 92, place = (t) => left + (t / steps) * (right - left);
    const panel = { left, right, top: 22, bottom: height * 0.66 };
    const below = { left, right, top: height * 0.66 + 34, bottom: height - 34 };
    const all = longest.length > history.length ? longest : history, last = history[history.length - 1];
    const values = all.flatMap(({ rhos, spectra }) => [Math.abs(rhos[layer - 1]), ...spectra[layer - 1]]);
    const y = axes(pen, panel, values, `singular values of W${"₁₂₃₄₅₆"[layer - 1]}`, colours.ink);
    const curve = (what, name, thick, at = y, bottom = panel.bottom) =>
      line(pen, history.map((point) => [place(point.t), Math.min(at(what(point)), bottom)]), colours[name], thick);
    const ends = last.spectra[layer - 1], found = counts();
    if (network.equal(layer)) curve(({ rhos }) => Math.abs(rhos[layer - 1]), "rest", 4);
    ends.forEach((_, i) => {
      const name = i < r ? "rises" : i < ends.length - r ? "rest" : "falls";
      curve(({ spectra }) => spectra[layer - 1][i], name, 1.8);
    });
    const middle = Math.min(y(found.rho), panel.bottom), tip = place(last.t) + 6;
    if (found.rho) write(pen, `${found.equal} ${whole ? "near ε" : "equal ρ"}`, tip, middle + 4, colours.rest);
    const beside = (i, text, name, toward) => write(pen, text, tip, toward(y(ends[i])) + 4, colours[name]);
    if (!found.rho) beside(r - 1, `all ${r}`, "rises", (at) => at);
    else if (found.above) beside(found.above - 1, `${found.above} above`, "rises", (at) => Math.min(at, middle - 15));
    if (found.below) beside(ends.length - found.below, `${found.below} below`, "falls", (at) => Math.max(at, middle + 15));
    const loss = axes(pen, below, all.map((point) => point.loss), "loss", colours.ink);
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
