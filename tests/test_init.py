"""Starts of a network: their laws, their seeds, and what they refuse."""

import math
import re

import numpy as np
import pytest
import torch

from lop_utils import init
from lop_utils.networks import end_to_end

INITS = [init.orthogonal, init.gaussian, init.uniform]
each_init = pytest.mark.parametrize("draw", INITS, ids=lambda draw: draw.__name__)
F64 = {"dtype": torch.float64}


@each_init
def test_one_layer_a_width_with_the_norm_of_an_orthogonal_one(draw, generator):
    Ws = draw((7, 4, 3, 9), 1e-3, generator=generator)
    assert [tuple(W.shape) for W in Ws] == [(4, 7), (3, 4), (9, 3)]
    for W, size in zip(Ws, (4, 3, 3), strict=True):
        assert W.is_contiguous() and W.dtype == torch.float64 and W.device.type == "cpu"
        assert torch.linalg.norm(W).item() == pytest.approx(1e-3 * size**0.5, rel=1e-14)


@pytest.mark.parametrize("eps", [1e-3, 1.0, 10.0])
def test_orthogonal_layers_have_one_singular_value(eps, generator):
    for W in init.orthogonal((7, 4, 4, 9), eps, generator=generator):
        assert (torch.linalg.svdvals(W) / eps - 1).abs().max() < 1e-14


def test_orthogonal_layers_are_haar(generator):
    # Under Haar the diagonal has mean 0 and variance 1/d, and the determinant either sign. Without
    # the sign fix LAPACK's reflections lean the diagonal to one side.
    d, draws = 4, 2000
    Qs = torch.stack(init.orthogonal((d,) * (draws + 1), 1.0, generator=generator))
    diagonal = Qs.diagonal(dim1=1, dim2=2)
    five_sigma = 5 / math.sqrt(draws * d)
    assert diagonal.mean(0).abs().max() < five_sigma
    assert (diagonal.square().mean(0) - 1 / d).abs().max() < five_sigma
    assert torch.linalg.det(Qs).mean().abs() < 5 / math.sqrt(draws)
    # An entry of R Q is distributed as one of Q: for d = 3 uniform on [-1, 1].
    Qs = torch.stack(init.orthogonal((3,) * 3001, 1.0, generator=generator))
    R = init.orthogonal((3, 3), 1.0, generator=generator)[0]
    for A in (Qs, R @ Qs, Qs @ R):
        assert (A.abs().mean(0) - 0.5).abs().max() < 5 * (1 / 12 / 3000) ** 0.5


def test_gaussian_and_uniform_entries_have_their_shapes(generator):
    for draw, kurtosis in ((init.gaussian, 3.0), (init.uniform, 1.8)):
        (W,) = draw((200, 200), 1.0, generator=generator)
        assert W.mean().abs() < 5 * W.std() / 200
        assert (W / W.std()).pow(4).mean().item() == pytest.approx(kurtosis, abs=0.15)


def seeds(draw):
    """Draw with a generator, a seed, another seed, and torch's global generator."""
    torch.manual_seed(3)
    found = [draw(generator) for generator in (torch.Generator().manual_seed(3), 3, 4, None)]
    return [W.tolist() for Ws in found for W in Ws[:1]]


@pytest.mark.parametrize(
    "draw",
    [lambda g, draw=draw: draw((5, 5), 1.0, generator=g) for draw in INITS]
    + [lambda g: init.aligned(torch.diag(torch.arange(3.0)), 3, 1.0, generator=g)],
    ids=["orthogonal", "gaussian", "uniform", "aligned"],
)
def test_a_start_follows_its_generator_or_seed_and_else_torch_s_own(draw):
    with torch.random.fork_rng(devices=[]):
        by_generator, by_seed, other, by_global = seeds(draw)
        assert by_generator == by_seed == by_global != other
        state = torch.get_rng_state()
        draw(5)
        assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(TypeError, match=r"^generator: wanted a torch.Generator or a seed, got 1.5"):
        draw(1.5)


@each_init
@pytest.mark.parametrize(
    ("dims", "eps", "options", "error", "message"),
    [
        ((3,), 1.0, {}, ValueError, "dims: wanted (d_0, ..., d_L) with L >= 1, got (3,)"),
        ((), 1.0, {}, ValueError, "dims: wanted (d_0, ..., d_L) with L >= 1, got ()"),
        ((3, 0), 1.0, {}, ValueError, "dims[1]: wanted dims[1] >= 1, got 0"),
        ((3.0, 3), 1.0, {}, TypeError, "dims[0]: wanted a whole number, got 3.0"),
        ((3, 3), 0.0, {}, ValueError, "eps: wanted eps > 0, got 0.0"),
        ((3, 3), math.nan, {}, ValueError, "eps: wanted a finite number, got nan"),
        ((3, 3), "1", {}, TypeError, "eps: wanted a real number, got '1'"),
        ((3, 3), 1, {"dtype": torch.int64}, TypeError, "dtype: wanted float32 or float64, got to"),
        ((3, 3), 1, {"dtype": torch.float16}, TypeError, "dtype: wanted float32 or float64, got "),
    ],
)
def test_a_start_refuses(draw, dims, eps, options, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        draw(dims, eps, **options)


@each_init
def test_widths_may_be_anything_that_gives_whole_numbers(draw):
    expected = draw((3, 4, 2), 1.0, generator=0)
    for dims in (np.array([3, 4, 2]), torch.Size([3, 4, 2]), iter([3, 4, 2])):
        assert all(map(torch.equal, draw(dims, 1.0, generator=0), expected))


@pytest.mark.parametrize(("d_y", "L"), [(6, 1), (6, 3), (2, 4)])
def test_an_aligned_start_is_diagonal_in_the_target_s_singular_vectors(d_y, L, generator):
    Phi = torch.randn(d_y, 6, generator=generator, **F64)
    Ws = init.aligned(Phi, L, 0.5, generator=generator)
    assert [tuple(W.shape) for W in Ws] == [(6, 6)] * (L - 1) + [(d_y, 6)]
    U, _, Vh = torch.linalg.svd(Phi)
    wanted = torch.zeros(d_y, 6, **F64).fill_diagonal_(0.5**L)
    assert (U.T @ end_to_end(Ws) @ Vh.T - wanted).abs().max() < 1e-14
    for W in Ws:
        assert (W @ W.T - 0.25 * torch.eye(len(W), **F64)).abs().max() < 1e-14
    assert L == 1 or (Ws[0] - 0.5 * Vh).abs().max() > 0.1  # Haar matrices come between


@pytest.mark.parametrize(("k", "L"), [(1, 2), (2, 2), (2, 4), (3, 3)])
def test_a_spectral_start_is_the_best_approximation_s_singular_vectors(k, L, generator):
    M = torch.randn(4, 3, generator=generator, **F64)
    Ws = init.spectral(M, k, L, 0.5)
    assert [tuple(W.shape) for W in Ws] == [(k, 3), *[(k, k)] * (L - 2), (4, k)]
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    assert (end_to_end(Ws) - 0.5**L * U[:, :k] @ Vh[:k]).abs().max() < 1e-14
    for W in Ws:
        assert (torch.linalg.svdvals(W) - 0.5).abs().max() < 1e-14
    for W in Ws[1:-1]:
        assert torch.equal(W, 0.5 * torch.eye(k, **F64))


def observed(R):
    """Return the loss of two factors at P Q = 0, where its gradients show R itself."""

    def two_layers(Ws):
        Q, P = Ws
        assert not P.any() or not Q.any()  # so that the loss never sees a product
        return None, [-P.T @ R, -R @ Q.T]

    return two_layers


@pytest.mark.parametrize("L", [2, 4])
def test_a_sampled_start_is_the_spectral_one(L, generator):
    U, V = (torch.linalg.qr(torch.randn(d, 5, generator=generator, **F64)).Q for d in (7, 9))
    R = U @ torch.diag(torch.tensor([8.0, 4.0, 2.0, 1e-3, 1e-3], **F64)) @ V.T
    P, Q = torch.ones(7, 3, **F64), torch.randn(3, 9, generator=generator, **F64)
    kept = P.clone(), Q.clone()
    Ws, s = init._sampled_spectral(observed(R), P, Q, L, 0.5)
    assert (s - torch.tensor([8.0, 4.0, 2.0], **F64)).abs().max() < 1e-12
    expected = init.spectral(R, 3, L, 0.5)
    assert [W.shape for W in Ws] == [W.shape for W in expected]
    assert (end_to_end(Ws) - end_to_end(expected)).abs().max() < 1e-12
    for W, other in zip(Ws, expected, strict=True):  # but for signs
        assert (W.abs() - other.abs()).abs().max() < 1e-12
    assert torch.equal(P, kept[0]) and torch.equal(Q, kept[1])
    by_list = init._sampled_spectral(observed(R), P.tolist(), Q.numpy(), L, 0.5)
    assert all(map(torch.equal, by_list[0], Ws))
    # Twenty rounds are the default, and fewer are further away.
    twenty = init._sampled_spectral(observed(R), P, Q, L, 0.5, iterations=20)
    one = init._sampled_spectral(observed(R), P, Q, L, 0.5, iterations=1)
    assert torch.equal(twenty[1], s) and (one[1] - s).abs().max() > 1e-3


def test_a_direction_that_the_sample_does_not_see_starts_at_zero(generator):
    u, v = (torch.nn.functional.normalize(torch.arange(1.0, d, **F64), dim=0) for d in (5, 6))
    Q = torch.randn(2, 5, generator=generator, **F64)
    Ws, s = init._sampled_spectral(
        observed(3 * torch.outer(u, v)), torch.ones(4, 2, **F64), Q, 2, 1
    )
    assert abs(s[0] - 3) < 1e-12 and s[1] < 1e-6
    assert (Ws[1][:, 1] == 0).all() and (Ws[1] @ Ws[0] - torch.outer(u, v)).abs().max() < 1e-12
    Ws, s = init._sampled_spectral(
        observed(torch.zeros(4, 5, **F64)), torch.ones(4, 2, **F64), Q, 2, 1
    )
    assert not s.any() and not Ws[1].any() and Ws[0].isfinite().all()  # nothing is seen at all


PHI = torch.eye(3, **F64)
LOSS = observed(PHI)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: init.aligned(PHI[:, :2], 2, 0.1), ValueError, "Phi: wanted d_y <= d, got shape ("),
        (lambda: init.aligned(PHI.int(), 2, 0.1), TypeError, "Phi: wanted float32 or float64, got"),
        (lambda: init.aligned(PHI / 0, 2, 0.1), ValueError, "Phi: wanted finite entries, got NaN"),
        (lambda: init.aligned(PHI, 0, 0.1), ValueError, "L: wanted L >= 1, got 0"),
        (lambda: init.aligned(PHI, 2, 0), ValueError, "eps: wanted eps > 0, got 0"),
        (lambda: init.spectral(PHI[0], 1, 2, 0.1), ValueError, "M: wanted a matrix, got shape (3,"),
        (lambda: init.spectral(PHI, 4, 2, 0.1), ValueError, "k: wanted at most 3, got 4"),
        (lambda: init.spectral(PHI, 0, 2, 0.1), ValueError, "k: wanted k >= 1, got 0"),
        (lambda: init.spectral(PHI, 1, 1, 0.1), ValueError, "L: wanted L >= 2, got 1"),
        (lambda: init.spectral(PHI, 1, 2, -1), ValueError, "eps: wanted eps > 0, got -1"),
        (
            lambda: init._sampled_spectral(LOSS, PHI, PHI, 1, 1),
            ValueError,
            "L: wanted L >= 2, got 1",
        ),
        (
            lambda: init._sampled_spectral(LOSS, PHI, PHI, 2, 0),
            ValueError,
            "eps: wanted eps > 0, got",
        ),
        (lambda: init._sampled_spectral(LOSS, PHI / 0, PHI, 2, 1), ValueError, "P: wanted finite"),
        (lambda: init._sampled_spectral(LOSS, PHI, PHI[0], 2, 1), ValueError, "Q: wanted a matrix"),
        (
            lambda: init._sampled_spectral(LOSS, PHI, PHI, 2, 1, iterations=0),
            ValueError,
            "iterations: wanted iterations >= 1, got 0",
        ),
    ],
)
def test_targets_and_depths_are_checked(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


def everything(kind):
    """Return all starts that the module makes, in order, of one kind."""
    Ws = [W for draw in INITS for W in draw((4, 3), 0.5, generator=0, **kind)]
    Phi = torch.diag(torch.arange(1.0, 5.0)).to(**kind)
    return [*Ws, *init.aligned(Phi, 3, 0.5, generator=0), *init.spectral(Phi, 2, 3, 0.5)]


@pytest.mark.parametrize("L", [2, 3])
def test_device_and_dtype_are_kept(L, place):
    for A, B in zip(everything(place.kind), everything(F64), strict=True):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
        if A.dtype == B.dtype:  # a seed means the same matrix on every device
            assert (A.cpu() - B).abs().max() < place.tolerance
    Phi = torch.diag(torch.arange(4.0, 0.0, -1.0)).to(**place.kind)
    Ws, s = init._sampled_spectral(observed(Phi), Phi[:, :2], Phi[:2] + 1, L, 0.5)
    assert {(A.dtype, A.device.type) for A in (*Ws, s)} == {tuple(place.kind.values())}
    assert (s.cpu() - torch.tensor([4.0, 3.0])).abs().max() < 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_move_on_the_meta_device(dtype):
    for A, B in zip(everything({"dtype": dtype, "device": "meta"}), everything(F64), strict=True):
        assert A.is_meta and A.dtype == dtype and A.shape == B.shape
