"""What `estimator.DeepMatrixCompletion` computes, by numbers of users and items, and its file."""

import json
import zlib
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from lop_utils import _checks, _files, completion, observed
from lop_utils.observed import ObservedEntries

__all__ = ["Fitted", "fit", "folded_in", "read", "write"]

_FORMAT = "lop_utils.estimator 1"
_CHUNK = 65536  # entries gathered at once: their 2 x k numbers stay in the cache


class Fitted(NamedTuple):
    """What was fitted: effects, and factors of width k."""

    mean: np.ndarray
    """Scalar."""
    user_effects: np.ndarray
    """Shape (users,)."""
    item_effects: np.ndarray
    """Shape (items,)."""
    user_factors: np.ndarray
    """Shape (users, k)."""
    item_factors: np.ndarray
    """Shape (items, k)."""
    spread: np.ndarray
    """R of shape (k, k): R^T R is the mean of p p^T over the users fitted, p their factors."""

    def effects(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Return what effects alone say at places, whose numbers are -1 where unknown."""
        of_user, of_item = (
            np.where(number < 0, 0, effects[number])
            for number, effects in ((rows, self.user_effects), (cols, self.item_effects))
        )
        return self.mean + of_user + of_item

    def ratings(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Return the ratings expected at places, not clipped."""
        P, Q, known = self.user_factors, self.item_factors, (rows >= 0) & (cols >= 0)
        found = self.effects(rows, cols)
        for start in range(0, len(rows), _CHUNK):
            some = slice(start, start + _CHUNK)
            found[some] += known[some] * np.einsum("nk,nk->n", P[rows[some]], Q[cols[some]])
        return found

    def whole(self) -> np.ndarray:
        """Return the ratings expected everywhere."""
        taste = self.user_factors @ self.item_factors.T
        return taste + (self.mean + self.user_effects[:, None] + self.item_effects)


def fit(
    seen: ObservedEntries, shrinkage: float | None, device: torch.device, **options: Any
) -> tuple[Fitted, completion.Completion | None]:
    """Fit effects, unless ``shrinkage`` is None, and the network to what they leave."""
    values, sides = seen.values, seen.shape
    kind = values.numpy().dtype
    effects = np.zeros((), kind), *(np.zeros(side, kind) for side in sides)
    if shrinkage is not None:
        found = observed.fit_effects(seen, shrinkage=shrinkage)
        values = values - found.predict(seen.rows, seen.cols)
        effects = tuple(part.numpy() for part in (found.mean, found.users, found.items))
    factors, result = [np.zeros((side, 1), kind) for side in sides], None
    if values.any():
        result = completion.complete(seen.with_values(values.to(device)), **options)
        Q, *inner, P = result.Ws
        for W in inner:
            Q = W @ Q
        factors = [P.numpy(force=True), Q.T.numpy(force=True)]
    # Rows of zeros, such as keep what follows square, and users without ratings add nothing.
    P = np.append(factors[0], np.zeros_like(factors[1], shape=(factors[0].shape[1],) * 2), axis=0)
    users = len(seen.rows.unique())
    return Fitted(*effects, *factors, np.linalg.qr(P / users**0.5, mode="r")), result


def folded_in(
    fitted: Fitted, part: ObservedEntries, noise: float, shrinkage: float | None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return effects and factors of the users who have ratings in ``part``, in order.

    A user's factors p are the mean of what is known of them after the ratings
    :math:`x_i = \langle p, q_i\rangle + \text{noise}\cdot\varepsilon_i`, which effects left, if
    those of all users are draws from one normal distribution. This is ridge regression in the
    coordinates in which they spread evenly, so it does not matter how P and Q share their scale.
    Without ``shrinkage`` there are no effects.
    """
    rows, cols = part.rows.numpy(), part.cols.numpy()
    _, starts, number, counts = np.unique(rows, True, True, True)
    rest = part.values.numpy() - fitted.effects(np.full(len(rows), -1), cols)
    effects = np.zeros(len(starts), fitted.user_effects.dtype)
    if shrinkage is not None:
        effects += np.bincount(number, rest) / (counts + shrinkage)
        rest = rest - effects[number]
    R = fitted.spread
    A, eye = fitted.item_factors @ R.T, np.eye(len(R), dtype=R.dtype)
    found = np.zeros((len(starts), len(R)), R.dtype)
    for u, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        B = A[cols[start : start + count]]
        if least := np.finfo(R.dtype).eps * np.square(B).sum():  # so that no system is singular
            ridge = max(noise**2, least) * eye
            found[u] = np.linalg.solve(B.T @ B + ridge, B.T @ rest[start : start + count])
    return effects, found @ R


# --- Files


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "wanted the package safetensors, found none: pip install 'lop-utils[frames]'"
        ) from None
    return safetensors


def _check_sum(arrays: dict[str, np.ndarray], facts: str) -> str:
    total = zlib.crc32(facts.encode())
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name], zlib.crc32(name.encode(), total))
    return str(total)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"save: wanted parameters of numbers and words, got {value!r}")


def write(file: Any, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Write arrays, those of ids as JSON, and facts into one file of safetensors."""
    if not (file := _checks.path("file", file)).name:
        raise ValueError(f"file: wanted the name of a file, got {str(file)!r}")
    for name, array in arrays.items():
        if array.dtype == object:
            array = np.frombuffer(json.dumps(array.tolist()).encode(), np.uint8)
        arrays[name] = np.asarray(array, order="C")  # another order is written as if it were this
    words = json.dumps(facts, default=_plain)
    about = {"format": _FORMAT, "facts": words, "crc32": _check_sum(arrays, words)}
    content = _safetensors().numpy.save(arrays, about)
    _files.write_whole(file, lambda stream: stream.write(content))


def read(file: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what `write` wrote."""
    open_, file = _safetensors().safe_open, _checks.path("file", file)
    try:
        with open_(file, framework="numpy") as content:
            about = content.metadata() or {}
            if about.get("format") != _FORMAT:
                raise ValueError(f"its format is {about.get('format')}, not {_FORMAT!r}")
            arrays = {name: content.get_tensor(name) for name in content.keys()}
        if _check_sum(arrays, about["facts"]) != about["crc32"]:
            raise ValueError("its check sum is another one")
    except OSError:
        raise
    except Exception as error:  # of safetensors, or above
        raise ValueError(f"file: wanted a saved model, got {file}: {error}") from error
    for name, array in arrays.items():
        if array.dtype == np.uint8:
            arrays[name] = np.array(json.loads(array.tobytes()), object)
    return arrays, json.loads(about["facts"])
