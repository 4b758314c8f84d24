r"""The law of parsimony: where gradient descent moves, and the one number that rules the rest.

Under the hypotheses of the theorem every layer stays, for all time, of the form

.. math:: W_l(t) = U_l \begin{pmatrix} \tilde W_l(t) & 0 \\ 0 & \rho(t) I \end{pmatrix} V_l^\top

with fixed orthogonal :math:`U_l, V_l`. In case 1 (:math:`d_y = d`) :math:`\rho` follows
`rho_recursion`, in case 2 (:math:`d_y = r`) weight decay alone, from :math:`\varepsilon` on. The
target is :math:`\Phi = YX^\top` with whitened inputs. Source: Yaras et al. (2023),
arXiv:2306.01154, Theorem 1; layers of unequal scale: Yaras et al. (2024), arXiv:2406.04112.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.networks import end_to_end

__all__ = [
    "BlockErrors",
    "Blocks",
    "InvariantSubspaces",
    "block_errors",
    "block_form",
    "invariant_subspaces",
    "rho_recursion",
]


class InvariantSubspaces(NamedTuple):
    """Fixed bases of every layer; columns ordered core, shrinking, frozen."""

    V: list[Tensor]
    """Right basis of each layer, orthogonal, shape (d, d)."""
    U: list[Tensor]
    """Left basis of each layer, shape (d, d); of the last layer only if d_y = d."""
    core: int
    """Columns in which the layer learns: 2r in the two cases of the theorem."""
    shrinking: int
    """Columns on which the layer is rho(t) times an isometry, rho from `rho_recursion`."""
    frozen: int
    """The same with a rho that weight decay alone moves."""


def _orthogonal_start(Ws0: list[Tensor], Phi: Tensor, scales: Sequence[float]) -> Tensor:
    """Return the target, if it and the start are the theorem's: (d, d), for the last (d_y, d)."""
    d, d_y = Ws0[0].shape[1], Ws0[-1].shape[0]
    for l, (W, eps) in enumerate(zip(Ws0, scales, strict=True)):
        _checks.shaped(f"Ws0[{l}]", W, (d_y if l == len(Ws0) - 1 else d, d))
        _checks.orthogonal_up_to(f"Ws0[{l}]", W, eps)
    Phi = _checks.shaped("Phi", Phi, (d_y, d))
    _checks.same_kind("Phi", Phi, "Ws0[0]", Ws0[0])
    return Phi


def _split(stack: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    # Orthonormal columns: a complement of the kernel, and the kernel, of the given dimension.
    V = torch.linalg.svd(stack, full_matrices=True).Vh.T
    return V[:, : V.shape[1] - kernel], V[:, V.shape[1] - kernel :]


def _first_basis(A: Tensor, Phi: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the core, shrinking and frozen columns of ``V_1``."""
    d_y, d = Phi.shape
    Phi = Phi / torch.linalg.matrix_norm(Phi, 2)
    none = Phi.new_zeros(d, 0)
    if d_y == d:
        core, shrinking = _split(torch.cat([Phi, Phi.T @ A]), d - 2 * r)
        return core, shrinking, none
    # Frozen: what neither the target nor the start sees.
    seen, frozen = _split(torch.cat([Phi, A]), max(d - d_y - r, 0))
    if d_y <= 2 * r:
        return seen, none, frozen
    # Shrinking: the images A^T u of outputs u that the target reaches from neither side.
    _, u = _split(torch.cat([Phi.T, Phi @ A.T]), d_y - 2 * r)
    shrinking = A.T @ u
    core, _ = _split(torch.cat([shrinking, frozen], 1).T, 0)
    return core[:, shrinking.shape[1] + frozen.shape[1] :], shrinking, frozen


def invariant_subspaces(
    Ws0: Sequence[Tensor], Phi: Tensor, r: int, eps: float | Sequence[float]
) -> InvariantSubspaces:
    r"""Return where gradient descent moves and where it does not, from the initial layers alone.

    With whitened inputs, target :math:`\Phi = YX^\top` and :math:`A = W_{L:1}(0)`, a direction
    that both :math:`\Phi` and :math:`\Phi^\top A` (case 1, ``d_y = d``) or both :math:`\Phi` and
    :math:`A` (case 2, ``d_y = r``) send to zero is never reached by a gradient. One SVD of the
    two matrices stacked separates the span of their rows, 2r directions, from that common
    kernel. Later layers follow from :math:`U_l = W_l(0) V_l / \varepsilon`,
    :math:`V_{l+1} = U_l`. For ``r < d_y < d`` both kinds of directions occur, and the core has
    up to 3r columns.

    Parameters
    ----------
    Ws0 : sequence of Tensor
        Layers at ``t = 0``, orthogonal up to the factor ``eps``: ``(d, d)`` for l < L,
        ``(d_y, d)`` for the last.
    Phi : Tensor, shape (d_y, d)
        Target.
    r : int
        Rank of ``Phi``, or an upper bound of it.
    eps : float or sequence of float
        Initialisation scale, of all layers or of each.

    Returns
    -------
    InvariantSubspaces
        Orthogonal ``V[l]`` of every layer and ``U[l]`` (of the last layer only if
        ``d_y = d``); columns ordered core, shrinking, frozen, with the sizes ``core``,
        ``shrinking``, ``frozen``.

    Raises
    ------
    TypeError, ValueError
        If shapes disagree, a layer is not ``eps``-orthogonal, ``Phi`` has a rank above ``r``,
        or ``2r >= d`` or ``r > d_y`` (the core would fill the whole space).

    Examples
    --------
    >>> from lop_utils import init
    >>> Ws, Phi = init.orthogonal((9, 9, 9), 0.1), torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> spaces = invariant_subspaces(Ws, Phi, r=1, eps=0.1)
    >>> spaces.core, spaces.shrinking, spaces.frozen
    (2, 7, 0)
    """
    Ws0 = _checks.layers("Ws0", Ws0)
    scales = _checks.each("eps", eps, len(Ws0), "scales")
    Phi = _orthogonal_start(Ws0, Phi, scales)
    d_y, d = Phi.shape
    r = _checks.count("r", r, at_least=1)
    if 2 * r >= d:
        raise ValueError(f"r: wanted 2r < d = {d}, got r = {r}: the core would fill the space")
    if not r <= d_y <= d:
        raise ValueError(f"d_y: wanted r = {r} <= d_y <= d = {d}, got d_y = {d_y}")
    rank = int(torch.linalg.matrix_rank(Phi))
    if not 1 <= rank <= r:
        raise ValueError(f"Phi: wanted a rank from 1 to r = {r}, got rank {rank}")

    A = end_to_end([W / scale for W, scale in zip(Ws0, scales, strict=True)])
    parts = _first_basis(A, Phi, r)
    V, U = [torch.cat(parts, 1)], []
    for W, scale in zip(Ws0 if d_y == d else Ws0[:-1], scales, strict=False):
        U.append(W @ V[-1] / scale)
        V.append(U[-1])
    return InvariantSubspaces(V[: len(Ws0)], U, *(part.shape[1] for part in parts))


class Blocks(NamedTuple):
    """A layer in the fixed bases, cut where the core ends."""

    core: Tensor
    """Upper left, shape (2r, 2r): what the layer learns."""
    upper: Tensor
    """Upper right, shape (2r, d - 2r): zero, says the theorem."""
    lower: Tensor
    """Lower left, shape (d - 2r, 2r): zero, says the theorem."""
    complement: Tensor
    """Lower right, shape (d - 2r, d - 2r): rho(t) times the identity, says the theorem."""


def block_form(Ws: Sequence[Tensor], spaces: InvariantSubspaces) -> list[Blocks]:
    r"""Return the layers in the fixed bases, :math:`U_l^\top W_l V_l`, cut into four blocks.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers at some time.
    spaces : InvariantSubspaces
        From `invariant_subspaces`.

    Returns
    -------
    list of Blocks
        One for every layer that has a left basis: all L in case 1, the first L - 1 in case 2.

    Raises
    ------
    TypeError, ValueError
        If the layers do not fit the bases.

    Examples
    --------
    >>> from lop_utils import init
    >>> Ws, Phi = init.orthogonal((9, 9), 0.1), torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> (b,) = block_form(Ws, invariant_subspaces(Ws, Phi, r=1, eps=0.1))
    >>> torch.allclose(b.complement, 0.1 * torch.eye(7, dtype=torch.float64))
    True
    """
    Ws = _checks.layers("Ws", Ws)
    if len(Ws) != len(spaces.V):
        raise ValueError(f"Ws: wanted L = {len(spaces.V)} layers, got {len(Ws)}")
    k, cut = spaces.core, []
    for l, (U, W, V) in enumerate(zip(spaces.U, Ws, spaces.V, strict=False)):
        _checks.shaped(f"Ws[{l}]", W, (U.shape[0], V.shape[0]))
        _checks.same_kind(f"Ws[{l}]", W, f"V[{l}]", V)
        B = U.T @ W @ V
        cut.append(Blocks(B[:k, :k], B[:k, k:], B[k:, :k], B[k:, k:]))
    return cut


class BlockErrors(NamedTuple):
    """How far a network is from the form that the theorem gives it, at the worst layer."""

    off_diagonal: Tensor
    """Scalar: the largest entry where zeros belong."""
    complement: Tensor
    """Scalar: the largest entry of the last block minus rho times the identity."""


def block_errors(
    Ws: Sequence[Tensor], spaces: InvariantSubspaces, rho: float | Tensor
) -> BlockErrors:
    """Return by how much the theorem's form is missed, at the worst layer.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers at some time.
    spaces : InvariantSubspaces
        From `invariant_subspaces`.
    rho : float or Tensor, shape (L,) or (L, columns) or (columns,)
        What the theorem says of the complement at that time: one number; one for each layer, a
        row of `rho_recursion`; or one for each of its columns.

    Returns
    -------
    BlockErrors

    Raises
    ------
    TypeError, ValueError
        If the layers do not fit the bases, or ``rho`` is none of these.

    Examples
    --------
    >>> from lop_utils import init
    >>> Ws, Phi = init.orthogonal((9, 9), 0.1), torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> spaces = invariant_subspaces(Ws, Phi, r=1, eps=0.1)
    >>> block_errors(Ws, spaces, rho=0.1).complement.item() < 1e-14
    True
    """
    cut, L = block_form(Ws, spaces), len(Ws)
    columns = spaces.shrinking + spaces.frozen
    rho = _checks.scalars("rho", rho).to(cut[0].core)
    if rho.shape not in ((), (L,), (columns,), (L, columns)):
        raise ValueError(
            f"rho: wanted one number, L = {L} or {columns} of them, got shape {tuple(rho.shape)}"
        )
    each = rho if rho.shape[:1] == (L,) and rho.shape != (columns,) else [rho] * L
    off = [torch.cat([b.upper.flatten(), b.lower.flatten()]).abs().max() for b in cut]
    complement = [
        (b.complement - value * torch.eye(*b.complement.shape).to(value)).abs().max()
        for b, value in zip(cut, each, strict=False)
    ]
    return BlockErrors(torch.stack(off).max(), torch.stack(complement).max())


def rho_recursion(
    eps: float | Sequence[float], *, eta: float, lam: float, L: int, steps: int
) -> Tensor:
    r"""Return the iterates of :math:`\rho \leftarrow \rho\,(1-\eta\lambda-\eta\rho^{2(L-1)})`.

    That is case 1. Layers that start with different scales keep different values,
    :math:`\rho_l \leftarrow \rho_l\,(1 - \eta\lambda - \eta\prod_{k\ne l}\rho_k^2)`.

    Parameters
    ----------
    eps, eta, lam, L, steps
        :math:`\rho(0)` of all layers or of each; step size, weight decay, depth, number of steps.

    Returns
    -------
    Tensor of float64, shape (steps + 1,) or (steps + 1, L)

    Raises
    ------
    TypeError, ValueError
        Also if there are scales for others than L layers.
    FloatingPointError
        If ``eta`` is so large that the recursion overflows; names the step.

    Examples
    --------
    >>> rho_recursion(1.0, eta=0.5, lam=0.0, L=2, steps=2).tolist()
    [1.0, 0.5, 0.4375]
    """
    eta, lam = _checks.positive("eta", eta), _checks.nonnegative("lam", lam)
    L, steps = _checks.count("L", L, at_least=1), _checks.count("steps", steps)
    rhos = _checks.each("eps", eps, L, "scales")
    if one := np.ndim(eps) == 0:
        rhos = rhos[:1]
    values = [rhos]
    for t in range(1, steps + 1):
        try:
            # Not the product over all divided by one: a value may reach zero.
            others = [
                rhos[0] ** (2 * (L - 1)) if one else math.prod(rhos[:l] + rhos[l + 1 :]) ** 2
                for l in range(len(rhos))
            ]
        except OverflowError:  # a power raises; a product becomes infinite in silence
            others = [math.inf] * len(rhos)
        rhos = [rho * (1 - eta * lam - eta * o) for rho, o in zip(rhos, others, strict=True)]
        if not all(map(math.isfinite, rhos)):
            raise FloatingPointError(
                f"rho: wanted a finite number, overflowed at step t = {t} with eta = {eta:g}"
            )
        values.append(rhos)
    found = torch.tensor(values, dtype=torch.float64)
    return found[:, 0] if one else found
