"""Draw the first frame of each live figure, for paper and for pages without scripts.

usage: stills.py

It is the figure itself that draws, in Chromium, with a pen that writes SVG: book/_figures/NAME.svg.
"""

import json
import sys
from pathlib import Path

from chromium import HOW_TO_GET, find_chromium, launch

from lop_utils.book import live

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "book" / "_figures"
WIDTH = 720
DRAWN = f"""(root) => {{
  const stage = root.lopStage, height = stage.heightAt({WIDTH}), pen = svgPen({WIDTH}, height);
  stage.drawWith(pen, {WIDTH}, height);
  return pen.text();
}}"""

SAID = """() => {
  const said = document.querySelector('.lop-live-status')?.textContent;
  return said && !said.startsWith('Still');
}"""


def names():
    """Return the live figures, by name."""
    return sorted(path.stem for path in FIGURES.glob("*.json"))


def page_with(browser, name, script="", reduced_motion="no-preference", **settings):
    """Return a page that holds a figure and nothing else, once it has trained."""
    size = {"width": 1000, "height": 900}
    page = browser.new_page(viewport=size, reduced_motion=reduced_motion)
    place = f'class="lop-live" data-lop-figure="{name}" style="width: {WIDTH}px"'
    start = f"data-lop-settings='{json.dumps(settings)}'"
    page.set_content(f"<!doctype html><title>{name}</title><div {place} {start}></div>")
    page.add_script_tag(content=f"{live.module(name)}\n{script}", type="module")
    page.wait_for_function(SAID, timeout=60_000)
    return page


def still(browser, name):
    """Return the first frame of a figure as SVG."""
    page = page_with(browser, name)
    page.evaluate((ROOT / "tools" / "pen.js").read_text(encoding="utf-8"))
    text = page.locator(".lop-live").evaluate(DRAWN)
    page.close()
    return text


if __name__ == "__main__":
    if (executable := find_chromium()) is None:
        sys.exit(HOW_TO_GET)
    with launch(executable) as browser:
        for name in names():
            (FIGURES / f"{name}.svg").write_text(still(browser, name), encoding="utf-8")
