"""Wide networks as narrow ones: scheme (A) against the full run, scheme (B) against its claims."""

import math
import re

import pytest
import torch
from torch.overrides import TorchFunctionMode

from lop_utils import (
    batches,
    compression,
    datasets,
    descent,
    dln,
    factored,
    losses,
    parsimony,
    sampling,
    spectra,
)
from lop_utils.compression import Compressed, compress, expand, factors, spectral_init, truncate

F64 = {"dtype": torch.float64}
SIGMA = (1.0, 0.9, 0.8)  # the target's singular values: norm 1, rank r = 3


def problem(case, d, L, eps, kind=F64, sigma=SIGMA):
    """Draw start and target; case 1 has d_y = d, case 2 has d_y = r."""
    generator = torch.Generator().manual_seed(0)
    d_y = d if case == 1 else len(sigma)
    Phi = datasets.low_rank_target(d_y, d, torch.tensor(sigma, **kind), generator=generator)
    return dln.orthogonal_init((d,) * L + (d_y,), eps, generator=generator, **kind), Phi


def scalar_net(eps, L):
    """Return what the rest is: a network of width one, to be trained on the target 0."""
    return [torch.full((1, 1), eps, **F64)] * L, torch.zeros(1, 1, **F64)


def train(method, Ws, Phi, **options):
    return method(Ws, losses.matrix_residual(Phi), **options)


def distances(
    Ws0, Phi, small, eps, *, method=descent.gradient_descent, every=10, guess=expand, **options
):
    """Train wide, narrow and rest; yield the time, both losses and the relative distance."""
    runs = (
        train(method, Ws0, Phi, **options),
        train(method, small.Ws, small.Phi, **options),
        train(method, *scalar_net(eps, len(Ws0)), **options),
    )
    for wide, narrow, rest in zip(*runs, strict=True):
        if wide.t % every == 0:
            W = dln.end_to_end(wide.Ws)
            gap = (W - guess(small, narrow.Ws, rest.Ws[0].squeeze().to(W))).norm() / W.norm()
            yield wide.t, wide.loss.item(), narrow.loss.item(), gap.item()


def worst(*args, **options):
    return max(gap for *_, gap in distances(*args, **options))


def orthonormal(*parts):
    return torch.linalg.qr(torch.cat(parts, 1)).Q


def off_diagonal(A):
    return (A - torch.diag_embed(A.diagonal())).abs().max().item()


# Scheme (A): the narrow network is the wide one


def test_exact_at_width_200():
    d, r, L, eps = 200, 5, 3, 1e-2
    Ws0, Phi = problem(1, d, L, eps, sigma=(1.0, 0.9, 0.8, 0.7, 0.6))
    small = compress(Ws0, Phi, r, eps)
    assert [tuple(W.shape) for W in small.Ws] == [(2 * r, 2 * r)] * L
    rho = parsimony.rho_recursion(eps, eta=0.5, lam=0.0, L=L, steps=400)

    def guess(small, Ws, rest):
        # The rest, from its recursion: the two must be one number.
        t = next(times)
        assert abs(rho[t] - rest) < 1e-14 * eps
        return expand(small, Ws, rho[t])

    times = iter(range(0, 401, 20))
    path = list(distances(Ws0, Phi, small, eps, eta=0.5, steps=400, every=20, guess=guess))
    assert max(gap for *_, gap in path) < 1e-12
    assert path[-1][1] < 0.2 * path[0][1]  # it has learned in the meantime


@pytest.mark.parametrize("lam", [0.0, 1e-2], ids=lambda lam: f"lam={lam}")
@pytest.mark.parametrize("eps", [0.1, 1.0], ids=lambda eps: f"eps={eps}")
@pytest.mark.parametrize("L", [1, 2, 3, 4, 5], ids=lambda L: f"L={L}")
@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
def test_exact_in_depth_scale_decay_and_case(case, L, eps, lam):
    Ws0, Phi = problem(case, 60, L, eps)
    small = compress(Ws0, Phi, 3, eps)
    assert small.V.shape == (60, 6)
    eta = 0.05 if (L, eps) == (5, 1.0) else 0.1
    assert worst(Ws0, Phi, small, eps, eta=eta, lam=lam, steps=200) < 1e-12


@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
@pytest.mark.parametrize("rhat", [3, 5, 8])
def test_more_rank_than_there_is_costs_no_exactness(case, rhat):
    Ws0, Phi = problem(case, 60, 3, 0.3)
    small = compress(Ws0, Phi, rhat, 0.3)
    # In case 2 only d_y rows can be seen, however large rhat.
    assert small.V.shape == (60, 2 * rhat if case == 1 else 6)
    assert worst(Ws0, Phi, small, 0.3, eta=0.1, lam=1e-2, steps=300) < 1e-12


def test_in_case_2_the_core_is_as_wide_as_the_outputs_ask_for():
    Ws0, Phi = problem(2, 9, 2, 0.5, sigma=(1.0, 0.5))
    for rhat in (2, 7, 20):  # twice 20 is more than d = 9; the core has 4 columns
        small = compress(Ws0, Phi, rhat, 0.5)
        assert [tuple(W.shape) for W in small.Ws] == [(4, 4), (2, 4)]
        assert worst(Ws0, Phi, small, 0.5, eta=0.1, steps=50) < 1e-12


@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_target_of_a_smaller_rank(case, rank):
    Ws0, Phi = problem(case, 40, 3, 0.3)
    Phi = truncate(Phi, rank) if rank else 0 * Phi
    small = compress(Ws0, Phi, 3, 0.3)
    assert worst(Ws0, Phi, small, 0.3, eta=0.2, steps=300) < 1e-12


@pytest.mark.parametrize("lam", [0.0, 1e-2])
@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
def test_exact_with_momentum(case, lam):
    Ws0, Phi = problem(case, 60, 3, 0.3)
    small = compress(Ws0, Phi, 3, 0.3)
    options = dict(method=descent.heavy_ball, eta=0.02, beta=0.9, lam=lam, steps=300)
    path = list(distances(Ws0, Phi, small, 0.3, **options))
    assert max(gap for *_, gap in path) < 1e-12
    assert path[-1][1] < 0.1 * path[0][1]
    if case == 1:
        # The recursion is that of plain descent, and does not fit here.
        rho = parsimony.rho_recursion(0.3, eta=0.02, lam=lam, L=3, steps=300)

        def plain(small, Ws, rest):
            return expand(small, Ws, rho[300])

        assert worst(Ws0, Phi, small, 0.3, every=300, guess=plain, **options) > 1e-4


@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize("L", [1, 2, 3, 5])
def test_the_rest_is_a_network_of_width_one(L, lam):
    rho = parsimony.rho_recursion(0.7, eta=0.2, lam=lam, L=L, steps=200)
    net, zero = scalar_net(0.7, L)
    for it in train(descent.gradient_descent, net, zero, eta=0.2, lam=lam, steps=200):
        assert all(abs(W.item() - rho[it.t]) < 1e-14 for W in it.Ws)


def test_exact_after_30000_steps():
    d, L, eps, eta, steps = 40, 3, 1e-3, 0.3, 30_000
    Ws0, Phi = problem(1, d, L, eps)
    small = compress(Ws0, Phi, 3, eps)
    rho = parsimony.rho_recursion(eps, eta=eta, lam=0.0, L=L, steps=steps)
    # Batches of one run: no iterate is copied between the ones that are compared.
    wide, narrow = (
        batches.batch_descent([W[None] for W in Ws], A[None], eta=eta, steps=steps, every=500)
        for Ws, A in ((Ws0, Phi), (small.Ws, small.Phi))
    )
    for a, b in zip(wide, narrow, strict=True):
        W = dln.end_to_end([W[0] for W in a.Ws])
        guess = expand(small, [W[0] for W in b.Ws], rho[a.t])
        assert (W - guess).norm() < 1e-11 * W.norm()
    assert a.t == steps and a.loss < 1e-12


@pytest.mark.parametrize("eps", [0.3, 1.0])
@pytest.mark.parametrize("rhat", [3, 6])
def test_what_is_missing_without_the_rest(rhat, eps):
    d, L = 30, 3
    Ws0, Phi = problem(1, d, L, eps)
    small = compress(Ws0, Phi, rhat, eps)
    rho = parsimony.rho_recursion(eps, eta=0.1, lam=1e-2, L=L, steps=200).tolist()
    options = dict(eta=0.1, lam=1e-2, steps=200)
    wide = train(descent.gradient_descent, Ws0, Phi, **options)
    narrow = train(descent.gradient_descent, small.Ws, small.Phi, **options)
    for a, b in zip(wide, narrow, strict=True):
        if a.t % 5:
            continue
        missing = dln.end_to_end(a.Ws) - expand(small, b.Ws, 0.0)
        assert missing.norm() == pytest.approx(rho[a.t] ** L * (d - 2 * rhat) ** 0.5, rel=1e-11)
        assert missing.norm() <= eps**L * (d - 2 * rhat) ** 0.5 * (1 + 1e-12)
        assert torch.linalg.matrix_norm(missing, 2) == pytest.approx(rho[a.t] ** L, rel=1e-11)
    assert expand(small, b.Ws, 0).equal(small.U @ dln.end_to_end(b.Ws) @ small.V.T)


def test_the_parts_are_what_they_are_said_to_be():
    d, eps = 30, 0.3
    Ws0, Phi = problem(1, d, 3, eps)
    A = dln.end_to_end(Ws0) / eps**3
    small = compress(Ws0, Phi, 3, eps)
    eye = torch.eye(6, **F64)
    for P in (small.U, small.V):
        assert (P.T @ P - eye).abs().max() < 1e-14
    for W in small.Ws:
        assert W.equal(eps * eye)
    assert (small.U @ small.Phi @ small.V.T - Phi).abs().max() < 1e-14
    assert (small.U - A @ small.V).abs().max() < 1e-14
    U_r, _, Vh = torch.linalg.svd(Phi)
    span = orthonormal(Vh[:3].T, A.T @ U_r[:, :3])
    assert spectra.principal_angles(small.V, span).max() < 1e-13
    left = orthonormal(U_r[:, :3], A @ Vh[:3].T)
    assert spectra.principal_angles(small.U, left).max() < 1e-13
    # The rest maps complement to complement, isometrically.
    sv = torch.linalg.svdvals(small.rest)
    assert (sv[: d - 6] - 1).abs().max() < 1e-13 and sv[d - 6 :].abs().max() < 1e-13
    assert (small.rest @ small.V).abs().max() < 1e-13
    assert (small.U.T @ small.rest).abs().max() < 1e-13


def test_the_parts_in_case_2():
    Ws0, Phi = problem(2, 30, 3, 0.3)
    small = compress(Ws0, Phi, 3, 0.3)
    assert [tuple(W.shape) for W in small.Ws] == [(6, 6), (6, 6), (3, 6)]
    assert small.U.equal(torch.eye(3, **F64)) and small.rest.equal(torch.zeros(3, 30, **F64))
    assert small.Phi.shape == (3, 6)
    assert (small.Phi @ small.V.T - Phi).abs().max() < 1e-14
    assert (expand(small, small.Ws, 0.3) - dln.end_to_end(Ws0)).abs().max() < 1e-15
    W, eps = small.Ws[-1], 0.3
    assert (W @ W.T - eps**2 * torch.eye(3, **F64)).abs().max() < 1e-15


class Shapes(TorchFunctionMode):
    """Note the shape of every tensor that any call returns."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.seen.append(tuple(out.shape))
        return out


def test_a_step_does_not_know_the_width():
    seen = {}
    for d in (50, 100):
        Ws0, Phi = problem(1, d, 3, 0.1)
        small = compress(Ws0, Phi, 3, 0.1)
        assert all(d not in A.shape for A in (*small.Ws, small.Phi))
        for name, Ws, A in (("core", small.Ws, small.Phi), ("wide", Ws0, Phi)):
            with Shapes() as shapes:
                list(train(descent.gradient_descent, Ws, A, eta=0.1, lam=0.1, steps=3))
            seen[name, d] = shapes.seen
    # Not one tensor of a step, nor a call, is another at another width.
    assert seen["core", 50] == seen["core", 100]
    assert set(seen["core", 50]) == {(), (6, 6), (36,)}
    assert set(seen["wide", 100]) == {(), (100, 100), (10_000,)}


# Starts that share directions with the target


@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
def test_an_aligned_start_has_a_core_of_width_r(case, generator):
    _, Phi = problem(case, 40, 3, 0.3)
    Ws0 = dln.aligned_init(Phi, 3, 0.3, generator=generator)
    small = compress(Ws0, Phi, 3, 0.3)
    assert small.V.shape == (40, 3) and small.Phi.shape == (3, 3)
    assert worst(Ws0, Phi, small, 0.3, eta=0.1, lam=1e-2, steps=300) < 1e-12
    # More than the rank keeps more columns, where they exist: in case 2 there are no more rows.
    more = compress(Ws0, Phi, 5, 0.3)
    assert worst(Ws0, Phi, more, 0.3, eta=0.1, lam=1e-2, steps=300) < 1e-12
    if case == 2:
        assert more.V.shape == (40, 3)


def test_an_aligned_core_is_diagonal_and_its_modes_are_scalar_networks(generator):
    eps, L, options = 0.3, 3, dict(eta=0.1, lam=1e-2, steps=200)
    _, Phi = problem(1, 40, L, eps)
    small = compress(dln.aligned_init(Phi, L, eps, generator=generator), Phi, 3, eps)
    P, s, Qh = torch.linalg.svd(small.Phi)
    modes = [
        list(train(descent.gradient_descent, scalar_net(eps, L)[0], value.view(1, 1), **options))
        for value in s
    ]
    for it in train(descent.gradient_descent, small.Ws, small.Phi, **options):
        turned = P.T @ dln.end_to_end(it.Ws) @ Qh.T
        assert off_diagonal(turned) < 1e-13
        saxe = torch.cat([dln.end_to_end(mode[it.t].Ws).view(1) for mode in modes])
        assert (turned.diagonal() - saxe).abs().max() < 1e-13
    # A random start couples the modes on its way.
    Ws0, Phi = problem(1, 40, L, eps)
    core = compress(Ws0, Phi, 3, eps)
    P, _, Qh = torch.linalg.svd(core.Phi)
    *_, it = train(descent.gradient_descent, core.Ws, core.Phi, eta=0.1, steps=40)
    assert off_diagonal(P.T @ dln.end_to_end(it.Ws) @ Qh.T) > 1e-3


@pytest.mark.parametrize(("mode", "output"), [(0, 0), (2, 2), (0, 1)])
def test_one_aligned_mode_of_three_saves_one_direction(mode, output):
    eps = 0.3
    Ws0, Phi = problem(1, 40, 3, eps)
    U_r, _, Vh = torch.linalg.svd(Phi)
    # Reflect the last layer so that the start sends v of that mode to u of that output.
    image = dln.end_to_end(Ws0) @ Vh[mode] / eps**3
    axis = torch.nn.functional.normalize(image - U_r[:, output], dim=0)
    Ws0[-1] = Ws0[-1] - 2 * torch.outer(axis, axis @ Ws0[-1])
    assert (dln.end_to_end(Ws0) @ Vh[mode] / eps**3 - U_r[:, output]).abs().max() < 1e-14
    small = compress(Ws0, Phi, 3, eps)
    assert small.V.shape == (40, 5) and [tuple(W.shape) for W in small.Ws] == [(5, 5)] * 3
    assert worst(Ws0, Phi, small, eps, eta=0.1, lam=1e-2, steps=300) < 1e-12


@pytest.mark.parametrize("tilt", [1e-6, 1e-9, 1e-12, 1e-14, 1e-15])
def test_exact_however_near_a_start_is_to_being_aligned(tilt, generator):
    """Whether the shared direction is kept or not: what hangs on it is below the tolerance."""
    eps = 0.3
    _, Phi = problem(1, 40, 3, eps)
    Ws0 = dln.aligned_init(Phi, 3, eps, generator=generator)
    S = torch.randn(40, 40, generator=generator, **F64)
    Ws0[-1] = torch.linalg.matrix_exp(tilt * (S - S.T)) @ Ws0[-1]
    small = compress(Ws0, Phi, 3, eps)
    assert worst(Ws0, Phi, small, eps, eta=0.1, steps=300) < 1e-12


# What does not obey, or is computed wrongly, must be seen


def test_adam_breaks_it():
    Ws0, Phi = problem(1, 40, 3, 0.3)
    small = compress(Ws0, Phi, 3, 0.3)
    path = list(distances(Ws0, Phi, small, 0.3, method=descent.adam, eta=1e-2, steps=100))
    assert path[0][-1] < 1e-14  # before the first step
    assert all(gap > 0.1 for t, *_, gap in path if 0 < t <= 40)
    assert worst(Ws0, Phi, small, 0.3, eta=0.1, steps=100) < 1e-13


def test_gaussian_layers_are_refused_and_would_not_obey():
    eps = 0.3
    _, Phi = problem(1, 40, 3, eps)
    Ws0 = dln.gaussian_init((40,) * 4, eps, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"Ws0\[0\]: wanted an orthogonal matrix times eps = 0\.3"):
        compress(Ws0, Phi, 3, eps)
    V = right_span(*pieces(Ws0, Phi, eps))
    assert worst(Ws0, Phi, assembled(Ws0, Phi, V, eps), eps, eta=0.1, steps=50) > 1e-2


def pieces(Ws0, Phi, eps, r=3):
    U_r, _, Vh = torch.linalg.svd(Phi)
    return U_r[:, :r], Vh[:r].T, dln.end_to_end(Ws0) / eps ** len(Ws0)


def right_span(U_r, V_r, A):
    return orthonormal(V_r, A.T @ U_r)


def assembled(Ws0, Phi, V, eps, U=None):
    """Put a Compressed together from any basis."""
    A = dln.end_to_end(Ws0) / eps ** len(Ws0)
    U = A @ V if U is None else U
    core = [eps * torch.eye(V.shape[1], **F64) for _ in Ws0]
    return Compressed(core, U.T @ Phi @ V, U, V, A - U @ V.T)


WRONG_BASES = {
    "a-column-too-few": lambda U, V, A: right_span(U, V, A)[:, :-1],
    "the-target-s-alone": lambda U, V, A: V,
    "the-start-s-alone": lambda U, V, A: orthonormal(A.T @ U),
    "A-not-transposed": lambda U, V, A: orthonormal(V, A @ U),
    "left-and-right-exchanged": lambda U, V, A: orthonormal(U, A @ V),
    "left-with-A-transposed": lambda U, V, A: orthonormal(U, A.T @ V),
    "as-in-case-2": lambda U, V, A: orthonormal(V, A[:3].T),
}
WRONG = dict(every=40, eta=0.1, lam=0.05, steps=40)


@pytest.mark.parametrize("wrong", WRONG_BASES.values(), ids=WRONG_BASES)
def test_another_basis_would_not_pass(wrong):
    eps = 0.7
    Ws0, Phi = problem(1, 20, 3, eps)
    parts = pieces(Ws0, Phi, eps)
    right = assembled(Ws0, Phi, right_span(*parts), eps)
    assert worst(Ws0, Phi, right, eps, **WRONG) < 1e-13
    assert worst(Ws0, Phi, assembled(Ws0, Phi, wrong(*parts), eps), eps, **WRONG) > 1e-2


def test_a_column_too_many_would_pass():
    # One more column of the complement is exact too; it only costs.
    eps = 0.7
    Ws0, Phi = problem(1, 20, 3, eps)
    V = right_span(*pieces(Ws0, Phi, eps))
    more = orthonormal(V, torch.ones(20, 1, **F64))
    assert worst(Ws0, Phi, assembled(Ws0, Phi, more, eps), eps, **WRONG) < 1e-13


WRONG_GUESSES = {
    "no-rest": lambda small, Ws, rho: expand(small, Ws, 0.0),
    "a-power-of-rho-less": lambda small, Ws, rho: expand(small, Ws, rho ** (2 / 3)),
    "rho-at-the-start": lambda small, Ws, rho: expand(small, Ws, 0.7),
    "rho-of-case-2": lambda small, Ws, rho: expand(small, Ws, 0.7 * (1 - 0.1 * 0.05) ** 40),
    "rest-with-its-scale": lambda small, Ws, rho: expand(
        small._replace(rest=0.7**3 * small.rest), Ws, rho
    ),
    "rest-not-projected": lambda small, Ws, rho: expand(
        small._replace(rest=small.rest + small.U @ small.V.T), Ws, rho
    ),
    "rest-as-the-identity": lambda small, Ws, rho: expand(
        small._replace(rest=torch.eye(20, **F64) - small.V @ small.V.T), Ws, rho
    ),
    "left-factor-V": lambda small, Ws, rho: expand(small._replace(U=small.V), Ws, rho),
}


@pytest.mark.parametrize("guess", WRONG_GUESSES.values(), ids=WRONG_GUESSES)
def test_another_expansion_would_not_pass(guess):
    Ws0, Phi = problem(1, 20, 3, 0.7)
    small = compress(Ws0, Phi, 3, 0.7)
    assert worst(Ws0, Phi, small, 0.7, **WRONG) < 1e-13
    assert worst(Ws0, Phi, small, 0.7, guess=guess, **WRONG) > 1e-2


WRONG_CORES = {
    "starts-at-one": lambda small: small._replace(Ws=[torch.eye(6, **F64)] * 3),
    "starts-at-eps-to-the-L": lambda small: small._replace(Ws=[0.7**3 * torch.eye(6, **F64)] * 3),
    "a-layer-less": lambda small: small._replace(Ws=small.Ws[:2]),
    "target-transposed": lambda small: small._replace(Phi=small.Phi.T),
}


@pytest.mark.parametrize("wrong", WRONG_CORES.values(), ids=WRONG_CORES)
def test_another_core_would_not_pass(wrong):
    Ws0, Phi = problem(1, 20, 3, 0.7)
    small = wrong(compress(Ws0, Phi, 3, 0.7))
    assert worst(Ws0, Phi, small, 0.7, **WRONG) > 1e-2


# Completion


def sample(d, p, r, seed=1):
    generator = torch.Generator().manual_seed(seed)
    Phi = datasets.low_rank_target(d, d, torch.ones(r, **F64), generator=generator)
    return Phi, torch.rand(d, d, generator=generator, **F64) < p


def stack_basis(G, A, k):
    """Return the leading right singular vectors of [G / |G|; G^T A / (|G| |A|)]."""
    g, a = torch.linalg.matrix_norm(G, 2), torch.linalg.matrix_norm(A, 2)
    return torch.linalg.svd(torch.cat([G / g, G.T @ A / (g * a)])).Vh[:k].T


def test_completion_needs_a_truncated_target():
    d, rhat, eps, p = 200, 5, 1e-2, 0.3
    Phi, Omega = sample(d, p, rhat)
    Ws0 = dln.orthogonal_init((d,) * 4, eps, generator=torch.Generator().manual_seed(0))
    full = Omega * Phi / p
    with pytest.raises(ValueError, match=r"^Phi: .* at most rhat = 5, .*; truncate\(Phi, rhat\)"):
        compress(Ws0, full, rhat, eps)
    G, A = truncate(full, rhat), dln.end_to_end(Ws0)
    V = compress(Ws0, G, rhat, eps).V
    U_r, _, Vh = torch.linalg.svd(full)
    spanned = orthonormal(Vh[:rhat].T, A.T @ U_r[:, :rhat] / eps**3)
    for other in (stack_basis(G, A, 2 * rhat), spanned):
        assert spectra.principal_angles(V, other).max() < 1e-10
    # Of the matrix of full rank the stack's leading vectors are others: by 0.14 here.
    assert spectra.principal_angles(V, stack_basis(full, A, 2 * rhat)).max() > 0.1


def test_completion_is_exact_for_no_core():
    # The masked gradient leaves the span; the whole network does not stay what it is above.
    d, rhat, eps = 60, 2, 0.3
    Phi, Omega = sample(d, 0.5, rhat)
    Ws0 = dln.orthogonal_init((d,) * 4, eps, generator=torch.Generator().manual_seed(0))
    small = compress(Ws0, truncate(2 * Omega * Phi, rhat), rhat, eps)
    residual = losses.masked_residual(Omega, Phi)
    *_, wide = descent.gradient_descent(Ws0, residual, eta=0.1, steps=100)
    W = dln.end_to_end(wide.Ws)
    outside = W - small.U @ small.U.T @ W @ small.V @ small.V.T
    assert torch.linalg.matrix_norm(outside, 2) > 0.1 * torch.linalg.matrix_norm(W, 2)


def test_completion_stalls_unless_the_outer_factors_learn():
    d, rhat, eps, eta, L, steps = 80, 2, 1e-2, 0.5, 3, 1000
    Phi, Omega = sample(d, 0.4, rhat)
    residual = losses.masked_residual(Omega, Phi)
    Ws0 = dln.orthogonal_init((d,) * (L + 1), eps, generator=torch.Generator().manual_seed(0))
    small = compress(Ws0, truncate(Omega * Phi / 0.4, rhat), rhat, eps)

    def recovered(Ws, rates):
        *_, it = descent.gradient_descent(Ws, residual, eta=rates, steps=steps)
        error = (dln.end_to_end(it.Ws) - Phi).norm() / Phi.norm()
        return error.item(), it

    assert recovered(Ws0, eta)[0] < 1e-3
    assert recovered(factors(small), [eta] * (L + 2))[0] < 1e-3
    error, it = recovered(factors(small), [0, *[eta] * L, 0])
    assert error > 0.3
    # Frozen they are, and no core at all would do: the best one by least squares does no better.
    assert it.Ws[0].equal(small.V.T) and it.Ws[-1].equal(small.U)
    rows, cols = Omega.nonzero().T
    design = (small.U[rows][:, :, None] * small.V[cols][:, None, :]).flatten(1)
    best = torch.linalg.lstsq(design, Phi[Omega][:, None]).solution.view(4, 4)
    floor = residual(small.U @ best @ small.V.T)[0]
    assert floor > 1e-2 and it.loss > floor * (1 - 1e-9)
    assert (small.U @ best @ small.V.T - Phi).norm() > 0.3 * Phi.norm()


@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
def test_with_everything_observed_frozen_factors_are_the_core(case):
    Ws0, Phi = problem(case, 30, 3, 0.3)
    small = compress(Ws0, Phi, 3, 0.3)
    layers = factors(small)
    assert len(layers) == 5 and layers[0].shape == (6, 30) and layers[-1].shape == small.U.shape
    rates = [0, 0.1, 0.1, 0.1, 0]
    outer = train(descent.gradient_descent, layers, Phi, eta=rates, lam=1e-2, steps=100)
    core = train(descent.gradient_descent, small.Ws, small.Phi, eta=0.1, lam=1e-2, steps=100)
    for a, b in zip(outer, core, strict=True):
        assert a.Ws[0].equal(small.V.T) and a.Ws[-1].equal(small.U)
        for W, other in zip(a.Ws[1:-1], b.Ws, strict=True):
            assert (W - other).abs().max() < 1e-13
        assert a.loss.item() == pytest.approx(b.loss.item(), rel=1e-10, abs=1e-13)


def test_factors_count():
    d, rhat, L = 30, 3, 4
    Ws0, Phi = problem(1, d, L, 0.3)
    layers = factors(compress(Ws0, Phi, rhat, 0.3))
    k = 2 * rhat
    assert sum(W.numel() for W in layers) == 2 * d * k + L * k**2
    narrow = spectral_init(Phi, k, L, 0.3)
    assert sum(W.numel() for W in narrow) == 2 * d * k + (L - 2) * k**2
    assert sum(W.numel() for W in Ws0) == L * d**2
    assert all(W.is_contiguous() for W in (layers[0], narrow[0]))


def test_factors_have_the_contracted_gradients_of_a_sample():
    d, rhat = 40, 2
    Phi, Omega = sample(d, 0.4, rhat)
    Ws0 = dln.orthogonal_init((d,) * 4, 0.3, generator=torch.Generator().manual_seed(0))
    layers = factors(compress(Ws0, truncate(Omega * Phi / 0.4, rhat), rhat, 0.3))
    *_, it = descent.gradient_descent(
        layers, losses.masked_residual(Omega, Phi), eta=0.1, steps=20
    )  # away from the special start
    rows, cols = Omega.nonzero().T
    seen = sampling.observe(rows, cols, Phi[Omega], (d, d))
    expected = dln.gradients(it.Ws, losses.masked_residual(Omega, Phi))
    for make in (factored.dense_residual, factored.tiled_residual, factored.gathered_residual):
        found = factored.contracted_gradients(it.Ws, make(seen))
        assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
        for G, other in zip(found.grads, expected.grads, strict=True):
            assert (G - other).norm() < 1e-12 * other.norm()


# Truncation


@pytest.mark.parametrize("shape", [(12, 12), (7, 12), (12, 7)])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_truncation_is_the_best_approximation(shape, k, generator):
    M = torch.randn(*shape, generator=generator, **F64)
    best, s = truncate(M, k), torch.linalg.svdvals(M)
    assert best.shape == M.shape and torch.linalg.matrix_rank(best) == k
    assert (M - best).norm() == pytest.approx(s[k:].norm().item(), abs=1e-12)
    assert torch.linalg.svdvals(M - best)[0] == pytest.approx(
        s[k].item() if k < len(s) else 0.0, abs=1e-12
    )
    for _ in range(20):
        P = torch.randn(shape[0], k, generator=generator, **F64)
        # The best competitor with this column space, then ones right beside the optimum.
        other = P @ torch.linalg.lstsq(P, M).solution
        near = truncate(best + 0.01 * torch.randn(*shape, generator=generator, **F64), k)
        for competitor in (other, near):
            for size in (torch.linalg.norm, lambda A: torch.linalg.svdvals(A)[0]):
                assert size(M - competitor) >= size(M - best) - 1e-12


def test_truncation_changes_nothing_that_has_the_rank(generator):
    M = datasets.low_rank_target(9, 12, torch.tensor([3.0, 2.0], **F64), generator=generator)
    for k in (2, 5, 9):
        assert (truncate(M, k) - M).abs().max() < 1e-14


# Scheme (B)


@pytest.mark.parametrize("L", [2, 3, 5])
@pytest.mark.parametrize("shape", [(12, 12), (7, 12), (12, 7)])
def test_spectral_layers(shape, L, generator):
    M, k, eps = torch.randn(*shape, generator=generator, **F64), 4, 0.3
    Ws = spectral_init(M, k, L, eps)
    d_y, d_x = shape
    assert [tuple(W.shape) for W in Ws] == [(k, d_x), *[(k, k)] * (L - 2), (d_y, k)]
    assert sum(W.numel() for W in Ws) == (d_x + d_y) * k + (L - 2) * k**2
    U, _, Vh = torch.linalg.svd(M)
    assert (dln.end_to_end(Ws) - eps**L * U[:, :k] @ Vh[:k]).abs().max() < 1e-14
    for W in Ws:  # every layer has the scale, the two outer ones included
        assert (torch.linalg.svdvals(W) - eps).abs().max() < 1e-14
    for W in Ws[1:-1]:
        assert W.equal(eps * torch.eye(k, **F64))


def test_spectral_layers_do_not_share_memory():
    Ws = spectral_init(torch.eye(6, **F64), 2, 5, 0.1)
    assert len({W.data_ptr() for W in Ws}) == 5
    Ws0, Phi = problem(1, 20, 4, 0.3)
    assert len({W.data_ptr() for W in compress(Ws0, Phi, 3, 0.3).Ws}) == 4


@pytest.mark.parametrize("L", [2, 3])
def test_spectral_start_on_factorisation_stays_in_its_span_and_decouples(L):
    eps, k, options = 0.1, 6, dict(eta=0.1, lam=1e-2, steps=300)
    _, Phi = problem(1, 30, L, eps)
    Ws = spectral_init(Phi, k, L, eps)
    V, U = Ws[0].T / eps, Ws[-1] / eps
    s = [*SIGMA, 0.0, 0.0, 0.0]
    modes = [
        list(
            train(
                descent.gradient_descent,
                scalar_net(eps, L)[0],
                torch.full((1, 1), value, **F64),
                **options,
            )
        )
        for value in s
    ]
    for it in train(descent.gradient_descent, Ws, Phi, **options):
        turned = [it.Ws[0] @ V, *it.Ws[1:-1], U.T @ it.Ws[-1]]
        assert (it.Ws[0] - turned[0] @ V.T).abs().max() < 1e-13
        assert (it.Ws[-1] - U @ turned[-1]).abs().max() < 1e-13
        for l, W in enumerate(turned):
            assert off_diagonal(W) < 1e-13
            alone = torch.cat([mode[it.t].Ws[l].view(1) for mode in modes])
            assert (W.diagonal() - alone).abs().max() < 1e-13
    assert it.loss < 1e-2


def test_spectral_start_follows_no_wide_network():
    eps, L, options = 0.3, 3, dict(eta=0.1, steps=30)
    Ws0, Phi = problem(1, 40, L, eps)
    wide = train(descent.gradient_descent, Ws0, Phi, **options)
    narrow = train(descent.gradient_descent, spectral_init(Phi, 6, L, eps), Phi, **options)
    apart = [
        ((W - dln.end_to_end(b.Ws)).norm() / W.norm()).item()
        for a, b in zip(wide, narrow, strict=True)
        for W in [dln.end_to_end(a.Ws)]
    ]
    assert min(apart) > 0.1


def test_spectral_start_recovers_from_measurements():
    d, r, m, L = 16, 2, 200, 3
    generator = torch.Generator().manual_seed(0)
    Phi = datasets.low_rank_target(d, d, torch.tensor([1.0, 0.8], **F64), generator=generator)
    As = torch.randn(m, d, d, generator=generator, **F64)
    y = (As * Phi).sum((1, 2))
    surrogate = (y[:, None, None] * As).mean(0)
    assert (truncate(surrogate, r) - Phi).norm() > 0.3 * Phi.norm()  # itself it is no answer
    errors = []
    for k in (r, 2 * r):
        Ws = spectral_init(surrogate, k, L, 0.01)
        residual = losses.sensing_residual(As, y)
        *_, it = descent.gradient_descent(Ws, residual, eta=0.2 / m, steps=1000)
        errors.append((dln.end_to_end(it.Ws) - Phi).norm() / Phi.norm())
    # Of twice the width the surplus stays near where it started.
    assert errors[0] < 1e-10 and errors[1] < 1e-2


# The same start from a sample, through its residual


def observed(M, Omega=None):
    rows, cols = (torch.ones_like(M) if Omega is None else Omega).nonzero().T
    return sampling.observe(rows, cols, M[rows, cols], tuple(M.shape))


@pytest.mark.parametrize("make", ["dense_residual", "tiled_residual", "gathered_residual"])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
@pytest.mark.parametrize("L", [2, 4])
def test_sampled_start_is_the_spectral_one(L, shape, make, generator):
    k, eps = 3, 0.1
    Phi = datasets.low_rank_target(
        *shape, torch.tensor([9.0, 6.0, 4.0], **F64), generator=generator
    )
    Omega = torch.rand(*shape, generator=generator, **F64) < 0.8
    seen = getattr(factored, make)(observed(Phi, Omega))
    Q = torch.randn(k, shape[1], generator=generator, **F64)
    start = compression.sampled_spectral_init(
        seen, torch.zeros(shape[0], k, **F64), Q, L, eps, iterations=200
    )
    expected = spectral_init(Omega * Phi, k, L, eps)
    assert [W.shape for W in start.Ws] == [W.shape for W in expected]
    assert (start.s - torch.linalg.svdvals(Omega * Phi)[:k]).abs().max() < 1e-10
    assert (dln.end_to_end(start.Ws) - dln.end_to_end(expected)).abs().max() < 1e-8 * eps**L
    for W in start.Ws:
        assert (torch.linalg.svdvals(W) - eps).abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_directions_that_a_sample_does_not_see_start_at_zero_on_one_side(dtype, generator):
    strengths = torch.tensor([3.0, 1.0], dtype=dtype)
    Phi = datasets.low_rank_target(30, 20, strengths, generator=generator)
    Q = torch.randn(6, 20, generator=generator, dtype=dtype)
    residual = factored.dense_residual(observed(Phi))
    P = torch.zeros(30, 6, dtype=dtype)
    start = compression.sampled_spectral_init(residual, P, Q, 3, 0.1)
    assert start.s[:2].tolist() == pytest.approx([3.0, 1.0], rel=1e-5)
    assert start.Ws[-1][:, 2:].eq(0).all()
    lengths = torch.cat([start.Ws[-1].norm(dim=0)[:2], start.Ws[0].norm(dim=1)])
    assert (lengths - 0.1).abs().max() < 1e-5
    expected = dln.end_to_end(spectral_init(Phi, 2, 3, 0.1))
    assert (dln.end_to_end(start.Ws) - expected).abs().max() < 1e-8


# Device and dtype


@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
def test_device_and_dtype_are_kept(place, case):
    Ws0, Phi = problem(case, 60, 3, 0.3, place.kind)
    small = compress(Ws0, Phi, 3, 0.3)
    assert worst(Ws0, Phi, small, 0.3, eta=0.1, lam=1e-2, steps=300) < place.tolerance
    parts = [*small.Ws, small.Phi, small.U, small.V, small.rest, *factors(small)]
    parts += [truncate(Phi, 2), *spectral_init(Phi, 2, 3, 0.1), expand(small, small.Ws, 0.3)]
    for A in parts:
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]


def test_float32_is_float32():
    Ws0, Phi = problem(1, 60, 3, 0.3, {"dtype": torch.float32})
    small = compress(Ws0, Phi, 3, 0.3)
    assert small.V.shape == (60, 6)
    assert 1e-9 < worst(Ws0, Phi, small, 0.3, eta=0.1, steps=300) < 1e-4
    aligned = dln.aligned_init(Phi, 3, 0.3, generator=torch.Generator().manual_seed(0))
    assert compress(aligned, Phi, 3, 0.3).V.shape == (60, 3)


def test_the_input_is_not_changed():
    Ws0, Phi = problem(1, 20, 3, 0.3)
    copies = [A.clone() for A in (*Ws0, Phi)]
    small = compress(Ws0, Phi, 3, 0.3)
    expand(small, small.Ws, 0.3)
    for W in small.Ws:
        W.zero_()
    assert all(A.equal(copy) for A, copy in zip((*Ws0, Phi), copies, strict=True))


# Messages


def refused(change=lambda Ws, Phi: (Ws, Phi), *, case=1, rhat=3, eps=0.5, sigma=SIGMA):
    def call():
        compress(*change(*problem(case, 9, 3, 0.5, sigma=sigma)), rhat, eps)

    return call


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (refused(lambda Ws, Phi: ([], Phi)), ValueError, "Ws0: wanted at least one matrix"),
        (
            refused(lambda Ws, Phi: (Ws[0], Phi)),
            TypeError,
            "Ws0: wanted a sequence of matrices, got Tensor",
        ),
        (
            refused(lambda Ws, Phi: ([W.long() for W in Ws], Phi)),
            TypeError,
            "Ws0[0]: wanted a floating-point matrix, got torch.int64",
        ),
        (
            refused(lambda Ws, Phi: (dln.orthogonal_init((9, 8, 9), 0.5), Phi)),
            ValueError,
            "Ws0[0]: wanted shape (9, 9), got (8, 9)",
        ),
        (
            refused(lambda Ws, Phi: ([Ws[0], 2 * Ws[1], Ws[2]], Phi)),
            ValueError,
            "Ws0[1]: wanted an orthogonal matrix times eps = 0.5, got a Gram matrix 3.0e+00 away",
        ),
        (
            refused(lambda Ws, Phi: (dln.gaussian_init((9,) * 4, 0.5), Phi)),
            ValueError,
            "Ws0[0]: wanted an orthogonal matrix times eps = 0.5",
        ),
        (refused(eps=0.0), ValueError, "eps: wanted eps > 0, got 0.0"),
        (refused(eps=-0.5), ValueError, "eps: wanted eps > 0, got -0.5"),
        (refused(eps=0.4), ValueError, "Ws0[0]: wanted an orthogonal matrix times eps = 0.4"),
        (
            refused(lambda Ws, Phi: (Ws, Phi[:8])),
            ValueError,
            "Phi: wanted shape (9, 9), got (8, 9)",
        ),
        (
            refused(lambda Ws, Phi: (Ws, Phi.float())),
            ValueError,
            "Phi: wanted torch.float64 on cpu as Ws0[0], got torch.float32 on cpu",
        ),
        (
            refused(lambda Ws, Phi: (Ws, Phi * math.nan)),
            ValueError,
            "Phi: wanted finite entries, got NaN or infinity",
        ),
        (refused(rhat=0), ValueError, "rhat: wanted rhat >= 1, got 0"),
        (refused(rhat=2.0), TypeError, "rhat: wanted a whole number, got 2.0"),
        (
            refused(rhat=5),
            ValueError,
            "rhat: wanted a core below d = 9, got 10 for rhat = 5",
        ),
        (
            refused(rhat=5, case=2, sigma=(1.0,) * 5),
            ValueError,
            "rhat: wanted a core below d = 9, got 10 for rhat = 5",
        ),
        (
            refused(rhat=2),
            ValueError,
            "Phi: wanted a rank of at most rhat = 2, got singular values 0.9 and 0.8 at that "
            "place; truncate(Phi, rhat) makes one",
        ),
        (
            refused(case=2, rhat=2),
            ValueError,
            "d_y: wanted d_y = d = 9 or d_y <= rhat = 2, got d_y = 3; between them part of the "
            "rest shrinks and part is frozen, see parsimony.invariant_subspaces",
        ),
        (
            refused(lambda Ws, Phi: (dln.orthogonal_init((9, 9, 11), 0.5), Phi.new_zeros(11, 9))),
            ValueError,
            "d_y: wanted d_y = d = 9 or d_y <= rhat = 3, got d_y = 11",
        ),
        (lambda: truncate(torch.eye(3), 0), ValueError, "rhat: wanted rhat >= 1, got 0"),
        (lambda: truncate(torch.eye(3)[:2], 3), ValueError, "rhat: wanted at most 2, got 3"),
        (lambda: truncate(torch.eye(3), 1.0), TypeError, "rhat: wanted a whole number, got 1.0"),
        (lambda: truncate(torch.ones(3), 1), ValueError, "M: wanted a matrix, got shape (3,)"),
        (
            lambda: truncate(math.inf * torch.ones(3, 3), 1),
            ValueError,
            "M: wanted finite entries, got NaN or infinity",
        ),
        (
            lambda: spectral_init(torch.eye(3), 1, 1, 0.1),
            ValueError,
            "L: wanted L >= 2, got 1",
        ),
        (
            lambda: spectral_init(torch.eye(3), 4, 2, 0.1),
            ValueError,
            "k: wanted at most 3, got 4",
        ),
        (lambda: spectral_init(torch.eye(3), 0, 2, 0.1), ValueError, "k: wanted k >= 1, got 0"),
        (lambda: spectral_init(torch.eye(3), 1, 2, 0.0), ValueError, "eps: wanted eps > 0"),
        (
            lambda: spectral_init(torch.eye(3).long(), 1, 2, 0.1),
            TypeError,
            "M: wanted a floating-point matrix, got torch.int64",
        ),
    ],
)
def test_hypotheses_are_named(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"L": 1}, "L: wanted L >= 2, got 1"),
        ({"eps": 0.0}, "eps: wanted eps > 0, got 0.0"),
        ({"iterations": 0}, "iterations: wanted iterations >= 1, got 0"),
    ],
)
def test_sampled_start_refuses(options, message):
    residual = factored.dense_residual(observed(torch.eye(3)))
    options = {"L": 2, "eps": 0.1} | options
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        compression.sampled_spectral_init(residual, torch.ones(3, 1), torch.ones(1, 3), **options)


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        (1, lambda Ws: [], "Ws: wanted at least one matrix, got none"),
        # Two of three layers have a product of the right shape, but rho^2 is not rho^3.
        (1, lambda Ws: Ws[:2], "Ws: wanted L = 3 layers, got 2"),
        (1, lambda Ws: [W[:5, :5] for W in Ws], "Ws[0]: wanted shape (6, 6), got (5, 5)"),
        (
            1,
            lambda Ws: [Ws[0][:5], Ws[1][:, :5], Ws[2]],
            "Ws[0]: wanted shape (6, 6), got (5, 6)",
        ),
        (2, lambda Ws: [*Ws[:2], Ws[0]], "Ws[2]: wanted shape (3, 6), got (6, 6)"),
        (1, lambda Ws: [W * math.nan for W in Ws], "Ws[0]: wanted finite entries, got NaN"),
        (1, lambda Ws: [torch.eye(20, **F64)] * 3, "Ws[0]: wanted shape (6, 6), got (20, 20)"),
    ],
)
def test_expand_refuses(case, change, message):
    Ws0, Phi = problem(case, 20, 3, 0.5)
    small = compress(Ws0, Phi, 3, 0.5)
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        expand(small, change(small.Ws), 0.5)
