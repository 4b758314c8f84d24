"""Observed entries: sorted, checked, split, and picked from a product in chunks."""

import re

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lop_utils import completion, observed
from lop_utils.observed import ObservedEntries, split

F64 = {"dtype": torch.float64}


def test_entries_are_sorted_in_whatever_order_they_come(generator):
    Phi = torch.randn(7, 5, generator=generator, **F64)
    place = torch.randperm(35, generator=generator)[:20]
    seen = ObservedEntries(place // 5, place % 5, Phi.flatten()[place], (7, 5))
    assert (seen.rows * 5 + seen.cols).tolist() == sorted(place.tolist())
    assert torch.equal(seen.values, Phi[seen.rows, seen.cols])
    assert seen.shape == (7, 5) and len(seen) == 20 and seen.p == 20 / 35
    assert repr(seen) == "ObservedEntries(20 of 7 x 5)"
    again = seen.select(torch.randperm(20, generator=generator))
    assert torch.equal(again.rows, seen.rows) and torch.equal(again.values, seen.values)
    some = seen.select(seen.rows > 3)
    assert some.rows.min() == 4 and torch.equal(some.values, Phi[some.rows, some.cols])
    assert torch.equal(seen.select((seen.rows > 3).tolist()).values, some.values)
    for index, message in (([20], "0 to 19, got 20 to 20"), ([True], "a mask of shape (20,), got")):
        with pytest.raises(ValueError, match="^" + re.escape(f"index: wanted {message}")):
            seen.select(index)
    other = seen.with_values(2 * seen.values)
    assert torch.equal(other.values, 2 * seen.values) and torch.equal(other.cols, seen.cols)


@pytest.mark.parametrize("dtype", "u1 u2 u4 u8 i1 i2 i4 i8".split())
def test_places_of_any_kind_and_whole_values(dtype):
    rows, cols = np.array([1, 0], dtype), np.array([0, 2], dtype)
    for values in ([5, 3], (5, 3), np.array([5, 3], dtype), torch.tensor([5, 3]).int()):
        for places in ((rows, cols), (rows.tolist(), cols.tolist())):
            seen = ObservedEntries(*places, values, (2, 3))
            assert (seen.rows.tolist(), seen.cols.tolist()) == ([0, 1], [2, 0])
            assert seen.rows.dtype == seen.cols.dtype == torch.int64
            assert seen.values.dtype == torch.float64 and seen.values.tolist() == [3.0, 5.0]


def test_a_matrix_whose_places_exceed_32_bits():
    last = 2**31 - 2
    seen = ObservedEntries([last, 0, last], [last, 5, 0], [1.0, 2.0, 3.0], (last + 1, last + 1))
    assert seen.rows.tolist() == [0, last, last] and seen.cols.tolist() == [5, 0, last]
    assert seen.p == pytest.approx(3 / 2**62)


GOOD = dict(rows=[0, 1], cols=[0, 1], values=[1.0, 2.0], shape=(3, 3))
BAD_PLACES = [
    ([0, 3], ValueError, "wanted 0 to 2, got 0 to 3"),
    ([-1, 2], ValueError, "wanted 0 to 2, got -1 to 2"),
    ([0.0, 1.0], TypeError, "wanted whole numbers, got torch.float64"),
    ([False, True], TypeError, "wanted whole numbers, got torch.bool"),
    ([], ValueError, "wanted a vector with entries, got shape (0,)"),
    ([[0, 1]], ValueError, "wanted a vector with entries, got shape (1, 2)"),
]
LENGTHS = "values: wanted a vector as long as rows and cols, got "
NAN, INF = float("nan"), float("inf")
BAD = [
    *[(dict(rows=v), e, f"rows: {m}") for v, e, m in BAD_PLACES],
    *[(dict(cols=v), e, f"cols: {m}") for v, e, m in BAD_PLACES],
    (dict(values=[1.0]), ValueError, LENGTHS + "(1,), (2,) and (2,)"),
    (dict(rows=[0]), ValueError, LENGTHS + "(2,), (1,) and (2,)"),
    (dict(cols=[0]), ValueError, LENGTHS + "(2,), (2,) and (1,)"),
    (dict(values=[[1.0], [2.0]]), ValueError, LENGTHS + "(2, 1), (2,) and (2,)"),
    (dict(values=[1j, 0]), TypeError, "values: wanted float32 or float64, got torch.complex128"),
    (dict(values=torch.ones(2).half()), TypeError, "values: wanted float32 or float64, got torch."),
    (dict(shape=(3,)), ValueError, "shape: wanted (rows, columns), got (3,)"),
    (dict(shape=(3, 3, 3)), ValueError, "shape: wanted (rows, columns), got (3, 3, 3)"),
    (dict(shape=(2, 0)), ValueError, "shape: wanted shape >= 1, got 0"),
    (dict(shape=(2.0, 2)), TypeError, "shape: wanted a whole number, got 2.0"),
    (dict(shape=3), TypeError, "shape: wanted (rows, columns), got 3"),
    (
        dict(shape=(2, 2**31)),
        ValueError,
        "shape: wanted fewer than 2**31 rows and columns, got 2 x 2147483648; "
        "numpy.unique(..., return_inverse=True) numbers those that occur",
    ),
    (
        dict(rows=["anna", "bob"]),
        TypeError,
        "rows: wanted a tensor of numbers, got list; numpy.unique(..., return_inverse=True)",
    ),
    *[
        (
            dict(rows=[2, 1], values=[bad, NAN]),
            ValueError,
            f"values: wanted finite numbers, got 2 others, the first {bad} at row 2, column 0",
        )
        for bad in (NAN, INF, -INF)
    ],
    (
        # (1, 2) twice, (2, 0) three times; equal values do not make it better
        dict(rows=[2, 1, 0, 2, 1, 2], cols=[0, 2, 0, 0, 2, 0], values=[1.0] * 6),
        ValueError,
        "rows, cols: wanted each entry once, got 3 repetitions, the first at row 1, column 2; "
        "merge them before, by their mean say",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[message for *_, message in BAD])
def test_what_is_no_sample_is_refused(change, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        ObservedEntries(**GOOD | change)


def test_a_split_is_drawn_evenly_and_kept_apart(generator):
    places = torch.ones(20, 10).nonzero().T
    seen = ObservedEntries(*places, torch.arange(200.0), (20, 10))
    counts = torch.zeros(200)
    for seed in range(200):
        train, test = split(seen, 0.3, generator=seed)
        assert (len(train), len(test)) == (140, 60) and train.shape == test.shape == (20, 10)
        both = torch.cat([train.values, test.values]).sort().values
        assert torch.equal(both, seen.values)
        counts[test.values.long()] += 1
    assert 30 < counts.min() and counts.max() < 90  # 60 on average, deviation 6.5
    assert torch.equal(split(seen, 0.3, generator=199)[1].values, test.values)
    for share in (0.0, 0.002, 0.998, 1.0, -0.1, 1e308):
        with pytest.raises(ValueError, match=r"^share: wanted some of 200 entries in each part"):
            split(seen, share)


def test_numbers_near_the_largest_are_right_or_refused():
    largest, places = torch.finfo(torch.float64).max, torch.ones(2, 2).nonzero().T
    values = torch.tensor([1.0, -1.0, 1.0, 0.5], **F64)
    expected = observed.fit_effects(ObservedEntries(*places, values, (2, 2)))
    found = observed.fit_effects(ObservedEntries(*places, largest / 8 * values, (2, 2)))
    assert (found.users / (largest / 8)).allclose(expected.users)
    with pytest.raises(ValueError, match=r"^values: wanted effects that torch.float64 can hold"):
        observed.fit_effects(ObservedEntries(*places, largest * values, (2, 2)))


# Effects; against dense least squares on simulated ratings in lop_book/test_ratings.py


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    share=st.floats(0.02, 1),
    shrinkage=st.tuples(*[st.sampled_from([0.0, 1e-6, 0.3, 5.0, 1e4])] * 2),
    seed=st.integers(0, 2**31),
)
def test_effects_are_those_of_least_norm_on_any_pattern(sides, share, shrinkage, seed):
    draw = torch.Generator().manual_seed(seed)
    places = (torch.rand(sides, generator=draw) <= share).nonzero()
    assume(n := len(places))
    values = torch.randn(n, generator=draw, **F64) + 3
    found = observed.fit_effects(ObservedEntries(*places.T, values, sides), shrinkage=shrinkage)
    A = torch.zeros(n + sum(sides), sum(sides), **F64)
    A[range(n), places[:, 0]] = A[range(n), sides[0] + places[:, 1]] = 1
    A[n:] = torch.tensor(shrinkage, **F64).sqrt().repeat_interleave(torch.tensor(sides)).diag()
    wanted = torch.cat([values - values.mean(), torch.zeros(sum(sides), **F64)])
    expected = torch.linalg.pinv(A, rtol=1e-9) @ wanted
    assert torch.cat([found.users, found.items]).sub(expected).abs().max() < 1e-8
    assert found.mean.item() == pytest.approx(values.mean().item())


def test_effects_along_a_chain_reach_its_end(generator):
    n = 2000  # each component a path of 2n entries: what conjugate gradients find hardest
    rows, cols = torch.arange(2 * n) // 2, (torch.arange(2 * n) + 1) // 2
    rows, cols = torch.cat([rows, rows + n]), torch.cat([cols, cols + n + 1])
    b, c = (torch.randn(size, generator=generator, **F64) for size in (2 * n, 2 * n + 2))
    values = b[rows] + c[cols]
    seen = ObservedEntries(rows, cols, values - values.mean(), (2 * n, 2 * n + 2))
    found = observed.fit_effects(seen, shrinkage=0)
    assert (found.predict(rows, cols) - seen.values).abs().max() < 1e-9
    for users, items in (
        (found.users[:n], found.items[: n + 1]),
        (found.users[n:], found.items[n + 1 :]),
    ):
        assert users.sum().item() == pytest.approx(items.sum().item(), abs=1e-8)  # least norm


def test_the_shrinkage_is_chosen_on_ratings_that_no_effect_saw(generator):
    users = torch.randn(300, generator=generator, **F64)
    places = (torch.rand(300, 200, generator=generator) < 0.05).nonzero().T
    values = users[places[0]] + torch.randn(places.shape[1], generator=generator, **F64)
    seen = ObservedEntries(*places, values, (300, 200))
    found = observed.fit_effects(seen, shrinkage=None, generator=1)
    assert found.shrinkage[0] <= 2.5 and found.shrinkage[1] >= 40  # 1 and infinity

    train, test = split(seen, 0.1, generator=1)

    def error(shrinkage):
        effects = observed.fit_effects(train, shrinkage=shrinkage)
        return (effects.predict(test.rows, test.cols) - test.values).square().mean().sqrt().item()

    assert found.held_out == pytest.approx(error(found.shrinkage), rel=1e-5)
    assert found.held_out <= min(error((s, t)) for s in (0.3, 1.2, 5, 20) for t in (5, 80)) + 1e-5
    again = observed.fit_effects(seen, shrinkage=found.shrinkage)  # all ratings are used at last
    assert torch.equal(again.users, found.users) and again.held_out is None


def test_effects_can_be_kept_from_what_complete_holds_out(generator):
    seen = ObservedEntries(*torch.ones(30, 20).nonzero().T, torch.arange(600.0), (30, 20))
    train, test = split(seen, 0.1, generator=0)
    found = completion.complete(seen, 1, steps=0, progress=False)  # by default the same draw
    for ours, theirs in ((train, found.train), (test, found.test)):
        assert torch.equal(ours.rows, theirs.rows) and torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize(
    ("shrinkage", "error", "message"),
    [
        ((1.0, 2.0, 3.0), ValueError, "shrinkage: wanted one number or two, got 3"),
        ((1.0, -2.0), ValueError, "shrinkage: wanted shrinkage >= 0, got -2.0"),
        ("5", TypeError, "shrinkage: wanted a real number, got '5'"),
        (None, ValueError, "shrinkage: wanted a number, since of 2 ratings (fewer than 10)"),
    ],
)
def test_another_shrinkage_is_refused(shrinkage, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        observed.fit_effects(
            ObservedEntries([0, 1], [0, 1], [1.0, 2.0], (2, 2)), shrinkage=shrinkage
        )


# Entries of a product


def factors(d_y, d_x, k, generator, dtype=torch.float64):
    P = torch.randn(d_y, k, generator=generator, dtype=dtype)
    return P, torch.randn(k, d_x, generator=generator, dtype=dtype)


@pytest.mark.parametrize("chunk", [1, 7, 59, 60, 61, 65536])
@pytest.mark.parametrize("k", [1, 4])
def test_entries_are_those_of_the_product(chunk, k, generator, monkeypatch):
    monkeypatch.setattr(observed, "_CHUNK", chunk)
    rows = torch.randint(9, (60,), generator=generator)
    cols = torch.randint(13, (60,), generator=generator)
    memory, copies = {}, []
    for _ in range(3):
        P, Q = factors(9, 13, k, generator)
        P, Q = P.T.contiguous().T, Q.T.contiguous().T
        expected = (P @ Q)[rows, cols]
        for kind in (torch.int64, torch.int32):
            found = observed._gathered(P, Q, rows.to(kind), cols.to(kind), {})
            assert (found - expected).abs().max() < 1e-14 * 60
        kept = observed._gathered(P, Q, rows, cols, memory)
        assert torch.equal(kept, found)
        assert kept.data_ptr() == memory["out"].data_ptr()  # nothing new was allocated
        copies.append((found, found.clone()))
    # Without memory in common results are not shared.
    assert all(torch.equal(A, B) for A, B in copies)


def test_each_device_and_dtype(place, generator):
    P, Q = (A.to(**place.kind) for A in factors(6, 8, 3, generator))
    rows, cols = torch.ones(6, 8).nonzero().T
    seen = ObservedEntries(rows, cols, torch.ones(48, **place.kind), (6, 8))
    found = observed._gathered(P, Q, seen.rows, seen.cols, {})
    for A in (found, seen.values, split(seen, 0.5, generator=0)[0].values):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    exact = (P.double() @ Q.double()).flatten()
    assert (found.double() - exact).abs().max() < place.tolerance
