"""Losses on a part of the matrix, and on measurements of it."""

import re

import pytest
import torch

from lop_utils import dln, losses

F64 = {"dtype": torch.float64}


def masked(generator, kind=F64):
    Omega = torch.rand(5, 7, generator=generator) < 0.4
    Phi = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    return (Omega.to(kind.get("device")), Phi.to(**kind))


def sensed(generator, kind=F64):
    As = torch.randn(6, 5, 7, generator=generator, dtype=torch.float64)
    return As.to(**kind), torch.randn(6, generator=generator, dtype=torch.float64).to(**kind)


def masked_slowly(Omega, Phi, W):
    places = Omega.nonzero().tolist()
    return 0.5 * sum((W[i, j] - Phi[i, j]) ** 2 for i, j in places)


def sensed_slowly(As, y, W):
    return 0.5 * sum(((A * W).sum() - b) ** 2 for A, b in zip(As, y, strict=True))


LOSSES = {
    "masked": (losses.masked_residual, masked, masked_slowly),
    "sensing": (losses.sensing_residual, sensed, sensed_slowly),
}
each_loss = pytest.mark.parametrize(("make", "data", "slowly"), LOSSES.values(), ids=LOSSES)


@each_loss
def test_loss_and_gradient_are_those_of_autograd(make, data, slowly, place, generator):
    given = data(generator, place.kind)
    W = torch.randn(5, 7, generator=generator, dtype=torch.float64).to(**place.kind)
    loss, R = make(*given)(W)
    leaf = W.clone().requires_grad_()
    expected = slowly(*given, leaf)
    expected.backward()
    assert loss.ndim == 0 and loss.dtype == R.dtype == place.kind["dtype"]
    assert R.device.type == place.kind["device"] and R.shape == W.shape
    assert abs(loss.item() / expected.item() - 1) < place.tolerance
    assert (R - leaf.grad).abs().max() < place.tolerance * leaf.grad.abs().max()


@each_loss
def test_the_network_is_differentiated_through_it(make, data, slowly, generator):
    given = data(generator)
    Ws = dln.gaussian_init((7, 3, 4, 5), 1.0, generator=generator)
    found = dln.gradients(Ws, make(*given))
    leaves = [W.clone().requires_grad_() for W in Ws]
    slowly(*given, leaves[2] @ leaves[1] @ leaves[0]).backward()
    for grad, leaf in zip(found.grads, leaves, strict=True):
        assert (grad - leaf.grad).abs().max() < 1e-12


@each_loss
def test_the_matrix_is_left_as_it_was(make, data, slowly, generator):
    given, W = data(generator), torch.randn(5, 7, generator=generator, **F64)
    kept = [A.clone() for A in (*given, W)]
    residual = make(*given)
    first = residual(W)
    assert all(torch.equal(A, B) for A, B in zip((*given, W), kept, strict=True))
    residual(2 * W)  # nor is what came back overwritten by the next call
    assert torch.equal(first[1], make(*given)(W)[1])


def test_what_is_not_observed_does_not_count(generator):
    Omega, Phi = masked(generator)
    W = torch.randn(5, 7, generator=generator, **F64)
    one = losses.masked_residual(Omega, Phi)(W)
    other = losses.masked_residual(Omega, torch.where(Omega, Phi, 99.0))(W)
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert not one[1][~Omega].any()


def test_everything_observed_is_the_whole_matrix(generator):
    _, Phi = masked(generator)
    W = torch.randn(5, 7, generator=generator, **F64)
    loss, R = losses.masked_residual(torch.ones(5, 7, dtype=torch.bool), Phi)(W)
    whole, whole_R = losses.matrix_residual(Phi)(W)
    assert loss == whole and torch.equal(R, whole_R)


def test_measurements_of_one_entry_each_are_a_mask(generator):
    Omega, Phi = masked(generator)
    W = torch.randn(5, 7, generator=generator, **F64)
    As = torch.eye(35, **F64)[Omega.flatten()].view(-1, 5, 7)
    loss, R = losses.sensing_residual(As, Phi[Omega])(W)
    expected = losses.masked_residual(Omega, Phi)(W)
    assert abs(loss - expected[0]) < 1e-14 and (R - expected[1]).abs().max() < 1e-14


def test_measurements_may_stand_in_a_column(generator):
    As, y = sensed(generator)
    W = torch.randn(5, 7, generator=generator, **F64)
    one, other = (losses.sensing_residual(As, b)(W) for b in (y, y[:, None]))
    assert torch.equal(one[1], other[1])


PHI, OMEGA = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
AS, Y = torch.ones(4, 2, 3), torch.ones(4)


@pytest.mark.parametrize(
    ("make", "args", "error", "message"),
    [
        pytest.param(losses.masked_residual, args, error, message, id=f"masked-{i}")
        for i, (args, error, message) in enumerate(
            [
                ((PHI, PHI), TypeError, "Omega: wanted a tensor of bool, got torch.float32"),
                (([True], PHI), TypeError, "Omega: wanted a tensor of bool, got list"),
                ((OMEGA[:1], PHI), ValueError, "Omega: wanted shape (2, 3), got (1, 3)"),
                ((OMEGA.T, PHI), ValueError, "Omega: wanted shape (2, 3), got (3, 2)"),
                ((~OMEGA, PHI), ValueError, "Omega: wanted at least one observed entry, got none"),
                ((OMEGA, PHI / 0), ValueError, "Phi: wanted finite entries, got NaN or infinity"),
                ((OMEGA, PHI.int()), TypeError, "Phi: wanted a floating-point matrix, got"),
                ((OMEGA[0], PHI[0]), ValueError, "Phi: wanted a matrix, got shape (3,)"),
            ]
        )
    ]
    + [
        pytest.param(losses.sensing_residual, args, error, message, id=f"sensing-{i}")
        for i, (args, error, message) in enumerate(
            [
                ((PHI, Y), ValueError, "As: wanted shape (m, d_y, d_x), got (2, 3)"),
                (([AS], Y), ValueError, "As: wanted shape (m, d_y, d_x), got ()"),
                ((AS.int(), Y), TypeError, "As: wanted a floating-point matrix, got torch.int32"),
                ((AS / 0, Y), ValueError, "As: wanted finite entries, got NaN or infinity"),
                ((AS[:0], Y[:0]), ValueError, "As: wanted a matrix with entries, got shape (0, 6)"),
                ((AS, Y[:3]), ValueError, "y: wanted shape (4, 1), got (3, 1)"),
                ((AS, Y / 0), ValueError, "y: wanted finite entries, got NaN or infinity"),
                ((AS, [1.0] * 4), TypeError, "y: wanted a torch.Tensor, got list"),
                (
                    (AS, Y.double()),
                    ValueError,
                    "y: wanted torch.float32 on cpu as As, got torch.fl",
                ),
            ]
        )
    ],
)
def test_data_are_refused(make, args, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        make(*args)


@pytest.mark.parametrize(
    ("W", "message"),
    [
        (torch.ones(1, 3), "W: wanted shape (2, 3), got (1, 3)"),  # it would broadcast
        (torch.ones(3, 2), "W: wanted shape (2, 3), got (3, 2)"),
        (torch.ones(2, 3, **F64), "W: wanted torch.float32 on cpu as"),
    ],
)
@pytest.mark.parametrize(
    "residual",
    [losses.masked_residual(OMEGA, PHI), losses.sensing_residual(AS, Y)],
    ids=["masked", "sensing"],
)
def test_a_matrix_that_does_not_fit_is_refused(residual, W, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        residual(W)


def test_shapes_move_on_the_meta_device():
    meta = {"device": "meta", **F64}
    W = torch.ones(5, 7, **meta)
    for residual in (
        losses.masked_residual(torch.ones(5, 7, dtype=torch.bool, device="meta"), W),
        losses.sensing_residual(torch.ones(4, 5, 7, **meta), torch.ones(4, **meta)),
    ):
        loss, R = residual(W)
        assert loss.is_meta and R.is_meta and R.shape == W.shape
