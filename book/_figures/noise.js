// Label noise lowers the rank, live: W_2 W_1 learns a linear map from R^5 to R^2 of 1000 samples, by
// steps on batches whose labels get fresh noise (Varre, Sagitova and Flammarion 2024). With
// Theta = [W_1^T; W_2] a step is Theta + eta J Theta, J = [0, A^T; A, 0], where -A is the gradient in
// the product. So log det(Theta Theta^T) changes by 2 log |det(I - eta^2 A A^T)|, exactly, which is
// added up here: a determinant that has sunk that low is lost to rounding.

import controls from "./noise.json" with { type: "json" };
import { axes, border, line, live, many, short, training, write } from "./kit.js";
import { cholesky, normal, squares, times, turnRows, uniform } from "./numbers.js";

export const SAMPLES = 1000, INPUTS = 5, OUTPUTS = 2;

/** Two layers in training. Samples are rows of X here; their labels are those of Phi, and noise. */
export class Network {
  constructor({ d, eta, delta, batch, seed }) {
    const random = uniform(seed);
    const gaussian = (n) => Float64Array.from({ length: n }, () => normal(random));
    const few = () => new Float64Array(OUTPUTS * INPUTS);
    this.X = gaussian(SAMPLES * INPUTS);
    this.Phi = gaussian(OUTPUTS * INPUTS);
    this.W1 = gaussian(d * INPUTS);
    this.W2 = gaussian(OUTPUTS * d);
    this.random = uniform(seed + 1e6); // of batches and noise
    this.order = Int32Array.from({ length: SAMPLES }, (_, i) => i);
    this.covariance = times(INPUTS, SAMPLES, INPUTS, this.X, this.X, undefined, "A").map((x) => x / SAMPLES);
    Object.assign(this, { d, eta, delta, batch, t: 0, logDet: 0 }); // logDet since the start
    [this.error, this.A, this.noise] = [few(), few(), few()];
    this.gram = this.covariance.map((x) => x * SAMPLES);
    this.rows = cholesky(this.gram, INPUTS); // of the batch: its samples, or as many as matter
    this.xi = new Float64Array(OUTPUTS * Math.min(batch, INPUTS));
    [this.up1, this.up2] = [new Float64Array(d * INPUTS), new Float64Array(OUTPUTS * d)];
    this.look();
  }

  /** Draw the next batch, without replacement: `gram` is X^T X of its samples. */
  choose() {
    const { X, order, gram, rows, batch, random } = this;
    if (batch === SAMPLES) return;
    gram.fill(0);
    for (let i = 0; i < batch; i++) {
      const j = i + Math.floor(random() * (SAMPLES - i)), one = order[j];
      order[j] = order[i];
      order[i] = one;
      for (let a = 0; a < INPUTS; a++) {
        const x = X[one * INPUTS + a];
        for (let b = 0; b < INPUTS; b++) gram[a * INPUTS + b] += x * X[one * INPUTS + b];
        if (batch <= INPUTS) rows[i * INPUTS + a] = x;
      }
    }
    if (batch > INPUTS) this.rows = cholesky(gram, INPUTS);
  }

  /** Draw the noise on the labels of the batch: `noise` is what the gradient sees of it. */
  disturb() {
    // It sees X^T xi alone, normal with covariance X^T X = R^T R: so does R^T xi, with five numbers a
    // label in the place of one for each sample.
    const { xi, rows, random, noise } = this;
    for (let i = 0; i < xi.length; i++) xi[i] = normal(random);
    times(OUTPUTS, xi.length / OUTPUTS, INPUTS, xi, rows, noise);
  }

  /** Work out the error of the present weights. */
  look() {
    times(OUTPUTS, this.d, INPUTS, this.W2, this.W1, this.error);
    for (let i = 0; i < OUTPUTS * INPUTS; i++) this.error[i] = this.Phi[i] - this.error[i];
  }

  /** Take one step. */
  advance() {
    const { d, eta, delta, batch, gram, error, A, noise, W1, W2, up1, up2 } = this;
    this.choose();
    if (delta > 0) this.disturb();
    times(OUTPUTS, INPUTS, INPUTS, error, gram, A);
    for (let i = 0; i < A.length; i++) A[i] = (A[i] + delta * noise[i]) / batch;
    times(d, OUTPUTS, INPUTS, W2, A, up1, "A");
    times(OUTPUTS, INPUTS, d, A, W1, up2, "B");
    for (let i = 0; i < W1.length; i++) W1[i] += eta * up1[i];
    for (let i = 0; i < W2.length; i++) W2[i] += eta * up2[i];
    let aa = 0, ab = 0, bb = 0; // A A^T, two by two
    for (let i = 0; i < INPUTS; i++) {
      aa += A[i] ** 2;
      ab += A[i] * A[INPUTS + i];
      bb += A[INPUTS + i] ** 2;
    }
    const less = eta ** 4 * (aa * bb - ab ** 2) - eta ** 2 * (aa + bb);
    this.logDet += 2 * (less > -1 ? Math.log1p(less) : Math.log(-1 - less));
    this.t += 1;
    this.look();
  }

  get finite() {
    return Number.isFinite(this.logDet) && Math.abs(this.error[0]) < 1e6;
  }

  /** The loss on the labels without noise, on average over the samples. */
  get loss() {
    const { error, covariance } = this;
    return times(OUTPUTS, INPUTS, INPUTS, error, covariance).reduce((sum, x, i) => sum + x * error[i] / 2, 0);
  }

  /** What label noise alone takes from the logarithm at a step, on average. */
  get slope() {
    let trace = 0;
    for (let i = 0; i < INPUTS; i++) trace += this.covariance[i * (INPUTS + 1)];
    return -2 * (this.eta * this.delta) ** 2 * OUTPUTS * trace / this.batch;
  }

  /** The singular values of W_1, descending, exact to the last digits also of small ones. */
  singular() {
    const { W1, d } = this, rows = W1.map((_, i) => W1[(i % d) * INPUTS + Math.floor(i / d)]);
    return squares(turnRows(rows, INPUTS, d), INPUTS, d).map(Math.sqrt).sort().reverse();
  }
}

// --- The figure --------------------------------------------------------------------------------

const POINTS = 250; // of each curve

/** A number with a minus that is not taken for a hyphen. */
const signed = (x, digits) => (x < 0 ? `−${short(-x, digits)}` : short(x, digits));

/** Draw an even axis from low to high, and the line below; return where a value stands. */
function evenAxes(pen, panel, low, high, title, ink) {
  const { top, bottom } = panel, room = 0.06 * (high - low); // below the title
  const y = (value) => bottom - (value - low) / (high + room - low) * (bottom - top);
  const put = border(pen, panel, title, ink), most = (high - low) / 3, digit = 10 ** Math.floor(Math.log10(most));
  const step = digit * [5, 2, 1].find((factor) => factor * digit <= most);
  for (let n = Math.ceil(low / step); n * step <= high; n++) put(y(n * step), signed(n * step));
  return y;
}

function figure(stage) {
  const { settings } = stage;
  let network, history, key, seen; // seen: the axes, which stay as they are when a run is repeated
  const every = () => Math.max(1, Math.round(settings.steps / POINTS));
  const over = () => network.t >= settings.steps || !network.finite;

  function note() {
    const { t, logDet, finite } = network;
    if (!finite || history.at(-1)?.t === t) return;
    const values = network.singular();
    history.push({ t, logDet, values });
    seen = {
      bottom: Math.min(seen.bottom, logDet), top: Math.max(seen.top, logDet),
      least: Math.min(seen.least, values[INPUTS - 1]), most: Math.max(seen.most, values[0]),
    };
  }

  const trained = training(stage, {
    begin() {
      network = new Network(settings);
      history = [];
      if (key !== JSON.stringify(settings)) { // what the prediction takes, and some more
        key = JSON.stringify(settings);
        const predicted = network.slope * settings.steps;
        seen = { bottom: 1.2 * predicted, top: 0, least: Math.exp(predicted / 16), most: 0 };
      }
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

  function say() {
    const { t, slope, finite } = network, { logDet, values } = history[history.length - 1];
    const half = logDet - history.findLast((point) => 2 * point.t <= t).logDet;
    const told = [...values].map((x) => short(x)).join(", ");
    const predicted = slope
      ? `By label noise alone, −2η²δ²d_yN‖X‖²/b a step, it would be ${signed(slope * t)}`
      : "No label noise, no lasting fall";
    stage.say(
      finite
        ? `After ${many(t, "step")}: log det ΘΘᵀ has changed by ${signed(logDet)}, `
          + `in the second half of them by ${signed(half)}. ${predicted}. Singular values of W₁: ${told}.`
        : `After ${many(t, "step")} the weights are beyond all bounds: this step ηN is too large.`,
      "The logarithm of the determinant with its prediction, and the singular values of the first layer, by step.");
  }

  function draw(pen, width, height, colours) {
    const { steps } = settings, { t, logDet, values } = history[history.length - 1];
    const left = 58, right = width - 80, place = (step) => left + (step / steps) * (right - left), tip = place(t) + 6;
    const above = { left, right, top: 22, bottom: height * 0.45 };
    const below = { left, right, top: height * 0.45 + 36, bottom: height - 34 };
    const y = evenAxes(pen, above, Math.min(seen.bottom, -1e-9), seen.top, "change of log det ΘΘᵀ", colours.ink);
    const ends = [y(network.slope * t), y(logDet)], apart = Math.max(Math.abs(ends[0] - ends[1]) / 2, 8);
    const middle = Math.max((ends[0] + ends[1]) / 2, above.top + apart + 8), sign = ends[0] < ends[1] ? 1 : -1;
    pen.setLineDash([5, 4]);
    line(pen, [[left, y(0)], [place(t), ends[0]]], colours.rest);
    pen.setLineDash([]);
    line(pen, history.map((point) => [place(point.t), y(point.logDet)]), colours.ink);
    write(pen, "predicted", tip, middle - sign * apart + 4, colours.rest);
    write(pen, "trained", tip, middle + sign * apart + 4, colours.ink);
    const at = axes(pen, below, [seen.least, seen.most], "singular values of W₁", colours.ink, 1e-17);
    for (let i = INPUTS - 1; i >= 0; i--) {
      const points = history.map((point) => [place(point.t), at(point.values[i])]);
      line(pen, points, colours[i < OUTPUTS ? "rises" : "falls"]);
    }
    const high = at(values[OUTPUTS - 1]), low = Math.min(Math.max(at(values[OUTPUTS]), high + 16), below.bottom - 4);
    write(pen, "σ₁, σ₂", tip, high + 4, colours.rises);
    write(pen, "σ₃ to σ₅", tip, low + 4, colours.falls);
    write(pen, "step t", (left + right) / 2, height - 4, colours.ink, "center");
    write(pen, "0", left, height - 18, colours.ink, "center");
    write(pen, String(steps), right, height - 18, colours.ink, "center");
  }

  const change = () => trained.run();
  const another = ["New start", () => stage.set("seed", 1 + Math.floor(Math.random() * 999999))];
  return { height: 25, buttons: [...trained.buttons, another], change, draw, start: change, end: trained.halt };
}

export default live("noise", controls, figure);
