"""Angles and ranks against scipy, loops and closed forms."""

import math
import re

import numpy as np
import pytest
import scipy.linalg
import torch
from columns import KINDS

from lop_utils import init, spectra

F64 = {"dtype": torch.float64}


def frame(d, k, generator, kind=F64):
    """Draw k orthonormal columns."""
    return init.orthogonal((k, d), 1.0, generator=generator, **kind)[0]


def tilted(d, angles, generator, kind=F64):
    """Draw two frames whose principal angles are given, in a random basis of their space."""
    k = len(angles)
    E = frame(d, 2 * k, generator, kind)
    angles = torch.tensor(angles, **kind)
    turn = frame(k, k, generator, kind)
    return E[:, :k], (E[:, :k] * angles.cos() + E[:, k:] * angles.sin()) @ turn


# Principal angles


@pytest.mark.parametrize(("d", "p", "q"), [(30, 5, 5), (30, 8, 3), (6, 5, 4), (4, 4, 4)])
def test_principal_angles_equal_scipy_s(d, p, q, generator):
    P, Q = frame(d, p, generator), frame(d, q, generator)
    expected = np.sort(scipy.linalg.subspace_angles(P.numpy(), Q.numpy()))
    assert np.abs(spectra.principal_angles(P, Q).numpy() - expected).max() < 1e-12


ANGLES = [0.0, 1e-15, 1e-12, 1e-9, 1e-3, 0.7, math.pi / 4, 1.5, math.pi / 2 - 1e-9, math.pi / 2]


@pytest.mark.parametrize("angle", ANGLES, ids=str)
def test_a_line_and_a_plane_turned_by_a_known_angle(angle, generator):
    P, Q = tilted(30, [angle], generator)
    assert abs(spectra.principal_angles(P, Q).item() - angle) < 1e-15 + 1e-14 * angle
    assert abs(spectra.principal_angles(P, -Q).item() - angle) < 1e-15 + 1e-14 * angle


# Angles of vectors


@pytest.mark.parametrize("angle", ANGLES, ids=str)
def test_vectors_turned_by_a_known_angle(angle, generator):
    U, V = tilted(30, [angle], generator)
    for sign_and_length in (1.0, -1.0, 7.0, -1e-8):
        given = spectra.vector_angles(U, sign_and_length * V).item()
        assert abs(given - angle) < 1e-15 + 1e-14 * angle


# Angles of singular vectors


def test_singular_angles_of_a_layer_turned_on_purpose(generator):
    # Right vectors: one leads by 0.3 and one trails by 0.2, each turned within its own plane of
    # the middle, so the middle's one angle is the larger of the two. Left vectors stay.
    d, r = 8, 1
    s = torch.tensor([3.0] + [1.0] * 6 + [0.5], **F64)
    U, V = frame(d, d, generator), frame(d, d, generator)
    turn = torch.eye(d, **F64)
    for i, j, angle in ((0, 2, 0.3), (7, 4, 0.2)):
        c, sin = math.cos(angle), math.sin(angle)
        turn[i, i] = turn[j, j] = c
        turn[i, j], turn[j, i] = -sin, sin
    angles = spectra.singular_angles((U * s) @ (V @ turn).T, (U * s) @ V.T, r)
    assert (angles.right - torch.tensor([0.3, 0.3, 0.2], **F64)).abs().max() < 1e-13
    assert angles.left.max() < 1e-13


# Ranks


def effective_rank_by_loop(s):
    p = [x / sum(s) for x in s]
    return math.exp(-sum(x * math.log(x) for x in p if x > 0))


def numerical_rank_by_loop(s):
    return sum(x > 1e-6 * max(s) for x in s)


RANKS = {
    "effective": (spectra.effective_rank, effective_rank_by_loop),
    "numerical": (lambda s: spectra.numerical_rank(s, 1e-6), numerical_rank_by_loop),
}
each_rank = pytest.mark.parametrize(("rank", "oracle"), RANKS.values(), ids=RANKS)


@each_rank
def test_ranks_equal_the_slow_way_on_a_batch(rank, oracle, generator):
    s = 10 ** (-9 * torch.rand(3, 4, 6, generator=generator, **F64))
    s[0, 0, 2:] = 0
    given = rank(s)
    assert given.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            assert given[i, j].item() == pytest.approx(oracle(s[i, j].tolist()), rel=1e-12)


@each_rank
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_k_equal_values_have_rank_k_at_every_scale(rank, oracle, scale):
    for k in range(1, 5):
        s = torch.tensor([scale] * k + [0.0] * (5 - k), **F64)
        assert rank(s).item() == pytest.approx(k, rel=1e-14)


def test_ranks_of_a_halving_spectrum_in_closed_form():
    # s_i = 2^-i: p_i = 2^-(i+1), so the entropy is 2 log 2.
    s = 0.5 ** torch.arange(60, **F64)
    assert spectra.effective_rank(s).item() == pytest.approx(4, rel=1e-13)
    assert spectra.numerical_rank(s, 2.0**-10).item() == 10  # strictly above the threshold
    assert spectra.numerical_rank(s, 0).item() == 60


@pytest.mark.parametrize("value", [1.0, 0.1, 3e-200, 1e307])
def test_a_share_of_the_sum_of_equal_values_is_a_share_of_their_number(value):
    for k in (20, 59, 1000):
        s = torch.full((k,), value, **F64)
        assert spectra.nuclear_norm_rank(s, 0.95).item() == math.ceil(round(0.95 * k, 6))
        assert spectra.nuclear_norm_rank(s, 0.951).item() == math.ceil(round(0.951 * k, 6))
        assert spectra.nuclear_norm_rank(s, 1).item() == k
    assert spectra.nuclear_norm_rank([value, 0.0, 0.0], 1).item() == 1
    assert spectra.nuclear_norm_rank(torch.tensor([6.0, 3.0, 1.0]), 0.9).item() == 2


def test_one_value_less_would_be_less_than_the_share(generator):
    s = torch.rand(3, 5, 9, generator=generator, **F64).sort(-1, descending=True).values
    for spectrum, k in zip(
        s.flatten(0, 1), spectra.nuclear_norm_rank(s, 0.8).flatten(), strict=True
    ):
        assert spectrum[: k - 1].sum() < 0.8 * spectrum.sum() < spectrum[:k].sum()


# Polar factors


def lifted(s, steps=5):
    """What the iteration makes of one singular value of a matrix of norm one, in plain numbers."""
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)])
@pytest.mark.parametrize("scale", [1.0, 1e-170, 1e170, 1e307])
def test_newton_schulz_acts_on_singular_values_alone(shape, scale, generator):
    U, V = frame(shape[0], 4, generator), frame(shape[1], 4, generator)
    s = torch.tensor([0.9, 0.4, 1e-7, 0.0], **F64)
    given = spectra.newton_schulz(scale * (U * s) @ V.T)
    wanted = torch.tensor([lifted(x / s.norm().item()) for x in s.tolist()], **F64)
    assert (given - (U * wanted) @ V.T).abs().max() < 1e-13
    assert wanted[2].item() == pytest.approx(3.4445**5 * 1e-7 / s.norm().item(), rel=1e-4)
    two = torch.stack([U @ V.T, torch.zeros(shape, **F64)])
    assert torch.equal(spectra.newton_schulz(two)[1], two[1])
    assert torch.allclose(spectra.newton_schulz(two, steps=2)[0], lifted(0.5, 2) * two[0])


@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)])
def test_polar_equals_scipy_s_and_cuts_what_is_small(shape, generator):
    G = torch.randn(3, *shape, generator=generator, **F64)
    for A, Q in zip(G, spectra.polar(G, 0.0), strict=True):
        side = "right" if shape[0] >= shape[1] else "left"
        assert np.abs(scipy.linalg.polar(A.numpy(), side)[0] - Q.numpy()).max() < 1e-12
    U, V = frame(shape[0], 4, generator), frame(shape[1], 4, generator)
    A = (U * torch.tensor([1.0, 0.5, 1e-3, 1e-12], **F64)) @ V.T
    for rtol, k in ((1e-6, 3), (0.1, 2), (0.0, 4)):
        found = spectra.polar(A, rtol)
        assert torch.linalg.matrix_rank(found).item() == k
        assert (found - U[:, :k] @ V[:, :k].T).abs().max() < 1e-3 if k == 4 else 1e-12
    assert not spectra.polar(0 * A, 0.0).any()
    for scale in (1e-44, 1e-30, 3e38):  # subnormal in float32, and near overflow
        B = torch.diag(torch.tensor([scale, scale]))
        assert torch.allclose(spectra.polar(B, 1e-6), torch.eye(2))
        assert torch.allclose(spectra.newton_schulz(B), spectra.newton_schulz(torch.eye(2)))


# Kinds, device, dtype and refusals


def everything(kind, s, P, Q):
    s, P, Q = (A.to(**kind) for A in (s, P, Q))
    W = P @ (torch.linspace(2, 1, 4, **kind)[:, None] * Q.T)
    angles = spectra.singular_angles(W, W + P[:, :1] @ Q[:, 1:2].T, 1)
    floats = [spectra.principal_angles(P, Q[:, :2]), spectra.vector_angles(P, Q), *angles]
    floats += [spectra.effective_rank(s), spectra.polar(P, 0.1), spectra.newton_schulz(P)]
    s = s.sort(-1, True).values
    return floats, [spectra.numerical_rank(s, 0.1), spectra.nuclear_norm_rank(s, 0.7)]


@pytest.fixture
def inputs(generator):
    s = torch.rand(3, 4, generator=generator, **F64) + 0.1
    return s, frame(4, 4, generator), frame(4, 4, generator)


def test_device_and_dtype_are_kept(place, inputs):
    given, reference = everything(place.kind, *inputs), everything(F64, *inputs)
    for A in given[0] + given[1]:
        assert A.device.type == place.kind["device"]
    for A, B in zip(given[0], reference[0], strict=True):
        assert A.dtype == place.kind["dtype"]
        # An angle near zero has an absolute error of a few float32 epsilons.
        assert (A.cpu().double() - B).abs().max() < 100 * place.tolerance
    assert given[1][0].dtype == torch.int64 and torch.equal(given[1][0].cpu(), reference[1][0])


def test_shapes_move_on_the_meta_device(inputs):
    given, reference = everything({"device": "meta"}, *inputs), everything(F64, *inputs)
    for A, B in zip(given[0] + given[1], reference[0] + reference[1], strict=True):
        assert A.is_meta and A.dtype == B.dtype and A.shape == B.shape


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_tensor_is_made_one(kind, inputs):
    (s, P, Q), of = inputs, KINDS[kind]
    s = s.sort(-1, True).values
    for function, arguments in (
        (spectra.principal_angles, (P, Q)),
        (spectra.vector_angles, (P, Q)),
        (lambda W, other: spectra.singular_angles(W, other, 1).left, (P, Q)),
        (spectra.effective_rank, (s,)),
        (lambda s: spectra.nuclear_norm_rank(s, 0.9), (s[0],)),
    ):
        assert torch.equal(function(*map(of, arguments)), function(*arguments))


def test_half_precision_and_extreme_columns():
    s = torch.full((4000,), 100.0, dtype=torch.float16)
    rank = spectra.effective_rank(s)
    assert rank.dtype == torch.float32 and rank.item() == pytest.approx(4000, rel=1e-5)
    U, V = torch.eye(2), torch.ones(2, 2)
    angles = spectra.vector_angles(1e30 * U, 1e-30 * V)
    assert angles.tolist() == pytest.approx([math.pi / 4] * 2, rel=1e-6)


E3, ONES = torch.eye(3), torch.ones(3)
numerical, nuclear = spectra.numerical_rank, spectra.nuclear_norm_rank


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        (spectra.principal_angles, (E3[:2], E3), ValueError, "P: wanted at most 2 columns, got 3"),
        (spectra.principal_angles, (2 * E3, E3), ValueError, "P: wanted an orthogonal matrix tim"),
        (spectra.principal_angles, (E3, E3.double()), ValueError, "Q: wanted torch.float32 on cpu"),
        (spectra.principal_angles, (E3[:, :1], E3), ValueError, "Q: wanted 3 rows and at most 1 c"),
        (spectra.vector_angles, (E3, torch.eye(2)), ValueError, "V: wanted shape (3, 3), got (2"),
        (spectra.vector_angles, (E3, E3.double()), ValueError, "V: wanted torch.float32 on cpu as"),
        (spectra.vector_angles, (E3, E3.tril(-1)), ValueError, "V: wanted columns of any length"),
        (spectra.singular_angles, (E3[:, :2], E3, 1), ValueError, "W: wanted shape (3, 3), got (3"),
        (spectra.singular_angles, (E3, E3[:2], 1), ValueError, "W_ref: wanted shape (3, 3), got"),
        (spectra.singular_angles, (E3, E3, 2), ValueError, "r: wanted 2r < d = 3, got r = 2"),
        (numerical, (ONES, 1.0), ValueError, "rtol: wanted 0 <= rtol < 1, got 1.0"),
        (nuclear, (ONES, 0.0), ValueError, "share: wanted 0 < share <= 1, got 0.0"),
        (nuclear, (ONES, 1.5), ValueError, "share: wanted 0 < share <= 1, got 1.5"),
        (nuclear, ([1, 2], 0.5), ValueError, "s: wanted singular values in descending order, got"),
    ],
)
def test_what_is_refused_is_named(function, arguments, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        function(*arguments)


@pytest.mark.parametrize(
    ("s", "error", "message"),
    [
        (torch.ones(2).int(), TypeError, "s: wanted float32 or float64, got torch.int32"),
        (torch.tensor(1.0), ValueError, "s: wanted shape (..., n) with entries, got ()"),
        (torch.ones(2, 0), ValueError, "s: wanted shape (..., n) with entries, got (2, 0)"),
        (torch.tensor([1, -1.0]), ValueError, "s: wanted singular values >= 0, got -1.0"),
        (torch.tensor([1, math.inf]), ValueError, "s: wanted finite entries, got NaN or infinity"),
        (torch.tensor([[1.0], [0.0]]), ValueError, "s: wanted a non-zero spectrum, got zeros"),
    ],
)
@each_rank
def test_ranks_refuse(rank, oracle, s, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        rank(s)
