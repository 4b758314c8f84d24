"""Figures to play with, in a notebook: the live ones of the pages, and sliders for any drawing.

Both come with a picture, for pages, printers and repositories where no kernel runs. JupyterLab
looks at the widget alone: a notebook opened again shows it once its cells have run. The live
figures train in the browser; they are the ES modules of ``book/_figures``, which a page holds as
they are and a notebook gets through anywidget. ``name`` is one of

* ``law``: the singular values of a layer of width d, in training by a method of your choice;
* ``completion``: a matrix that two networks fill in;
* ``features``: classes that tighten from layer to layer;
* ``noise``: a determinant that falls as long as labels are noisy;
* ``transfer``: the error over the step size at several widths, in NTK and muP;
* ``cost``: what a step of five networks takes. Constants of `cost.Machine` are settings, too.
"""

import html
import inspect
import json
import math
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lop_utils import _checks
from lop_utils.book import plots

__all__ = ["Explorer", "Live", "controls", "explore", "live", "module", "still"]

VIEW_MIME, LIVE_MIME = "application/vnd.jupyter.widget-view+json", "application/vnd.lop.live+json"
_CHECKOUT = Path(__file__).resolve().parents[2] / "book" / "_figures"
_IMPORT = re.compile(
    r'^import (?:(\w+)|\{[^}]*\}) from "(\.\.?/[\w/-]+\.js(?:on)?)"(?: with \{[^}]*\})?;\n',
    re.MULTILINE,
)
_COMMENT = re.compile(r"^\s*(?://[^\n]*|/\*\*.*?\*/)\n|^\s*\n", re.MULTILINE | re.DOTALL)


def _file(name: str) -> str:
    # A checkout keeps the modules among the chapters, beside the records that they import; an
    # installed wheel carries a copy of both.
    folder = _CHECKOUT if _CHECKOUT.is_dir() else resources.files("lop_utils") / "_figures"
    file = folder / name
    if not file.is_file():
        names = sorted(each.name[:-5] for each in folder.iterdir() if each.name.endswith(".json"))
        raise ValueError(f"name: wanted one of {', '.join(names)}, got {name.rpartition('.')[0]!r}")
    return file.read_text(encoding="utf-8")


def module(name: str) -> str:
    """Return a live figure as one ES module, with what it imports put in.

    Browsers refuse a module that lies beside a page where pages are files, and anywidget takes
    one text: so an import is replaced by the file that it names. Lines of comment alone are left
    out, a quarter of the text; the files have them.

    Examples
    --------
    >>> "import " in module("law"), "export default live(" in module("law")
    (False, True)
    """
    seen: set[str] = set()

    def put(found: re.Match) -> str:
        constant, file = found.groups()
        if file in seen:
            return ""
        seen.add(file)
        if constant:
            text = json.dumps(json.loads(_file(file)), ensure_ascii=False)
            return f"const {constant} = {text};\n"
        return _IMPORT.sub(put, _file(file))

    return _COMMENT.sub("", _IMPORT.sub(put, _file(f"{name}.js")))


def controls(name: str) -> list[dict[str, Any]]:
    """Return what can be set in a live figure.

    Each has a ``name``, a ``value`` to begin with, ``min`` and ``max``; a ``label`` if it has a
    slider, ``whole`` if it is an integer, ``log`` if the slider is logarithmic; ``choices`` instead
    of a slider; or a ``form``, what a text must look like. ``more`` waits behind that word.

    Examples
    --------
    >>> controls("law")[0]["label"]
    'width d'
    """
    return json.loads(_file(f"{name}.json"))


def still(name: str) -> str:
    """Return a live figure's first frame, for places without scripts, as SVG.

    Examples
    --------
    >>> still("law").startswith("<svg")
    True
    """
    return _file(f"{name}.svg")


class _Shown:
    """What is shown as a widget by a notebook, and as a picture elsewhere."""

    box: ipywidgets.Box
    pictures: dict[str, Any]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        bundle = {VIEW_MIME: view, "text/plain": repr(self), **self.pictures}
        if "google.colab" in sys.modules:  # nothing says that it prefers a widget to a picture
            del bundle["image/svg+xml"]
        return bundle, self._metadata()

    def _metadata(self) -> dict[str, Any]:
        return {}


class Live(_Shown):
    """A live figure in a notebook, with its sliders; made by `live`."""

    figure: anywidget.AnyWidget
    """The figure. Each setting is an attribute, to read, to set and to observe: ``figure.d = 500``;
    ``figure.said`` is the sentence below it."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name, self.settings = name, settings
        live = {LIVE_MIME: {"name": name, "settings": settings}}
        self.pictures = {**live, "image/svg+xml": still(name)}
        self.figure = _figure_class(name)(**settings)
        rows = [_slider(each, self.figure) for each in controls(name) if "label" in each]
        layout = ipywidgets.Layout(grid_template_columns="repeat(auto-fill, minmax(19rem, 1fr))")
        self.box = ipywidgets.VBox([ipywidgets.GridBox(rows, layout=layout), self.figure])

    def __repr__(self) -> str:
        """Return the call that shows it."""
        said = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"live({self.name!r}{', ' if said else ''}{said})"

    def _metadata(self) -> dict[str, Any]:
        # In Colab it names the manager of the widget; beside ipywidgets 7 old anywidgets have none.
        shown = getattr(self.figure, "_repr_mimebundle_", dict)()
        return shown[1] if isinstance(shown, tuple) else {}


@cache
def _figure_class(name: str) -> type[anywidget.AnyWidget]:
    traits: dict[str, Any] = {"_esm": module(name), "said": traitlets.Unicode("").tag(sync=True)}
    for each in controls(name):
        traits[each["name"]] = _trait(each).tag(sync=True)
    return type(f"{name.capitalize()}Figure", (anywidget.AnyWidget,), traits)


def _trait(control: dict[str, Any]) -> traitlets.TraitType:
    if "form" in control:
        return traitlets.Unicode(control["value"])
    kind = traitlets.Int if control.get("whole") else traitlets.Float
    return kind(control["value"], min=control["min"], max=control["max"])


def _slider(control: dict[str, Any], figure: anywidget.AnyWidget) -> ipywidgets.Widget:
    name, low, high = control["name"], control["min"], control["max"]
    common: dict[str, Any] = {"value": getattr(figure, name), "description": control["label"]}
    if "choices" in control:
        options = [(text, value) for value, text in enumerate(control["choices"])]
        slider = ipywidgets.Dropdown(options=options, **common)
    elif control.get("whole"):
        slider = ipywidgets.IntSlider(min=low, max=high, **common)
    elif control.get("log"):
        ends = {"min": math.log10(low), "max": math.log10(high), "step": 0.001}
        slider = ipywidgets.FloatLogSlider(readout_format=".3g", **ends, **common)
    else:
        ends = {"min": low, "max": high, "step": (high - low) / 100}
        slider = ipywidgets.FloatSlider(readout_format=".3g", **ends, **common)
    position = "index" if "choices" in control else "value"  # what a browser knows of it
    ipywidgets.jslink((slider, position), (figure, name))  # no kernel is asked
    return slider


def live(name: str, **settings: float) -> Live:
    """Return a live figure, which a notebook shows: its sliders need no kernel.

    Parameters
    ----------
    **settings : number
        Where its sliders stand at first, such as ``d=500``; see `controls`.

    Examples
    --------
    >>> shown = live("law", d=500)
    >>> shown.figure.d
    500
    """
    known = {each["name"]: each for each in controls(name)}
    if unknown := [key for key in settings if key not in known]:
        raise ValueError(f"settings: wanted some of {', '.join(known)}, got {', '.join(unknown)}")
    return Live(name, {key: _setting(known[key], value) for key, value in settings.items()})


def _setting(control: dict[str, Any], value: Any) -> Any:
    name = control["name"]
    if "form" in control:
        if not isinstance(value, str) or not re.fullmatch(control["form"], value):
            raise ValueError(f"{name}: wanted a text like {control['form']}, got {value!r}")
        return value
    number = (_checks.count if control.get("whole") else _checks.finite_number)(name, value)
    low, high = control["min"], control["max"]
    if not low <= number <= high:
        raise ValueError(f"{name}: wanted {low} <= {name} <= {high}, got {value!r}")
    return number


class Explorer(_Shown):
    """A drawing with sliders; made by `explore`."""

    sliders: dict[str, ipywidgets.Widget]
    """The slider of each argument; setting its ``value`` draws anew."""

    def __init__(self, draw: Callable[..., Figure | Axes], knobs: dict[str, Any]) -> None:
        self.draw, self.sliders = draw, {}
        for name, knob in knobs.items():
            default = inspect.signature(draw).parameters[name].default
            slider = ipywidgets.interactive.widget_from_abbrev(knob, default)
            if slider is None:
                raise ValueError(f"{name}: wanted a tuple, a list or a widget, got {knob!r}")
            # A widget of the reader's own stays where it is: its cell may run again.
            if slider is not knob and default not in (inspect.Parameter.empty, slider.value):
                raise ValueError(f"{name}: wanted a knob {knob!r} that has the default {default!r}")
            slider.description = slider.description or name
            if hasattr(slider, "continuous_update"):
                slider.continuous_update = False  # drawing takes longer than dragging
            self.sliders[name] = slider
        self.first = self._drawn()
        for slider in self.sliders.values():
            # A cell that runs again hands over the same widget, which must not draw twice.
            with suppress(AttributeError):
                slider.unobserve(slider.lop_update, names="value")
            slider.lop_update = self._update
            slider.observe(slider.lop_update, names="value")
        self.pictures = {"image/svg+xml": self.first}
        self.picture, self.message = ipywidgets.HTML(self.first), ipywidgets.HTML()
        self.box = ipywidgets.VBox([*self.sliders.values(), self.message, self.picture])

    def _drawn(self) -> str:
        drawn = self.draw(**{name: slider.value for name, slider in self.sliders.items()})
        if not isinstance(drawn, Figure | Axes):
            raise TypeError(f"draw: wanted a Figure or Axes returned, got {drawn!r}")
        figure = drawn if isinstance(drawn, Figure) else drawn.figure
        text = plots.compact_svg(figure)
        plt.close(figure)  # else the notebook shows it once more
        return text

    def _update(self, _: Any) -> None:
        try:
            self.picture.value = self._drawn()
            self.message.value = ""
        except Exception as error:  # of the reader's own function; the last picture stays
            text = html.escape(str(error)) or type(error).__name__
            self.message.value = f"<em>{text}</em>"

    def __repr__(self) -> str:
        """Return the call that shows it, without the knobs."""
        name = getattr(self.draw, "__name__", type(self.draw).__name__)
        return f"explore({name}, {', '.join(self.sliders)})"


def explore(draw: Callable[..., Figure | Axes], **knobs: Any) -> Explorer:
    """Return a figure with a slider for each argument of a drawing, which a notebook shows.

    What ``draw`` raises later is said above the drawing, and the last one stays.

    Parameters
    ----------
    draw : callable
        Takes the arguments and returns a Figure, or Axes of it. Its default values are drawn first.
    **knobs : tuple, list or widget
        What ipywidgets' ``interact`` takes: ``L=(2, 5)`` for a slider of whole numbers,
        ``lam=(0.0, 0.1, 0.01)`` with a step, ``eps=[0.01, 0.1, 1.0]`` for a choice. A widget of
        your own moves the figure that it was given to last.

    Raises
    ------
    TypeError, ValueError
        And what the first drawing raises.

    Examples
    --------
    >>> def power(n=2):
    ...     figure = Figure()
    ...     figure.subplots().plot([x**n for x in range(5)])
    ...     return figure
    >>> shown = explore(power, n=(1, 3))
    >>> shown.sliders["n"].value
    2
    """
    known = inspect.signature(draw).parameters
    if unknown := [name for name in knobs if name not in known]:
        raise ValueError(f"knobs: wanted some of {', '.join(known)}, got {', '.join(unknown)}")
    return Explorer(draw, knobs)
