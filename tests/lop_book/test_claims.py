"""A claim holds or raises; what it shows travels in its cell."""

import json
import math

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

from lop_utils.book import claims


def check(measured, statement="a statement", **bounds):
    return claims.claim("x.y", statement, measured=measured, source="a source", **bounds)


@pytest.mark.parametrize(
    ("measured", "bounds", "shown"),
    [
        (1.0, {"at_most": 1.0}, "1 ≤ 1"),
        (1.234e-15, {"at_most": 1e-12}, "1.23e-15 ≤ 1e-12"),
        (1, {"at_least": 1}, "1 ≥ 1"),
        (0, {"at_most": 0}, "0 ≤ 0"),  # a bound of zero is a bound
        (0.5, {"at_least": 0.25, "at_most": 1}, "0.5 ≤ 1 and ≥ 0.25"),
        (-1.01, {"near": -1.0, "rtol": 0.011}, "-1.01 ≈ -1 (to 0.011 relative)"),
        (101.0, {"near": 100.0, "rtol": 0.011}, "101 ≈ 100 (to 0.011 relative)"),
        (6, {"near": 6, "rtol": 0}, "6 = 6"),
        (torch.tensor([[0.25]]), {"at_most": 1}, "0.25 ≤ 1"),
    ],
)
def test_what_holds_is_shown_beside_its_bounds(measured, bounds, shown):
    result = check(measured, **bounds)
    assert type(result.measured) is float
    assert (result.measured, result.bounds) == (float(measured), bounds)
    assert result.number() == shown


@pytest.mark.parametrize(
    ("measured", "bounds"),
    [
        (1.0 + 1e-15, {"at_most": 1.0}),
        (0.0, {"at_least": 1e-300}),
        (2.0, {"at_least": 0, "at_most": 1}),
        (1.02, {"near": 1.0, "rtol": 0.011}),
        (0.02, {"near": 0.01, "rtol": 0.5}),  # relatively
        (1.0, {"near": -1.0, "rtol": 0.5}),
        (math.nan, {"at_most": 1.0}),
        (torch.tensor(math.nan), {"at_least": 1.0}),
        (math.nan, {"near": 1.0, "rtol": 1.0}),
        # JSON has no infinity, and no sentence of the book is about one.
        (math.inf, {"at_least": 1.0}),
    ],
)
def test_what_does_not_hold_raises_with_both_numbers(measured, bounds):
    with pytest.raises(
        AssertionError, match=r"^claim 'x.y' does not hold: a state.*; .* is false$"
    ):
        check(measured, **bounds)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"rtol": 0.1}, "wanted at_most, at_least or near, got no bound"),
        ({"near": 1.0}, "wanted near and rtol together, got one of them"),
        ({"at_most": 1.0, "rtol": 0.1}, "wanted near and rtol together, got one of them"),
    ],
)
def test_bounds_that_say_nothing(bounds, message):
    with pytest.raises(ValueError, match=f"^claim 'x.y': {message}"):
        check(1.0, **bounds)


def test_a_cell_may_run_again_with_another_bound_or_statement():
    with pytest.raises(claims.ClaimError):
        check(0.5, at_most=0.25)
    check(0.5, at_most=1.0)
    assert check(0.25, at_least=0.0, statement="another").bounds == {"at_least": 0.0}


def test_what_a_notebook_shows_and_the_page_of_all_claims_reads():
    shown = check(0.5, statement="a < b & c", at_most=1.0)
    data = DisplayFormatter().format(shown)[0]
    assert shown._repr_mimebundle_()["text/plain"] == "✓ a < b & c: 0.5 ≤ 1"
    assert data["text/markdown"] == "✓ a < b & c: **0.5 ≤ 1**"
    assert json.loads(json.dumps(data[claims.MIME], allow_nan=False)) == {
        "id": "x.y",
        "statement": "a < b & c",
        "measured": 0.5,
        "bounds": {"at_most": 1.0},
        "source": "a source",
        "shown": "0.5 ≤ 1",
    }
