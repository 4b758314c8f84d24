// What the live figures share: settings within bounds, sliders and fields, buttons, a picture that
// is drawn anew when its size or the theme changes, a line of text, training by frames, axes.
// A figure is `export default live(NAME, CONTROLS, figure)`; it runs wherever a page has a place for
// NAME, and as anywidget's module in a notebook. No library, no build step, no request.

// --- Settings ------------------------------------------------------------------------------------

/** A number within the bounds of its control (or a text of its form); the usual one if it is none. */
export function clamp(control, text) {
  if (control.form) {
    return new RegExp(`^(?:${control.form})$`).test(text ?? control.value) ? String(text ?? control.value) : control.value;
  }
  const number = text === "" || text === null || text === undefined ? NaN : Number(text);
  if (!Number.isFinite(number)) return control.value;
  const within = Math.min(Math.max(number, control.min), control.max);
  return control.whole ? Math.round(within) : within;
}

/** The settings that an address names after `#NAME:`, each within its bounds. */
export function readAddress(name, controls, hash) {
  const start = `#${name}:`;
  const named = hash.startsWith(start) ? new URLSearchParams(hash.slice(start.length)) : new Map();
  return Object.fromEntries(controls.map((control) =>
    [control.name, clamp(control, named.has(control.name) ? named.get(control.name) : null)]));
}

const toSlider = ({ min, max, log }, x) =>
  1000 * (log ? Math.log(x / min) / Math.log(max / min) : (x - min) / (max - min));
const fromSlider = ({ min, max, log }, s) =>
  Number((log ? min * (max / min) ** (s / 1000) : min + (s / 1000) * (max - min)).toPrecision(3));

/** Where an arrow key takes a setting: to the next whole number, or by one in the second digit. */
export function neighbour({ min, max, whole, log }, x, by) {
  const digit = 10 ** (Math.floor(Math.log10(Math.abs(x) * (by < 0 ? 1 - 1e-9 : 1 + 1e-9) || 1)) - 1);
  const step = log ? (whole ? Math.max(digit, 1) : digit) : whole ? 1 : (max - min) / 100;
  return Number((x + by * step).toPrecision(6));
}

// --- Text ----------------------------------------------------------------------------------------

const raised = (n) => [...String(n)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");

/** A number as a reader writes it: 0.0998, 4.9 · 10⁻⁴. */
export function short(x, digits = 3) {
  if (x === 0 || (Math.abs(x) >= 0.01 && Math.abs(x) < 1e4)) return String(Number(x.toPrecision(digits)));
  const [factor, power] = x.toExponential(digits - 2).split("e");
  return `${factor === "1" ? "" : `${factor} · `}10${raised(Number(power))}`;
}

/** A number of things: 1 step, 2 steps. */
export const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

/** An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// --- A figure in its place -----------------------------------------------------------------------

const STYLE = `
.lop-live { text-align: start; font-family: var(--pst-font-family-base, system-ui, sans-serif); font-size: 0.9rem;
  --lop-live-ink: #3a3d42; --lop-live-rises: #0072b2; --lop-live-falls: #b34700;
  --lop-live-rest: #6a7179; --lop-live-third: #00765a; --lop-live-fourth: #8f3f97;
  --lop-live-fifth: #8a6100; --lop-live-edge: color-mix(in srgb, currentColor 35%, transparent); }
.lop-live[data-dark] { --lop-live-ink: #c8cbd0; --lop-live-rises: #5ab4f0;
  --lop-live-falls: #ff9a57; --lop-live-rest: #9aa1aa; --lop-live-third: #4fc9a2;
  --lop-live-fourth: #dc9be4; --lop-live-fifth: #e0bb4c; }
.lop-live-controls { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(9.5rem, 45%), 1fr));
  gap: 0.5rem 1.2rem; }
.lop-live-controls label { display: flex; justify-content: space-between; align-items: center;
  gap: 0.5rem; margin: 0; }
.lop-live-controls input, .lop-live-controls select { border: 1px solid var(--lop-live-edge);
  background: transparent; color: inherit; font: inherit; }
.lop-live-controls select { min-width: 0; min-height: 1.9rem; }
.lop-live-controls option { background: Canvas; color: CanvasText; }
.lop-live-controls input[type="number"] { width: 5rem; padding: 0.1rem 0.3rem;
  appearance: textfield; }
.lop-live-controls input::-webkit-inner-spin-button { appearance: none; margin: 0; }
.lop-live-controls input[type="range"] { width: 100%; height: 1.6rem; margin: 0;
  accent-color: var(--lop-live-rises); }
.lop-live-buttons { display: flex; flex-wrap: wrap; gap: 0.5rem; margin: 0.8rem 0; }
.lop-live-buttons button { padding: 0.3rem 0.8rem; border: 1px solid var(--lop-live-edge);
  border-radius: 4px; background: transparent; color: inherit; font: inherit; }
.lop-live-picture { display: block; width: 100%; }
.lop-live-status { min-height: 3.2em; margin: 0.4rem 0; }
.lop-live[data-busy] .lop-live-status { font-style: italic; }
.lop-live-hint { margin: 0; }
.lop-live-more { margin-top: 0.5rem; }
.lop-live-more summary { width: max-content; padding: 0.2rem 0; cursor: pointer; }
@media (any-pointer: coarse) { .lop-live button, .lop-live select, .lop-live summary, .lop-live-controls
  input { box-sizing: border-box; min-height: 44px; min-width: 44px; }
  .lop-live summary { display: list-item; padding: 0.7rem 0; } }
@media print { .lop-live-more, .lop-live-controls, .lop-live-buttons { display: none; } }
`;
const COLOURS = ["ink", "rises", "falls", "rest", "third", "fourth", "fifth"];

/**
 * Put a figure where a page has `[data-lop-figure=NAME]`, and return it as a module for anywidget.
 *
 * `figure(stage)` is called once; it sets up and returns
 *   height  of the picture in rem (a number, or a function of the width in pixels),
 *   buttons, each an element or [text, action],
 *   change(name), called after a setting has changed,
 *   draw(pen, width, height, colours), which reads nothing of the page; it is also called with a
 *     pen that writes SVG, and so uses only what that one knows (tools/pen.js),
 *   start(), called when everything stands, and end(), when it goes,
 *   after (optional): elements below the picture.
 * stage has
 *   settings (name to number or text), set(name, value), still (is motion unwanted?), canvas,
 *   paint(), say(text, label) for the sentence below and the name of the picture, busy(), which marks
 *   the sentence as not yet true of the settings, and hint(text) for what the focus is on.
 */
export function live(name, controls, figure) {
  if (typeof document !== "undefined") {
    document.querySelectorAll(`[data-lop-figure="${name}"]`).forEach((root) => {
      if (root.lopStage) return;
      const known = withStart(controls, root.dataset.lopSettings);
      const stage = place(root, name, controls, figure, readAddress(name, known, location.hash));
      const called = () => location.hash.startsWith(`#${name}:`);
      if (called()) bringIntoView(root);
      window.addEventListener("hashchange", () => {
        if (!called()) return;
        Object.entries(readAddress(name, known, location.hash)).forEach(([each, value]) => stage.set(each, value));
        root.scrollIntoView({ behavior: "instant" });
      });
    });
  }
  return {
    render({ model, el }) {
      const settings = Object.fromEntries(controls.map((c) => [c.name, clamp(c, model.get(c.name))]));
      el.classList.add("lop-live");
      el.dataset.lmSuppressShortcuts = true; // JupyterLab would take the arrow keys
      const stage = place(el, name, controls, figure, settings, model);
      const heard = controls.map(({ name }) => [`change:${name}`, () => stage.set(name, model.get(name))]);
      heard.forEach(([event, act]) => model.on(event, act));
      return () => { // a view is closed; the model may have others
        heard.forEach(([event, act]) => model.off(event, act));
        stage.end();
      };
    },
  };
}

function withStart(controls, text) {
  const start = text ? JSON.parse(text) : {};
  return controls.map((control) => ({ ...control, value: clamp(control, start[control.name]) }));
}

/** Scroll to a figure, and again when the formulas above it have found their size. */
async function bringIntoView(root) {
  let left = false;
  const leave = () => { left = true; };
  for (const event of ["wheel", "touchmove", "keydown", "pointerdown"]) window.addEventListener(event, leave, { once: true });
  root.scrollIntoView({ behavior: "instant" });
  if (document.readyState !== "complete") await new Promise((done) => window.addEventListener("load", done, { once: true }));
  await globalThis.MathJax?.startup?.promise;
  if (!left) root.scrollIntoView({ behavior: "instant" });
}

let places = 0;

function place(root, name, controls, figure, settings, model) {
  const motion = matchMedia("(prefers-reduced-motion: reduce)");
  const canvas = make("canvas", { className: "lop-live-picture" });
  canvas.setAttribute("role", "img");
  const status = make("p", { className: "lop-live-status" });
  status.setAttribute("role", "status");
  status.id = `lop-live-said-${places++}`;
  canvas.setAttribute("aria-describedby", status.id);
  const hint = make("p", { className: "lop-live-hint" });
  hint.setAttribute("aria-live", "polite");
  const pen = canvas.getContext("2d");
  let size = null, colours = {};

  const stage = {
    settings, canvas,
    get still() { return motion.matches; },
    set(name, value) {
      const control = controls.find((each) => each.name === name);
      const now = clamp({ ...control, value: settings[name] }, value); // what is no number changes nothing
      const changed = now !== settings[name];
      settings[name] = now;
      show(name);
      tell(name);
      if (changed) parts.change(name);
    },
    hint(text) {
      hint.textContent = text;
    },
    busy() {
      root.toggleAttribute("data-busy", true);
      status.setAttribute("aria-busy", true);
    },
    say(text, label) {
      root.toggleAttribute("data-busy", false);
      status.removeAttribute("aria-busy");
      status.textContent = text;
      canvas.setAttribute("aria-label", label);
      if (model) { model.set("said", text); model.save_changes(); }
    },
    paint() {
      if (!size) return;
      const { width, height, ratio } = size;
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, width, height);
      pen.font = colours.font;
      parts.draw(pen, width, height, colours);
    },
    /** Draw with a pen of another kind. */
    drawWith(other, width, height) {
      other.font = colours.font;
      parts.draw(other, width, height, colours);
    },
    /** The height that the picture should have at a width. */
    heightAt: (width) => (typeof parts.height === "function" ? parts.height(width) : parts.height) * 16,
    end() {
      resized.disconnect();
      themed.disconnect();
      parts.end?.();
    },
  };
  root.lopStage = stage;

  const inputs = new Map();
  const parts = figure(stage);
  const buttons = make("div", { className: "lop-live-buttons" }, ...parts.buttons.map(button));
  if (!model) buttons.append(button(["Copy link", share]));
  const rows = (more) => make("div", { className: "lop-live-controls" },
    ...(model ? [] : controls.filter((control) => control.label && Boolean(control.more) === more).map(row)));
  const others = rows(true); // they are out of the way until they are asked for
  const more = make("details", { className: "lop-live-more" }, make("summary", { textContent: "more" }), others);
  root.replaceChildren(make("style", { textContent: STYLE }), rows(false), ...(others.firstChild ? [more] : []), buttons,
    canvas, ...(parts.after ?? []), hint, status);
  controls.forEach(({ name }) => show(name));

  function button(item) {
    if (item instanceof Node) return item;
    const element = make("button", { type: "button", textContent: item[0] });
    element.addEventListener("click", item[1]);
    return element;
  }

  function row(control) {
    if (control.choices) {
      const field = make("select", {}, ...control.choices.map((text, value) => make("option", { value, textContent: text })));
      field.addEventListener("change", () => stage.set(control.name, field.value));
      inputs.set(control.name, { control, field });
      return make("div", {}, make("label", {}, control.label, field));
    }
    const step = control.whole && !control.log ? 1000 / (control.max - control.min) : 1;
    const slider = make("input", { type: "range", min: 0, max: 1000, step });
    const field = make("input", { type: "number", min: control.min, max: control.max, step: control.whole ? 1 : "any" });
    slider.setAttribute("aria-label", `${control.label}, slider`);
    slider.addEventListener("input", () => stage.set(control.name, fromSlider(control, slider.value)));
    slider.addEventListener("keydown", (event) => { // a thousandth of the slider may be less than a digit
      const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (!by) return;
      event.preventDefault();
      stage.set(control.name, neighbour(control, settings[control.name], by));
    });
    field.addEventListener("change", () => stage.set(control.name, field.value));
    inputs.set(control.name, { control, slider, field });
    return make("div", {}, make("label", {}, control.label, field), slider);
  }

  function show(name) {
    if (!inputs.has(name)) return;
    const { control, slider, field } = inputs.get(name);
    field.value = settings[name];
    if (!slider) return;
    slider.value = toSlider(control, settings[name]);
    slider.setAttribute("aria-valuetext", settings[name]);
  }

  function tell(name) {
    if (!model || model.get(name) === settings[name]) return;
    model.set(name, settings[name]);
    model.save_changes();
  }

  async function share() {
    window.history.replaceState(null, "", `#${name}:${new URLSearchParams(settings)}`);
    try {
      await navigator.clipboard.writeText(location.href);
      status.textContent = "The link is copied.";
    } catch {
      status.textContent = "The link is in the address bar.";
    }
  }

  /** Take the colours of the theme: the text tells whether it is dark. */
  function dress() {
    const shown = getComputedStyle(root).color.match(/[\d.]+/g);
    if (!shown) return; // a notebook puts it into the page later
    const [red, green, blue] = shown.map(Number);
    root.toggleAttribute("data-dark", 0.3 * red + 0.6 * green + 0.1 * blue > 128);
    const style = getComputedStyle(root);
    for (const each of COLOURS) colours[each] = style.getPropertyValue(`--lop-live-${each}`).trim();
    colours.font = `13px ${style.fontFamily}`;
    stage.paint();
  }

  const resized = new ResizeObserver(([{ contentRect: { width } }]) => {
    const ratio = window.devicePixelRatio || 1, height = stage.heightAt(width);
    if (!width || (size && size.width === width && size.height === height && size.ratio === ratio)) return;
    size = { width, height, ratio };
    canvas.style.height = `${height}px`;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    if (colours.font) stage.paint(); else dress();
  });
  const themed = new MutationObserver(dress);
  dress();
  try {
    resized.observe(canvas, { box: "device-pixel-content-box" }); // tells of enlarged pages, too
  } catch {
    resized.observe(canvas); // Safari
  }
  for (const element of [document.documentElement, document.body]) {
    themed.observe(element, { attributes: true, attributeFilter: ["data-theme", "data-jp-theme-light", "theme", "class"] });
  }
  parts.start();
  return stage;
}

// --- Training by frames --------------------------------------------------------------------------

const WORK = 2; // milliseconds of training in a frame; with its last step and drawing, below 4
const STILL = 12; // where nothing moves
const NEWS = 700; // milliseconds after which training that takes long says how far it is
const PLAY = 240; // frames of a whole run

/**
 * Play, pause, step and reset for what advances step by step.
 *
 * begin() makes a fresh start, advance() is one step, over() says whether it has ended, step() which it
 * is, steps() how many there are in all, note() keeps the present state for the curves, say() puts it
 * into words. Returns the buttons [Play, Step, Reset], and run(), which trains to the end, some
 * milliseconds in each frame.
 */
export function training(stage, { begin, advance, over, step: at, steps, note, say }) {
  let playing = false, frame = 0, due = 0, told = 0;
  const play = make("button", { type: "button", textContent: "Play" });
  play.addEventListener("click", () => (playing ? pause() : start()));

  function frames(more) {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => more() && frames(more));
  }

  function work(most) {
    const until = performance.now() + (stage.still ? STILL : WORK);
    let done = 0;
    for (; done < most && !over() && performance.now() < until; done++) advance();
    return done;
  }

  function fresh() {
    begin();
    due = 0;
  }

  /** Mark what is said as of before; now and then say how far training is. Is it time to? */
  function news() {
    stage.busy();
    if (performance.now() - told < NEWS) return false;
    told = performance.now();
    stage.say(`Still in training, at step ${at()}.`, "A figure in training.");
    stage.busy();
    return true;
  }

  function run() {
    halt();
    fresh();
    told = performance.now();
    const more = () => {
      work(Infinity);
      const late = !over() && news();
      if (!stage.still || late || over()) stage.paint();
      if (over()) say();
      return !over();
    };
    if (more()) frames(more);
  }

  function start() {
    if (over()) fresh();
    playing = true;
    play.textContent = "Pause";
    told = performance.now();
    frames(() => {
      due = Math.min(due + steps() / PLAY, 4 * (1 + steps() / PLAY)); // where it lags, it gives way
      due -= work(Math.floor(due));
      stage.paint();
      if (over()) pause(); else news();
      return playing;
    });
  }

  function halt() {
    cancelAnimationFrame(frame);
    playing = false;
    play.textContent = "Play";
  }

  function pause() {
    halt();
    note();
    say();
  }

  function step() {
    if (over()) fresh();
    advance();
    pause();
    stage.paint();
  }

  function reset() {
    fresh();
    pause();
    stage.paint();
  }

  return { buttons: [play, ["Step", step], ["Reset", reset]], run, halt };
}

// --- Drawing -------------------------------------------------------------------------------------

/** Draw the two axes of a panel and a title above; return what marks a place on the upright one. */
export function border(pen, { left, right, top, bottom }, title, ink) {
  const marked = [];
  pen.strokeStyle = pen.fillStyle = ink;
  pen.lineWidth = 1;
  pen.textAlign = "start";
  pen.beginPath();
  pen.moveTo(left, top);
  pen.lineTo(left, bottom);
  pen.lineTo(right, bottom);
  pen.stroke();
  pen.fillText(title, Math.max(left - 50, 0), top - 8);
  return (y, text) => {
    if (marked.some((other) => Math.abs(other - y) < 13)) return;
    marked.push(y);
    pen.fillRect(left - 4, y, 4, 1);
    pen.textAlign = "right";
    pen.fillText(text, left - 7, y + 4);
    pen.textAlign = "start";
  };
}

/**
 * Draw a logarithmic axis that holds all values above the floor, and the line below; return where a
 * value stands. panel has left, right, top, bottom.
 */
export function axes(pen, panel, values, title, ink, floor = 1e-14) {
  const to = (x) => Math.log10(Math.max(x, floor / 10)), { top, bottom } = panel;
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value) || value <= 0) continue;
    const x = to(Math.max(value, floor));
    if (x < low) low = x;
    if (x > high) high = x;
  }
  if (low > high) [low, high] = [0, 1];
  low -= 0.1;
  high += 0.1;
  const y = (value) => bottom - (to(value) - low) / (high - low) * (bottom - top);
  const put = border(pen, panel, title, ink), mark = (value) => put(y(value), short(value, 2));
  const whole = Math.max(1, Math.ceil((high - low) / 5));
  for (let n = Math.ceil(low); n <= high; n += whole) mark(10 ** n);
  if (Math.floor(high) - Math.ceil(low) < 1) [low + 0.1, high - 0.1].forEach((n) => mark(10 ** n));
  return y;
}

/** Draw a curve through points of (x, y) pixels; what is not finite breaks it. */
export function line(pen, points, colour, width = 1.8) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.beginPath();
  let open = false;
  for (const [x, y] of points) {
    const here = Number.isFinite(x) && Number.isFinite(y);
    if (here) pen[open ? "lineTo" : "moveTo"](x, y);
    open = here;
  }
  pen.stroke();
}

/** Write a text in a colour; align is start, center or right. */
export function write(pen, text, x, y, colour, align = "start") {
  pen.fillStyle = colour;
  pen.textAlign = align;
  pen.fillText(text, x, y);
  pen.textAlign = "start";
}
