"""What `estimator.DeepMatrixCompletion` is given, as ids, numbers and settings."""

import inspect
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from lop_utils import _checks, completion
from lop_utils.observed import ObservedEntries

__all__ = [
    "Ratings",
    "device",
    "ids",
    "joined",
    "merged",
    "numbered",
    "numbers_of",
    "options",
    "pairs",
    "rank_for",
    "ratings",
    "scale",
]

# --- Ids


def ids(name: str, column: Any) -> np.ndarray:
    """Return ids as a vector of int64, or of str in an array of objects."""
    if np.ma.is_masked(column):
        raise ValueError(f"{name}: wanted ids throughout, got a masked array that hides some")
    array = np.asarray(column)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name}: wanted a vector of ids, got shape {array.shape}")
    kind = Integral
    if array.dtype.kind in "OUT":
        array = array.astype(object)
        kind = str if isinstance(array[0], str) else Integral
        for place, value in enumerate(array.tolist()):
            if not isinstance(value, kind) or isinstance(value, bool):
                wanted = "str as the first" if kind is str else "whole numbers, or str throughout"
                raise TypeError(f"{name}: wanted {wanted}, got {value!r} at number {place}")
    elif array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: wanted ids that are whole numbers or str, got {array.dtype}")
    if kind is str:
        return np.array([str(value) for value in array], object)
    if array.dtype.kind == "f":  # as pandas has whole numbers of a column with gaps
        bad = ~((np.abs(array) < 2.0**53) & (array == np.floor(array)))
    elif array.dtype.kind == "O":
        bad = np.array([not -(2**63) <= value < 2**63 for value in array.tolist()])
    else:
        bad = array.astype(np.int64) < 0 if array.dtype == np.uint64 else np.zeros(1, bool)
    if bad.any():
        place = int(bad.argmax())
        raise ValueError(
            f"{name}: wanted whole numbers of 64 bits as ids, got {array[place]} at number {place}"
        )
    return array.astype(np.int64)


def numbered(given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids that occur, in order, and the number of each one given."""
    if given.dtype != object:
        return np.unique(given, return_inverse=True)
    names = sorted(set(given.tolist()))  # to sort them all would compare words for minutes
    number = {name: i for i, name in enumerate(names)}
    return np.array(names, object), np.array([number[each] for each in given.tolist()], np.int64)


def numbers_of(name: str, known: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the numbers of ids among those that are known, -1 for one that is not."""
    if known.dtype != given.dtype:
        kinds = {True: "str", False: "whole numbers"}
        wanted, got = kinds[known.dtype == object], kinds[given.dtype == object]
        raise TypeError(f"{name}: wanted {wanted} as in fit, got {got}")
    found = np.searchsorted(known, given).clip(max=len(known) - 1)
    return np.where(known[found] == given, found, -1)


# --- Ratings, in the forms that people have them in


class Ratings(NamedTuple):
    """Ratings by the ids of users and items; ``shape`` is that of a matrix, else None."""

    users: np.ndarray
    items: np.ndarray
    values: Tensor
    shape: tuple[int, int] | None


def _is_frame(X: Any) -> bool:
    return hasattr(X, "columns")  # of pandas, polars, pyarrow, none of which is imported


def _column(X: Any, name: Any) -> Any:
    names = getattr(X, "column_names", None)  # of pyarrow; a column may have that name, too
    has = names if isinstance(names, list) else list(X.columns)
    if has.count(name) != 1:
        some = ", ".join(map(repr, has[:9])) + ", ..." * (len(has) > 9)
        raise ValueError(f"X: wanted one column {name!r}, got columns {some}")
    return X[name]


def pairs(X: Any, user: Any, item: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of users and items, columns of a frame or of an array of shape (n, 2)."""
    if _is_frame(X):
        return tuple(ids(f"X[{name!r}]", _column(X, name)) for name in (user, item))
    if sparse.issparse(X):
        raise TypeError(
            "X: wanted ids in two columns, got a sparse matrix, which goes alone into fit"
        )
    if isinstance(X, Tensor):
        X = _checks.present("X", _checks.tensor("X", X)).detach().cpu().numpy()
    elif not hasattr(X, "dtype"):
        X = np.array(X, object)  # so that each column keeps its kind
    if np.ndim(X) != 2 or np.shape(X)[1] != 2:
        raise ValueError(f"X: wanted ids in two columns, got shape {np.shape(X)}")
    return ids("X[:, 0]", X[:, 0]), ids("X[:, 1]", X[:, 1])


def _values(name: str, column: Any) -> Tensor:
    values = _checks.scalars(name, column).detach()
    if values.ndim != 1:
        raise ValueError(f"{name}: wanted a vector, got shape {tuple(values.shape)}")
    return values


def _of_matrix(X: Any) -> Ratings:
    if sparse.issparse(X) and X.ndim == 2:
        X = X.tocoo()
        rows, cols, values = X.row, X.col, _values("X.data", X.data)
    else:
        if isinstance(X, np.ma.MaskedArray):  # what it hides is what is unknown
            X = X.astype(np.result_type(X.dtype, np.float32)).filled(np.nan)
        X = _checks.present("X", _checks.tensor("X", X)).detach()
        known = ~torch.isnan(X)
        if X.ndim != 2 or (X.shape[1] == 2 and known.all()):
            raise ValueError(
                "X: wanted a matrix with NaN for what is unknown, or ids in two columns with y "
                f"beside them, got shape {tuple(X.shape)}"
            )
        (rows, cols), values = known.nonzero().T.cpu().numpy(), _values("X", X[known])
    shape = tuple(X.shape)
    if not len(values):
        raise ValueError(f"X: wanted some known entries, got none in {shape[0]} x {shape[1]}")
    return Ratings(rows.astype(np.int64), cols.astype(np.int64), values, shape)


def ratings(X: Any, y: Any, user: Any, item: Any, rating: Any) -> Ratings:
    """Return the ratings that X holds, or y at the ids that X holds."""
    if y is None and not _is_frame(X):
        return _of_matrix(X)
    users, items = pairs(X, user, item)
    name, column = (f"X[{rating!r}]", _column(X, rating)) if y is None else ("y", y)
    if len(values := _values(name, column)) != len(users):
        raise ValueError(f"{name}: wanted {len(users)} ratings, one a row of X, got {len(values)}")
    return Ratings(users, items, values, None)


def merged(
    given: Ratings, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], duplicates: str
) -> ObservedEntries:
    """Return numbered ratings, each pair once."""
    _checks.one_of("duplicates", duplicates, ("refuse", "mean"))
    places, first, number = np.unique(
        rows * shape[1] + cols, return_index=True, return_inverse=True
    )
    values = given.values
    if (more := len(rows) - len(places)) and duplicates == "refuse":
        again = np.setdiff1d(np.arange(len(rows)), first)[0]
        user, item = (side[again : again + 1].tolist()[0] for side in given[:2])
        raise ValueError(
            f"X: wanted each pair once, got {more} repetitions, the first of user {user!r} and "
            f"item {item!r}; duplicates='mean' takes the mean"
        )
    if more:
        number = torch.from_numpy(number).to(values.device)
        sums = values.new_zeros(len(places)).index_add_(0, number, values)
        values = sums / number.bincount()
    else:
        values = values[torch.from_numpy(first).to(values.device)]
    return ObservedEntries(rows[first], cols[first], values, shape)


def joined(
    given: Ratings, users: np.ndarray, items: np.ndarray, seen: ObservedEntries, duplicates: str
) -> tuple[np.ndarray, np.ndarray, ObservedEntries, ObservedEntries]:
    """Return ids of users old and new, the numbers of the old, all ratings and the touched ones.

    The latter are all ratings, old ones too, of the users whose ratings are given.
    """
    ids_ = given.users
    if given.shape:
        if given.shape[1] != len(items):
            raise ValueError(f"X: wanted {len(items)} columns as in fit, got {given.shape[1]}")
        ids_ = ids_ + len(users)
    numbers_of("user", users, ids_)  # of the same kind?
    cols = numbers_of("item", items, given.items)
    if (new := cols < 0).any():
        raise ValueError(
            f"X: wanted items that fit has seen, got {new.sum()} ratings of others, the first of "
            f"{given.items[new][:1].tolist()[0]!r}; fit again"
        )
    names, numbers = numbered(np.concatenate([users, ids_]))
    old, rows = np.split(numbers, [len(users)])
    before = seen.rows.numpy(), seen.cols.numpy()
    both = Ratings(
        np.concatenate([users[before[0]], ids_]),
        np.concatenate([items[before[1]], given.items]),
        torch.cat([seen.values, given.values.to(seen.values)]),
        None,
    )
    rows, cols = np.append(old[before[0]], rows), np.append(before[1], cols)
    seen = merged(both, rows, cols, (len(names), len(items)), duplicates)
    return (
        names,
        old,
        seen,
        seen.select(torch.isin(seen.rows, torch.from_numpy(numbers[len(users) :]))),
    )


# --- Parameters


def options(more: dict[str, Any] | None, **own: Any) -> dict[str, Any]:
    """Return the arguments of `completion.complete` that were given, None being none."""
    known = inspect.signature(completion.complete).parameters.keys()
    known -= own.keys() | {"seen", "rank", "held_out", "progress", "generator"}
    for name in {} if more is None else _checks.instance("options", more, dict):
        if name not in known:
            wanted = ", ".join(sorted(known))
            raise TypeError(f"options: wanted some of {wanted}, got {name!r}")
    return {name: value for name, value in own.items() if value is not None} | (more or {})


def scale(clip: Any, values: Tensor) -> tuple[float, float] | None:
    """Return the scale of ratings, if it is one and they lie on it."""
    if clip is None:
        return None
    if not isinstance(clip, Sequence) or len(clip) != 2:
        raise TypeError(f"clip: wanted (lowest, highest) or None, got {clip!r}")
    low, high = (_checks.finite_number("clip", end) for end in clip)
    if not low < high:
        raise ValueError(f"clip: wanted lowest < highest, got {clip!r}")
    least, most = values.min().item(), values.max().item()
    if least < low or most > high:
        raise ValueError(f"clip: wanted ratings {low:g} to {high:g}, got {least:g} to {most:g}")
    return low, high


def device(name: Any, values: Tensor) -> torch.device:
    """Return where to compute: where the values are, if nothing else is asked for."""
    try:
        return torch.empty(0, device=values.device if name is None else name).device
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"device: wanted one that is here, got {name!r}: {error}") from None


def rank_for(seen: ObservedEntries) -> int:
    """Return a rank that so many entries determine, a tenth of them held out, and at most 10."""
    occur = sum(len(side.unique()) for side in (seen.rows, seen.cols))
    rank = max(1, min(10, *(side - 1 for side in seen.shape)))
    while rank > 1 and rank * (occur - rank) > 0.9 * len(seen):
        rank -= 1
    return rank
