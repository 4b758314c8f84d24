"""The book's figures: functions that take Axes, draw on them and return them."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from lop_utils import _checks, svg

__all__ = [
    "FALLS",
    "REST",
    "RISES",
    "compact_svg",
    "compared_spectra",
    "end_labels",
    "label_groups",
    "magnitudes",
    "svd_panels",
    "three_groups",
    "use_style",
]

# Blue and vermilion of Okabe and Ito's palette stay apart for every kind of colour vision.
RISES, FALLS, REST = "#0072B2", "#D55E00", "#6B6B6B"

_STYLE = {
    "figure.figsize": (7.2, 2.9),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 10,
    "mathtext.fontset": "dejavusans",  # as the text: the file holds each digit once
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.prop_cycle": mpl.cycler(color=[RISES, FALLS, "#009E73", "#AA4499", REST]),
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "lop",  # one source gives one file
    # Lines that run straight for long lose their inner points: a page of a thousand stays small.
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
}


def use_style() -> None:
    """Draw in the style of the book from here on, and as SVG in a notebook.

    Examples
    --------
    >>> use_style()
    """
    mpl.rcParams.update(_STYLE)
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # plain Python, no notebook
        return
    if shell := get_ipython():
        set_matplotlib_formats("svg")
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, compact_svg)


def compact_svg(figure: Figure) -> str:
    """Write a figure as SVG that weighs about half of what matplotlib makes of it.

    Parameters
    ----------
    figure : Figure
        What to write.

    Returns
    -------
    str
        SVG.

    Examples
    --------
    >>> figure = Figure()
    >>> _ = figure.subplots().plot([0, 1], [0, 1 / 3])
    >>> compact_svg(figure).startswith("<?xml")
    True
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return svg.compact(file.getvalue())


def three_groups(ax: Axes, t: Tensor, values: Tensor, r: int) -> Axes:
    r"""Draw curves over time: the first r, the last r, and all between as one bundle.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    t : Tensor, shape (T,)
        Steps.
    values : Tensor, shape (T, k)
        Singular values in descending order, or what belongs to them; k > 2r. A selection of a
        larger spectrum will do if it holds the r at each end.
    r : int
        How many at each end have a colour of their own.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        If ``values`` is no finite floating-point matrix, ``k <= 2r``, or the number of steps
        differs.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = three_groups(Figure().subplots(), torch.arange(2), torch.rand(2, 9), r=2)
    >>> [line.get_color() == color for line, color in zip(ax.lines, (REST, RISES, FALLS))]
    [True, True, True]
    """
    T, k = _checks.matrix("values", values).shape
    r = _checks.count("r", r)
    if k <= 2 * r:
        raise ValueError(f"values: wanted more than 2r = {2 * r} columns, got {k}")
    if len(t) != T:
        raise ValueError(f"t: wanted {T} steps as values has rows, got {len(t)}")
    t, values = t.cpu(), values.cpu()
    groups = ((range(r, k - r), REST, 0.9), (range(r), RISES, 1.8), (range(k - r, k), FALLS, 1.8))
    for columns, color, width in groups:  # the many first and thin, the few on top
        drawn: list[Tensor] = []
        for i in columns:
            # What lies on its neighbour is drawn once: 994 equal curves weigh as much as one.
            if not drawn or not torch.allclose(values[:, i], drawn[-1], rtol=1e-4, atol=1e-9):
                drawn.append(values[:, i])
        # One line for the whole group, broken by NaN: a small file, and a single legend entry.
        gap = torch.full((1, len(drawn)), torch.nan)
        y = torch.cat([torch.stack(drawn, 1), gap.to(values.dtype)]).T.flatten()
        x = torch.cat([t.double(), gap[:, 0].double()]).repeat(len(drawn))
        ax.plot(x, y, color=color, lw=width)
    ax.set_xlabel("step $t$")
    ax.margins(x=0)
    return ax


def svd_panels(
    axes: Sequence[Axes], t: Tensor, sv: Tensor, right: Tensor, left: Tensor, r: int
) -> None:
    """Draw one layer's singular values and the angles of its singular vectors, side by side.

    Parameters
    ----------
    axes : sequence of three Axes
        For the singular values, the right and the left angles.
    t : Tensor, shape (T,)
        Steps.
    sv : Tensor, shape (T, d)
        Singular values, descending at each step.
    right, left : Tensor, shape (T, 2r + 1)
        From `spectra.singular_angles`.
    r : int
        How many at each end have a colour of their own.

    Raises
    ------
    TypeError, ValueError
        As in `three_groups`.

    Examples
    --------
    >>> axes = Figure().subplots(1, 3)
    >>> svd_panels(axes, torch.arange(2), torch.rand(2, 9), *torch.rand(2, 2, 5), r=2)
    >>> [len(ax.lines) for ax in axes]
    [3, 3, 3]
    """
    for ax, values in zip(axes, (sv, right, left), strict=True):
        three_groups(ax, t, values, r).locator_params(nbins=3)


def end_labels(ax: Axes, labels: Sequence[tuple[float, str, str]]) -> Axes:
    """Write on curves where they end, at the right edge, instead of in a legend.

    Parameters
    ----------
    ax : Axes
        Where to write; its limits should be set before.
    labels : sequence of (float, str, str)
        Height in data coordinates, text, colour.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = end_labels(Figure().subplots(), [(0.5, "half", REST)])
    >>> ax.texts[0].get_text()
    'half'
    """
    for y, text, color in labels:
        ax.annotate(
            text,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize="small",
        )
    return ax


def compared_spectra(axes: Sequence[Axes], t: Tensor, runs: Mapping[str, Tensor], r: int) -> None:
    r"""Draw the spectra of several runs side by side on one logarithmic scale.

    Parameters
    ----------
    axes : sequence of Axes
        One for each run; they should share their y axis.
    t : Tensor, shape (T,)
        Steps.
    runs : mapping of str to Tensor, shape (T, k)
        Title of each run and its singular values, as in `three_groups`.
    r : int
        How many values at each end have a colour of their own.

    Raises
    ------
    TypeError, ValueError
        As in `three_groups`.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots(1, 2, sharey=True)
    >>> runs = {"one": 1 + torch.rand(3, 9), "two": 1 + torch.rand(3, 9)}
    >>> compared_spectra(axes, torch.arange(3), runs, r=2)
    >>> axes[1].get_title(loc="left")
    'two'
    """
    for ax, (title, sv) in zip(axes, runs.items(), strict=True):
        three_groups(ax, t, sv, r).set(yscale="log")
        ax.minorticks_off()
        ax.set_title(title, loc="left")
    axes[0].set_ylabel(r"singular values $\sigma_i$")


def label_groups(ax: Axes, sv: Tensor, r: int, d: int) -> Axes:
    """Write how many singular values rise, stay and fall, where their curves end.

    Parameters
    ----------
    ax : Axes
        Where the curves are; its limits should be set before.
    sv : Tensor, shape (k,)
        Last singular values, descending, of the d or a selection of them that holds the r at
        each end.
    r : int
        How many rise, and how many fall.
    d : int
        How many there are in all.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = label_groups(Figure().subplots(), torch.tensor([2.0, 1.0, 0.5]), r=1, d=30)
    >>> [text.get_text() for text in ax.texts]
    ['1 rise', '28 stay', '1 fall']
    """
    rise, stay, fall = (sv[i].item() for i in (r - 1, len(sv) // 2, -r))
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":  # a line of text is about a twelfth of the axis high
        fall = min(fall, stay * (low / high) ** 0.075)
    return end_labels(
        ax,
        [
            (rise, f"{r} rise", RISES),
            (stay, f"{d - 2 * r} stay", REST),
            (fall, f"{r} fall", FALLS),
        ],
    )


def magnitudes(ax: Axes, A: Tensor, *, floor: float = 1e-17) -> AxesImage:
    r"""Draw the magnitudes of a matrix on a logarithmic scale, to tell zero from small.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    A : Tensor, shape (m, n)
        Matrix.
    floor : float
        What is smaller, exact zeros included, is drawn as this.

    Returns
    -------
    AxesImage
        For a colour bar; its ``axes`` is ``ax``.

    Raises
    ------
    TypeError, ValueError
        If ``A`` is no finite floating-point matrix or ``floor <= 0``.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> magnitudes(Figure().subplots(), torch.eye(3)).get_array().shape
    (3, 3)
    """
    floor = _checks.positive("floor", floor)
    size = _checks.matrix("A", A).abs().clamp(min=floor).cpu().numpy()
    image = ax.imshow(size, norm=LogNorm(floor, 10), cmap="magma_r", interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    return image
