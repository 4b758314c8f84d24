"""Every check: what it lets pass, what it makes of it, and the words with which it refuses."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lop_utils import _checks

EYE = torch.eye(2)
NAN, INF = math.nan, math.inf
TWO = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("check", "arguments", "result"),
    [
        (_checks.finite_number, (-3,), -3.0),
        (_checks.finite_number, (torch.tensor(2),), 2.0),
        (_checks.finite_number, (np.array(2.5),), 2.5),
        (_checks.positive, (1e-300,), 1e-300),
        (_checks.positive, (np.float32(0.5),), 0.5),
        (_checks.nonnegative, (0,), 0.0),
        (_checks.fraction, (0,), 0.0),
        (_checks.fraction, (0.99,), 0.99),
        (_checks.count, (0,), 0),
        (_checks.count, (3, 3), 3),
        (_checks.count, (np.int64(3),), 3),
        (_checks.count, (torch.tensor(3, dtype=torch.uint8),), 3),
        (_checks.flag, (np.bool_(False),), False),
        (_checks.path, ("a",), Path("a")),
        (_checks.path, (Path("a"),), Path("a")),
        (_checks.one_of, ("a", ("a", "b")), "a"),
    ],
)
def test_numbers_and_words_pass(check, arguments, result):
    given = check("x", *arguments)
    assert given == result and type(given) is type(result)


def test_a_generator_may_be_a_seed():
    generator = torch.Generator()
    assert _checks.seeded(None) is None and _checks.seeded(generator) is generator
    for seed in (3, np.int64(3)):
        assert _checks.seeded(seed).initial_seed() == 3
    for wrong in (True, 1.0, "1"):
        with pytest.raises(
            TypeError, match=f"^generator: wanted a torch.Generator .* got {wrong!r}"
        ):
            _checks.seeded(wrong)
    for wrong in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match=f"^generator: wanted a seed of 64 bits, got {wrong}"):
            _checks.seeded(wrong)


class Column:
    """What a column of pandas is to numpy."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


def read_only():
    A = TWO.copy()
    A.setflags(write=False)
    return A


@pytest.mark.parametrize(
    "value",
    [TWO, TWO.tolist(), read_only(), TWO[::-1, ::-1][::-1, ::-1], TWO.T.copy().T]
    + [TWO.astype(kind) for kind in (">f8", ">i4", "u2", "i1", np.longlong, np.ulonglong)]
    + [Column(TWO), [row for row in TWO], torch.tensor(TWO), TWO.astype(">u8")],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")),
)
def test_what_becomes_a_tensor(value):
    found = _checks.matrix("A", value)
    assert found.dtype == torch.float64 and found.tolist() == TWO.tolist()
    if isinstance(value, np.ndarray):  # its numbers are our own
        found.zero_()
        assert value.sum() == 15


def test_a_tensor_stays_what_it_is_and_an_array_keeps_its_precision():
    for A in (EYE, EYE.double(), EYE.T):
        assert _checks.matrix("A", A) is A and _checks.tensor("A", A) is A
    assert _checks.matrix("A", TWO.astype("f4")).dtype == torch.float32
    assert _checks.vector("v", [1, 2]).dtype == torch.float64
    assert _checks.tensor("v", [1, 2]).dtype == torch.int64
    assert _checks.tensor("v", [True]).dtype == torch.bool
    runs = torch.ones(5, 2, 3)
    assert _checks.matrix("A", runs, runs=True) is runs
    assert _checks.shaped("A", runs, (2, 3), runs=True) is runs
    assert _checks.shaped("A", EYE, (2, 2)) is EYE


def raises(error, message, check, *arguments, **options):
    with pytest.raises(error, match="^" + re.escape(message)):
        check("x", *arguments, **options)


NUMBER, WHOLE = "x: wanted a real number, got ", "x: wanted a whole number, got "
FINITE = "x: wanted finite entries, got NaN or infinity"


@pytest.mark.parametrize(
    ("check", "arguments", "error", "message"),
    [
        (_checks.finite_number, ("1",), TypeError, NUMBER + "'1'"),
        (_checks.finite_number, (True,), TypeError, NUMBER + "True"),
        (_checks.finite_number, (np.bool_(True),), TypeError, NUMBER),
        (_checks.finite_number, (1j,), TypeError, NUMBER + "1j"),
        (_checks.finite_number, (EYE,), TypeError, NUMBER + "tensor("),
        (_checks.finite_number, (NAN,), ValueError, "x: wanted a finite number, got nan"),
        (_checks.finite_number, (INF,), ValueError, "x: wanted a finite number, got inf"),
        (_checks.finite_number, (-INF,), ValueError, "x: wanted a finite number, got -inf"),
        (_checks.finite_number, (10**400,), ValueError, "x: wanted a finite number, got inf"),
        (_checks.finite_number, (-(10**400),), ValueError, "x: wanted a finite number, got -inf"),
        (_checks.finite_number, (EYE[0, 0].to("meta"),), TypeError, NUMBER + "tensor("),
        (_checks.positive, (0,), ValueError, "x: wanted x > 0, got 0"),
        (_checks.positive, (NAN,), ValueError, "x: wanted a finite number, got nan"),
        (_checks.nonnegative, (-1e-9,), ValueError, "x: wanted x >= 0, got -1e-09"),
        (_checks.fraction, (1,), ValueError, "x: wanted 0 <= x < 1, got 1"),
        (_checks.fraction, (-0.1,), ValueError, "x: wanted 0 <= x < 1, got -0.1"),
        (_checks.count, (2.0,), TypeError, WHOLE + "2.0"),
        (_checks.count, (True,), TypeError, WHOLE + "True"),
        (_checks.count, (-1,), ValueError, "x: wanted x >= 0, got -1"),
        (_checks.count, (0, 1), ValueError, "x: wanted x >= 1, got 0"),
        (_checks.count, (2**63,), ValueError, "x: wanted x < 2**63, got more"),
        (_checks.flag, ("no",), TypeError, "x: wanted True or False, got 'no'"),
        (_checks.path, (3,), TypeError, "x: wanted a str or Path, got 3"),
        (_checks.path, (b"a",), TypeError, "x: wanted a str or Path, got b'a'"),
        (_checks.instance, (3, str), TypeError, "x: wanted str, got int"),
        (_checks.one_of, (TWO, ("a", "b")), ValueError, "x: wanted one of a, b, got array("),
        (
            _checks.tensor,
            (EYE.to_sparse(),),
            TypeError,
            "x: wanted a dense tensor, got torch.sparse",
        ),
        (_checks.one_of, ("c", ("a", "b")), ValueError, "x: wanted one of a, b, got 'c'"),
        (_checks.tensor, ("abc",), TypeError, "x: wanted a tensor of numbers, got str"),
        (_checks.tensor, ([[1], [1, 2]],), TypeError, "x: wanted a tensor of numbers, got list"),
        (_checks.tensor, (np.array([None]),), TypeError, "x: wanted a tensor of numbers, got obj"),
        (_checks.tensor, (EYE.to_sparse(),), TypeError, "x: wanted a dense tensor, got torch.spar"),
        (
            _checks.tensor,
            (np.ma.masked_equal(TWO, 3),),
            ValueError,
            "x: wanted numbers throughout, got a masked array that hides some",
        ),
        (_checks.matrix, (EYE.long(),), TypeError, "x: wanted float32 or float64, got torch.int64"),
        (_checks.matrix, (EYE.half(),), TypeError, "x: wanted float32 or float64, got torch.float"),
        (_checks.matrix, ([[1j]],), TypeError, "x: wanted float32 or float64, got torch.complex12"),
        (_checks.matrix, (torch.ones(2),), ValueError, "x: wanted a matrix, got shape (2,)"),
        (_checks.matrix, (EYE[None],), ValueError, "x: wanted a matrix, got shape (1, 2, 2)"),
        (_checks.matrix, (EYE[:, :0],), ValueError, "x: wanted a matrix with entries, got shape ("),
        (_checks.matrix, (EYE * NAN,), ValueError, FINITE),
        (_checks.matrix, (EYE / 0,), ValueError, FINITE),
        (_checks.vector, (EYE,), ValueError, "x: wanted a vector with entries, got shape (2, 2)"),
        (_checks.vector, ([],), ValueError, "x: wanted a vector with entries, got shape (0,)"),
        (_checks.vector, ([NAN],), ValueError, FINITE),
        (_checks.shaped, (EYE, (2, 3)), ValueError, "x: wanted shape (2, 3), got (2, 2)"),
        (_checks.same_kind, (EYE, "y", EYE.double()), ValueError, "x: wanted torch.float64 on cpu"),
        (
            _checks.fits,
            (EYE, (2, 2), "y", EYE.to("meta")),
            ValueError,
            "x: wanted torch.float32 on meta as y, got torch.float32 on cpu",
        ),
        (_checks.fits, (EYE, (2,), "y", EYE), ValueError, "x: wanted shape (2,), got (2, 2)"),
        (_checks.layers, (EYE,), TypeError, "x: wanted a sequence of matrices, got Tensor"),
        (_checks.layers, (TWO,), TypeError, "x: wanted a sequence of matrices, got ndarray"),
        (_checks.layers, (iter([EYE]),), TypeError, "x: wanted a sequence of matrices, got list_"),
        (_checks.layers, ([],), ValueError, "x: wanted at least one matrix, got none"),
        (_checks.layers, ([EYE, "a"],), TypeError, "x[1]: wanted a tensor of numbers, got str"),
        (_checks.layers, ([EYE, EYE * NAN],), ValueError, "x[1]: wanted finite entries, got NaN"),
        (_checks.layers, ([EYE[None]],), ValueError, "x[0]: wanted a matrix, got shape (1, 2, 2)"),
        (_checks.chain, ([EYE, EYE.double()],), ValueError, "x[1]: wanted torch.float32 on cpu as"),
        (
            _checks.chain,
            ([torch.ones(3, 2), torch.ones(4, 2)],),
            ValueError,
            "x[1]: wanted 3 columns to follow x[0] of shape (3, 2), got shape (4, 2)",
        ),
        (
            _checks.chain,
            ([torch.ones(5, 2, 2), torch.ones(4, 2, 2)],),
            ValueError,
            "x[1]: wanted one matrix for each run as x[0] of shape (5, 2, 2), got shape (4, 2, 2)",
        ),
        (_checks.features, ([1.0],), ValueError, "x: wanted shape (..., d, N) with entries, got ("),
        (_checks.features, (torch.ones(3, 0, 2),), ValueError, "x: wanted shape (..., d, N) with"),
        (_checks.features, (EYE.long(),), TypeError, "x: wanted float32 or float64, got torch.int"),
        (_checks.features, (torch.stack([EYE, EYE / 0]),), ValueError, FINITE),
        (_checks.indices, ([[1]], 3), ValueError, "x: wanted a vector with entries, got shape (1,"),
        (_checks.indices, ([], 3), ValueError, "x: wanted a vector with entries, got shape (0,)"),
        (_checks.indices, ([1.0], 3), TypeError, "x: wanted whole numbers, got torch.float64"),
        (_checks.indices, ([True], 3), TypeError, "x: wanted whole numbers, got torch.bool"),
        (
            _checks.indices,
            (["a"], 3),
            TypeError,
            "x: wanted a tensor of numbers, got list; numpy.unique(..., return_inverse=True) "
            "numbers names",
        ),
        (_checks.indices, (EYE[0].to("meta"), 3), TypeError, "x: wanted numbers, got a tensor on"),
        (_checks.indices, ([2**63], 3), ValueError, "x: wanted numbers below 2**63, got 922337203"),
        (_checks.indices, ([0, 3], 3), ValueError, "x: wanted 0 to 2, got 0 to 3"),
        (_checks.indices, ([-1, 2], 3), ValueError, "x: wanted 0 to 2, got -1 to 2"),
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
    raises(error, message, check, *arguments)


def test_runs_are_refused_as_matrices_where_their_last_axes_do_not_fit():
    runs = torch.ones(5, 2, 3)
    raises(
        ValueError, "x: wanted shape (3, 2), got (5, 2, 3)", _checks.shaped, runs, (3, 2), runs=True
    )
    raises(ValueError, FINITE, _checks.matrix, runs * NAN, runs=True)


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
    for Ws in ((EYE, 2 * EYE), (EYE[None], EYE[None])):
        given = _checks.layers("Ws", Ws, runs=True)
        assert type(given) is list and all(a is b for a, b in zip(given, Ws, strict=True))
    assert _checks.chain("Ws", [EYE * NAN])[0].isnan().any()  # a chain is about shapes


@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 3), (5, 4, 2, 3)], ids=str)
def test_features_come_back_whatever_their_leading_axes(shape):
    Z = torch.ones(5, 4, 3, 2).mT[(0,) * (4 - len(shape))]  # in any order of memory
    assert Z.shape == shape and _checks.features("Z", Z) is Z
    for half in (Z.half(), Z.bfloat16(), Z.half().numpy()):
        assert _checks.features("Z", half).dtype == torch.float32
    assert _checks.features("Z", Z.tolist()).dtype == torch.float64


Z4, Y4 = torch.ones(3, 2, 4), torch.tensor([2, 0, 1, 2])


@pytest.mark.parametrize("kind", ["int64", "int16", "int8", "uint8", "uint16", "list"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_come_as_one_hot_rows_and_sizes(kind, dtype):
    y = Y4.tolist() if kind == "list" else Y4.to(getattr(torch, kind))
    members, sizes = _checks.classes(Z4.to(dtype), y, at_least=3)
    assert members.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert sizes.tolist() == [1, 1, 2] and members.dtype == sizes.dtype == dtype


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (Y4.float(), TypeError, "y: wanted whole numbers, got torch.float32"),
        (Y4 > 0, TypeError, "y: wanted whole numbers, got torch.bool"),
        (Y4[:3], ValueError, "y: wanted N = 4 labels as Z has columns, got (3,)"),
        (Y4[None], ValueError, "y: wanted N = 4 labels as Z has columns, got (1, 4)"),
        (Y4[0], ValueError, "y: wanted N = 4 labels as Z has columns, got ()"),
        (Y4 - 1, ValueError, "y: wanted 0 to 3, got -1 to 1"),
        (3 * Y4, ValueError, "y: wanted 0 to 3, got 0 to 6"),
        (Y4 + 1, ValueError, "y: wanted samples of all classes 0 to 3, got none of 0"),
        (Y4.clamp(max=1), ValueError, "y: wanted K >= 3 classes, got K = 2"),
    ],
)
def test_labels_that_do_not_fit_are_named(y, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        _checks.classes(Z4, y, at_least=3)
