r"""Wide deep linear networks trained as narrow ones.

Two schemes share the word. Scheme (A), `compress`, reads the narrow network off the wide one's
own start: it computes what the wide network computes, step for step. Scheme (B),
`init.spectral`, forgets the wide start and takes the singular vectors of a surrogate of the
target: it follows no wide network, and is often quicker than any.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.law import _orthogonal_start
from lop_utils.networks import end_to_end

__all__ = [
    "Compressed",
    "compress",
    "low_rank_approximation",
    "reconstruct",
    "stable_eta",
    "stable_gamma",
    "with_outer_layers",
]


class Compressed(NamedTuple):
    """A wide network at its start, seen as a narrow one."""

    Ws: list[Tensor]
    """Core: L layers of width k; (k, k) each, in case 2 the last (d_y, k)."""
    Phi: Tensor
    """Target of the core, (k, k), in case 2 (d_y, k)."""
    U: Tensor
    """Left outer factor, orthonormal columns, (d_y, k); in case 2 the identity of size d_y."""
    V: Tensor
    """Right outer factor, orthonormal columns, (d, k)."""
    complement: Tensor
    """What rho^L multiplies: an isometry between the complements, (d_y, d); in case 2 zero."""


def _svd(M: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    U, s, Vh = torch.linalg.svd(M, full_matrices=False)
    return U[:, :k], s[:k], Vh[:k].T


def low_rank_approximation(M: Tensor, rhat: int) -> Tensor:
    r"""Return the nearest matrix of rank ``rhat``.

    Scheme (A) asks for a target of that rank. In completion the only target at hand,
    :math:`\frac1p\,\Omega\odot\Phi`, has full rank, and this makes one of it.

    Parameters
    ----------
    M : Tensor, shape (d_y, d)
        Matrix.
    rhat : int
        Rank to keep.

    Returns
    -------
    Tensor, shape (d_y, d)

    Raises
    ------
    TypeError, ValueError
        If ``M`` is no finite floating-point matrix, or ``rhat`` is below 1 or above its size.

    References
    ----------
    Eckart and Young (1936), doi:10.1007/BF02288367.

    Examples
    --------
    >>> low_rank_approximation([[3.0, 0.0], [0.0, 1.0]], 1).tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    """
    M, rhat = _checks.matrix("M", M), _checks.count("rhat", rhat, at_least=1)
    if rhat > min(M.shape):
        raise ValueError(f"rhat: wanted at most {min(M.shape)}, got {rhat}")
    U, s, V = _svd(M, rhat)
    return (U * s) @ V.T


def compress(Ws0: Sequence[Tensor], Phi: Tensor, rhat: int, eps: float) -> Compressed:
    r"""Return the narrow network that trains exactly as the wide one: scheme (A).

    With :math:`A = W_{L:1}(0)/\varepsilon^L` and the target's leading singular vectors, the
    columns of ``V`` span :math:`[V_{\hat r},\, A^\top U_{\hat r}]`, and ``U`` is their image
    under A. The core starts at :math:`\varepsilon I` and has the target
    :math:`U^\top\Phi V`; trained by gradient descent, with momentum or weight decay or
    without, it satisfies at every step, for the rho of `law.rho_recursion`,

    .. math::

        W_{L:1}(t) = U\,&\tilde W_{L:1}(t)\,V^\top \\
            &+ \rho(t)^L\,A\,(I - VV^\top) .

    This is case 1, ``d_y = d``. In case 2, ``d_y <= rhat``, the span is that of
    :math:`[V_\Phi,\, A^\top]`, the last layer of the core is ``(d_y, k)`` and starts at
    :math:`W_L(0)\,V_L`, there is no left factor, and the second term is missing.

    A direction that two of the 2 rhat vectors share is kept once: an aligned start, whose A
    sends the target's right vectors to its left ones, has a core of width rhat.

    Parameters
    ----------
    Ws0 : sequence of Tensor
        Layers at ``t = 0``, orthogonal up to the factor ``eps``: ``(d, d)`` for l < L,
        ``(d_y, d)`` for the last.
    Phi : Tensor, shape (d_y, d)
        Target of rank at most ``rhat``.
    rhat : int
        Rank to provide for; more than the target has costs time, not exactness.
    eps : float
        Initialisation scale.

    Returns
    -------
    Compressed

    Raises
    ------
    TypeError, ValueError
        If shapes disagree, a layer is not ``eps``-orthogonal, ``Phi`` has a rank above
        ``rhat``, ``rhat < d_y < d`` or ``d_y > d``, or the core would be as wide as the network.

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154; the term with rho is not in the paper.

    Examples
    --------
    >>> from lop_utils import init
    >>> Ws, Phi = init.orthogonal((9, 9, 9), 0.1), torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> small = compress(Ws, Phi, rhat=1, eps=0.1)
    >>> [tuple(W.shape) for W in small.Ws]
    [(2, 2), (2, 2)]
    >>> torch.allclose(reconstruct(small, small.Ws, rho=0.1), end_to_end(Ws))
    True
    """
    Ws0, eps = _checks.layers("Ws0", Ws0), _checks.positive("eps", eps)
    Phi = _orthogonal_start(Ws0, Phi, [eps] * len(Ws0))
    d_y, d = Phi.shape
    rhat = _checks.count("rhat", rhat, at_least=1)
    if d_y != d and d_y > rhat:
        raise ValueError(
            f"d_y: wanted d_y = d = {d} or d_y <= rhat = {rhat}, got d_y = {d_y}; between them "
            "part of the complement shrinks and part is frozen, see law.invariant_subspaces"
        )
    width = 2 * min(rhat, d_y)
    if width >= d:
        raise ValueError(f"rhat: wanted a core below d = {d}, got {width} for rhat = {rhat}")
    U_r, s, V_r = _svd(Phi, min(rhat + 1, d_y))
    # What an SVD of this size leaves on a singular value that should be zero.
    if len(s) > rhat and s[rhat] > d * torch.finfo(s.dtype).eps * s[0]:
        raise ValueError(
            f"Phi: wanted a rank of at most rhat = {rhat}, got singular values "
            f"{s[rhat - 1].item():.3g} and {s[rhat].item():.3g} at that place; "
            "low_rank_approximation(Phi, rhat) makes one"
        )
    A, square = end_to_end([W / eps for W in Ws0]), d_y == d
    seen = A.T @ U_r[:, :rhat] if square else A.T
    V, strengths, _ = torch.linalg.svd(torch.cat([V_r[:, :rhat], seen], 1), full_matrices=False)
    V = V[:, strengths > 1e3 * torch.finfo(V.dtype).eps]
    k, kind = V.shape[1], dict(dtype=V.dtype, device=V.device)
    core = [eps * torch.eye(k, **kind) for _ in Ws0]
    if square:
        U = A @ V
        return Compressed(core, U.T @ Phi @ V, U, V, A - U @ V.T)
    core[-1] = eps * (A @ V)
    return Compressed(core, Phi @ V, torch.eye(d_y, **kind), V, torch.zeros_like(A))


def reconstruct(compressed: Compressed, Ws: Sequence[Tensor], rho: float | Tensor) -> Tensor:
    r"""Return the end-to-end matrix of the wide network from the narrow one.

    Parameters
    ----------
    compressed : Compressed
        From `compress`.
    Ws : sequence of Tensor
        The core at some time.
    rho : float or Tensor of no dimension
        The number of the complement then, from `law.rho_recursion`, or from the same method
        run on what it is, L layers 1 x 1 that start at eps, with target 0. 0 leaves it out.

    Returns
    -------
    Tensor, shape (d_y, d)

    Raises
    ------
    TypeError, ValueError
        If the layers are not those of the core.

    Examples
    --------
    >>> from lop_utils import init
    >>> Ws, Phi = init.orthogonal((9, 9, 9), 0.1), torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> small = compress(Ws, Phi, rhat=1, eps=0.1)
    >>> reconstruct(small, small.Ws, rho=0.1).shape
    torch.Size([9, 9])
    """
    Ws = _checks.layers("Ws", Ws)
    if len(Ws) != len(compressed.Ws):
        raise ValueError(f"Ws: wanted L = {len(compressed.Ws)} layers, got {len(Ws)}")
    for l, (W, start) in enumerate(zip(Ws, compressed.Ws, strict=True)):
        _checks.fits(f"Ws[{l}]", W, start.shape, "the core", start)
    core = compressed.U @ end_to_end(Ws) @ compressed.V.T
    power = core.new_tensor(_checks.finite_number("rho", rho)) ** len(Ws)
    return _checks.held("rho", core + power * compressed.complement, "a power of rho")


def with_outer_layers(compressed: Compressed) -> list[Tensor]:
    r"""Return the narrow network with its outer factors as layers, :math:`U, W_L, ..., V^\top`.

    Where the target is known in part only, the core alone cannot reach it, and the outer factors
    must learn too, at a rate of their own: ``train(with_outer_layers(small), ..., eta=[gamma *
    eta, eta, ..., eta, gamma * eta])``.

    Parameters
    ----------
    compressed : Compressed
        From `compress`.

    Returns
    -------
    list of Tensor
        L + 2 layers, first ``(k, d)``, last ``(d_y, k)``: 2 d k + L k^2 numbers in case 1.

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154, the discrepant learning rate.

    Examples
    --------
    >>> from lop_utils import init
    >>> Ws, Phi = init.orthogonal((9, 9, 9), 0.1), torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> [tuple(W.shape) for W in with_outer_layers(compress(Ws, Phi, rhat=1, eps=0.1))]
    [(2, 9), (2, 2), (2, 2), (9, 2)]
    """
    return [compressed.V.T.contiguous(), *compressed.Ws, compressed.U]


def stable_eta(s: float, gamma: float, L: int) -> float:
    r"""Return the largest stable step size at a fitted singular value.

    Layers that start small stay balanced, :math:`w_1^2 = w_L^2 = \gamma w_l^2` at the rates
    :math:`\gamma\eta, \eta, \dots, \gamma\eta`, so that a fitted value has
    :math:`\gamma\,w_l^L = s`. There the sum of the squared slopes, each times its rate, is
    :math:`L\,\gamma^{2/L} s^{2-2/L}`, and gradient descent is stable below 2 over it.

    Parameters
    ----------
    s : float
        Largest singular value of the target, for a loss that sums over all entries; where a
        share p of them is observed, the result is to be divided by p.
    gamma : float
        Rate of the outer layers over that of the inner.
    L : int
        Depth.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If ``s`` or ``gamma`` is not positive, or ``L < 2``.

    Examples
    --------
    >>> stable_eta(1.0, gamma=1.0, L=2)
    1.0
    """
    s, gamma = _checks.positive("s", s), _checks.positive("gamma", gamma)
    L = _checks.count("L", L, at_least=2)
    log = math.log(2 / L) - 2 / L * math.log(gamma) - (2 - 2 / L) * math.log(s)
    return _checks.positive("s, gamma", torch.tensor(log, dtype=torch.float64).exp())


def stable_gamma(s: float, eta: float, L: int) -> float:
    r"""Return the largest stable ratio of the rates: `stable_eta` solved for gamma.

    Parameters
    ----------
    s : float
        As of `stable_eta`.
    eta : float
        Rate of the inner layers, times p where a share p is observed.
    L : int
        Depth.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        As `stable_eta`.

    Examples
    --------
    >>> round(stable_gamma(1.0, eta=stable_eta(1.0, gamma=5.0, L=3), L=3), 12)
    5.0
    """
    s, eta = _checks.positive("s", s), _checks.positive("eta", eta)
    L = _checks.count("L", L, at_least=2)
    log = (math.log(2 / L) - math.log(eta) - (2 - 2 / L) * math.log(s)) * L / 2
    return _checks.positive("s, eta", torch.tensor(log, dtype=torch.float64).exp())
