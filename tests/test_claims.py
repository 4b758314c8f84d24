"""A claim holds or raises; what it shows travels in its cell."""

import json
import math

import pytest
import torch

from lop_utils import claims
from lop_utils.claims import ClaimError, claim


@pytest.fixture(autouse=True)
def no_claims_yet(monkeypatch):
    monkeypatch.setattr(claims, "_made", {})


def check(measured, id="test.claim", statement="a statement", source="a source", **bounds):
    return claim(id, statement, measured=measured, source=source, **bounds)


@pytest.mark.parametrize(
    ("measured", "bounds"),
    [
        pytest.param(1.0, {"at_most": 1.0}, id="at_most-with-equality"),
        pytest.param(1, {"at_least": 1}, id="at_least-with-equality"),
        pytest.param(0.5, {"at_least": 0, "at_most": 1}, id="between"),
        pytest.param(1.01, {"near": 1.0, "rtol": 0.011}, id="near"),
        pytest.param(-1.01, {"near": -1.0, "rtol": 0.011}, id="near-a-negative-number"),
        pytest.param(101.0, {"near": 100.0, "rtol": 0.011}, id="near-is-relative"),
        pytest.param(torch.tensor([[0.25]]), {"at_most": 1}, id="tensor"),
        pytest.param(0, {"at_most": 0}, id="a-bound-of-zero-is-a-bound"),
    ],
)
def test_holds(measured, bounds):
    result = check(measured, **bounds)
    assert result.measured == float(measured)
    assert result.bounds == bounds
    assert type(result.measured) is float


@pytest.mark.parametrize(
    ("measured", "bounds"),
    [
        pytest.param(1.0 + 1e-15, {"at_most": 1.0}, id="above"),
        pytest.param(0.0, {"at_least": 1e-300}, id="below"),
        pytest.param(2.0, {"at_least": 0, "at_most": 1}, id="one-of-two"),
        pytest.param(1.02, {"near": 1.0, "rtol": 0.011}, id="not-near"),
        pytest.param(0.02, {"near": 0.01, "rtol": 0.5}, id="not-near-relatively"),
        pytest.param(1.0, {"near": -1.0, "rtol": 0.5}, id="the-wrong-sign"),
        pytest.param(math.nan, {"at_most": 1.0}, id="nan-at_most"),
        pytest.param(math.nan, {"at_least": 1.0}, id="nan-at_least"),
        pytest.param(math.nan, {"near": 1.0, "rtol": 1.0}, id="nan-near"),
        # JSON has no infinity, and no sentence of the book is about one.
        pytest.param(math.inf, {"at_least": 1.0}, id="infinite"),
        pytest.param(torch.tensor(math.nan), {"at_most": 1.0}, id="nan-tensor"),
    ],
)
def test_does_not_hold(measured, bounds):
    with pytest.raises(ClaimError, match=r"^claim 'test.claim' does not hold: a statement; .* is"):
        check(measured, **bounds)


def test_the_failure_shows_both_numbers():
    with pytest.raises(ClaimError, match=r"; 0\.25 ≤ 0\.125 is false$"):
        check(0.25, at_most=0.125)


def test_a_failed_claim_is_an_assertion_error():
    # So that pytest and a reader's notebook both show it as what it is.
    assert issubclass(ClaimError, AssertionError)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "claim 'test.claim': wanted at_most, at_least or near, got no bound"),
        ({"rtol": 0.1}, "claim 'test.claim': wanted at_most, at_least or near, got no bound"),
        ({"near": 1.0}, "claim 'test.claim': wanted near and rtol together, got one of them"),
        (
            {"at_most": 1.0, "rtol": 0.1},
            "claim 'test.claim': wanted near and rtol together, got one of them",
        ),
    ],
    ids=["none", "rtol-alone", "near-alone", "rtol-of-another-bound"],
)
def test_bounds_that_say_nothing(bounds, message):
    with pytest.raises(ValueError, match=message):
        check(1.0, **bounds)


def test_the_same_claim_runs_again_with_another_measurement():
    check(0.5, at_most=1.0)
    assert check(0.25, at_most=1.0).measured == 0.25


@pytest.mark.parametrize(
    "change",
    [{"statement": "another"}, {"source": "another"}, {"at_most": 2.0}, {"at_least": 0.0}],
    ids=lambda change: next(iter(change)),
)
def test_an_id_belongs_to_one_claim(change):
    check(0.5, at_most=1.0)
    with pytest.raises(ValueError, match="wanted a new id, got that of 'a statement'"):
        check(0.5, **({"at_most": 1.0} | change))


def test_a_claim_that_failed_can_be_corrected():
    # In a live notebook one repairs the cell and runs it again.
    with pytest.raises(ClaimError):
        check(0.5, at_most=0.4)
    assert check(0.5, at_most=0.6).measured == 0.5


@pytest.mark.parametrize(
    ("measured", "bounds", "shown"),
    [
        (1.234e-15, {"at_most": 1e-12}, "1.23e-15 ≤ 1e-12"),
        (0.5, {"at_least": 0.25, "at_most": 1}, "0.5 ≤ 1 and ≥ 0.25"),
        (0.5, {"near": 0.5, "rtol": 0.01}, "0.5 ≈ 0.5 (to 0.01 relative)"),
    ],
    ids=["at_most", "two", "near"],
)
def test_number(measured, bounds, shown):
    assert check(measured, **bounds).number() == shown


def test_mime_bundle():
    bundle = check(0.5, statement="a < b & c", at_most=1.0)._repr_mimebundle_()
    assert set(bundle) == {claims.MIME, "text/markdown", "text/plain"}
    assert bundle["text/plain"] == "✓ a < b & c: 0.5 ≤ 1"
    assert bundle["text/markdown"] == "✓ a < b & c: **0.5 ≤ 1**"
    # The page of all claims reads this from the notebook: it has to survive JSON unchanged.
    data = json.loads(json.dumps(bundle[claims.MIME], allow_nan=False))
    assert data == {
        "id": "test.claim",
        "statement": "a < b & c",
        "measured": 0.5,
        "bounds": {"at_most": 1.0},
        "source": "a source",
        "shown": "0.5 ≤ 1",
    }


def test_ipython_shows_the_bundle():
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    data, _ = formatter.format(check(0.5, at_most=1.0))
    assert data[claims.MIME]["measured"] == 0.5
