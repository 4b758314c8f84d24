"""What holds of every live figure: in the page, frame by frame, in a notebook, and as a picture."""

import base64
import io
import json
import re
import time

import numpy as np
import pytest
import stills
from browser import VIEWS
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
    assert not same_picture(kept, kept.replace("3 above", "4 above"))
    assert not same_picture(kept, re.sub(r"L(\d)", r"L3\1", kept, count=1))


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
    for moving in ("Play", "Travel"):
        if page.get_by_role("button", name=moving).count():
            page.get_by_role("button", name="Reset").click()
            page.evaluate("() => { seen.frames = 0; }")
            page.get_by_role("button", name=moving).click()
            page.wait_for_function("() => seen.frames >= 20", timeout=20_000)
    page.evaluate("() => { seen.frames = 0; }")
    page.evaluate(PAINT)
    page.wait_for_function("() => seen.frames >= 1")
    assert page.evaluate("seen.reads") == 0
    page.evaluate(READ)
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


# Each figure, and what of it takes longest.
LONG = {
    "law": {"steps": 5000, "r": 5, "L": 6, "eps": 1.0, "eta": 0.01},
    "completion": {"d": 32, "steps": 3000},
    "features": {"eps": 0.1, "L": 6},
}
ANOTHER = {"law": ["L", 5], "completion": ["L", 4], "features": ["n", 12]}
each_training = pytest.mark.parametrize("name", LONG)
SAID = """(before) => {
  const now = document.querySelector('[role=status]').textContent;
  return now !== before && !now.startsWith('Still');
}"""
SET = "(what) => document.querySelector('.lop-live').lopStage.set(...what)"
COUNTED = """
globalThis.paints = 0;
const clear = CanvasRenderingContext2D.prototype.clearRect;
CanvasRenderingContext2D.prototype.clearRect = function (...words) {
  globalThis.paints += 1;
  clear.apply(this, words);
};
"""


@each_training
def test_where_motion_is_unwanted_it_is_drawn_once_a_second(chromium, name):
    paints = {}
    for motion in ("no-preference", "reduce"):
        page = stills.page_with(chromium, name, reduced_motion=motion, **LONG[name])
        ended = page.evaluate("() => document.querySelector('[role=status]').textContent")
        page.evaluate(f"() => {{ {COUNTED} }}")
        began = time.perf_counter()
        page.evaluate(SET, ANOTHER[name])
        page.wait_for_function(SAID, arg=ended, timeout=60_000)
        paints[motion] = page.evaluate("paints") / max(time.perf_counter() - began, 1)
        page.close()
    assert paints["reduce"] <= 4 < paints["no-preference"]


@each_training
def test_pause_ends_also_what_ran_before_play(chromium, name):
    page = stills.page_with(chromium, name, "globalThis.Net = Network;", **LONG[name])
    page.evaluate(
        """() => {
          const advance = Net.prototype.advance;
          globalThis.steps = 0;
          Net.prototype.advance = function () { steps += 1; advance.call(this); };
        }"""
    )
    page.evaluate(SET, ANOTHER[name])  # a long run begins
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").click()
    steps = page.evaluate("steps")
    page.wait_for_timeout(400)
    assert page.evaluate("steps") == steps > 0
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("(before) => steps > before", arg=steps)
    page.close()


@each_figure
def test_every_slider_moves_by_keys(chromium, name):
    page = stills.page_with(chromium, name)
    for control in widgets.controls(name):
        if "label" not in control or "choices" in control:
            continue
        slider = page.get_by_label(f"{control['label']}, slider", exact=True)
        field = page.get_by_label(control["label"], exact=True)
        for start in (None, "Home", "End"):
            slider.focus()
            if start:
                page.keyboard.press(start)
            before = float(field.input_value())
            there, back = "ArrowRight", "ArrowDown"
            if before == control["max"]:
                there, back = "ArrowLeft", "ArrowUp"
            page.keyboard.press(there)
            moved = float(field.input_value())
            assert (moved > before) == (there == "ArrowRight"), control["name"]
            assert moved != before
            page.keyboard.press(back)
            assert float(field.input_value()) == pytest.approx(before, rel=0.02)
    page.close()


def test_an_emptied_field_keeps_what_was(chromium):
    page = stills.page_with(chromium, "law", d=70)
    field = page.get_by_label("width d", exact=True)
    for nonsense in ("", "-"):
        field.fill("")
        field.press_sequentially(nonsense)
        field.press("Enter")
        page.get_by_label("rank r", exact=True).focus()
        assert field.input_value() == "70"
    page.close()


def test_two_figures_of_a_kind_are_two_and_a_module_that_runs_again_does_nothing(chromium):
    page = chromium.new_page()
    place = '<div class="lop-live" data-lop-figure="law"></div>'
    page.set_content(f"<!doctype html><title>x</title>{place}{place}")
    for _ in range(2):
        page.add_script_tag(content=widgets.module("law"), type="module")
        page.wait_for_function("() => document.querySelectorAll('canvas').length === 2")
        page.evaluate(
            "() => { globalThis.first ??= document.querySelector('.lop-live').lopStage; }"
        )
    assert page.evaluate("document.querySelector('.lop-live').lopStage === first")
    said = page.locator("[role=status]")
    assert len(set(said.evaluate_all("(all) => all.map((each) => each.id)"))) == 2
    named = page.locator("canvas").evaluate_all(
        "(all) => all.map((each) => each.getAttribute('aria-describedby'))"
    )
    assert named == said.evaluate_all("(all) => all.map((each) => each.id)")
    page.close()


@pytest.mark.parametrize("view", ["light", "phone"])
@each_figure
def test_a_shared_link_opens_where_the_figure_is(served, html, chromium, name, view):
    path = next(path for path, place, _ in shown_in(html) if place["data-lop-figure"] == name)
    page = chromium.new_page(**VIEWS[view])
    page.goto(f"{served}/{path}#{name}:seed=1", wait_until="load")
    page.evaluate("() => MathJax.startup.promise")
    here = "() => document.querySelector('.lop-live').getBoundingClientRect().top"
    page.wait_for_function(f"() => Math.abs(({here})()) < 150")
    key = next(each for each in widgets.controls(name) if each["name"] == "L")
    page.evaluate("(hash) => { location.hash = hash; }", f"{name}:L={key['max']}")
    field = page.get_by_label("depth L", exact=True)
    page.wait_for_function(
        "([e, x]) => e.value === x", arg=[field.element_handle(), str(key["max"])]
    )
    page.close()


# As anywidget runs it, with a model in the kernel's stead.
NOTEBOOK = """
globalThis.model = {
  values: %s, heard: {}, saved: 0,
  get(name) { return this.values[name]; },
  set(name, value) { this.values[name] = value; },
  save_changes() { this.saved += 1; },
  on(event, act) { (this.heard[event] ??= []).push(act); },
  off(event, act) { this.heard[event] = this.heard[event].filter((each) => each !== act); },
  change(name, value) {
    this.values[name] = value;
    this.heard[`change:${name}`].forEach((act) => act());
  },
};
globalThis.ends = [1, 2].map(() => { // two views of one model
  const el = document.body.appendChild(document.createElement("div"));
  return shown.render({ model, el });
});
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
    which = next(each for each in widgets.controls(name) if each["name"] in ("r", "K"))
    other = which["min"] if which["value"] != which["min"] else which["max"]
    page.evaluate("([name, value]) => model.change(name, value)", [which["name"], other])
    page.wait_for_function("(before) => model.values.said !== before", arg=before, timeout=30_000)
    assert page.evaluate("model.saved") >= 2
    page.evaluate("([name]) => model.change(name, 1e9)", [which["name"]])
    assert page.evaluate("(name) => model.values[name]", which["name"]) == which["max"]
    first, second = (page.locator(".lop-live").nth(i) for i in range(2))
    page.evaluate("ends[0]()")
    page.evaluate("([name, value]) => model.change(name, value)", [which["name"], other])
    page.wait_for_timeout(300)
    value = "(element, name) => element.lopStage.settings[name]"
    assert second.evaluate(value, which["name"]) == other != first.evaluate(value, which["name"])
    page.evaluate("ends[1]()")
    assert page.evaluate("Object.values(model.heard).flat()") == []
    assert errors == []
    page.close()


def test_the_pictures_and_modules_are_what_the_package_finds():
    folder = ROOT / "book" / "_figures"
    assert {path.stem for path in folder.glob("*.svg")} == set(NAMES)
    assert {path.stem for path in folder.glob("*.js")} == {*NAMES, "kit", "numbers"}
