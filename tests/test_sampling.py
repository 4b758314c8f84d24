"""Observed entries: sorted, checked, and picked from a product in chunks."""

import re

import numpy as np
import pytest
import torch

from lop_utils import sampling


def refuses(error, message, *args):
    with pytest.raises(error, match="^" + re.escape(message)):
        sampling.observe(*args)


# observe


def test_entries_come_back_sorted_by_row_and_column(generator):
    Phi = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    place = torch.randperm(35, generator=generator)[:20]
    rows, cols = place // 5, place % 5
    seen = sampling.observe(rows, cols, Phi[rows, cols], (7, 5))
    assert (seen.rows * 5 + seen.cols).tolist() == sorted(place.tolist())
    assert torch.equal(seen.values, Phi[seen.rows, seen.cols])
    assert seen.shape == (7, 5) and seen.fraction == 20 / 35
    assert seen.rows.dtype == seen.cols.dtype == torch.int64


def test_order_does_not_matter(generator):
    rows, cols = torch.ones(4, 6).nonzero().T
    values = torch.randn(24, generator=generator)
    shuffled = torch.randperm(24, generator=generator)
    one = sampling.observe(rows, cols, values, (4, 6))
    other = sampling.observe(rows[shuffled], cols[shuffled], values[shuffled], (4, 6))
    assert all(torch.equal(A, B) for A, B in zip(one[:3], other[:3], strict=True))


@pytest.mark.parametrize(
    "values",
    [[3, 1], (3, 1), np.array([3, 1], np.int8), torch.tensor([3, 1]), torch.tensor([3, 1]).int()],
    ids=["list", "tuple", "numpy", "int64", "int32"],
)
def test_integer_values_become_float64(values):
    seen = sampling.observe([1, 0], [0, 1], values, (2, 2))
    assert seen.values.dtype == torch.float64 and seen.values.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_floating_point_values_keep_their_dtype(dtype):
    assert sampling.observe([0], [0], torch.ones(1, dtype=dtype), (1, 1)).values.dtype == dtype


# torch takes wide unsigned integers since 2.3.
WIDE = pytest.mark.skipif(not hasattr(torch, "uint16"), reason="this torch has no such integers")
INTEGERS = ["u1", *(pytest.param(name, marks=WIDE) for name in ("u2", "u4", "u8"))]
INTEGERS += ["i1", "i2", "i4", "i8"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_indices_of_any_integer_type(dtype):
    rows, cols = np.array([1, 0], dtype), np.array([0, 2], dtype)
    seen = sampling.observe(rows, cols, np.array([5.0, 3.0], np.float32), (2, 3))
    assert (seen.rows.tolist(), seen.cols.tolist(), seen.values.tolist()) == (
        [0, 1],
        [2, 0],
        [3, 5],
    )
    assert seen.rows.dtype == seen.cols.dtype == torch.int64
    assert seen.values.dtype == torch.float32


def test_a_column_of_values_is_a_vector():
    seen = sampling.observe([1, 0], [0, 0], torch.tensor([[1.0], [2.0]]), (2, 1))
    assert seen.values.tolist() == [2.0, 1.0]


def test_a_matrix_whose_places_exceed_32_bits():
    last = 10**6 - 1
    seen = sampling.observe([last, 0, last], [last, 5, 0], [1.0, 2.0, 3.0], (10**6, 10**6))
    assert seen.rows.tolist() == [0, last, last] and seen.cols.tolist() == [5, 0, last]
    assert seen.fraction == pytest.approx(3e-12)


@pytest.mark.parametrize("name", ["rows", "cols"])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([0, 3], ValueError, "wanted 0 to 2, got 0 to 3"),
        ([-1, 2], ValueError, "wanted 0 to 2, got -1 to 2"),
        ([0.0, 1.0], TypeError, "wanted whole numbers, got torch.float32"),
        ([False, True], TypeError, "wanted whole numbers, got torch.bool"),
        ([1j, 0], TypeError, "wanted whole numbers, got torch.complex64"),
        ([], ValueError, "wanted a vector with entries, got shape (0,)"),
        ([[0, 1]], ValueError, "wanted a vector with entries, got shape (1, 2)"),
        (1, ValueError, "wanted a vector with entries, got shape ()"),
    ],
)
def test_indices_are_refused(name, wrong, error, message):
    good = {"rows": [0, 1], "cols": [0, 1]} | {name: wrong}
    refuses(error, f"{name}: {message}", good["rows"], good["cols"], [1.0, 2.0], (3, 3))


@pytest.mark.parametrize(
    ("rows", "cols", "values", "counts"),
    [
        ([0, 1], [0, 1], [1.0], "1, 2 and 2"),
        ([0, 1], [0], [1.0, 2.0], "2, 2 and 1"),
        ([0], [0, 1], [1.0, 2.0], "2, 1 and 2"),
        ([0, 1], [0, 1], [], "0, 2 and 2"),
    ],
)
def test_lengths_must_agree(rows, cols, values, counts):
    message = f"values: wanted as many as rows and cols, got {counts}"
    refuses(ValueError, message, rows, cols, values, (3, 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_is_named_with_its_place(bad):
    values = torch.tensor([1.0, bad, 2.0, float("nan")])
    message = f"values: wanted finite numbers, got 2 others, the first {bad} at row 4, column 2"
    refuses(ValueError, message, [0, 4, 1, 2], [0, 2, 1, 1], values, (5, 3))
    refuses(ValueError, message, [0, 4, 1, 2], [0, 2, 1, 1], values[:, None], (5, 3))


def test_a_single_value_that_is_no_number():
    message = "values: wanted finite numbers, got 1 others, the first nan at row 0, column 0"
    refuses(ValueError, message, [0], [0], float("nan"), (1, 1))


def test_complex_values_are_refused():
    refuses(TypeError, "values: wanted real numbers, got torch.complex64", [0], [0], [1j], (1, 1))


def test_repetitions_are_counted_and_the_first_is_named():
    message = (
        "rows, cols: wanted each entry once, got 3 repetitions, the first at row 1, column 2; "
        "merge them before, by their mean say"
    )
    # (1, 2) twice, (3, 0) three times; equal values do not make it better
    rows, cols = [3, 1, 0, 3, 1, 3], [0, 2, 0, 0, 2, 0]
    refuses(ValueError, message, rows, cols, [1.0] * 6, (4, 3))


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((2,), ValueError, "shape: wanted (rows, columns), got (2,)"),
        ((2, 2, 2), ValueError, "shape: wanted (rows, columns), got (2, 2, 2)"),
        ((2, 0), ValueError, "shape: wanted shape >= 1, got 0"),
        ((2.0, 2), TypeError, "shape: wanted a whole number, got 2.0"),
    ],
)
def test_shapes_are_refused(shape, error, message):
    refuses(error, message, [0], [0], [1.0], shape)


# entries


def factors(d_y, d_x, k, generator, dtype=torch.float64):
    P = torch.randn(d_y, k, generator=generator, dtype=dtype)
    return P, torch.randn(k, d_x, generator=generator, dtype=dtype)


@pytest.mark.parametrize("chunk", [1, 7, 20, 59, 60, 61, 65536])
@pytest.mark.parametrize("k", [1, 4])
def test_entries_are_those_of_the_product(chunk, k, generator, monkeypatch):
    monkeypatch.setattr(sampling, "_CHUNK", chunk)
    P, Q = factors(9, 13, k, generator)
    rows = torch.randint(9, (60,), generator=generator)
    cols = torch.randint(13, (60,), generator=generator)
    expected = (P @ Q)[rows, cols]
    for kind in (torch.int64, torch.int32):
        found = sampling.entries(P, Q, rows.to(kind), cols.to(kind))
        assert (found - expected).abs().max() < 1e-14 * 60


def test_entries_of_factors_that_are_not_contiguous(generator):
    wide, tall = factors(5, 18, 9, generator)
    P, Q = wide[:, ::3], tall[::3, ::2]
    assert not P.is_contiguous() and not Q.is_contiguous()
    rows, cols = torch.ones(5, 9).nonzero().T
    found = sampling.entries(P, Q, rows, cols)
    assert (found - (P @ Q).flatten()).abs().max() < 1e-14


def test_a_workspace_gives_the_same_numbers_each_time(generator, monkeypatch):
    monkeypatch.setattr(sampling, "_CHUNK", 8)
    rows, cols = torch.ones(4, 5).nonzero().T
    workspace = {}
    for _ in range(3):
        P, Q = factors(4, 5, 2, generator)
        kept = sampling.entries(P, Q, rows, cols, workspace=workspace)
        place = kept.data_ptr()
        assert torch.equal(kept, sampling.entries(P, Q, rows, cols))
        assert place == workspace["out"].data_ptr()  # nothing new was allocated


def test_without_a_workspace_results_are_not_shared(generator):
    P, Q = factors(4, 5, 2, generator)
    one = sampling.entries(P, Q, torch.tensor([0]), torch.tensor([0]))
    kept = one.clone()
    sampling.entries(-P, Q, torch.tensor([0]), torch.tensor([0]))
    assert torch.equal(one, kept)


def test_entries_on_each_device(place, generator):
    P, Q = (A.to(place.kind["device"]) for A in factors(6, 8, 3, generator, place.kind["dtype"]))
    rows, cols = torch.ones(6, 8).nonzero().T.to(place.kind["device"])
    found = sampling.entries(P, Q, rows, cols)
    assert found.dtype == place.kind["dtype"] and found.device.type == place.kind["device"]
    exact = (P.double() @ Q.double()).flatten()
    assert (found.double() - exact).abs().max() < place.tolerance


def test_observations_on_each_device(place):
    values = torch.tensor([1.0, 2.0], **place.kind)
    rows, cols = torch.tensor([[1, 0], [0, 1]], device=values.device)
    seen = sampling.observe(rows, cols, values, (2, 2))
    assert seen.values.tolist() == [2.0, 1.0]
    assert all(A.device.type == place.kind["device"] for A in seen[:3])
    assert seen.values.dtype == place.kind["dtype"]
