r"""Losses over observed entries that never form the matrix.

Of :math:`\frac12\|\Omega\odot(PQ - \Phi)\|_F^2` a step needs, with the residual
:math:`R = \Omega\odot(PQ - \Phi)`, only the gradients :math:`RQ^\top` in the tall factor P and
:math:`P^\top R` in the wide factor Q: O(n k) for n observed entries, and nothing of size d x d.
Each form here is a `losses.Loss` of the two layers ``[Q, P]``, of shapes (k, d_x) and (d_y, k),
that differs from the others in cost alone; `of_factors` makes one of a deeper network out of it.
``seen`` is an `observed.ObservedEntries`, ``k`` the width of the factors.
"""

import functools
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.losses import Loss, ValueAndGradients, _tensors, of_product
from lop_utils.observed import ObservedEntries, _gathered

__all__ = [
    "dense_loss",
    "fastest_loss",
    "gathered_loss",
    "of_factors",
    "sampled_loss",
    "tiled_loss",
]

_Entries = Callable[[Tensor, Tensor], Tensor]
_TILE = 2**19  # numbers of a tile of rows, 4 MB in double precision: it stays in the cache


def of_factors(two_layers: Loss) -> Loss:
    r"""Return a loss of two factors as one of any number of layers.

    With the inner product :math:`C = W_{L-1} \cdots W_2`, it is that of :math:`P = W_L` and
    :math:`Q = C W_1`. Then :math:`\nabla_L = R Q^\top`, :math:`\nabla_1 = C^\top P^\top R`, and
    the inner layers are those of a k x k network whose gradient is :math:`P^\top R W_1^\top`: every
    product but the two factors' own costs O(d k^2) or less.

    Parameters
    ----------
    two_layers : callable
        A loss of ``[Q, P]``.

    Returns
    -------
    callable
        A `losses.Loss` of ``(k, d_x)``, ``(k, k)`` any number of times, ``(d_y, k)``.

    Raises
    ------
    TypeError, ValueError
        From the loss, if shapes of layers do not follow, or there are fewer than two.

    Examples
    --------
    >>> seen = ObservedEntries([0], [2], [3.0], (2, 3))
    >>> loss = of_factors(dense_loss(seen))
    >>> loss([[[1.0, 1.0, 1.0]], [[1.0]], [[1.0], [1.0]]]).grads[0].tolist()
    [[0.0, 0.0, -2.0]]
    """
    _checks.instance("two_layers", two_layers, Callable)

    def loss(Ws: Sequence[Tensor]) -> ValueAndGradients:
        Ws = _detached(Ws)
        if len(Ws) < 2:
            raise ValueError(f"Ws: wanted L >= 2 layers, got {len(Ws)}")
        if len(Ws) == 2:
            return two_layers(Ws)
        first, *inner, last = Ws
        outer: list[Tensor] = []

        def small(C: Tensor) -> tuple[Tensor, Tensor]:
            value, (PtR, RQt) = two_layers([C @ first, last])
            PtR = PtR.contiguous()  # a product with two transposed thin matrices takes four times
            outer.extend((C.T @ PtR, RQt))
            return value, PtR @ first.T

        try:
            value, grads = of_product(small)(inner)
        except RuntimeError:
            _checks.chain("Ws", Ws)  # says what does not fit; asked each time it would cost more
            raise
        return ValueAndGradients(value, [outer[0], *grads, outer[1]])

    return loss


def _detached(Ws: Sequence[Tensor]) -> list[Tensor]:
    return [W.detach() if W.requires_grad else W for W in _tensors(Ws)]


def _factors(seen: ObservedEntries, Ws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return P and Q of the two layers, if they fit."""
    if len(Ws := _detached(Ws)) != 2:
        raise ValueError(f"Ws: wanted two factors [Q, P], got {len(Ws)}; see of_factors")
    Q, P = Ws
    _checks.fits("P", P, (seen.shape[0], P.shape[1]), "values", seen.values)
    _checks.fits("Q", Q, (P.shape[1], seen.shape[1]), "values", seen.values)
    return P, Q


def dense_loss(seen: ObservedEntries) -> Loss:
    r"""Return the loss from the product in full, masked.

    The form to check the others against, and the fastest where most entries are observed.

    Parameters
    ----------
    seen : ObservedEntries
        The sample.

    Returns
    -------
    callable
        A loss of ``[Q, P]``.

    Examples
    --------
    >>> seen = ObservedEntries([0], [2], [3.0], (2, 3))
    >>> value, (in_Q, in_P) = dense_loss(seen)([[[1.0, 1.0, 1.0]], [[1.0], [1.0]]])
    >>> value.item(), in_P.tolist(), in_Q.tolist()
    (2.0, [[-2.0], [0.0]], [[0.0, 0.0, -2.0]])
    """
    (d_y, d_x), values = _checks.instance("seen", seen, ObservedEntries).shape, seen.values
    Omega, wanted = values.new_zeros(seen.shape), values.new_zeros(seen.shape)
    Omega[seen.rows, seen.cols] = 1
    wanted[seen.rows, seen.cols] = values
    # Block by block: what has just been multiplied is still in the cache.
    height = d_y if values.is_cuda else _height(seen)
    memory = values.new_empty(height, d_x)
    blocks = [
        (slice(top, top + height), wanted[top : top + height], Omega[top : top + height])
        for top in range(0, d_y, height)
    ]

    def loss(Ws: Sequence[Tensor]) -> ValueAndGradients:
        P, Q = _factors(seen, Ws)
        value, QRt, PtR = P.new_zeros(()), [], torch.zeros_like(Q)
        for rows, Y, mask in blocks:
            R = torch.mm(P[rows], Q, out=memory[: len(mask)]).sub_(Y).mul_(mask)
            value += torch.dot(R.view(-1), R.view(-1))
            QRt.append(Q @ R.T)  # half as long as R Q^T where k is small
            PtR.addmm_(P[rows].T, R)
        return ValueAndGradients(0.5 * value, [PtR, torch.cat(QRt, 1).T])

    return loss


def _height(seen: ObservedEntries) -> int:
    return max(1, min(seen.shape[0], _TILE // seen.shape[1]))


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
    sums = torch.bincount(sorted_indices, minlength=size).cumsum(0)
    return torch.nn.functional.pad(sums, (1, 0)).int()


def _on_entries(seen: ObservedEntries, entries_of: _Entries, *, mkl: bool) -> Loss:
    d_y, d_x = seen.shape
    crow, col = _pointers(seen.rows, d_y), seen.cols.int()
    # The transposed matrix is kept as well: a CSR matrix multiplies well from one side only.
    turn = torch.argsort(seen.cols, stable=True)
    ccol, row, turn = _pointers(seen.cols, d_x), seen.rows[turn].int(), turn.int()

    def times(crow, col, values, dense, rows):
        dense = dense.contiguous()
        if mkl:
            return _csr(crow, col, values, (rows, dense.shape[0])) @ dense
        return _summed(crow, col, values, dense)

    R, turned = torch.empty_like(seen.values), torch.empty_like(seen.values)

    def loss(Ws: Sequence[Tensor]) -> ValueAndGradients:
        P, Q = _factors(seen, Ws)
        torch.sub(entries_of(P, Q), seen.values, out=R)
        RQt = times(crow, col, R, Q.T, d_y)
        RtP = times(ccol, row, torch.index_select(R, 0, turn, out=turned), P, d_x)
        return ValueAndGradients(0.5 * torch.dot(R, R), [RtP.T, RQt])

    return loss


def _has_csr(values: Tensor) -> bool:
    return values.is_cuda or torch.backends.mkl.is_available()


def tiled_loss(seen: ObservedEntries) -> Loss:
    r"""Return the loss from the product, formed tile by tile and kept where it is observed.

    A few rows of :math:`PQ` at a time are multiplied out and the observed entries picked from
    them. Multiplying is so much quicker than picking that this wins down to about a tenth
    observed, and no more than a tile is ever held.

    Examples
    --------
    >>> seen = ObservedEntries([0], [2], [3.0], (2, 3))
    >>> tiled_loss(seen)([[[1.0, 1.0, 1.0]], [[1.0], [1.0]]]).value.item()
    2.0
    """
    d_y, d_x = _checks.instance("seen", seen, ObservedEntries).shape
    height = _height(seen)
    cuts = torch.searchsorted(seen.rows, torch.arange(0, d_y + height, height).to(seen.rows))
    tiles = []
    for i, (start, end) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
        top = i * height
        place = (seen.rows[start:end] - top) * d_x + seen.cols[start:end]
        tiles.append((top, min(top + height, d_y), start, end, place.int()))
    tile, out = seen.values.new_empty(height, d_x), torch.empty_like(seen.values)

    def entries_of(P: Tensor, Q: Tensor) -> Tensor:
        for top, bottom, start, end, place in tiles:
            product = torch.mm(P[top:bottom], Q, out=tile[: bottom - top])
            torch.index_select(product.view(-1), 0, place, out=out[start:end])
        return out

    return _on_entries(seen, entries_of, mkl=_has_csr(seen.values))


def gathered_loss(seen: ObservedEntries, *, mkl: bool | None = None) -> Loss:
    r"""Return the loss with each observed entry from one row of P and one column of Q.

    Parameters
    ----------
    seen : ObservedEntries
        The sample.
    mkl : bool, optional
        Whether this torch multiplies CSR matrices, which on a CPU asks for MKL; found out by
        itself. Without, rows are summed by ``embedding_bag``.

    Examples
    --------
    >>> seen = ObservedEntries([0], [2], [3.0], (2, 3))
    >>> gathered_loss(seen, mkl=False)([[[1.0, 1.0, 1.0]], [[1.0], [1.0]]]).value.item()
    2.0
    """
    _checks.instance("seen", seen, ObservedEntries)
    mkl = _has_csr(seen.values) if mkl is None else _checks.flag("mkl", mkl)
    rows, cols = seen.rows.int(), seen.cols.int()
    memory: dict[int, dict] = {}

    def entries_of(P: Tensor, Q: Tensor) -> Tensor:
        return _gathered(P, Q, rows, cols, memory.setdefault(P.shape[1], {}))

    return _on_entries(seen, entries_of, mkl=mkl)


def sampled_loss(seen: ObservedEntries) -> Loss:
    r"""Return the loss with each observed entry as a dot product of its own.

    Nothing is gathered first, so that the cost grows slowly with k, and this wins where k is
    large. On a GPU ``torch.sparse.sampled_addmm`` does it. On a CPU that takes twice as long as
    the kernel by which ``embedding_bag`` differentiates its weights, the same dot products.

    Examples
    --------
    >>> seen = ObservedEntries([0], [2], [3.0], (2, 3))
    >>> sampled_loss(seen)([[[1.0, 1.0, 1.0]], [[1.0], [1.0]]]).value.item()
    2.0
    """
    _checks.instance("seen", seen, ObservedEntries)
    crow, col = _pointers(seen.rows, seen.shape[0]), seen.cols.int()
    if seen.values.is_cuda:
        pattern = _csr(crow, col, torch.zeros_like(seen.values), seen.shape)

        def entries_of(P: Tensor, Q: Tensor) -> Tensor:
            return torch.sparse.sampled_addmm(pattern, P, Q, beta=0.0).values()

    else:
        row, dots = seen.rows.int(), torch.ops.aten._embedding_bag_per_sample_weights_backward

        def entries_of(P: Tensor, Q: Tensor) -> Tensor:
            return dots(P.contiguous(), Q.T.contiguous(), col, crow[:-1], row, 0)

    return _on_entries(seen, entries_of, mkl=_has_csr(seen.values))


def fastest_loss(seen: ObservedEntries, k: int) -> Loss:
    """Return the form that is fastest for the share observed and the width ``k`` of the factors.

    Raises
    ------
    TypeError, ValueError
        If ``k < 1``.

    Examples
    --------
    >>> seen = ObservedEntries([0], [2], [3.0], (2, 3))
    >>> fastest_loss(seen, k=1)([[[1.0, 1.0, 1.0]], [[1.0], [1.0]]]).value.item()
    2.0
    """
    k, p = _checks.count("k", k, at_least=1), _checks.instance("seen", seen, ObservedEntries).p
    # Where measured curves cross. Half the bytes are moved sooner, not the calls of `sampled_loss`.
    single = seen.values.dtype == torch.float32 and not seen.values.is_cuda
    tiled_from, sampled_from = (0.06, 14) if single else (0.1, 8)
    if p > tiled_from:
        return dense_loss(seen) if p > 0.3 else tiled_loss(seen)
    return sampled_loss(seen) if k >= sampled_from else gathered_loss(seen)
