"""Live figures and drawings with sliders, as a notebook gets them."""

import functools
import json
import sys
import types

import ipywidgets
import numpy as np
import pytest
from matplotlib import pyplot as plt

from lop_utils.book import live
from lop_utils.book.scale import load_result

FIGURES = sorted(path.stem for path in live._CHECKOUT.glob("*.json"))
each_figure = pytest.mark.parametrize("name", FIGURES)


@each_figure
def test_a_figure_is_one_module_with_controls_that_can_be_used(name):
    code, controls = live.module(name), live.controls(name)
    assert "\nimport " not in f"\n{code}"
    assert code.count("function live(") == 1  # what two files import is there once
    assert f'export default live("{name}"' in code
    assert len({each["name"] for each in controls}) == len(controls)
    for each in controls:
        if "form" not in each:
            assert each["min"] <= each["value"] <= each["max"]
            assert each["min"] > 0 or not each.get("log")
    if name == "cost":
        assert json.dumps(load_result("bench-machine")["values"]["constants"]) in code


@pytest.mark.parametrize("name", ["nothing", "../law", ""])
def test_a_figure_that_is_not_there(name):
    for function in (live.module, live.controls, live.still, live.live):
        with pytest.raises(ValueError, match=r"name: wanted one of .*law.*, got "):
            function(name)


def test_what_a_module_imports_stands_in_it_without_comments(tmp_path, monkeypatch):
    (tmp_path / "figures").mkdir()
    monkeypatch.setattr(live, "_CHECKOUT", tmp_path / "figures")
    for name, text in {
        "figures/x.js": 'import {\n  one,\n} from "./a.js";\nimport { b } from "./b.js";\n'
        'import c from "../c.json" with { type: "json" };\nx;\n',
        "figures/a.js": "// Why.\nexport const one = 1; // so\n\n",
        "figures/b.js": 'import { one } from "./a.js";\n  /** What\n * it is. */\nconst b = one;\n',
        "c.json": '[\n  {"name": "ε"}\n]\n',
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    wanted = 'export const one = 1; // so\nconst b = one;\nconst c = [{"name": "ε"}];\nx;\n'
    assert live.module("x") == wanted


@each_figure
def test_settings_are_attributes_with_sliders(name, monkeypatch):
    linked, jslink = [], ipywidgets.jslink
    monkeypatch.setattr(ipywidgets, "jslink", lambda *ends: linked.append(ends) or jslink(*ends))
    shown = live.live(name)
    rows, figure = shown.box.children
    assert figure is shown.figure
    known = [each for each in live.controls(name) if "label" in each]
    assert len(rows.children) == len(known)
    for control, slider, link in zip(known, rows.children, linked, strict=True):
        position = "index" if "choices" in control else "value"
        # moved in the browser: no kernel is asked
        assert link == ((slider, position), (figure, control["name"]))
        assert slider.description == control["label"]
        assert slider.value == pytest.approx(control["value"])
        assert getattr(figure, control["name"]) == control["value"]
        if position == "value":
            logarithmic = isinstance(slider, ipywidgets.FloatLogSlider)
            most = 10**slider.max if logarithmic else slider.max
            assert most == pytest.approx(control["max"])
    for each in live.controls(name):
        if "form" not in each:
            with pytest.raises(Exception, match=each["name"]):
                setattr(figure, each["name"], 10 * each["max"] + 1)


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("law", {"d": 10**9}, ValueError, "d: wanted 12 <= d <= 2000, got 1000000000"),
        ("law", {"d": 0}, ValueError, "d: wanted 12 <= d <= 2000, got 0"),
        ("law", {"eps": float("nan")}, ValueError, "eps: wanted a finite number, got nan"),
        ("law", {"q": 1}, ValueError, "settings: wanted some of d, r, L, eps, .*, seed, got q"),
        ("law", {"d": 500.5}, TypeError, "d: wanted a whole number, got 500.5"),
        ("law", {"eps": "0.1"}, TypeError, "eps: wanted a real number, got '0.1'"),
        ("completion", {"painted": "<b>"}, ValueError, "painted: wanted a text like .*, got '<b>'"),
    ],
)
def test_a_setting_that_cannot_be(name, settings, error, message):
    with pytest.raises(error, match=message):
        live.live(name, **settings)


def test_what_is_shown_travels_with_a_picture(monkeypatch):
    shown = live.live("law", d=np.int64(500), eps=np.float32(0.5))
    bundle, _ = shown._repr_mimebundle_()
    assert bundle[live.VIEW_MIME]["model_id"] == shown.box.model_id
    settings = {"d": 500, "eps": 0.5}  # numbers of numpy are those of JSON
    assert json.loads(json.dumps(bundle[live.LIVE_MIME])) == {"name": "law", "settings": settings}
    assert bundle["image/svg+xml"] == live.still("law")
    assert bundle["text/plain"] == repr(shown) == "live('law', d=500, eps=0.5)"
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert "image/svg+xml" not in shown._repr_mimebundle_()[0]  # it would prefer the picture


def power(n=2, label="a"):
    if n == 3:
        raise ValueError("n: wanted n < 3, got 3 & <more>")
    if n == 4:
        raise ZeroDivisionError
    _, ax = plt.subplots()
    ax.plot([x**n for x in range(5)])
    ax.set_title(f"{label} to the {n}")
    return ax


@pytest.mark.parametrize("own", [False, True])
def test_a_slider_draws_anew_and_a_cell_may_run_again(monkeypatch, own):
    monkeypatch.setitem(plt.rcParams, "svg.hashsalt", "one drawing, one file")
    before, drawn = plt.get_fignums(), []
    knob = ipywidgets.IntSlider(value=2, min=0, max=3) if own else (0, 3)

    def draw(n=2):
        drawn.append(n)
        return power(n)

    for _ in range(2):
        shown = live.explore(draw, n=knob)
        assert drawn.pop() == 2 and shown.picture.value == shown.first
        shown.sliders["n"].value = 1
        assert drawn.pop() == 1 and shown.picture.value != shown.first
        shown.sliders["n"].value = 2
        assert drawn.pop() == 2 and drawn == [] and plt.get_fignums() == before
        assert shown.picture.value == shown.first == shown._repr_mimebundle_()[0]["image/svg+xml"]
    shown.sliders["n"].value = 1
    assert not own or live.explore(draw, n=knob).sliders["n"].value == 1


def test_an_error_is_said_and_the_picture_stays():
    shown = live.explore(functools.partial(power), n=(0, 4), label=["a", "b"])
    shown.sliders["n"].value = 3
    assert shown.message.value == "<em>n: wanted n &lt; 3, got 3 &amp; &lt;more&gt;</em>"
    assert shown.picture.value == shown.first
    shown.sliders["n"].value = 4  # an error without words
    assert shown.message.value == "<em>ZeroDivisionError</em>"
    shown.sliders["n"].value = 1
    assert shown.message.value == ""
    assert repr(shown) == "explore(partial, n, label)"


def test_a_mistake_in_the_first_drawing_is_not_hidden():
    slider = ipywidgets.IntSlider(value=3, min=0, max=3)
    with pytest.raises(ValueError, match="n: wanted n < 3"):
        live.explore(lambda n=3: power(n), n=slider)
    slider.value = 2  # and moves nothing
    with pytest.raises(TypeError, match="draw: wanted a Figure or Axes returned, got None"):
        live.explore(lambda n=3: None, n=(3, 4))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"m": (1, 3)}, "knobs: wanted some of n, label, got m"),
        ({"n": object}, "n: wanted a tuple, a list or a widget, got <class 'object'>"),
        ({"n": [1, 4]}, r"n: wanted a knob \[1, 4\] that has the default 2"),
    ],
)
def test_a_knob_that_cannot_be(knobs, message):
    with pytest.raises(ValueError, match=message):
        live.explore(power, **knobs)
