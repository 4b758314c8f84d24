"""The theorem, run: where gradient descent moves, and the one number that rules the rest."""

import math
import re

import pytest
import torch
from scipy.integrate import solve_ivp

from lop_utils import datasets, descent, dln, losses, parsimony, spectra

F64 = {"dtype": torch.float64}
SIGMA = (1.0, 0.9, 0.8)  # the target's singular values: norm 1, rank r = 3


def problem(case, d, L, eps, kind=F64, sigma=SIGMA):
    """Draw the theorem's start and target; case 1 has d_y = d, case 2 has d_y = r."""
    generator = torch.Generator().manual_seed(0)
    d_y = d if case == 1 else len(sigma)
    Phi = datasets.low_rank_target(d_y, d, torch.tensor(sigma, **kind), generator=generator)
    return dln.orthogonal_init((d,) * L + (d_y,), eps, generator=generator, **kind), Phi


def run(Ws, Phi, *, steps, every=100, **kwargs):
    for it in descent.gradient_descent(Ws, losses.matrix_residual(Phi), steps=steps, **kwargs):
        if it.t % every == 0:
            yield it


def rho_of(case, eps, *, eta, lam, L, steps):
    if case == 1:
        return parsimony.rho_recursion(eps, eta=eta, lam=lam, L=L, steps=steps)
    return parsimony.rho_frozen(eps, eta=eta, lam=lam, steps=steps)


def violation(Ws, spaces, rho):
    """Return how far any layer is from the theorem's form: the largest entry that should be 0."""
    worst = 0.0
    for b in parsimony.blocks(Ws, spaces):
        eye = torch.eye(len(b.rest), dtype=b.rest.dtype, device=b.rest.device)
        for zero in (b.upper, b.lower, b.rest - rho * eye):
            worst = max(worst, zero.abs().max().item())
    return worst


def law_of_end_to_end(Ws, spaces, rho):
    """Rebuild W_{L:1} from the core alone, and rho."""
    k, V_11, V_12 = spaces.core, spaces.V[0][:, : spaces.core], spaces.V[0][:, spaces.core :]
    cores = [b.core for b in parsimony.blocks(Ws, spaces)]
    if spaces.frozen:  # case 2: the last layer has no left basis, and there is no rho term
        return dln.end_to_end([*cores, Ws[-1] @ spaces.V[-1][:, :k]]) @ V_11.T
    U = spaces.U[-1]
    return U[:, :k] @ dln.end_to_end(cores) @ V_11.T + rho ** len(Ws) * U[:, k:] @ V_12.T


# The theorem


@pytest.mark.parametrize("lam", [0.0, 1e-2], ids=lambda lam: f"lam={lam}")
@pytest.mark.parametrize("eps", [1e-3, 1.0], ids=lambda eps: f"eps={eps}")
@pytest.mark.parametrize("L", [2, 5], ids=lambda L: f"L={L}")
@pytest.mark.parametrize("d", [30, 100], ids=lambda d: f"d={d}")
@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
def test_theorem_at_the_corners_of_the_grid(case, d, L, eps, lam):
    r, steps, eta = 3, 2000, 0.05 if (L, eps) == (5, 1.0) else 0.1
    Ws0, Phi = problem(case, d, L, eps)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, r, eps)
    rhos = rho_of(case, eps, eta=eta, lam=lam, L=L, steps=steps).tolist()
    for it in run(Ws0, Phi, eta=eta, lam=lam, steps=steps):
        rho = rhos[it.t]
        assert len(parsimony.blocks(it.Ws, spaces)) == (L if case == 1 else L - 1)
        assert violation(it.Ws, spaces, rho) < 1e-12
        expected = law_of_end_to_end(it.Ws, spaces, rho)
        assert (dln.end_to_end(it.Ws) - expected).abs().max() < 1e-12
        if case == 2:
            assert (it.Ws[-1] @ spaces.V[-1][:, 2 * r :]).abs().max() < 1e-12

    # Exactly 2r singular values have left rho by the last step. The least that any moved in this
    # grid is 1.2e-12 (L = 5, eps = 1e-3, with decay; 5e-11 without); the others stay within 2e-14.
    for W in it.Ws if case == 1 else it.Ws[:-1]:
        left = (torch.linalg.svdvals(W) - rho).abs().sort(descending=True).values
        assert (left > 1e-13).sum() == 2 * r
        assert left[2 * r - 1] > 1e-12 and left[2 * r] < 5e-14


def test_early_a_tiny_start_has_not_left_rho_by_what_float64_can_see():
    # The other side of "exactly 2r leave": one step moves a value by eta eps^(L-1) at most.
    Ws0, Phi = problem(1, 30, 5, 1e-3)
    *_, it = run(Ws0, Phi, eta=0.1, steps=1, every=1)
    rho = parsimony.rho_recursion(1e-3, eta=0.1, lam=0.0, L=5, steps=1)[-1]
    left = (torch.linalg.svdvals(it.Ws[0]) - rho).abs()
    assert left.max() < 0.1 * 1e-3**4
    assert (left > 1e-13).sum() == 0


def test_r_values_rise_and_r_fall():
    Ws0, Phi = problem(1, 30, 3, 0.1)
    *_, it = run(Ws0, Phi, eta=0.1, steps=500)
    rho = parsimony.rho_recursion(0.1, eta=0.1, lam=0.0, L=3, steps=500)[-1]
    for W in it.Ws:
        left = torch.linalg.svdvals(W) - rho
        assert (left[:3] > 1e-3).all() and (left[-3:] < -1e-3).all()
        assert left[3:-3].abs().max() < 1e-14


@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
def test_theorem_in_float32(case):
    kind = {"dtype": torch.float32}
    Ws0, Phi = problem(case, 30, 3, 0.5, kind)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, 3, 0.5)
    rhos = rho_of(case, 0.5, eta=0.1, lam=1e-2, L=3, steps=2000).tolist()
    worst = max(
        violation(it.Ws, spaces, rhos[it.t]) for it in run(Ws0, Phi, eta=0.1, lam=1e-2, steps=2000)
    )
    assert 1e-9 < worst < 1e-4  # float32 indeed


@pytest.mark.parametrize("rhat", [3, 5, 8])
def test_an_upper_bound_of_the_rank_is_enough(rhat):
    Ws0, Phi = problem(1, 30, 3, 0.5)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, rhat, 0.5)
    assert (spaces.core, spaces.shrinking, spaces.frozen) == (2 * rhat, 30 - 2 * rhat, 0)
    rhos = parsimony.rho_recursion(0.5, eta=0.1, lam=0.0, L=3, steps=500).tolist()
    for it in run(Ws0, Phi, eta=0.1, steps=500):
        assert violation(it.Ws, spaces, rhos[it.t]) < 1e-12


def test_a_target_of_a_smaller_rank_than_its_rows():
    Ws0, Phi = problem(2, 30, 3, 0.5)
    Phi[2] = Phi[0] + Phi[1]  # d_y = r = 3, but rank 2
    spaces = parsimony.invariant_subspaces(Ws0, Phi, 3, 0.5)
    for it in run(Ws0, Phi, eta=0.1, steps=500):
        assert violation(it.Ws, spaces, 0.5) < 1e-12


@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
def test_one_layer(case):
    Ws0, Phi = problem(case, 12, 1, 0.5)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, 3, 0.5)
    rhos = rho_of(case, 0.5, eta=0.1, lam=0.1, L=1, steps=100).tolist()
    for it in run(Ws0, Phi, eta=0.1, lam=0.1, steps=100, every=20):
        assert violation(it.Ws, spaces, rhos[it.t]) < 1e-13
        expected = law_of_end_to_end(it.Ws, spaces, rhos[it.t])
        assert (it.Ws[0] - expected).abs().max() < 1e-13


def test_the_law_on_digits():
    images = datasets.load_images("digits")
    white, Y = datasets.whiten(images.X), datasets.one_hot(images.y, 10)
    Phi = Y @ white.X.T
    Ws0 = dln.orthogonal_init((61, 61, 61, 10), 0.5, generator=torch.Generator().manual_seed(0))
    spaces = parsimony.invariant_subspaces(Ws0, Phi, 10, 0.5)
    assert (spaces.core, spaces.shrinking, spaces.frozen) == (20, 0, 41)
    for it in run(Ws0, Phi, eta=1e-3, steps=500):
        assert violation(it.Ws, spaces, 0.5) < 1e-12
    assert it.loss < 0.1 * losses.matrix_residual(Phi)(dln.end_to_end(Ws0))[0]  # it has learned


# What does not obey, or is computed wrongly, must be seen


def test_adam_does_not_obey():
    eps = 0.1
    Ws0, Phi = problem(1, 30, 3, eps)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, 3, eps)
    *_, it = descent.adam(Ws0, losses.matrix_residual(Phi), eta=1e-3, steps=100)
    # Whatever multiple of the identity one would compare with.
    off = max(
        max(b.upper.abs().max().item(), b.lower.abs().max().item())
        for b in parsimony.blocks(it.Ws, spaces)
    )
    best_rho = parsimony.blocks(it.Ws, spaces)[0].rest.diagonal().mean()
    assert off > 1e-1 * eps
    assert violation(it.Ws, spaces, best_rho) > 1e-2 * eps
    *_, it = run(Ws0, Phi, eta=0.1, steps=100)
    rho = parsimony.rho_recursion(eps, eta=0.1, lam=0.0, L=3, steps=100)[-1]
    assert violation(it.Ws, spaces, rho) < 1e-14


def test_gaussian_layers_are_refused_and_would_not_obey():
    _, Phi = problem(1, 30, 3, 0.5)
    Ws0 = dln.gaussian_init((30,) * 4, 0.5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"Ws0\[0\]: wanted an orthogonal matrix times eps = 0\.5"):
        parsimony.invariant_subspaces(Ws0, Phi, 3, 0.5)


def turned(V_1, Ws0, eps, core):
    """Carry a first right basis through the layers, as the theorem does."""
    V, U = [V_1], []
    for W in Ws0:
        U.append(W @ V[-1] / eps)
        V.append(U[-1])
    return parsimony.InvariantSubspaces(V[:-1], U, core, len(V_1) - core, 0)


def right_basis(*rows):
    return torch.linalg.svd(torch.cat([A / A.norm() for A in rows])).Vh.T


D, R, DEPTH, EPS, ETA, LAM = 16, 3, 3, 1.0, 0.1, 0.05
WRONG_BASES = {
    # The gradient at the start also holds eps^(2L-2) W_1, which is not small at eps = 1.
    "from-the-gradient": lambda Ws, Phi, A, G: right_basis(G, G.T @ Ws[0]),
    "from-the-target-alone": lambda Ws, Phi, A, G: right_basis(Phi),
    "from-case-2": lambda Ws, Phi, A, G: right_basis(Phi, A),
    "A-transposed": lambda Ws, Phi, A, G: right_basis(Phi, Phi.T @ A.T),
    "Phi-not-transposed": lambda Ws, Phi, A, G: right_basis(Phi, Phi @ A),
    "left-vectors": lambda Ws, Phi, A, G: right_basis(Phi.T, (Phi.T @ A).T),
}


def small_run():
    Ws0, Phi = problem(1, D, DEPTH, EPS)
    *_, it = run(Ws0, Phi, eta=ETA, lam=LAM, steps=40, every=40)
    return Ws0, Phi, it.Ws, parsimony.rho_recursion(EPS, eta=ETA, lam=LAM, L=DEPTH, steps=40)[-1]


@pytest.mark.parametrize("wrong", WRONG_BASES.values(), ids=WRONG_BASES)
def test_another_basis_would_not_pass(wrong):
    Ws0, Phi, Ws, rho = small_run()
    A, G = dln.end_to_end(Ws0), dln.gradients(Ws0, losses.matrix_residual(Phi)).grads[0]
    spaces = parsimony.invariant_subspaces(Ws0, Phi, R, EPS)
    right = turned(right_basis(Phi, Phi.T @ A), Ws0, EPS, 2 * R)
    assert violation(Ws, spaces, rho) < 1e-13 and violation(Ws, right, rho) < 1e-13
    assert violation(Ws, turned(wrong(Ws0, Phi, A, G), Ws0, EPS, 2 * R), rho) > 1e-2


def test_a_smaller_core_or_another_chain_would_not_pass():
    Ws0, Phi, Ws, rho = small_run()
    spaces = parsimony.invariant_subspaces(Ws0, Phi, R, EPS)
    for wrong in (
        spaces._replace(core=R),
        spaces._replace(core=2 * R - 1),
        spaces._replace(U=spaces.V),
        spaces._replace(V=[spaces.V[0]] * DEPTH),
        spaces._replace(V=spaces.U, U=spaces.V),
    ):
        assert violation(Ws, wrong, rho) > 1e-2


def iterated(step):
    rho = EPS
    for _ in range(40):
        rho = step(rho)
    return rho


WRONG_RHOS = {
    "exponent-L": lambda rho: rho * (1 - ETA * LAM) - ETA * rho**DEPTH,
    "exponent-2L-2": lambda rho: rho * (1 - ETA * LAM) - ETA * rho ** (2 * DEPTH - 2),
    "exponent-2L": lambda rho: rho * (1 - ETA * LAM) - ETA * rho ** (2 * DEPTH),
    "no-decay": lambda rho: rho - ETA * rho ** (2 * DEPTH - 1),
    "frozen": lambda rho: rho * (1 - ETA * LAM),
    "constant": lambda rho: rho,
    "sign": lambda rho: rho * (1 - ETA * LAM) + ETA * rho ** (2 * DEPTH - 1) / 40,
    "mean-loss": lambda rho: rho * (1 - ETA * LAM) - ETA / D**2 * rho ** (2 * DEPTH - 1),
}


@pytest.mark.parametrize("wrong", WRONG_RHOS.values(), ids=WRONG_RHOS)
def test_another_recursion_would_not_pass(wrong):
    Ws0, Phi, Ws, rho = small_run()
    spaces = parsimony.invariant_subspaces(Ws0, Phi, R, EPS)
    assert violation(Ws, spaces, iterated(wrong)) > 1e-3
    true = iterated(lambda rho: rho * (1 - ETA * LAM) - ETA * rho ** (2 * DEPTH - 1))
    assert rho.item() == pytest.approx(true, rel=1e-14)


def test_case_2_does_not_shrink():
    Ws0, Phi = problem(2, D, DEPTH, EPS)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, R, EPS)
    *_, it = run(Ws0, Phi, eta=ETA, steps=40, every=40)
    assert violation(it.Ws, spaces, EPS) < 1e-13
    shrunk = parsimony.rho_recursion(EPS, eta=ETA, lam=0.0, L=DEPTH, steps=40)[-1]
    assert violation(it.Ws, spaces, shrunk) > 0.1


def test_the_end_to_end_matrix_needs_the_rho_term():
    Ws0, Phi, Ws, rho = small_run()
    spaces = parsimony.invariant_subspaces(Ws0, Phi, R, EPS)
    gap = dln.end_to_end(Ws) - law_of_end_to_end(Ws, spaces, 0.0)
    # Exactly what theory says is missing: rho^L times an isometry of d - 2r dimensions.
    assert gap.norm().item() == pytest.approx((rho**DEPTH * (D - 2 * R) ** 0.5).item(), rel=1e-12)


# The bases


@pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])
def test_bases(case):
    d, r, L, eps = 20, 3, 3, 0.3
    Ws0, Phi = problem(case, d, L, eps)
    spaces, A = parsimony.invariant_subspaces(Ws0, Phi, r, eps), dln.end_to_end(Ws0)
    assert len(spaces.V) == L and len(spaces.U) == (L if case == 1 else L - 1)
    assert (spaces.core, spaces.shrinking, spaces.frozen) == (
        (6, 14, 0) if case == 1 else (6, 0, 14)
    )
    for B in spaces.V + spaces.U:
        assert (B.T @ B - torch.eye(d, **F64)).abs().max() < 1e-13
    for U, V in zip(spaces.U, spaces.V[1:], strict=False):
        assert torch.equal(U, V)
    V_11, V_12 = spaces.V[0][:, : 2 * r], spaces.V[0][:, 2 * r :]
    assert (Phi @ V_12).abs().max() < 1e-14
    assert ((Phi.T @ A if case == 1 else A) @ V_12).abs().max() < 1e-14
    # Another route to the core: the target's right vectors, and what A sends to its left ones.
    U_Phi, _, Vh_Phi = torch.linalg.svd(Phi, full_matrices=False)
    span = torch.linalg.qr(torch.cat([Vh_Phi[:r].T, A.T @ U_Phi[:, :r]], dim=1)).Q
    assert spectra.principal_angles(V_11, span).max() < 1e-12
    # At the start every block is what the theorem says: eps I.
    for b in parsimony.blocks(Ws0, spaces):
        assert (b.core - eps * torch.eye(2 * r, **F64)).abs().max() < 1e-14
    assert violation(Ws0, spaces, eps) < 1e-14


def test_blocks_put_together_are_the_layer():
    Ws0, Phi = problem(1, 12, 2, 0.5)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, 3, 0.5)
    Ws = dln.gaussian_init((12, 12, 12), 1.0, generator=torch.Generator().manual_seed(1))
    for b, W, U, V in zip(parsimony.blocks(Ws, spaces), Ws, spaces.U, spaces.V, strict=True):
        assert b.core.shape == (6, 6) and b.upper.shape == b.lower.shape == b.rest.shape == (6, 6)
        B = torch.cat([torch.cat([b.core, b.upper], 1), torch.cat([b.lower, b.rest], 1)])
        assert (U @ B @ V.T - W).abs().max() < 1e-14


def refused(change=None, *, case=1, r=2, eps=0.5):
    Ws0, Phi = problem(case, 9, 3, 0.5, sigma=SIGMA[:2])
    Ws0, Phi = (change or (lambda *both: both))(Ws0, Phi)
    return lambda: parsimony.invariant_subspaces(Ws0, Phi, r, eps)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (refused(lambda Ws, Phi: ([], Phi)), ValueError, "Ws0: wanted at least one matrix"),
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
        (refused(eps=0.0), ValueError, "eps: wanted eps > 0, got 0.0"),
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
        (refused(r=0), ValueError, "r: wanted r >= 1, got 0"),
        (refused(r=2.0), TypeError, "r: wanted a whole number, got 2.0"),
        (
            refused(r=5),
            ValueError,
            "r: wanted 2r < d = 9, got r = 5: the core would fill the space",
        ),
        (refused(r=1), ValueError, "Phi: wanted a rank from 1 to r = 1, got rank 2"),
        (
            refused(lambda Ws, Phi: (Ws, 0 * Phi)),
            ValueError,
            "Phi: wanted a rank from 1 to r = 2, got rank 0",
        ),
        (
            refused(case=2, r=3),
            ValueError,
            "d_y: wanted r = 3 <= d_y <= d = 9, got d_y = 2",
        ),
        (
            refused(eps=[0.5]),
            ValueError,
            "eps: wanted one or L = ",
        ),
    ],
    ids=[
        "no-layer",
        "integers",
        "not-square",
        "one-scaled-layer",
        "eps=0",
        "another-eps",
        "Phi-shape",
        "Phi-dtype",
        "Phi-nan",
        "r=0",
        "fraction",
        "2r>=d",
        "rank-above-r",
        "Phi=0",
        "r>d_y",
        "scales",
    ],
)
def test_hypotheses_are_named(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda Ws: Ws[:2], "Ws: wanted L = 3 layers, got 2"),
        (lambda Ws: [W[:8, :8] for W in Ws], "Ws[0]: wanted shape (9, 9), got (8, 8)"),
        (lambda Ws: [W * math.nan for W in Ws], "Ws[0]: wanted finite entries, got NaN"),
        (
            lambda Ws: [W.float() for W in Ws],
            "Ws[0]: wanted torch.float64 on cpu as V[0], got torch.float32 on cpu",
        ),
    ],
    ids=["L", "shape", "nan", "dtype"],
)
def test_blocks_refuse(change, message):
    Ws0, Phi = problem(1, 9, 3, 0.5)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, 3, 0.5)
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        parsimony.blocks(change(Ws0), spaces)


# The rho recursions and their flows


def test_recursions_start_at_eps_and_follow_their_step():
    rho = parsimony.rho_recursion(0.7, eta=0.2, lam=0.3, L=4, steps=50)
    frozen = parsimony.rho_frozen(0.7, eta=0.2, lam=0.3, steps=50)
    assert rho.shape == frozen.shape == (51,) and rho.dtype == frozen.dtype == torch.float64
    assert rho[0] == frozen[0] == 0.7
    expected = rho[:-1] * (1 - 0.06) - 0.2 * rho[:-1] ** 7
    assert (rho[1:] - expected).abs().max() < 1e-15
    assert (frozen[1:] - frozen[:-1] * (1 - 0.06)).abs().max() < 1e-15
    assert parsimony.rho_recursion(0.7, eta=1, lam=0, L=2, steps=0).tolist() == [0.7]


def test_rho_without_decay():
    assert (parsimony.rho_frozen(0.3, eta=0.1, lam=0.0, steps=9) == 0.3).all()
    one_layer = parsimony.rho_recursion(1.0, eta=0.5, lam=0.0, L=1, steps=5)
    assert one_layer.tolist() == [0.5**t for t in range(6)]


@pytest.mark.parametrize("lam", [0.0, 1e-9, 0.3])
@pytest.mark.parametrize("L", [1, 2, 3, 5])
@pytest.mark.parametrize("eps", [0.1, 1.0, 2.0])
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
    rho = parsimony.rho_flow(eps, tau, lam=lam, L=L)
    assert rho[0] == eps
    assert (rho - torch.from_numpy(solved)).abs().max() < 1e-10 * eps
    # And by the equation itself: autograd's derivative is the right-hand side.
    tau = tau.clone().requires_grad_()
    rho = parsimony.rho_flow(eps, tau, lam=lam, L=L)
    (slope,) = torch.autograd.grad(rho.sum(), tau)
    assert (slope + lam * rho + rho ** (2 * L - 1)).abs().max() < 1e-12 * (
        eps ** (2 * L - 1) + lam * eps
    )


def test_frozen_flow_solves_its_equation():
    tau = torch.linspace(0, 20, 41, **F64).requires_grad_()
    rho = parsimony.rho_frozen_flow(0.7, tau, lam=0.3)
    (slope,) = torch.autograd.grad(rho.sum(), tau)
    assert rho[0] == 0.7 and (slope + 0.3 * rho).abs().max() < 1e-15


@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize("L", [1, 2, 5, None], ids=["L=1", "L=2", "L=5", "frozen"])
def test_recursion_meets_the_flow_at_first_order(L, lam):
    if L is None and lam == 0:
        return  # both are constant
    gaps = []
    for steps in (400, 800, 1600):
        eta = 4 / steps
        tau = eta * torch.arange(steps + 1, **F64)
        if L is None:
            discrete = parsimony.rho_frozen(1.0, eta=eta, lam=lam, steps=steps)
            flow = parsimony.rho_frozen_flow(1.0, tau, lam=lam)
        else:
            discrete = parsimony.rho_recursion(1.0, eta=eta, lam=lam, L=L, steps=steps)
            flow = parsimony.rho_flow(1.0, tau, lam=lam, L=L)
        gaps.append((discrete - flow).abs().max().item())
    assert gaps[0] < 0.02
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("L", [1, 2, 5])
def test_flow_is_continuous_where_the_decay_vanishes(L):
    tau = torch.logspace(-3, 2, 30, **F64)
    limit = parsimony.rho_flow(0.9, tau, lam=0.0, L=L)
    for lam in (1e-9, 1e-15, 1e-100, 1e-300):
        gap = (parsimony.rho_flow(0.9, tau, lam=lam, L=L) - limit).abs() / limit
        assert gap.max() < 2 * lam * 1e2 + 1e-14


@pytest.mark.parametrize("L", [2, 3, 5])
def test_without_decay_rho_fades_like_a_power(L):
    rho = parsimony.rho_flow(0.5, torch.tensor([1e12, 1e14], **F64), lam=0.0, L=L)
    slope = math.log(rho[1] / rho[0]) / math.log(100)
    assert slope == pytest.approx(-1 / (2 * L - 2), abs=1e-6)


def test_with_decay_rho_fades_exponentially():
    rho = parsimony.rho_flow(0.5, torch.tensor([100.0, 101.0], **F64), lam=0.3, L=3)
    assert math.log(rho[1] / rho[0]) == pytest.approx(-0.3, rel=1e-10)


ONE = torch.ones(1)
RECURSIONS = {
    "rho_recursion": lambda eps=1.0, eta=0.1, lam=0.0, L=2, steps=1: parsimony.rho_recursion(
        eps, eta=eta, lam=lam, L=L, steps=steps
    ),
    "rho_frozen": lambda eps=1.0, eta=0.1, lam=0.0, steps=1: parsimony.rho_frozen(
        eps, eta=eta, lam=lam, steps=steps
    ),
    "rho_flow": lambda eps=1.0, tau=ONE, lam=0.0, L=2: parsimony.rho_flow(eps, tau, lam=lam, L=L),
    "rho_frozen_flow": lambda eps=1.0, tau=ONE, lam=0.0: parsimony.rho_frozen_flow(
        eps, tau, lam=lam
    ),
}
DISCRETE, FLOWS = list(RECURSIONS)[:2], list(RECURSIONS)[2:]


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        *[(n, {"eps": 0}, ValueError, "eps: wanted eps > 0, got 0") for n in RECURSIONS],
        *[(n, {"lam": -1}, ValueError, "lam: wanted lam >= 0, got -1") for n in RECURSIONS],
        *[(n, {"eta": 0.0}, ValueError, "eta: wanted eta > 0, got 0.0") for n in DISCRETE],
        *[(n, {"steps": -1}, ValueError, "steps: wanted steps >= 0, got -1") for n in DISCRETE],
        *[
            (n, {"L": 0}, ValueError, "L: wanted L >= 1, got 0")
            for n in ("rho_recursion", "rho_flow")
        ],
        *[
            (n, {"tau": 1.0}, TypeError, "tau: wanted a floating-point tensor, got 1.0")
            for n in FLOWS
        ],
        *[
            (n, {"tau": torch.arange(2)}, TypeError, "tau: wanted a floating-point tensor, got te")
            for n in FLOWS
        ],
        *[
            (n, {"tau": torch.tensor([0, -1.0])}, ValueError, "tau: wanted tau >= 0, got -1")
            for n in FLOWS
        ],
        *[
            (n, {"tau": torch.tensor([0, math.nan])}, ValueError, "tau: wanted tau >= 0, got nan")
            for n in FLOWS
        ],
    ],
)
def test_rho_refuses(name, change, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        RECURSIONS[name](**change)


@pytest.mark.parametrize(
    ("eps", "eta", "L", "t"),
    [
        pytest.param(1e200, 1.0, 2, 1, id="the-power-overflows"),
        pytest.param(1e120, 1.0, 2, 1, id="the-product-overflows"),
        pytest.param(1.0, 1e200, 1, 2, id="one-layer"),
        pytest.param(2.0, 3.0, 3, 5, id="after-some-steps"),
    ],
)
def test_a_recursion_that_diverges_names_the_step_and_eta(eps, eta, L, t):
    message = f"rho: wanted a finite number, overflowed at step t = {t} with eta = {eta:g}"
    parsimony.rho_recursion(eps, eta=eta, lam=0, L=L, steps=t - 1)
    with pytest.raises(FloatingPointError, match=re.escape(message)):
        parsimony.rho_recursion(eps, eta=eta, lam=0, L=L, steps=100)


# Device and dtype


def test_device_and_dtype_are_kept(place):
    Ws0, Phi = problem(1, 12, 2, 0.5, place.kind)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, 3, 0.5)
    (b, _) = parsimony.blocks(Ws0, spaces)
    tau = torch.linspace(0, 3, 4, **place.kind)
    rho, frozen = (
        parsimony.rho_flow(0.5, tau, lam=0.1, L=3),
        parsimony.rho_frozen_flow(0.5, tau, lam=0.1),
    )
    for A in (*spaces.V, *spaces.U, *b, rho, frozen):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    assert violation(Ws0, spaces, 0.5) < place.tolerance
    exact = parsimony.rho_flow(0.5, tau.cpu().double(), lam=0.1, L=3)
    assert (rho.cpu().double() - exact).abs().max() < place.tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_move_on_the_meta_device(dtype):
    kind = {"dtype": dtype, "device": "meta"}
    A, tau = torch.ones(9, 9, **kind), torch.ones(3, **kind)
    (b,) = parsimony.blocks([A], parsimony.InvariantSubspaces([A], [A], 4, 5, 0))
    shapes = [(4, 4), (4, 5), (5, 4), (5, 5), (3,), (3,)]
    flows = [parsimony.rho_flow(1, tau, lam=0, L=2), parsimony.rho_frozen_flow(1, tau, lam=0)]
    for B, shape in zip([*b, *flows], shapes, strict=True):
        assert B.is_meta and B.dtype == dtype and B.shape == shape


# d_y -> how many columns learn, shrink and stay, for d = 30 and r = 3: up to d_y = 2r every output
# adds one to the core, then to what shrinks; the core is largest, 3r, in the middle.
SIZES = {
    3: (6, 0, 24),
    5: (8, 0, 22),
    6: (9, 0, 21),
    8: (9, 2, 19),
    20: (9, 14, 7),
    29: (7, 23, 0),
    30: (6, 24, 0),
}


@pytest.mark.parametrize(("d_y", "sizes"), SIZES.items())
def test_between_the_cases_both_kinds_of_rest_occur(d_y, sizes, generator):
    d, r, L, eps, eta, lam = 30, 3, 3, 0.3, 0.05, 1e-2
    strengths = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    Phi = datasets.low_rank_target(d_y, d, strengths, generator=generator)
    Ws0 = dln.orthogonal_init((d,) * L + (d_y,), eps, generator=generator)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, r, eps)
    assert (spaces.core, spaces.shrinking, spaces.frozen) == sizes
    shrinks = parsimony.rho_recursion(eps, eta=eta, lam=lam, L=L, steps=400)
    stays = parsimony.rho_frozen(eps, eta=eta, lam=lam, steps=400)
    run = descent.gradient_descent(Ws0, losses.matrix_residual(Phi), eta=eta, lam=lam, steps=400)
    for it in run:
        if it.t % 100 == 0:
            rho = torch.cat([shrinks[it.t].expand(sizes[1]), stays[it.t].expand(sizes[2])])
            assert max(parsimony.departure(it.Ws, spaces, rho)) < 1e-12
            # The one rho of either case does not fit where both kinds occur.
            if it.t and sizes[1] and sizes[2]:
                assert parsimony.departure(it.Ws, spaces, shrinks[it.t]).rest > 1e-5


def test_the_core_is_no_larger_than_it_must_be(generator):
    """Of 3r columns none could be left out: each one of them is moved."""
    d, r, d_y, eps = 30, 3, 12, 0.3
    strengths = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    Phi = datasets.low_rank_target(d_y, d, strengths, generator=generator)
    Ws0 = dln.orthogonal_init((d, d, d, d_y), eps, generator=generator)
    spaces = parsimony.invariant_subspaces(Ws0, Phi, r, eps)
    *_, last = descent.gradient_descent(Ws0, losses.matrix_residual(Phi), eta=0.05, steps=400)
    core = parsimony.blocks(last.Ws, spaces)[1].core
    rho = parsimony.rho_recursion(eps, eta=0.05, lam=0.0, L=3, steps=400)[-1]
    sv = torch.linalg.svdvals(core)
    assert (torch.minimum((sv - rho).abs(), (sv - eps).abs()) > 1e-6).all()


@pytest.mark.parametrize("lam", [0.0, 1e-2])
def test_layers_of_unequal_scale_have_a_rho_each(lam, generator):
    d, r, eta, scales = 30, 3, 0.05, (0.15, 0.3, 0.6)
    strengths = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    Phi = datasets.low_rank_target(d, d, strengths, generator=generator)
    Ws0 = [
        scale * W
        for scale, W in zip(
            scales, dln.orthogonal_init((d,) * 4, 1.0, generator=generator), strict=True
        )
    ]
    spaces = parsimony.invariant_subspaces(Ws0, Phi, r, scales)
    rhos = parsimony.rho_scales(scales, eta=eta, lam=lam, steps=400)
    *_, last = descent.gradient_descent(
        Ws0, losses.matrix_residual(Phi), eta=eta, lam=lam, steps=400
    )
    for rho, cut in zip(rhos[-1], parsimony.blocks(last.Ws, spaces), strict=True):
        assert (cut.rest - rho * torch.eye(d - 2 * r, dtype=rho.dtype)).abs().max() < 1e-12
        assert max(cut.upper.abs().max(), cut.lower.abs().max()) < 1e-12


def test_rho_scales_with_equal_scales_is_rho_recursion():
    one = parsimony.rho_recursion(0.7, eta=0.1, lam=0.01, L=4, steps=50)
    each = parsimony.rho_scales([0.7] * 4, eta=0.1, lam=0.01, steps=50)
    assert (each - one[:, None]).abs().max() < 1e-14
    with pytest.raises(ValueError, match=re.escape("eps[1]: wanted eps[1] > 0, got 0")):
        parsimony.rho_scales([1.0, 0.0], eta=0.1, lam=0.0, steps=1)
