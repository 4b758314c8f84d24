// The law of parsimony, live. A deep linear network of width d trains here as the theorem says:
// a core of 2r by 2r matrices, and one number rho for the d - 2r directions that are left. How the
// core begins depends on the start and the target through one r by r matrix alone, the overlap
// M = V^T (W_L...W_1(0) / eps^L)^T U of the target's singular vectors; it is drawn as what it is, a
// block of a random orthogonal d by d matrix, without an array of that size.
//
// Matrices are flat Float64Arrays, k by k, row by row. No library, no build step, no request.

// --- Numbers -----------------------------------------------------------------------------------

/** Random numbers in (0, 1) from a whole number (mulberry32). */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
}

function normal(random) {
  return Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random());
}

/** A chi-squared number with n degrees of freedom: a sum of n squares, without a loop over n. */
function chiSquared(random, n) {
  if (n < 1) return 0;
  if (n === 1) return normal(random) ** 2;
  const a = n / 2 - 1 / 3; // Marsaglia and Tsang (2000)
  for (;;) {
    const x = normal(random);
    const v = (1 + x / Math.sqrt(9 * a)) ** 3;
    if (v > 0 && Math.log(random()) < x * x / 2 + a * (1 - v + Math.log(v))) return 2 * a * v;
  }
}

/** out = A B, or A^T B, or A B^T; all of them k by k. */
function multiply(A, B, k, out, transposed = "") {
  const [ai, al] = transposed === "A" ? [1, k] : [k, 1];
  const [bl, bj] = transposed === "B" ? [1, k] : [k, 1];
  for (let i = 0; i < k; i++) {
    for (let j = 0; j < k; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += A[i * ai + l * al] * B[l * bl + j * bj];
      out[i * k + j] = sum;
    }
  }
  return out;
}

/** The upper triangular R with R^T R = A; what rounding makes negative counts as zero. */
function cholesky(A, k) {
  const R = new Float64Array(k * k);
  for (let i = 0; i < k; i++) {
    for (let j = i; j < k; j++) {
      let sum = A[i * k + j];
      for (let l = 0; l < i; l++) sum -= R[l * k + i] * R[l * k + j];
      if (i === j) R[i * k + i] = Math.sqrt(Math.max(sum, 0));
      else R[i * k + j] = R[i * k + i] > 0 ? sum / R[i * k + i] : 0;
    }
  }
  return R;
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

/** Singular values, descending: one-sided Jacobi, exact to the last digits also of small ones. */
export function singularValues(W, k) {
  const A = Float64Array.from(W);
  for (let sweep = 0, turned = true; turned && sweep < 40; sweep++) {
    turned = false;
    for (let p = 0; p < k - 1; p++) {
      for (let q = p + 1; q < k; q++) {
        let pp = 0, qq = 0, pq = 0;
        for (let i = 0; i < k; i++) {
          const x = A[i * k + p], y = A[i * k + q];
          pp += x * x; qq += y * y; pq += x * y;
        }
        if (Math.abs(pq) <= 1e-15 * Math.sqrt(pp * qq) || pq === 0) continue;
        turned = true;
        const zeta = (qq - pp) / (2 * pq);
        const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const c = 1 / Math.sqrt(1 + t * t), s = c * t;
        for (let i = 0; i < k; i++) {
          const x = A[i * k + p], y = A[i * k + q];
          A[i * k + p] = c * x - s * y;
          A[i * k + q] = s * x + c * y;
        }
      }
    }
  }
  const values = new Float64Array(k);
  for (let j = 0; j < k; j++) {
    for (let i = 0; i < k; i++) values[j] += A[i * k + j] ** 2;
  }
  return values.map(Math.sqrt).sort().reverse();
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

/** A network in training: advance() is one step of gradient descent on all layers. */
export class Network {
  constructor({ d, r, L, eps, eta, lam }, M) {
    const k = 2 * r, empty = () => new Float64Array(k * k);
    Object.assign(this, { d, r, L, eta, lam, k, t: 0, rho: eps, target: coreTarget(M, r) });
    this.Ws = Array.from({ length: L }, () => empty().map((_, i) => (i % (k + 1) ? 0 : eps)));
    this.prefix = Array.from({ length: L }, empty); // W_l ... W_1
    this.sweep = [empty(), empty()]; // W_L^T ... W_{l+1}^T (W_L ... W_1 - target), and the next
    this.gradient = empty();
    this.look();
  }

  /** Work out the products, the error and the loss of the present weights. */
  look() {
    const { Ws, L, k, prefix, target } = this;
    prefix[0].set(Ws[0]);
    for (let l = 1; l < L; l++) multiply(Ws[l], prefix[l - 1], k, prefix[l]);
    const error = this.sweep[0];
    let square = 0;
    for (let i = 0; i < k * k; i++) {
      error[i] = prefix[L - 1][i] - target[i];
      square += error[i] ** 2;
    }
    this.loss = square / 2 + (this.d - k) / 2 * this.rho ** (2 * L);
  }

  advance() {
    const { Ws, L, k, eta, lam, prefix, gradient } = this;
    let [S, next] = this.sweep;
    for (let l = L - 1; l >= 0; l--) {
      if (l > 0) multiply(S, prefix[l - 1], k, gradient, "B");
      else gradient.set(S);
      if (l > 0) multiply(Ws[l], S, k, next, "A"); // with the weights of before the step
      for (let i = 0; i < k * k; i++) Ws[l][i] = (1 - eta * lam) * Ws[l][i] - eta * gradient[i];
      [S, next] = [next, S];
    }
    this.rho *= 1 - eta * lam - eta * this.rho ** (2 * L - 2);
    this.t += 1;
    this.look();
  }

  get finite() {
    return Number.isFinite(this.loss) && this.loss < 1e12;
  }

  spectra() {
    return this.Ws.map((W) => singularValues(W, this.k));
  }
}

// --- The figure --------------------------------------------------------------------------------

const CONTROLS = [
  { name: "d", label: "width d", value: 1000, min: 12, max: 2000, whole: true, log: true },
  { name: "r", label: "rank r", value: 3, min: 1, max: 5, whole: true },
  { name: "L", label: "depth L", value: 3, min: 2, max: 6, whole: true },
  { name: "eps", label: "start ε", value: 0.1, min: 0.01, max: 1, log: true },
  { name: "eta", label: "step η", value: 0.05, min: 0.001, max: 0.5, log: true },
  { name: "lam", label: "decay λ", value: 0, min: 0, max: 0.1 },
  { name: "steps", label: "steps", value: 400, min: 50, max: 5000, whole: true, log: true },
  { name: "layer", label: "layer l", value: 2, min: 1, max: 6, whole: true },
];
const SEED = { name: "seed", value: 1, min: 1, max: 999999, whole: true };
const POINTS = 250; // of each curve
const WORK = 3; // milliseconds of training in a frame
const PLAY = 240; // frames of a whole run

/** A number within the bounds of its control; the usual one if it is none. */
export function clamp(control, text) {
  const number = text === "" || text === null ? NaN : Number(text);
  if (!Number.isFinite(number)) return control.value;
  const within = Math.min(Math.max(number, control.min), control.max);
  return control.whole ? Math.round(within) : Number(within.toPrecision(3));
}

/** The settings that an address names, each within its bounds. */
export function readAddress(hash) {
  const named = hash.startsWith("#law:") ? new URLSearchParams(hash.slice(5)) : new Map();
  const settings = {};
  for (const control of [...CONTROLS, SEED]) {
    settings[control.name] = clamp(control, named.has(control.name) ? named.get(control.name) : null);
  }
  return settings;
}

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

const toSlider = ({ min, max, log }, x) =>
  1000 * (log ? Math.log(x / min) / Math.log(max / min) : (x - min) / (max - min));
const fromSlider = ({ min, max, log }, s) =>
  log ? min * (max / min) ** (s / 1000) : min + (s / 1000) * (max - min);
const raised = (n) => [...String(n)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");

/** A number as a reader writes it: 0.0998, 4.9 · 10⁻⁴. */
function short(x, digits = 3) {
  if (x === 0 || (x >= 0.01 && x < 1e4)) return String(Number(x.toPrecision(digits)));
  const [factor, power] = x.toExponential(digits - 2).split("e");
  return `${factor === "1" ? "" : `${factor} · `}10${raised(Number(power))}`;
}

function figure(root) {
  const settings = readAddress(location.hash);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let network, history, playing = false, frame = 0, due = 0;

  const canvas = make("canvas", { className: "lop-live-picture" });
  canvas.setAttribute("role", "img");
  const status = make("p", { className: "lop-live-status" });
  status.setAttribute("role", "status");
  const inputs = new Map();
  const controls = make("div", { className: "lop-live-controls" }, ...CONTROLS.map(row));
  const play = button("Play", () => (playing ? pause() : start()));
  const buttons = make("div", { className: "lop-live-buttons" },
    play, button("Step", step), button("Reset", reset), button("New start", draw), button("Copy link", share));
  root.replaceChildren(controls, buttons, canvas, status);

  function button(text, action) {
    const element = make("button", { type: "button", textContent: text });
    element.addEventListener("click", action);
    return element;
  }

  function row(control) {
    const slider = make("input", { type: "range", min: 0, max: 1000, step: control.whole && !control.log ? 1000 / (control.max - control.min) : 1 });
    const field = make("input", { type: "number", min: control.min, max: control.max, step: control.whole ? 1 : "any" });
    slider.setAttribute("aria-label", `${control.label}, slider`);
    slider.addEventListener("input", () => change(control, fromSlider(control, slider.value)));
    field.addEventListener("change", () => change(control, field.value));
    inputs.set(control.name, { control, slider, field });
    return make("div", {}, make("label", {}, control.label, field), slider);
  }

  function change(control, value) {
    settings[control.name] = clamp(control, value);
    if (control.name === "layer") { show(); paint(); } else run();
  }

  function show() {
    settings.layer = Math.min(settings.layer, settings.L);
    for (const [name, { control, slider, field }] of inputs) {
      field.value = settings[name];
      slider.value = toSlider(control, settings[name]);
      slider.setAttribute("aria-valuetext", settings[name]);
    }
  }

  /** Begin anew, from the start that the seed names. */
  function begin() {
    network = new Network(settings, overlap(settings.d, settings.r, uniform(settings.seed)));
    history = [];
    due = 0;
    note();
    show();
  }

  function note() {
    history.push({ t: network.t, rho: network.rho, loss: network.loss, spectra: network.spectra() });
  }

  const every = () => Math.max(1, Math.round(settings.steps / POINTS));
  const over = () => network.t >= settings.steps || !network.finite;

  function advance() {
    network.advance();
    if (network.finite && (network.t % every() === 0 || over())) note();
  }

  /** Train to the end, some milliseconds in each frame. */
  function run() {
    pause();
    begin();
    (function more() {
      const until = performance.now() + WORK;
      while (!over() && performance.now() < until) advance();
      if (!still.matches || over()) paint();
      if (over()) say(); else frame = requestAnimationFrame(more);
    })();
  }

  function start() {
    if (over()) begin();
    playing = true;
    play.textContent = "Pause";
    (function more() {
      const until = performance.now() + WORK;
      due += settings.steps / PLAY;
      for (; due >= 1 && !over() && performance.now() < until; due--) advance();
      paint();
      if (over()) pause(); else if (playing) frame = requestAnimationFrame(more);
    })();
  }

  function pause() {
    cancelAnimationFrame(frame);
    if (playing) say();
    playing = false;
    play.textContent = "Play";
  }

  function step() {
    pause();
    if (over()) begin();
    for (let i = every(); i > 0 && !over(); i--) advance();
    paint();
    say();
  }

  function reset() {
    pause();
    begin();
    paint();
    say();
  }

  function draw() {
    settings.seed = clamp(SEED, 1 + Math.floor(Math.random() * SEED.max));
    run();
  }

  async function share() {
    const address = `#law:${new URLSearchParams(settings)}`;
    window.history.replaceState(null, "", address);
    try {
      await navigator.clipboard.writeText(location.href);
      status.textContent = "The link is copied.";
    } catch {
      status.textContent = "The link is in the address bar.";
    }
  }

  function say() {
    const { rho, spectra } = history[history.length - 1];
    const values = [...spectra[settings.layer - 1]];
    const above = values.filter((x) => x > rho * (1 + 1e-9)).length;
    const below = values.filter((x) => x < rho * (1 - 1e-9)).length;
    const m = settings.d - 2 * settings.r;
    status.textContent = network.finite
      ? `After ${network.t} steps: in layer ${settings.layer}, ${above} singular values above ρ, `
        + `${below} below, and ${m} equal to ρ = ${short(rho)}. Loss ${short(network.loss)}.`
      : `After ${network.t} steps the loss is beyond all bounds: this step η is too large.`;
    canvas.setAttribute("aria-label", `Singular values of layer ${settings.layer} and loss, by step. ${status.textContent}`);
  }

  function paint() {
    const style = getComputedStyle(root), colour = (name) => style.getPropertyValue(`--lop-live-${name}`);
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = `13px ${style.fontFamily}`;
    const curves = history.map(({ spectra }) => spectra[settings.layer - 1]);
    const rho = history.map((point) => Math.abs(point.rho)), r = settings.r;
    const panel = { left: 58, right: width - 92, top: 22, bottom: height * 0.66 };
    const all = [...rho, ...curves.flatMap((values) => [...values])];
    const y = axes(pen, panel, all, `singular values of W${"₁₂₃₄₅₆"[settings.layer - 1]}`, colour("ink"));
    line(pen, panel, y, rho, colour("rest"), 4);
    for (let i = 0; i < 2 * r; i++) {
      line(pen, panel, y, curves.map((values) => values[i]), colour(i < r ? "rises" : "falls"), 1.8);
    }
    const end = (text, height, name) => {
      pen.fillStyle = colour(name);
      pen.fillText(text, panel.right + 6, height + 4);
    };
    const last = curves[curves.length - 1], middle = y(rho[rho.length - 1]);
    end(`${settings.d - 2 * r} equal ρ`, middle, "rest");
    end(`${r} rise`, Math.min(y(last[r - 1]), middle - 15), "rises");
    end(`${r} fall`, Math.max(y(last[r]), middle + 15), "falls");
    const below = { ...panel, top: height * 0.66 + 34, bottom: height - 34 };
    const loss = history.map((point) => point.loss);
    line(pen, below, axes(pen, below, loss, "loss", colour("ink")), loss, colour("ink"), 1.8);
    pen.fillStyle = colour("ink");
    pen.textAlign = "center";
    pen.fillText("step t", (panel.left + panel.right) / 2, height - 4);
    pen.textAlign = "start";
    [0, settings.steps].forEach((t) => pen.fillText(t, place(below, t) - (t ? 14 : 4), height - 18));
  }

  const place = (panel, t) => panel.left + (t / settings.steps) * (panel.right - panel.left);

  /** Draw a logarithmic axis that holds all values; return where a value stands. */
  function axes(pen, { left, right, top, bottom }, values, title, ink) {
    const seen = values.filter((x) => x > 0 && Number.isFinite(x));
    const low = Math.log10(Math.max(Math.min(...seen), 1e-14)) - 0.1, high = Math.log10(Math.max(...seen)) + 0.1;
    const y = (value) => bottom - (Math.log10(Math.max(value, 1e-15)) - low) / (high - low) * (bottom - top);
    pen.strokeStyle = pen.fillStyle = ink;
    pen.lineWidth = 1;
    pen.strokeRect(left, top, 0, bottom - top);
    pen.strokeRect(left, bottom, right - left, 0);
    pen.fillText(title, left - 50, top - 8);
    const whole = Math.max(1, Math.ceil((high - low) / 5));
    for (let n = Math.ceil(low); n <= high; n += whole) mark(10 ** n);
    if (Math.floor(high) - Math.ceil(low) < 1) [low + 0.1, high - 0.1].forEach((n) => mark(10 ** n));
    return y;
    function mark(value) {
      pen.fillRect(left - 4, y(value), 4, 1);
      pen.textAlign = "right";
      pen.fillText(short(value, 2), left - 7, y(value) + 4);
      pen.textAlign = "start";
    }
  }

  function line(pen, panel, y, values, colour, width) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    values.forEach((value, i) => {
      if (value > 0) pen.lineTo(place(panel, history[i].t), Math.min(y(value), panel.bottom));
    });
    pen.stroke();
  }

  new ResizeObserver(() => paint()).observe(canvas);
  new MutationObserver(() => paint()).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  run();
  if (location.hash.startsWith("#law:")) root.scrollIntoView();
}

if (typeof document !== "undefined") {
  document.querySelectorAll('[data-lop-figure="law"]').forEach(figure);
}
