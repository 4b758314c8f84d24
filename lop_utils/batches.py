"""Many small networks trained at once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = ["BatchIterate", "batch_descent"]


class BatchIterate(NamedTuple):
    """One point of many runs at once. Every iterate owns its tensors."""

    t: int
    """Steps taken so far."""
    Ws: list[Tensor]
    """Layers, each with a leading axis of runs."""
    loss: Tensor
    """Shape (B,): the loss of each run; NaN or infinite where one has diverged."""


def batch_descent(
    Ws: Sequence[Tensor],
    Phi: Tensor,
    *,
    eta: float | Tensor,
    lam: float = 0.0,
    steps: int,
    every: int = 1,
) -> Iterator[BatchIterate]:
    r"""Run gradient descent on many small networks at once, with as few calls as it takes.

    The loss of each run is :math:`\frac12\|W_{L:1} - \Phi\|_F^2`. A core of width 2r is so
    small that calling costs more than computing; runs that differ in seed, scale or step size
    share the calls here, and nothing is allocated, checked or measured between the iterates.

    Parameters
    ----------
    Ws : sequence of Tensor, shape (B, d_l, d_{l-1}) each
        Layers of B runs. They are not changed.
    Phi : Tensor, shape (B, d_L, d_0)
        Targets.
    eta : float or Tensor, shape (B,)
        Step size, of all runs or of each.
    lam : float
        Weight decay.
    steps : int
        Number of steps.
    every : int
        Yield when ``t`` is a multiple of it.

    Yields
    ------
    BatchIterate
        A run that diverges does not stop the others.

    Raises
    ------
    TypeError, ValueError
        At the call, if an argument is out of range or the shapes do not follow.

    Examples
    --------
    >>> Ws = [torch.ones(2, 1, 1), torch.ones(2, 1, 1)]
    >>> run = batch_descent(Ws, torch.zeros(2, 1, 1), eta=torch.tensor([0.1, 0.5]), steps=1)
    >>> [it.Ws[0].flatten().tolist() for it in run]
    [[1.0, 1.0], [0.8999999761581421, 0.5]]
    """
    lam, steps = _checks.nonnegative("lam", lam), _checks.count("steps", steps)
    every = _checks.count("every", every, at_least=1)
    if isinstance(Ws, Tensor) or not isinstance(Ws, Sequence):
        raise TypeError(f"Ws: wanted a sequence of tensors, got {type(Ws).__name__}")
    if not Ws:
        raise ValueError("Ws: wanted at least one layer, got none")
    for l, W in enumerate([*Ws, Phi]):
        name = f"Ws[{l}]" if l < len(Ws) else "Phi"
        if not isinstance(W, Tensor):
            raise TypeError(f"{name}: wanted a torch.Tensor, got {type(W).__name__}")
        if W.ndim != 3:
            raise ValueError(f"{name}: wanted shape (B, rows, columns), got {tuple(W.shape)}")
        if len(W) != len(Ws[0]):
            raise ValueError(f"{name}: wanted B = {len(Ws[0])} runs as Ws[0], got {len(W)}")
        _checks.matrix(name, W.flatten(1))  # the numbers of all runs, not of the first alone
        _checks.same_kind(name, W, "Ws[0]", Ws[0])
    _checks.chain("Ws", [W[0] for W in Ws])
    _checks.shaped("Phi", Phi[0], (Ws[-1].shape[1], Ws[0].shape[2]))
    if isinstance(eta, Tensor) and eta.ndim:
        if eta.shape != Ws[0].shape[:1] or not ((eta > 0) & eta.isfinite()).all():
            raise ValueError(f"eta: wanted B = {len(Ws[0])} positive step sizes, got {eta}")
        rate = -eta.to(Phi)[:, None, None]
    else:
        rate = -_checks.positive("eta", eta.item() if isinstance(eta, Tensor) else eta)
    return _batch_descend([W.clone() for W in Ws], Phi, rate, lam, steps, every)


def _batch_descend(Ws, Phi, rate, lam, steps, every) -> Iterator[BatchIterate]:
    prefixes = [Ws[0], *(torch.empty(len(W), W.shape[1], Phi.shape[2]).to(W) for W in Ws[1:])]
    suffixes = [torch.empty(len(W), W.shape[2], Phi.shape[2]).to(W) for W in Ws]
    turned = [(W.mT, prefix.mT) for W, prefix in zip(Ws, prefixes, strict=True)]
    gap = prefixes[-1] if len(Ws) > 1 else torch.empty_like(Phi)
    decay = 1 + rate * lam
    for t in range(steps + 1):
        for l in range(1, len(Ws)):
            torch.bmm(Ws[l], prefixes[l - 1], out=prefixes[l])
        torch.sub(prefixes[-1], Phi, out=gap)
        if t % every == 0:
            yield BatchIterate(t, [W.clone() for W in Ws], 0.5 * gap.square().sum((1, 2)))
        if t == steps:
            return
        S = gap.mul_(rate)
        for l in range(len(Ws) - 1, 0, -1):
            after = torch.bmm(turned[l][0], S, out=suffixes[l])
            if lam:
                Ws[l].mul_(decay)
            Ws[l].baddbmm_(S, turned[l - 1][1])
            S = after
        if lam:
            Ws[0].mul_(decay)
        Ws[0].add_(S)
