"""What the figures draw, read back from the Axes and the files."""

import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lop_utils import plots, svg


@pytest.fixture(autouse=True)
def restore_style():
    with mpl.rc_context():
        yield


@pytest.fixture
def ax():
    return Figure().subplots()


def curves(line):
    """Cut a line where it is broken."""
    y = np.asarray(line.get_ydata())  # older matplotlib hands the tensor back
    return [
        part[~np.isnan(part)].tolist() for part in np.split(y, np.flatnonzero(np.isnan(y)))[:-1]
    ]


def test_three_groups_draws_the_ends_in_colour_and_on_top(ax):
    values = torch.arange(9.0, 0, -1).expand(4, 9)
    plots.three_groups(ax, torch.arange(4), values, r=2)
    assert [line.get_color() for line in ax.lines] == [plots.REST, plots.RISES, plots.FALLS]
    rest, rises, falls = (curves(line) for line in ax.lines)
    assert rest == [[i] * 4 for i in (7, 6, 5, 4, 3)]
    assert rises == [[9] * 4, [8] * 4]
    assert falls == [[2] * 4, [1] * 4]
    assert curves_x(ax.lines[1]) == [0, 1, 2, 3] * 2


def curves_x(line):
    x = np.asarray(line.get_xdata())
    return x[~np.isnan(x)].tolist()


def test_three_groups_draws_equal_curves_once(ax):
    values = torch.tensor([[2.0] + [1.0] * 994 + [0.5]]).expand(3, 996)
    plots.three_groups(ax, torch.arange(3), values, r=1)
    assert [curves(line) for line in ax.lines] == [[[1.0] * 3], [[2.0] * 3], [[0.5] * 3]]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (torch.rand(3, 4), ValueError, "values: wanted more than 2r = 4 columns, got 4"),
        (torch.rand(2, 9), ValueError, "t: wanted 2 steps as values has rows, got 3"),
        (torch.ones(3, 9).long(), TypeError, "values: wanted a floating-point matrix"),
    ],
)
def test_three_groups_refuses(ax, values, error, message):
    with pytest.raises(error, match=message):
        plots.three_groups(ax, torch.arange(3), values, r=2)


def test_label_groups_keeps_its_lines_of_text_apart(ax):
    ax.set(yscale="log", ylim=(1e-3, 3))
    plots.label_groups(ax, torch.tensor([1.0, 0.1, 0.099]), r=1, d=1000)
    stay, fall = (text.xy[1] for text in ax.texts[1:])
    assert [text.get_text() for text in ax.texts] == ["1 rise", "998 stay", "1 fall"]
    assert torch.tensor(stay / fall).log10() > 0.07 * torch.tensor(3 / 1e-3).log10()


def test_magnitudes_draws_zero_as_the_floor(ax):
    image = plots.magnitudes(ax, torch.tensor([[0.0, -2.0]]), floor=1e-9)
    assert image.get_array().tolist() == [[pytest.approx(1e-9), 2.0]]
    with pytest.raises(ValueError, match="floor: wanted floor > 0"):
        plots.magnitudes(ax, torch.eye(2), floor=0.0)


def test_compared_spectra_wants_an_axis_for_each_run():
    axes = Figure().subplots(1, 2)
    with pytest.raises(ValueError, match="zip"):
        plots.compared_spectra(axes, torch.arange(2), {"one": torch.rand(2, 5)}, r=1)


def test_compact_svg_says_the_same_in_less():
    figure = Figure(layout="constrained")
    figure.subplots().plot(torch.arange(50), torch.rand(50))
    plain = io.StringIO()
    figure.savefig(plain, format="svg", bbox_inches="tight")
    text = plots.compact_svg(figure)
    assert len(text) < 0.8 * len(plain.getvalue())
    old, new = (ElementTree.fromstring(svg) for svg in (plain.getvalue(), text))
    for element in ("path", "use", "clipPath"):
        tag = f"{{http://www.w3.org/2000/svg}}{element}"
        assert len(list(old.iter(tag))) == len(list(new.iter(tag)))
    groups = list(new.iter("{http://www.w3.org/2000/svg}g"))
    assert groups and all(group.attrib for group in groups)
    assert re.search(r"scale\(0\.\d{4,}", text)  # a glyph's scale must keep its digits
    assert "L" not in re.sub(r"M[^L]*L", "", "".join(re.findall(r' d="([^"Q]*)"', text)))
    paths = " ".join(re.findall(r' d="([^"]*)"', text))
    assert max(len(n.split(".")[1]) for n in re.findall(r"\d+\.\d+", paths)) == 2


def a_figure(last):
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    ax.errorbar([0, 1, 2], [0, 1, last], [0.1, 0.2, 0.1], fmt="o-", color=plots.RISES)
    ax.set_title("$x_1$ and words")
    return plots.compact_svg(figure)


def names_in(text):
    return set(re.findall(r'id="([^"]+)"', text)), set(
        re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    )


def test_compact_svg_keeps_every_reference_and_says_each_style_once():
    text = a_figure(2)
    defined, used = names_in(text)
    assert used and used <= defined
    styles = re.findall(r'style="([^"]*)"', text)
    assert len(styles) == len(set(styles))
    classes = set(re.findall(r'class="([^"]+)"', text))
    rules = dict(re.findall(r"\.([\w-]+)\{([^}]*)\}", text))
    assert classes and classes == set(rules)
    assert any(plots.RISES.lower() in style for style in rules.values())


def test_compact_svg_of_images_and_of_empty_axes_is_well_formed():
    figure = Figure()
    first, second = figure.subplots(1, 2)
    first.plot([0, 1], [1, 0], ".", rasterized=True)
    second.axis("off")
    ElementTree.fromstring(plots.compact_svg(figure))


def test_groups_go_and_what_closes_itself_stays():
    text = '<svg><g><g a="1"><g/><g b="2"/><path/></g><g><path/></g></g></svg>'
    assert svg.compact(text) == '<svg><g a="1"><g/><g b="2"/><path/></g><path/></svg>'


def test_two_compact_figures_can_stand_in_one_document():
    one, two = a_figure(2), a_figure(3)
    assert not names_in(one)[1] & names_in(two)[1]
    classes = [set(re.findall(r'class="([^"]+)"', text)) for text in (one, two)]
    assert not classes[0] & classes[1]


def luminance(colour):
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


@pytest.mark.parametrize("colour", [plots.RISES, plots.FALLS, plots.REST])
def test_lines_and_their_labels_stand_out_from_white(colour):
    # 3:1 is what WCAG asks of graphics; the dark theme inverts, which keeps the contrast.
    assert 1.05 / (luminance(colour) + 0.05) > 3
