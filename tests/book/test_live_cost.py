"""The live figure of costs: its numbers are those of book.cost, and a reader can play with them."""

import itertools
import math
import re
import time
from functools import partial

import pytest
from figure_page import drag, enter, field, said, texts

from lop_utils.book import cost, scale
from lop_utils.book import live as widgets

RECORD = scale.load_result("bench-machine")["values"]
CONTROLS = {each["name"]: each["value"] for each in widgets.controls("cost")}
OWN = {"overhead": 1e-6, "rate": 1e10, "bandwidth": 1e9, "thin": 1e9, "fetch": 1e-8}
ROWS = "(all) => all.map((settings) => lop.networks(settings).rows)"
NUMBERS = ("parameters", "operations", "memory", "seconds")


@pytest.fixture(scope="module")
def module(modules):
    return modules("cost")


@pytest.fixture
def live(figure):
    return partial(figure, "cost")


def between(places, values, x):
    """Interpolate along straight lines in logarithms, and keep to the ends."""
    x = min(max(x, places[0]), places[-1])
    for a, b, low, high in zip(places, places[1:], values, values[1:], strict=False):
        if x <= b:
            share = (math.log(x) - math.log(a)) / (math.log(b) - math.log(a))
            return math.exp((1 - share) * math.log(low) + share * math.log(high))
    raise AssertionError(x)


def machine(size, side, k):
    """Return the recorded machine at a size and width."""
    constants = RECORD["constants"][str(size)]
    thin, fetch = (
        [between(RECORD["widths"], line, k) for line in constants[name]]
        for name in ("thin", "fetch")
    )
    return cost.Machine(
        overhead=constants["overhead"],
        rate=between(RECORD["sides"], constants["rate"], side),
        bandwidth=between(RECORD["sides"], constants["bandwidth"], side),
        thin=between(RECORD["sides"], thin, side),
        fetch=between(RECORD["rows"], fetch, side),
    )


def expected(d, r, L, p, w, bits, own=None):
    """Return (parameters, operations, memory, seconds) by network, as the package counts them."""
    size, k, n = 4 if bits else 8, 2 * r, max(1, math.floor(p * d * d + 0.5))
    at = (lambda *_: cost.Machine(**own)) if own else (lambda *where: machine(size, *where))

    def dense(k):
        work = cost.dense_step(d, d, k, L, size=size)
        memory = cost.dense_bytes(d, d, k, L, size=size)
        return cost.parameters(d, d, k, L), work.thin, memory, cost.seconds(work, at(d, k))

    def sampled(k):
        work = cost.sampled_step(n, d, d, k, L, size=size)
        memory, operations = cost.sampled_bytes(n, d, d, k, L, size=size), work.thin + 6 * n * k
        return cost.parameters(d, d, k, L), operations, memory, cost.seconds(work, at(d, k))

    def square(k):
        work = cost.full_step(k, L, size=size)
        memory = cost.full_bytes(k, L, size=size)
        return cost.parameters(k, k, k, L), work.flops, memory, cost.seconds(work, at(k, k))

    narrow = {"narrow, dense": dense(w), "narrow, sampled": sampled(w)}
    quicker = min(narrow, key=lambda name: narrow[name][-1])
    return {
        "original": square(d),
        "compressed, dense": dense(k),
        "compressed, sampled": sampled(k),
        quicker: narrow[quicker],
        "core alone": square(k),
    }


def numbers(rows):
    """Return the four numbers of each network by its name."""
    return {row["name"]: tuple(row[key] for key in NUMBERS) for row in rows}


def found(module, **settings):
    return numbers(module.evaluate(ROWS, [CONTROLS | settings])[0])


GRID = [
    dict(zip(("d", "r", "L", "p", "w", "bits"), values, strict=True))
    for values in itertools.product(
        (16, 333, 1000, 10**6), (1, 3, 80), (2, 3, 6), (1e-6, 0.05, 1), (1, 6, 160), (0, 1)
    )
]


@pytest.mark.parametrize("own", [None, OWN])
def test_its_numbers_are_those_of_the_package(module, own):
    answers = module.evaluate(ROWS, [CONTROLS | settings | (own or {}) for settings in GRID])
    for settings, rows in zip(GRID, answers, strict=True):
        wanted, got = expected(**settings, own=own), numbers(rows)
        assert list(got) == list(wanted), settings
        for name, each in wanted.items():
            assert got[name] == pytest.approx(each, rel=1e-12), (settings, name)
            assert all(0 < number < math.inf for number in got[name])


def timed():
    """Yield what was timed on one thread: d, k, p or None, what the package counts, seconds."""
    for d, name, seconds, ratio, *_ in scale.load_result("bench-model")["values"]["rows"]:
        k = int(re.search(r"width (\d+)|$", name).group(1) or 6)
        if "sampled" in name:
            p = float(re.search(r"(\d+)%", name).group(1)) / 100
            yield d, k, cost.sampled_step(round(p * d * d), d, d, k, 3), seconds
        elif "core" in name:
            yield k, k, cost.core_step(k, 3), seconds
        else:
            yield d, k, cost.dense_step(d, d, k, 3), seconds
        yield d, d, cost.full_step(d, 3), seconds * ratio
    for row in scale.load_result("bench-step")["values"]["rows"]:
        d, n = row["d"], row["n"]
        if row["p"] < 0.1 and "ours, 1 thread" in row["minimum"]:
            yield d, 10, cost.sampled_step(n, d, d, 10, 3), row["minimum"]["ours, 1 thread"]
    for row in scale.load_result("bench-rows")["values"]["rows"]:
        d, n = row["d"], row["n"]
        yield d, 10, cost.sampled_step(n, d, d, 10, 3), row["minimum"]["one"]


def test_its_machine_predicts_the_recorded_times():
    """Of other scripts, on the same kind of machine: nothing of these is in the constants."""
    cases = list(timed())
    factors = [cost.seconds(work, machine(8, d, k)) / seconds for d, k, work, seconds in cases]
    assert max(d for d, *_ in cases) == 20_000 and len(cases) == 46
    assert all(0.5 < factor < 2 for factor in factors), factors


def test_what_the_text_says_of_it_is_so(module):
    """The numbers beside the figure and in its alternative text."""
    usual = found(module)
    original, dense, sampled, narrow, _ = usual.values()
    assert list(usual)[3] == "narrow, sampled" and narrow == sampled
    assert original[:3] == (3e6, 1.2e10, 88e6)
    assert dense[:3] == pytest.approx((12e3, 36e6, 24e6), rel=0.02)
    assert sampled[:3] == pytest.approx((12e3, 2e6, 2.8e6), rel=0.02)
    assert [row[3] for row in (original, dense, sampled)] == pytest.approx(
        [0.239, 2.6e-3, 0.8e-3], rel=0.01
    )
    assert original[3] / sampled[3] == pytest.approx(300, rel=0.03)
    assert original[2] / sampled[2] == pytest.approx(30, rel=0.1)
    spent = "(s) => lop.networks(s).rows.map(({ most, share }) => [most, share])"
    shares = module.evaluate(spent, CONTROLS)
    assert shares[0][0] == "products" and shares[0][1] > 0.95
    assert shares[2] == ["fetches", pytest.approx(0.75, abs=0.01)]

    more = found(module, p=0.2)
    assert more["compressed, dense"][3] < more["compressed, sampled"][3]
    assert more["compressed, dense"][1] / more["compressed, sampled"][1] == pytest.approx(
        5, abs=0.2
    )
    original, dense, sampled, *_ = found(module, p=1e-5, d=10**6).values()
    assert original[2:] == (88e12, pytest.approx(7 * 31_557_600, rel=0.05))
    assert dense[2] == pytest.approx(24e12, rel=0.001)
    assert sampled[2] < 1e9 and sampled[3] == pytest.approx(0.5, abs=0.1)
    tiny = module.evaluate(spent, CONTROLS | {"d": 20, "p": 1e-5})
    assert {most for most, _ in tiny} == {"calls"}


def test_numbers_are_written_with_prefixes_and_times_as_one_says_them(module):
    numbers = {0: "0", 108: "108", 999.6: "1 k", 12036: "12 k", 24_240_288: "24.2 M"}
    numbers |= {1.2e19: "12 E", 0.000804: "804 µ", math.inf: "∞"}
    seconds = {4.3e-5: "43 µs", 0.239: "239 ms", 59: "59 s", 90: "1.5 min", 7200: "2 h"}
    seconds |= {172800: "2 days", 7 * 31_557_600: "7 years", 1e300: "> 10⁶ years"}
    for function, said_as in (("si", numbers), ("duration", seconds)):
        written = module.evaluate(f"(all) => all.map((x) => lop.{function}(x))", list(said_as))
        assert written == list(said_as.values())


# --- Playing with it ------------------------------------------------------------------------------


def table(shown):
    cells = "(table) => [...table.rows].map((row) => [...row.cells].map((c) => c.textContent))"
    return shown.locator("table").evaluate(cells)


def test_it_says_what_a_step_costs_at_first(live):
    shown = live()
    for part in (
        "takes 239 ms and holds 88 MB, mostly for products",
        "compressed, sampled: 804 µs, 300 times less, mostly for fetches, with 2.79 MB",
        "width 6 takes as long as a compressed one",
    ):
        assert part in said(shown)


def test_the_table_has_the_numbers_of_the_picture(live):
    shown = live()
    head, *rows = table(shown)
    columns = "network,numbers trained,operations a step,memory,time of a step"
    assert head[:5] == columns.split(",")
    assert rows[0] == ["original", "3 M", "12 G", "88 MB", "239 ms", "products, 99 %"]
    names = "original|compressed, dense|compressed, sampled|narrow, sampled|core (if p = 1)"
    assert [row[0] for row in rows] == names.split("|")
    assert shown.locator("tbody th[scope=row]").count() == len(rows) == 5
    assert shown.locator("thead th[scope=col]").count() == len(head)
    assert "50 k entries" in shown.locator("caption").inner_text()
    # What the picture writes is what the table says, and of each network the same.
    written = [text for text, *_ in texts(shown, 350)[0]]
    drawn = {name: [] for name, *_ in rows}
    for name, number in itertools.pairwise(written):
        if name in drawn:
            drawn[name].append(number)
    assert drawn == {row[0]: row[1:5] for row in rows}


def test_typing_dragging_and_keys_change_it(live):
    shown = live()
    enter(shown, "width w", "12")
    assert "width 12 takes 1.3 times as long as a compressed" in said(shown)
    enter(shown, "width w", "2")
    assert "The narrow network of width 2 cannot reach rank 3" in said(shown)
    enter(shown, "share p", "1")
    assert "Quickest in its place is core alone: 43.2 µs" in said(shown)
    assert table(shown)[4][0] == "narrow, dense" and table(shown)[5][0] == "core alone"
    shown.get_by_role("combobox", name="numbers").select_option("32 bit")
    assert "holds 44 MB" in said(shown)
    field(shown, "width d, slider").press("End")
    assert field(shown, "width d").input_value() == "1000000" and "holds 44 TB" in said(shown)
    drag(shown, "width d", 0.99, 0.002)
    assert field(shown, "width d").input_value() == "16"
    assert "Nothing in its place is quicker" in said(shown)
    enter(shown, "rank r", "999")
    assert "2r = 160 is not below d = 16: there is nothing to compress" in said(shown)


def test_a_machine_of_ones_own_is_in_the_address(live):
    shown = live("d=100000&p=0.0001&r=20&overhead=0.5")
    assert "1 M entries are fewer than the 4 M numbers" in said(shown)
    assert table(shown)[5][4:] == ["20 s", "calls, 100 %"]


def test_on_a_phone_it_is_tapped_and_the_table_scrolls_in_itself(live):
    shown = live(phone=True)
    field(shown, "depth L, slider").tap()
    assert field(shown, "depth L").input_value() == "4" and "holds 112 MB" in said(shown)
    box = shown.get_by_role("region", name="Table of the costs")
    assert box.evaluate("(e) => e.scrollWidth > e.clientWidth")
    box.press("ArrowRight")
    shown.page.wait_for_function("(e) => e.scrollLeft > 0", arg=box.element_handle())


def test_a_change_takes_less_than_a_frame_of_work(live):
    """In real time: twenty changes, at the best of five times."""
    shown, took = live(), []
    for first in range(100, 600, 100):
        began = time.perf_counter()
        shown.evaluate(
            "(root, d) => { for (let i = 0; i < 20; i++) root.lopStage.set('d', d + i); }", first
        )
        took.append((time.perf_counter() - began) / 20)
    assert min(took) < 4e-3, took


def test_a_notebook_shows_it_for_its_own_machine():
    here = cost.calibrate(50, 4)
    figure = widgets.live("cost", d=500, **here._asdict()).figure
    assert (figure.d, figure.overhead, figure.fetch) == (500, here.overhead, here.fetch)
