"""Open pages in headless Chromium with the network off, and say what is wrong with each view."""

import functools
import http.server
import re
import threading
from contextlib import contextmanager
from typing import NamedTuple

import access

# Two pixels to a point, as on most screens of today: of the figures, the pixels are looked at.
DESK = {"viewport": {"width": 1280, "height": 900}, "device_scale_factor": 2}
VIEWS = {
    "light": {**DESK, "color_scheme": "light"},
    "dark": {**DESK, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}

LETTERS = 12  # pixels of those in diagrams; on a phone of 360, which is narrower, they have 11

# Everything the rules need from one view of a page, measured in one call.
MEASURE = r"""async () => {
  if (window.MathJax?.startup) await MathJax.startup.promise;
  const article = document.querySelector("article") ?? document.body;
  const text = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const raw = [];
  while (text.nextNode()) {
    const place = text.currentNode.parentElement;
    if (place.closest("pre, code, script, style, mjx-container, .math")) continue;
    raw.push(...(text.currentNode.data.match(/\\\(|\\\[|\$\$|\$[^$\n]*[\\^_][^$\n]*\$/g) ?? []));
  }
  for (const math of article.querySelectorAll("span.math, div.math")) {
    const source = math.textContent.trim();
    if (source && !math.querySelector("mjx-container")) raw.push(source);
  }
  const colour = (element) => getComputedStyle(element).backgroundColor;
  const letters = [...article.querySelectorAll(".lop-diagram :is(text, tspan)")].map((e) =>
    parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a);
  return {
    raw,
    letters: Math.min(99, ...letters),
    mathErrors: [...document.querySelectorAll("mjx-merror")].map((e) => e.textContent),
    sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    theme: document.documentElement.dataset.theme ?? null,
    background: colour(document.body),
    figures: [...document.querySelectorAll("article .cell_output img")].map((e) => ({
      source: e.src, filter: getComputedStyle(e).filter, background: colour(e),
      shown: e.complete && e.naturalWidth > 0, photograph: e.classList.contains("dark-light"),
    })),
  };
}"""

# Colours fade from one theme into the other; what is measured is where they end.
SETTLE = """async (wanted) => {
  const { dataset } = document.documentElement;
  for (let i = 0; i < 60 && dataset.mode === "auto" && dataset.theme !== wanted; i++) {
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
  await new Promise((resolve) => { requestAnimationFrame(resolve); });
  document.getAnimations().forEach((fading) => fading.finish());
}"""


class Visit(NamedTuple):
    """What one view of a page showed."""

    measured: dict
    outside: list[str]
    errors: list[str]
    missing: list[str]
    faint: list[str]  # in the light and in the dark; on a phone it is the same ink
    violations: list[str]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serve files, and do not print each of them."""

    def log_message(self, *args):
        pass


@contextmanager
def serve(folder):
    """Serve a folder on the loopback address; yield its URL."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def opened(browser, base, path, view):
    """Open one page in one view, nothing more; yield it."""
    context = browser.new_context(**VIEWS[view])
    page = context.new_page()
    page.goto(f"{base}/{path}", wait_until="load")
    page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
    yield page
    context.close()


def only(base, outside):
    """Return what lets requests to one place through, and refuses and notes all others."""

    def gate(route):
        if route.request.url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    return gate


def visit(browser, base, path, view):
    """Open one page in one view and measure it; refuse every request to another machine."""
    page, notes = reader(browser, base)
    seen = look(page, notes, base, path, view)[view]
    page.context.close()
    return seen


def reader(browser, base):
    """Open what pages are read in, one after the other; return it and the lists of its troubles."""
    notes = {"outside": [], "errors": [], "missing": []}

    def console(message):
        # a refused or missing file is reported by its own rule
        if message.type == "error" and "Failed to load resource" not in message.text:
            notes["errors"].append(message.text)

    def answered(response):
        if response.status >= 400:
            notes["missing"].append(f"{response.status} {response.url}")

    context = browser.new_context(**DESK)
    elsewhere = re.compile(rf"^(?!{re.escape(base)}|data:|blob:)")  # the others do not come by here
    context.route(elsewhere, only(base, notes["outside"]))
    page = context.new_page()
    page.on("pageerror", lambda error: notes["errors"].append(str(error)))
    page.on("console", console)
    page.on("response", answered)
    return page, notes


def look(page, notes, base, path, *views):
    """Load a page in the first view, let the reader's system change to others, and measure each."""

    def turn(view):
        page.set_viewport_size(VIEWS[view]["viewport"])
        page.emulate_media(color_scheme=VIEWS[view]["color_scheme"])

    def settle(view):
        turn(view)
        page.evaluate(SETTLE, VIEWS[view]["color_scheme"])

    for each in notes.values():
        each.clear()
    turn(views[0])
    page.goto(f"{base}/{path}", wait_until="load")
    seen = {}
    for view in views:
        settle(view)
        measured = page.evaluate(MEASURE)
        faint = access.faint_figures(page, measured["background"]) if view != "phone" else []
        seen[view] = Visit(measured, faint=faint, violations=[], **notes)
    for view in seen.keys() - {"phone"}:  # last, since it takes the formulas off the page
        settle(view)
        seen[view].violations.extend(access.violations(page, colours_only=view == "dark"))
    page.evaluate("() => localStorage.clear()")  # the next page is the first that a reader sees
    noted = {kind: found.copy() for kind, found in notes.items()}
    return {view: each._replace(**noted) for view, each in seen.items()}


def faults(view, seen):
    """List what is wrong with a page, by what was seen of it in a view."""
    measured, dark = seen.measured, view == "dark"
    found = [
        *(f"request to elsewhere: {each}" for each in seen.outside),
        *(f"error of a script: {each}" for each in seen.errors),
        *(f"missing: {each}" for each in seen.missing),
        *(f"mathematics as text: {each}" for each in measured["raw"]),
        *(f"error of MathJax: {each}" for each in measured["mathErrors"]),
        *(f"faint: {each}" for each in seen.faint),
        *(f"axe: {each}" for each in seen.violations),
    ]
    if measured["letters"] < LETTERS:
        found.append(f"letters of {measured['letters']:.1f} pixels in a diagram")
    if view == "phone" and measured["sideways"] > 0:
        found.append(f"scrolls sideways by {measured['sideways']} pixels")
    # inverting white by 0.9294 gives 18 of 255, which is this background
    if dark and (measured["theme"], measured["background"]) != ("dark", "rgb(18, 18, 18)"):
        found.append(f"theme {measured['theme']} with background {measured['background']}")
    for figure in measured["figures"]:
        wanted = "none" if figure["photograph"] else "invert(0.9294) hue-rotate(180deg)"
        if not figure["shown"]:
            found.append(f"not shown: {figure['source']}")
        if dark and figure["filter"] != wanted:
            found.append(f"filter {figure['filter']}: {figure['source']}")
        if dark and not figure["photograph"] and figure["background"] != "rgba(0, 0, 0, 0)":
            found.append(f"background {figure['background']}: {figure['source']}")
    return found
