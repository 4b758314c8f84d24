"""The recursion is what networks do, of any width; residual gradients are those of autograd."""

import pytest
import torch

from lop_utils import descent, losses, mean_field
from lop_utils.book import width

F64 = {"dtype": torch.float64}
D, RUNS = 5, 3


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


X, y = randn(D, 9, seed=0), randn(1, 9, seed=1)


def downhill(b):
    return ((y - b @ X) @ X.T) / 9


@pytest.mark.parametrize("N", [2, 7, 60])
@pytest.mark.parametrize("rates", [(0.3, 0.3), (8.0, 0.02)])
def test_the_recursion_is_the_network(N, rates):
    Ws = [randn(RUNS, N, D, seed=2), randn(RUNS, 1, N, seed=3) / N]
    loss = losses.least_squares(X / 3, y / 3)
    eta = torch.tensor([0.01, 0.02, 0.04], **F64)
    scaled = [W / rate**0.5 for W, rate in zip(Ws, rates, strict=True)]
    run = descent.train(scaled, width.rescaled(loss, rates), eta=eta, steps=40)
    start = width.of_layers(Ws, rates).at(eta)
    one_each = width.OneHidden(*(field[range(RUNS), range(RUNS)] for field in start))
    seen = width.recursion(one_each, downhill, 40)
    for it, state in zip(run, seen, strict=True):
        W, a = (root**0.5 * U for root, U in zip(rates, it.Ws, strict=True))
        steps = eta[:, None, None]
        wanted = (a @ W)[:, 0], rates[1] * steps * W.mT @ W
        wanted += (rates[0] * eta * a.square().sum((-2, -1)),)
        for got, want in zip((state.b, state.A, state.z), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert it.loss.sum() < 0.9 * loss(Ws).value.sum()  # it has learned


def test_every_step_size_has_its_runs():
    start = width.of_layers([randn(RUNS, 4, D, seed=2), randn(RUNS, 1, 4, seed=3)], (0.5, 0.1))
    many = start.at(torch.tensor([0.1, 0.2], **F64))
    assert many.A.shape == (2, RUNS, D, D) and many.b.shape == (2, RUNS, D)
    for got, want in zip(many, start.at(0.2), strict=True):
        torch.testing.assert_close(got[1], want, rtol=1e-15, atol=0)


@pytest.mark.parametrize("matrices", [1, 2, 3])
def test_gradients_of_branches_are_those_of_autograd(matrices):
    Ws = [randn(4, D, seed=0), *(randn(4, 4, seed=i) for i in range(1, 7)), randn(2, 4, seed=8)]
    loss = losses.squared_error(randn(2, D, seed=9))
    value, grads = width.residual(loss, 0.3, matrices)(Ws)
    params = [W.clone().requires_grad_() for W in Ws]
    h = params[0]
    for i in range(1, 7, matrices):
        branch = h
        for W in params[i : i + matrices]:
            branch = W @ branch
        h = h + 0.3 * branch
    direct = loss([params[-1] @ h]).value
    torch.testing.assert_close(value, direct.detach())
    for got, want in zip(grads, torch.autograd.grad(direct, params), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


TWO = [torch.ones(2, 3), torch.ones(1, 2)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: width.of_layers([*TWO, torch.ones(1, 1)], (1.0, 1.0)), "Ws: wanted two layers"),
        (lambda: width.of_layers([torch.ones(2, 3), torch.ones(2, 2)], (1.0, 1.0)), "one output"),
        (lambda: width.of_layers(TWO, (1.0,)), "rates"),
        (lambda: width.of_layers(TWO, (1.0, 0.0)), "rates"),
        (lambda: width.rescaled(losses.squared_error([[1.0]]), [-1.0]), "rates"),
        (lambda: width.residual(losses.squared_error([[1.0]]), 0.0), "beta"),
        (
            lambda: width.residual(losses.squared_error([[1.0]]), 1.0, 2)(TWO[:1] * 3),
            "branches of 2 matrices, got 1",
        ),
        (
            lambda: list(
                width.recursion(width.of_layers(TWO, (0.1, 0.1)), lambda b: b[:2], steps=1)
            ),
            "gradient: wanted shape",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bins_keep_the_power_and_the_first_modes():
    lam, target = width.power_law(1.5, 0.5, last=5000, bins=70)
    k = torch.arange(1, 5001, **F64)
    assert len(lam) <= 70 and (lam[:40] - k[:40] ** -1.5).abs().max() < 1e-15
    assert torch.allclose((lam * target**2).sum(), (k**-1.75).sum())
    assert torch.allclose((target**2).sum(), (k**-0.25).sum())
    assert (lam.diff() < 0).all()
    with pytest.raises(ValueError, match=r"^last: wanted last >= 41"):
        width.power_law(1.5, 0.5, last=40)
    with pytest.raises(ValueError, match=r"^first: wanted two times"):
        width.exponent(k, k, first=5000)


def test_a_run_of_branches_that_diverged_leaves_the_others():
    loss = width.residual(losses.squared_error(torch.ones(1, 2, **F64)), 0.5, 2)
    Ws = [torch.ones(2, *shape, **F64) for shape in ((3, 2), (3, 3), (3, 3), (1, 3))]
    alone = loss([W[0] for W in Ws])
    Ws[1][1] = torch.inf
    value, grads = loss(Ws)
    assert value[0] == alone.value and not value[1].isfinite()
    assert all(torch.equal(G[0], H) for G, H in zip(grads, alone.grads, strict=True))


# --- The limits of its start


def errors_of(start, gradient, target):
    """Return the squared error at each of sixty steps of one tenth."""
    run = width.recursion(start.at(0.1), gradient, 60)
    return torch.stack([(it.b - target).square().sum(-1) for it in run])


def start_of(A, b, gamma0=1.0):
    one = torch.ones(b.shape[:-1], **F64)
    return width.OneHidden(A, one, b, gamma0**2 * one)


def is_the_mean_of(limit, errors, D):
    spread = errors.std(1) / errors.shape[1] ** 0.5
    return ((errors.mean(1) - limit).abs() < 3.5 * spread + 0.5 / D).all()


@pytest.mark.parametrize(("nu", "gamma0"), [(1.0, 1.0), (4.0, 2.0), (0.5, 1.0)])
def test_many_inputs_have_two_coordinates_for_each_node(nu, gamma0):
    x, share = mean_field.marchenko_pastur(1 / nu)
    none = torch.zeros_like(x)
    aim = torch.cat([share.sqrt(), none])
    b = torch.cat([none, (share * x / nu).sqrt() / gamma0])
    limit = errors_of(start_of(torch.cat([x, x]).diag(), b, gamma0), lambda b: aim - b, aim)
    assert limit[0].item() == pytest.approx(1 + 1 / (nu * gamma0**2), rel=1e-12)
    side, N, aim = 100, int(100 * nu), torch.eye(100, **F64)[0]
    Ws = [randn(60, N, side, seed=2), randn(60, 1, N, seed=3) / (gamma0 * N)]
    start = width.of_layers(Ws, (gamma0**2 * N, 1 / N))
    assert is_the_mean_of(limit, errors_of(start, lambda b: aim - b, aim), side)


@pytest.mark.parametrize("alpha", [2.0, 0.5])
def test_many_samples_have_one(alpha):
    x, share = mean_field.marchenko_pastur(1 / alpha)
    aim = share.sqrt()
    start = start_of(torch.eye(60, **F64), 0 * x)
    limit = errors_of(start, lambda b: x * (aim - b), aim)
    side, runs = 60, 40
    X, aim = randn(runs, side, int(alpha * side), seed=0), torch.eye(side, **F64)[0]
    start = start_of(torch.eye(side, **F64).expand(runs, -1, -1), torch.zeros(runs, side, **F64))

    def gradient(b):
        return (X @ (X.mT @ (aim - b)[..., None]))[..., 0] / X.shape[-1]

    assert is_the_mean_of(limit, errors_of(start, gradient, aim), side)
