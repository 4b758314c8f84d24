"""The book's figures: functions that draw on the Axes ``ax`` that they are given.

The steps ``t`` have shape (T,). Singular values have shape (T, k), descending at each step, and may
be a selection of a larger spectrum; ``r`` at each end have a colour of their own. The limits of
Axes should be set before something is written on them.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import torch
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib_inline.backend_inline import set_matplotlib_formats
from torch import Tensor

from lop_utils import _checks
from lop_utils.book import _svg, scale

__all__ = [
    "FALLS",
    "RISES",
    "STAYS",
    "compact_svg",
    "compared_spectra",
    "end_labels",
    "label_groups",
    "magnitudes",
    "spectrum_over_time",
    "use_style",
]

# Blue and vermilion of Okabe and Ito's palette stay apart for every kind of colour vision.
RISES, FALLS, STAYS = "#0072B2", "#D55E00", "#6B6B6B"

_STYLE = {
    "figure.figsize": (7.2, 2.9),
    "figure.constrained_layout.use": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.prop_cycle": mpl.cycler(color=[RISES, FALLS, "#009E73", "#AA4499", STAYS]),
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "lop",  # one source gives one file
    "path.simplify_threshold": 0.3,  # a page of a thousand straight lines stays small
}


def use_style() -> None:
    """Draw in the style of the book from here on, as SVG in a notebook; compute on one thread.

    Where a chapter computes, a second thread gains little and on busy cores costs minutes. At the
    papers' scale the setting stays, and ``torch.set_num_threads`` takes it back.

    Examples
    --------
    >>> use_style()
    """
    mpl.rcParams.update(_STYLE)
    torch.set_num_threads(scale.pick(book=1, paper=torch.get_num_threads()))
    if shell := get_ipython():
        set_matplotlib_formats("svg")
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, compact_svg)


def compact_svg(figure: Figure) -> str:
    """Return a figure as SVG, in about half of the bytes that matplotlib writes.

    Parameters
    ----------
    figure : Figure
        What to write.

    Returns
    -------
    str

    Examples
    --------
    >>> figure = Figure()
    >>> _ = figure.subplots().plot([0, 1], [0, 1 / 3])
    >>> compact_svg(figure).startswith("<?xml")
    True
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _svg.compact(file.getvalue())


def spectrum_over_time(ax: Axes, t: Tensor, values: Tensor, r: int) -> Axes:
    """Draw curves over time: the first r, the last r, and all between as one bundle.

    Parameters
    ----------
    values : Tensor
        Singular values or what belongs to them; k > 2r.

    Returns
    -------
    Axes

    Examples
    --------
    >>> ax = spectrum_over_time(Figure().subplots(), torch.arange(2), torch.rand(2, 9), r=2)
    >>> [line.get_color() == color for line, color in zip(ax.lines, (STAYS, RISES, FALLS))]
    [True, True, True]
    """
    t, values = _checks.scalars("t", t), _checks.matrix("values", values)
    t, values = t.detach().cpu(), values.detach().cpu()
    r, (T, k) = _checks.count("r", r, at_least=1), values.shape
    if k <= 2 * r:
        raise ValueError(f"values: wanted more than 2r = {2 * r} columns, got {k}")
    if t.shape != (T,):
        raise ValueError(f"t: wanted {T} steps as values has rows, got shape {tuple(t.shape)}")
    groups = ((range(r, k - r), STAYS, 0.9), (range(r), RISES, 1.8), (range(k - r, k), FALLS, 1.8))
    for columns, color, width in groups:  # the many first and thin, the few on top
        drawn: list[Tensor] = []
        for i in columns:
            # What lies on its neighbour is drawn once: 994 equal curves weigh as much as one.
            if not drawn or not torch.allclose(values[:, i], drawn[-1], rtol=1e-4, atol=1e-9):
                drawn.append(values[:, i])
        # One line for the whole group, broken by NaN: a small file, and a single legend entry.
        gap = torch.full((1, len(drawn)), torch.nan, dtype=values.dtype)
        y = torch.cat([torch.stack(drawn, 1), gap]).T.flatten()
        x = torch.cat([t.double(), torch.tensor([torch.nan])]).repeat(len(drawn))
        ax.plot(x, y, color=color, lw=width)
    ax.set_xlabel("step $t$")
    ax.margins(x=0)
    return ax


def compared_spectra(axes: Sequence[Axes], t: Tensor, runs: Mapping[str, Tensor], r: int) -> None:
    """Draw the spectra of several runs side by side on one logarithmic scale.

    Parameters
    ----------
    axes : sequence of Axes
        One for each run; they should share their y axis.
    runs : mapping of str to Tensor
        Title of each run, and its singular values.

    Examples
    --------
    >>> axes = Figure().subplots(1, 2, sharey=True)
    >>> compared_spectra(axes, torch.arange(3), dict.fromkeys("ab", torch.ones(3, 9)), r=2)
    >>> axes[1].get_title(loc="left")
    'b'
    """
    for ax, (title, sv) in zip(axes, runs.items(), strict=True):
        if not (_checks.matrix("values", sv) > 0).any():
            raise ValueError(f"values: wanted some above zero of {title}, to see their logarithms")
        spectrum_over_time(ax, t, sv, r).set(yscale="log")
        ax.minorticks_off()
        ax.set_title(title, loc="left")
    axes[0].set_ylabel(r"singular values $\sigma_i$")


def end_labels(ax: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write on curves where they end, at the right edge, instead of in a legend.

    Parameters
    ----------
    labels : sequence of (float, str, str)
        Height in data coordinates, text, colour.

    Raises
    ------
    TypeError, ValueError
        If a height is no finite number.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> end_labels(ax, [(0.5, "half", STAYS)])
    >>> ax.texts[0].get_text()
    'half'
    """
    place = dict(xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points")
    for i, (y, text, color) in enumerate(labels):
        y = _checks.finite_number(f"labels[{i}]", y)
        ax.annotate(text, (1, y), va="center", color=color, fontsize="small", **place)


def label_groups(ax: Axes, sv: Tensor, r: int, d: int) -> None:
    """Write how many singular values rise, stay and fall, where their curves end.

    Parameters
    ----------
    sv : Tensor, shape (k,)
        Last singular values.
    d : int
        How many there are in all.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> label_groups(ax, torch.tensor([2.0, 1.0, 0.5]), r=1, d=30)
    >>> [text.get_text() for text in ax.texts]
    ['1 rise', '28 stay', '1 fall']
    """
    sv, r = _checks.vector("sv", sv), _checks.count("r", r, at_least=1)
    if len(sv) <= 2 * r:
        raise ValueError(f"sv: wanted more than 2r = {2 * r} values, got {len(sv)}")
    d = _checks.count("d", d, at_least=2 * r)
    rise, stay, fall = (sv[i].item() for i in (r - 1, len(sv) // 2, -r))
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":  # a line of text is about a twelfth of the axis high
        fall = min(fall, stay * (low / high) ** 0.075)
    texts = (f"{r} rise", f"{d - 2 * r} stay", f"{r} fall")
    end_labels(ax, list(zip((rise, stay, fall), texts, (RISES, STAYS, FALLS), strict=True)))


def magnitudes(ax: Axes, A: Tensor) -> AxesImage:
    """Draw the magnitudes of a matrix from 1e-17 to 10, on a logarithmic scale.

    So zero, which is drawn as the least, can be told from small.

    Parameters
    ----------
    A : Tensor, shape (m, n)
        The matrix.

    Returns
    -------
    AxesImage
        For a colour bar; its ``axes`` is ``ax``.

    Examples
    --------
    >>> magnitudes(Figure().subplots(), torch.eye(3)).get_array().shape
    (3, 3)
    """
    size = _checks.matrix("A", A).detach().abs().clamp(min=1e-17).cpu().numpy()
    image = ax.imshow(size, norm=LogNorm(1e-17, 10), cmap="magma_r", interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    return image
