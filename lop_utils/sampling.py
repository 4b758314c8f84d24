"""Observed entries of a matrix, and entries of a product of two factors."""

from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = ["Observations", "entries", "indices", "observe"]

_CHUNK = 65536  # entries gathered at once: their 2 x k numbers stay in the cache


class Observations(NamedTuple):
    """Observed entries of a matrix, sorted by row and column; each occurs once."""

    rows: Tensor
    """Shape (n,), int64."""
    cols: Tensor
    """Shape (n,), int64."""
    values: Tensor
    """Shape (n,), floating point."""
    shape: tuple[int, int]
    """Rows d_y and columns d_x of the whole matrix."""

    @property
    def fraction(self) -> float:
        """Share p of the matrix that is observed."""
        return len(self.values) / (self.shape[0] * self.shape[1])


def indices(name: str, values: Tensor, bound: int) -> Tensor:
    """Return indices as a vector of int64 if they are whole numbers from 0 to ``bound - 1``.

    Parameters
    ----------
    name : str
        What to call them in a message.
    values : Tensor of integers, shape (n,)
        Indices, or anything that `torch.as_tensor` takes.
    bound : int
        How many there are to choose from.

    Returns
    -------
    Tensor of int64, shape (n,)

    Raises
    ------
    TypeError, ValueError
        If they are no whole numbers, no vector, none at all, or outside the range.

    Examples
    --------
    >>> indices("rows", [0, 2], 3)
    tensor([0, 2])
    """
    if not isinstance(values, Tensor):
        values = torch.as_tensor(values)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name}: wanted a vector with entries, got shape {tuple(values.shape)}")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name}: wanted whole numbers, got {values.dtype}")
    values = values.long()  # unsigned ones have no minimum
    low, high = values.min().item(), values.max().item()
    if low < 0 or high >= bound:
        raise ValueError(f"{name}: wanted 0 to {bound - 1}, got {low} to {high}")
    return values


def observe(rows: Tensor, cols: Tensor, values: Tensor, shape: tuple[int, int]) -> Observations:
    """Check observed entries and sort them by row and column.

    Parameters
    ----------
    rows, cols : Tensor of integers, shape (n,)
        Where the entries stand, from 0; anything that `torch.as_tensor` takes.
    values : Tensor, shape (n,)
        What they are; integers become float64.
    shape : tuple of int
        Rows and columns of the whole matrix.

    Returns
    -------
    Observations

    Raises
    ------
    TypeError, ValueError
        If an index is no whole number or outside ``shape``, the lengths differ, a value is NaN
        or infinite, or an entry occurs twice. Which of two values is right is for the caller to
        decide, so nothing is averaged in silence.

    Examples
    --------
    >>> seen = observe([1, 0], [0, 2], [5.0, 3.0], (2, 3))
    >>> seen.values.tolist(), round(seen.fraction, 3)
    ([3.0, 5.0], 0.333)
    """
    if len(shape) != 2:
        raise ValueError(f"shape: wanted (rows, columns), got {shape}")
    d_y, d_x = (_checks.count("shape", side, at_least=1) for side in shape)
    rows, cols = indices("rows", rows, d_y), indices("cols", cols, d_x)
    values = torch.as_tensor(values).flatten()
    if values.is_complex():
        raise TypeError(f"values: wanted real numbers, got {values.dtype}")
    values = values if values.is_floating_point() else values.double()
    if not len(rows) == len(cols) == len(values):
        raise ValueError(
            f"values: wanted as many as rows and cols, got {len(values)}, {len(rows)} and "
            f"{len(cols)}"
        )
    bad = (~torch.isfinite(values)).nonzero().flatten()
    if len(bad):
        i = bad[0].item()
        raise ValueError(
            f"values: wanted finite numbers, got {len(bad)} others, the first {values[i].item()} "
            f"at row {rows[i].item()}, column {cols[i].item()}"
        )
    place, order = torch.sort(rows * d_x + cols)
    twice = (place[1:] == place[:-1]).nonzero().flatten()
    if len(twice):
        i = order[twice[0]].item()
        raise ValueError(
            f"rows, cols: wanted each entry once, got {len(twice)} repetitions, the first at row "
            f"{rows[i].item()}, column {cols[i].item()}; merge them before, by their mean say"
        )
    return Observations(rows[order], cols[order], values[order], (d_y, d_x))


def entries(
    P: Tensor, Q: Tensor, rows: Tensor, cols: Tensor, *, workspace: dict | None = None
) -> Tensor:
    r"""Return the entries :math:`(PQ)_{ij}` at given places, in chunks.

    Parameters
    ----------
    P : Tensor, shape (d_y, k)
        Tall factor.
    Q : Tensor, shape (k, d_x)
        Wide factor.
    rows, cols : Tensor of integers, shape (n,)
        Places, not checked.
    workspace : dict, optional
        An empty dict that belongs to one caller, one sample and one width. Memory is kept in it
        from call to call, since fresh memory costs as much as the products; the result lives
        there too, until the next call.

    Returns
    -------
    Tensor, shape (n,)

    Examples
    --------
    >>> P, Q = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]])
    >>> entries(P, Q, torch.tensor([1, 0]), torch.tensor([1, 1])).tolist()
    [8.0, 4.0]
    """
    n, k = len(rows), P.shape[1]
    memory = {} if workspace is None else workspace
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
