"""Every public function of the completion side: right, or refused by an error that names it.

A row is valid arguments, what is compared of the answer, and the slow way to it; `spoilers` says
what happens to the arguments.
"""

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spoilers import Draws, cases, judge, leaves

from lop_utils import completion, data, factored, observed
from lop_utils.networks import end_to_end
from lop_utils.observed import ObservedEntries


class Drawn(Draws):
    """Valid arguments from a seed: a sample of a matrix, factors, labels."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.shape = d_y, d_x = 5 + seed % 3, 4 + seed % 4
        places = torch.randperm(d_y * d_x, generator=self.generator)[: -(2 + seed % 4)]
        self.rows, self.cols = places // d_x, places % d_x
        self.values = self.matrix(len(self.rows)) + 0.3
        self.P, self.Q = self.matrix(d_y, 2), self.matrix(2, d_x)
        self.Ws = [self.Q, self.matrix(3, 2), self.matrix(d_y, 3)]
        self.X, self.y = self.matrix(4, 6 + seed % 5), torch.arange(9 + seed % 5) % 3


class Row(NamedTuple):
    """Valid arguments, what is compared of the answer, and what it must be."""

    make: Callable[[Drawn], dict[str, Any]]
    call: Callable[..., Any]
    right: Callable[..., Any] | None = None
    """The slow way to the answer, in float64."""
    degrees: Mapping[str, int] = MappingProxyType({})
    """How the answer grows with an argument: ``f(c * X) = c ** degree * f(X)``."""
    but: str = "$."
    """Pattern of spoilers that are no fault, see `spoilers.cases`."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Of `spoilers.judge`."""


SAMPLE = "rows cols values shape"
SEED = "generator: (minus|none)"
DIVERGED = r"Ws: last-(nan|inf|-inf)|\*: 1e\+(15|30)-float32"  # a trainer must see it in the loss


def with_sample(call):
    """Give the function a sample, of what a sample is made of."""
    return lambda rows, cols, values, shape, *more, **options: call(
        ObservedEntries(rows, cols, values, shape), *more, **options
    )


def entries(seen):
    return seen.rows, seen.cols, seen.values, seen.shape


def dense(rows, cols, values, shape):
    A = torch.full(shape, torch.nan, dtype=torch.float64)
    A[rows, cols] = values
    return *A.isfinite().nonzero().T, A[A.isfinite()], shape


def loss_at(make):
    return with_sample(lambda seen, Ws: tuple(make(seen)(Ws)))


def loss_of_whole(rows, cols, values, shape, Ws):
    leaves = [W.clone().requires_grad_() for W in Ws]
    loss = 0.5 * (torch.linalg.multi_dot(leaves[::-1])[rows, cols] - values).square().sum()
    return loss, torch.autograd.grad(loss, leaves)


def ridge(rows, cols, values, shape, shrinkage):
    A = torch.zeros(len(rows), sum(shape), dtype=torch.float64)
    A[range(len(rows)), rows], A[range(len(rows)), shape[0] + cols] = 1.0, 1.0
    penalty = shrinkage**0.5 * torch.eye(sum(shape), dtype=torch.float64)
    wanted = torch.cat([values - values.mean(), torch.zeros(sum(shape), dtype=torch.float64)])
    found = torch.linalg.lstsq(torch.cat([A, penalty]), wanted[:, None]).solution[:, 0]
    return values.mean(), found[: shape[0]], found[shape[0] :]


def completed(seen, rank, held_out=0.2, **options):
    result = completion.complete(
        seen, rank, **{"steps": 25, "progress": False, "held_out": held_out, **options}
    )
    places = torch.ones(result.shape).nonzero().T
    return result.predict(*places), result.history["train"], result.best.error


def went_on(seen, steps, patience):
    first = completion.complete(seen, 1, steps=3, held_out=0, progress=False)
    later = completion.resume(first, steps=steps, patience=patience, progress=False)
    return end_to_end(later.Ws), later.history["train"]


def predicted(seen, at_rows, at_cols):
    result = completion.complete(seen, 1, steps=3, held_out=0, progress=False)
    return result.predict(at_rows, at_cols)


def expected_ratings(seen, at_rows, at_cols):
    return observed.fit_effects(seen).predict(at_rows, at_cols)


def fitted_effects(seen, shrinkage):
    found = observed.fit_effects(seen, shrinkage=shrinkage)
    return found.mean, found.users, found.items


def whitened(X, rank):
    white = data.whiten(X, rank=rank)
    return white.transform.T @ white.X, white.X.T @ white.X, white.condition


def whitened_slowly(X, rank):
    square, V = torch.linalg.eigh(X @ X.T)
    V, s = V[:, -rank:], square[-rank:].sqrt()
    inverse = V / s**2 @ V.T
    return inverse @ X, X.T @ inverse @ X, s[-1] / s[0]


AT = {"at_rows": torch.tensor([0, 3, 1]), "at_cols": torch.tensor([1, 1, 0])}
LOSSES = {
    "dense_loss": factored.dense_loss,
    "tiled_loss": factored.tiled_loss,
    "sampled_loss": factored.sampled_loss,
    "gathered_loss": lambda seen: factored.gathered_loss(seen, mkl=False),
    "fastest_loss": lambda seen: factored.fastest_loss(seen, 2),
}
ROWS = {
    "observed.ObservedEntries": Row(
        lambda d: d(SAMPLE), with_sample(entries), dense, {"values": 1}
    ),
    "observed.ObservedEntries.select": Row(
        lambda d: d(SAMPLE, index=torch.arange(7)[::2]),
        with_sample(lambda seen, index: entries(seen.select(index))),
        lambda index, **sample: dense(*(A[index] for A in dense(**sample)[:3]), sample["shape"]),
    ),
    "observed.ObservedEntries.with_values": Row(
        lambda d: d(SAMPLE, others=d.matrix(len(d.rows))),
        with_sample(lambda seen, others: entries(seen.with_values(others))),
        options={"also": ("values",)},
    ),
    "observed.split": Row(
        lambda d: d(SAMPLE, share=0.3, generator=1),
        with_sample(lambda *how, **o: [entries(part) for part in observed.split(*how, **o)]),
        degrees={"values": 1},
        but=SEED,
    ),
    "observed.fit_effects": Row(
        lambda d: d(SAMPLE, shrinkage=2.0),
        with_sample(fitted_effects),
        ridge,
        {"values": 1},
        but="shrinkage: none",
    ),
    "observed.Effects": Row(
        lambda d: d(SAMPLE, **AT), with_sample(expected_ratings), None, {"values": 1}
    ),
    "completion.complete": Row(
        lambda d: d(SAMPLE, rank=1, width=2, L=3, eps=0.1, gamma=3.0, lam=0.1, held_out=0.2),
        with_sample(completed),
        degrees={"values": 1},
        but="(width|eps): none|L: huge",
        options={"also": ("loss",)},
    ),
    "completion.complete, settings": Row(
        lambda d: d(SAMPLE, eta=0.01, patience=20, steps=15, every=2, generator=3),
        with_sample(lambda *how, **options: completed(*how, rank=1, **options)),
        but=f"eta: none|{SEED}",
        options={"also": ("loss", "rank")},
    ),
    "completion.Completion": Row(
        lambda d: d(SAMPLE, **AT), with_sample(predicted), None, {"values": 1}
    ),
    "completion.resume": Row(
        lambda d: d(SAMPLE, steps=9, patience=4), with_sample(went_on), but="patience: none"
    ),
    **{
        f"factored.{name}": Row(
            lambda d: d(SAMPLE, Ws=[d.Q, d.P]),
            loss_at(make),
            loss_of_whole,
            but=DIVERGED,
            options={"infinite": True, "also": ("P", "Q")},
        )
        for name, make in LOSSES.items()
    },
    "factored.of_factors": Row(
        lambda d: d(SAMPLE + " Ws"),
        loss_at(lambda seen: factored.of_factors(factored.dense_loss(seen))),
        loss_of_whole,
        but=DIVERGED,
        options={"infinite": True, "also": ("P", "Q")},
    ),
    "data.whiten": Row(lambda d: d("X", rank=2), whitened, whitened_slowly, but="rank: none"),
    "data.one_hot": Row(lambda d: d("y", K=4), data.one_hot, lambda y, K: torch.eye(K)[:, y]),
    "data.balanced_subset": Row(lambda d: d("y", n=2, generator=3), data.balanced_subset, but=SEED),
    "data.low_rank_target": Row(
        lambda d: {"d_y": 4, "d_x": 5, "singular_values": d.values[:3].abs(), "generator": 3},
        data.low_rank_target,
        degrees={"singular_values": 1},
        but=SEED,
    ),
}
WITHOUT_ARGUMENTS_TO_SPOIL = {
    "completion.load": "a file; test_files_words_and_types_are_refused",
    "data.load_movielens": "a file; test_files_words_and_types_are_refused",
    "data.load_photograph": "a word; test_files_words_and_types_are_refused",
    "data.Whitened": "an answer of whiten",
}


def test_every_public_name_has_a_row():
    public = {
        f"{module}.{name}"
        for module in ("completion", "data", "factored", "observed")
        for name in import_module(f"lop_utils.{module}").__all__
    }
    rows = {".".join(name.partition(",")[0].split(".")[:2]) for name in ROWS}
    assert rows | set(WITHOUT_ARGUMENTS_TO_SPOIL) == public


@pytest.mark.parametrize("name", ROWS)
def test_spoiled_arguments(name):
    make, call, *_, but, options = ROWS[name]
    faults = []
    for seed, (what, case) in enumerate(cases(make(Drawn(0)), but).items()):
        try:
            judge(call, make(Drawn(seed)), *case, **options)
        except Exception as fault:
            faults.append(f"{what}, seed {seed}: {type(fault).__name__}: {fault}")
    assert not faults, "\n".join(faults)


def close(found, expected, factor=1.0, tolerance=1e-9):
    for ours, right in zip(leaves(found), leaves(expected), strict=True):
        gap = (ours / factor - right).abs().max()
        assert gap <= tolerance * right.abs().max()


@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=12, derandomize=True, database=None, deadline=None)
@given(st.integers(0, 10**6), st.integers(-100, 100))
def test_right_in_any_order_and_at_any_scale(name, seed, power):
    make, call, right, degrees, *_ = ROWS[name]
    valid = make(Drawn(seed))
    found = call(**valid)
    assert all(leaf.isfinite().all() for leaf in leaves(found))
    if right:
        close(found, right(**valid))
    if "shape" in valid:  # a sample, whose entries may come in any order
        order = torch.randperm(len(valid["rows"]), generator=torch.Generator().manual_seed(seed))
        close(
            call(**valid | {name: valid[name][order] for name in ("rows", "cols", "values")}), found
        )
    for argument, degree in degrees.items():
        scaled = call(**valid | {argument: 2.0**power * valid[argument]})
        if "ObservedEntries" in name or "split" in name:
            found, scaled = found[2:3], scaled[2:3]
        close(scaled, found, 2.0 ** (power * degree))


ONE = ObservedEntries([0], [0], [1.0], (2, 2))
SMALL = ObservedEntries(*torch.ones(4, 3).nonzero().T, torch.arange(12.0), (4, 3))
RESULT = completion.complete(SMALL, 1, steps=0, progress=False)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        *[
            (lambda take=take: take([1.0]), TypeError, "seen: wanted ObservedEntries, got list")
            for take in (
                *LOSSES.values(),
                observed.fit_effects,
                lambda seen: observed.split(seen, 0.5),
                lambda seen: completion.complete(seen, 1),
            )
        ],
        (lambda: completion.resume(3, steps=1), TypeError, "result: wanted Completion, got int"),
        (lambda: completion.load(3), TypeError, "file: wanted a str or Path, got 3"),
        (lambda: RESULT.save(b"a"), TypeError, "file: wanted a str or Path, got b'a'"),
        (lambda: RESULT.save("."), ValueError, "file: wanted the name of a file, got '.'"),
        (lambda: factored.of_factors(3), TypeError, "two_layers: wanted Callable, got int"),
        (lambda: factored.gathered_loss(ONE, mkl="no"), TypeError, "mkl: wanted True or False, "),
        (
            lambda: completed(SMALL, 1, progress="no"),
            TypeError,
            "progress: wanted True or False, g",
        ),
        (lambda: data.load_photograph(["china"]), ValueError, "name: wanted one of china, got ["),
        (lambda: data.load_movielens("ml"), ValueError, "name: wanted one of ml-100k, ml-1m, got"),
        (lambda: data.load_movielens("ml-1m", folder=3), TypeError, "folder: wanted a str or Path"),
        (lambda: data.load_movielens("ml-1m", url="file:///a"), ValueError, "url: wanted an addr"),
        (lambda: data.one_hot([0], 2, dtype="float"), TypeError, "dtype: wanted dtype, got str"),
    ],
)
def test_files_words_and_types_are_refused(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()
