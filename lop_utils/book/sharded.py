r"""The same training with the rows of the matrix spread over processes.

Every process holds its own rows of the matrix: their observed entries, and as many rows of the
last layer. The other layers are small, and each process has all of them. Of a step only the loss
and :math:`P^\top R`, 1 + k d_x numbers, are added up over the processes; then each goes on with
its own copy of the same sums, so that every trainer runs unchanged. ``group`` is a process group of
`torch.distributed`, by default all processes; ``init_process_group`` comes before, with ``gloo`` on
CPUs, ``nccl`` on GPUs.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, distributed

from lop_utils import _checks
from lop_utils.losses import Loss, ValueAndGradients
from lop_utils.observed import ObservedEntries

__all__ = ["gather_rows", "row_blocks", "rows_between", "summed_loss"]


def row_blocks(seen: ObservedEntries, parts: int) -> list[tuple[int, int]]:
    """Return the rows cut into blocks with about as many observed entries each.

    Parameters
    ----------
    seen : ObservedEntries
        The whole sample, or a sketch of it: only its rows count.
    parts : int
        Number of blocks, at most the number of rows in which something was observed.

    Returns
    -------
    list of (int, int)
        First row of each block, and the row after its last; each has an entry.

    Raises
    ------
    TypeError, ValueError
        If ``parts`` is below 1 or above the number of such rows.

    Examples
    --------
    >>> row_blocks(ObservedEntries([0, 0, 0, 1, 2, 3], [0, 1, 2, 0, 0, 0], [1.0] * 6, (4, 3)), 2)
    [(0, 1), (1, 4)]
    """
    parts = _checks.count("parts", parts, at_least=1)
    present, sizes = seen.rows.unique(return_counts=True)
    if parts > len(present):
        raise ValueError(
            f"parts: wanted at most {len(present)} blocks, the rows with entries, got {parts}"
        )
    before = sizes.cumsum(0)
    cuts = [0]  # among the rows with entries
    for part in range(1, parts):
        cut = torch.searchsorted(before, len(seen) * part / parts).item() + 1
        cuts.append(min(max(cut, cuts[-1] + 1), len(present) - parts + part))
    starts = [0, *present[cuts[1:]].tolist(), seen.shape[0]] if parts > 1 else [0, seen.shape[0]]
    return list(pairwise(starts))


def rows_between(seen: ObservedEntries, block: tuple[int, int]) -> ObservedEntries:
    """Return the observed entries in a block of rows, as a matrix of that many rows.

    Parameters
    ----------
    seen : ObservedEntries
        The whole sample.
    block : (int, int)
        First row, and the row after the last.

    Returns
    -------
    ObservedEntries

    Raises
    ------
    ValueError
        If the block is not one of rows of the matrix, or nothing was observed in it.

    Examples
    --------
    >>> rows_between(ObservedEntries([0, 3], [0, 1], [1.0, 2.0], (4, 3)), (2, 4)).rows
    tensor([1])
    """
    if not hasattr(block, "__len__") or len(block) != 2:
        raise ValueError(f"block: wanted (first row, row after the last), got {block!r}")
    top, bottom = (_checks.count("block", row, at_least=-(2**63)) for row in block)
    if not 0 <= top < bottom <= seen.shape[0]:
        raise ValueError(f"block: wanted rows of 0 to {seen.shape[0]}, got {block}")
    ends = torch.tensor([top, bottom], device=seen.rows.device)
    start, end = torch.searchsorted(seen.rows, ends).tolist()
    if start == end:
        raise ValueError(f"block: wanted rows with entries, got none in rows {top} to {bottom - 1}")
    some = slice(start, end)
    shape = (bottom - top, seen.shape[1])
    return ObservedEntries(seen.rows[some] - top, seen.cols[some], seen.values[some], shape)


def _process_group() -> None:
    if not distributed.is_initialized():
        raise RuntimeError("group: wanted torch.distributed initialised, got no process group")


def summed_loss(two_layers: Loss, group: distributed.ProcessGroup | None = None) -> Loss:
    r"""Return a loss whose value and gradient :math:`P^\top R` are sums over all processes.

    Parameters
    ----------
    two_layers : callable
        A loss of ``[Q, P]`` over this process's block of rows, see `rows_between`.
    group : ProcessGroup, optional
        Who takes part.

    Returns
    -------
    callable
        A loss of ``[Q, P]``, of which P has the rows of the block.

    Raises
    ------
    RuntimeError
        If no process group has been initialised.

    Examples
    --------
    >>> summed_loss(print)
    Traceback (most recent call last):
        ...
    RuntimeError: group: wanted torch.distributed initialised, got no process group
    """
    _process_group()

    def summed(Ws: Sequence[Tensor]) -> ValueAndGradients:
        value, (PtR, RQt) = two_layers(Ws)
        message = torch.cat([value.reshape(1), PtR.flatten()])  # one message a step, not two
        distributed.all_reduce(message, group=group)
        return ValueAndGradients(message[0], [message[1:].view(PtR.shape), RQt])

    return summed


def gather_rows(W: Tensor, group: distributed.ProcessGroup | None = None) -> Tensor:
    """Return the whole of a layer of which each process has a block of rows.

    Parameters
    ----------
    W : Tensor, shape (rows of the block, k)
        This process's part.
    group : ProcessGroup, optional
        Who takes part.

    Returns
    -------
    Tensor, shape (d_y, k)

    Raises
    ------
    RuntimeError
        If no process group has been initialised.

    Examples
    --------
    >>> gather_rows(torch.ones(2, 1))
    Traceback (most recent call last):
        ...
    RuntimeError: group: wanted torch.distributed initialised, got no process group
    """
    _process_group()
    heights = [
        torch.zeros(1, dtype=torch.int64, device=W.device)
        for _ in range(distributed.get_world_size(group))
    ]
    distributed.all_gather(heights, torch.tensor([len(W)], device=W.device), group=group)
    # Parts of unequal height travel padded to the highest.
    most = max(height.item() for height in heights)
    padded = torch.cat([W, W.new_zeros(most - len(W), W.shape[1])])
    parts = [torch.empty_like(padded) for _ in heights]
    distributed.all_gather(parts, padded, group=group)
    return torch.cat([part[: height.item()] for part, height in zip(parts, heights, strict=True)])
