"""Wide networks as narrow ones: scheme (A) against the full run, scheme (B) against its claims."""

import re

import pytest
import torch
from low_rank import F64, SIGMA, low_rank_target, problem
from torch.overrides import TorchFunctionMode

from lop_utils import compression, descent, factored, init, law, losses, rules, spectra
from lop_utils.compression import Compressed, compress, low_rank_approximation, reconstruct
from lop_utils.networks import end_to_end
from lop_utils.observed import ObservedEntries

CASES = pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])


def width_one(eps, L, target=0.0):
    """Return what the complement is: a network of width one, to be trained on the target 0."""
    return [torch.full((1, 1), eps, **F64)] * L, torch.full((1, 1), target, **F64)


def train(Ws, Phi, **options):
    return descent.train(Ws, losses.squared_error(Phi), **options)


def distances(Ws0, Phi, small, eps, *, every=10, guess=reconstruct, **options):
    """Train wide, narrow and complement; yield the time, both losses, the relative distance."""
    pairs = (Ws0, Phi), (small.Ws, small.Phi), width_one(eps, len(Ws0))
    for wide, narrow, one in zip(
        *(train(*pair, every=every, **options) for pair in pairs), strict=True
    ):
        W = end_to_end(wide.Ws)
        gap = (W - guess(small, narrow.Ws, one.Ws[0].squeeze().to(W))).norm() / W.norm()
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
    path = list(distances(Ws0, Phi, small, eps, eta=0.5, steps=400, every=20))
    assert max(gap for *_, gap in path) < 1e-12
    assert path[-1][1] < 0.2 * path[0][1]  # it has learned in the meantime


@pytest.mark.parametrize("lam", [0.0, 1e-2])
@pytest.mark.parametrize(("L", "eps"), [(1, 0.1), (2, 1.0), (3, 0.1), (5, 0.1), (5, 1.0)])
@CASES
def test_exact_in_depth_scale_decay_and_case(case, L, eps, lam):
    Ws0, Phi = problem(case, 40, L, eps)
    small = compress(Ws0, Phi, 3, eps)
    assert small.V.shape == (40, 6)
    eta = 0.05 if (L, eps) == (5, 1.0) else 0.1
    assert worst(Ws0, Phi, small, eps, eta=eta, lam=lam, steps=200) < 1e-12


@CASES
def test_other_ranks_than_the_target_has_cost_no_exactness(case):
    Ws0, Phi = problem(case, 40, 3, 0.3)
    targets = [0 * Phi, *(low_rank_approximation(Phi, rank) for rank in (1, 2, 3))]
    for rhat in (3, 8):
        for target in targets:
            small = compress(Ws0, target, rhat, 0.3)
            assert worst(Ws0, target, small, 0.3, eta=0.1, lam=1e-2, steps=100) < 1e-12
        # In case 2 only d_y rows can be seen, however large rhat.
        assert small.V.shape == (40, 2 * rhat if case == 1 else 6)
    if case == 2:
        assert compress(Ws0, Phi, 30, 0.3).V.shape == (40, 6)  # twice 30 is more than d


@pytest.mark.parametrize("lam", [0.0, 1e-2])
@CASES
def test_exact_with_momentum(case, lam):
    Ws0, Phi = problem(case, 40, 3, 0.3)
    small = compress(Ws0, Phi, 3, 0.3)
    options = dict(rule=rules.momentum(0.9), eta=0.02, lam=lam, steps=200)
    path = list(distances(Ws0, Phi, small, 0.3, **options))
    assert max(gap for *_, gap in path) < 1e-12 and path[-1][1] < 0.1 * path[0][1]
    if case == 1:
        # The recursion is that of plain descent, and does not fit here.
        rho = law.rho_recursion(0.3, eta=0.02, lam=lam, L=3, steps=200)[-1]
        *_, last = distances(
            Ws0, Phi, small, 0.3, guess=lambda *a: reconstruct(*a[:2], rho), **options
        )
        assert last[-1] > 1e-4


def test_exact_after_30000_steps():
    L, eps, eta, steps = 3, 1e-3, 0.3, 30_000
    Ws0, Phi = problem(1, 20, L, eps)
    small = compress(Ws0, Phi, 3, eps)
    rho = law.rho_recursion(eps, eta=eta, lam=0.0, L=L, steps=steps)
    options = dict(eta=eta, steps=steps, every=1000)
    for a, b in zip(train(Ws0, Phi, **options), train(small.Ws, small.Phi, **options), strict=True):
        W = end_to_end(a.Ws)
        assert (W - reconstruct(small, b.Ws, rho[a.t])).norm() < 1e-11 * W.norm()
    assert a.t == steps and a.loss < 1e-12


@pytest.mark.parametrize("eps", [0.3, 1.0])
@pytest.mark.parametrize("rhat", [3, 6])
def test_what_is_missing_without_the_complement(rhat, eps):
    d, L = 30, 3
    Ws0, Phi = problem(1, d, L, eps)
    small = compress(Ws0, Phi, rhat, eps)
    options = dict(eta=0.1, lam=1e-2, steps=200)
    rho = law.rho_recursion(eps, L=L, **options).tolist()
    for a, b in zip(
        train(Ws0, Phi, every=10, **options),
        train(small.Ws, small.Phi, every=10, **options),
        strict=True,
    ):
        missing = end_to_end(a.Ws) - reconstruct(small, b.Ws, 0.0)
        assert missing.norm() == pytest.approx(rho[a.t] ** L * (d - 2 * rhat) ** 0.5, rel=1e-11)
        assert torch.linalg.matrix_norm(missing, 2) == pytest.approx(rho[a.t] ** L, rel=1e-11)
    assert reconstruct(small, b.Ws, 0).equal(small.U @ end_to_end(b.Ws) @ small.V.T)


def test_the_parts_are_what_they_are_said_to_be():
    d, eps = 30, 0.3
    Ws0, Phi = problem(1, d, 3, eps)
    A, small, eye = end_to_end(Ws0) / eps**3, compress(Ws0, Phi, 3, eps), torch.eye(6, **F64)
    for P in (small.U, small.V):
        assert (P.T @ P - eye).abs().max() < 1e-14
    assert all(W.equal(eps * eye) for W in small.Ws)
    assert (small.U @ small.Phi @ small.V.T - Phi).abs().max() < 1e-14
    assert (small.U - A @ small.V).abs().max() < 1e-14
    U_r, _, Vh = torch.linalg.svd(Phi)
    span = orthonormal(Vh[:3].T, A.T @ U_r[:, :3])
    assert spectra.principal_angles(small.V, span).max() < 1e-13
    # The complement is mapped to a complement, isometrically.
    sv = torch.linalg.svdvals(small.complement)
    assert (sv[: d - 6] - 1).abs().max() < 1e-13 and sv[d - 6 :].abs().max() < 1e-13
    assert (small.complement @ small.V).abs().max() < 1e-13
    assert (small.U.T @ small.complement).abs().max() < 1e-13


def test_the_parts_in_case_2():
    eps, eye = 0.3, torch.eye(3, **F64)
    Ws0, Phi = problem(2, 30, 3, eps)
    small = compress(Ws0, Phi, 3, eps)
    assert [tuple(W.shape) for W in small.Ws] == [(6, 6), (6, 6), (3, 6)]
    assert small.U.equal(eye) and small.complement.equal(torch.zeros(3, 30, **F64))
    assert small.Phi.shape == (3, 6) and (small.Phi @ small.V.T - Phi).abs().max() < 1e-14
    assert (reconstruct(small, small.Ws, 0.3) - end_to_end(Ws0)).abs().max() < 1e-15
    assert (small.Ws[-1] @ small.Ws[-1].T - eps**2 * eye).abs().max() < 1e-15


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
        for name, Ws, A in (("core", small.Ws, small.Phi), ("wide", Ws0, Phi)):
            with Shapes() as shapes:
                list(train(Ws, A, eta=0.1, lam=0.1, steps=3))
            seen[name, d] = shapes.seen
    # Not one tensor of a step, nor a call, is another at another width.
    assert seen["core", 50] == seen["core", 100]
    assert set(seen["core", 50]) == {(), (6, 6), (36,)}
    assert set(seen["wide", 100]) == {(), (100, 100), (10_000,)}


# Starts that share directions with the target


@CASES
def test_an_aligned_start_has_a_core_of_width_r(case):
    _, Phi = problem(case, 40, 3, 0.3)
    Ws0 = init.aligned(Phi, 3, 0.3, generator=0)
    small = compress(Ws0, Phi, 3, 0.3)
    assert small.V.shape == (40, 3) and small.Phi.shape == (3, 3)
    assert worst(Ws0, Phi, small, 0.3, eta=0.1, lam=1e-2, steps=200) < 1e-12
    # More than the rank keeps more columns, where they exist: in case 2 there are no more rows.
    more = compress(Ws0, Phi, 5, 0.3)
    assert worst(Ws0, Phi, more, 0.3, eta=0.1, lam=1e-2, steps=200) < 1e-12
    assert more.V.shape == (40, 5 if case == 1 else 3)


def test_an_aligned_core_is_diagonal_and_its_modes_are_networks_of_width_one():
    eps, L, options = 0.3, 3, dict(eta=0.1, lam=1e-2, steps=100)
    Ws0, Phi = problem(1, 40, L, eps)
    small = compress(init.aligned(Phi, L, eps, generator=0), Phi, 3, eps)
    P, s, Qh = torch.linalg.svd(small.Phi)
    modes = [list(train(*width_one(eps, L, value), **options)) for value in s.tolist()]
    for it in train(small.Ws, small.Phi, **options):
        turned = P.T @ end_to_end(it.Ws) @ Qh.T
        assert off_diagonal(turned) < 1e-13
        saxe = torch.cat([end_to_end(mode[it.t].Ws).view(1) for mode in modes])
        assert (turned.diagonal() - saxe).abs().max() < 1e-13
    # A random start couples the modes on its way.
    core = compress(Ws0, Phi, 3, eps)
    P, _, Qh = torch.linalg.svd(core.Phi)
    *_, it = train(core.Ws, core.Phi, eta=0.1, steps=40)
    assert off_diagonal(P.T @ end_to_end(it.Ws) @ Qh.T) > 1e-3


@pytest.mark.parametrize(("mode", "output"), [(0, 0), (2, 2), (0, 1)])
def test_one_aligned_mode_of_three_saves_one_direction(mode, output):
    Ws0, Phi = problem(1, 40, 3, 0.3)
    U_r, _, Vh = torch.linalg.svd(Phi)
    # Reflect the last layer so that the start sends v of that mode to u of that output.
    image = end_to_end(Ws0) @ Vh[mode] / 0.3**3
    axis = torch.nn.functional.normalize(image - U_r[:, output], dim=0)
    Ws0[-1] = Ws0[-1] - 2 * torch.outer(axis, axis @ Ws0[-1])
    small = compress(Ws0, Phi, 3, 0.3)
    assert [tuple(W.shape) for W in small.Ws] == [(5, 5)] * 3
    assert worst(Ws0, Phi, small, 0.3, eta=0.1, lam=1e-2, steps=200) < 1e-12


@pytest.mark.parametrize("tilt", [1e-6, 1e-9, 1e-12, 1e-14, 1e-15])
def test_exact_however_near_a_start_is_to_being_aligned(tilt, generator):
    """Whether the shared direction is kept or not: what hangs on it is below the tolerance."""
    eps = 0.3
    _, Phi = problem(1, 40, 3, eps)
    Ws0 = init.aligned(Phi, 3, eps, generator=generator)
    S = torch.randn(40, 40, generator=generator, **F64)
    Ws0[-1] = torch.linalg.matrix_exp(tilt * (S - S.T)) @ Ws0[-1]
    small = compress(Ws0, Phi, 3, eps)
    assert small.V.shape[1] == (6 if tilt > 1e-12 else 3) or tilt == 1e-12
    assert worst(Ws0, Phi, small, eps, eta=0.1, steps=200) < 1e-12


# What does not obey, or is computed wrongly, must be seen


def pieces(Ws0, Phi, eps):
    U_r, _, Vh = torch.linalg.svd(Phi)
    return U_r[:, :3], Vh[:3].T, end_to_end(Ws0) / eps ** len(Ws0)


def right_span(U_r, V_r, A):
    return orthonormal(V_r, A.T @ U_r)


def assembled(Ws0, Phi, V, eps):
    """Put a Compressed together from any basis."""
    A = end_to_end(Ws0) / eps ** len(Ws0)
    core = [eps * torch.eye(V.shape[1], **F64) for _ in Ws0]
    return Compressed(core, (A @ V).T @ Phi @ V, A @ V, V, A - A @ V @ V.T)


def test_adam_and_gaussian_layers_break_it():
    Ws0, Phi = problem(1, 40, 3, 0.3)
    small, adam = compress(Ws0, Phi, 3, 0.3), rules.from_torch(torch.optim.Adam)
    path = list(distances(Ws0, Phi, small, 0.3, rule=adam, eta=1e-2, steps=40))
    assert path[0][-1] < 1e-14  # before the first step
    assert all(gap > 0.1 for t, *_, gap in path if t)
    assert worst(Ws0, Phi, small, 0.3, eta=0.1, steps=100) < 1e-13
    Ws0 = init.gaussian((40,) * 4, 0.3, generator=0)
    V = right_span(*pieces(Ws0, Phi, 0.3))
    assert worst(Ws0, Phi, assembled(Ws0, Phi, V, 0.3), 0.3, eta=0.1, steps=50) > 1e-2


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


@pytest.fixture(scope="module")
def parts():
    Ws0, Phi = problem(1, 20, 3, 0.7)
    return Ws0, Phi, compress(Ws0, Phi, 3, 0.7)


@pytest.mark.parametrize("wrong", WRONG_BASES.values(), ids=WRONG_BASES)
def test_another_basis_would_not_pass(wrong, parts):
    Ws0, Phi, _ = parts
    V = right_span(*pieces(Ws0, Phi, 0.7))
    # One more column of the complement is exact too; it only costs.
    for exact in (V, orthonormal(V, torch.ones(20, 1, **F64))):
        assert worst(Ws0, Phi, assembled(Ws0, Phi, exact, 0.7), 0.7, **WRONG) < 1e-13
    V = wrong(*pieces(Ws0, Phi, 0.7))
    assert worst(Ws0, Phi, assembled(Ws0, Phi, V, 0.7), 0.7, **WRONG) > 1e-2


EYE, LATE = torch.eye(6, **F64), 0.7 * (1 - 0.1 * 0.05) ** 40
WRONG_GUESSES = {
    "no-complement": lambda s, rho: (s.complement, 0.0),
    "a-power-of-rho-less": lambda s, rho: (s.complement, rho ** (2 / 3)),
    "rho-at-the-start": lambda s, rho: (s.complement, 0.7),
    "rho-of-case-2": lambda s, rho: (s.complement, LATE),
    "with-its-scale": lambda s, rho: (0.7**3 * s.complement, rho),
    "not-projected": lambda s, rho: (s.complement + s.U @ s.V.T, rho),
    "as-the-identity": lambda s, rho: (torch.eye(20, **F64) - s.V @ s.V.T, rho),
}


@pytest.mark.parametrize("wrong", WRONG_GUESSES.values(), ids=WRONG_GUESSES)
def test_another_reconstruction_would_not_pass(wrong, parts):
    def guess(small, Ws, rho):
        complement, rho = wrong(small, rho)
        return reconstruct(small._replace(complement=complement), Ws, rho)

    assert worst(*parts, 0.7, **WRONG) < 1e-13 < 1e-2 < worst(*parts, 0.7, guess=guess, **WRONG)


WRONG_CORES = {
    "starts-at-one": lambda small: dict(Ws=[EYE] * 3),
    "starts-at-eps-to-the-L": lambda small: dict(Ws=[0.7**3 * EYE] * 3),
    "a-layer-less": lambda small: dict(Ws=small.Ws[:2]),
    "target-transposed": lambda small: dict(Phi=small.Phi.T),
    "left-factor-V": lambda small: dict(U=small.V),
}


@pytest.mark.parametrize("wrong", WRONG_CORES.values(), ids=WRONG_CORES)
def test_another_core_would_not_pass(wrong, parts):
    Ws0, Phi, small = parts
    assert worst(Ws0, Phi, small._replace(**wrong(small)), 0.7, **WRONG) > 1e-2


# Completion


def sample(d, p, r, seed=1):
    generator = torch.Generator().manual_seed(seed)
    Phi = low_rank_target(d, d, torch.ones(r, **F64), generator=generator)
    return Phi, torch.rand(d, d, generator=generator, **F64) < p


def stack_basis(G, A, k):
    """Return the leading right singular vectors of [G / |G|; G^T A / (|G| |A|)]."""
    g, a = torch.linalg.matrix_norm(G, 2), torch.linalg.matrix_norm(A, 2)
    return torch.linalg.svd(torch.cat([G / g, G.T @ A / (g * a)])).Vh[:k].T


def test_completion_needs_a_truncated_target_and_is_exact_for_no_core():
    d, rhat, eps, p = 100, 3, 0.3, 0.5
    Phi, Omega = sample(d, p, rhat)
    Ws0, full = init.orthogonal((d,) * 4, eps, generator=0), Omega * Phi / p
    with pytest.raises(ValueError, match=r"^Phi: .* at most rhat = 3, .*; low_rank_approx"):
        compress(Ws0, full, rhat, eps)
    G, A = low_rank_approximation(full, rhat), end_to_end(Ws0)
    small = compress(Ws0, G, rhat, eps)
    assert spectra.principal_angles(small.V, stack_basis(G, A, 2 * rhat)).max() < 1e-10
    # Of the matrix of full rank the stack's leading vectors are others.
    assert spectra.principal_angles(small.V, stack_basis(full, A, 2 * rhat)).max() > 0.05
    # The masked gradient leaves the span; the whole network does not stay what it is above.
    *_, wide = descent.train(Ws0, losses.masked(Omega, Phi), eta=0.1, steps=100)
    W = end_to_end(wide.Ws)
    outside = W - small.U @ small.U.T @ W @ small.V @ small.V.T
    assert torch.linalg.matrix_norm(outside, 2) > 0.1 * torch.linalg.matrix_norm(W, 2)


def test_completion_stalls_unless_the_outer_factors_learn():
    d, rhat, eps, eta, L = 60, 2, 1e-2, 0.5, 3
    Phi, Omega = sample(d, 0.4, rhat)
    loss, Ws0 = losses.masked(Omega, Phi), init.orthogonal((d,) * (L + 1), eps, generator=0)
    small = compress(Ws0, low_rank_approximation(Omega * Phi / 0.4, rhat), rhat, eps)
    layers = compression.with_outer_layers(small)

    def recovered(Ws, rates):
        *_, it = descent.train(Ws, loss, eta=rates, steps=1000, every=1000)
        return ((end_to_end(it.Ws) - Phi).norm() / Phi.norm()).item(), it

    assert recovered(Ws0, eta)[0] < 1e-3
    assert recovered(layers, [eta] * (L + 2))[0] < 1e-3
    error, it = recovered(layers, [0, *[eta] * L, 0])
    assert error > 0.3
    # Frozen they are, and no core at all would do: the best one by least squares does no better.
    assert it.Ws[0].equal(small.V.T) and it.Ws[-1].equal(small.U)
    rows, cols = Omega.nonzero().T
    design = (small.U[rows][:, :, None] * small.V[cols][:, None, :]).flatten(1)
    best = torch.linalg.lstsq(design, Phi[Omega][:, None]).solution.view(4, 4)
    floor = loss([small.U @ best @ small.V.T]).value
    assert floor > 1e-2 and it.loss > floor * (1 - 1e-9)
    # Away from the special start the sample's own losses have these gradients.
    Ws = [W + 0.1 for W in layers]
    seen = ObservedEntries(rows, cols, Phi[Omega], (d, d))
    expected, found = loss(Ws), factored.of_factors(factored.tiled_loss(seen))(Ws)
    for G, other in zip(found.grads, expected.grads, strict=True):
        assert (G - other).norm() < 1e-12 * other.norm()


@CASES
def test_with_everything_observed_frozen_factors_are_the_core(case):
    Ws0, Phi = problem(case, 30, 3, 0.3)
    small = compress(Ws0, Phi, 3, 0.3)
    layers = compression.with_outer_layers(small)
    assert len(layers) == 5 and layers[0].is_contiguous()
    assert layers[0].shape == (6, 30) and layers[-1].shape == small.U.shape
    outer = train(layers, Phi, eta=[0, 0.1, 0.1, 0.1, 0], lam=1e-2, steps=100)
    core = train(small.Ws, small.Phi, eta=0.1, lam=1e-2, steps=100)
    for a, b in zip(outer, core, strict=True):
        assert a.Ws[0].equal(small.V.T) and a.Ws[-1].equal(small.U)
        for W, other in zip(a.Ws[1:-1], b.Ws, strict=True):
            assert (W - other).abs().max() < 1e-13
        assert a.loss.item() == pytest.approx(b.loss.item(), rel=1e-10, abs=1e-13)


# The best approximation


@pytest.mark.parametrize("shape", [(12, 12), (7, 12), (12, 7)])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_best_approximation(shape, k, generator):
    M = torch.randn(*shape, generator=generator, **F64)
    best, s = low_rank_approximation(M, k), torch.linalg.svdvals(M)
    assert best.shape == M.shape and torch.linalg.matrix_rank(best) == k
    assert (M - best).norm() == pytest.approx(s[k:].norm().item(), abs=1e-12)
    left = s[k].item() if k < len(s) else 0.0
    assert torch.linalg.svdvals(M - best)[0] == pytest.approx(left, abs=1e-12)
    again = low_rank_approximation(best, k)  # what has the rank is not changed
    assert (again - best).abs().max() < 1e-14


# Scheme (B)


@pytest.mark.parametrize("L", [2, 3])
def test_spectral_start_on_factorisation_stays_in_its_span_and_decouples(L):
    eps, k, options = 0.1, 6, dict(eta=0.1, lam=1e-2, steps=200)
    Ws0, Phi = problem(1, 30, L, eps)
    Ws = init.spectral(Phi, k, L, eps)
    V, U = Ws[0].T / eps, Ws[-1] / eps
    modes = [list(train(*width_one(eps, L, s), **options)) for s in (*SIGMA, 0.0, 0.0, 0.0)]
    for it in train(Ws, Phi, **options):
        turned = [it.Ws[0] @ V, *it.Ws[1:-1], U.T @ it.Ws[-1]]
        assert (it.Ws[0] - turned[0] @ V.T).abs().max() < 1e-13
        assert (it.Ws[-1] - U @ turned[-1]).abs().max() < 1e-13
        for l, W in enumerate(turned):
            assert off_diagonal(W) < 1e-13
            alone = torch.cat([mode[it.t].Ws[l].view(1) for mode in modes])
            assert (W.diagonal() - alone).abs().max() < 1e-13
    # It follows no wide network.
    apart = [
        ((end_to_end(a.Ws) - end_to_end(b.Ws)).norm() / end_to_end(a.Ws).norm()).item()
        for a, b in zip(train(Ws0, Phi, **options), train(Ws, Phi, **options), strict=True)
    ]
    assert max(apart) > 0.1


def test_spectral_start_recovers_from_measurements():
    d, r, m, L = 16, 2, 200, 3
    generator = torch.Generator().manual_seed(0)
    Phi = low_rank_target(d, d, torch.tensor([1.0, 0.8], **F64), generator=generator)
    As = torch.randn(m, d, d, generator=generator, **F64)
    y = (As * Phi).sum((1, 2))
    surrogate = (y[:, None, None] * As).mean(0)
    # Itself it is no answer.
    assert (low_rank_approximation(surrogate, r) - Phi).norm() > 0.3 * Phi.norm()
    for k, bound in ((r, 1e-7), (2 * r, 1e-2)):
        Ws, loss = init.spectral(surrogate, k, L, 0.01), losses.sensing(As, y)
        *_, it = descent.train(Ws, loss, eta=0.2 / m, steps=1000, every=1000)
        # Of twice the width the surplus stays near where it started.
        assert (end_to_end(it.Ws) - Phi).norm() < bound * Phi.norm()


# How large a step may be


@pytest.mark.parametrize("s", [0.7, 3.0])
@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("L", [2, 3, 4])
def test_stable_step_sizes_are_the_curvature_of_the_fitted_layers(L, gamma, s):
    """Two over the largest eigenvalue of the scaled Hessian, by automatic differentiation."""
    inner = (s / gamma) ** (1 / L)
    outer = gamma**0.5 * inner
    w = torch.tensor([outer, *[inner] * (L - 2), outer], **F64)
    assert w.prod().item() == pytest.approx(s)
    rates = torch.tensor([gamma, *[1.0] * (L - 2), gamma], **F64)
    hessian = torch.autograd.functional.hessian(lambda w: 0.5 * (w.prod() - s) ** 2, w)
    scaled = rates.sqrt()[:, None] * hessian * rates.sqrt()
    expected = 2 / torch.linalg.eigvalsh(scaled).max().item()
    assert compression.stable_eta(s, gamma, L) == pytest.approx(expected, rel=1e-12)
    assert compression.stable_gamma(s, expected, L) == pytest.approx(gamma, rel=1e-12)


# Device and dtype


@CASES
def test_device_and_dtype_are_kept(place, case):
    Ws0, Phi = problem(case, 40, 3, 0.3, place.kind)
    small = compress(Ws0, Phi, 3, 0.3)
    error = worst(Ws0, Phi, small, 0.3, eta=0.1, lam=1e-2, steps=200)
    assert error < place.tolerance and (error > 1e-9 or place.tolerance < 1e-9)
    parts = [*small.Ws, small.Phi, small.U, small.V, small.complement]
    parts += [*compression.with_outer_layers(small), low_rank_approximation(Phi, 2)]
    for A in (*parts, reconstruct(small, small.Ws, 0.3)):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    aligned = init.aligned(Phi, 3, 0.3, generator=0)
    assert compress(aligned, Phi, 3, 0.3).V.shape == (40, 3)


def test_the_input_is_not_changed_and_layers_share_no_memory():
    Ws0, Phi = problem(1, 20, 3, 0.3)
    copies = [A.clone() for A in (*Ws0, Phi)]
    small = compress(Ws0, Phi, 3, 0.3)
    reconstruct(small, small.Ws, 0.3)
    assert len({W.data_ptr() for W in small.Ws}) == 3
    for W in small.Ws:
        W.zero_()
    assert all(A.equal(copy) for A, copy in zip((*Ws0, Phi), copies, strict=True))


# Messages

WS, TARGET = problem(1, 9, 3, 0.5)
SMALL, CASE_2 = compress(WS, TARGET, 3, 0.5), problem(2, 9, 3, 0.5)
BROAD = init.orthogonal((9, 9, 11), 0.5), torch.zeros(11, 9, **F64)


def find(Ws=WS, Phi=TARGET, rhat=3, eps=0.5):
    return compress(Ws, Phi, rhat, eps)


def rebuilt(Ws, small=SMALL):
    return reconstruct(small, Ws, 0.5)


GRAM = "wanted an orthogonal matrix times eps = "
MESSAGES = {
    "Ws0[0]: wanted shape (9, 9), got (8, 9)": lambda: find(init.orthogonal((9, 8, 9), 0.5)),
    f"Ws0[1]: {GRAM}0.5, got a Gram matrix 3.0e+00": lambda: find([WS[0], 2 * WS[1], WS[2]]),
    f"Ws0[0]: {GRAM}0.5": lambda: find(init.gaussian((9,) * 4, 0.5)),
    f"Ws0[0]: {GRAM}0.4": lambda: find(eps=0.4),
    "eps: wanted eps > 0, got 0.0": lambda: find(eps=0.0),
    "Phi: wanted shape (9, 9), got (8, 9)": lambda: find(Phi=TARGET[:8]),
    "Phi: wanted torch.float64 on cpu as Ws0[0], got": lambda: find(Phi=TARGET.float()),
    "rhat: wanted rhat >= 1, got 0": lambda: find(rhat=0),
    "rhat: wanted a core below d = 9, got 10 for rhat = 5": lambda: find(rhat=5),
    "rhat: wanted a core below d = 4, got 4 for rhat = 2": lambda: compress(
        init.orthogonal((4, 4), 0.1), torch.eye(4, **F64), 2, 0.1
    ),
    "rhat: wanted a core below d = 9, got 10 for rhat = 6": lambda: find(
        *problem(2, 9, 3, 0.5, sigma=(1.0,) * 5), rhat=6
    ),
    "Phi: wanted a rank of at most rhat = 2, got singular values 0.9 and 0.8 at that place; "
    "low_rank_approximation(Phi, rhat) makes one": lambda: find(rhat=2),
    "d_y: wanted d_y = d = 9 or d_y <= rhat = 2, got d_y = 3; between them part of the complement "
    "shrinks and part is frozen, see law.invariant_subspaces": lambda: find(*CASE_2, rhat=2),
    "d_y: wanted d_y = d = 9 or d_y <= rhat = 3, got d_y = 11": lambda: find(*BROAD),
    "rhat: wanted at most 2, got 3": lambda: low_rank_approximation(torch.eye(3)[:2], 3),
    "rhat: wanted rhat >= 1, got 0 ": lambda: low_rank_approximation(torch.eye(3), 0),
    # Two of three layers have a product of the right shape, but rho^2 is not rho^3.
    "Ws: wanted L = 3 layers, got 2": lambda: rebuilt(SMALL.Ws[:2]),
    "Ws[0]: wanted shape (6, 6), got (5, 5)": lambda: rebuilt([torch.eye(5, **F64)] * 3),
    "Ws[2]: wanted shape (3, 6), got (6, 6)": lambda: rebuilt(SMALL.Ws, find(*CASE_2)),
    "s: wanted s > 0, got 0.0": lambda: compression.stable_eta(0.0, 1.0, 2),
    "gamma: wanted gamma > 0, got 0.0": lambda: compression.stable_eta(1.0, 0.0, 2),
    "L: wanted L >= 2, got 1": lambda: compression.stable_eta(1.0, 1.0, 1),
    "s: wanted s > 0, got 0.0 ": lambda: compression.stable_gamma(0.0, 1.0, 2),
    "eta: wanted eta > 0, got 0.0": lambda: compression.stable_gamma(1.0, 0.0, 2),
    "L: wanted L >= 2, got 1 ": lambda: compression.stable_gamma(1.0, 1.0, 1),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_hypotheses_are_named(message):
    with pytest.raises(ValueError, match="^" + re.escape(message.rstrip())):
        MESSAGES[message]()


def test_a_core_that_is_just_narrower_than_the_network():
    assert find(rhat=4).V.shape == (9, 8)
