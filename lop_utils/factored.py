r"""Losses that look at a part of a matrix, computed without ever forming the whole.

A *factored residual* takes the end-to-end matrix as a product :math:`W = PQ` of a tall and a wide
factor and returns the loss with what a gradient needs of :math:`R = \nabla\ell(W)`: the two
contractions :math:`R Q^\top` and :math:`P^\top R`. Where R lives on observed entries only, both
cost O(\|Omega\| k) and nothing of size d x d exists.
"""

import functools
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lop_utils import _checks, dln
from lop_utils.sampling import Observations, entries

__all__ = [
    "FactoredResidual",
    "contracted_gradients",
    "dense_residual",
    "fastest_residual",
    "gathered_residual",
    "sampled_residual",
    "tiled_residual",
]

FactoredResidual = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""P (d_y, k) and Q (k, d_x) in; loss, R Q^T (d_y, k) and P^T R (k, d_x) out."""

_Entries = Callable[[Tensor, Tensor], Tensor]
_TILE = 2**19  # numbers of a tile of rows, 4 MB in double precision: it stays in the cache


def _check(obs: Observations, P: Tensor, Q: Tensor) -> None:
    k = P.shape[-1]
    _checks.fits("P", P, (obs.shape[0], k), "values", obs.values)
    _checks.fits("Q", Q, (k, obs.shape[1]), "values", obs.values)


def dense_residual(obs: Observations) -> FactoredResidual:
    r"""Return the residual of :math:`\frac12\|\Omega\odot(PQ - \Phi)\|_F^2`, the obvious way.

    The product is formed in full, masked, and multiplied by both factors: the form to check the
    others against, and the fastest where most entries are observed.

    Parameters
    ----------
    obs : Observations
        From `sampling.observe`.

    Returns
    -------
    callable
        A `FactoredResidual`.

    Raises
    ------
    TypeError, ValueError
        From the residual, if ``P`` or ``Q`` does not fit.

    Examples
    --------
    >>> from lop_utils.sampling import observe
    >>> P, Q = torch.ones(2, 1), torch.ones(1, 3)
    >>> loss, RQt, PtR = dense_residual(observe([0], [2], [3.0], (2, 3)))(P, Q)
    >>> loss.item(), RQt.tolist(), PtR.tolist()
    (2.0, [[-2.0], [0.0]], [[0.0, 0.0, -2.0]])
    """
    (d_y, d_x), values = obs.shape, obs.values
    Omega, seen = values.new_zeros(obs.shape), values.new_zeros(obs.shape)
    Omega[obs.rows, obs.cols] = 1
    seen[obs.rows, obs.cols] = values
    # Block by block: what has just been multiplied is still in the cache.
    height = d_y if values.is_cuda else _height(obs)
    memory = values.new_empty(height, d_x)
    blocks = [
        (slice(top, top + height), seen[top : top + height], Omega[top : top + height])
        for top in range(0, d_y, height)
    ]

    def residual(P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _check(obs, P, Q)
        loss, QRt, PtR = P.new_zeros(()), [], torch.zeros_like(Q)
        for rows, wanted, mask in blocks:
            R = torch.mm(P[rows], Q, out=memory[: len(mask)]).sub_(wanted).mul_(mask)
            loss += torch.dot(R.view(-1), R.view(-1))
            QRt.append(Q @ R.T)  # half as long as R Q^T where k is small
            PtR.addmm_(P[rows].T, R)
        return 0.5 * loss, torch.cat(QRt, 1).T, PtR

    return residual


def _height(obs: Observations) -> int:
    d_y, d_x = obs.shape
    return max(1, min(d_y, _TILE // d_x))


@functools.cache
def _without_warning() -> None:
    with warnings.catch_warnings():  # torch calls its CSR format beta once a process
        warnings.filterwarnings("ignore", message=".*[Ss]parse CSR")
        torch.eye(1).to_sparse_csr()


def _csr(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    _without_warning()
    return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=False)


def _summed(crow: Tensor, col: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    # The product of a CSR matrix with a dense one, for builds of torch that have none.
    return torch.nn.functional.embedding_bag(
        col, dense, crow, mode="sum", per_sample_weights=values, include_last_offset=True
    )


def _pointers(sorted_indices: Tensor, size: int) -> Tensor:
    counts = torch.bincount(sorted_indices, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _on_entries(obs: Observations, entries_of: _Entries, *, mkl: bool) -> FactoredResidual:
    n, (d_y, d_x) = len(obs.values), obs.shape
    index = torch.int32 if max(n, d_y, d_x) < 2**31 else torch.int64
    crow, col = _pointers(obs.rows, d_y).to(index), obs.cols.to(index)
    # The transposed matrix is kept as well: a CSR matrix multiplies well from one side only.
    turn = torch.argsort(obs.cols, stable=True)
    ccol, row = _pointers(obs.cols, d_x).to(index), obs.rows[turn].to(index)
    turn = turn.to(index)

    def times(crow, col, values, dense, rows):
        dense = dense.contiguous()
        if mkl:
            return _csr(crow, col, values, (rows, dense.shape[0])) @ dense
        return _summed(crow, col, values, dense)

    R, turned = torch.empty_like(obs.values), torch.empty_like(obs.values)

    def residual(P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _check(obs, P, Q)
        torch.sub(entries_of(P, Q), obs.values, out=R)
        RQt = times(crow, col, R, Q.T, d_y)
        RtP = times(ccol, row, torch.index_select(R, 0, turn, out=turned), P, d_x)
        return 0.5 * torch.dot(R, R), RQt, RtP.T

    return residual


def _has_csr(values: Tensor) -> bool:
    return values.is_cuda or torch.backends.mkl.is_available()


def tiled_residual(obs: Observations) -> FactoredResidual:
    r"""Return the same residual: the product tile by tile, of which the sample is kept.

    A few rows of :math:`PQ` at a time are multiplied out and the observed entries picked from
    them. Multiplying is so much quicker than picking that this wins down to about a tenth
    observed, and no more than a tile is ever held.

    Parameters
    ----------
    obs : Observations
        From `sampling.observe`.

    Returns
    -------
    callable
        A `FactoredResidual`.

    Examples
    --------
    >>> from lop_utils.sampling import observe
    >>> P, Q = torch.ones(2, 1), torch.ones(1, 3)
    >>> tiled_residual(observe([0], [2], [3.0], (2, 3)))(P, Q)[0].item()
    2.0
    """
    d_y, d_x = obs.shape
    height = _height(obs)
    cuts = torch.searchsorted(obs.rows, torch.arange(0, d_y + height, height).to(obs.rows))
    tiles = []
    for i, (start, end) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
        top = i * height
        place = (obs.rows[start:end] - top) * d_x + obs.cols[start:end]
        tiles.append((top, min(top + height, d_y), start, end, place.int()))
    tile = obs.values.new_empty(height, d_x)

    out = torch.empty_like(obs.values)

    def entries_of(P: Tensor, Q: Tensor) -> Tensor:
        for top, bottom, start, end, place in tiles:
            product = torch.mm(P[top:bottom], Q, out=tile[: bottom - top])
            torch.index_select(product.view(-1), 0, place, out=out[start:end])
        return out

    return _on_entries(obs, entries_of, mkl=_has_csr(obs.values))


def gathered_residual(obs: Observations, *, mkl: bool | None = None) -> FactoredResidual:
    r"""Return the same residual, each observed entry from one row of P and one column of Q.

    Parameters
    ----------
    obs : Observations
        From `sampling.observe`.
    mkl : bool, optional
        Whether this torch multiplies CSR matrices, which on a CPU asks for MKL; found out by
        itself. Without, rows are summed by ``embedding_bag``.

    Returns
    -------
    callable
        A `FactoredResidual`.

    Examples
    --------
    >>> from lop_utils.sampling import observe
    >>> P, Q = torch.ones(2, 1), torch.ones(1, 3)
    >>> gathered_residual(observe([0], [2], [3.0], (2, 3)), mkl=False)(P, Q)[0].item()
    2.0
    """
    rows, cols = obs.rows.int(), obs.cols.int()
    workspaces: dict[int, dict] = {}

    def entries_of(P: Tensor, Q: Tensor) -> Tensor:
        workspace = workspaces.setdefault(P.shape[1], {})
        return entries(P, Q, rows, cols, workspace=workspace)

    return _on_entries(obs, entries_of, mkl=_has_csr(obs.values) if mkl is None else mkl)


def sampled_residual(obs: Observations) -> FactoredResidual:
    r"""Return the same residual, each observed entry as a dot product of its own.

    Nothing is gathered first, so that the cost grows slowly with k, and this wins where k is
    large. On a GPU ``torch.sparse.sampled_addmm`` does it. On a CPU that takes twice as long as
    the kernel by which ``embedding_bag`` differentiates its weights, the same dot products.

    Parameters
    ----------
    obs : Observations
        From `sampling.observe`.

    Returns
    -------
    callable
        A `FactoredResidual`.

    Examples
    --------
    >>> from lop_utils.sampling import observe
    >>> P, Q = torch.ones(2, 1), torch.ones(1, 3)
    >>> sampled_residual(observe([0], [2], [3.0], (2, 3)))(P, Q)[0].item()
    2.0
    """
    crow, col = _pointers(obs.rows, obs.shape[0]).int(), obs.cols.int()
    if obs.values.is_cuda:
        pattern = _csr(crow, col, torch.zeros_like(obs.values), obs.shape)

        def entries_of(P: Tensor, Q: Tensor) -> Tensor:
            return torch.sparse.sampled_addmm(pattern, P, Q, beta=0.0).values()

    else:
        row, dots = obs.rows.int(), torch.ops.aten._embedding_bag_per_sample_weights_backward

        def entries_of(P: Tensor, Q: Tensor) -> Tensor:
            return dots(P.contiguous(), Q.T.contiguous(), col, crow[:-1], row, 0)

    return _on_entries(obs, entries_of, mkl=_has_csr(obs.values))


def fastest_residual(obs: Observations, k: int) -> FactoredResidual:
    """Choose among the forms by the share observed and the width.

    Parameters
    ----------
    obs : Observations
        From `sampling.observe`.
    k : int
        Width of the factors.

    Returns
    -------
    callable
        A `FactoredResidual`; all forms agree to rounding.

    Raises
    ------
    TypeError, ValueError
        If ``k < 1``.

    Examples
    --------
    >>> from lop_utils.sampling import observe
    >>> seen = observe([0], [2], [3.0], (2, 3))
    >>> fastest_residual(seen, k=1)(torch.ones(2, 1), torch.ones(1, 3))[0].item()
    2.0
    """
    k = _checks.count("k", k, at_least=1)
    # Where the measured curves cross for k from 6 to 40, on one thread and on two.
    if obs.fraction > 0.25:
        return dense_residual(obs)
    if obs.fraction > 0.1:
        return tiled_residual(obs)
    return sampled_residual(obs) if k >= 8 else gathered_residual(obs)


def contracted_gradients(Ws: Sequence[Tensor], residual: FactoredResidual) -> dln.LossAndGradients:
    r"""Differentiate a loss of the end-to-end matrix through its two outermost layers.

    With the inner product :math:`C = W_{L-1} \cdots W_2`, the residual sees :math:`P = W_L` and
    :math:`Q = C W_1` and gives :math:`R Q^\top` and :math:`P^\top R`. Then
    :math:`\nabla_L = R Q^\top`, :math:`\nabla_1 = C^\top P^\top R`, and the inner layers are
    those of a k x k network whose residual is :math:`P^\top R W_1^\top`: every product but the
    residual's own costs O(d k^2) or less.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers, L >= 2: ``(k, d_x)``, ``(k, k)`` any number of times, ``(d_y, k)``.
    residual : callable
        A `FactoredResidual`.

    Returns
    -------
    LossAndGradients
        As `dln.gradients` with the residual that it stands for, to rounding.

    Raises
    ------
    TypeError, ValueError
        If the shapes of the layers do not follow, or there are fewer than two.

    Examples
    --------
    >>> from lop_utils.sampling import observe
    >>> Ws = [torch.ones(1, 3), torch.ones(2, 1)]
    >>> residual = dense_residual(observe([0], [2], [3.0], (2, 3)))
    >>> contracted_gradients(Ws, residual).grads[0].tolist()
    [[0.0, 0.0, -2.0]]
    """
    Ws = _checks.chain("Ws", Ws)
    if len(Ws) < 2:
        raise ValueError(f"Ws: wanted L >= 2 layers, got {len(Ws)}")
    first, *inner, last = Ws
    if not inner:
        loss, RQt, PtR = residual(last, first)
        return dln.LossAndGradients(loss, [PtR, RQt])
    found = []

    def small(C: Tensor) -> tuple[Tensor, Tensor]:
        loss, RQt, PtR = residual(last, C @ first)
        PtR = PtR.contiguous()  # a product with two transposed thin matrices takes four times
        found.extend((RQt, C.T @ PtR))
        return loss, PtR @ first.T

    loss, grads = dln.gradients(inner, small)
    return dln.LossAndGradients(loss, [found[1], *grads, found[0]])
