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

from lop_utils.book import _svg, plots


@pytest.fixture(autouse=True)
def restore_style():
    with mpl.rc_context():
        yield


@pytest.fixture
def ax():
    return Figure().subplots()


def curves(line, of="get_ydata"):
    """Cut a line where it is broken."""
    data = np.asarray(getattr(line, of)())  # older matplotlib hands the tensor back
    gaps = np.flatnonzero(np.isnan(data))
    return [part[~np.isnan(part)].tolist() for part in np.split(data, gaps)[:-1]]


def test_a_spectrum_has_its_ends_in_colour_and_on_top(ax):
    values = torch.arange(9.0, 0, -1).expand(4, 9)
    assert plots.spectrum_over_time(ax, torch.arange(4), values, r=2) is ax
    assert [line.get_color() for line in ax.lines] == [plots.STAYS, plots.RISES, plots.FALLS]
    stays, rises, falls = (curves(line) for line in ax.lines)
    assert stays == [[i] * 4 for i in (7, 6, 5, 4, 3)]
    assert (rises, falls) == ([[9] * 4, [8] * 4], [[2] * 4, [1] * 4])
    assert curves(ax.lines[1], "get_xdata") == [[0, 1, 2, 3]] * 2


def test_equal_curves_are_drawn_once(ax):
    values = torch.tensor([[2.0] + [1.0] * 994 + [0.5]]).expand(3, 996)
    plots.spectrum_over_time(ax, torch.arange(3), values, r=1)
    assert [curves(line) for line in ax.lines] == [[[1.0] * 3], [[2.0] * 3], [[0.5] * 3]]


@pytest.mark.parametrize(
    ("values", "r", "message"),
    [
        (torch.rand(3, 4), 2, "values: wanted more than 2r = 4 columns, got 4"),
        (torch.rand(3, 4), 0, "r: wanted r >= 1, got 0"),
        (torch.rand(2, 9), 2, r"t: wanted 2 steps as values has rows, got shape \(3,"),
        (torch.ones(3, 9) / 0, 2, "values: wanted finite entries"),
    ],
)
def test_what_is_no_spectrum_is_refused(ax, values, r, message):
    with pytest.raises(ValueError, match=message):
        plots.spectrum_over_time(ax, torch.arange(3), values, r)
    with pytest.raises(ValueError, match="zip"):  # an axis for each run
        plots.compared_spectra([ax], torch.arange(3), {}, r)


def test_labels_of_groups_keep_apart(ax):
    ax.set(yscale="log", ylim=(1e-3, 3))
    plots.label_groups(ax, torch.tensor([1.0, 0.1, 0.099]), r=1, d=1000)
    stay, fall = (text.xy[1] for text in ax.texts[1:])
    assert [text.get_text() for text in ax.texts] == ["1 rise", "998 stay", "1 fall"]
    assert torch.tensor(stay / fall).log10() > 0.07 * torch.tensor(3 / 1e-3).log10()


def test_magnitudes_draw_zero_as_the_floor(ax):
    assert plots.magnitudes(ax, [[0.0, -2.0]]).get_array().tolist() == [[1e-17, 2.0]]


# Compact files


def drawn(last):
    figure = Figure(layout="constrained")
    ax, empty = figure.subplots(1, 2)
    ax.errorbar([0, 1, 2], [0, 1, last], [0.1, 0.2, 0.1], fmt="o-", color=plots.RISES)
    ax.plot([0, 1], [1, 0], ".", rasterized=True)
    ax.set_title("$x_1$ and words")
    empty.axis("off")
    return figure


def names_in(text):
    """Return the names defined, the names used, the classes defined and the classes used."""
    patterns = r'id="([^"]+)"', r'(?:href="#|url\(#)([^")]+)', r"\.(\w+)\{", r'class="([^"]+)"'
    return [set(re.findall(pattern, text)) for pattern in patterns]


def test_a_compact_file_says_the_same_in_less():
    figure, plain = drawn(2), io.StringIO()
    for _ in range(2):  # the second time, the layout has come to rest
        plain.seek(plain.truncate(0))
        figure.savefig(plain, format="svg", bbox_inches="tight")
    text = plots.compact_svg(figure)
    assert len(text) < 0.8 * len(plain.getvalue())
    old, new = (ElementTree.fromstring(each) for each in (plain.getvalue(), text))
    for element in ("path", "use", "clipPath", "image"):
        tag = f"{{http://www.w3.org/2000/svg}}{element}"
        pairs = list(zip(old.iter(tag), new.iter(tag), strict=True))
        assert pairs
        for before, after in pairs:
            assert letters(before) == letters(after)
            was, now = (numbers(each.get("d", "")) for each in (before, after))
            assert now == pytest.approx(was, abs=0.01)
            assert place(after) == pytest.approx(place(before), abs=0.01)
    assert re.search(r"scale\(0\.\d{4,}", text)  # a glyph's scale must keep its digits
    defined, used, rules, classes = names_in(text)
    assert used and used <= defined
    assert classes and classes == rules
    styles = re.findall(r'style="([^"]*)"', text)
    assert len(styles) == len(set(styles))


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def place(element):
    """Return where an element stands, by its own word or by that of its transform."""
    moved = re.match(r"translate\(([^)]*)\)$", element.get("transform", ""))
    x, y = [*numbers(moved[1]), 0.0][:2] if moved else (0.0, 0.0)
    return float(element.get("x", 0)) + x, float(element.get("y", 0)) + y


def letters(element):
    return re.sub(r"[^A-Za-z]", "", element.get("d", ""))


def test_two_compact_figures_can_stand_in_one_document():
    one, two = (names_in(plots.compact_svg(drawn(last))) for last in (2, 3))
    assert not one[1] & two[1]
    assert not one[3] & two[3]


def test_lines_and_their_labels_stand_out_from_white():
    for colour in (plots.RISES, plots.FALLS, plots.STAYS):
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        luminance = np.dot([0.2126, 0.7152, 0.0722], linear)
        # 3:1 is what WCAG asks of graphics; the dark theme inverts, which keeps the contrast.
        assert 1.05 / (luminance + 0.05) > 3


def test_groups_go_and_what_closes_itself_stays():
    text = '<svg><g><g a="1"><g/><g b="2"/><path/></g><g><path/></g></g></svg>'
    assert _svg.compact(text) == '<svg><g a="1"><g/><g b="2"/><path/></g><path/></svg>'
