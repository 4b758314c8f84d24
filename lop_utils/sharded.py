r"""The same training with the rows of the matrix spread over processes.

Every process holds its own rows of the matrix: their observed entries, and as many rows of the
last layer. The other layers are small, and each process has all of them. Of a step only the
loss and :math:`P^\top R`, 1 + k d_x numbers, must be added up over the processes; then each goes
on with its own copy of the same sums. So `factored.contracted_gradients` and every trainer run
unchanged on a residual that adds up.
"""

import torch
from torch import Tensor, distributed

from lop_utils import _checks
from lop_utils.factored import FactoredResidual
from lop_utils.sampling import Observations

__all__ = ["gather_rows", "row_blocks", "shard", "summed_residual"]


def row_blocks(obs: Observations, parts: int) -> list[tuple[int, int]]:
    """Cut the rows into blocks with about as many observed entries each.

    Parameters
    ----------
    obs : Observations
        The whole sample, or a sketch of it: only its rows count.
    parts : int
        Number of blocks, at most the number of rows.

    Returns
    -------
    list of (int, int)
        First row of each block, and the row after its last; none is empty.

    Raises
    ------
    TypeError, ValueError
        If ``parts`` is below 1 or above the number of rows.

    Examples
    --------
    >>> from lop_utils.sampling import observe
    >>> row_blocks(observe([0, 0, 0, 1, 2, 3], [0, 1, 2, 0, 0, 0], [1.0] * 6, (4, 3)), 2)
    [(0, 1), (1, 4)]
    """
    d_y, parts = obs.shape[0], _checks.count("parts", parts, at_least=1)
    if parts > d_y:
        raise ValueError(f"parts: wanted at most d_y = {d_y} blocks of rows, got {parts}")
    seen = torch.bincount(obs.rows, minlength=d_y).cumsum(0)
    cuts = [0]
    for part in range(1, parts):
        cut = torch.searchsorted(seen, len(obs.rows) * part / parts).item() + 1
        cuts.append(min(max(cut, cuts[-1] + 1), d_y - parts + part))
    return list(zip(cuts, [*cuts[1:], d_y], strict=True))


def shard(obs: Observations, block: tuple[int, int]) -> Observations:
    """Return the observed entries in a block of rows, as a matrix of that many rows.

    Parameters
    ----------
    obs : Observations
        The whole sample.
    block : (int, int)
        First row, and the row after the last.

    Returns
    -------
    Observations

    Raises
    ------
    ValueError
        If the block is not one of rows of the matrix, or nothing was observed in it.

    Examples
    --------
    >>> from lop_utils.sampling import observe
    >>> shard(observe([0, 3], [0, 1], [1.0, 2.0], (4, 3)), (2, 4))
    Observations(rows=tensor([1]), cols=tensor([1]), values=tensor([2.]), shape=(2, 3))
    """
    top, bottom = block
    if not 0 <= top < bottom <= obs.shape[0]:
        raise ValueError(f"block: wanted rows of 0 to {obs.shape[0]}, got {block}")
    ends = torch.tensor([top, bottom], device=obs.rows.device)
    start, end = torch.searchsorted(obs.rows, ends).tolist()
    if start == end:
        raise ValueError(f"block: wanted rows with entries, got none in rows {top} to {bottom - 1}")
    rows = obs.rows[start:end] - top
    return Observations(
        rows, obs.cols[start:end], obs.values[start:end], (bottom - top, obs.shape[1])
    )


def summed_residual(
    residual: FactoredResidual, group: distributed.ProcessGroup | None = None
) -> FactoredResidual:
    r"""Return a residual whose loss and :math:`P^\top R` are sums over all processes.

    Parameters
    ----------
    residual : callable
        A `FactoredResidual` of this process's block of rows.
    group : ProcessGroup, optional
        Who takes part; by default all. `init_process_group` of torch comes before:
        ``gloo`` on CPUs, ``nccl`` on GPUs.

    Returns
    -------
    callable
        A `FactoredResidual`: P and :math:`R Q^\top` have the rows of the block, Q and
        :math:`P^\top R` are those of the whole matrix.

    Raises
    ------
    RuntimeError
        If no process group has been initialised.

    Examples
    --------
    >>> summed_residual(print)
    Traceback (most recent call last):
        ...
    RuntimeError: group: wanted torch.distributed initialised, got no process group
    """
    if not distributed.is_initialized():
        raise RuntimeError("group: wanted torch.distributed initialised, got no process group")

    def summed(P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss, RQt, PtR = residual(P, Q)
        message = torch.cat([loss.reshape(1), PtR.flatten()])  # one message a step, not two
        distributed.all_reduce(message, group=group)
        return message[0], RQt, message[1:].view(PtR.shape)

    return summed


def gather_rows(W: Tensor, group: distributed.ProcessGroup | None = None) -> Tensor:
    """Return the whole of a layer of which each process has a block of rows.

    Parameters
    ----------
    W : Tensor, shape (rows of the block, k)
        This process's part.
    group : ProcessGroup, optional
        Who takes part; by default all.

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
    if not distributed.is_initialized():
        raise RuntimeError("group: wanted torch.distributed initialised, got no process group")
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
