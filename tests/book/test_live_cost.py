"""The live figure of costs: its numbers are lop_utils.cost's, and a reader can play with them."""

import itertools
import math
import re

import pytest
from browser import VIEWS

from lop_utils import cost, footprint, scale, widgets

CODE = widgets.module("cost")
PAGE = "book/compression/at-scale.html"
RECORD = scale.recorded("bench-machine")["values"]
NAMES = ["networks", "machineAt", "between", "si", "duration", "readAddress", "clamp", "MACHINE"]
CONTROLS = {each["name"]: each["value"] for each in widgets.controls("cost")}
OWN = {"overhead": 1e-6, "rate": 1e10, "bandwidth": 1e9, "thin": 1e9, "fetch": 1e-8}


@pytest.fixture(scope="module")
def module(chromium):
    """Return a page in which the module's functions are at hand."""
    page = chromium.new_page()
    page.set_content("<!doctype html><title>x</title>")
    code = f"{CODE}\nglobalThis.lop = {{ {', '.join(NAMES)}, controls }};"
    page.add_script_tag(content=code, type="module")
    page.wait_for_function("() => globalThis.lop")
    yield page
    page.close()


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
        memory = footprint.dense(d, d, k, L, size=size)
        return footprint.parameters(d, d, k, L), work.thin, memory, cost.seconds(work, at(d, k))

    def sampled(k):
        work = cost.sampled_step(n, d, d, k, L, size=size)
        memory, operations = footprint.sampled(n, d, d, k, L, size=size), work.thin + 6 * n * k
        return footprint.parameters(d, d, k, L), operations, memory, cost.seconds(work, at(d, k))

    def square(k):
        work = cost.full_step(k, L, size=size)
        memory = footprint.full(k, L, size=size)
        return footprint.parameters(k, k, k, L), work.flops, memory, cost.seconds(work, at(k, k))

    narrow = {"narrow, dense": dense(w), "narrow, sampled": sampled(w)}
    quicker = min(narrow, key=lambda name: narrow[name][-1])
    return {
        "original": square(d),
        "compressed, dense": dense(k),
        "compressed, sampled": sampled(k),
        quicker: narrow[quicker],
        "core alone": square(k),
    }


def found(module, **settings):
    rows = module.evaluate("(settings) => lop.networks(settings).rows", CONTROLS | settings)
    keys = ("parameters", "operations", "memory", "seconds")
    return {row["name"]: tuple(row[key] for key in keys) for row in rows}


GRID = list(
    itertools.product(
        (16, 333, 1000, 10**6), (1, 3, 80), (2, 3, 6), (1e-6, 0.05, 1), (1, 6, 160), (0, 1)
    )
)


@pytest.mark.parametrize("own", [None, OWN])
def test_its_numbers_are_those_of_the_package(module, own):
    names = ("d", "r", "L", "p", "w", "bits")
    for values in GRID:
        settings = dict(zip(names, values, strict=True))
        wanted = expected(**settings, own=own)
        got = found(module, **settings, **(own or {}))
        assert list(got) == list(wanted), settings
        for name, numbers in wanted.items():
            assert got[name] == pytest.approx(numbers, rel=1e-12), (settings, name)


def test_its_machine_is_the_recorded_one(module):
    values = {name: RECORD[name] for name in ("sides", "rows", "widths", "constants")}
    assert module.evaluate("() => lop.MACHINE") == values


def timed():
    """Yield what was timed on one thread: d, k, p or None, what the package counts, seconds."""
    for d, name, seconds, ratio, *_ in scale.recorded("bench-model")["values"]["rows"]:
        k = int(re.search(r"width (\d+)|$", name).group(1) or 6)
        if "sampled" in name:
            p = float(re.search(r"(\d+)%", name).group(1)) / 100
            yield d, k, cost.sampled_step(round(p * d * d), d, d, k, 3), seconds
        elif "core" in name:
            yield k, k, cost.core_step(k, 3), seconds
        else:
            yield d, k, cost.dense_step(d, d, k, 3), seconds
        yield d, d, cost.full_step(d, 3), seconds * ratio
    for row in scale.recorded("bench-step")["values"]["rows"]:
        d, n = row["d"], row["n"]
        if row["p"] < 0.1 and "ours, 1 thread" in row["minimum"]:
            yield d, 10, cost.sampled_step(n, d, d, 10, 3), row["minimum"]["ours, 1 thread"]
    for row in scale.recorded("bench-rows")["values"]["rows"]:
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


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (108, "108"),
        (999.6, "1 k"),
        (12036, "12 k"),
        (24_240_288, "24.2 M"),
        (1.2e19, "12 E"),
        (0.000804, "804 µ"),
        (float("inf"), "∞"),
    ],
)
def test_numbers_are_written_with_prefixes(module, number, text):
    assert module.evaluate("(x) => lop.si(x)", number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.3e-5, "43 µs"),
        (0.239, "239 ms"),
        (59, "59 s"),
        (90, "1.5 min"),
        (7200, "2 h"),
        (172800, "2 days"),
        (7 * 31_557_600, "7 years"),
        (1e300, "> 10⁶ years"),
    ],
)
def test_times_are_written_as_one_says_them(module, seconds, text):
    assert module.evaluate("(x) => lop.duration(x)", seconds) == text


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("", CONTROLS),
        ("#cost:d=50&r=2&p=0.2&bits=1", {"d": 50, "r": 2, "p": 0.2, "bits": 1}),
        ("#cost:d=1e99&r=-3&L=2.4&p=0&w=1e9", {"d": 10**6, "r": 1, "L": 2, "p": 1e-6, "w": 160}),
        ("#cost:p=NaN&bits=7&rate=-1&fetch=<b>", {"p": 0.05, "bits": 1, "rate": 0, "fetch": 0}),
        ("#other:d=50", {"d": 1000}),
    ],
)
def test_what_an_address_says_is_kept_within_bounds(module, address, wanted):
    read = "(hash) => lop.readAddress('cost', lop.controls, hash)"
    settings = module.evaluate(read, address)
    assert {name: settings[name] for name in wanted} == wanted
    rows = module.evaluate("(settings) => lop.networks(settings).rows", settings)
    keys = ("parameters", "operations", "memory", "seconds")
    assert all(0 < row[key] < float("inf") for row in rows for key in keys)


@pytest.fixture
def figure(served, chromium):
    """Return a function that opens the figure on its page; errors fail the test."""
    errors, contexts = [], []

    def figure(view="light", address="", **options):
        context = chromium.new_context(**{**VIEWS[view], **options})
        contexts.append(context)
        opened = context.new_page()
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(f"{served}/{PAGE}{address}", wait_until="load")
        live = opened.locator("#live-cost")
        if options.get("java_script_enabled", True):
            says(live, "A step of the original takes")
        return live

    yield figure
    for context in contexts:
        context.close()
    assert errors == []


def says(live, text):
    live.locator(".lop-live-status").filter(has_text=text).wait_for(timeout=20_000)
    return live.locator(".lop-live-status").inner_text()


def enter(live, label, text):
    live.get_by_label(label, exact=True).fill(text)
    live.get_by_label(label, exact=True).press("Enter")


def at_rest(control):
    """Return where a control is, once the page above it has stopped moving."""
    before, box = None, control.bounding_box()
    while box != before:
        control.page.wait_for_timeout(200)
        before, box = box, control.bounding_box()
    return box


def table(live):
    cells = "(table) => [...table.rows].map((row) => [...row.cells].map((c) => c.textContent))"
    return live.locator("table").evaluate(cells)


def test_it_says_what_a_step_costs_when_the_page_opens(figure):
    live = figure()
    said = says(live, "original")
    assert "takes 239 ms and holds 88 MB, mostly for products" in said
    assert "compressed, sampled: 804 µs, 300 times less, mostly for fetches, with 2.79 MB" in said
    assert "width 6 takes as long as a compressed one" in said
    described = live.locator("canvas").get_attribute("aria-describedby")
    assert live.page.locator(f"#{described}").inner_text() == said


def test_the_table_has_the_numbers_of_the_picture(figure):
    live = figure()
    head, *rows = table(live)
    assert head[:5] == [
        "network",
        *"numbers trained,operations a step,memory,time of a step".split(","),
    ]
    assert rows[0] == ["original", "3 M", "12 G", "88 MB", "239 ms", "products, 99 %"]
    assert [row[0] for row in rows] == [
        "original",
        "compressed, dense",
        "compressed, sampled",
        "narrow, sampled",
        "core (if p = 1)",
    ]
    assert live.locator("tbody th[scope=row]").count() == len(rows) == 5
    assert live.locator("thead th[scope=col]").count() == len(head)
    assert "50 k entries" in live.locator("caption").inner_text()
    # What the picture writes is what the table says, and of each network the same.
    texts = live.evaluate(
        """(root) => {
          const texts = [], nothing = () => {};
          const pen = new Proxy({}, { get: (_, name) =>
            (name === "fillText" ? (text) => texts.push(text) : nothing), set: () => true });
          root.lopStage.drawWith(pen, 350, root.lopStage.heightAt(350));
          return texts;
        }"""
    )
    drawn = {name: [] for name, *_ in rows}
    for name, number in itertools.pairwise(texts):
        if name in drawn:
            drawn[name].append(number)
    assert drawn == {row[0]: row[1:5] for row in rows}


def test_typing_dragging_and_keys_change_it(figure):
    live = figure()
    enter(live, "width w", "12")
    assert "width 12 takes 1.3 times as long as a compressed" in says(live, "width 12")
    enter(live, "width w", "2")
    says(live, "The narrow network of width 2 cannot reach rank 3")
    enter(live, "share p", "1")
    assert "Quickest in its place is core alone: 43.2 µs" in says(live, "core alone")
    assert table(live)[4][0] == "narrow, dense" and table(live)[5][0] == "core alone"
    live.get_by_role("combobox", name="numbers").select_option("32 bit")
    says(live, "holds 44 MB")
    slider = live.get_by_label("width d, slider", exact=True)
    slider.focus()
    live.page.keyboard.press("End")
    assert live.get_by_label("width d", exact=True).input_value() == "1000000"
    says(live, "holds 44 TB")
    slider.evaluate("(e) => e.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box, mouse = at_rest(slider), live.page.mouse
    mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + 1, box["y"] + box["height"] / 2, steps=5)
    mouse.up()
    assert live.get_by_label("width d", exact=True).input_value() == "16"
    says(live, "Nothing in its place is quicker")
    enter(live, "rank r", "999")
    says(live, "2r = 160 is not below d = 16: there is nothing to compress")


def test_a_shared_link_opens_the_same_figure(figure):
    live = figure(address="#cost:d=100000&p=0.0001&r=20&overhead=0.5")
    assert "takes 55.1 h" not in (said := says(live, "original"))
    assert "1 M entries are fewer than the 4 M numbers" in said
    assert live.get_by_label("width d", exact=True).input_value() == "100000"
    assert table(live)[5][4] == "20 s" and table(live)[5][5] == "calls, 100 %"
    live.get_by_role("button", name="Copy link").click()
    says(live, "The link is")
    address = live.page.evaluate("location.hash")
    assert address.startswith("#cost:d=100000&r=20&L=3&p=0.0001") and "overhead=0.5" in address


def test_on_a_phone_it_is_tapped_and_the_table_scrolls_in_itself(figure):
    live = figure("phone", has_touch=True)
    live.get_by_label("depth L, slider", exact=True).tap()
    assert int(live.get_by_label("depth L", exact=True).input_value()) == 4
    assert "holds 112 MB" in says(live, "original")
    inside = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert live.page.evaluate(inside)
    box = live.get_by_role("region", name="Table of the costs")
    assert box.evaluate("(e) => e.scrollWidth > e.clientWidth")
    box.focus()
    live.page.keyboard.press("ArrowRight")
    live.page.wait_for_function("(e) => e.scrollLeft > 0", arg=box.element_handle())


@pytest.mark.parametrize("view", ["light", "phone"])
def test_nothing_is_clipped(figure, view):
    """No text of the picture leaves it, and none stands on another, at the widest numbers too."""
    for address in ("", "#cost:d=1000000&p=1&r=80&L=6", "#cost:d=16&r=80", "#cost:p=1"):
        live = figure(view, address=address)
        boxes = live.evaluate(
            """(root) => {
              const stage = root.lopStage, canvas = stage.canvas, measure = canvas.getContext("2d");
              const width = canvas.clientWidth, boxes = [], nothing = () => {};
              const pen = { textAlign: "start", beginPath: nothing, fillRect: nothing,
                fillText(text, x, y) {
                  measure.font = pen.font;
                  const wide = measure.measureText(text).width;
                  const left = x - wide * { start: 0, center: 0.5, right: 1 }[pen.textAlign];
                  boxes.push([text, left, left + wide, y]);
                } };
              stage.drawWith(pen, width, stage.heightAt(width));
              return [width, stage.heightAt(width), boxes];
            }"""
        )
        width, height, texts = boxes
        assert len(texts) > 36
        for text, left, right, y in texts:
            assert left >= 0 and right <= width and 10 < y < height - 2, (address, text)
        for (a, left_a, right_a, y_a), (b, left_b, right_b, y_b) in itertools.combinations(
            texts, 2
        ):
            apart = abs(y_a - y_b) >= 14 or right_a < left_b or right_b < left_a
            assert apart, (address, a, b)


def test_where_motion_is_unwanted_it_is_complete(figure):
    says(figure(reduced_motion="reduce"), "239 ms")


def test_a_change_takes_less_than_a_frame_of_work(figure):
    took = figure().evaluate(
        """(root) => {
          const took = [];
          for (let i = 0; i < 60; i++) {
            const began = performance.now();
            root.lopStage.set("d", 100 + 7 * i);
            took.push(performance.now() - began);
          }
          return took.sort((a, b) => a - b)[30];
        }"""
    )
    assert took < 4


def test_without_scripts_a_picture_stands_there(figure):
    live = figure(java_script_enabled=False)
    assert live.locator("img").is_visible()
    assert live.locator("img").evaluate("(image) => image.naturalWidth") > 0


def test_a_notebook_shows_it_for_its_own_machine():
    here = cost.calibrate(50, 4)
    figure = widgets.live("cost", d=500, **here._asdict()).figure
    assert (figure.d, figure.overhead, figure.fetch) == (500, here.overhead, here.fetch)
