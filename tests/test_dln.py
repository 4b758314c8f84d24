"""Deep linear networks against automatic differentiation, loops and closed forms."""

import math
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lop_utils import dln, losses

INITS = [dln.orthogonal_init, dln.gaussian_init, dln.uniform_init]
each_init = pytest.mark.parametrize("init", INITS, ids=lambda init: init.__name__)
F64 = {"dtype": torch.float64}


def network(dims, generator, kind=F64):
    return dln.gaussian_init(dims, 1.0, generator=generator, **kind)


def by_autograd(Ws, residual):
    """Differentiate the loss of the end-to-end matrix with nothing but torch: the oracle."""
    leaves = [W.clone().requires_grad_() for W in Ws]
    W = leaves[0]
    for layer in leaves[1:]:
        W = layer @ W
    loss = residual(W)[0]
    loss.backward()
    return loss.detach(), [leaf.grad for leaf in leaves]


def worst(As, Bs):
    return max((A - B).abs().max().item() for A, B in zip(As, Bs, strict=True))


# Initialisations


@each_init
def test_init_gives_one_layer_a_width(init, generator):
    Ws = init((7, 4, 4, 9), 0.5, generator=generator)
    assert [tuple(W.shape) for W in Ws] == [(4, 7), (4, 4), (9, 4)]
    assert all(W.is_contiguous() for W in Ws)


@each_init
def test_init_has_the_frobenius_norm_of_an_orthogonal_one(init, generator):
    for W in init((7, 4, 9), 1e-3, generator=generator):
        assert torch.linalg.norm(W).item() == pytest.approx(1e-3 * 2, rel=1e-14)


@pytest.mark.parametrize("eps", [1e-3, 1.0, 10.0])
def test_orthogonal_layers_have_one_singular_value(eps, generator):
    for W in dln.orthogonal_init((7, 4, 4, 9), eps, generator=generator):
        assert (torch.linalg.svdvals(W) / eps - 1).abs().max() < 1e-14


def test_orthogonal_layers_are_haar(generator):
    # Under Haar the diagonal has mean 0 and variance 1/d, and the determinant either sign. Without
    # the sign fix LAPACK's reflections lean the diagonal to one side.
    d, draws = 4, 2000
    Qs = torch.stack(dln.orthogonal_init((d,) * (draws + 1), 1.0, generator=generator))
    diagonal = Qs.diagonal(dim1=1, dim2=2)
    five_sigma = 5 / math.sqrt(draws * d)
    assert diagonal.mean(0).abs().max() < five_sigma
    assert (diagonal.square().mean(0) - 1 / d).abs().max() < five_sigma
    assert torch.linalg.det(Qs).mean().abs() < 5 / math.sqrt(draws)

    G = torch.randn(draws, d, d, generator=generator, **F64)
    without_signs = torch.linalg.qr(G).Q.diagonal(dim1=1, dim2=2)
    assert without_signs.mean(0).abs().max() > 4 * five_sigma  # the test can see the mistake


def test_haar_does_not_change_under_a_rotation(generator):
    # Any entry of R Q is distributed as an entry of Q: compare the mean of |entry| with theory,
    # E|q| = 1/2 on the circle's projection for d = 3 (q is uniform on [-1, 1]).
    draws = 3000
    Qs = torch.stack(dln.orthogonal_init((3,) * (draws + 1), 1.0, generator=generator))
    R = dln.orthogonal_init((3, 3), 1.0, generator=generator)[0]
    for A in (Qs, R @ Qs, Qs @ R):
        assert (A.abs().mean(0) - 0.5).abs().max() < 5 * (1 / 12 / draws) ** 0.5


def test_gaussian_and_uniform_entries_have_their_shapes(generator):
    # Kurtosis tells them apart: 3 and 9/5.
    for init, kurtosis in ((dln.gaussian_init, 3.0), (dln.uniform_init, 1.8)):
        (W,) = init((200, 200), 1.0, generator=generator)
        assert W.mean().abs() < 5 * W.std() / 200
        assert (W / W.std()).pow(4).mean().item() == pytest.approx(kurtosis, abs=0.15)


@each_init
def test_init_follows_its_generator_and_leaves_torch_s_alone(init):
    state = torch.get_rng_state()
    one, same, other = (
        init((5, 5), 1.0, generator=torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@each_init
def test_init_without_a_generator_takes_torch_s_own(init):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        (expected,) = init((5, 5), 1.0, generator=torch.Generator().manual_seed(3))
        assert torch.equal(init((5, 5), 1.0)[0], expected)


@each_init
@pytest.mark.parametrize(
    ("dims", "eps", "error", "message"),
    [
        ((3,), 1.0, ValueError, "dims: wanted (d_0, ..., d_L) with L >= 1, got (3,)"),
        ((), 1.0, ValueError, "dims: wanted (d_0, ..., d_L) with L >= 1, got ()"),
        ((3, 0), 1.0, ValueError, "dims[1]: wanted dims[1] >= 1, got 0"),
        ((3.0, 3), 1.0, TypeError, "dims[0]: wanted a whole number, got 3.0"),
        ((3, 3), 0.0, ValueError, "eps: wanted eps > 0, got 0.0"),
        ((3, 3), math.nan, ValueError, "eps: wanted a finite number, got nan"),
        ((3, 3), "1", TypeError, "eps: wanted a real number, got '1'"),
    ],
    ids=["one-width", "no-width", "empty", "fraction", "zero", "nan", "text"],
)
def test_init_refuses(init, dims, eps, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        init(dims, eps)


# Products


@pytest.mark.parametrize("L", range(1, 6))
def test_end_to_end_is_the_product(L, generator):
    Ws = network((4, 3, 5, 2, 6, 3)[: L + 1], generator)
    product = torch.eye(4, **F64)
    for W in Ws:
        product = W @ product
    assert (dln.end_to_end(Ws) - product).abs().max() < 1e-14
    if L > 1:  # the layers act from the left: in the other order the shapes do not even follow
        with pytest.raises(ValueError, match=re.escape("Ws[1]: wanted")):
            dln.end_to_end(Ws[::-1])


def test_layer_outputs_sample_by_sample(generator):
    Ws, X = network((4, 3, 5), generator), torch.randn(4, 6, generator=generator, **F64)
    outputs = dln.layer_outputs(Ws, X)
    assert [tuple(Z.shape) for Z in outputs] == [(4, 6), (3, 6), (5, 6)]
    for n in range(6):
        z = X[:, n]
        for W, Z in zip(Ws, outputs[1:], strict=True):
            z = torch.stack([sum(W[i, j] * z[j] for j in range(len(z))) for i in range(len(W))])
            assert (Z[:, n] - z).abs().max() < 1e-14
    assert torch.equal(outputs[0], X)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (torch.ones(3, 5, **F64), ValueError, "X: wanted 2 rows, got shape (3, 5)"),
        (torch.ones(2, 5), ValueError, "X: wanted torch.float64 on cpu as Ws[0], got torch.floa"),
        (torch.ones(2, **F64), ValueError, "X: wanted a matrix, got shape (2,)"),
        (torch.ones(2, 5).int(), TypeError, "X: wanted a floating-point matrix, got torch.int32"),
        (torch.full((2, 5), math.nan, **F64), ValueError, "X: wanted finite entries, got NaN"),
    ],
    ids=["rows", "dtype", "vector", "integers", "nan"],
)
def test_layer_outputs_refuse(X, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        dln.layer_outputs([torch.eye(2, **F64)], X)


# Gradients


DIMS = [(4, 4, 4, 4), (5, 3), (6, 4, 7, 2), (3, 8, 8, 8, 8, 2)]
each_dims = pytest.mark.parametrize("dims", DIMS, ids=str)


def some_losses(dims, generator):
    X = torch.randn(dims[0], 9, generator=generator, **F64)
    Y = torch.randn(dims[-1], 9, generator=generator, **F64)
    return [losses.matrix_residual(Y @ X.T), losses.data_residual(X, Y)]


@each_dims
def test_gradients_equal_autograd(dims, generator):
    Ws = network(dims, generator)
    for residual in some_losses(dims, generator):
        loss, grads = dln.gradients(Ws, residual)
        expected, leaves = by_autograd(Ws, residual)
        scale = max(1.0, max(G.abs().max().item() for G in leaves))
        assert abs(loss - expected) <= 1e-14 * expected
        assert worst(grads, leaves) < 1e-14 * scale


def test_gradients_pass_gradcheck(generator):
    # Independent of autograd's rules too: finite differences of the loss, layer by layer.
    Ws, h = network((3, 4, 2), generator), 1e-6
    residual = some_losses((3, 4, 2), generator)[0]
    for W, G in zip(Ws, dln.gradients(Ws, residual).grads, strict=True):
        for index in torch.cartesian_prod(*map(torch.arange, W.shape)).tolist():
            losses_ = []
            for sign in (1, -1):
                W[tuple(index)] += sign * h
                losses_.append(residual(dln.end_to_end(Ws))[0])
                W[tuple(index)] -= sign * h
            assert abs((losses_[0] - losses_[1]) / (2 * h) - G[tuple(index)]) < 1e-7


def test_gradients_of_scalars_in_closed_form():
    # L = 3 scalars: W = abc, the derivative in a is bc (abc - phi).
    a, b, c, phi = 2.0, 3.0, 5.0, 7.0
    Ws = [torch.tensor([[w]], **F64) for w in (a, b, c)]
    loss, grads = dln.gradients(Ws, losses.matrix_residual(torch.tensor([[phi]], **F64)))
    R = a * b * c - phi
    assert loss == R**2 / 2
    assert [G.item() for G in grads] == [b * c * R, a * c * R, a * b * R]


WRONG = {
    "prefix-not-transposed": lambda Ws, R: [
        Ws[2].T @ Ws[1].T @ R,
        Ws[2].T @ R @ Ws[0],
        R @ (Ws[1] @ Ws[0]),
    ],
    "sweep-not-transposed": lambda Ws, R: [
        Ws[1] @ Ws[2] @ R,
        Ws[2] @ R @ Ws[0].T,
        R @ (Ws[1] @ Ws[0]).T,
    ],
    "transposed": lambda Ws, R: [
        (Ws[2].T @ Ws[1].T @ R).T,
        (Ws[2].T @ R @ Ws[0].T).T,
        (R @ (Ws[1] @ Ws[0]).T).T,
    ],
    "order-of-the-layers": lambda Ws, R: [
        R @ (Ws[1] @ Ws[0]).T,
        Ws[2].T @ R @ Ws[0].T,
        Ws[2].T @ Ws[1].T @ R,
    ],
    "mean-instead-of-sum": lambda Ws, R: [
        Ws[2].T @ Ws[1].T @ R / R.numel(),
        Ws[2].T @ R @ Ws[0].T / R.numel(),
        R @ (Ws[1] @ Ws[0]).T / R.numel(),
    ],
    "without-the-residual's-sign": lambda Ws, R: [
        -Ws[2].T @ Ws[1].T @ R,
        -Ws[2].T @ R @ Ws[0].T,
        -R @ (Ws[1] @ Ws[0]).T,
    ],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_square_layers_would_hide_no_wrong_gradient(wrong, generator):
    # All shapes fit here, so only the numbers can tell.
    Ws, Phi = network((4, 4, 4, 4), generator), torch.randn(4, 4, generator=generator, **F64)
    expected = by_autograd(Ws, losses.matrix_residual(Phi))[1]
    assert worst(dln.gradients(Ws, losses.matrix_residual(Phi)).grads, expected) < 1e-13
    assert worst(wrong(Ws, dln.end_to_end(Ws) - Phi), expected) > 0.1


@pytest.mark.parametrize("L", range(1, 6))
def test_gradients_take_three_products_a_layer_but_one(L, generator):
    d = 8
    Ws = network((d,) * (L + 1), generator)
    residual = losses.matrix_residual(torch.eye(d, **F64))  # makes no product of its own
    with FlopCounterMode(display=False) as counter:
        dln.gradients(Ws, residual)
    assert counter.get_total_flops() == 3 * (L - 1) * 2 * d**3
    with FlopCounterMode(display=False) as autograd:
        by_autograd(Ws, residual)
    assert counter.get_total_flops() == autograd.get_total_flops()


@each_dims
def test_gradients_cost_what_autograd_costs_for_any_widths(dims, generator):
    Ws = network(dims, generator)
    residual = losses.matrix_residual(torch.zeros(dims[-1], dims[0], **F64))
    totals = []
    for differentiate in (dln.gradients, by_autograd):
        with FlopCounterMode(display=False) as counter:
            differentiate(Ws, residual)
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1]


def test_gradients_record_nothing_and_change_nothing(generator):
    Ws = network((4, 4, 4), generator)
    before = [W.clone() for W in Ws]
    loss, grads = dln.gradients(Ws, losses.matrix_residual(torch.eye(4, **F64)))
    assert not loss.requires_grad and not any(G.requires_grad for G in grads)
    assert worst(Ws, before) == 0


@pytest.mark.parametrize(
    ("Ws", "error", "message"),
    [
        ([], ValueError, "Ws: wanted at least one matrix, got none"),
        ([torch.ones(2, 2).int()], TypeError, "Ws[0]: wanted a floating-point matrix"),
        ([torch.ones(3, 2), torch.ones(2, 2)], ValueError, "Ws[1]: wanted 3 columns to follow"),
    ],
    ids=["none", "integers", "shapes"],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda Ws: dln.gradients(Ws, losses.matrix_residual(torch.eye(2))),
        dln.end_to_end,
        lambda Ws: dln.layer_outputs(Ws, torch.eye(2)),
    ],
    ids=["gradients", "end_to_end", "layer_outputs"],
)
def test_layers_are_checked(use, Ws, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        use(Ws)


@pytest.mark.parametrize(
    "use",
    [dln.end_to_end, lambda Ws: dln.layer_outputs(Ws, torch.eye(2))],
    ids=["end_to_end", "layer_outputs"],
)
def test_layers_are_finite(use):
    with pytest.raises(ValueError, match=r"^Ws\[0\]: wanted finite entries, got NaN or infinity"):
        use([torch.eye(2) * math.nan])


def test_gradients_let_nan_through():
    # A run that diverges passes here on its way to the error that names the step and eta.
    loss, _ = dln.gradients([torch.eye(2) * math.nan], losses.matrix_residual(torch.eye(2)))
    assert loss.isnan()


def test_a_residual_of_another_shape():
    with pytest.raises(ValueError, match=r"residual: wanted a gradient of shape \(2, 2\), got \(2"):
        dln.gradients([torch.eye(2)], lambda W: (W.sum(), torch.ones(2)))


# Residuals


def test_whitened_data_differ_from_the_matrix_loss_by_a_constant(generator):
    X = dln.orthogonal_init((9, 4), 1.0, generator=generator)[0]  # X X^T = I
    Y = torch.randn(3, 9, generator=generator, **F64)
    by_data, by_matrix = losses.data_residual(X, Y), losses.matrix_residual(Y @ X.T)
    gaps = []
    for _ in range(3):
        W = torch.randn(3, 4, generator=generator, **F64)
        assert (by_data(W)[1] - by_matrix(W)[1]).abs().max() < 1e-14
        gaps.append((by_data(W)[0] - by_matrix(W)[0]).item())
    constant = 0.5 * (Y.square().sum() - (Y @ X.T).square().sum()).item()
    assert gaps == pytest.approx([constant] * 3, rel=1e-13)


def test_losses_are_sums_over_samples(generator):
    X, Y, W = (
        torch.randn(*shape, generator=generator, **F64) for shape in ((4, 9), (3, 9), (3, 4))
    )
    by_loop = sum(0.5 * (W @ X[:, n] - Y[:, n]).square().sum() for n in range(9))
    assert losses.data_residual(X, Y)(W)[0].item() == pytest.approx(by_loop.item(), rel=1e-14)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: losses.matrix_residual([[1.0]]),
            TypeError,
            "Phi: wanted a torch.Tensor, got list",
        ),
        (
            lambda: losses.matrix_residual(torch.eye(2).long()),
            TypeError,
            "Phi: wanted a floating-point matrix, got torch.int64",
        ),
        (
            lambda: losses.data_residual([[1.0]], torch.eye(2)),
            TypeError,
            "X: wanted a torch.Tensor",
        ),
        (lambda: losses.data_residual(torch.eye(2), [1.0]), TypeError, "Y: wanted a torch.Tensor"),
        (
            lambda: losses.data_residual(torch.eye(2), torch.ones(2)),
            ValueError,
            "Y: wanted a matrix, got shape (2,)",
        ),
        (
            lambda: losses.data_residual(torch.eye(2), torch.ones(4, 3)),
            ValueError,
            "Y: wanted shape (4, 2), got (4, 3)",
        ),
        (
            lambda: losses.data_residual(torch.eye(2), torch.eye(2).double()),
            ValueError,
            "Y: wanted torch.float32 on cpu as X, got torch.float64 on cpu",
        ),
    ],
    ids=["list", "integers", "X-list", "Y-list", "Y-vector", "N", "dtype"],
)
def test_residuals_refuse(make, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        # Each of these would broadcast or promote, and train towards something else in silence.
        (losses.matrix_residual(torch.ones(1, 3)), "W: wanted shape (1, 3), got (3, 3)"),
        (
            losses.data_residual(torch.eye(3), torch.ones(1, 3)),
            "W: wanted shape (1, 3), got (3, 3)",
        ),
        (
            losses.matrix_residual(torch.eye(3).double()),
            "W: wanted torch.float64 on cpu as Phi, got torch.float32 on cpu",
        ),
        (
            losses.data_residual(torch.eye(3).double(), torch.eye(3).double()),
            "W: wanted torch.float64 on cpu as X, got torch.float32 on cpu",
        ),
    ],
    ids=["Phi-broadcasts", "Y-broadcasts", "Phi-promotes", "X-promotes"],
)
def test_residuals_refuse_a_matrix_that_does_not_fit(residual, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        dln.gradients([torch.eye(3)], residual)


# Device and dtype


def everything(kind, generator=None):
    """Return all tensors that the module makes from inputs of one kind."""
    Ws = [W for init in INITS for W in init((4, 4), 0.5, generator=generator, **kind)]
    X = torch.ones(4, 6, **kind)
    tensors = [*Ws, dln.end_to_end(Ws), *dln.layer_outputs(Ws, X)]
    for residual in (losses.matrix_residual(X[:, :4]), losses.data_residual(X, X)):
        loss, grads = dln.gradients(Ws, residual)
        tensors += [loss, *grads, *residual(Ws[0])]
    return tensors


def test_device_and_dtype_are_kept(place, generator):
    reference = everything(F64, torch.Generator().manual_seed(0))
    for A, B in zip(everything(place.kind, generator), reference, strict=True):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
        if A.dtype == B.dtype:  # a seed means the same matrix on every device
            assert (A.cpu() - B).abs().max() < place.tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_move_on_the_meta_device(dtype):
    for A, B in zip(everything({"dtype": dtype, "device": "meta"}), everything(F64), strict=True):
        assert A.is_meta and A.dtype == dtype and A.shape == B.shape


@pytest.mark.parametrize(("d_y", "L"), [(6, 1), (6, 3), (2, 4)])
def test_an_aligned_start_is_diagonal_in_the_target_s_singular_vectors(d_y, L, generator):
    Phi = torch.randn(d_y, 6, generator=generator, **F64)
    Ws = dln.aligned_init(Phi, L, 0.5, generator=generator)
    U, _, Vh = torch.linalg.svd(Phi)
    wanted = torch.zeros(d_y, 6, **F64).fill_diagonal_(0.5**L)
    assert (U.T @ dln.end_to_end(Ws) @ Vh.T - wanted).abs().max() < 1e-14
    for W in Ws:
        assert (W @ W.T - 0.25 * torch.eye(len(W), **F64)).abs().max() < 1e-14


def test_an_aligned_start_refuses_a_target_that_is_too_tall():
    with pytest.raises(ValueError, match="Phi: wanted d_y <= d"):
        dln.aligned_init(torch.eye(3)[:, :2], 2, 0.1)
