"""The live figure of label noise: by the same draws torch comes to the same; it can be played."""

from functools import partial

import pytest
import torch
from figure_page import button, enter, field, said

from lop_utils import descent, losses
from lop_utils.book.noise import DeterminantLaw, log_det

F64 = torch.float64
USUAL = {"d": 10, "eta": 0.005, "delta": 2, "batch": 1, "seed": 1}
# Its data and start, what it draws at each step, and what it comes to at some.
RUN = """([settings, stops]) => {
  const network = new lop.Network(settings), { X, Phi, W1, W2 } = network, draws = [];
  const first = [X, Phi, W1, W2].map((each) => [...each]);
  return [first, stops.map((steps) => {
    while (network.t < steps) {
      network.advance();
      draws.push([[...network.order.slice(0, settings.batch)], [...network.noise]]);
    }
    return [network.logDet, [...network.singular()], network.loss];
  }), draws];
}"""
LONG = """([settings, steps]) => {
  const network = new lop.Network(settings);
  const at = (t) => { while (network.t < t) network.advance(); return network.logDet; };
  return [at(steps / 2), at(steps), network.slope, [...network.singular()], network.loss];
}"""
NOISES = """([settings, draws]) => {
  const network = new lop.Network(settings);
  network.choose();
  return [[...network.gram], Array.from({ length: draws }, () => {
    network.disturb();
    return [...network.noise];
  })];
}"""


@pytest.fixture(scope="module")
def module(modules):
    return modules("noise")


@pytest.fixture
def noise(figure):
    return partial(figure, "noise")


def long(module, steps, **change):
    found = module.evaluate(LONG, [USUAL | change, steps])
    return dict(zip(("half", "whole", "slope", "values", "loss"), found, strict=True))


def replayed(X, Y, draws, delta):
    """Return a loss whose batches and label noise are those that the page has drawn."""
    steps = iter(draws)

    def loss(Ws):
        try:
            chosen, noise = next(steps)
        except StopIteration:  # the trainer looks once more than it steps
            chosen, noise = draws[-1]
        some = X[:, chosen]
        # Noise on the labels of which the gradient sees just that: xi some^T = noise.
        noise = torch.tensor(noise, dtype=F64).reshape(len(Y), -1)
        xi = torch.linalg.lstsq(some, noise.T, driver="gelsd").solution.T
        value, grads = losses.least_squares(some, Y[:, chosen] + delta * xi)(Ws)
        return value / len(chosen), [G / len(chosen) for G in grads]

    return loss


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ({}, 2000),
        ({"d": 7, "batch": 4, "delta": 4, "eta": 0.01}, 1000),
        ({"d": 50, "batch": 6, "delta": 1, "seed": 3}, 1000),
        ({"batch": 300, "eta": 0.02}, 100),
        ({"batch": 1000, "eta": 0.02}, 100),
        ({"batch": 1000, "delta": 0}, 100),
        ({"batch": 2, "delta": 0, "eta": 0.0005, "d": 30}, 2000),
    ],
)
def test_it_trains_as_torch_does_on_the_same_draws(module, change, steps):
    settings, stops = USUAL | change, [1, steps // 2, steps]
    first, found, draws = module.evaluate(RUN, [settings, stops])
    widths = [(1000, 5), (2, 5), (settings["d"], 5), (2, settings["d"])]
    X, Phi, *Ws = (
        torch.tensor(flat, dtype=F64).reshape(shape)
        for flat, shape in zip(first, widths, strict=True)
    )
    X = X.T
    for chosen, _ in draws:
        assert len(set(chosen)) == settings["batch"]
    law = DeterminantLaw(replayed(X, Phi @ X, draws, settings["delta"]), eta=settings["eta"])
    states = descent.train(Ws, law, eta=settings["eta"], steps=steps)
    start, wanted = log_det(Ws), iter(zip(stops, found, strict=True))
    stop, (total, values, loss) = next(wanted)
    for state in states:
        if state.t != stop:
            continue
        scale = max(1, abs(total))
        assert abs(law.predicted.item() - total) <= 1e-10 * scale
        assert abs((log_det(state.Ws) - start).item() - total) <= 1e-10 * scale
        known = torch.linalg.svdvals(state.Ws[0])
        assert (torch.tensor(values, dtype=F64) - known).abs().max() <= 1e-9 * known[0]
        clean = (Phi - state.Ws[1] @ state.Ws[0]) @ X
        assert loss == pytest.approx(clean.square().sum().item() / 2000, rel=1e-9)
        stop, (total, values, loss) = next(wanted, (None, (0, 0, 0)))
    assert stop is None


@pytest.mark.parametrize("batch", [3, 40])
def test_the_noise_has_the_covariance_of_its_batch(module, batch):
    """As the labels' noise would give it: two labels alike and independent of each other."""
    draws = 20_000
    gram, found = module.evaluate(NOISES, [USUAL | {"batch": batch}, draws])
    gram = torch.tensor(gram, dtype=F64).reshape(5, 5)
    found = torch.tensor(found, dtype=F64)
    wanted = torch.block_diag(gram, gram)
    error = 6 * gram.trace() / draws**0.5
    assert (found.T @ found / draws - wanted).abs().max() < error
    assert found.mean(0).abs().max() < 6 * (gram.trace() / draws) ** 0.5


def test_the_slope_is_that_of_the_theory_and_the_gap_shrinks_with_the_step(module):
    gaps = {}
    for eta in (0.01, 0.005, 0.002):
        steps = 2 * round(0.25 / eta**2)
        ran = long(module, steps, eta=eta)
        gaps[eta] = (ran["whole"] - ran["half"]) / (ran["slope"] * steps / 2) - 1
    assert 0 < gaps[0.002] < 0.12 and gaps[0.002] < gaps[0.005] < gaps[0.01]
    # a batch's mean has less noise, by its size
    ran = {b: long(module, 2000, batch=b, delta=1) for b in (1, 10, 1000)}
    assert ran[1]["slope"] == pytest.approx(10 * ran[10]["slope"])
    assert ran[1]["slope"] == pytest.approx(1000 * ran[1000]["slope"])


def test_only_label_noise_goes_on(module):
    for batch in (1, 1000):
        ran = long(module, 20_000, delta=0, batch=batch)
        assert ran["whole"] < -0.01 and ran["whole"] == pytest.approx(ran["half"], abs=1e-12)
        assert min(ran["values"]) > 0.5 and ran["loss"] < 1e-20 and ran["slope"] == 0
    ran = long(module, 50_000)
    assert ran["whole"] - ran["half"] < -50 and max(ran["values"][2:]) < 0.03
    assert min(ran["values"][:2]) > 1


def test_what_it_says(noise):
    live = noise()
    assert said(live).startswith("After 50000 steps: log det ΘΘᵀ has changed by −1")
    assert "By label noise alone, −2η²δ²d_yN‖X‖²/b a step, it would be −1" in said(live)
    enter(live, "noise δ", "0")
    assert "by 0. No label noise, no lasting fall. Singular values of W₁: 3." in said(live)
    button(live, "Reset").click()
    assert said(live).startswith("After 0 steps: log det ΘΘᵀ has changed by 0, in the second half")
    field(live, "width d, slider").press("End")
    enter(live, "step ηN", "0.02")
    enter(live, "noise δ", "4")
    assert "this step ηN is too large" in said(live)
