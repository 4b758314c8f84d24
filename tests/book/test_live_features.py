"""Feature compression, live: its numbers and its picture agree with torch, and it can be played."""

import itertools
import math
import re

import pytest
import torch
from browser import VIEWS
from page_rules import ROOT

from lop_utils import descent, dln, losses, widgets
from lop_utils import features as measures

PAGE = "book/representations/rate.html"
CODE = widgets.module("features")
NAMES = ("Network", "plane", "gaussian", "orthonormalRows", "uniform", "readAddress", "MOST")
F64 = torch.float64
RUN = """([settings, A, G, steps]) => {
  const rows = (flat) => flat.map((row) => Float64Array.from(row));
  const network = new lop.Network(settings, rows(A));
  while (network.t < steps) network.advance();
  const layers = [...Array(settings.L).keys()];
  return {
    eta: network.eta, loss: network.loss, spectra: network.spectra().map((s) => [...s]),
    C: layers.map((l) => network.compression(l)),
    drawn: layers.map((l) => lop.plane(network, rows(G), l)),
  };
}"""
TRAIN = """([settings, seed]) => {
  const { K, n, L } = settings, random = lop.uniform(seed);
  const network = new lop.Network(settings, lop.orthonormalRows(lop.gaussian(K, K * n, random)));
  const G = lop.gaussian(2, K * n, random);
  while (!network.fitted && network.t < lop.MOST) network.advance();
  const layers = [...Array(L).keys()];
  return {
    t: network.t, fitted: network.fitted, loss: network.loss / network.first,
    C: layers.map((l) => network.compression(l)),
    drawn: layers.map((l) => lop.plane(network, G, l)),
  };
}"""
GRID = [  # K, n, L, eps
    (5, 10, 6, 0.5),
    (3, 4, 2, 0.05),
    (2, 12, 4, 0.3),
    (4, 5, 8, 0.8),
    (5, 2, 3, 0.1),
    (3, 15, 5, 0.4),
    (2, 2, 2, 0.8),
]


@pytest.fixture(scope="module")
def module(chromium):
    """Return a page in which the module's functions are at hand."""
    page = chromium.new_page()
    page.set_content("<!doctype html><title>x</title>")
    code = f"{CODE}\nglobalThis.lop = {{ controls, {', '.join(NAMES)} }};"
    page.add_script_tag(content=code, type="module")
    page.wait_for_function("() => globalThis.lop")
    yield page
    page.close()


def wide(K, n, L, eps, generator):
    """Return a network of width N, the rows A that its start gives the core, and the labels."""
    N = K * n
    Ws = dln.orthogonal_init((N,) * L + (K,), eps, generator=generator)
    return Ws, dln.end_to_end(Ws) / eps**L, torch.arange(K).repeat_interleave(n)


@pytest.fixture
def both(module, generator):
    """Return a function that trains a setting on both sides, from one start."""

    def both(K, n, L, eps, steps):
        Ws, A, y = wide(K, n, L, eps, generator)
        G = torch.randn(2, K * n, dtype=F64, generator=generator)
        settings = {"K": K, "n": n, "L": L, "eps": eps}
        found = module.evaluate(RUN, [settings, A.tolist(), G.tolist(), steps])
        residual = losses.matrix_residual(torch.eye(K, dtype=F64)[y].T)  # inputs: unit vectors
        *_, last = descent.gradient_descent(Ws, residual, eta=found["eta"], steps=steps)
        inputs = torch.eye(K * n, dtype=F64)
        features = dln.layer_outputs(last.Ws, inputs)[:L]  # from the inputs on
        # Up to rotation, layer l as seen from the inputs: its start undone.
        seen = [(dln.end_to_end(Ws[:l]) / eps**l).T @ Z if l else Z for l, Z in enumerate(features)]
        return found, last, features, seen, y, G

    return both


@pytest.mark.parametrize(("K", "n", "L", "eps"), GRID)
@pytest.mark.parametrize("steps", [1, 250])
def test_it_trains_as_torch_trains_the_wide_network(both, K, n, L, eps, steps):
    found, last, features, _, y, _ = both(K, n, L, eps, steps)
    rest = [eps] * (K * n - 2 * K)
    for l, (W, core) in enumerate(zip(last.Ws, found["spectra"], strict=True), 1):
        wanted = torch.linalg.svdvals(W)
        values = [*core, *rest] if l < L else core[:K]
        got = torch.tensor(values, dtype=F64).sort(descending=True).values
        assert (got - wanted).abs().max() <= 1e-9 * wanted[0]
        assert l < L or max(core[K:]) < 1e-100  # rows of zeros
    distance = (2 * last.loss.item()) ** 0.5
    assert abs((2 * found["loss"]) ** 0.5 - distance) <= 1e-9 * n**0.5
    C = measures.over_layers(measures.compression_metric, features, y)
    got = torch.tensor(found["C"], dtype=F64)
    assert (got / C - 1).abs().max() < 1e-9
    assert C[0].item() == pytest.approx((n - 1) * K / (K - 1))


@pytest.mark.parametrize(("K", "n", "L", "eps"), GRID)
def test_its_picture_is_that_of_the_features(both, K, n, L, eps):
    """Means on a plane of their span; deviations by one projection; C of the drawing is C."""
    found, _, _, seen, y, G = both(K, n, L, eps, 250)
    angle = 2 * torch.pi * torch.arange(K, dtype=F64) / K + (torch.pi / 2 if K > 2 else 0)
    corners = torch.stack([angle.cos(), angle.sin()][: 2 if K > 2 else 1], 1)
    for l, (drawn, Z) in enumerate(zip(found["drawn"], seen, strict=True)):
        points = torch.tensor(drawn["points"], dtype=F64).T
        means = measures.class_means(points, y)
        assert (means - torch.tensor(drawn["means"], dtype=F64).T).abs().max() < 1e-9
        assert means.square().sum() / K == pytest.approx(1, rel=1e-12)
        assert means.sum(1).abs().max() < 1e-12
        C = measures.compression_metric(points, y).item()
        assert pytest.approx(found["C"][l], rel=1e-9) == C
        real = measures.class_means(Z, y)
        real = real - real.mean(1, keepdim=True)
        basis = torch.linalg.qr(real @ corners).Q
        basis = basis * (basis * (real @ corners)).sum(0).sign()
        flat = basis.T @ real
        flat = flat / (flat.square().sum() / K).sqrt()
        assert (flat - means[: len(flat)]).abs().max() < 1e-9
        assert means[len(flat) :].abs().sum() < 1e-12
        away, wanted = points - means[:, y], G @ (Z - measures.class_means(Z, y)[:, y])
        away, wanted = away / away.norm(), wanted / wanted.norm()
        assert (away - wanted).norm() < 1e-9


def test_means_of_equal_distance_are_a_regular_polygon_and_a_start_is_random(module):
    for K in (2, 3, 4, 5):
        drawn = module.evaluate(TRAIN, [{"K": K, "n": 5, "L": 2, "eps": 0.3}, 1])["drawn"]
        means = torch.tensor(drawn[0]["means"], dtype=F64)
        sides = (means - means.roll(1, 0)).norm(dim=1)
        assert (sides - 2 * math.sin(math.pi / K)).abs().max() < 1e-9
    starts = """(n) => Array.from({ length: n }, (_, seed) =>
      lop.orthonormalRows(lop.gaussian(2, 5, lop.uniform(seed))).map((row) => [...row]))"""
    A = torch.tensor(module.evaluate(starts, 4000), dtype=F64)
    assert (A @ A.mT - torch.eye(2, dtype=F64)).abs().max() < 1e-14
    assert (A.mean(0)).abs().max() < 0.04 and (A.square().mean(0) - 1 / 5).abs().max() < 0.02


def test_no_setting_diverges_and_each_ends(module):
    bounds = {each["name"]: each for each in widgets.controls("features")}
    ends = [(bounds[name]["min"], bounds[name]["max"]) for name in ("K", "n", "L", "eps")]
    worst = 0
    for K, n, L, eps in itertools.product(*ends):
        start = module.evaluate("performance.now()")
        run = module.evaluate(TRAIN, [{"K": K, "n": n, "L": L, "eps": eps}, 3])
        worst = max(worst, module.evaluate("performance.now()") - start)
        assert run["loss"] < 1.01 and (run["fitted"] or run["t"] == 10_000)
        assert run["fitted"] == (eps > 0.1 or L == 2)
    assert worst < 12_000  # milliseconds; about 1500 where nothing else runs


def test_what_the_text_says_of_it_is_so(module):
    def trained(**change):
        settings = {"K": 5, "n": 10, "L": 6, "eps": 0.5, **change}
        return module.evaluate(TRAIN, [settings, 1])

    usual = trained()
    C = usual["C"]
    assert [round(C[0], 2), round(C[1], 1), round(C[2], 2)] == [11.25, 1.9, 0.31]
    assert C[5] == pytest.approx(0.0015, abs=5e-5)
    factors = [b / a for a, b in itertools.pairwise(C)]
    assert {round(factor, 2) for factor in factors} == {0.17}
    ideal = 0.5**2 / 10 ** (1 / 6)
    assert round(math.log(C[0]) / -math.log(ideal), 1) == 1.4
    assert [round(each**0.5, 2) for each in factors] == [0.41] * 5
    two, forty = trained(K=2)["C"], trained(n=40)["C"]
    assert two[0] == pytest.approx(18) and forty[0] == pytest.approx(48.75)
    assert forty[1] / forty[0] == pytest.approx(0.135, abs=2e-3)
    assert two[1] / two[0] == pytest.approx(factors[0], rel=0.01)
    for each in (C, two, forty):
        assert each[1] > 1 > each[2]
    quarter, tenth = trained(eps=0.25), trained(eps=0.1)
    assert quarter["fitted"] and quarter["C"][1] < 1 and 8 < quarter["t"] / usual["t"] < 9
    assert not tenth["fitted"] and tenth["t"] == 10_000
    away = []
    for drawn in (usual["drawn"][0], usual["drawn"][5]):
        means = torch.tensor(drawn["means"], dtype=F64).repeat_interleave(10, 0)
        part = torch.tensor(drawn["points"], dtype=F64) - means
        away.append(part / part.norm())
    assert (away[0] * away[1]).sum() > 0.9


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("", {"K": 5, "n": 10, "L": 6, "eps": 0.5, "layer": 2, "seed": 1}),
        ("#features:K=3&eps=0.2&layer=4", {"K": 3, "eps": 0.2, "layer": 4}),
        ("#features:n=1e9&K=-3&L=2.4&eps=NaN", {"n": 40, "K": 2, "L": 2, "eps": 0.5}),
        ("#features:eps=Infinity&layer=<b>&seed=", {"eps": 0.5, "layer": 2, "seed": 1}),
        ("#law:K=2", {"K": 5}),
    ],
)
def test_what_an_address_says_is_kept_within_bounds(module, address, wanted):
    read = "(hash) => lop.readAddress('features', lop.controls, hash)"
    settings = module.evaluate(read, address)
    assert {name: settings[name] for name in wanted} == wanted
    assert all(isinstance(value, int | float) for value in settings.values())


@pytest.fixture
def figure(served, chromium):
    """Return a function that opens the figure on its page; errors fail the test."""
    errors, contexts = [], []

    def figure(view="light", address="", wait="is shown", **options):
        context = chromium.new_context(**{**VIEWS[view], **options})
        contexts.append(context)
        opened = context.new_page()
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(f"{served}/{PAGE}{address}", wait_until="load")
        live = opened.locator("#live-features")
        if options.get("java_script_enabled", True):
            said(live, wait)
        return live

    yield figure
    for context in contexts:
        context.close()
    assert errors == []


def said(live, text):
    live.locator(".lop-live-status").filter(has_text=text).wait_for(timeout=20_000)
    return live.locator(".lop-live-status").inner_text()


def field(live, label):
    return live.get_by_label(label, exact=True)


def button(live, name):
    return live.get_by_role("button", name=name, exact=True)


def test_it_shows_the_rate_when_the_page_opens(figure):
    live = figure(wait="Trained for 272 steps")
    assert re.fullmatch(
        r"Trained for 272 steps, loss \S+ · 10⁻¹⁵: each layer multiplies C by 0\.167 to 0\.168; "
        r"ε²/n\^\(1/L\) is 0\.17\. Layer 2 is shown, C₂ = 0\.314\.",
        said(live, "Trained"),
    )
    label = live.locator("canvas").get_attribute("aria-label")
    assert label.startswith("The samples of 5 classes in layer 2")


def test_typing_dragging_and_keys_change_it(figure):
    live = figure(wait="Trained")
    field(live, "classes K").fill("2")
    field(live, "classes K").press("Enter")
    assert "multiplies C by" in said(live, "C₂ = 0.506")
    slider = field(live, "layer l, slider")
    slider.focus()
    live.page.keyboard.press("ArrowRight")
    said(live, "Layer 3 is shown")
    live.page.keyboard.press("Home")
    said(live, "Layer 0 is shown, C₀ = 18.")
    live.page.evaluate("() => MathJax.startup.promise")  # until then the page still moves
    slider.evaluate("(e) => e.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = slider.bounding_box()
    mouse = live.page.mouse
    mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2, steps=5)
    mouse.up()
    said(live, "Layer 5 is shown")  # the last whose features still vary: L - 1
    assert field(live, "layer l").input_value() == "5"
    field(live, "depth L").fill("3")
    field(live, "depth L").press("Enter")
    said(live, "Layer 2 is shown")
    assert field(live, "layer l").input_value() == "2"
    field(live, "start ε").fill("-7")
    field(live, "start ε").press("Enter")
    assert field(live, "start ε").input_value() == "0.05"


INK = """(live) => {
  const canvas = live.querySelector("canvas"), { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let sum = 0;
  for (let i = 3; i < data.length; i += 4) sum += data[i] * (i % 9973);
  return sum;
}"""


def test_it_travels_through_the_layers(figure):
    live = figure(wait="Trained", address="#features:L=3&layer=1")
    button(live, "Travel").click()
    assert button(live, "Stop").is_visible()
    assert field(live, "layer l").input_value() == "0"
    pictures = set()
    while button(live, "Stop").is_visible():
        pictures.add(live.evaluate(INK))
    assert len(pictures) > 5  # in two layers there are two: it goes on between them, too
    said(live, "Layer 2 is shown")
    assert button(live, "Travel").is_visible()
    button(live, "Travel").click()
    button(live, "Stop").click()
    assert button(live, "Travel").is_visible()
    said(live, "Layer 0 is shown")


def test_where_motion_is_unwanted_it_goes_from_layer_to_layer(figure):
    live = figure(wait="Trained for", address="#features:L=3", reduced_motion="reduce")
    button(live, "Travel").click()
    pictures = set()
    while button(live, "Stop").is_visible():
        pictures.add(live.evaluate(INK))
    assert len(pictures) <= 3
    said(live, "Layer 2 is shown")


def test_its_buttons(figure):
    live = figure(wait="Trained for 272")
    button(live, "Reset").click()
    first = said(live, "After 0 steps")
    assert "training has not finished, the loss is still 25" in first
    assert "each layer multiplies C by 1;" in first
    button(live, "Step").click()
    said(live, "After 1 step ")
    button(live, "Play").click()
    button(live, "Pause").click()
    assert 1 <= int(re.search(r"After (\d+) step", said(live, "After")).group(1)) < 272
    button(live, "Play").click()
    said(live, "Trained for 272 steps")
    button(live, "New start").click()
    live.locator(".lop-live-status").filter(has_not_text="for 272 steps, loss 2.2").wait_for()
    said(live, "Trained for")
    button(live, "Copy link").click()
    said(live, "The link is")
    address = live.page.evaluate("location.hash")
    assert address.startswith("#features:L=6&eps=0.5&n=10&K=5") and "seed=1&" not in f"{address}&"


def test_a_shared_link_opens_the_same_figure(figure):
    live = figure(wait="Trained", address="#features:L=2&eps=0.8&n=3&K=3&layer=7&seed=5")
    said(live, "Layer 1 is shown")
    values = [field(live, label).input_value() for label in ("depth L", "start ε", "classes K")]
    assert values == ["2", "0.8", "3"] and field(live, "layer l").input_value() == "1"


def test_training_that_does_not_end_is_called_so(figure):
    wait = "Still in training, at step"  # it says how far it is
    live = figure(wait=wait, address="#features:L=8&eps=0.05&K=5&n=10")
    said(live, "After 10000")
    assert "training has not finished, the loss is still 25, of 25 at the start" in said(live, "")


def test_on_a_phone_it_is_tapped_and_fits(figure):
    live = figure(view="phone", wait="Trained", has_touch=True)
    button(live, "Reset").tap()
    said(live, "After 0 steps")
    assert live.page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def test_without_scripts_a_picture_stands_there(figure):
    live = figure(java_script_enabled=False)
    assert live.locator("img").is_visible()
    assert live.locator("img").evaluate("(image) => image.naturalWidth") > 0
    drawn = (ROOT / "book" / "_figures" / "features.svg").read_text(encoding="utf-8")
    assert "layer 2: C₂ = 0.314" in drawn


@pytest.mark.parametrize("view", ["light", "dark"])
def test_classes_differ_in_colour_and_in_shape(figure, view):
    """Each class is drawn in a colour of its own, by a path of its own kind."""
    live = figure(view=view, wait="Trained")
    drawn = live.evaluate(
        """(root) => {
          const seen = new Map(), stage = root.lopStage;
          const ways = ["moveTo", "lineTo", "arc", "rect", "closePath"];
          let path = "";
          const pen = new Proxy({}, { get: (target, name) => target[name] ?? ((...args) => {
            if (name === "beginPath") path = "";
            if (ways.includes(name)) path += name[0];
            if (name === "fill" && path.length > 9) seen.set(target.fillStyle, path.slice(0, 4));
          }) });
          stage.drawWith(pen, 720, stage.heightAt(720));
          return [...seen];
        }"""
    )
    assert {shape for _, shape in drawn} == {"mama", "rrrr", "mllc", "mlml", "mlll"}
    assert len({colour for colour, _ in drawn}) == 6  # five classes, and the ink of C_l


TEXTS = """([root, width]) => {
  const stage = root.lopStage, canvas = document.createElement("canvas"), boxes = [];
  const real = canvas.getContext("2d"), height = stage.heightAt(width);
  const pen = new Proxy({}, { get: (target, name) => target[name] ?? ((text, x, y) => {
    if (name !== "fillText") return;
    real.font = target.font;
    const wide = real.measureText(text).width;
    const left = x - { right: wide, center: wide / 2 }[target.textAlign] || x;
    boxes.push({ text, left, right: left + wide, top: y - 10, bottom: y + 3 });
  }) });
  stage.drawWith(pen, width, height);
  return [boxes, height];
}"""


@pytest.mark.parametrize("width", [342, 350, 623, 900])
@pytest.mark.parametrize(
    "settings", ["L=8&K=5&n=40&layer=0", "L=2&K=2&n=2&eps=0.05&layer=1", "n=40"]
)
def test_no_text_is_clipped_or_covers_another(figure, width, settings):
    live = figure(wait="Layer", address=f"#features:{settings}")
    boxes, height = live.page.evaluate(TEXTS, [live.element_handle(), width])
    assert len(boxes) > 12
    for box in boxes:
        assert -0.5 <= box["left"] and box["right"] <= width + 0.5, box
        assert 0 <= box["top"] and box["bottom"] <= height, box
    for one, other in itertools.combinations(boxes, 2):
        beside = one["right"] <= other["left"] or other["right"] <= one["left"]
        below = one["bottom"] <= other["top"] or other["bottom"] <= one["top"]
        assert beside or below, (one, other)
