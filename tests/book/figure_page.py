"""Live figures, each alone on a page whose time passes only when a test says so.

With the clock at rest all training fits into the frame that begins it, so what a figure says is
there at once; with a clock that each look advances, it trains a few steps a frame, as it does for
readers. No book is needed, and nothing is asked of a network: each request is answered here.
"""

from pathlib import PurePosixPath
from urllib.parse import parse_qsl, urlsplit

from browser import VIEWS

from lop_utils.book import live as widgets

SITE = "https://figures.invalid"
PAGE = """<!doctype html><html lang="en"><head><title>{name}</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><style>
:root {{ color-scheme: light dark; }} body {{ margin: 0 8px 200vh; font-size: 16px; }}
</style></head><body>{places}<script>
const told = performance.now.bind(performance);
let looked = 0;
globalThis.look = {look}; // milliseconds that each look at the clock takes
performance.now = () => told() + (looked += look);
</script>
<script type="module">import * as lop from "/{name}.js"; globalThis.lop = lop;</script>
</body></html>"""
FRAME = 16  # milliseconds, of a page's clock that is not the system's
# Texts that a figure writes at a width, with where they stand: [text, left, right, baseline].
TEXTS = """(root, width) => {
  const stage = root.lopStage, real = document.createElement("canvas").getContext("2d");
  const texts = [], kept = { textAlign: "start" }, nothing = () => {};
  kept.fillText = (text, x, y) => {
    real.font = kept.font;
    const wide = real.measureText(text).width;
    const left = x - wide * { start: 0, center: 0.5, right: 1 }[kept.textAlign];
    texts.push([text, left, left + wide, y]);
  };
  const pen = new Proxy(kept, { get: (_, name) => kept[name] ?? nothing });
  stage.drawWith(pen, width, stage.heightAt(width));
  return [texts, stage.heightAt(width)];
}"""


def answer(route):
    """Answer a request: NAME is a page with a figure, NAME.js is its module."""
    address = urlsplit(route.request.url)
    path, asked = PurePosixPath(address.path), dict(parse_qsl(address.query))
    if path.suffix == ".js":
        route.fulfill(body=widgets.module(path.stem), content_type="text/javascript")
        return
    place = f'<div class="lop-live" data-lop-figure="{path.name}"></div>'
    text = PAGE.format(name=path.name, look=asked["look"], places=place * int(asked["places"]))
    route.fulfill(body=text, content_type="text/html; charset=utf-8")


def page_for_figures(browser, view="light", **options):
    """Open a page that can show any figure, and rests."""
    context = browser.new_context(**{**VIEWS[view], **options})
    context.route("**/*", answer)
    page = context.new_page()
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    return page


def show(page, name, address="", look=0, places=1):
    """Show a figure on such a page, or several or none, with the clock at rest or slow."""
    page.goto("about:blank")  # from an address to another that differs after # nothing is loaded
    page.goto(f"{SITE}/{name}?{look=}&{places=}{address and f'#{name}:'}{address}")
    return page.locator(".lop-live")


def said(live):
    """Return what stands below a figure."""
    return live.locator(".lop-live-status").inner_text().replace("\u00a0", " ")


def frames(live, count):
    """Let so many frames pass."""
    live.page.clock.run_for(count * FRAME)


def button(live, name):
    return live.get_by_role("button", name=name, exact=True)


def field(live, label):
    return live.get_by_label(label, exact=True)


def enter(live, label, text):
    """Type into a field."""
    field(live, label).fill(text)
    field(live, label).press("Enter")


def drag(live, label, start, end):
    """Drag a slider from one share of its length to another."""
    slider = field(live, f"{label}, slider")
    box = slider.bounding_box()
    at = [{"x": share * box["width"], "y": box["height"] / 2} for share in (start, end)]
    slider.drag_to(slider, source_position=at[0], target_position=at[1])


def setting(live, name):
    return live.evaluate("(root, name) => root.lopStage.settings[name]", name)


def set_to(live, **settings):
    """Set what has no slider, too."""
    for name, value in settings.items():
        live.evaluate("(root, [name, value]) => root.lopStage.set(name, value)", [name, value])


def texts(live, width):
    """Return the texts that a figure writes at a width, with their places, and its height."""
    return live.evaluate(TEXTS, width)
