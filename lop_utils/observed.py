"""Observed entries of a matrix, one type for all, and what means alone say of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lop_utils import _checks, _effects

__all__ = ["Effects", "ObservedEntries", "fit_effects", "split"]

_CHUNK = 65536  # entries gathered at once: their 2 x k numbers stay in the cache


def _sides(shape: Any) -> tuple[int, int]:
    try:
        sides = tuple(shape)
    except TypeError:
        raise TypeError(f"shape: wanted (rows, columns), got {shape!r}") from None
    if len(sides) != 2:
        raise ValueError(f"shape: wanted (rows, columns), got {sides}")
    d_y, d_x = (_checks.count("shape", side, at_least=1) for side in sides)
    if max(d_y, d_x) >= 2**31:  # beyond, the number of an entry would overflow
        raise ValueError(
            f"shape: wanted fewer than 2**31 rows and columns, got {d_y} x {d_x}; "
            "numpy.unique(..., return_inverse=True) numbers those that occur"
        )
    return d_y, d_x


@dataclass(frozen=True, repr=False, eq=False)
class ObservedEntries:
    """Observed entries of a matrix, checked, and sorted by row and column.

    Parameters
    ----------
    rows, cols : Tensor of integers, shape (n,)
        Where the entries stand, from 0. Names, and numbers with gaps, become such by
        ``numpy.unique(ids, return_inverse=True)``.
    values : Tensor, shape (n,)
        What they are, in float32 or float64; whole numbers become float64.
    shape : tuple of int
        Rows ``d_y`` and columns ``d_x`` of the whole matrix, below 2**31 each.

    Raises
    ------
    TypeError, ValueError
        If an index is no whole number or outside ``shape``, the lengths differ, a value is NaN
        or infinite, or an entry occurs twice. Which of two values is right is for the caller to
        decide, so nothing is averaged in silence.

    Examples
    --------
    >>> seen = ObservedEntries([1, 0], [0, 2], [5.0, 3.0], (2, 3))
    >>> seen, seen.values.tolist()
    (ObservedEntries(2 of 2 x 3), [3.0, 5.0])
    """

    rows: Tensor
    cols: Tensor
    values: Tensor
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        """Check and sort."""
        d_y, d_x = _sides(self.shape)
        rows, cols = (
            _checks.indices("rows", self.rows, d_y),
            _checks.indices("cols", self.cols, d_x),
        )
        values = _checks.present("values", _checks.tensor("values", self.values)).detach()
        if not values.is_floating_point() and not values.is_complex():
            values = values.double()
        if values.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"values: wanted float32 or float64, got {values.dtype}")
        if not rows.shape == cols.shape == values.shape:
            raise ValueError(
                f"values: wanted a vector as long as rows and cols, got {tuple(values.shape)}, "
                f"{tuple(rows.shape)} and {tuple(cols.shape)}"
            )
        rows, cols = rows.to(values.device), cols.to(values.device)
        bad = (~torch.isfinite(values)).nonzero().flatten()
        if len(bad):
            i = bad[0].item()
            raise ValueError(
                f"values: wanted finite numbers, got {len(bad)} others, the first "
                f"{values[i].item()} at row {rows[i].item()}, column {cols[i].item()}"
            )
        place = rows * d_x + cols
        if not (place[1:] > place[:-1]).all():
            place, order = torch.sort(place)
            rows, cols, values = rows[order], cols[order], values[order]
            twice = (place[1:] == place[:-1]).nonzero().flatten()
            if len(twice):
                i = twice[0].item()
                raise ValueError(
                    f"rows, cols: wanted each entry once, got {len(twice)} repetitions, the first "
                    f"at row {rows[i].item()}, column {cols[i].item()}; merge them before, by "
                    "their mean say"
                )
        if len(values) >= 2**31:  # the products of `factored` count entries in 32 bits
            raise ValueError(f"values: wanted fewer than 2**31 entries, got {len(values)}")
        checked = {"rows": rows, "cols": cols, "values": values, "shape": (d_y, d_x)}
        for name, value in checked.items():
            given = value if name == "shape" else value.contiguous()
            object.__setattr__(self, name, given)

    def __len__(self) -> int:
        """Return n, how many are observed."""
        return len(self.values)

    def __repr__(self) -> str:
        """Return how many of how many."""
        return f"ObservedEntries({len(self)} of {self.shape[0]} x {self.shape[1]})"

    @property
    def p(self) -> float:
        """Share of the matrix that is observed."""
        return len(self) / (self.shape[0] * self.shape[1])

    def select(self, index: Tensor) -> "ObservedEntries":
        """Return the entries of these numbers, or where a mask is true."""
        index = _checks.tensor("index", index)
        if index.dtype == torch.bool:
            if index.shape != self.rows.shape:
                wanted, got = tuple(self.rows.shape), tuple(index.shape)
                raise ValueError(f"index: wanted a mask of shape {wanted}, got {got}")
            index = index.nonzero().flatten()
        index = _checks.indices("index", index, len(self)).to(self.rows.device)
        return ObservedEntries(self.rows[index], self.cols[index], self.values[index], self.shape)

    def with_values(self, values: Tensor) -> "ObservedEntries":
        """Return the same places with other values, such as what means leave unexplained."""
        return ObservedEntries(self.rows, self.cols, values, self.shape)


def split(
    seen: ObservedEntries, share: float, *, generator: torch.Generator | int | None = None
) -> tuple[ObservedEntries, ObservedEntries]:
    """Return the entries in two parts, the second a share drawn evenly from all of them.

    Parameters
    ----------
    seen : ObservedEntries
        All of them.
    share : float
        What part goes into the second result, rounded to a whole number of entries.
    generator : torch.Generator or int, optional
        Source of randomness, or a seed.

    Returns
    -------
    tuple of two ObservedEntries
        To train on, and to test with. Rows and columns of the second may be missing in the first.

    Raises
    ------
    TypeError, ValueError
        If a part would be empty.

    Examples
    --------
    >>> seen = ObservedEntries(torch.arange(10), torch.arange(10), torch.ones(10), (10, 10))
    >>> split(seen, 0.2)
    (ObservedEntries(8 of 10 x 10), ObservedEntries(2 of 10 x 10))
    """
    n = len(_checks.instance("seen", seen, ObservedEntries))
    held_out = round(min(max(_checks.finite_number("share", share), 0.0), 1.0) * n)
    if not 0 < held_out < n:
        raise ValueError(f"share: wanted some of {n} entries in each part, got {share}")
    mixed = _checks.shuffled(n, generator).to(seen.rows.device)
    test, train = mixed[:held_out].sort().values, mixed[held_out:].sort().values
    return seen.select(train), seen.select(test)


def _gathered(P: Tensor, Q: Tensor, rows: Tensor, cols: Tensor, memory: dict) -> Tensor:
    """Return the entries at places that are right.

    Fresh memory costs as much as the products, so it is kept in ``memory``, an empty dict that
    belongs to one sample and width; the result lives there too, until the next call.
    """
    n, k = len(rows), P.shape[1]
    if not memory:
        memory |= {side: P.new_empty(min(n, _CHUNK), k) for side in ("left", "right")}
        memory |= {"out": P.new_empty(n), "ones": P.new_ones(k)}
    out, Qt = memory["out"], Q.T.contiguous()
    for start in range(0, n, _CHUNK):
        some = slice(start, min(start + _CHUNK, n))
        left, right = (memory[side][: some.stop - start] for side in ("left", "right"))
        torch.index_select(P, 0, rows[some], out=left)
        torch.index_select(Qt, 0, cols[some], out=right)
        torch.mv(left.mul_(right), memory["ones"], out=out[some])
    return out


@dataclass(frozen=True, repr=False, eq=False)
class Effects:
    """A rating as a mean, an effect of the user and an effect of the item."""

    mean: Tensor
    """Scalar: the mean of the ratings."""
    users: Tensor
    """Shape (users,); 0 for a user without ratings."""
    items: Tensor
    """Shape (items,); 0 for an item without ratings."""
    shrinkage: tuple[float, float]
    """Of the users' effects and of the items'."""
    held_out: float | None
    """Root mean square error by which `fit_effects` chose the shrinkage, if it did: of ratings that
    no effect had seen."""

    def __repr__(self) -> str:
        """Return the sizes."""
        return f"Effects({len(self.users)} users, {len(self.items)} items, mean {self.mean:.3g})"

    def predict(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Return the ratings expected at these positions, of shape (n,), not clipped."""
        shape = len(self.users), len(self.items)
        rows, cols = _checks.places(rows, cols, shape, self.mean.device)
        return self.mean + self.users[rows] + self.items[cols]


def fit_effects(
    seen: ObservedEntries,
    *,
    shrinkage: float | tuple[float, float] | None = 5.0,
    generator: torch.Generator | int | None = 0,
) -> Effects:
    r"""Return the mean rating with an effect of each user and item, by ridge regression.

    With :math:`\mu` the mean of the ratings, the effects minimise

    .. math::

        \sum_{(u, i)\ \text{seen}} (r_{ui} - \mu - b_u - c_i)^2
        + \sigma_b\sum_u b_u^2 + \sigma_c\sum_i c_i^2.

    The larger side is eliminated, and the other found by conjugate gradients: a few products with
    the pattern of the ratings.

    Parameters
    ----------
    seen : ObservedEntries
        The ratings.
    shrinkage : float or tuple of two, optional
        How many ratings an effect needs before it counts half, one number or
        :math:`(\sigma_b, \sigma_c)`. Best is the variance of what effects leave unexplained over
        that of the effects, about 5 for those that `ratings.simulate_ratings` draws. At 0 effects
        are fixed only up to constants, and those of least norm are returned. With None both are
        chosen, in steps of a factor of two, by the error on a tenth of the ratings that was held
        out before; the effects are then fitted to all.
    generator : torch.Generator or int
        Draws that tenth.

    Returns
    -------
    Effects
        In the dtype and on the device of the values.

    Raises
    ------
    TypeError, ValueError
        If ``shrinkage`` is negative, there are too few ratings to choose it, or an effect exceeds
        what the dtype can hold.

    Examples
    --------
    >>> seen = ObservedEntries([0, 0, 1, 1], [0, 1, 0, 1], [5.0, 3.0, 3.0, 1.0], (2, 2))
    >>> effects = fit_effects(seen, shrinkage=0)
    >>> effects, [round(b, 6) for b in effects.users.tolist()]
    (Effects(2 users, 2 items, mean 3), [1.0, -1.0])
    >>> round(effects.predict([0], [1]).item(), 6)
    3.0
    """
    _checks.instance("seen", seen, ObservedEntries)
    error = None
    if shrinkage is None:
        shrinkage, error = _chosen_shrinkage(seen, generator)
    elif isinstance(shrinkage, tuple | list):
        if len(shrinkage) != 2:
            raise ValueError(f"shrinkage: wanted one number or two, got {len(shrinkage)}")
        shrinkage = tuple(_checks.nonnegative("shrinkage", each) for each in shrinkage)
    else:
        shrinkage = (_checks.nonnegative("shrinkage", shrinkage),) * 2
    fit, mean, peak = _two_way(seen)
    found = torch.from_numpy(peak * np.concatenate([*fit.solve(shrinkage), [mean]]))
    found = found.to(seen.values)
    _checks.held("values", 3 * found, "effects")  # what `predict` adds up is finite then, too
    users = seen.shape[0]
    return Effects(found[-1], found[:users], found[users:-1], shrinkage, error)


def _two_way(seen: ObservedEntries) -> tuple[_effects.TwoWay, float, float]:
    """Return what fits effects to values less mean, over their peak, both of which follow."""
    rows, cols, values = (A.numpy(force=True) for A in (seen.rows, seen.cols, seen.values.double()))
    peak = np.abs(values).max() or 1.0
    values = values / peak  # before anything is squared
    mean = values.mean()
    return _effects.TwoWay(rows, cols, values - mean, seen.shape), mean, peak


def _chosen_shrinkage(
    seen: ObservedEntries, generator: torch.Generator | int | None
) -> tuple[tuple[float, float], float]:
    if len(seen) < 10:
        raise ValueError(
            f"shrinkage: wanted a number, since of {len(seen)} ratings (fewer than "
            "10) none can be held out to choose it, got None"
        )
    train, test = split(seen, 0.1, generator=generator)
    fit, mean, peak = _two_way(train)
    rows, cols = test.rows.numpy(force=True), test.cols.numpy(force=True)
    wanted = test.values.double().numpy(force=True) / peak - mean

    def error(found: tuple[np.ndarray, np.ndarray]) -> float:
        return peak * np.square(found[0][rows] + found[1][cols] - wanted).mean() ** 0.5

    return _effects.best_shrinkage(fit, error, 5.0)
