"""Live figures and drawings with sliders, as a notebook gets them."""

import functools
import json
import sys
import types

import ipywidgets
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lop_utils import widgets

FIGURES = sorted(path.stem for path in widgets._CHECKOUT.glob("*.json"))
each_figure = pytest.mark.parametrize("name", FIGURES)


@each_figure
def test_controls_can_be_used(name):
    names = [each["name"] for each in widgets.controls(name)]
    assert len(names) == len(set(names))
    for each in widgets.controls(name):
        if "form" not in each:
            assert each["min"] <= each["value"] <= each["max"]
            assert each["min"] > 0 or not each.get("log")


@each_figure
def test_an_import_is_replaced_by_its_file_once(name):
    code = widgets.module(name)
    assert "\nimport " not in f"\n{code}"
    assert code.count("function live(") == 1
    assert f'export default live("{name}"' in code


@pytest.mark.parametrize("function", [widgets.module, widgets.controls, widgets.still])
@pytest.mark.parametrize("name", ["nothing", "../law", ""])
def test_a_figure_that_is_not_there(function, name):
    with pytest.raises(ValueError, match=r"name: wanted one of .*law.*, got "):
        function(name)


def test_a_module_may_import_twice_and_comments_stay_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(widgets, "_CHECKOUT", tmp_path)
    first = 'import {\n  one,\n  two,\n} from "./a.js";\nimport { b } from "./b.js";\n'
    (tmp_path / "x.js").write_text(
        f'{first}import c from "./c.json" with {{ type: "json" }};\nx;\n'
    )
    (tmp_path / "a.js").write_text("// Why.\nexport const one = 1, two = 2; // so\n\n")
    said = "  /** What\n * it is. */\n"
    (tmp_path / "b.js").write_text(
        f'import {{ one }} from "./a.js";\n{said}export const b = one;\n'
    )
    (tmp_path / "c.json").write_text('[\n  {"name": "ε"}\n]\n')
    wanted = "export const one = 1, two = 2; // so\nexport const b = one;\n"
    assert widgets.module("x") == f'{wanted}const c = [{{"name": "ε"}}];\nx;\n'


@each_figure
def test_settings_are_attributes_with_sliders(name):
    shown = widgets.live(name)
    rows, figure = shown.box.children
    assert figure is shown.figure
    known = {each["label"]: each for each in widgets.controls(name) if "label" in each}
    assert {slider.description for slider in rows.children} == set(known)
    for slider in rows.children:
        control = known[slider.description]
        assert slider.value == pytest.approx(control["value"])
        assert getattr(figure, control["name"]) == control["value"]
        if "choices" not in control:
            assert slider.max == pytest.approx(control["max"]) or 10**slider.max == pytest.approx(
                control["max"]
            )
    for each in widgets.controls(name):
        if "form" not in each:
            with pytest.raises(Exception, match=each["name"]):
                setattr(figure, each["name"], 10 * each["max"] + 1)


def test_a_slider_moves_the_figure_without_the_kernel(monkeypatch):
    linked, jslink = [], ipywidgets.jslink
    monkeypatch.setattr(ipywidgets, "jslink", lambda *ends: linked.append(ends) or jslink(*ends))
    shown = widgets.live("law", d=500)
    rows, figure = shown.box.children
    wanted = [each["name"] for each in widgets.controls("law") if "label" in each]
    assert [target for _, target in linked] == [(figure, name) for name in wanted]
    assert [source for source, _ in linked] == [(slider, "value") for slider in rows.children]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d": 10**9}, "d: wanted 12 <= d <= 2000, got 1000000000"),
        ({"d": -1}, "d: wanted d >= 0, got -1"),
        ({"d": 0}, "d: wanted 12 <= d <= 2000, got 0"),
        ({"eps": 2}, "eps: wanted 0.01 <= eps <= 1, got 2"),
        ({"eps": float("nan")}, "eps: wanted a finite number, got nan"),
        ({"q": 1}, "settings: wanted some of d, r, L, eps, eta, lam, steps, layer, seed, got q"),
    ],
)
def test_a_setting_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        widgets.live("law", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d": 500.5}, "d: wanted a whole number, got 500.5"),
        ({"d": True}, "d: wanted a whole number, got True"),
        ({"eps": "0.1"}, "eps: wanted a real number, got '0.1'"),
    ],
)
def test_a_setting_that_is_no_number(settings, message):
    with pytest.raises(TypeError, match=message):
        widgets.live("law", **settings)


def test_a_text_that_cannot_be():
    with pytest.raises(ValueError, match=r"painted: wanted a text like .*, got '<b>'"):
        widgets.live("completion", painted="<b>")


def test_numbers_of_numpy_become_those_of_json():
    settings = {"d": np.int64(500), "eps": np.float32(0.5), "lam": 0}
    shown = widgets.live("law", **settings)
    assert json.dumps(shown._repr_mimebundle_()[0])
    assert shown.settings == {"d": 500, "eps": 0.5, "lam": 0.0}


def test_what_is_shown_travels_with_a_picture():
    shown = widgets.live("law", d=500)
    bundle, _ = shown._repr_mimebundle_()
    assert bundle[widgets.VIEW_MIME]["model_id"] == shown.box.model_id
    assert bundle[widgets.LIVE_MIME] == {"name": "law", "settings": {"d": 500}}
    assert bundle["image/svg+xml"] == widgets.still("law")
    assert bundle["text/plain"] == repr(shown) == "live('law', d=500)"


def test_in_colab_nothing_competes_with_the_widget(monkeypatch):
    shown = widgets.explore(power, n=(1, 3))
    assert "image/svg+xml" in shown._repr_mimebundle_()[0]
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert set(shown._repr_mimebundle_()[0]) == {widgets.VIEW_MIME, "text/plain"}


def power(n=2, label="a"):
    if n == 3:
        raise ValueError("n: wanted n < 3, got 3 & <more>")
    figure = Figure()
    ax = figure.subplots()
    ax.plot([x**n for x in range(5)])
    ax.set_title(f"{label} to the {n}", gid="title")
    return ax


def test_a_slider_draws_anew(monkeypatch):
    monkeypatch.setitem(plt.rcParams, "svg.hashsalt", "one drawing, one file")
    drawn = []

    def draw(n=2):
        drawn.append(n)
        return power(n)

    shown = widgets.explore(draw, n=(0, 3))
    assert drawn == [2] and shown.picture.value == shown.first
    shown.sliders["n"].value = 1
    assert drawn == [2, 1]
    assert shown.picture.value != shown.first
    shown.sliders["n"].value = 2
    assert shown.picture.value == shown.first == shown._repr_mimebundle_()[0]["image/svg+xml"]


def test_an_error_is_said_and_the_picture_stays():
    shown = widgets.explore(power, n=(0, 3), label=["a", "b"])
    shown.sliders["n"].value = 3
    assert shown.message.value == "<em>n: wanted n &lt; 3, got 3 &amp; &lt;more&gt;</em>"
    assert shown.picture.value == shown.first
    shown.sliders["n"].value = 2
    assert shown.message.value == ""
    assert repr(shown) == "explore(power, n, label)"


def test_no_figure_is_left_open():
    before = plt.get_fignums()

    def draw(n=2):
        figure, ax = plt.subplots()
        ax.plot([0, n])
        return figure

    widgets.explore(draw, n=(1, 3)).sliders["n"].value = 3
    assert plt.get_fignums() == before


def test_a_mistake_in_the_first_drawing_is_not_hidden():
    with pytest.raises(ValueError, match="n: wanted n < 3"):
        widgets.explore(lambda n=3: power(n), n=(3, 4))
    with pytest.raises(TypeError, match="draw: wanted a Figure or Axes returned, got None"):
        widgets.explore(lambda n=3: None, n=(3, 4))


def test_an_error_without_words_is_named():
    def draw(n=1):
        if n > 1:
            raise ZeroDivisionError
        return power(n)

    shown = widgets.explore(functools.partial(draw), n=(1, 3))
    shown.sliders["n"].value = 2
    assert shown.message.value == "<em>ZeroDivisionError</em>"
    assert repr(shown) == "explore(partial, n)"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"m": (1, 3)}, "knobs: wanted some of n, label, got m"),
        ({"n": object}, "n: wanted a tuple, a list or a widget, got <class 'object'>"),
        ({"n": (4, 6)}, r"n: wanted a knob \(4, 6\) that has the default 2"),
        ({"n": [1, 4]}, r"n: wanted a knob \[1, 4\] that has the default 2"),
    ],
)
def test_a_knob_that_cannot_be(knobs, message):
    with pytest.raises(ValueError, match=message):
        widgets.explore(power, **knobs)
