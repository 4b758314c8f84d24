"""Infinite width against the equations as written, exact recursions, and networks of many seeds."""

import math
import re

import pytest
import torch

from lop_utils import descent, mean_field

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
    start = dict(K=torch.eye(5, **F64), b=torch.zeros(5, **F64))
    how = dict(eta=0.2, gamma0=gamma0, steps=40)
    b = mean_field.one_hidden(X @ X.T / 3, target, **start, **how)
    found = mean_field.solve(K, y, L=1, **how)
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


@pytest.mark.parametrize("width", [2, 7, 40])
def test_the_recursion_is_the_network_at_any_width(width):
    X, _, y = problem(1, D=5)
    gamma0, eta, inputs = 0.8, 0.05, X / 5**0.5
    Ws, loss, rate = mean_field.finite_width(
        X, y, L=1, width=width, gamma0=gamma0, runs=4, generator=0
    )
    W, a = Ws
    K, b0 = W.mT @ W / width, (a @ W)[:, 0] / (gamma0 * width)
    moved = torch.linalg.lstsq(inputs.T, y[:, None]).solution[:, 0]
    steps = torch.tensor([0.5, 1.0, 1.0, 2.0], **F64) * eta
    run = descent.train(Ws, loss, eta=steps * rate, steps=50)
    found = descent.record(
        run, loss=lambda it: it.loss, b=lambda it: (it.Ws[1] @ it.Ws[0])[:, 0] / (gamma0 * width)
    )
    for each in range(4):  # each has its own target, since outputs count from the start
        how = dict(K=K[each], b=b0[each], s=a[each].square().sum() / width)
        S, target = inputs @ inputs.T / 3, moved + b0[each]
        b = mean_field.one_hidden(S, target, **how, eta=steps[each], gamma0=gamma0, steps=50)
        assert (b - found["b"][:, each]).abs().max() < 1e-13 * b.abs().max()
        gap = target - b
        assert (((gap @ S) * gap).sum(1) / 2 - found["loss"][:, each]).abs().max() < 1e-13


def test_runs_side_by_side_are_runs_alone_and_may_diverge():
    generator = torch.Generator().manual_seed(0)
    W, a = (torch.randn(4, 6, n, generator=generator, **F64) for n in (3, 1))
    K, b, s = W.mT @ W / 6, (W.mT @ a)[..., 0] / 6, a.square().mean((1, 2))
    eta = [0.1, 0.2, 50.0, 0.05]
    how = dict(gamma0=1.0, steps=20)
    every = mean_field.one_hidden(EYE, EYE[0], K=K, b=b, s=s, eta=eta, **how)
    assert every.shape == (21, 4, 3) and not every[-1, 2].isfinite().any()
    for run in (0, 1, 3):
        alone = mean_field.one_hidden(
            EYE, EYE[0], K=K[run], b=b[run], s=s[run], eta=eta[run], **how
        )
        assert (alone - every[:, run]).abs().max() < 1e-13
    with pytest.raises(FloatingPointError, match=r"^eta: .* all overflowed at step t = \d+;"):
        mean_field.one_hidden(EYE, EYE[0], K=K, b=b, s=s, eta=50.0, **how)


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


@pytest.mark.parametrize(("nu", "gamma0"), [(1.0, 1.0), (4.0, 2.0), (0.5, 1.0)])
def test_the_limit_of_wide_inputs_is_the_mean_of_random_starts(nu, gamma0):
    x, weights = mean_field.marchenko_pastur(1 / nu, 60)
    none, how = torch.zeros_like(x), dict(eta=0.1, gamma0=gamma0, steps=60)
    target = torch.cat([weights.sqrt(), none])
    b0 = torch.cat([none, (weights * x / nu).sqrt() / gamma0])
    S = torch.eye(120, **F64)
    limit = mean_field.one_hidden(S, target, K=torch.cat([x, x]).diag(), b=b0, **how)
    limit = (target - limit).square().sum(-1)
    assert limit[0].item() == pytest.approx(1 + 1 / (nu * gamma0**2), rel=1e-12)
    D, N, runs, generator = 100, int(100 * nu), 60, torch.Generator().manual_seed(2)
    W, a = (torch.randn(runs, n, N, generator=generator, **F64) for n in (D, 1))
    e, S = torch.eye(D, **F64)[0], torch.eye(D, **F64)
    start = dict(K=W @ W.mT / N, b=(W @ a.mT)[..., 0] / (gamma0 * N), s=(a @ a.mT)[:, 0, 0] / N)
    losses = (e - mean_field.one_hidden(S, e, **start, **how)).square().sum(-1)
    error = losses.std(1) / runs**0.5
    assert ((losses.mean(1) - limit).abs() < 3.5 * error + 0.5 / D).all()


@pytest.mark.parametrize("alpha", [2.0, 0.5])
def test_the_limit_of_much_data_in_many_dimensions(alpha):
    x, weights = mean_field.marchenko_pastur(1 / alpha, 60)
    how, D, runs = dict(eta=0.1, gamma0=1.0, steps=60), 60, 40
    target = weights.sqrt()
    gap = target - mean_field.one_hidden(x.diag(), target, K=torch.eye(60, **F64), b=0 * x, **how)
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(runs):
        X = torch.randn(D, int(alpha * D), generator=generator, **F64)
        S, e = X @ X.T / X.shape[1], torch.eye(D, **F64)
        miss = e[0] - mean_field.one_hidden(S, e[0], K=e, b=0 * e[0], **how)
        found.append(torch.stack([miss.square().sum(-1), ((miss @ S) * miss).sum(-1)]))
    limit = torch.stack([gap.square().sum(-1), (gap.square() * x).sum(-1)])
    error = torch.stack(found).std(0) / runs**0.5
    assert ((torch.stack(found).mean(0) - limit).abs() < 3.5 * error + 0.5 / D).all()


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
    "one_hidden": dict(S=EYE, target=EYE[0], K=EYE, b=EYE[0], eta=0.1, gamma0=1.0, steps=3),
    "marchenko_pastur": dict(q=0.5, nodes=4),
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
        ("one_hidden", dict(S=EYE[:2]), "S: wanted shape (3, 3), got (2, 3)"),
        ("one_hidden", dict(b=EYE), "b: wanted a vector with entries, got shape (3, 3)"),
        ("one_hidden", dict(s=EYE[0]), "s: wanted s > 0, one or of shape (), got [1.0, 0.0, 0.0]"),
        ("one_hidden", dict(eta=-0.1), "eta: wanted eta > 0, got -0.1"),
        ("one_hidden", dict(b=2 * EYE[0]), "K, b, s: wanted a Gram matrix, got one with an eigen"),
        ("one_hidden", dict(gamma0=1e300, b=1e9 * EYE[0]), "K, b, s: wanted a Gram matrix that"),
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
