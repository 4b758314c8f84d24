"""The theorem, run: where gradient descent moves, and the one number that rules the rest."""

import re

import pytest
import torch
from low_rank import F64, SIGMA, low_rank_target, problem
from sklearn.datasets import load_digits

from lop_utils import descent, init, law, losses, rules, spectra
from lop_utils.networks import end_to_end

CASES = pytest.mark.parametrize("case", [1, 2], ids=["case-1", "case-2"])


def run(Ws, Phi, *, steps, every=100, **options):
    return descent.train(Ws, losses.squared_error(Phi), steps=steps, every=every, **options)


def rho_of(case, eps, *, eta, lam, L, steps):
    if case == 1:
        return law.rho_recursion(eps, eta=eta, lam=lam, L=L, steps=steps)
    return eps * (1 - eta * lam) ** torch.arange(steps + 1.0, dtype=torch.float64)


def violation(Ws, spaces, rho):
    """Return how far any layer is from the theorem's form: the largest entry that should be 0."""
    worst = 0.0
    for b in law.block_form(Ws, spaces):
        eye = torch.eye(len(b.complement)).to(b.complement)
        for zero in (b.upper, b.lower, b.complement - rho * eye):
            worst = max(worst, zero.abs().max().item())
    assert worst == max(law.block_errors(Ws, spaces, rho)).item()
    return worst


def law_of_end_to_end(Ws, spaces, rho):
    """Rebuild W_{L:1} from the core alone, and rho."""
    k, V_11, V_12 = spaces.core, spaces.V[0][:, : spaces.core], spaces.V[0][:, spaces.core :]
    cores = [b.core for b in law.block_form(Ws, spaces)]
    if spaces.frozen:  # case 2: the last layer has no left basis, and there is no rho term
        return end_to_end([*cores, Ws[-1] @ spaces.V[-1][:, :k]]) @ V_11.T
    U = spaces.U[-1]
    return U[:, :k] @ end_to_end(cores) @ V_11.T + rho ** len(Ws) * U[:, k:] @ V_12.T


# The theorem


@pytest.mark.parametrize("lam", [0.0, 1e-2])
@pytest.mark.parametrize(
    ("d", "L", "eps"), [(30, 1, 0.5), (30, 2, 1.0), (30, 5, 1.0), (60, 2, 1e-3), (30, 5, 1e-3)]
)
@CASES
def test_theorem(case, d, L, eps, lam):
    r, steps, eta = 3, 2000, 0.05 if (L, eps) == (5, 1.0) else 0.1
    Ws0, Phi = problem(case, d, L, eps)
    spaces = law.invariant_subspaces(Ws0, Phi, r, eps)
    assert spaces[2:] == ((6, d - 6, 0) if case == 1 else (6, 0, d - 6))
    rhos = rho_of(case, eps, eta=eta, lam=lam, L=L, steps=steps).tolist()
    for it in run(Ws0, Phi, eta=eta, lam=lam, steps=steps, every=200):
        rho = rhos[it.t]
        assert len(law.block_form(it.Ws, spaces)) == (L if case == 1 else L - 1)
        if (case, L) != (2, 1):
            assert violation(it.Ws, spaces, rho) < 1e-12
        expected = law_of_end_to_end(it.Ws, spaces, rho)
        assert (end_to_end(it.Ws) - expected).abs().max() < 1e-12
        if case == 2:
            assert (it.Ws[-1] @ spaces.V[-1][:, 2 * r :]).abs().max() < 1e-12
    # Exactly 2r singular values have left rho by the last step. The least that any moved here
    # is 1.2e-12 (L = 5, eps = 1e-3, with decay; 5e-11 without); the others stay within 2e-14.
    for W in it.Ws if case == 1 else it.Ws[:-1]:
        left = (torch.linalg.svdvals(W) - rho).abs().sort(descending=True).values
        assert (left > 1e-13).sum() == 2 * r or L == 1
        assert (left[2 * r - 1] > 1e-12 or L == 1) and left[2 * r] < 5e-14


def test_early_a_tiny_start_has_not_left_rho_by_what_float64_can_see():
    # The other side of "exactly 2r leave": one step moves a value by eta eps^(L-1) at most.
    Ws0, Phi = problem(1, 30, 5, 1e-3)
    *_, it = run(Ws0, Phi, eta=0.1, steps=1)
    rho = law.rho_recursion(1e-3, eta=0.1, lam=0.0, L=5, steps=1)[-1]
    assert (torch.linalg.svdvals(it.Ws[0]) - rho).abs().max() < 0.1 * 1e-3**4


def test_r_values_rise_and_r_fall():
    Ws0, Phi = problem(1, 30, 3, 0.1)
    *_, it = run(Ws0, Phi, eta=0.1, steps=500)
    rho = law.rho_recursion(0.1, eta=0.1, lam=0.0, L=3, steps=500)[-1]
    for W in it.Ws:
        left = torch.linalg.svdvals(W) - rho
        assert (left[:3] > 1e-3).all() and (left[-3:] < -1e-3).all()
        assert left[3:-3].abs().max() < 1e-14


def test_an_upper_bound_of_the_rank_and_a_smaller_rank_are_enough():
    Ws0, Phi = problem(1, 30, 3, 0.5)
    rhos = law.rho_recursion(0.5, eta=0.1, lam=0.0, L=3, steps=300).tolist()
    for rhat in (3, 5, 8):
        spaces = law.invariant_subspaces(Ws0, Phi, rhat, 0.5)
        assert spaces[2:] == (2 * rhat, 30 - 2 * rhat, 0)
        for it in run(Ws0, Phi, eta=0.1, steps=300):
            assert violation(it.Ws, spaces, rhos[it.t]) < 1e-12
    Ws0, Phi = problem(2, 30, 3, 0.5)
    Phi[2] = Phi[0] + Phi[1]  # d_y = r = 3, but rank 2
    spaces = law.invariant_subspaces(Ws0, Phi, 3, 0.5)
    for it in run(Ws0, Phi, eta=0.1, steps=300):
        assert violation(it.Ws, spaces, 0.5) < 1e-12


def test_whatever_the_units_of_target_and_start():
    for unit, eps in ((1e-9, 0.5), (1e9, 0.5), (1.0, 1e-4), (1.0, 1e3)):
        Ws0, Phi = problem(1, 30, 3, eps)
        spaces = law.invariant_subspaces(Ws0, unit * Phi, 3, eps)
        expected = law.invariant_subspaces(*problem(1, 30, 3, 0.5), 3, 0.5)
        angles = spectra.principal_angles(spaces.V[0][:, :6], expected.V[0][:, :6])
        assert angles.max() < 1e-12


def test_the_law_on_digits():
    digits = load_digits()
    _, s, Vh = torch.linalg.svd(torch.from_numpy(digits.data.T), full_matrices=False)
    white = Vh[s > 1e-9 * s[0]]  # 61 pixels ever vary
    Phi = torch.nn.functional.one_hot(torch.from_numpy(digits.target)).double().T @ white.T
    Ws0 = init.orthogonal((61, 61, 61, 10), 0.5, generator=0)
    spaces = law.invariant_subspaces(Ws0, Phi, 10, 0.5)
    assert spaces[2:] == (20, 0, 41)
    for it in run(Ws0, Phi, eta=1e-3, steps=500, every=250):
        assert violation(it.Ws, spaces, 0.5) < 1e-12
    assert it.loss < 0.1 * losses.squared_error(Phi)(Ws0).value  # it has learned


# d_y -> how many columns learn, shrink and stay, for d = 30 and r = 3: up to d_y = 2r every output
# adds one to the core, then to what shrinks; the core is largest, 3r, in the middle.
SIZES = {3: (6, 0, 24), 5: (8, 0, 22), 6: (9, 0, 21), 7: (9, 1, 20), 12: (9, 6, 15)}
SIZES |= {29: (7, 23, 0), 30: (6, 24, 0)}


@pytest.mark.parametrize(("d_y", "sizes"), SIZES.items())
def test_between_the_cases_both_kinds_of_rest_occur(d_y, sizes, generator):
    d, r, L, eps, eta, lam = 30, 3, 3, 0.3, 0.05, 1e-2
    Phi = low_rank_target(d_y, d, torch.tensor([3.0, 2, 1], **F64), generator=generator)
    Ws0 = init.orthogonal((d,) * L + (d_y,), eps, generator=generator)
    spaces = law.invariant_subspaces(Ws0, Phi, r, eps)
    assert spaces[2:] == sizes
    shrinks = law.rho_recursion(eps, eta=eta, lam=lam, L=L, steps=400)
    stays = rho_of(2, eps, eta=eta, lam=lam, L=L, steps=400)
    for it in run(Ws0, Phi, eta=eta, lam=lam, steps=400):
        rho = torch.cat([shrinks[it.t].expand(sizes[1]), stays[it.t].expand(sizes[2])])
        assert max(law.block_errors(it.Ws, spaces, rho)) < 1e-12
        # The one rho of either case does not fit where both kinds occur.
        if it.t and sizes[1] and sizes[2]:
            assert law.block_errors(it.Ws, spaces, shrinks[it.t]).complement > 1e-5
    # Of the core's columns none could be left out: each one of them is moved.
    sv = torch.linalg.svdvals(law.block_form(it.Ws, spaces)[1].core)
    away = torch.minimum((sv - shrinks[-1]).abs(), (sv - stays[-1]).abs())
    assert (away > 1e-6).all()


@pytest.mark.parametrize("lam", [0.0, 1e-2])
def test_layers_of_unequal_scale_have_a_rho_each(lam, generator):
    d, eta, scales = 30, 0.05, (0.15, 0.3, 0.6)
    Phi = low_rank_target(d, d, torch.tensor([3.0, 2, 1], **F64), generator=generator)
    Ws0 = init.orthogonal((d,) * 4, 1.0, generator=generator)
    Ws0 = [scale * W for scale, W in zip(scales, Ws0, strict=True)]
    spaces = law.invariant_subspaces(Ws0, Phi, 3, scales)
    rhos = law.rho_recursion(scales, eta=eta, lam=lam, L=3, steps=400)
    for it in run(Ws0, Phi, eta=eta, lam=lam, steps=400):
        rho = rhos[it.t]
        assert max(law.block_errors(it.Ws, spaces, rho)) < 1e-12  # shape (L,)
        assert max(law.block_errors(it.Ws, spaces, rho.tolist())) < 1e-12
        assert max(law.block_errors(it.Ws, spaces, rho[:, None].expand(3, 24))) < 1e-12
        assert law.block_errors(it.Ws, spaces, rho.flip(0)).complement > 0.1


def test_the_worst_layer_counts():
    Ws0, Phi = problem(1, 12, 3, 0.5)
    spaces = law.invariant_subspaces(Ws0, Phi, 3, 0.5)
    for l in range(3):
        for row, col, which in ((0, 7, 0), (7, 0, 0), (7, 8, 1), (9, 9, 1)):
            B = torch.zeros(12, 12, **F64)
            B[row, col] = -0.25
            Ws = [W.clone() for W in Ws0]
            Ws[l] += spaces.U[l] @ B @ spaces.V[l].T
            errors = law.block_errors(Ws, spaces, 0.5)
            assert errors[which].item() == pytest.approx(0.25, abs=1e-12)
            assert errors[1 - which].item() < 1e-12


def test_as_many_columns_as_layers_are_columns():
    # L = 3 layers, d - 2r = 3 columns: three numbers are those of the columns.
    Ws0, Phi = problem(1, 9, 3, 0.5)
    spaces = law.invariant_subspaces(Ws0, Phi, 3, 0.5)
    Ws = [U @ torch.diag(torch.tensor([0.0] * 6 + [1, 2, 3], **F64)) @ V.T
          for U, V in zip(spaces.U, spaces.V, strict=True)]  # fmt: skip
    assert max(law.block_errors(Ws, spaces, [1.0, 2.0, 3.0])) < 1e-13


# What does not obey, or is computed wrongly, must be seen


def test_the_rule_decides():
    Ws0, Phi = problem(1, 30, 3, 0.1)
    spaces = law.invariant_subspaces(Ws0, Phi, 3, 0.1)
    adam = rules.from_torch(torch.optim.Adam)
    *_, it = run(Ws0, Phi, rule=adam, eta=1e-3, steps=100)
    # Whatever multiple of the identity one would compare with.
    best_rho = law.block_form(it.Ws, spaces)[0].complement.diagonal().mean()
    assert law.block_errors(it.Ws, spaces, best_rho).off_diagonal > 1e-2
    assert law.block_errors(it.Ws, spaces, best_rho).complement > 1e-3
    *_, it = run(Ws0, Phi, eta=0.1, steps=100)
    rho = law.rho_recursion(0.1, eta=0.1, lam=0.0, L=3, steps=100)[-1]
    assert violation(it.Ws, spaces, rho) < 1e-14
    # With momentum the spaces are the same, the number is another.
    *_, it = run(Ws0, Phi, rule=rules.momentum(0.9), eta=0.02, lam=0.1, steps=100)
    errors = law.block_errors(it.Ws, spaces, law.block_form(it.Ws, spaces)[0].complement[0, 0])
    assert max(errors) < 1e-14
    rho = law.rho_recursion(0.1, eta=0.02, lam=0.1, L=3, steps=100)[-1]
    assert law.block_errors(it.Ws, spaces, rho).complement > 1e-3


def turned(V_1, Ws0, eps, core):
    """Carry a first right basis through the layers, as the theorem does."""
    V, U = [V_1], []
    for W in Ws0:
        U.append(W @ V[-1] / eps)
        V.append(U[-1])
    return law.InvariantSubspaces(V[:-1], U, core, len(V_1) - core, 0)


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


@pytest.fixture(scope="module")
def small():
    Ws0, Phi = problem(1, D, DEPTH, EPS)
    *_, it = run(Ws0, Phi, eta=ETA, lam=LAM, steps=40)
    rho = law.rho_recursion(EPS, eta=ETA, lam=LAM, L=DEPTH, steps=40)[-1].item()
    return Ws0, Phi, it.Ws, law.invariant_subspaces(Ws0, Phi, R, EPS), rho


@pytest.mark.parametrize("wrong", WRONG_BASES.values(), ids=WRONG_BASES)
def test_another_basis_would_not_pass(wrong, small):
    Ws0, Phi, Ws, spaces, rho = small
    A, G = end_to_end(Ws0), losses.squared_error(Phi)(Ws0).grads[0]
    right = turned(right_basis(Phi, Phi.T @ A), Ws0, EPS, 2 * R)
    assert violation(Ws, spaces, rho) < 1e-13 and violation(Ws, right, rho) < 1e-13
    assert violation(Ws, turned(wrong(Ws0, Phi, A, G), Ws0, EPS, 2 * R), rho) > 1e-2


def test_a_smaller_core_or_another_chain_would_not_pass(small):
    _, _, Ws, spaces, rho = small
    for wrong in (
        dict(core=R, shrinking=D - R),
        dict(core=2 * R - 1, shrinking=D - 2 * R + 1),
        dict(U=spaces.V),
        dict(V=[spaces.V[0]] * DEPTH),
        dict(V=spaces.U, U=spaces.V),
    ):
        assert violation(Ws, spaces._replace(**wrong), rho) > 1e-2


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
def test_another_recursion_would_not_pass(wrong, small):
    _, _, Ws, spaces, _ = small
    rho = EPS
    for _ in range(40):
        rho = wrong(rho)
    assert violation(Ws, spaces, rho) > 1e-3


def test_case_2_does_not_shrink():
    Ws0, Phi = problem(2, D, DEPTH, EPS)
    spaces = law.invariant_subspaces(Ws0, Phi, R, EPS)
    *_, it = run(Ws0, Phi, eta=ETA, steps=40)
    assert violation(it.Ws, spaces, EPS) < 1e-13
    shrunk = law.rho_recursion(EPS, eta=ETA, lam=0.0, L=DEPTH, steps=40)[-1]
    assert violation(it.Ws, spaces, shrunk) > 0.1


def test_the_end_to_end_matrix_needs_the_rho_term(small):
    _, _, Ws, spaces, rho = small
    gap = end_to_end(Ws) - law_of_end_to_end(Ws, spaces, 0.0)
    # Exactly what theory says is missing: rho^L times an isometry of d - 2r dimensions.
    assert gap.norm().item() == pytest.approx(rho**DEPTH * (D - 2 * R) ** 0.5, rel=1e-12)


# The bases


@CASES
def test_bases(case):
    d, r, L, eps = 20, 3, 3, 0.3
    Ws0, Phi = problem(case, d, L, eps)
    spaces, A = law.invariant_subspaces(Ws0, Phi, r, eps), end_to_end(Ws0)
    assert len(spaces.V) == L and len(spaces.U) == (L if case == 1 else L - 1)
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
    for b in law.block_form(Ws0, spaces):
        assert (b.core - eps * torch.eye(2 * r, **F64)).abs().max() < 1e-14
    assert violation(Ws0, spaces, eps) < 1e-14


def test_blocks_put_together_are_the_layer():
    Ws0, Phi = problem(1, 13, 2, 0.5)
    spaces = law.invariant_subspaces(Ws0, Phi, 3, 0.5)
    Ws = init.gaussian((13, 13, 13), 1.0, generator=1)
    for b, W, U, V in zip(law.block_form(Ws, spaces), Ws, spaces.U, spaces.V, strict=True):
        assert [B.shape for B in b] == [(6, 6), (6, 7), (7, 6), (7, 7)]
        B = torch.cat([torch.cat([b.core, b.upper], 1), torch.cat([b.lower, b.complement], 1)])
        assert (U @ B @ V.T - W).abs().max() < 1e-14


@CASES
def test_theorem_on_each_device_and_dtype(case, place):
    Ws0, Phi = problem(case, 20, 3, 0.5, place.kind)
    spaces = law.invariant_subspaces(Ws0, Phi, 3, 0.5)
    rhos = rho_of(case, 0.5, eta=0.1, lam=1e-2, L=3, steps=500).tolist()
    for it in run(Ws0, Phi, eta=0.1, lam=1e-2, steps=500):
        assert violation(it.Ws, spaces, rhos[it.t]) < place.tolerance
        parts = [*spaces.V, *spaces.U, *law.block_form(it.Ws, spaces)[0]]
        for A in (*parts, *law.block_errors(it.Ws, spaces, 0.5)):
            assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_move_on_the_meta_device(dtype):
    A = torch.ones(9, 9, dtype=dtype, device="meta")
    (b,) = law.block_form([A], law.InvariantSubspaces([A], [A], 4, 5, 0))
    for B, shape in zip(b, [(4, 4), (4, 5), (5, 4), (5, 5)], strict=True):
        assert B.is_meta and B.dtype == dtype and B.shape == shape


# Messages

WS, TARGET = problem(1, 9, 3, 0.5, sigma=SIGMA[:2])
SPACES = law.invariant_subspaces(WS, TARGET, 2, 0.5)
WIDE, NARROW = init.orthogonal((9, 9, 11), 0.5), problem(2, 9, 3, 0.5, sigma=SIGMA[:2])


def find(Ws=WS, Phi=TARGET, r=2, eps=0.5):
    return law.invariant_subspaces(Ws, Phi, r, eps)


def errors(*shape):
    return law.block_errors(WS, SPACES, torch.ones(shape))


GRAM = "wanted an orthogonal matrix times eps = "
MESSAGES = {
    "Ws0[0]: wanted shape (9, 9), got (8, 9)": lambda: find(init.orthogonal((9, 8, 9), 0.5)),
    f"Ws0[1]: {GRAM}0.5, got a Gram matrix 3.0e+00": lambda: find([WS[0], 2 * WS[1], WS[2]]),
    f"Ws0[0]: {GRAM}0.5": lambda: find(init.gaussian((9,) * 4, 0.5)),
    f"Ws0[2]: {GRAM}0.4": lambda: find(eps=[0.5, 0.5, 0.4]),
    "eps: wanted eps > 0, got 0.0": lambda: find(eps=0.0),
    "eps: wanted one or L = 3 scales, got 1": lambda: find(eps=[0.5]),
    "Phi: wanted shape (9, 9), got (8, 9)": lambda: find(Phi=TARGET[:8]),
    "Phi: wanted torch.float64 on cpu as Ws0[0], got": lambda: find(Phi=TARGET.float()),
    "r: wanted r >= 1, got 0": lambda: find(r=0),
    "r: wanted 2r < d = 9, got r = 5: the core would fill the space": lambda: find(r=5),
    "r: wanted 2r < d = 8, got r = 4: the core would fill the space": lambda: (
        law.invariant_subspaces(init.orthogonal((8, 8), 0.1), torch.eye(8, **F64), 4, 0.1)
    ),
    "Phi: wanted a rank from 1 to r = 1, got rank 2": lambda: find(r=1),
    "Phi: wanted a rank from 1 to r = 2, got rank 0": lambda: find(Phi=0 * TARGET),
    "d_y: wanted r = 3 <= d_y <= d = 9, got d_y = 2": lambda: find(*NARROW, r=3),
    "d_y: wanted r = 2 <= d_y <= d = 9, got d_y = 11": lambda: find(WIDE, torch.ones(11, 9, **F64)),
    "Ws: wanted L = 3 layers, got 2": lambda: law.block_form(WS[:2], SPACES),
    "Ws[0]: wanted shape (9, 9), got (8, 8)": lambda: law.block_form([torch.eye(8)] * 3, SPACES),
    "Ws[0]: wanted torch.float64 on cpu as V[0], got": lambda: law.block_form(
        [W.float() for W in WS], SPACES
    ),
    "rho: wanted one number, L = 3 or 5 of them, got shape (4,)": lambda: errors(4),
    "rho: wanted one number, L = 3 or 5 of them, got shape (5, 3)": lambda: errors(5, 3),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_hypotheses_are_named(message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        MESSAGES[message]()


def test_a_core_that_just_leaves_something():
    assert find(*problem(1, 9, 2, 0.5), r=4).shrinking == 1


def test_a_target_of_rank_one_is_enough():
    Ws, Phi = init.orthogonal((5, 5), 0.1, generator=0), torch.zeros(5, 5, **F64)
    Phi[0, 0] = 2.0
    assert law.invariant_subspaces(Ws, Phi, 1, 0.1).core == 2


def test_no_scale_of_the_layers_is_lost():
    # In float32 the product of three layers of 1e-15 would be zero, and its basis NaN.
    Ws = init.orthogonal((9, 9, 9, 9), 1e-15, generator=0, dtype=torch.float32)
    Phi = torch.zeros(9, 9)
    Phi[0, 0] = 1.0
    spaces = law.invariant_subspaces(Ws, Phi, r=1, eps=1e-15)
    assert law.block_errors(Ws, spaces, 1e-15).off_diagonal < 1e-21


# The one number


def test_rho_starts_at_eps_and_follows_its_step():
    rho = law.rho_recursion(0.7, eta=0.2, lam=0.3, L=4, steps=50)
    assert rho.shape == (51,) and rho.dtype == torch.float64 and rho[0] == 0.7
    expected = rho[:-1] * (1 - 0.06) - 0.2 * rho[:-1] ** 7
    assert (rho[1:] - expected).abs().max() < 1e-15
    assert law.rho_recursion(0.7, eta=1, lam=0, L=2, steps=0).tolist() == [0.7]
    one_layer = law.rho_recursion(1.0, eta=0.5, lam=0.0, L=1, steps=5)
    assert one_layer.tolist() == [0.5**t for t in range(6)]


@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize("scales", [(0.7,), (0.7, 0.2), (0.9, 0.4, 0.7), (0.6,) * 5], ids=str)
def test_the_complement_is_a_network_of_width_one(scales, lam):
    L = len(scales)
    each = law.rho_recursion(scales, eta=0.2, lam=lam, L=L, steps=200)
    assert each.shape == (201, L) and each[0].tolist() == list(scales)
    net = [torch.full((1, 1), scale, **F64) for scale in scales]
    loss = losses.squared_error(torch.zeros(1, 1, **F64))
    for it in descent.train(net, loss, eta=0.2, lam=lam, steps=200):
        found = torch.cat([W.flatten() for W in it.Ws])
        assert (found - each[it.t]).abs().max() < 1e-14
    if len(set(scales)) == 1:
        one = law.rho_recursion(scales[0], eta=0.2, lam=lam, L=L, steps=200)
        assert (each - one[:, None]).abs().max() < 1e-14


def test_a_value_may_reach_zero():
    # 1 - eta * 2^2 = 0: divided by it, a product over all would be none.
    each = law.rho_recursion([1.0, 2.0], eta=0.25, lam=0.0, L=2, steps=2)
    assert each.tolist() == [[1.0, 2.0], [0.0, 1.5], [0.0, 1.5]]


@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize("L", [2, 5])
def test_small_steps_follow_the_closed_form(L, lam):
    k, gaps = 2 * L - 2, []
    for steps in (400, 800, 1600):
        tau = 4 / steps * torch.arange(steps + 1, **F64)
        fading = (1 + 1 / lam) * torch.exp(k * lam * tau) - 1 / lam if lam else 1 + k * tau
        rho = law.rho_recursion(1.0, eta=4 / steps, lam=lam, L=L, steps=steps)
        gaps.append((rho - fading ** (-1 / k)).abs().max().item())
    assert gaps[0] < 0.02
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(eps=0), "eps: wanted eps > 0, got 0"),
        (dict(lam=-1), "lam: wanted lam >= 0, got -1"),
        (dict(eta=0.0), "eta: wanted eta > 0, got 0.0"),
        (dict(steps=-1), "steps: wanted steps >= 0, got -1"),
        (dict(L=0), "L: wanted L >= 1, got 0"),
        (dict(eps=[1.0, 0.0]), "eps[1]: wanted eps[1] > 0, got 0.0"),
        (dict(eps=[1.0]), "eps: wanted one or L = 2 scales, got 1"),
    ],
)
def test_rho_refuses(change, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        law.rho_recursion(**dict(eps=1.0, eta=0.1, lam=0.0, L=2, steps=1) | change)


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
    law.rho_recursion(eps, eta=eta, lam=0, L=L, steps=t - 1)
    with pytest.raises(FloatingPointError, match="^" + re.escape(message) + "$"):
        law.rho_recursion(eps, eta=eta, lam=0, L=L, steps=100)
