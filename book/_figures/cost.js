// What a step costs, live. Nothing trains here: the counts are those of lop_utils.cost, the seconds
// those counts times the five constants of a machine, recorded by benchmarks/machine.py.

import controls from "./cost.json" with { type: "json" };
import { live, make, short, write } from "./kit.js";
import record from "../_recorded/bench-machine.json" with { type: "json" };

// --- The model ---------------------------------------------------------------------------------

// The constants of one thread by bytes of a number, at sizes and widths.
export const MACHINE = record.values;

/** The value at x of a table by positions: between two of them along a straight line in logarithms. */
export function between(places, values, x) {
  if (x <= places[0]) return values[0];
  const i = places.findIndex((place) => x <= place);
  if (i < 0) return values[values.length - 1];
  const t = Math.log(x / places[i - 1]) / Math.log(places[i] / places[i - 1]);
  return values[i - 1] ** (1 - t) * values[i] ** t;
}

/** The five constants at a size and width; those that are given and positive stand for themselves. */
export function machineAt(size, side, k, given = {}) {
  const { sides, rows, widths, constants } = MACHINE, of = constants[size];
  const byWidth = (lines) => lines.map((line) => between(widths, line, k));
  const found = {
    overhead: of.overhead,
    rate: between(sides, of.rate, side),
    bandwidth: between(sides, of.bandwidth, side),
    thin: between(sides, byWidth(of.thin), side),
    fetch: between(rows, byWidth(of.fetch), side),
  };
  return Object.fromEntries(Object.entries(found).map(([name, x]) => [name, given[name] > 0 ? given[name] : x]));
}

// As in lop_utils.book.cost: calls of a step for each layer and for the residual, of all cells or of some.
const CALLS = 10, RESIDUAL = 10, SAMPLED = 95;

/** A step of L layers of d by d, and what it holds. */
export function full(d, L, size) {
  return {
    parameters: L * d * d,
    operations: 6 * (L - 1) * d ** 3,
    memory: (3 * L + 2) * d * d * size,
    work: { calls: CALLS * L + RESIDUAL, flops: 6 * (L - 1) * d ** 3, bytes: (6 + 5 * L) * d * d * size, thin: 0, fetches: 0 },
  };
}

const inner = (d, k, L) => (L > 2 ? 6 * (L - 2) * d * k * k + 6 * (L - 1) * k ** 3 : 0);

/** A step of width k whose product is formed in full. */
export function dense(d, k, L, size) {
  const thin = 6 * d * d * k + inner(d, k, L);
  return {
    parameters: 2 * d * k + (L - 2) * k * k,
    operations: thin,
    memory: (3 * d * d + 4 * d * k + (L - 2) * (k * d + k * k)) * size,
    work: { calls: CALLS * L + RESIDUAL, flops: 0, bytes: (6 * d * d + 10 * d * k) * size, thin, fetches: 0 },
  };
}

/** A step of width k that looks at n observed entries only. */
export function sampled(n, d, k, L, size) {
  const thin = inner(d, k, L), parameters = 2 * d * k + (L - 2) * k * k;
  return {
    parameters,
    operations: thin + 6 * n * k, // those of the entries are done while their rows arrive
    memory: n * (4 * size + 16) + 4 * parameters * size,
    work: { calls: SAMPLED + CALLS * L, flops: 0, bytes: n * (6 * size + 16) + 10 * d * k * size, thin, fetches: 4 * n },
  };
}

/** Seconds of a step, by what they are spent on. */
export function spent({ calls, flops, bytes, thin, fetches }, machine) {
  return {
    calls: calls * machine.overhead,
    products: flops / machine.rate + thin / machine.thin,
    "moving bytes": bytes / machine.bandwidth,
    fetches: fetches * machine.fetch,
  };
}

/** The five networks with their costs; `sound` says whether it does what the others do. */
export function networks(settings) {
  const { d, r, L, p, w } = settings, size = settings.bits ? 4 : 8, k = 2 * r;
  const n = Math.max(1, Math.round(p * d * d));
  const timed = (name, kind, cost, side, width, sound = true) => {
    const parts = spent(cost.work, machineAt(size, side, width, settings));
    const most = Object.keys(parts).reduce((a, b) => (parts[b] > parts[a] ? b : a));
    const seconds = parts.calls + parts.products + parts["moving bytes"] + parts.fetches;
    return { name, kind, ...cost, seconds, most, share: parts[most] / seconds, sound };
  };
  const two = (name, kind, width) => [
    timed(`${name}, dense`, kind, dense(d, width, L, size), d, width),
    timed(`${name}, sampled`, kind, sampled(n, d, width, L, size), d, width),
  ];
  const narrow = two("narrow", "narrow", w);
  const rows = [
    timed("original", "original", full(d, L, size), d, d),
    ...two("compressed", "compressed", k),
    narrow[narrow[1].seconds < narrow[0].seconds ? 1 : 0],
    timed("core alone", "core", full(k, L, size), k, k, p === 1),
  ];
  return { n, k, rows };
}

// --- Numbers as text ---------------------------------------------------------------------------

const PREFIXES = ["n", "µ", "m", "", "k", "M", "G", "T", "P", "E", "Z", "Y"];

/** Three digits and a prefix: 24.2 M. */
export function si(x, unit = "") {
  if (!Number.isFinite(x)) return "∞";
  if (x === 0) return `0 ${unit}`.trim();
  const power = Number(x.toExponential(2).split("e")[1]);
  const step = Math.min(Math.max(Math.floor(power / 3), -3), 8);
  return `${short(x / 1000 ** step)} ${PREFIXES[step + 3]}${unit}`.trim();
}

/** Seconds as one says them. */
export function duration(s) {
  if (s < 60) return si(s, "s");
  if (s < 3600) return `${short(s / 60)} min`;
  if (s < 86400) return `${short(s / 3600)} h`;
  if (s < 31557600) return `${short(s / 86400)} days`;
  return s < 3e13 ? `${si(s / 31557600)} years` : "> 10⁶ years";
}

// --- The figure --------------------------------------------------------------------------------

const QUANTITIES = [
  ["numbers trained", "parameters", (x) => si(x)],
  ["operations a step", "operations", (x) => si(x)],
  ["memory", "memory", (x) => si(x, "B")],
  ["time of a step", "seconds", duration],
];
const COLOUR = { original: "rest", compressed: "rises", narrow: "fourth", core: "third" };
const NAMES = 154, NUMBERS = 78, BAR = 24; // pixels: of names and numbers beside the bars, of a bar's row
const PHONE = 540; // pixels: below, the panels stand one below the other

function figure(stage) {
  const { settings } = stage;
  let found = networks(settings);
  const titles = ["network", ...QUANTITIES.map(([title]) => title), "mostly for"];
  const caption = make("caption"), body = make("tbody");
  caption.style.cssText = "caption-side: top; text-align: start; color: inherit; padding: 0.3rem 0";
  const cell = (tag, textContent, scope) => {
    const element = make(tag, { textContent });
    if (scope) element.scope = scope;
    element.style.cssText = `padding: 0.2rem 0.3rem; font-weight: ${scope === "col" ? 600 : 400}; white-space: ${scope === "col" ? "normal" : "nowrap"}; text-align: ${scope === "row" ? "start" : "end"}; border-bottom: 1px solid var(--lop-live-edge)`;
    return element;
  };
  const head = make("tr", {}, ...titles.map((title) => cell("th", title, "col")));
  head.firstChild.style.textAlign = "start";
  const table = make("table", {}, caption, make("thead", {}, head), body);
  table.style.cssText = "border-collapse: collapse; width: 100%; font-size: 0.8rem";
  const box = make("div", { tabIndex: 0 }, table); // it scrolls where the page is narrow
  box.style.cssText = "overflow-x: auto; margin: 0.6rem 0";
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Table of the costs");

  const label = (row) => (row.sound ? row.name : "core (if p = 1)");

  function show() {
    found = networks(settings);
    caption.textContent = `The same in numbers, ${si(found.n)} entries observed.`;
    body.replaceChildren(...found.rows.map((row) => make("tr", {},
      cell("th", label(row), "row"),
      ...QUANTITIES.map(([, key, text]) => cell("td", text(row[key]))),
      cell("td", `${row.most}, ${Math.round(100 * row.share)} %`))));
    stage.paint();
    say();
  }

  function say() {
    const { d, r, w } = settings, { n, k, rows } = found;
    const [original, , , narrow] = rows;
    const best = rows.filter((row) => row.sound && row !== narrow).reduce((a, b) => (b.seconds < a.seconds ? b : a));
    const times = (x) => (x >= 1e4 ? si(x) : short(x, 2));
    const saved = (key) => original[key] / best[key];
    const parts = [`A step of the original takes ${duration(original.seconds)} and holds ${si(original.memory, "B")}, mostly for ${original.most}.`];
    if (best === original || saved("seconds") < 1.05) parts.push("Nothing in its place is quicker by a twentieth.");
    else {
      parts.push(`Quickest in its place is ${best.name}: ${duration(best.seconds)}, ${times(saved("seconds"))} times less, mostly for ${best.most}, `
        + `with ${si(best.memory, "B")}, ${saved("memory") >= 1 ? `${times(saved("memory"))} times less` : "which is more"}.`);
    }
    const compressed = rows[1].seconds < rows[2].seconds ? rows[1] : rows[2], ratio = narrow.seconds / compressed.seconds;
    parts.push(w < r
      ? `The narrow network of width ${w} cannot reach rank ${r}.`
      : `A step of the narrow network of width ${w} takes ${Math.abs(ratio - 1) < 0.005 ? "as long as" : `${short(ratio, 2)} times as long as`} a compressed one.`);
    if (k >= d) parts.push(`2r = ${k} is not below d = ${d}: there is nothing to compress.`);
    else if (n < r * (2 * d - r)) parts.push(`But ${si(n)} entries are fewer than the ${si(r * (2 * d - r))} numbers that a matrix of rank ${r} needs.`);
    stage.say(parts.join(" "), "Numbers trained, operations, memory and time of a step of five networks.");
  }

  function draw(pen, width, height, colours) {
    const columns = width < PHONE ? 1 : 2, tall = height * columns / 4;
    const wide = (width - NAMES) / columns; // two panels side by side share the names
    QUANTITIES.forEach((quantity, i) => {
      const column = i % columns, left = NAMES + column * wide, top = Math.floor(i / columns) * tall;
      panel(pen, left, top, wide, quantity, column === 0, colours);
    });
  }

  function panel(pen, from, y, wide, [title, key, text], named, colours) {
    const values = found.rows.map((row) => Math.log10(Math.min(row[key], 1e30)));
    const low = Math.floor(Math.min(...values) - 0.3), high = Math.max(...values);
    const scale = (wide - NUMBERS) / (high - low), top = y + 24;
    const bottom = top + found.rows.length * BAR;
    write(pen, title, from, y + 15, colours.ink);
    const every = Math.max(1, Math.ceil(64 / scale)); // so that their texts stand apart
    const marks = [];
    for (let n = low; n <= high; n += every) marks.push(n);
    for (const n of marks) {
      const at = from + (n - low) * scale;
      write(pen, text(10 ** n), at, bottom + 18, colours.ink, "center");
      pen.fillRect(at, bottom, 1, 4);
    }
    pen.fillRect(from - 1, top, 1, bottom - top);
    pen.fillRect(from - 1, bottom, (high - low) * scale, 1);
    found.rows.forEach((row, i) => {
      const at = top + i * BAR, end = from + (values[i] - low) * scale;
      pen.globalAlpha = row.sound ? 1 : 0.35;
      pen.fillStyle = colours[COLOUR[row.kind]];
      pen.fillRect(from, at + 4, end - from, BAR - 8);
      pen.globalAlpha = 1;
      if (named) write(pen, label(row), from - 7, at + BAR / 2 + 4, colours.ink, "right");
      write(pen, text(row[key]), end + 5, at + BAR / 2 + 4, colours.ink);
    });
  }

  const height = (width) => (width < PHONE ? 4 : 2) * 11;
  return { height, buttons: [], change: show, draw, start: show, after: [box] };
}

export default live("cost", controls, figure);
