r"""Wide deep linear networks trained as narrow ones.

Two schemes share the word. Scheme (A), `compress`, reads the narrow network off the wide one's
own start: it computes what the wide network computes, step for step. Scheme (B),
`spectral_init`, forgets the wide start and takes the singular vectors of a surrogate of the
target: it follows no wide network, and is often quicker than any.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks, dln, factored

__all__ = [
    "Compressed",
    "SpectralStart",
    "compress",
    "expand",
    "factors",
    "sampled_spectral_init",
    "spectral_init",
    "truncate",
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
    rest: Tensor
    """What rho^L multiplies: an isometry between the complements, (d_y, d); in case 2 zero."""


def _svd(M: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    U, s, Vh = torch.linalg.svd(M, full_matrices=False)
    return U[:, :k], s[:k], Vh[:k].T


def _rank_at_most(M: Tensor, name: str, k: int) -> int:
    k = _checks.count(name, k, at_least=1)
    if k > min(M.shape):
        raise ValueError(f"{name}: wanted at most {min(M.shape)}, got {k}")
    return k


def truncate(M: Tensor, rhat: int) -> Tensor:
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
    >>> truncate(torch.diag(torch.tensor([3.0, 1.0])), 1)
    tensor([[3., 0.],
            [0., 0.]])
    """
    U, s, V = _svd(_checks.matrix("M", M), _rank_at_most(M, "rhat", rhat))
    return (U * s) @ V.T


def compress(Ws0: Sequence[Tensor], Phi: Tensor, rhat: int, eps: float) -> Compressed:
    r"""Find the narrow network that trains exactly as the wide one: scheme (A).

    With :math:`A = W_{L:1}(0)/\varepsilon^L` and the target's leading singular vectors, the
    columns of ``V`` span :math:`[V_{\hat r},\, A^\top U_{\hat r}]`, and ``U`` is their image
    under A. The core starts at :math:`\varepsilon I` and has the target
    :math:`U^\top\Phi V`; trained by gradient descent, with momentum or weight decay or
    without, it satisfies at every step, for the rho of `parsimony.rho_recursion`,

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
    >>> g = torch.Generator().manual_seed(0)
    >>> Ws = dln.orthogonal_init((9, 9, 9), 0.1, generator=g)
    >>> Phi = torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> small = compress(Ws, Phi, rhat=1, eps=0.1)
    >>> [tuple(W.shape) for W in small.Ws]
    [(2, 2), (2, 2)]
    >>> torch.allclose(expand(small, small.Ws, rho=0.1), dln.end_to_end(Ws))
    True
    """
    Ws0, eps = _checks.layers("Ws0", Ws0), _checks.positive("eps", eps)
    d, d_y, L = Ws0[0].shape[1], Ws0[-1].shape[0], len(Ws0)
    for l, W in enumerate(Ws0):
        _checks.shaped(f"Ws0[{l}]", W, (d_y if l == L - 1 else d, d))
        _checks.orthogonal_up_to(f"Ws0[{l}]", W, eps)
    _checks.shaped("Phi", Phi, (d_y, d))
    _checks.same_kind("Phi", Phi, "Ws0[0]", Ws0[0])
    rhat = _checks.count("rhat", rhat, at_least=1)
    if d_y != d and d_y > rhat:
        raise ValueError(
            f"d_y: wanted d_y = d = {d} or d_y <= rhat = {rhat}, got d_y = {d_y}; between them "
            "part of the rest shrinks and part is frozen, see parsimony.invariant_subspaces"
        )
    width = 2 * min(rhat, d_y)
    if width >= d:
        raise ValueError(f"rhat: wanted a core below d = {d}, got {width} for rhat = {rhat}")
    U_r, s, V_r = _svd(Phi, min(rhat + 1, d_y))
    # What an SVD of this size leaves on a singular value that should be zero.
    if len(s) > rhat and s[rhat] > d * torch.finfo(s.dtype).eps * s[0]:
        raise ValueError(
            f"Phi: wanted a rank of at most rhat = {rhat}, got singular values "
            f"{s[rhat - 1].item():.3g} and {s[rhat].item():.3g} at that place; truncate(Phi, "
            "rhat) makes one"
        )
    A = dln.end_to_end([W / eps for W in Ws0])
    square = d_y == d
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


def expand(compressed: Compressed, Ws: Sequence[Tensor], rho: float | Tensor) -> Tensor:
    r"""Return the end-to-end matrix of the wide network from the narrow one.

    Parameters
    ----------
    compressed : Compressed
        From `compress`.
    Ws : sequence of Tensor
        The core at some time.
    rho : float or Tensor of no dimension
        The number of the rest at that time, from `parsimony.rho_recursion`, or from the same
        method run on L layers of size 1 x 1 that start at eps, with target 0: this is what
        the rest is. With 0 the second term is left out.

    Returns
    -------
    Tensor, shape (d_y, d)

    Raises
    ------
    TypeError, ValueError
        If the layers are not those of the core.

    Examples
    --------
    >>> Ws = dln.orthogonal_init((9, 9, 9), 0.1)
    >>> Phi = torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> small = compress(Ws, Phi, rhat=1, eps=0.1)
    >>> expand(small, small.Ws, rho=0.1).shape
    torch.Size([9, 9])
    """
    Ws = _checks.layers("Ws", Ws)
    if len(Ws) != len(compressed.Ws):
        raise ValueError(f"Ws: wanted L = {len(compressed.Ws)} layers, got {len(Ws)}")
    for l, (W, start) in enumerate(zip(Ws, compressed.Ws, strict=True)):
        _checks.shaped(f"Ws[{l}]", W, tuple(start.shape))
    core = dln.end_to_end(Ws)
    return compressed.U @ core @ compressed.V.T + rho ** len(Ws) * compressed.rest


def factors(compressed: Compressed) -> list[Tensor]:
    r"""Return the narrow network with its outer factors as layers, :math:`U, W_L, ..., V^\top`.

    Where the target is known in part only, the core alone cannot reach it, and the outer factors
    must learn too, at a rate of their own: ``gradient_descent(factors(small), ..., eta=[gamma *
    eta, eta, ..., eta, gamma * eta])``.

    Parameters
    ----------
    compressed : Compressed
        From `compress`.

    Returns
    -------
    list of Tensor
        L + 2 layers, the first ``(k, d)``, the last ``(d_y, k)``: 2 d k + L k^2 numbers in
        case 1.

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154, the discrepant learning rate.

    Examples
    --------
    >>> Phi = torch.zeros(9, 9, dtype=torch.float64)
    >>> Phi[0, 0] = 1.0
    >>> small = compress(dln.orthogonal_init((9, 9, 9), 0.1), Phi, rhat=1, eps=0.1)
    >>> [tuple(W.shape) for W in factors(small)]
    [(2, 9), (2, 2), (2, 2), (9, 2)]
    """
    return [compressed.V.T.contiguous(), *compressed.Ws, compressed.U]


def spectral_init(M: Tensor, k: int, L: int, eps: float) -> list[Tensor]:
    r"""Start a narrow network in the leading singular vectors of a surrogate: scheme (B).

    The layers are :math:`\varepsilon V_k^\top, \varepsilon I, \dots, \varepsilon I,
    \varepsilon U_k`. The surrogate M is the target itself in factorisation,
    :math:`\frac1p\,\Omega\odot\Phi` in completion, :math:`\frac1m\sum_i y_i A_i` in sensing with
    m Gaussian matrices of unit entries.

    Parameters
    ----------
    M : Tensor, shape (d_y, d_x)
        Surrogate of the target.
    k : int
        Width; the papers take twice the rank.
    L : int
        Depth, at least 2.
    eps : float
        Initialisation scale of every layer, the outer ones included.

    Returns
    -------
    list of Tensor
        ``[W_1, ..., W_L]``, of ``2 d k + (L - 2) k^2`` numbers.

    Raises
    ------
    TypeError, ValueError
        If ``M`` is no finite floating-point matrix, ``k`` is below 1 or above its size,
        ``L < 2`` or ``eps <= 0``.

    References
    ----------
    Kwon et al. (2024), arXiv:2311.05061.

    Examples
    --------
    >>> W_1, W_2 = spectral_init(torch.diag(torch.tensor([1.0, 3.0])), k=1, L=2, eps=0.1)
    >>> (W_2 @ W_1).abs()  # eps^2 u v^T
    tensor([[0.0000, 0.0000],
            [0.0000, 0.0100]])
    """
    L, eps = _checks.count("L", L, at_least=2), _checks.positive("eps", eps)
    U, _, V = _svd(_checks.matrix("M", M), _rank_at_most(M, "k", k))
    return _spectral_layers(U, V, L, eps)


def _spectral_layers(U: Tensor, V: Tensor, L: int, eps: float) -> list[Tensor]:
    k = V.shape[1]
    inner = [eps * torch.eye(k, dtype=U.dtype, device=U.device) for _ in range(L - 2)]
    return [eps * V.T.contiguous(), *inner, eps * U]


class SpectralStart(NamedTuple):
    """A start in leading singular vectors, and the values that belong to them."""

    Ws: list[Tensor]
    """Layers."""
    s: Tensor
    """Shape (k,): singular values of the observed matrix (unobserved entries are zero)."""


def sampled_spectral_init(
    residual: factored.FactoredResidual,
    P: Tensor,
    Q: Tensor,
    L: int,
    eps: float,
    *,
    iterations: int = 20,
) -> SpectralStart:
    r"""Start as `spectral_init` does, from a sample, through its residual alone.

    With one factor zero the residual is the observed matrix itself, :math:`R = -\Omega\odot\Phi`,
    and its two contractions are the products with a tall and a wide matrix of which subspace
    iteration consists. Nothing is ever held that the steps of training do not hold too, on
    whatever device, or spread over whatever machines, the residual computes.

    Parameters
    ----------
    residual : callable
        A `factored.FactoredResidual`.
    P : Tensor, shape (d_y, k)
        Gives the shape of the left factor; its values are not used.
    Q : Tensor, shape (k, d_x)
        Where the iteration starts: a random matrix.
    L : int
        Depth, at least 2.
    eps : float
        Initialisation scale.
    iterations : int
        Rounds of subspace iteration; the leading vectors are found to the power 2 iterations of
        the ratio of neighbouring singular values, which is ample for a start.

    Returns
    -------
    SpectralStart

    Raises
    ------
    TypeError, ValueError
        If ``L < 2``, ``eps <= 0`` or ``iterations < 1``.

    References
    ----------
    Halko, Martinsson and Tropp (2011), arXiv:0909.4061, for the iteration.

    Examples
    --------
    >>> from lop_utils.sampling import observe
    >>> seen = observe([0, 1], [0, 1], [1.0, 3.0], (2, 2))
    >>> residual = factored.dense_residual(seen)
    >>> start = sampled_spectral_init(residual, torch.ones(2, 1), torch.ones(1, 2), 2, 0.1)
    >>> start.s, (start.Ws[1] @ start.Ws[0]).round(decimals=4)
    (tensor([3.]), tensor([[0.0000, 0.0000],
            [0.0000, 0.0100]]))
    """
    L, eps = _checks.count("L", L, at_least=2), _checks.positive("eps", eps)
    nothing, none = torch.zeros_like(P), torch.zeros_like(Q)
    for _ in range(_checks.count("iterations", iterations, at_least=1)):
        V = torch.linalg.qr(Q.T).Q
        MV = -residual(nothing, V.T.contiguous())[1]
        Q = -residual(MV, none)[2]
    # M V = U s T^T has the Gram matrix V^T M^T M V, of which each machine holds all.
    squares, T = torch.linalg.eigh(Q @ V)
    s, T = squares.clamp(min=0).sqrt().flip(0), T.flip(1)
    # A direction that the sample does not see at all starts at zero on one side.
    unseen = s <= 10 * torch.finfo(s.dtype).eps ** 0.5 * s[0]  # eigh saw the squares
    inverse = torch.where(unseen, 0.0, 1 / s)
    return SpectralStart(_spectral_layers(MV @ T * inverse, V @ T, L, eps), s)
