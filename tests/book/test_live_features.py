"""Feature compression, live: its numbers and its picture agree with torch, and it can be played."""

import itertools
import math
import re
from functools import partial

import pytest
import torch
from figure_page import button, drag, enter, field, frames, said, setting

from lop_utils import descent, init, losses, networks
from lop_utils import features as measures
from lop_utils.book import live as widgets

F64 = torch.float64
MOST = 10_000
RUN = """([settings, A, G, stops]) => {
  const rows = (flat) => flat.map((row) => Float64Array.from(row));
  const network = new lop.Network(settings, rows(A)), layers = [...Array(settings.L).keys()];
  return [network.eta, stops.map((steps) => {
    while (network.t < steps) network.advance();
    return {
      loss: network.loss, spectra: network.spectra().map((s) => [...s]),
      C: layers.map((l) => network.compression(l)),
      drawn: layers.map((l) => lop.plane(network, rows(G), l)),
    };
  })];
}"""
TRAIN = """([settings, seed, most]) => {
  const { K, n, L } = settings, random = lop.uniform(seed), layers = [...Array(L).keys()];
  const network = new lop.Network(settings, lop.orthonormalRows(lop.gaussian(K, K * n, random)));
  const G = lop.gaussian(2, K * n, random);
  while (!network.fitted && network.t < most) network.advance();
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
def module(modules):
    return modules("features")


@pytest.fixture
def features(figure):
    return partial(figure, "features")


def train(module, seed=1, **settings):
    """Return what the figure's network comes to."""
    return module.evaluate(TRAIN, [{"K": 5, "n": 10, "L": 6, "eps": 0.5, **settings}, seed, MOST])


@pytest.mark.parametrize(("K", "n", "L", "eps"), GRID)
def test_it_trains_as_torch_trains_the_wide_network(module, generator, K, n, L, eps):
    """The whole network of width N = K n on torch's side, from one start; and the picture of it."""
    N, stops = K * n, [1, 250]
    Ws = init.orthogonal((N,) * L + (K,), eps, generator=generator)
    A, y = networks.end_to_end(Ws) / eps**L, torch.arange(K).repeat_interleave(n)
    G = torch.randn(2, N, dtype=F64, generator=generator)
    settings = {"K": K, "n": n, "L": L, "eps": eps}
    eta, found = module.evaluate(RUN, [settings, A.tolist(), G.tolist(), stops])
    loss = losses.squared_error(torch.eye(K, dtype=F64)[y].T)  # inputs: unit vectors
    states = descent.train(Ws, loss, eta=eta, steps=stops[-1])
    wanted = [state for t, state in enumerate(states) if t in stops]
    rest = [eps] * (N - 2 * K)
    for state, got in zip(wanted, found, strict=True):
        for l, (W, core) in enumerate(zip(state.Ws, got["spectra"], strict=True), 1):
            values = [*core, *rest] if l < L else core[:K]
            values = torch.tensor(values, dtype=F64).sort(descending=True).values
            real = torch.linalg.svdvals(W)
            assert (values - real).abs().max() <= 1e-9 * real[0]
            assert l < L or max(core[K:]) < 1e-100  # rows of zeros
        distance = (2 * state.loss.item()) ** 0.5
        assert abs((2 * got["loss"]) ** 0.5 - distance) <= 1e-9 * n**0.5
        Z = networks.forward(state.Ws, torch.eye(N, dtype=F64))[:L]  # from the inputs on
        C = measures.layerwise(measures.compression_metric, Z, y)
        assert (torch.tensor(got["C"], dtype=F64) / C - 1).abs().max() < 1e-9
        assert C[0].item() == pytest.approx((n - 1) * K / (K - 1))
    # Up to rotation, layer l as seen from the inputs: its start undone.
    seen = [(networks.end_to_end(Ws[:l]) / eps**l).T @ Z[l] if l else Z[0] for l in range(L)]
    for drawn, real, value in zip(got["drawn"], seen, got["C"], strict=True):
        assert_is_drawn(drawn, real, value, y, G)


def assert_is_drawn(drawn, Z, C, y, G):
    """Means on a plane of their span; deviations by one projection; C of the drawing is C."""
    K = int(y.max()) + 1
    angle = 2 * torch.pi * torch.arange(K, dtype=F64) / K + (torch.pi / 2 if K > 2 else 0)
    corners = torch.stack([angle.cos(), angle.sin()][: 2 if K > 2 else 1], 1)
    points = torch.tensor(drawn["points"], dtype=F64).T
    means = measures.class_means(points, y)
    assert (means - torch.tensor(drawn["means"], dtype=F64).T).abs().max() < 1e-9
    assert means.square().sum() / K == pytest.approx(1, rel=1e-12)
    assert means.sum(1).abs().max() < 1e-12
    assert pytest.approx(C, rel=1e-9) == measures.compression_metric(points, y).item()
    real = measures.class_means(Z, y)
    real = real - real.mean(1, keepdim=True)
    basis = torch.linalg.qr(real @ corners).Q
    basis = basis * (basis * (real @ corners)).sum(0).sign()
    flat = basis.T @ real
    flat = flat / (flat.square().sum() / K).sqrt()
    assert (flat - means[: len(flat)]).abs().max() < 1e-9
    assert means[len(flat) :].abs().sum() < 1e-12
    away, wanted = points - means[:, y], G @ (Z - measures.class_means(Z, y)[:, y])
    assert (away / away.norm() - wanted / wanted.norm()).norm() < 1e-9


def test_means_of_equal_distance_are_a_regular_polygon_and_a_start_is_random(module):
    for K in (2, 3, 4, 5):
        means = torch.tensor(train(module, K=K, n=5, L=2, eps=0.3)["drawn"][0]["means"], dtype=F64)
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
    for K, n, L, eps in itertools.product(*ends):
        ended = train(module, 3, K=K, n=n, L=L, eps=eps)
        assert ended["loss"] < 1.01 and (ended["fitted"] or ended["t"] == MOST)
        assert ended["fitted"] == (eps > 0.1 or L == 2)


def test_what_the_text_says_of_it_is_so(module):
    usual = train(module)
    C = usual["C"]
    assert [round(C[0], 2), round(C[1], 1), round(C[2], 2)] == [11.25, 1.9, 0.31]
    assert C[5] == pytest.approx(0.0015, abs=5e-5)
    factors = [b / a for a, b in itertools.pairwise(C)]
    assert {round(factor, 2) for factor in factors} == {0.17}
    ideal = 0.5**2 / 10 ** (1 / 6)
    assert round(math.log(C[0]) / -math.log(ideal), 1) == 1.4
    assert [round(each**0.5, 2) for each in factors] == [0.41] * 5
    two, forty = train(module, K=2)["C"], train(module, n=40)["C"]
    assert two[0] == pytest.approx(18) and forty[0] == pytest.approx(48.75)
    assert forty[1] / forty[0] == pytest.approx(0.135, abs=2e-3)
    assert two[1] / two[0] == pytest.approx(factors[0], rel=0.01)
    for each in (C, two, forty):
        assert each[1] > 1 > each[2]
    quarter, tenth = train(module, eps=0.25), train(module, eps=0.1)
    assert quarter["fitted"] and quarter["C"][1] < 1 and 8 < quarter["t"] / usual["t"] < 9
    assert not tenth["fitted"] and tenth["t"] == MOST
    away = []
    for drawn in (usual["drawn"][0], usual["drawn"][5]):
        means = torch.tensor(drawn["means"], dtype=F64).repeat_interleave(10, 0)
        part = torch.tensor(drawn["points"], dtype=F64) - means
        away.append(part / part.norm())
    assert (away[0] * away[1]).sum() > 0.9


# --- Playing with it ------------------------------------------------------------------------------


def test_it_shows_the_rate_at_first(features):
    live = features()
    assert re.fullmatch(
        r"Trained for 272 steps, loss \S+ · 10⁻¹⁵: each layer multiplies C by 0\.167 to 0\.168; "
        r"ε²/n\^\(1/L\) is 0\.17\. Layer 2 is shown, C₂ = 0\.314\.",
        said(live),
    )
    label = live.locator("canvas").get_attribute("aria-label")
    assert label.startswith("The samples of 5 classes in layer 2")
    assert "layer 2: C₂ = 0.314" in widgets.still("features")
    button(live, "Reset").click()
    assert "training has not finished, the loss is still 25" in said(live)
    assert "each layer multiplies C by 1;" in said(live)


def test_typing_dragging_and_keys_change_it(features):
    live = features()
    enter(live, "classes K", "2")
    assert "C₂ = 0.506" in said(live)
    slider = field(live, "layer l, slider")
    slider.press("ArrowRight")
    assert "Layer 3 is shown" in said(live)
    slider.press("Home")
    assert "Layer 0 is shown, C₀ = 18." in said(live)
    drag(live, "layer l", 0.03, 0.99)
    # the last whose features still vary: L - 1
    assert "Layer 5 is shown" in said(live) and field(live, "layer l").input_value() == "5"
    enter(live, "depth L", "3")
    assert "Layer 2 is shown" in said(live) and field(live, "layer l").input_value() == "2"


INK = """(canvas) => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let sum = 0;
  for (let i = 3; i < data.length; i += 4) sum += data[i] * (i % 9973);
  return sum;
}"""


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_it_travels_through_the_layers(features, motion):
    live = features("L=3&layer=1", motion=motion)
    live.page.wait_for_function("() => document.querySelector('canvas').style.height")
    button(live, "Travel").click()
    frames(live, 1)
    assert setting(live, "layer") == 0
    pictures = set()
    for _ in range(30):
        pictures.add(live.locator("canvas").evaluate(INK))
        if button(live, "Travel").is_visible():
            break
        frames(live, 4)
    assert "Layer 2 is shown" in said(live) and button(live, "Travel").is_visible()
    # in three layers there are three; where motion is wanted it goes on between them, too
    assert len(pictures) == 3 if motion == "reduce" else len(pictures) > 9
    button(live, "Travel").click()
    button(live, "Stop").click()
    assert button(live, "Travel").is_visible() and "is shown" in said(live)


def test_training_that_does_not_end_is_called_so(features):
    live = features("L=8&eps=0.05&K=5&n=10")
    assert said(live).startswith(
        "After 10000 steps training has not finished, the loss is still 25, of 25 at the start"
    )


def test_a_layer_beyond_the_last_is_the_last(features):
    live = features("L=2&eps=0.8&n=3&K=3&layer=7&seed=5")
    assert "Layer 1 is shown" in said(live) and field(live, "layer l").input_value() == "1"


DRAWN = """(root) => {
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


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_classes_differ_in_colour_and_in_shape(features, theme):
    """Each class is drawn in a colour of its own, by a path of its own kind."""
    drawn = features(theme=theme).evaluate(DRAWN)
    assert {shape for _, shape in drawn} == {"mama", "rrrr", "mllc", "mlml", "mlll"}
    assert len({colour for colour, _ in drawn}) == 6  # five classes, and the ink of C_l
