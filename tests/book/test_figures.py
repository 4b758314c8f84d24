"""What holds of every live figure: in the page, frame by frame, in a notebook, and as a picture."""

import base64
import io
import json
import re

import numpy as np
import pytest
import stills
from page_rules import ROOT, soup
from PIL import Image

from lop_utils import widgets

NAMES = stills.names()
TEXT, IMAGE = re.compile(r">([^<\n]+)<"), re.compile(r'"data:image/png;base64,([^"]+)"')
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
each_figure = pytest.mark.parametrize("name", NAMES)


def shown_in(html):
    """Return the live figures of the pages: page, name, module."""
    for path in sorted(html.glob("book/**/*.html")):
        page = soup(path)
        for place in page.select("[data-lop-figure]"):
            module = place.find_next("script", type="module").get_text()
            yield path.relative_to(html).as_posix(), place, module


def test_every_figure_is_in_a_page_and_its_module_is_there_whole(html):
    found = list(shown_in(html))
    assert {place["data-lop-figure"] for _, place, _ in found} == set(NAMES)
    for _, place, module in found:
        wanted = widgets.module(place["data-lop-figure"])
        assert module.split() == wanted.split()
        assert place.find("noscript").find("img")["alt"]


@each_figure
def test_a_module_is_small_and_asks_for_nothing(name):
    code = widgets.module(name)
    assert len(code.encode()) < 40_000
    for asking in ("import ", "http", "fetch(", "XMLHttp", "eval(", "innerHTML", "</script"):
        assert asking not in code.replace('"./', "")


@each_figure
def test_its_picture_is_its_first_frame(chromium, name):
    drawn = stills.still(chromium, name)
    kept = widgets.still(name)
    assert same_picture(drawn, kept), f"{name}.svg is not what it draws: run `make derived`"


def same_picture(one, other):
    """Compare pictures: their words, places to two pixels, images to a shade or two."""
    if TEXT.findall(one) != TEXT.findall(other):
        return False
    images = IMAGE.findall(one), IMAGE.findall(other)
    if len(images[0]) != len(images[1]):
        return False
    for a, b in zip(*images, strict=True):
        a, b = (np.array(Image.open(io.BytesIO(base64.b64decode(each)))) for each in (a, b))
        if a.shape != b.shape or np.abs(a.astype(int) - b).max() > 3:
            return False
    one, other = (TEXT.sub("><", IMAGE.sub("", each)) for each in (one, other))
    if NUMBER.sub("", one) != NUMBER.sub("", other):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= 2 for a, b in pairs)


def test_another_picture_is_told_apart():
    kept = widgets.still("law")
    assert same_picture(kept, kept)
    assert not same_picture(kept, kept.replace("3 rise", "4 rise"))
    assert not same_picture(kept, kept.replace("L60.9 ", "L66.9 "))


WATCHED = """() => {
  const seen = { frames: 0, reads: 0 };
  const count = (owner, names) => {
    for (const name of names.split(" ")) {
      const old = Object.getOwnPropertyDescriptor(owner, name), what = old.get ? "get" : "value";
      const wrapped = function (...words) {
        if (seen.inside) seen.reads += 1;
        return old[what].apply(this, words);
      };
      Object.defineProperty(owner, name, { ...old, [what]: wrapped });
    }
  };
  count(Element.prototype, "clientWidth clientHeight scrollWidth scrollHeight");
  count(Element.prototype, "getBoundingClientRect getClientRects");
  count(HTMLElement.prototype, "offsetWidth offsetHeight offsetTop offsetLeft innerText");
  count(globalThis, "getComputedStyle");
  const frame = globalThis.requestAnimationFrame;
  globalThis.requestAnimationFrame = (work) => frame((time) => {
    seen.inside = true;
    seen.frames += 1;
    try { work(time); } finally { seen.inside = false; }
  });
  globalThis.seen = seen;
}"""
PAINT = "() => requestAnimationFrame(() => document.querySelector('.lop-live').lopStage.paint())"
READ = "() => requestAnimationFrame(() => getComputedStyle(document.body))"


@each_figure
def test_a_frame_reads_nothing_of_the_layout(chromium, name):
    page = stills.page_with(chromium, name)
    page.evaluate(WATCHED)
    button = page.get_by_role("button", name="Play").or_(page.get_by_role("button", name="Travel"))
    if button.count():
        page.get_by_role("button", name="Reset").click()
        button.first.click()
        page.wait_for_function("() => seen.frames >= 20", timeout=20_000)
    page.evaluate(
        "() => requestAnimationFrame(() => document.querySelector('.lop-live').lopStage.paint())"
    )
    page.wait_for_function("() => seen.frames >= 1")
    assert page.evaluate("seen.reads") == 0
    page.evaluate("() => requestAnimationFrame(() => getComputedStyle(document.body))")
    page.wait_for_function("() => seen.reads === 1")  # the watch itself works
    page.close()


STEPS = """
globalThis.steps = [];
const advance = Network.prototype.advance, frame = globalThis.requestAnimationFrame;
let count = 0;
Network.prototype.advance = function () { count += 1; advance.call(this); };
globalThis.requestAnimationFrame = (work) => frame((time) => {
  count = 0;
  work(time);
  steps.push(count);
});
"""


def test_a_frame_takes_only_the_steps_that_are_due(chromium):
    page = stills.page_with(chromium, "law", STEPS)
    done = page.get_by_role("status").filter(has_text="After 400 steps")
    done.wait_for(timeout=20_000)
    page.get_by_role("button", name="Reset").click()
    page.evaluate("() => { steps.length = 0; }")
    page.get_by_role("button", name="Play").click()
    done.wait_for(timeout=30_000)
    steps = page.evaluate("steps")
    assert sum(steps) == 400
    assert max(steps) <= 8  # 400 steps in 240 frames, and a few more where frames were late
    assert sum(each <= 2 for each in steps) > 0.8 * len(steps)
    page.close()


# As anywidget runs it, with a model in the kernel's stead.
NOTEBOOK = """
globalThis.model = {
  values: %s, heard: {}, saved: 0,
  get(name) { return this.values[name]; },
  set(name, value) { this.values[name] = value; },
  save_changes() { this.saved += 1; },
  on(event, act) { this.heard[event] = act; },
  off(event, act) { if (this.heard[event] === act) delete this.heard[event]; },
  change(name, value) { this.values[name] = value; this.heard[`change:${name}`](); },
};
const spot = document.body.appendChild(document.createElement("div"));
globalThis.end = shown.render({ model, el: spot });
"""


@each_figure
def test_it_runs_as_the_module_of_a_notebook_widget(chromium, name):
    page = chromium.new_page(viewport={"width": 900, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_content("<!doctype html><title>x</title>")
    settings = {each["name"]: each["value"] for each in widgets.controls(name)}
    code = widgets.module(name).replace("export default live(", "const shown = live(")
    page.add_script_tag(content=code + NOTEBOOK % json.dumps(settings), type="module")
    page.wait_for_function("() => globalThis.model?.values.said", timeout=30_000)
    assert page.locator("input").count() == 0  # its sliders are the notebook's
    before = page.evaluate("model.values.said")
    which = next(
        each for each in widgets.controls(name) if each["name"] == "r" or name == "features"
    )
    other = which["min"] if which["value"] != which["min"] else which["max"]
    page.evaluate("([name, value]) => model.change(name, value)", [which["name"], other])
    page.wait_for_function("(before) => model.values.said !== before", arg=before, timeout=30_000)
    assert page.evaluate("model.saved") >= 2
    page.evaluate("([name]) => model.change(name, 1e9)", [which["name"]])
    assert page.evaluate("(name) => model.values[name]", which["name"]) == which["max"]
    page.evaluate("end()")
    assert page.evaluate("model.heard") == {}
    assert errors == []
    page.close()


def test_the_pictures_and_modules_are_what_the_package_finds():
    folder = ROOT / "book" / "_figures"
    assert {path.stem for path in folder.glob("*.svg")} == set(NAMES)
    assert {path.stem for path in folder.glob("*.js")} == {*NAMES, "kit", "numbers"}
