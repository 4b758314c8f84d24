"""Every check: what it lets pass, and the words with which it refuses."""

import math
import re

import pytest
import torch

from lop_utils import _checks

EYE = torch.eye(2)
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("check", "arguments", "result"),
    [
        pytest.param(_checks.finite_number, (-3,), -3.0, id="finite_number"),
        pytest.param(_checks.positive, (1e-300,), 1e-300, id="positive"),
        pytest.param(_checks.nonnegative, (0,), 0.0, id="nonnegative"),
        pytest.param(_checks.count, (0,), 0, id="count"),
        pytest.param(_checks.count, (3, 3), 3, id="count-at-its-bound"),
    ],
)
def test_numbers_pass(check, arguments, result):
    given = check("x", *arguments)
    assert given == result and type(given) is type(result)


def test_numbers_of_other_types_pass():
    # What torch and numpy hand around as sizes and scales.
    import numpy as np

    assert _checks.count("r", np.int64(3)) == 3
    assert _checks.positive("eps", np.float32(0.5)) == 0.5


@pytest.mark.parametrize(
    ("check", "arguments", "error", "message"),
    [
        (_checks.finite_number, ("1",), TypeError, "x: wanted a real number, got '1'"),
        (_checks.finite_number, (True,), TypeError, "x: wanted a real number, got True"),
        (_checks.finite_number, (1j,), TypeError, "x: wanted a real number, got 1j"),
        (_checks.finite_number, (EYE,), TypeError, "x: wanted a real number, got tensor("),
        (_checks.finite_number, (NAN,), ValueError, "x: wanted a finite number, got nan"),
        (_checks.finite_number, (-INF,), ValueError, "x: wanted a finite number, got -inf"),
        (_checks.positive, (0,), ValueError, "x: wanted x > 0, got 0"),
        (_checks.positive, (-0.5,), ValueError, "x: wanted x > 0, got -0.5"),
        (_checks.positive, (NAN,), ValueError, "x: wanted a finite number, got nan"),
        (_checks.nonnegative, (-1e-9,), ValueError, "x: wanted x >= 0, got -1e-09"),
        (_checks.count, (2.0,), TypeError, "x: wanted a whole number, got 2.0"),
        (_checks.count, (True,), TypeError, "x: wanted a whole number, got True"),
        (_checks.count, (-1,), ValueError, "x: wanted x >= 0, got -1"),
        (_checks.count, (0, 1), ValueError, "x: wanted x >= 1, got 0"),
        (_checks.matrix, ([[1.0]],), TypeError, "x: wanted a torch.Tensor, got list"),
        (
            _checks.matrix,
            (torch.ones(2, 2, dtype=torch.int64),),
            TypeError,
            "x: wanted a floating-point matrix, got torch.int64",
        ),
        (_checks.matrix, (torch.ones(2),), ValueError, "x: wanted a matrix, got shape (2,)"),
        (
            _checks.matrix,
            (torch.ones(2, 0),),
            ValueError,
            "x: wanted a matrix with entries, got shape (2, 0)",
        ),
        (_checks.matrix, (EYE * NAN,), ValueError, "x: wanted finite entries, got NaN or infinity"),
        (_checks.matrix, (EYE / 0,), ValueError, "x: wanted finite entries, got NaN or infinity"),
        (_checks.shaped, (EYE, (2, 3)), ValueError, "x: wanted shape (2, 3), got (2, 2)"),
        (
            _checks.same_kind,
            (EYE, "y", EYE.double()),
            ValueError,
            "x: wanted torch.float64 on cpu as y, got torch.float32 on cpu",
        ),
        (
            _checks.same_kind,
            (EYE, "y", EYE.to("meta")),
            ValueError,
            "x: wanted torch.float32 on meta as y, got torch.float32 on cpu",
        ),
        (_checks.layers, (EYE,), TypeError, "x: wanted a sequence of matrices, got Tensor"),
        (_checks.layers, (iter([EYE]),), TypeError, "x: wanted a sequence of matrices, got list_"),
        (_checks.layers, ([],), ValueError, "x: wanted at least one matrix, got none"),
        (_checks.layers, ([EYE, 1],), TypeError, "x[1]: wanted a torch.Tensor, got int"),
        (
            _checks.layers,
            ([EYE, EYE.double()],),
            ValueError,
            "x[1]: wanted torch.float32 on cpu as x[0], got torch.float64 on cpu",
        ),
        (
            _checks.layers,
            ([torch.ones(3, 2), torch.ones(4, 2)],),
            ValueError,
            "x[1]: wanted 3 columns to follow x[0] of shape (3, 2), got shape (4, 2)",
        ),
        (_checks.features, ([[1.0]],), TypeError, "x: wanted a torch.Tensor, got list"),
        (
            _checks.features,
            (torch.ones(2),),
            ValueError,
            "x: wanted shape (..., d, N) with entries, got (2,)",
        ),
        (
            _checks.features,
            (torch.ones(3, 0, 2),),
            ValueError,
            "x: wanted shape (..., d, N) with entries, got (3, 0, 2)",
        ),
        (
            _checks.features,
            (torch.ones(3, 2, 2, dtype=torch.int64),),
            TypeError,
            "x: wanted a floating-point matrix, got torch.int64",
        ),
        (
            _checks.features,
            (torch.stack([EYE, EYE * NAN]),),
            ValueError,
            "x: wanted finite entries, got NaN or infinity",
        ),
        (
            _checks.orthogonal_up_to,
            (EYE, 0.5),
            ValueError,
            "x: wanted an orthogonal matrix times eps = 0.5, got a Gram matrix 3.0e+00 away from "
            "eps^2 I (relative; at most 2.4e-05)",
        ),
    ],
)
def test_what_is_refused_is_named(check, arguments, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        check("x", *arguments)


@pytest.mark.parametrize("shape", [(5, 5), (3, 5), (5, 3)], ids=["square", "wide", "tall"])
def test_orthogonal_in_whichever_way_the_shape_allows(generator, shape):
    Q = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q[: shape[0], : shape[1]]
    _checks.orthogonal_up_to("W", 0.1 * Q, 0.1)
    with pytest.raises(ValueError, match="wanted an orthogonal matrix"):
        _checks.orthogonal_up_to("W", 0.1 * Q + 1e-4, 0.1)


def test_checks_of_values_pass_a_meta_tensor_by():
    # It has a shape and no numbers: there is nothing to be NaN or not orthogonal.
    W = torch.full((2, 2), NAN, device="meta")
    assert _checks.matrix("W", W) is W
    _checks.orthogonal_up_to("W", W, 1.0)


def test_layers_come_back_as_a_new_list_of_the_same_tensors():
    Ws = (EYE, 2 * EYE)
    given = _checks.layers("Ws", Ws)
    assert type(given) is list and all(a is b for a, b in zip(given, Ws, strict=True))


@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 3), (5, 4, 2, 3)], ids=str)
def test_features_come_back_whatever_their_leading_axes(shape):
    Z = torch.ones(5, 4, 3, 2).mT[(0,) * (4 - len(shape))]  # in any order of memory
    assert Z.shape == shape and _checks.features("Z", Z) is Z


Z4, Y4 = torch.ones(3, 2, 4), torch.tensor([2, 0, 1, 2])


@pytest.mark.parametrize("kind", ["int64", "int32", "int16", "int8", "uint8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_come_as_one_hot_rows_and_sizes(kind, dtype):
    members, sizes = _checks.one_hot_classes(Z4.to(dtype), Y4.to(getattr(torch, kind)), at_least=3)
    assert members.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert sizes.tolist() == [1, 1, 2] and members.dtype == sizes.dtype == dtype


@pytest.mark.parametrize(
    ("Z", "y", "error", "message"),
    [
        (Z4[0, 0], Y4, ValueError, "Z: wanted shape (..., d, N) with entries, got (4,)"),
        (Z4 / 0, Y4, ValueError, "Z: wanted finite entries, got NaN or infinity"),
        (Z4, [2, 0, 1, 2], TypeError, "y: wanted a tensor of whole numbers, got list"),
        (Z4, Y4.numpy(), TypeError, "y: wanted a tensor of whole numbers, got int64"),
        (Z4, Y4.float(), TypeError, "y: wanted a tensor of whole numbers, got torch.float32"),
        (Z4, Y4 > 0, TypeError, "y: wanted a tensor of whole numbers, got torch.bool"),
        (Z4, Y4[:3], ValueError, "y: wanted N = 4 labels as Z has columns, got (3,)"),
        (Z4, Y4[None], ValueError, "y: wanted N = 4 labels as Z has columns, got (1, 4)"),
        (Z4, Y4[0], ValueError, "y: wanted N = 4 labels as Z has columns, got ()"),
        (Z4, Y4.to("meta"), ValueError, "y: wanted labels on cpu as Z, got meta"),
        (Z4, Y4 - 1, ValueError, "y: wanted classes 0, 1, ..., K - 1, got -1"),
        (Z4, Y4 + 1, ValueError, "y: wanted samples of all classes 0 to 3, got none of 0"),
        (Z4, 3 * Y4, ValueError, "y: wanted samples of all classes 0 to 6, got none of 1"),
        (Z4, Y4.clamp(max=1), ValueError, "y: wanted K >= 3 classes, got K = 2"),
    ],
)
def test_labels_that_do_not_fit_are_named(Z, y, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        _checks.one_hot_classes(Z, y, at_least=3)
