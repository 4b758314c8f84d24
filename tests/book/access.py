"""What keeps some readers out of a page: axe's rules, the keyboard, and faint figures.

Functions from an open page to the list of what is wrong; nothing here knows pytest.
"""

import base64
import io
import re
from importlib import resources

import numpy as np
from PIL import Image
from scipy import ndimage

# What is not ours to mend, by rule and selector, each with its reason. Nothing at present.
KNOWN: dict[tuple[str, str], str] = {}

# Colours are all that the theme changes, so in the dark only their rules run. They take axe most of
# its time, a look at every text for what lies beneath it; one text of each colour, size, and row
# of backgrounds is enough. Formulas go first: ten elements for each letter, in the text's colour.
AXE = """async ([colours, coloursOnly]) => {
  document.querySelectorAll("details").forEach((e) => { e.open = true; });
  document.querySelectorAll("mjx-container").forEach((e) => e.remove());
  document.querySelectorAll(".toggle-hidden").forEach((e) => {
    e.classList.remove("toggle-hidden");
  });
  const beneath = (e) => {
    if (!e) return "";
    const s = getComputedStyle(e);
    return [s.backgroundColor, s.backgroundImage, s.opacity, beneath(e.parentElement)].join();
  };
  const kinds = new Set();
  for (const e of document.querySelectorAll("body *")) {
    e.removeAttribute("data-lop-kind");
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const s = getComputedStyle(e), around = getComputedStyle(e.parentElement).color;
    const kind = [s.color, s.fontSize, s.fontWeight, s.textDecorationLine, around, beneath(e),
      e.matches("a") && Boolean(e.closest("p"))].join();
    if (!kinds.has(kind) && e.checkVisibility({ visibilityProperty: true })) {
      kinds.add(kind);
      e.setAttribute("data-lop-kind", "");
    }
  }
  const run = async (context, options) => (await axe.run(context, {
    resultTypes: ["violations"], iframes: false, preload: false, ...options })).violations;
  const rules = Object.fromEntries(colours.map((rule) => [rule, { enabled: false }]));
  const found = coloursOnly ? [] : await run(document, { rules });
  if (kinds.size) found.push(...await run("[data-lop-kind]", { runOnly: colours }));
  return found.filter((v) => ["serious", "critical"].includes(v.impact)).flatMap((v) =>
    v.nodes.map((node) => ({ rule: v.id, where: node.target.flat().join(" "), html: node.html })));
}"""
COLOUR_RULES = ["color-contrast", "link-in-text-block"]

# Every element that can take the focus, and every one that a mouse can press.
FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]"
WATCH = """(focusable) => {
  const still = document.createElement("style");
  still.textContent = "*, ::before, ::after { transition: none !important; }";
  document.head.append(still);
  const name = (e) => (e.tagName.toLowerCase() + (e.id ? "#" + e.id : "")
    + [...e.classList].slice(0, 3).map((c) => "." + c).join("")
    + " " + JSON.stringify((e.getAttribute("aria-label") ?? e.textContent).trim().slice(0, 30)));
  const opacity = (e) => (e ? getComputedStyle(e).opacity * opacity(e.parentElement) : 1);
  const seen = (e) => e.checkVisibility({ visibilityProperty: true })
    && e.getBoundingClientRect().width > 0 && e.getBoundingClientRect().height > 0;
  const marked = (e) => {
    const s = getComputedStyle(e);
    const outline = s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 1
      && !/, 0\\)$/.test(s.outlineColor);
    return outline && seen(e) && opacity(e) > 0.5;
  };
  const all = [...document.querySelectorAll(focusable)].filter(
    (e) => e.tabIndex >= 0 && !e.disabled && seen(e) && !e.closest("[inert]"));
  const reached = new Set(), unmarked = new Set();
  document.addEventListener("focusin", ({ target }) => {
    reached.add(target);
    if (!marked(target)) unmarked.add(target);
  });
  const hand = (e) => getComputedStyle(e).cursor === "pointer";
  const pressed = [...document.querySelectorAll("body *")].filter((e) => seen(e)
    && (e.onclick || e.getAttribute("role") === "button" || hand(e))
    && !e.closest(focusable) && !e.querySelector(focusable) && !e.closest("label, mjx-container"));
  window.lopWatch = () => ({
    unreached: all.filter((e) => !reached.has(e)).map(name),
    unmarked: [...unmarked].map(name),
    mouseOnly: pressed.filter((e) => !pressed.includes(e.parentElement)).map(name),
    first: reached.size ? name([...reached][0]) : null,
  });
  return all.length;
}"""
# Presses on one control, and what must be true after; asked only where the control is there.
PRESSES = {
    "button.search-button__button": "document.activeElement.matches('input[type=search]')",
    "button.theme-switch-button": "(document.documentElement.dataset.mode ?? null) !== before",
    "details:not(.option, [open]) > summary": "control.parentElement.open",
    "details.option:not([open]) > summary": "control.parentElement.open",
    ".toggle-button": "!control.closest('.toggle').matches('.toggle-hidden')",
    "button.dropdown-toggle": "control.getAttribute('aria-expanded') === 'true'",
}

PATIENT = """async ([control, before]) => {
  for (let i = 0; i < 40; i++) {
    if (EXPECTED) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}"""
# Pixels of the smallest thing that must be seen by itself: less than a letter, more than a point.
LETTER = 20
# The figures as they stand on the page, with its filter on its paper; a photograph has no ink.
FIGURES = """async (paper) => {
  const found = [];
  for (const e of document.querySelectorAll("article .cell_output img:not(.dark-light)")) {
    if (!e.naturalWidth || !e.clientWidth) continue;
    const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
    canvas.width = e.clientWidth * devicePixelRatio;
    canvas.height = e.clientHeight * devicePixelRatio;
    pen.fillStyle = paper;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.filter = getComputedStyle(e).filter;
    pen.drawImage(e, 0, 0, canvas.width, canvas.height);
    const vector = e.src.startsWith("data:image/svg") || e.src.split("?")[0].endsWith(".svg");
    const raster = !vector || (await (await fetch(e.src)).text()).includes("<image");
    found.push([e.src.slice(0, 200).split("/").pop(), raster, canvas.toDataURL().split(",")[1]]);
  }
  return found;
}"""


def axe_source():
    """Return axe-core as its package on PyPI ships it."""
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def violations(page, colours_only=False):
    """List axe's serious and critical findings, without the known ones."""
    if page.evaluate("globalThis.axe === undefined"):
        page.evaluate(axe_source())
    found = page.evaluate(AXE, [COLOUR_RULES, colours_only])
    return [
        f"{each['rule']}: {each['where']}: {each['html'][:120]}"
        for each in found
        if (each["rule"], each["where"]) not in KNOWN
    ]


def walk(page):
    """Press Tab through the whole page; say what was not reached, not marked, or mouse-only."""
    for _ in range(page.evaluate(WATCH, FOCUSABLE) + 20):
        page.keyboard.press("Tab")
    return page.evaluate("lopWatch()")


def presses(page):
    """Focus one control of each kind that is there and press Enter; say whether it did its work."""
    worked = {}
    for selector, expected in PRESSES.items():
        control = page.query_selector(f"{selector} >> visible=true")
        if control is None:
            continue
        before = page.evaluate("document.documentElement.dataset.mode")
        control.focus()
        page.keyboard.press("Enter")
        # a click may open with a transition, so the question is asked for a while
        worked[selector] = page.evaluate(PATIENT.replace("EXPECTED", expected), [control, before])
        page.keyboard.press("Escape")
    return worked


def luminance(colours):
    """Return the relative luminance (WCAG 2) of colours of 0 to 255."""
    c = np.arange(256) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear[np.asarray(colours).astype(int)] @ [0.2126, 0.7152, 0.0722]


def contrast(colours, background):
    """Return WCAG's contrast of each colour with the background, 1 to 21."""
    a, b = luminance(colours), luminance(background)
    return (np.maximum(a, b) + 0.05) / (np.minimum(a, b) + 0.05)


def faint(picture, background, raster=False, least=3.0):
    """List what can hardly be seen in the picture of a figure, as it stands on the page.

    Two questions. Each connected piece of ink, a letter or a curve, must somewhere reach the
    contrast that WCAG asks of graphics; only the best pixel counts, since the edge of a line is
    always paler. And so must each hue, or a pale curve that crosses an axis would pass with it;
    not where the figure holds a raster, whose colours mean numbers.
    """
    every = contrast(picture, background)
    ink = every > 1.05
    colours, ratio = picture[ink], every[ink]
    pieces, count = ndimage.label(ink, structure=np.ones((3, 3)))
    best = np.zeros(count + 1)
    np.maximum.at(best, pieces[ink], ratio)
    size, rows, columns = np.bincount(pieces[ink], minlength=count + 1), *np.nonzero(ink)
    found = []
    for piece in np.flatnonzero((size >= LETTER) & (best < least)):
        first = np.flatnonzero(pieces[ink] == piece)[0]
        found.append(f"piece at {columns[first]},{rows[first]}: contrast {best[piece]:.2f}")
    if raster or not len(colours):
        return found
    coloured = colours.max(-1).astype(float) - colours.min(-1) > 40
    hues = np.array(Image.fromarray(colours[None]).convert("HSV"))[0, :, 0] // 16  # 16 hues
    for hue in np.unique(hues[coloured]):
        of_hue = coloured & (hues == hue)
        if of_hue.sum() >= 30 and ratio[of_hue].max() < least:
            found.append(f"hue {hue * 22.5:.0f} deg: contrast {ratio[of_hue].max():.2f}")
    return found


def faint_figures(page, background):
    """Look at each figure as it stands on the page, and list its faint parts."""
    *paper, alpha = [*map(float, re.findall(r"[\d.]+", background)), 1.0][:4]
    paper = paper if alpha else [255] * 3
    found = []
    for name, raster, png in page.evaluate(FIGURES, f"rgb({','.join(map(str, paper))})"):
        picture = np.array(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
        found += [f"{name}: {what}" for what in faint(picture, paper, raster)]
    return found
