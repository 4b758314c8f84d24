"""What holds of every live figure: alone on a page, in the book's pages, and in a notebook."""

import base64
import io
import itertools
import json
import re

import access
import figure_page
import lop_live
import numpy as np
import pytest
import stills
from browser import SETTLE, VIEWS
from figure_page import button, field, frames, said, set_to, setting
from page_rules import ROOT, soup
from PIL import Image

from lop_utils.book import live as widgets

NAMES = stills.names()
TRAINED = ["law", "completion", "features", "noise"]
TEXT, IMAGE = re.compile(r">([^<\n]+)<"), re.compile(r'"data:image/png;base64,([^"]+)"')
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
each_figure = pytest.mark.parametrize("name", NAMES)
each_training = pytest.mark.parametrize("name", TRAINED)


def at_start(name):
    """Return what a figure's settings are when nobody has changed them."""
    return {each["name"]: each["value"] for each in widgets.controls(name)}


# --- Its text and its picture ---------------------------------------------------------------------


@each_figure
def test_a_module_is_small_and_asks_for_nothing(name):
    code = widgets.module(name)
    assert len(code.encode()) < 40_000
    for asking in ("import ", "http", "fetch(", "XMLHttp", "eval(", "innerHTML", "</script"):
        assert asking not in code.replace('"./', "")


def test_the_pictures_and_modules_are_what_the_package_finds():
    folder = ROOT / "book" / "_figures"
    assert {path.stem for path in folder.glob("*.svg")} == set(NAMES)
    assert {path.stem for path in folder.glob("*.js")} == {*NAMES, "kit", "methods", "numbers"}


@each_figure
def test_its_picture_is_its_first_frame(figure, name):
    shown = figure(name)
    shown.page.evaluate((ROOT / "tools" / "pen.js").read_text(encoding="utf-8"))
    drawn, kept = shown.evaluate(stills.DRAWN), widgets.still(name)
    assert same_picture(drawn, kept), f"{name}.svg is not what it draws: run `make derived`"


def same_picture(one, other):
    """Compare pictures: their words, places to two pixels, images to a shade or two."""
    (rest, words, numbers, images), another = (parts(each) for each in (one, other))
    return (
        (rest, words, [each.shape for each in images])
        == (another[0], another[1], [each.shape for each in another[3]])
        and np.allclose(numbers, another[2], rtol=0, atol=2)
        and all(np.abs(a - b).max() <= 3 for a, b in zip(images, another[3], strict=True))
    )


def parts(text):
    """Take an SVG apart: what is left, its words, its numbers, its images."""
    images = [Image.open(io.BytesIO(base64.b64decode(each))) for each in IMAGE.findall(text)]
    bare = TEXT.sub("><", IMAGE.sub("", text))
    numbers = np.array(NUMBER.findall(bare), dtype=float)
    return (
        NUMBER.sub("", bare),
        TEXT.findall(text),
        numbers,
        [np.array(each).astype(int) for each in images],
    )


def test_another_picture_is_told_apart():
    kept = widgets.still("law")
    assert same_picture(kept, kept)
    assert not same_picture(kept, kept.replace("3 above", "4 above"))
    assert not same_picture(kept, re.sub(r"L(\d)", r"L3\1", kept, count=1))


SETTINGS = {
    "law": [
        "",
        "L=6&r=5&d=12&steps=50",
        "method=3&r=1&steps=100",
        "outputs=1&layer=3",
        "method=2&eta=0.01&d=2000",
    ],
    "completion": ["steps=100", "steps=100&d=64&eta=1&L=4"],
    "features": ["L=8&K=5&n=40&layer=0", "L=2&K=2&n=2&eps=0.05&layer=1", "n=40"],
    "cost": ["", "d=1000000&p=1&r=80&L=6", "d=16&r=80", "p=1"],
    "noise": ["", "delta=0&steps=1000", "eta=0.02&delta=4", "d=50&eta=0.02&delta=4", "batch=1000"],
    "transfer": [
        "",
        "guess=2.8",
        "shown=1&N=16384&guess=0.012",
        "shown=1&gamma0=8&N=64",
        "shown=1&gamma0=0.25&guess=1",
        "shown=1&data=1&gamma0=8",
        "shown=1&data=1&P=500&delta=0",
    ],
}


@each_figure
def test_no_text_is_clipped_or_covers_another(figure, name):
    for width, address in itertools.product((342, 350, 623, 900), SETTINGS[name]):
        found, height = figure_page.texts(figure(name, address), width)
        assert len(found) > 8, address
        for text, left, right, y in found:
            assert -0.5 <= left and right <= width + 0.5, (address, width, text)
            assert 10 <= y <= height - 2, (address, width, text)
        for (a, left_a, right_a, y_a), (b, left_b, right_b, y_b) in itertools.combinations(
            found, 2
        ):
            apart = abs(y_a - y_b) >= 13 or right_a <= left_b or right_b <= left_a
            assert apart, (address, width, a, b)


# --- Its settings ---------------------------------------------------------------------------------


def kept_within(control, text):
    """Return what a hostile or honest text in an address makes of a number, as a reader expects."""
    try:
        number = float(text)
    except ValueError:
        return control["value"]
    if not np.isfinite(number):
        return control["value"]
    number = min(max(number, control["min"]), control["max"])
    return int(np.floor(number + 0.5)) if control.get("whole") else number


@each_figure
def test_what_an_address_says_is_kept_within_bounds(modules, name):
    controls = [each for each in widgets.controls(name) if "form" not in each]
    read = f"(hash) => lop.readAddress('{name}', {json.dumps(widgets.controls(name))}, hash)"
    page = modules(name)
    for text in ("", "NaN", "Infinity", "<b>", "alert(1)", "1e99", "-1e9", "0", "2.4", "3", "0.2"):
        named = "&".join(f"{each['name']}={text}" for each in controls)
        wanted = {each["name"]: kept_within(each, text) for each in controls}
        assert page.evaluate(read, f"#{name}:{named}") == at_start(name) | wanted
        assert page.evaluate(read, f"#other:{named}") == at_start(name)
    assert page.evaluate(read, "") == at_start(name)


@each_figure
def test_sliders_move_by_keys_and_fields_keep_within_bounds(figure, name):
    shown = figure(name, look=1)
    for more in shown.locator("summary").all():
        more.click()
    keyboard = shown.page.keyboard
    for control in widgets.controls(name):
        if "label" not in control or "choices" in control:
            continue
        key, most = control["name"], control["max"]
        slider = field(shown, f"{control['label']}, slider")
        typed = field(shown, control["label"])
        slider.focus()
        for start in (None, "Home", "End"):
            if start:
                keyboard.press(start)
            before = setting(shown, key)
            there, back = (
                ("ArrowLeft", "ArrowUp") if before == most else ("ArrowRight", "ArrowDown")
            )
            keyboard.press(there)
            moved = float(typed.input_value())
            assert moved == setting(shown, key) != before
            assert (moved > before) == (there == "ArrowRight"), key
            keyboard.press(back)
            assert setting(shown, key) == pytest.approx(before, rel=0.02)
        for text, wanted in (("-1e9", control["min"]), ("1e9", most), ("", most), ("-", most)):
            typed.fill("")
            typed.press_sequentially(text)
            typed.press("Enter")
            typed.blur()
            assert float(typed.input_value()) == setting(shown, key) == wanted, key


OTHER = {
    "law": {"d": 100, "r": 1, "L": 2, "eps": 0.05, "method": 1, "outputs": 1, "layer": 1},
    "completion": {"d": 20, "steps": 100, "sample": 7, "painted": "A7_-" * 16 + "AAg"},
    "features": {"L": 3, "eps": 0.8, "n": 3, "K": 3, "layer": 1, "seed": 5},
    "cost": {"d": 100_000, "r": 20, "p": 0.0001, "bits": 1, "overhead": 0.5},
    "noise": {"eta": 0.002, "delta": 1, "batch": 7, "d": 20, "steps": 2000, "seed": 5},
    "transfer": {
        "N": 500,
        "gamma0": 1,
        "P": 100,
        "delta": 0.2,
        "data": 1,
        "guess": 0.5,
        "shown": 1,
    },
}


@each_figure
def test_a_copied_link_opens_the_same_figure(figure, name):
    shown = figure(name)
    set_to(shown, **OTHER[name])
    sentence = said(shown)
    button(shown, "Copy link").click()
    shown.get_by_text("The link is").wait_for()
    address = shown.page.evaluate("location.hash")
    again = figure(name, address.removeprefix(f"#{name}:"))
    assert again.evaluate("(root) => root.lopStage.settings") == at_start(name) | OTHER[name]
    assert said(again) == sentence
    for each in widgets.controls(name):
        if "label" in each and "choices" not in each:
            value = field(again, each["label"]).input_value()
            assert float(value) == setting(again, each["name"])


# --- Its training, frame by frame -----------------------------------------------------------------

WATCHED = """() => {
  globalThis.reads = 0;
  const count = (owner, names) => {
    for (const name of names.split(" ")) {
      const old = Object.getOwnPropertyDescriptor(owner, name), what = old.get ? "get" : "value";
      const wrapped = function (...words) {
        globalThis.reads += 1;
        return old[what].apply(this, words);
      };
      Object.defineProperty(owner, name, { ...old, [what]: wrapped });
    }
  };
  count(Element.prototype, "clientWidth clientHeight scrollWidth scrollHeight");
  count(Element.prototype, "getBoundingClientRect getClientRects");
  count(HTMLElement.prototype, "offsetWidth offsetHeight offsetTop offsetLeft innerText");
  count(globalThis, "getComputedStyle");
}"""


@each_figure
def test_a_frame_reads_nothing_of_the_layout(figure, name):
    shown = figure(name)
    shown.page.evaluate(WATCHED)
    for moving in ("Play", "Travel"):
        if button(shown, moving).count():
            button(shown, "Reset").click()
            button(shown, moving).click()
            shown.page.evaluate("() => { reads = 0; }")
            frames(shown, 20)
            assert shown.page.evaluate("reads") == 0
    paint = "(root) => { reads = 0; root.lopStage.paint(); return reads; }"
    assert shown.evaluate(paint) == 0
    shown.page.evaluate("() => getComputedStyle(document.body)")
    assert shown.page.evaluate("reads") == 1  # the watch itself works


def steps_of(shown):
    return int(re.search(r"(?:After|Trained for|at step) (\d+)", said(shown)).group(1))


@each_training
def test_its_buttons(figure, name):
    """A whole run takes 240 frames, however fast the machine; Pause, Step and Reset do as told."""
    shown = figure(name, "d=16&steps=480" if name == "completion" else "")
    sentence, steps = said(shown), steps_of(shown)
    button(shown, "Reset").click()
    assert said(shown).startswith("After 0 steps")
    button(shown, "Step").click()
    assert said(shown).startswith("After 1 step")
    button(shown, "Play").click()
    frames(shown, 60)
    assert said(shown).startswith("Still in training, at step")
    button(shown, "Pause").click()
    paused = steps_of(shown)
    assert paused == pytest.approx(steps / 4, rel=0.05)
    frames(shown, 20)
    assert steps_of(shown) == paused
    button(shown, "Play").click()
    frames(shown, 170)
    assert shown.get_attribute("data-busy") is not None
    frames(shown, 15)
    assert said(shown) == sentence
    assert button(shown, "Play").is_visible() and shown.get_attribute("data-busy") is None
    another, seed = ("target", "target") if name == "completion" else ("start", "seed")
    button(shown, f"New {another}").click()
    assert setting(shown, seed) != 1 and not said(shown).startswith("After 0")


COUNTED = """() => {
  globalThis.count = { steps: 0, paints: 0 };
  const { advance } = lop.Network.prototype, pen = CanvasRenderingContext2D.prototype;
  const { clearRect } = pen;
  lop.Network.prototype.advance = function () { count.steps += 1; advance.call(this); };
  pen.clearRect = function (...words) { count.paints += 1; clearRect.apply(this, words); };
}"""
ANOTHER = {"law": {"L": 5}, "completion": {"L": 4}, "features": {"n": 12}, "noise": {"d": 20}}


@each_training
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_where_motion_is_unwanted_it_is_drawn_about_once_a_second(figure, name, motion):
    shown = figure(name, look=2, motion=motion)
    wait_for_size(shown)
    shown.page.evaluate(COUNTED)
    set_to(shown, **ANOTHER[name])
    frames(shown, 40)  # more than a second, with the looks
    assert "Still in training, at step" in said(shown)
    count = shown.page.evaluate("count")
    # what is drawn moves, after 2 ms of work, or follows what is said, after 12
    paints, steps = {"no-preference": (40, 1), "reduce": (1, 6)}[motion]
    assert paints <= count["paints"] <= paints + 3
    assert count["steps"] <= networks(name) * 41 * steps


def networks(name):
    return 2 if name == "completion" else 1


def wait_for_size(shown):
    shown.page.wait_for_function("() => document.querySelector('canvas').style.height")


@each_training
def test_a_frame_takes_only_the_steps_that_are_due(figure, name):
    """And where frames were late, a few more, but not all that were missed."""
    shown = figure(name)
    due = networks(name) * steps_of(shown) / 240
    shown.page.evaluate(COUNTED)
    button(shown, "Reset").click()
    button(shown, "Play").click()

    def taken():
        shown.page.evaluate("() => { count.steps = 0; }")
        frames(shown, 1)
        return shown.page.evaluate("count.steps")

    assert all(abs(taken() - due) <= networks(name) for _ in range(5))
    shown.page.evaluate("() => { look = 9; }")
    frames(shown, 30)
    shown.page.evaluate("() => { look = 0; }")
    assert due < taken() <= 4 * (networks(name) + due)
    assert abs(taken() - due) <= networks(name)


@each_training
def test_pause_ends_also_what_ran_before_play(figure, name):
    shown = figure(name, look=1)
    shown.page.evaluate(COUNTED)
    set_to(shown, **ANOTHER[name])  # a long run begins
    button(shown, "Play").click()
    button(shown, "Pause").click()
    steps = shown.page.evaluate("count.steps")
    frames(shown, 30)
    assert shown.page.evaluate("count.steps") == steps > 0
    button(shown, "Play").click()
    frames(shown, 30)
    assert shown.page.evaluate("count.steps") > steps


MARKS = """(root) => {
  const stage = root.lopStage, seen = [];
  const pen = new Proxy({}, { get: (kept, name) => kept[name] ?? ((...args) => {
    if (name === "fillText" && kept.textAlign === "right") seen.push(args);
  }) });
  stage.drawWith(pen, 720, stage.heightAt(720));
  return seen;
}"""


@pytest.mark.parametrize(("name", "address"), [("law", ""), ("noise", "steps=1000&eta=0.02")])
def test_a_run_that_is_played_again_keeps_its_axes(figure, name, address):
    """The marks on both stand where they stood when it was whole."""
    shown = figure(name, address)
    whole = shown.evaluate(MARKS)
    for _ in range(2):
        button(shown, "Reset").click()
        button(shown, "Step").click()
        assert shown.evaluate(MARKS) == whole and len(whole) > 5


# --- Its place ------------------------------------------------------------------------------------


def test_two_figures_of_a_kind_are_two_and_a_module_that_runs_again_does_nothing(figure):
    both = figure("law", places=2)
    page = both.page
    assert page.locator("canvas").count() == 2
    first = both.first.evaluate_handle("(root) => root.lopStage")
    page.evaluate("() => import('/law.js?again')")
    assert both.first.evaluate("(root, first) => root.lopStage === first", first)
    ids = page.locator("[role=status]").evaluate_all("(all) => all.map((each) => each.id)")
    assert len(set(ids)) == 2
    described = "(all) => all.map((each) => each.getAttribute('aria-describedby'))"
    assert page.locator("canvas").evaluate_all(described) == ids


def shown_in(html):
    """Return the live figures of the pages: page, place, module."""
    for path in sorted(html.glob("book/**/*.html")):
        page = soup(path)
        for place in page.select("[data-lop-figure]"):
            module = place.find_next("script", type="module").get_text()
            yield path.relative_to(html).as_posix(), place, module


def test_every_figure_is_in_a_page_and_its_module_is_there_whole(html):
    found = list(shown_in(html))
    assert {place["data-lop-figure"] for _, place, _ in found} == set(NAMES)
    for _, place, module in found:
        for text, names in lop_live.shared():
            module = module.replace(f"var {{ {', '.join(names)} }} = lopShared;", text)
        assert module.split() == widgets.module(place["data-lop-figure"]).split()
        assert place.find("noscript").find("img")["alt"]


INK = """(canvas) => [...new Uint32Array(canvas.getContext("2d")
  .getImageData(0, 0, canvas.width, canvas.height).data.buffer)].filter(Boolean).length"""
COLOURS = ("ink", "rises", "falls", "rest", "third", "fourth", "fifth")
PAPER = "getComputedStyle(document.body).backgroundColor"


def rgb(text):
    """Return the numbers of a colour of CSS."""
    if text.startswith("#"):
        return [int(text[i : i + 2], 16) for i in (1, 3, 5)]
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


@each_figure
def test_in_the_book_it_is_seen_in_both_themes_and_on_a_phone(html, served, chromium, figure, name):
    """It says what it says alone, in real time; and a shared link opens where it is."""
    wanted = said(figure(name))
    paths = [path for path, place, _ in shown_in(html) if place["data-lop-figure"] == name]
    for number, path in enumerate(paths):
        view = "phone" if (NAMES.index(name) + number) % 2 else "light"
        motion = "reduce" if name == "completion" else "no-preference"  # sooner ready, too
        context = chromium.new_context(**VIEWS[view], reduced_motion=motion)
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        page.goto(f"{served}/{path}#{name}:seed=1", wait_until="load")
        shown = page.locator(f"[data-lop-figure={name}]")
        shown.get_by_text(wanted).wait_for(timeout=30_000)
        page.evaluate("() => MathJax.startup.promise")
        here = "(root) => Math.abs(root.getBoundingClientRect().top) < 150"
        page.wait_for_function(here, arg=shown.element_handle())
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.evaluate(SETTLE, theme)
            style = "(e, name) => getComputedStyle(e).getPropertyValue(`--lop-live-${name}`).trim()"
            paper = rgb(page.evaluate(PAPER))
            colours = [rgb(shown.evaluate(style, each)) for each in COLOURS]
            assert min(access.contrast(each, paper) for each in colours) >= 4.5
            assert shown.locator("canvas").evaluate(INK) > 3000
        page.set_viewport_size(VIEWS["phone"]["viewport"])
        assert page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
        known = widgets.controls(name)
        one = {"noise": "batch", "transfer": "N"}.get(name, "L")
        which = next(each for each in known if each["name"] == one)
        page.evaluate("() => scrollTo({ top: 0, behavior: 'instant' })")
        page.evaluate(
            "(hash) => { location.hash = hash; }", f"{name}:{which['name']}={which['max']}"
        )
        page.wait_for_function(here, arg=shown.element_handle())
        assert field(shown, which["label"]).input_value() == str(which["max"])
        context.close()
        assert errors == []


def test_without_scripts_a_picture_stands_there(html, served, chromium):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    for path in sorted({path for path, *_ in shown_in(html)}):
        page.goto(f"{served}/{path}", wait_until="load")
        picture = page.locator(".lop-live img")
        assert picture.is_visible()
        assert picture.evaluate("(image) => image.naturalWidth") > 0
    context.close()


# As anywidget runs it, with a model in the kernel's stead.
NOTEBOOK = """(values) => {
  globalThis.model = {
    values, heard: {}, saved: 0,
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
    return lop.default.render({ model, el });
  });
}"""


@each_figure
def test_it_runs_as_the_module_of_a_notebook_widget(figure, name):
    views = figure(name, places=0)
    page = views.page
    small = {"d": 16, "steps": 100} if name == "completion" else {}
    page.evaluate(NOTEBOOK, at_start(name) | small)
    sentence = page.evaluate("model.values.said")
    assert sentence and page.locator("input").count() == 0  # its sliders are the notebook's
    which = next(each for each in widgets.controls(name) if each["name"] in ("r", "K", "delta"))
    key, most = which["name"], which["max"]
    other = which["min"] if which["value"] != which["min"] else most
    change = "([name, value]) => model.change(name, value)"
    page.evaluate(change, [key, other])
    assert page.evaluate("model.values.said") != sentence
    assert page.evaluate("model.saved") >= 2
    page.evaluate(change, [key, 1e9])
    assert page.evaluate("(name) => model.values[name]", key) == most
    page.evaluate("ends[0]()")
    page.evaluate(change, [key, other])
    assert setting(views.nth(1), key) == other != setting(views.nth(0), key)
    page.evaluate("ends[1]()")
    assert page.evaluate("Object.values(model.heard).flat()") == []
