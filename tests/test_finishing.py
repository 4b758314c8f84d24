"""Least squares at both ends of a completion: the rank is noticed, and the last digit reached."""

import math

import pytest
import torch
from low_rank import low_rank_target

from lop_utils import _completing, _finishing, completion
from lop_utils.observed import ObservedEntries

F64 = {"dtype": torch.float64}
SHAPE, RANK = (120, 90), 4


def sample(over=4.0, condition=1.0, noise=0.0, seed=0, few=0):
    """Observe so many times the degrees of freedom; the first rows have a few entries only."""
    generator = torch.Generator().manual_seed(seed)
    sigma = torch.logspace(0, -math.log10(condition), RANK, **F64)
    Phi = low_rank_target(*SHAPE, sigma, generator=generator)
    Phi /= Phi.square().mean().sqrt()
    n = round(over * RANK * (sum(SHAPE) - RANK))
    mask = torch.zeros(SHAPE, dtype=torch.bool).flatten()
    mask[torch.randperm(len(mask), generator=generator)[:n]] = True
    mask = mask.view(SHAPE)
    mask[:few, 2:] = False
    rows, cols = mask.nonzero().T
    values = Phi[rows, cols] + noise * torch.randn(len(rows), generator=generator, **F64)
    return Phi, ObservedEntries(rows, cols, values, SHAPE)


def whole(result):
    return result.predict(*torch.ones(SHAPE).nonzero().T).view(SHAPE)


def error(result, Phi):
    return (torch.linalg.norm(whole(result) - Phi) / torch.linalg.norm(Phi)).item()


def complete(seen, rank=2 * RANK, **options):
    return completion.complete(seen, rank, progress=False, **options)


def least_squares(seen, rank, rounds=300):
    """Alternate, row by row, the slow way."""
    Q = torch.randn(SHAPE[1], rank, generator=torch.Generator().manual_seed(1), **F64)
    A, mask = torch.zeros(SHAPE, **F64), torch.zeros(SHAPE, **F64)
    A[seen.rows, seen.cols], mask[seen.rows, seen.cols] = seen.values, 1.0

    def rows(A, mask, Q):
        return torch.linalg.solve(torch.einsum("ij,jk,jl->ikl", mask, Q, Q), A @ Q)

    for _ in range(rounds):
        P = rows(A, mask, Q)
        Q = rows(A.T, mask.T, P)
    return P, Q


# Without noise


@pytest.mark.parametrize("condition", [1.0, 10.0, 100.0, 1e4])
@pytest.mark.parametrize("held_out", [0.0, 0.1])
def test_told_twice_the_rank_it_ends_at_the_last_digit(condition, held_out):
    Phi, seen = sample(condition=condition)
    result = complete(seen, held_out=held_out)
    assert result.stopped == "exact" and error(result, Phi) < 1e-12
    assert [tuple(W.shape) for W in result.Ws] == [(RANK, 90), (RANK, RANK), (120, RANK)]
    norms = [torch.linalg.norm(W).item() for W in result.Ws]
    assert max(norms) == pytest.approx(min(norms))  # balanced
    assert result.error < 1e-12 and result.history["t"].tolist() == [0] and result.last is None
    assert result.history["train"].item() < 1e-12


@pytest.mark.parametrize(
    ("dtype", "unit"), [(torch.float32, 1e-30), (torch.float32, 1e30), (torch.float64, 1e150)]
)
def test_in_whatever_unit(dtype, unit):
    Phi, seen = sample()
    result = complete(seen.with_values((unit * seen.values).to(dtype)))
    assert result.stopped == "exact" and result.predict([0], [0]).dtype == dtype
    assert (whole(result).double() / unit - Phi).abs().max() < 1000 * torch.finfo(dtype).eps


def test_rows_with_few_entries_do_not_hide_that_the_others_are_exact():
    Phi, seen = sample(few=12)
    result = complete(seen)
    assert result.stopped == "exact" and (whole(result) - Phi)[12:].abs().max() < 1e-10
    assert whole(result)[:12].isfinite().all()


def test_descent_that_has_not_ended_is_finished_from_the_rank_it_shows():
    Phi, seen = sample()
    options = dict(eps=0.1, lam=1e-9, steps=150)  # decay: no first look
    assert 1e-3 < error(complete(seen, finish=False, **options), Phi) < 1
    result = complete(seen, **options)
    assert result.stopped == "steps" and error(result, Phi) < 1e-6
    assert len(result.Ws[0]) == RANK and len(result.best.Ws[0]) == 4 * RANK
    assert result.finish.t == result.steps == 150 and result.error == result.finish.error


# With noise


@pytest.mark.parametrize("condition", [1.0, 10.0])
def test_with_noise_it_ends_where_least_squares_of_the_true_rank_does(condition):
    Phi, seen = sample(condition=condition, noise=0.05, over=5.0)
    P, Q = least_squares(seen, RANK)
    result = complete(seen, steps=500)
    rival = (torch.linalg.norm(P @ Q.T - Phi) / torch.linalg.norm(Phi)).item()
    assert error(result, Phi) < 1.02 * rival and len(result.Ws[0]) == RANK
    # The error that is reported is that on the entries held out, before they were fitted too.
    gap = result.predict(result.test.rows, result.test.cols) - result.test.values
    assert result.error > 1.05 * gap.square().mean().sqrt() and result.found.error > 0


def test_what_predicts_worse_is_not_taken():
    seen = sample(noise=1.0)[1]
    result = complete(seen, steps=300)
    assert result.finish is None and result.error == result.best.error
    assert result.best.error < result.found.error
    # Nothing held out: only what is exact can be told to be better.
    assert complete(seen, steps=50, held_out=0).finish is None


# Its parts


def test_least_squares_for_a_factor_is_that_of_each_row():
    _, seen = sample(over=2.0)
    parts, generator = _finishing.Sample(seen), torch.Generator().manual_seed(0)
    F = torch.randn(90, 3, generator=generator, **F64)
    old, ridge = torch.randn(120, 3, generator=generator, **F64), torch.tensor([0.1, 0.2, 0.3])
    found = parts.solved(F, old, ridge.double())
    for i in (0, 57, 119):
        here = seen.rows == i
        A = F[seen.cols[here]]
        right = torch.linalg.solve(A.T @ A + ridge.double().diag(), A.T @ seen.values[here])
        assert (found[i] - right).abs().max() < 1e-6 * right.abs().max()
    sparse = torch.zeros(SHAPE, **F64)
    sparse[seen.rows, seen.cols] = seen.values
    assert (parts.times(seen.values, F) - sparse @ F).abs().max() < 1e-12
    assert (parts.times(seen.values, old, turned=True) - sparse.T @ old).abs().max() < 1e-12
    assert sum(len(rows) for rows, _ in parts.blocks[0]) == len(seen.rows.unique())


@pytest.mark.parametrize(
    ("s", "rank"), [([5.0], 1), ([5.0, 4.0, 1e-3], 2), ([5.0, 1.0, 0.9], 1), ([5.0, 0.0, 0.0], 1)]
)
def test_the_rank_is_where_the_gap_is_widest(s, rank):
    assert _finishing.rank_of(torch.tensor(s, **F64)) == rank


# Interrupted, and gone on with


def test_a_finished_run_goes_on_also_from_a_file(tmp_path):
    _, seen = sample(noise=0.3)
    straight, half = complete(seen, steps=300), complete(seen, steps=100)
    half.save(tmp_path / "half")
    for start in (half, completion.load(tmp_path / "half")):
        on = completion.resume(start, steps=300, progress=False)
        assert torch.equal(whole(on), whole(straight)) and on.error == straight.error
    exact = complete(sample()[1])
    exact.save(tmp_path / "exact")
    again = completion.resume(completion.load(tmp_path / "exact"), steps=9, progress=False)
    assert again.stopped == "exact" and torch.equal(whole(again), whole(exact))


@pytest.mark.parametrize("at", ["grown", "refitted"])
def test_interrupted_it_returns_what_there_is(at, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    seen = sample(noise=0.05)[1]
    with monkeypatch.context() as patch:
        patch.setattr(_completing._finishing, at, interrupted)
        result = complete(seen, steps=100)
    assert result.stopped == "interrupted" and whole(result).isfinite().all()
    on = completion.resume(result, steps=100, progress=False)
    assert torch.equal(whole(on), whole(complete(seen, steps=100)))
