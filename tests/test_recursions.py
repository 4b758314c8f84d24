"""The numbers of the law: their steps, their limits, and where they overflow."""

import math
import re

import pytest
import torch
from scipy.integrate import solve_ivp

from lop_utils import descent, losses, recursions
from lop_utils.recursions import rho_flow, rho_frozen, rho_recursion

F64 = {"dtype": torch.float64}


def test_recursions_start_at_eps_and_follow_their_step():
    rho = rho_recursion(0.7, eta=0.2, lam=0.3, L=4, steps=50)
    frozen = rho_frozen(0.7, eta=0.2, lam=0.3, steps=50)
    assert rho.shape == frozen.shape == (51,) and rho.dtype == frozen.dtype == torch.float64
    assert rho[0] == frozen[0] == 0.7
    expected = rho[:-1] * (1 - 0.06) - 0.2 * rho[:-1] ** 7
    assert (rho[1:] - expected).abs().max() < 1e-15
    assert (frozen[1:] - frozen[:-1] * (1 - 0.06)).abs().max() < 1e-15
    assert rho_recursion(0.7, eta=1, lam=0, L=2, steps=0).tolist() == [0.7]
    assert (rho_frozen(0.3, eta=0.1, lam=0.0, steps=9) == 0.3).all()
    one_layer = rho_recursion(1.0, eta=0.5, lam=0.0, L=1, steps=5)
    assert one_layer.tolist() == [0.5**t for t in range(6)]


@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize("scales", [(0.7,), (0.7, 0.2), (0.9, 0.4, 0.7), (0.6,) * 5], ids=str)
def test_the_complement_is_a_network_of_width_one(scales, lam):
    L = len(scales)
    each = rho_recursion(scales, eta=0.2, lam=lam, L=L, steps=200)
    assert each.shape == (201, L) and each[0].tolist() == list(scales)
    net = [torch.full((1, 1), scale, **F64) for scale in scales]
    loss = losses.squared_error(torch.zeros(1, 1, **F64))
    for it in descent.train(net, loss, eta=0.2, lam=lam, steps=200):
        found = torch.cat([W.flatten() for W in it.Ws])
        assert (found - each[it.t]).abs().max() < 1e-14
    if len(set(scales)) == 1:
        one = rho_recursion(scales[0], eta=0.2, lam=lam, L=L, steps=200)
        assert (each - one[:, None]).abs().max() < 1e-14


def test_a_value_may_reach_zero():
    # 1 - eta * 2^2 = 0: divided by it, a product over all would be none.
    each = rho_recursion([1.0, 2.0], eta=0.25, lam=0.0, L=2, steps=2)
    assert each.tolist() == [[1.0, 2.0], [0.0, 1.5], [0.0, 1.5]]


@pytest.mark.parametrize("lam", [0.0, 1e-9, 0.3])
@pytest.mark.parametrize("L", [1, 2, 5])
@pytest.mark.parametrize("eps", [0.1, 2.0])
def test_flow_solves_its_equation(eps, L, lam):
    tau = torch.linspace(0, 20, 41, **F64)
    solved = solve_ivp(
        lambda _, rho: -lam * rho - rho ** (2 * L - 1),
        (0, 20),
        [eps],
        method="DOP853",
        t_eval=tau.numpy(),
        rtol=1e-12,
        atol=1e-15,
    ).y[0]
    tau.requires_grad_()
    rho = rho_flow(eps, tau, lam=lam, L=L)
    assert rho[0] == eps
    assert (rho.detach() - torch.from_numpy(solved)).abs().max() < 1e-10 * eps
    # And by the equation itself: autograd's derivative is the right-hand side.
    (slope,) = torch.autograd.grad(rho.sum(), tau)
    size = eps ** (2 * L - 1) + lam * eps
    assert (slope + lam * rho + rho ** (2 * L - 1)).abs().max() < 1e-12 * size


@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize("L", [1, 2, 5])
def test_recursion_meets_the_flow_at_first_order(L, lam):
    gaps = []
    for steps in (400, 800, 1600):
        eta = 4 / steps
        tau = eta * torch.arange(steps + 1, **F64)
        discrete = rho_recursion(1.0, eta=eta, lam=lam, L=L, steps=steps)
        gaps.append((discrete - rho_flow(1.0, tau, lam=lam, L=L)).abs().max().item())
        frozen = rho_frozen(1.0, eta=eta, lam=lam, steps=steps)
        assert (frozen - torch.exp(-lam * tau)).abs().max() < eta * lam + 1e-15
    assert gaps[0] < 0.02
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("L", [1, 2, 5])
def test_flow_is_continuous_where_the_decay_vanishes(L):
    tau = torch.logspace(-3, 2, 30, **F64)
    limit = rho_flow(0.9, tau, lam=0.0, L=L)
    for lam in (1e-9, 1e-15, 1e-100, 1e-300):
        gap = (rho_flow(0.9, tau, lam=lam, L=L) - limit).abs() / limit
        assert gap.max() < 2 * lam * 1e2 + 1e-14


@pytest.mark.parametrize("L", [2, 3, 5])
def test_rho_fades_like_a_power_or_with_decay_exponentially(L):
    rho = rho_flow(0.5, [1e12, 1e14], lam=0.0, L=L)
    assert math.log(rho[1] / rho[0]) / math.log(100) == pytest.approx(-1 / (2 * L - 2), abs=1e-6)
    rho = rho_flow(0.5, [100.0, 101.0], lam=0.3, L=L)
    assert math.log(rho[1] / rho[0]) == pytest.approx(-0.3, rel=1e-10)


def test_what_times_may_be(place):
    tau = torch.linspace(0, 3, 6, **place.kind).view(2, 3)
    rho = rho_flow(0.5, tau, lam=0.1, L=3)
    assert rho.shape == (2, 3)
    assert rho.dtype == place.kind["dtype"] and rho.device.type == place.kind["device"]
    exact = rho_flow(0.5, tau.cpu().double(), lam=0.1, L=3)
    assert (rho.cpu().double() - exact).abs().max() < place.tolerance
    expected = rho_flow(1.0, torch.tensor([0.0, 1.0, 2.0], **F64), lam=0.1, L=2)
    for whole in ([0, 1, 2], torch.arange(3), [0.0, 1.0, 2.0]):
        assert torch.equal(rho_flow(1.0, whole, lam=0.1, L=2), expected)
    shape = rho_flow(0.5, torch.ones(3, device="meta"), lam=0.1, L=3)
    assert shape.is_meta and shape.shape == (3,) and shape.dtype == torch.float32


GOOD = {
    "rho_recursion": dict(eps=1.0, eta=0.1, lam=0.0, L=2, steps=1),
    "rho_frozen": dict(eps=1.0, eta=0.1, lam=0.0, steps=1),
    "rho_flow": dict(eps=1.0, tau=[0.0], lam=0.0, L=2),
}
BAD = [
    (dict(eps=0), "eps: wanted eps > 0, got 0"),
    (dict(lam=-1), "lam: wanted lam >= 0, got -1"),
    (dict(eta=0.0), "eta: wanted eta > 0, got 0.0"),
    (dict(steps=-1), "steps: wanted steps >= 0, got -1"),
    (dict(L=0), "L: wanted L >= 1, got 0"),
    (dict(tau=[1.0, -2.0, 3.0]), "tau: wanted finite times >= 0, got -2"),
    (dict(tau=[0.0, math.nan]), "tau: wanted finite entries, got NaN or infinity"),
    (dict(tau=[0.0, math.inf]), "tau: wanted finite entries, got NaN or infinity"),
]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [(name, *bad) for name in GOOD for bad in BAD if set(bad[0]) <= set(GOOD[name])]
    + [
        ("rho_recursion", dict(eps=[1.0, 0.0]), "eps[1]: wanted eps[1] > 0, got 0.0"),
        ("rho_recursion", dict(eps=[1.0]), "eps: wanted one or L = 2 scales, got 1"),
    ],
)
def test_rho_refuses(name, change, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        getattr(recursions, name)(**GOOD[name] | change)


def test_complex_times_are_refused():
    with pytest.raises(TypeError, match=r"^tau: wanted real numbers, got torch\.complex128"):
        rho_flow(1.0, [1j], lam=0.0, L=2)


@pytest.mark.parametrize(
    ("eps", "eta", "L", "t"),
    [
        pytest.param(1e200, 1.0, 2, 1, id="the-power-overflows"),
        pytest.param(1e120, 1.0, 2, 1, id="the-product-overflows"),
        pytest.param(1.0, 1e200, 1, 2, id="one-layer"),
        pytest.param(2.0, 3.0, 3, 5, id="after-some-steps"),
        pytest.param([1e200, 1e200], 1.0, 2, 1, id="unequal-scales"),
    ],
)
def test_a_recursion_that_diverges_names_the_step_and_eta(eps, eta, L, t):
    message = f"rho: wanted a finite number, overflowed at step t = {t} with eta = {eta:g}"
    rho_recursion(eps, eta=eta, lam=0, L=L, steps=t - 1)
    with pytest.raises(FloatingPointError, match="^" + re.escape(message) + "$"):
        rho_recursion(eps, eta=eta, lam=0, L=L, steps=100)


def test_what_a_float_cannot_hold():
    for eps in (1e20, 1e300):  # eps^16 overflows; what is left is tau's
        assert recursions.rho_flow(eps, [0.0], lam=0.1, L=9).item() == pytest.approx(eps, rel=1e-10)
        found = recursions.rho_flow(eps, [1.0], lam=0.0, L=9)
        assert found.item() == pytest.approx(16 ** (-1 / 16), rel=1e-12)
    with pytest.raises(FloatingPointError, match=r"^rho: .* at step t = 103 with eta = 1000"):
        recursions.rho_frozen(1.0, eta=1e3, lam=1.0, steps=200)
