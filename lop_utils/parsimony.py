r"""The law of parsimony: where gradient descent moves, and the one number that rules the rest.

Under the hypotheses of the theorem every layer stays, for all time, of the form

.. math:: W_l(t) = U_l \begin{pmatrix} \tilde W_l(t) & 0 \\ 0 & \rho(t) I \end{pmatrix} V_l^\top

with fixed orthogonal :math:`U_l, V_l`. Case 1 (:math:`d_y = d`) has :math:`\rho` shrink by
`rho_recursion`; case 2 (:math:`d_y = r`) leaves it to weight decay alone, `rho_frozen`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks, dln

__all__ = [
    "Blocks",
    "InvariantSubspaces",
    "blocks",
    "invariant_subspaces",
    "rho_flow",
    "rho_frozen",
    "rho_frozen_flow",
    "rho_recursion",
]


class InvariantSubspaces(NamedTuple):
    """Fixed bases of every layer; columns ordered core, shrinking, frozen."""

    V: list[Tensor]
    """Right basis of each layer, orthogonal, shape (d, d)."""
    U: list[Tensor]
    """Left basis of each layer, shape (d, d); of the last layer only if d_y = d."""
    core: int
    """Columns in which the layer learns: 2r."""
    shrinking: int
    """Columns on which the layer is rho(t) times an isometry, rho from `rho_recursion`."""
    frozen: int
    """The same with rho from `rho_frozen`."""


def _null_last(stack: Tensor) -> Tensor:
    # Full right singular vectors: the row space of the stack first, its kernel last.
    return torch.linalg.svd(stack, full_matrices=True).Vh.T


def invariant_subspaces(
    Ws0: Sequence[Tensor], Phi: Tensor, r: int, eps: float
) -> InvariantSubspaces:
    r"""Find where gradient descent moves, from the initial weights alone.

    With whitened inputs, target :math:`\Phi = YX^\top` and :math:`A = W_{L:1}(0)`, a direction
    that both :math:`\Phi` and :math:`\Phi^\top A` (case 1, ``d_y = d``) or both :math:`\Phi` and
    :math:`A` (case 2, ``d_y = r``) send to zero is never reached by a gradient. One SVD of the
    two matrices stacked separates the span of their rows, 2r directions, from that common
    kernel. Later layers follow from :math:`U_l = W_l(0) V_l / \varepsilon`,
    :math:`V_{l+1} = U_l`.

    Parameters
    ----------
    Ws0 : sequence of Tensor
        Layers at ``t = 0``, orthogonal up to the factor ``eps``: ``(d, d)`` for l < L,
        ``(d_y, d)`` for the last.
    Phi : Tensor, shape (d_y, d)
        Target.
    r : int
        Rank of ``Phi``, or an upper bound of it; in case 2 it equals ``d_y``.
    eps : float
        Initialisation scale.

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
        ``r < d_y < d`` (neither case), or ``2r >= d`` (the core would fill the whole space).

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154, Theorem 1.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> Ws = dln.orthogonal_init((9, 9, 9), 0.1, generator=g)
    >>> Phi = torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> spaces = invariant_subspaces(Ws, Phi, r=1, eps=0.1)
    >>> spaces.core, spaces.shrinking, spaces.frozen
    (2, 7, 0)
    """
    Ws0, eps = _checks.layers("Ws0", Ws0), _checks.positive("eps", eps)
    d, d_y = Ws0[0].shape[1], Ws0[-1].shape[0]
    for l, W in enumerate(Ws0):
        _checks.shaped(f"Ws0[{l}]", W, (d_y if l == len(Ws0) - 1 else d, d))
        _checks.orthogonal_up_to(f"Ws0[{l}]", W, eps)
    _checks.shaped("Phi", Phi, (d_y, d))
    _checks.same_kind("Phi", Phi, "Ws0[0]", Ws0[0])
    r = _checks.count("r", r, at_least=1)
    if 2 * r >= d:
        raise ValueError(f"r: wanted 2r < d = {d}, got r = {r}: the core would fill the space")
    if d_y not in (d, r):
        raise ValueError(
            f"d_y: wanted d_y = d = {d} (case 1) or d_y = r = {r} (case 2), got d_y = {d_y}"
        )
    rank = int(torch.linalg.matrix_rank(Phi))
    if not 1 <= rank <= r:
        raise ValueError(f"Phi: wanted a rank from 1 to r = {r}, got rank {rank}")

    A = dln.end_to_end(Ws0)
    other = Phi.T @ A if d_y == d else A
    stack = torch.cat([Phi / torch.linalg.norm(Phi), other / torch.linalg.norm(other)])
    V, U = [_null_last(stack)], []
    for W in Ws0 if d_y == d else Ws0[:-1]:
        U.append(W @ V[-1] / eps)
        V.append(U[-1])
    sizes = (2 * r, d - 2 * r, 0) if d_y == d else (2 * r, 0, d - 2 * r)
    return InvariantSubspaces(V[: len(Ws0)], U, *sizes)


class Blocks(NamedTuple):
    """A layer in the fixed bases, cut where the core ends."""

    core: Tensor
    """Upper left, shape (2r, 2r): what the layer learns."""
    upper: Tensor
    """Upper right, shape (2r, d - 2r): zero, says the theorem."""
    lower: Tensor
    """Lower left, shape (d - 2r, 2r): zero, says the theorem."""
    rest: Tensor
    """Lower right, shape (d - 2r, d - 2r): rho(t) times the identity, says the theorem."""


def blocks(Ws: Sequence[Tensor], spaces: InvariantSubspaces) -> list[Blocks]:
    r"""Write the layers in the fixed bases: :math:`U_l^\top W_l V_l`, cut into four blocks.

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
    >>> Ws = dln.orthogonal_init((9, 9), 0.1)
    >>> Phi = torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> (b,) = blocks(Ws, invariant_subspaces(Ws, Phi, r=1, eps=0.1))
    >>> torch.allclose(b.rest, 0.1 * torch.eye(7, dtype=torch.float64))
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


def rho_recursion(eps: float, *, eta: float, lam: float, L: int, steps: int) -> Tensor:
    r"""Iterate :math:`\rho \leftarrow \rho\,(1 - \eta\lambda - \eta\rho^{2(L-1)})` (case 1).

    Parameters
    ----------
    eps : float
        Initialisation scale, ``rho(0)``.
    eta : float
        Step size, for a loss that sums over the entries.
    lam : float
        Weight decay.
    L : int
        Depth, the number of layers.
    steps : int
        Number of steps.

    Returns
    -------
    Tensor of float64, shape (steps + 1,)
        ``rho(0), ..., rho(steps)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.
    FloatingPointError
        If ``eta`` is so large that the recursion overflows; names the step.

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154, Theorem 1, case 1.

    Examples
    --------
    >>> rho_recursion(1.0, eta=0.5, lam=0.0, L=2, steps=2).tolist()
    [1.0, 0.5, 0.4375]
    """
    rho, eta = _checks.positive("eps", eps), _checks.positive("eta", eta)
    lam, L = _checks.nonnegative("lam", lam), _checks.count("L", L, at_least=1)
    values = [rho]
    for t in range(1, _checks.count("steps", steps) + 1):
        try:
            rho = rho * (1 - eta * lam - eta * rho ** (2 * (L - 1)))
        except OverflowError:  # the power raises; a product becomes infinite in silence
            rho = math.inf
        if not math.isfinite(rho):
            raise FloatingPointError(
                f"rho: wanted a finite number, overflowed at step t = {t} with eta = {eta:g}"
            )
        values.append(rho)
    return torch.tensor(values, dtype=torch.float64)


def rho_frozen(eps: float, *, eta: float, lam: float, steps: int) -> Tensor:
    r"""Return :math:`\rho(t) = \varepsilon(1 - \eta\lambda)^t` (case 2): constant if ``lam = 0``.

    Parameters
    ----------
    eps : float
        Initialisation scale, ``rho(0)``.
    eta : float
        Step size.
    lam : float
        Weight decay.
    steps : int
        Number of steps.

    Returns
    -------
    Tensor of float64, shape (steps + 1,)

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154, Theorem 1, case 2.

    Examples
    --------
    >>> rho_frozen(1.0, eta=0.5, lam=1.0, steps=2).tolist()
    [1.0, 0.5, 0.25]
    """
    eps, eta = _checks.positive("eps", eps), _checks.positive("eta", eta)
    lam, steps = _checks.nonnegative("lam", lam), _checks.count("steps", steps)
    return eps * (1 - eta * lam) ** torch.arange(steps + 1, dtype=torch.float64)


def _times(tau: Tensor) -> Tensor:
    if not isinstance(tau, Tensor) or not tau.is_floating_point():
        raise TypeError(f"tau: wanted a floating-point tensor, got {tau!r}")
    if not tau.is_meta and not (tau >= 0).all():
        raise ValueError(f"tau: wanted tau >= 0, got {tau.min().item():g}")
    return tau


def rho_flow(eps: float, tau: Tensor, *, lam: float, L: int) -> Tensor:
    r"""Solve :math:`\dot\rho = -\lambda\rho - \rho^{2L-1}`, the limit of `rho_recursion`.

    With :math:`k = 2(L-1)` the substitution :math:`\rho^{-k}` makes the equation linear:

    .. math:: \rho(\tau) = \varepsilon e^{-\lambda\tau}
              \left(1 + \varepsilon^k\,\frac{1 - e^{-k\lambda\tau}}{\lambda}\right)^{-1/k}

    where the fraction is :math:`k\tau` at :math:`\lambda = 0`: without decay the residue fades
    only like :math:`\tau^{-1/k}`.

    Parameters
    ----------
    eps : float
        Initialisation scale, ``rho(0)``.
    tau : Tensor, shape (...)
        Times ``eta t``.
    lam : float
        Weight decay.
    L : int
        Depth, the number of layers.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    The limit ``eta -> 0`` of Yaras et al. (2023), arXiv:2306.01154, Theorem 1, case 1.

    Examples
    --------
    >>> rho_flow(1.0, torch.tensor([0.0, 7.5]), lam=0.0, L=2).tolist()
    [1.0, 0.25]
    """
    eps, lam = _checks.positive("eps", eps), _checks.nonnegative("lam", lam)
    tau, k = _times(tau), 2 * (_checks.count("L", L, at_least=1) - 1)
    if k == 0:
        return eps * torch.exp(-(lam + 1) * tau)
    growth = k * tau if lam == 0 else -torch.expm1(-k * lam * tau) / lam
    return eps * torch.exp(-lam * tau) * (1 + eps**k * growth) ** (-1 / k)


def rho_frozen_flow(eps: float, tau: Tensor, *, lam: float) -> Tensor:
    r"""Return :math:`\varepsilon e^{-\lambda\tau}`, the limit of `rho_frozen`.

    Parameters
    ----------
    eps : float
        Initialisation scale, ``rho(0)``.
    tau : Tensor, shape (...)
        Times ``eta t``.
    lam : float
        Weight decay.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    The limit ``eta -> 0`` of Yaras et al. (2023), arXiv:2306.01154, Theorem 1, case 2.

    Examples
    --------
    >>> rho_frozen_flow(0.5, torch.tensor([0.0, 3.0]), lam=0.0).tolist()
    [0.5, 0.5]
    """
    eps, lam = _checks.positive("eps", eps), _checks.nonnegative("lam", lam)
    return eps * torch.exp(-lam * _times(tau))
