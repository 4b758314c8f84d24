"""Losses and their gradients against automatic differentiation, loops and closed forms."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lop_utils import losses, networks
from lop_utils.losses import least_squares, masked, network, sensing, squared_error

F64 = {"dtype": torch.float64}
DX, DY, N, M = 5, 3, 7, 6


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


OMEGA = torch.rand(DY, DX, generator=torch.Generator().manual_seed(1)) < 0.5
PHI, X, Y = randn(DY, DX, seed=2), randn(DX, N, seed=3), randn(DY, N, seed=4)
AS, B = randn(M, DY, DX, seed=5), randn(M, seed=6)
# Each loss: how it is made, of which data, and the same by a loop.
LOSSES = {
    "squared_error": (
        squared_error,
        (PHI,),
        lambda W, Phi: sum(
            (w - phi) ** 2 for w, phi in zip(W.flatten(), Phi.flatten(), strict=True)
        ),
    ),
    "least_squares": (
        least_squares,
        (X, Y),
        lambda W, X, Y: sum((W @ X[:, n] - Y[:, n]).square().sum() for n in range(X.shape[1])),
    ),
    "masked": (
        masked,
        (OMEGA, PHI),
        lambda W, Omega, Phi: sum((W[i, j] - Phi[i, j]) ** 2 for i, j in Omega.nonzero().tolist()),
    ),
    "sensing": (
        sensing,
        (AS, B),
        lambda W, As, y: sum(((A * W).sum() - b) ** 2 for A, b in zip(As, y, strict=True)),
    ),
    "network": (
        lambda X, Y: network(X, Y, [None] * 3, alpha=0.4),
        (X, Y),
        lambda W, X, Y: (0.4 * W @ X - Y).square().sum(),
    ),
}
each_loss = pytest.mark.parametrize(("make", "data", "slowly"), LOSSES.values(), ids=LOSSES)


def layers(dims=(DX, 4, 2, DY), seed=7, scale=0.7):
    return [scale * randn(b, a, seed=seed + b) for a, b in itertools.pairwise(dims)]


def by_autograd(Ws, loss_of_product):
    leaves = [W.clone().requires_grad_() for W in Ws]
    W = leaves[0]
    for layer in leaves[1:]:
        W = layer @ W
    value = loss_of_product(W)
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves]


def worst(found, expected):
    return max((A - B).abs().max().item() for A, B in zip(found, expected, strict=True))


def on(kind, A):
    return A.to(kind["device"]) if A.dtype == torch.bool else A.to(**kind)


@each_loss
def test_value_and_gradients_are_those_of_a_loop_and_autograd(make, data, slowly, place):
    data, Ws = [on(place.kind, A) for A in data], [W.to(**place.kind) for W in layers()]
    kept = [A.clone() for A in (*data, *Ws)]
    loss = make(*data)
    value, grads = loss(Ws)
    expected, wanted = by_autograd(Ws, lambda W: 0.5 * slowly(W, *data))
    assert value.shape == () and not value.requires_grad
    for A in (value, *grads):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    assert abs(value.item() / expected.item() - 1) < place.tolerance
    assert worst(grads, wanted) < place.tolerance * max(1, max(G.abs().max() for G in wanted))
    assert all(map(torch.equal, (*data, *Ws), kept))  # nothing is changed, nor what came back
    first = [G.clone() for G in grads]
    loss([2 * W for W in Ws])
    assert all(map(torch.equal, grads, first))


@each_loss
def test_runs_side_by_side_have_each_their_own_value_and_gradients(make, data, slowly):
    loss, runs = make(*data), [layers(seed=seed) for seed in (7, 8, 9)]
    value, grads = loss(networks.stack(runs))
    two = [torch.stack([A, 2 * A]) for A in networks.stack(runs)]  # two axes of runs
    value2, grads2 = loss(two)
    assert value.shape == (3,) and value2.shape == (2, 3)
    for b, Ws in enumerate(runs):
        alone, alone_grads = loss(Ws)
        assert value[b].item() == pytest.approx(alone.item(), rel=1e-13)
        assert value2[0, b].item() == pytest.approx(alone.item(), rel=1e-13)
        assert worst([G[b] for G in grads], alone_grads) < 1e-12
        assert worst([G[0, b] for G in grads2], alone_grads) < 1e-12
        assert worst([G[1, b] for G in grads2], loss([2 * W for W in Ws]).grads) < 1e-11


@each_loss
def test_data_and_layers_may_be_arrays_or_lists(make, data, slowly):
    expected = make(*data)(layers())
    for change in (lambda A: A.numpy(), lambda A: A.tolist(), lambda A: A.numpy()[::-1][::-1]):
        value, grads = make(*map(change, data))([change(W) for W in layers()])
        assert value == expected.value and all(map(torch.equal, grads, expected.grads))
    swapped = [A.numpy().astype(A.numpy().dtype.newbyteorder(">")) for A in data]
    assert make(*swapped)(layers()).value == expected.value


def test_targets_of_each_run():
    Phis, runs = randn(2, DY, DX, seed=11), [layers(seed=8), layers(seed=9)]
    value, grads = squared_error(Phis)(networks.stack(runs))
    for b, Ws in enumerate(runs):
        alone = squared_error(Phis[b])(Ws)
        assert value[b].item() == pytest.approx(alone.value.item(), rel=1e-14)
        assert worst([G[b] for G in grads], alone.grads) < 1e-13


@pytest.mark.parametrize("dims", [(DX, DY), (DX, DX, DY), (DX, 8, 8, 2, 8, DY)], ids=str)
def test_gradients_by_finite_differences(dims):
    # Independent of autograd's rules, and for depths from one.
    loss, Ws = squared_error(PHI), layers(dims)
    grads = loss(Ws).grads
    for l, W in enumerate(Ws):
        step = 1e-5 * randn(*W.shape, seed=l + 20)
        up, down = ([*Ws[:l], W + sign * step, *Ws[l + 1 :]] for sign in (1, -1))
        change = (loss(up).value - loss(down).value).item() / 2
        assert change == pytest.approx((grads[l] * step).sum().item(), rel=1e-6)


def test_gradients_of_scalars_in_closed_form():
    # L = 3 scalars: W = abc, the derivative in a is bc (abc - phi).
    a, b, c, phi = 2.0, 3.0, 5.0, 7.0
    value, grads = squared_error([[phi]])([[[w]] for w in (a, b, c)])
    R = a * b * c - phi
    assert value == R**2 / 2 and [G.item() for G in grads] == [b * c * R, a * c * R, a * b * R]


@pytest.mark.parametrize("dims", [(5, 3), (8, 8, 8), (6, 4, 7, 2), (3, 8, 8, 8, 8, 2)], ids=str)
def test_gradients_cost_what_autograd_costs(dims):
    Ws, Phi = layers(dims), torch.zeros(dims[-1], dims[0], **F64)
    with FlopCounterMode(display=False) as ours:
        squared_error(Phi)(Ws)
    with FlopCounterMode(display=False) as autograd:
        by_autograd(Ws, lambda W: (W - Phi).square().sum())
    assert ours.get_total_flops() == autograd.get_total_flops()
    if dims == (8, 8, 8):
        assert ours.get_total_flops() == 3 * 2 * 8**3


def test_what_is_not_observed_does_not_count():
    W = [randn(DY, DX)]
    value, (R,) = masked(OMEGA, PHI)(W)
    other = masked(OMEGA, torch.where(OMEGA, PHI, 99.0))(W)
    assert other.value == value and torch.equal(other.grads[0], R) and not R[~OMEGA].any()
    whole, everything = squared_error(PHI)(W), masked(torch.ones_like(OMEGA), PHI)(W)
    assert everything.value == whole.value and torch.equal(everything.grads[0], whole.grads[0])
    measured = sensing(torch.eye(DX * DY, **F64)[OMEGA.flatten()].view(-1, DY, DX), PHI[OMEGA])(W)
    assert abs(measured.value - value) < 1e-14 and worst(measured.grads, [R]) < 1e-14


# Networks with activations


def test_a_network_is_differentiated_by_the_chain_rule():
    Ws, alpha, grads = layers(), 0.4, [torch.zeros_like(W) for W in layers()]
    for x, target in zip(X.T, Y.T, strict=True):
        zs = [x]
        for l, W in enumerate(Ws):
            a = W @ zs[-1]
            zs.append(a * (a > 0) if l < 2 else a)
        delta = alpha * (alpha * zs[-1] - target)
        for l in reversed(range(3)):
            grads[l] += torch.outer(delta, zs[l])
            delta = (Ws[l].T @ delta) * (zs[l] > 0)
    loss = network(X, Y, [torch.relu, torch.relu, None], alpha=alpha)
    assert worst(loss(Ws).grads, grads) < 1e-12
    with torch.no_grad():
        assert worst(loss(Ws).grads, grads) < 1e-12
    given = [W.clone().requires_grad_() for W in Ws]
    value, found = loss(given)
    assert not any(A.requires_grad for A in (value, *found)) and given[0].grad is None
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"^network: wanted no torch.inf"),
    ):
        loss(Ws)
    relus = [torch.relu, torch.relu, None]
    half = network(X, Y, relus)(Ws).value  # the factor is 1 if not given
    assert (
        half == network(X, Y, relus, alpha=1.0)(Ws).value != network(X, Y, relus, alpha=2)(Ws).value
    )


# Refusals

TWO = torch.ones(2, 3)
SEEN, MEASURED = torch.ones(2, 3, dtype=torch.bool), torch.ones(4, 2, 3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: squared_error(TWO.long()), TypeError, "Phi: wanted float32 or float64, got torch"),
        (lambda: squared_error([1.0]), ValueError, "Phi: wanted a matrix, got shape (1,)"),
        (lambda: least_squares("a", TWO), TypeError, "X: wanted a tensor of numbers, got str"),
        (lambda: least_squares(TWO, TWO / 0), ValueError, "Y: wanted finite entries, got NaN or i"),
        (lambda: least_squares(TWO, TWO.T), ValueError, "Y: wanted shape (3, 3), got (3, 2)"),
        (lambda: least_squares(TWO, TWO.double()), ValueError, "Y: wanted torch.float32 on cpu as"),
        (lambda: masked(TWO, TWO), TypeError, "Omega: wanted a tensor of bool, got torch.float32"),
        (lambda: masked(SEEN.T, TWO), ValueError, "Omega: wanted shape (2, 3), got (3, 2)"),
        (lambda: masked(~SEEN, TWO), ValueError, "Omega: wanted at least one observed entry, got"),
        (lambda: masked(SEEN, TWO / 0), ValueError, "Phi: wanted finite entries, got NaN or infin"),
        (lambda: sensing(TWO, [1.0]), ValueError, "As: wanted shape (m, d_y, d_x), got (2, 3)"),
        (lambda: sensing(MEASURED[:0], []), ValueError, "As: wanted a matrix with entries, got sh"),
        (lambda: sensing(MEASURED, torch.ones(3)), ValueError, "y: wanted shape (4,), got (3,)"),
        (lambda: sensing(MEASURED, torch.ones(4) / 0), ValueError, "y: wanted finite entries, got"),
        (lambda: sensing(MEASURED, np.ones(4)), ValueError, "y: wanted torch.float32 on cpu as As"),
        (lambda: network(TWO, TWO.T, []), ValueError, "Y: wanted shape (3, 3), got (3, 2)"),
        (lambda: network(TWO, TWO, [], alpha=0), ValueError, "alpha: wanted alpha > 0, got 0"),
    ],
)
def test_data_are_refused_at_the_call(make, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        make()


@pytest.mark.parametrize("runs", [(), (4,)], ids=["one", "runs"])
@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (squared_error(TWO), "Phi"),
        (least_squares(torch.eye(3), TWO), "X"),
        (masked(SEEN, TWO), "Phi"),
        (sensing(MEASURED, torch.ones(4)), "As"),
    ],
    ids=["squared_error", "least_squares", "masked", "sensing"],
)
def test_a_matrix_that_would_broadcast_or_promote_is_refused(loss, name, runs):
    for shape in ((1, 3), (3, 2), (2, 1)):
        with pytest.raises(ValueError, match="^" + re.escape(f"W: wanted shape {(*runs, 2, 3)}")):
            loss([torch.ones(*runs, *shape)])
    with pytest.raises(
        ValueError, match=f"^W: wanted torch.float32 on cpu as {name}, got torch.fl"
    ):
        loss([torch.ones(*runs, 2, 3, **F64)])


@pytest.mark.parametrize(
    ("Ws", "error", "message"),
    [
        ([], ValueError, "Ws: wanted at least one matrix, got none"),
        (["a"], TypeError, "Ws[0]: wanted a tensor of numbers, got str"),
        ([torch.ones(3, 3), torch.ones(2, 2)], ValueError, "Ws[1]: wanted 3 columns to follow"),
        ([torch.ones(3, 3), torch.ones(2, 3, **F64)], ValueError, "Ws[1]: wanted torch.float32"),
        ([torch.ones(1, 3, 3), torch.ones(5, 2, 3)], ValueError, "Ws[1]: wanted one matrix for ea"),
        ([torch.ones(3, 3), torch.ones(5, 2, 3)], ValueError, "Ws[1]: wanted one matrix for each"),
        ([torch.ones(3)], ValueError, "Ws[0]: wanted a matrix, got shape (3,)"),
    ],
)
@pytest.mark.parametrize("loss", [squared_error(TWO), network(torch.eye(3), TWO, [None] * 2)])
def test_layers_that_do_not_follow_are_named(loss, Ws, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        loss(Ws)


def test_a_network_that_does_not_fit_is_named():
    for Ws, activations, message in [
        ([torch.ones(2, 4)], [None], "Ws[0]: wanted shape (2, 3), got (2, 4)"),
        ([torch.ones(1, 3)], [None], "f(X): wanted shape (2, 3), got (1, 3)"),
        ([TWO.double()], [None], "Ws[0]: wanted torch.float32 on cpu as X, got torch.float64"),
        ([TWO], [None] * 2, "activations: wanted one behind each of L = 1 layers, got 2"),
    ]:
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            network(torch.eye(3), TWO, activations)(Ws)


def test_a_gradient_of_another_shape_is_named_and_nan_passes():
    with pytest.raises(ValueError, match=r"loss: wanted a gradient of shape \(2, 2\), got \(2,\)"):
        losses.of_product(lambda W: (W.sum(), torch.ones(2)))([torch.eye(2)])
    # A run that diverges passes here on its way to the error that names the step and eta.
    for loss in (squared_error(TWO), network(torch.eye(3), TWO, [None])):
        assert loss([TWO * math.nan]).value.isnan()


@each_loss
def test_shapes_move_on_the_meta_device(make, data, slowly):
    value, grads = make(*(A.to("meta") for A in data))([W.to("meta") for W in layers()])
    assert value.is_meta and [G.shape for G in grads] == [W.shape for W in layers()]
