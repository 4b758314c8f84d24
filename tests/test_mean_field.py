"""Infinite width against the equations as written, exact recursions, and networks of many seeds."""

import math
import re
from itertools import pairwise

import pytest
import torch

from lop_utils import _wide, descent, mean_field
from lop_utils.book import width

F64 = {"dtype": torch.float64}
EYE = torch.eye(3, **F64)


def problem(seed, D=3, P=3):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(D, P, generator=generator, **F64)
    return X, X.T @ X / D, torch.randn(P, generator=generator, **F64)


def as_written(K, y, L, eta, gamma0, steps):
    """Solve the equations in full matrices, by repetition: each round mends one more step."""
    P, T = len(y), steps + 1
    n, eye, short = T * P, torch.eye(T * P, **F64), torch.eye(T, **F64)
    before = torch.tril(torch.ones(T, T, **F64), -1)
    H, G = [K.repeat(T, T)] * (L + 1), [torch.ones(T, T, **F64)] * (L + 2)
    A, B = [torch.zeros(n, T, **F64)] * (L + 1), [torch.zeros(T, n, **F64)] * (L + 1)
    Delta = y.repeat(T, 1)
    for _ in range(2 * L * T):
        for l in range(1, L + 1):
            field = (H[l - 1].view(n, T, P) * Delta).sum(-1) * before.repeat_interleave(P, 0)
            C = A[l - 1] + eta * gamma0 / P * field
            field = ((G[l + 1] * before)[:, :, None] * Delta).reshape(T, n)
            D = B[l] + eta * gamma0 / P * field
            h, g = torch.linalg.inv(eye - C @ D), torch.linalg.inv(short - D @ C)
            A[l], B[l - 1] = h @ C, g @ D
            X = g @ (D @ H[l - 1] + G[l + 1] @ C.T) @ h.T
            H[l] = h @ (H[l - 1] + C @ G[l + 1] @ C.T) @ h.T
            G[l] = g @ (G[l + 1] + D @ H[l - 1] @ D.T) @ g.T
        f = torch.stack([X[t, t * P : (t + 1) * P] for t in range(T)]) / gamma0
        Delta = y - f
    return Delta, torch.stack(H[1:]).view(L, T, P, T, P), torch.stack(G[1 : L + 1])


@pytest.mark.parametrize(("L", "gamma0"), [(1, 2.0), (2, 0.5), (2, 2.0), (3, 1.5)])
def test_one_pass_in_time_solves_the_equations_as_they_are_written(L, gamma0):
    _, K, y = problem(L, P=2)
    found = mean_field.solve(K, y, L=L, eta=0.2, gamma0=gamma0, steps=6)
    wanted = as_written(K, y, L, 0.2, gamma0, 6)
    for ours, right in zip((found.Delta, found.H, found.G), wanted, strict=True):
        assert (ours - right).abs().max() < 1e-13
    assert found.mismatch < 1e-14
    # The tangent kernel is the rate of the first order.
    T, small = 1e-6, mean_field.solve(K, y, L=L, eta=1e-6, gamma0=gamma0, steps=1)
    assert ((small.Delta[0] - small.Delta[1]) / T - small.ntk[0] @ y / 2).abs().max() < 1e-6
    H = torch.stack([K.expand(7, 2, 2), *found.H.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)])
    G = torch.cat([found.G.diagonal(dim1=1, dim2=2), torch.ones(1, 7, **F64)])
    assert (found.ntk - (H * G[..., None, None]).sum(0)).abs().max() < 1e-14


@pytest.mark.parametrize("gamma0", [0.0, 1e-3, 1.0, 3.0])
def test_one_hidden_layer_is_the_recursion_from_identity(gamma0):
    X, K, y = problem(0, D=5)
    X = X / 5**0.5
    target = torch.linalg.lstsq(X.T, y[:, None]).solution[:, 0]
    eta = torch.tensor(0.2, **F64)
    start = width.OneHidden(
        eta * torch.eye(5, **F64), eta, torch.zeros(5, **F64), (gamma0 * eta) ** 2
    )
    run = width.recursion(start, lambda b: X @ (X.T @ (target - b)) / 3, 40)
    b = torch.stack([it.b for it in run])
    found = mean_field.solve(K, y, L=1, eta=0.2, gamma0=gamma0, steps=40)
    assert (found.Delta - (y - b @ X)).abs().max() < 1e-14
    assert (found.loss - found.Delta.square().sum(1) / 6).abs().max() < 1e-15


@pytest.mark.parametrize("L", [1, 2, 4])
def test_the_lazy_limit_is_linear(L):
    _, K, y = problem(5)
    found = mean_field.solve(K, y, L=L, eta=0.1, gamma0=0, steps=30)
    step = EYE - 0.1 / 3 * (L + 1) * K
    for t, Delta in enumerate(found.Delta):
        assert (Delta - torch.linalg.matrix_power(step, t) @ y).abs().max() < 1e-13
    assert (found.H - K[:, None]).abs().max() == 0 and (found.G == 1).all()
    assert (found.ntk - (L + 1) * K).abs().max() < 1e-14
    # Features move in the second order, whatever their scale in a float.
    gaps = [
        (mean_field.solve(K, y, L=L, eta=0.1, gamma0=g, steps=30).Delta - found.Delta).abs().max()
        for g in (1e-200, 1e-2, 2e-2)
    ]
    assert gaps[0] < 1e-15 and gaps[2] / gaps[1] == pytest.approx(4, rel=0.01)


def test_one_sample_and_one_hidden_layer_are_three_numbers():
    k, y, c, eta = 0.7, 1.3, 0.8, 0.3
    found = mean_field.solve([[k]], [y], L=1, eta=eta, gamma0=c, steps=9)
    h, g, f = k, 1.0, 0.0  # h.h, g.g, and g.h over gamma0, of h' = h + z g and g' = g + z k h / k
    for t in range(10):
        assert found.Delta[t].item() == pytest.approx(y - f, abs=1e-14)
        assert found.H[0, t, 0, t, 0].item() == pytest.approx(h, rel=1e-13)
        assert found.G[0, t, t].item() == pytest.approx(g, rel=1e-13)
        z, cross = eta * c * (y - f), c * f  # f = a.h / (gamma0 N); W x moves by z k a, a by z h
        h, g, f = (
            h + 2 * z * k * cross + z * z * k * k * g,
            g + 2 * z * cross + z * z * h,
            (cross + z * h + z * k * g + z * z * k * cross) / c,
        )


@pytest.mark.parametrize("gamma0", [0.0, 2.0])
@pytest.mark.parametrize("L", [1, 3])
def test_branches_without_shortcuts_are_a_plain_network(L, gamma0):
    _, K, y = problem(2)
    *plain, _ = _wide.march(K, y, L, 0.2, gamma0, 12)
    *branches, mismatch = _wide.march_branches(K, y, L - 1, 1.0, 0.2, gamma0, 12, skip=0.0)
    for ours, right in zip(branches, plain, strict=True):
        assert (ours - right).abs().max() < 1e-13 * right.abs().max()
    assert mismatch < 1e-14


def test_lazy_branches_are_linear_and_many_have_a_limit():
    _, K, y = problem(5)
    found = mean_field.solve_residual(K, y, L=3, beta=0.5, eta=0.1, gamma0=0, steps=20)
    # Each layer's share: the state before it grows by 1 + beta^2 a branch, the gradient behind too.
    rate = (2 + 3 * 0.5**2 / 1.25) * 1.25**3
    step = EYE - 0.1 / 3 * rate * K
    assert (found.ntk - rate * K).abs().max() < 1e-13
    assert (found.Delta[20] - torch.linalg.matrix_power(step, 20) @ y).abs().max() < 1e-13
    how = dict(eta=0.05, gamma0=1.0, steps=15)
    losses = [
        mean_field.solve_residual(K, y, L=L, beta=L**-0.5, **how).loss for L in (4, 8, 16, 32)
    ]
    gaps = [(a - b).abs().max().item() for a, b in pairwise(losses)]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.2)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)


# --- Networks


def trained(X, y, L, N, eta, gamma0, steps, runs, seed):
    """Return the losses, (steps + 1, runs), and what the start says of them, (runs, ...)."""
    Ws, loss, rate = mean_field.finite_width(
        X, y, L=L, width=N, gamma0=gamma0, runs=runs, generator=seed
    )
    run = descent.train(Ws, loss, eta=eta * rate, steps=steps)
    h, g = [X.expand(runs, -1, -1) / len(X) ** 0.5], [torch.ones(runs, 1, 1, **F64), Ws[-1]]
    for l, W in enumerate(Ws[:-1]):
        h.append(W @ h[-1] / (N**0.5 if l else 1))
    for W in reversed(Ws[1:-1]):
        g.append(g[-1] @ W / N**0.5)
    ntk = sum(
        (A.mT @ A) * (B @ B.mT) / ((N if l else 1) * (N if l < L else 1))
        for l, (A, B) in enumerate(zip(h, reversed(g), strict=True))
    )
    entries = torch.triu_indices(len(y), len(y))
    seen = torch.cat([ntk[:, *entries], (Ws[-1] @ h[-1])[:, 0] / N], 1)
    K = X.T @ X / len(X)
    mean = torch.cat([(L + 1) * K[*entries], torch.zeros_like(y)])
    return descent.record(run, loss=lambda it: it.loss)["loss"], seen - mean


def average(losses, seen):
    """Return the mean over runs and its standard error, less what is linear in the start."""
    A = torch.cat([torch.ones(len(seen), 1, **F64), seen], 1)
    fit = torch.linalg.lstsq(A, losses.T).solution
    rest = (losses.T - A @ fit).square().sum(0) / (len(A) - A.shape[1])
    return fit[0], (rest * torch.linalg.inv(A.T @ A)[0, 0]).sqrt()


@pytest.mark.parametrize(("L", "gamma0"), [(1, 2.0), (2, 2.0), (3, 1.0)])
def test_networks_of_many_seeds_come_as_near_as_their_width_allows(L, gamma0):
    X, K, y = problem(3)
    mean, error = average(*trained(X, y, L, 256, 0.15, gamma0, 20, runs=50, seed=L))
    theory = mean_field.solve(K, y, L=L, eta=0.15, gamma0=gamma0, steps=20).loss
    assert error.max() < 1e-3  # with a response missing, the theory moves by 5e-3 and more
    assert ((mean - theory).abs() < 4 * error + 0.5 / 256).all()


@pytest.mark.parametrize(("L", "beta"), [(1, 0.7), (3, 0.6)])
def test_residual_networks_of_many_seeds_come_as_near(L, beta):
    X, K, y = problem(3)
    how = dict(L=L, gamma0=1.0, beta=beta)
    Ws, loss, rate = mean_field.finite_width(X, y, width=256, runs=60, generator=L, **how)
    assert len(Ws) == L + 2
    run = descent.train(Ws, loss, eta=0.08 * rate, steps=15)
    losses = descent.record(run, loss=lambda it: it.loss)["loss"]
    theory = mean_field.solve_residual(K, y, eta=0.08, steps=15, **how).loss
    error = losses.std(1) / 60**0.5
    assert ((losses.mean(1) - theory).abs() < 3.5 * error + 0.5 / 256).all()
    bare = mean_field.solve_residual(K, y, eta=0.08, steps=15, L=L, gamma0=1e-9, beta=beta).loss
    assert (bare - theory).abs().max() > 5 * error.max()  # it would be seen


@pytest.mark.weekly
@pytest.mark.parametrize(("L", "gamma0"), [(L, g) for L in (1, 2, 3) for g in (0.5, 1.0)])
def test_the_gap_to_ten_seeds_is_noise_and_to_many_goes_as_one_over_the_width(L, gamma0):
    X, K, y = problem(3)
    theory = mean_field.solve(K, y, L=L, eta=0.15, gamma0=gamma0, steps=20).loss
    scaled = []
    for N in (128, 256, 512):
        losses, seen = trained(X, y, L, N, 0.15, gamma0, 20, runs=50, seed=N + L)
        mean, error = average(losses, seen)
        at = 5
        scaled.append((N * (mean - theory)[at].item(), N * error[at].item()))
    ten = losses[:, :10]
    assert (ten.mean(1) - theory).abs().max() < 2 * ten.std(1).max() / 10**0.5
    (a, da), _, (b, db) = scaled
    assert a > 3 * da
    assert abs(a - b) < 3 * math.hypot(da, db)


# --- Limits


@pytest.mark.parametrize("q", [0.3, 1.0, 4.0])
def test_quadrature_has_the_moments_of_the_law_and_its_mass_at_zero(q):
    x, weights = mean_field.marchenko_pastur(q, 40)
    for k, moment in enumerate((1, 1, 1 + q, 1 + 3 * q + q * q)):
        assert (weights * x**k).sum().item() == pytest.approx(moment, rel=1e-12)
    assert (x >= 0).all() and x.max() < (1 + q**0.5) ** 2
    assert weights[x == 0].sum().item() == pytest.approx(max(0, 1 - 1 / q), abs=1e-9)
    lone, one = mean_field.marchenko_pastur(q, 1)
    assert (lone.item(), one.item()) == (1, 1)


# --- What is handed over


def test_what_comes_back(place):
    X, K, y = (A.to(**place.kind) for A in problem(4))
    how = dict(L=2, gamma0=1.0)
    found = mean_field.solve(K, y, eta=0.2, steps=10, **how)
    assert {A.dtype for A in (found.loss, found.H, found.ntk)} == {place.kind["dtype"]}
    assert found.G.device.type == place.kind["device"]
    exact = mean_field.solve(*problem(4)[1:], eta=0.2, steps=10, **how)
    assert (found.loss.cpu() - exact.loss).abs().max() < place.tolerance
    assert found.H.shape == (2, 11, 3, 11, 3) and found.G.shape == (2, 11, 11)
    Ws, loss, rate = mean_field.finite_width(X, y, width=20, runs=2, generator=0, **how)
    same, *_ = mean_field.finite_width(*problem(4)[::2], width=20, runs=2, generator=0, **how)
    assert all((W.cpu() - V).abs().max() < 1e-6 for W, V in zip(Ws, same, strict=True))
    assert (loss(Ws).value - exact.loss[0]).abs().max() < place.tolerance and rate == 20
    start = mean_field.solve(K, y, eta=0.2, steps=0, **how)
    assert repr(start).startswith("MeanField(L = 2, P = 3, steps = 0: loss ")


GOOD = {
    "solve": dict(K=EYE, y=EYE[0], L=2, eta=0.1, gamma0=1.0, steps=3),
    "finite_width": dict(X=EYE, y=EYE[0], L=2, width=4, gamma0=1.0, runs=2, generator=0),
    "marchenko_pastur": dict(q=0.5, nodes=4),
    "solve_residual": dict(K=EYE, y=EYE[0], L=2, beta=0.5, eta=0.1, gamma0=1.0, steps=3),
}
UPPER = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], **F64)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("solve", dict(K=UPPER), "K: wanted a symmetric matrix, got one 5.0e-01 from its transp"),
        (
            "solve",
            dict(K=EYE - 2 * UPPER.diag().diag()),
            "K: wanted a Gram matrix, got one with an eigenvalue of -1",
        ),
        ("solve", dict(y=EYE[0, :2]), "K: wanted shape (2, 2), got (3, 3)"),
        ("solve", dict(y=EYE[0].float()), "y: wanted torch.float64 on cpu as K, got torch.float32"),
        ("solve", dict(L=0), "L: wanted L >= 1, got 0"),
        ("solve", dict(gamma0=-1.0), "gamma0: wanted gamma0 >= 0, got -1.0"),
        ("solve", dict(eta=0.0), "eta: wanted eta > 0, got 0.0"),
        ("solve", dict(y=1e200 * EYE[0], steps=0), "y: wanted labels with a loss that"),
        ("finite_width", dict(y=EYE[0, :2]), "y: wanted shape (3,), got (2,)"),
        ("finite_width", dict(gamma0=1e-12), "gamma0: wanted outputs that start below 6.7e+07, "),
        (
            "finite_width",
            dict(gamma0=1e200),
            "gamma0 ** 2 * width: wanted a finite number, got inf",
        ),
        ("finite_width", dict(width=0), "width: wanted width >= 1, got 0"),
        ("finite_width", dict(beta=-1.0), "beta: wanted beta > 0, got -1.0"),
        ("solve_residual", dict(beta=0.0), "beta: wanted beta > 0, got 0.0"),
        ("solve_residual", dict(L=0), "L: wanted L >= 1, got 0"),
        ("marchenko_pastur", dict(q=0.0), "q: wanted q > 0, got 0.0"),
        ("marchenko_pastur", dict(nodes=0), "nodes: wanted nodes >= 1, got 0"),
    ],
)
def test_refusals(name, change, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        getattr(mean_field, name)(**GOOD[name] | change)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_step_too_large_is_named(kind):
    message = r"^eta: wanted .* overflowed at step t = \d+ with eta = 9, gamma0 = 2; a smaller eta"
    with pytest.raises(FloatingPointError, match=message):
        mean_field.solve(EYE.to(kind), EYE[0].to(kind), L=2, eta=9, gamma0=2, steps=99)
