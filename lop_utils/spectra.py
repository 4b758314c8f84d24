"""Angles of subspaces and vectors in radians, three counts of a spectrum, two polar factors.

A spectrum ``s``, of shape (..., k), holds the singular values of each matrix: finite, not negative
and not all zero. Its common scale does not matter, and half precision becomes float32.

Sources: Björck and Golub (1973), doi:10.1090/S0025-5718-1973-0348991-3, for the principal angles;
Roy and Vetterli (2007), EUSIPCO, and Huh et al. (2023), arXiv:2103.10427, for the effective rank;
public code of
Wang et al. (2025), arXiv:2311.02960, for the share of the nuclear norm, 0.95 there; Jordan et al.
(2024), https://kellerjordan.github.io/posts/muon, for the iteration in `newton_schulz`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = [
    "SingularAngles",
    "effective_rank",
    "newton_schulz",
    "nuclear_norm_rank",
    "numerical_rank",
    "polar",
    "principal_angles",
    "singular_angles",
    "vector_angles",
]


def _orthonormal(name: str, P: Tensor) -> Tensor:
    P = _checks.matrix(name, P)
    if P.shape[0] < P.shape[1]:
        raise ValueError(f"{name}: wanted at most {P.shape[0]} columns, got {P.shape[1]}")
    _checks.orthogonal_up_to(name, P, 1.0)
    return P


def principal_angles(P: Tensor, Q: Tensor) -> Tensor:
    r"""Return the principal angles between two column spaces, small ones to full precision.

    The cosines of the angles are the singular values of :math:`P^\top Q`, the sines those of
    :math:`(I - PP^\top) Q`. Near zero an arc cosine cannot see below the square root of the
    machine precision (4.5e-8 in float64) and near a right angle an arc sine cannot, so each
    angle is taken from the one that is accurate there.

    Parameters
    ----------
    P, Q : Tensor, shapes (d, p) and (d, q)
        Orthonormal columns, ``q <= p``.

    Returns
    -------
    Tensor, shape (q,)
        From small to large, between 0 and pi / 2.

    Examples
    --------
    >>> E = torch.eye(3, dtype=torch.float64)
    >>> tilted = torch.stack([E[0] + 1e-12 * E[2], E[1]], dim=1)
    >>> principal_angles(E[:, :2], tilted).tolist()
    [0.0, 1e-12]
    """
    P, Q = _orthonormal("P", P), _orthonormal("Q", Q)
    _checks.same_kind("Q", Q, "P", P)
    if Q.shape[0] != P.shape[0] or Q.shape[1] > P.shape[1]:
        raise ValueError(
            f"Q: wanted {P.shape[0]} rows and at most {P.shape[1]} columns, got {tuple(Q.shape)}"
        )
    inner = P.T @ Q
    cosines = torch.linalg.svdvals(inner).clamp(max=1)  # descending: small angles first
    sines = torch.linalg.svdvals(Q - P @ inner).clamp(max=1).flip(0)
    return torch.where(cosines**2 >= 0.5, torch.asin(sines), torch.acos(cosines))


def vector_angles(U: Tensor, V: Tensor) -> Tensor:
    """Return the angle between each column of ``U`` and the same column of ``V``, up to sign.

    Parameters
    ----------
    U, V : Tensor, shape (d, k)
        Columns of any length but zero.

    Returns
    -------
    Tensor, shape (k,)
        Between 0 and pi / 2: a singular vector has no sign of its own.

    Examples
    --------
    >>> E = torch.eye(2, dtype=torch.float64)
    >>> vector_angles(E, -E).tolist()
    [0.0, 0.0]
    """
    U = _checks.matrix("U", U)
    V = _checks.shaped("V", V, tuple(U.shape))
    _checks.same_kind("V", V, "U", U)
    units = []
    for name, A in (("U", U), ("V", V)):
        A = A / A.abs().amax(0)  # else the squares of very long or short columns are lost
        if not A.is_meta and A.isnan().any():
            raise ValueError(f"{name}: wanted columns of any length but zero, got a zero column")
        units.append(A / torch.linalg.norm(A, dim=0))
    U, V = units
    inner = (U * V).sum(0)
    return torch.atan2(torch.linalg.norm(V - inner * U, dim=0), inner.abs())


class SingularAngles(NamedTuple):
    """How far singular vectors have turned; shape (2r + 1,) each, in radians.

    The angles of the r leading vectors, the largest principal angle of the subspace in the
    middle, the angles of the r last vectors.
    """

    right: Tensor
    left: Tensor


def singular_angles(W: Tensor, W_ref: Tensor, r: int) -> SingularAngles:
    r"""Return how far the singular vectors of ``W`` have turned away from those of ``W_ref``.

    The vectors in the middle share one singular value, so none of them is defined by itself;
    the subspace that they span is, and has one angle here.

    Parameters
    ----------
    W, W_ref : Tensor, shape (d, d)
        A layer, and the same layer at a time when its r leading and r last singular values have
        already left the others: after one step, say. At ``t = 0`` of an orthogonal start all are
        equal and its singular vectors are arbitrary.
    r : int
        How many vectors to follow at each end; ``2r < d``.

    Returns
    -------
    SingularAngles

    Examples
    --------
    >>> W = torch.diag(torch.tensor([3.0, 1.0, 1.0, 0.5]))
    >>> singular_angles(W, W, r=1).right.tolist()
    [0.0, 0.0, 0.0]
    """
    d = len(W := _checks.matrix("W", W))
    W, W_ref = _checks.shaped("W", W, (d, d)), _checks.shaped("W_ref", W_ref, (d, d))
    _checks.same_kind("W_ref", W_ref, "W", W)
    if 2 * _checks.count("r", r, at_least=1) >= d:
        raise ValueError(f"r: wanted 2r < d = {d}, got r = {r}")
    U, _, Vh = torch.linalg.svd(W)
    U_ref, _, Vh_ref = torch.linalg.svd(W_ref)

    def turned(A: Tensor, A_ref: Tensor) -> Tensor:
        single = vector_angles(A, A_ref)
        middle = principal_angles(A_ref[:, r : d - r], A[:, r : d - r])[-1:]
        return torch.cat([single[:r], middle, single[d - r :]])

    return SingularAngles(right=turned(Vh.T, Vh_ref.T), left=turned(U, U_ref))


def _spectrum(s: Tensor) -> tuple[Tensor, Tensor]:
    """Return the singular values, and the largest."""
    s = _checks.numbers("s", s)
    peak = s.amax(-1, keepdim=True)
    if not s.is_meta:
        if (s < 0).any():
            raise ValueError(f"s: wanted singular values >= 0, got {s.min().item()}")
        if not peak.all():
            raise ValueError("s: wanted a non-zero spectrum, got zeros only")
    return s, peak


def effective_rank(s: Tensor) -> Tensor:
    r"""Return :math:`\exp(-\sum_i p_i \log p_i)` with :math:`p_i = \sigma_i / \sum_j \sigma_j`.

    Parameters
    ----------
    s : Tensor, shape (..., k)

    Returns
    -------
    Tensor, shape (...)
        Between 1 (one non-zero value) and k (all equal).

    Examples
    --------
    >>> round(effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])).item(), 4)
    3.0
    """
    s, peak = _spectrum(s)
    s = s / peak
    p = s / s.sum(-1, keepdim=True)
    return torch.exp(torch.special.entr(p).sum(-1))


def numerical_rank(s: Tensor, rtol: float) -> Tensor:
    """Return how many singular values are above ``rtol`` times the largest.

    Parameters
    ----------
    s : Tensor, shape (..., k)
    rtol : float
        At least 0 and below 1. There is no default: a rank is counted against a precision, and
        the reader should see which.

    Returns
    -------
    Tensor of int64, shape (...)

    Examples
    --------
    >>> numerical_rank(torch.tensor([3.0, 1.0, 1e-9]), rtol=1e-6).item()
    2
    """
    s, peak = _spectrum(s)
    return (s > _checks.fraction("rtol", rtol) * peak).sum(-1)


def nuclear_norm_rank(s: Tensor, share: float) -> Tensor:
    """Return how many singular values it takes to reach a share of their sum, the nuclear norm.

    Parameters
    ----------
    s : Tensor, shape (..., k)
        In descending order.
    share : float
        Above 0 and at most 1. There is no default, for the reason given in `numerical_rank`.

    Returns
    -------
    Tensor of int64, shape (...)
        Of values, not of their squares: small values count for more than in a share of the
        variance.

    Examples
    --------
    >>> nuclear_norm_rank(torch.tensor([6.0, 3.0, 1.0]), share=0.9).item()
    2
    """
    s, peak = _spectrum(s)
    if not 0 < _checks.finite_number("share", share) <= 1:
        raise ValueError(f"share: wanted 0 < share <= 1, got {share!r}")
    if not s.is_meta and (s.diff(dim=-1) > 0).any():
        raise ValueError("s: wanted singular values in descending order, got another order")
    # In float64, and up to the rounding of the sums: 19 of 20 equal values are a share of 0.95.
    sums = (s.double() / peak.double()).cumsum(-1)
    rounding = s.shape[-1] * torch.finfo(torch.float64).eps
    return (sums < share * (1 - rounding) * sums[..., -1:]).sum(-1) + 1


def _unit(G: Tensor) -> Tensor:
    """Return G over its largest entry; zero stays zero."""
    peak = G.abs().amax((-2, -1), keepdim=True)
    return G / torch.where(peak > 0, peak, 1)


def polar(G: Tensor, rtol: float) -> Tensor:
    r"""Return :math:`UV^\top` of :math:`G = U\Sigma V^\top`, small singular values set to zero.

    Parameters
    ----------
    G : Tensor, shape (..., m, n)
    rtol : float
        At least 0 and below 1: what is at most this share of the largest counts as zero. With 0
        rounding noise becomes one, too.

    Returns
    -------
    Tensor, shape (..., m, n)
        The nearest orthogonal matrix on what is kept; zero where G is zero.

    Examples
    --------
    >>> polar(torch.diag(torch.tensor([2.0, -3.0, 1e-12])), rtol=1e-6).diagonal()
    tensor([ 1., -1.,  0.])
    """
    G, rtol = _checks.matrix("G", G, runs=True), _checks.fraction("rtol", rtol)
    U, s, Vh = torch.linalg.svd(_unit(G), full_matrices=False)
    return (U * (s > rtol * s[..., :1]).to(U)[..., None, :]) @ Vh


def newton_schulz(G: Tensor, steps: int = 5) -> Tensor:
    r"""Return Muon's approximation of the polar factor, :math:`U f(\Sigma/\|G\|_F) V^\top`.

    ``f`` is ``steps`` times the odd polynomial 3.4445 s - 4.7750 s^3 + 2.0315 s^5, in the
    precision of G. Five times lift a small s by 3.4445^5 = 485 and bring one above 0.02 to
    between 0.68 and 1.14.

    Parameters
    ----------
    G : Tensor, shape (..., m, n)
    steps : int

    Returns
    -------
    Tensor, shape (..., m, n)
        Zero where G is zero.

    Examples
    --------
    >>> newton_schulz(torch.diag(torch.tensor([3.0, 4.0, 5e-2], dtype=torch.float64))).diagonal()
    tensor([0.7228, 1.1191, 0.6989], dtype=torch.float64)
    """
    G, steps = _checks.matrix("G", G, runs=True), _checks.count("steps", steps, at_least=1)
    X = G.mT if G.shape[-2] > G.shape[-1] else G
    X = _unit(X)
    X = X / torch.linalg.matrix_norm(X, keepdim=True).clamp(min=1)
    for _ in range(steps):
        A = X @ X.mT
        X = 3.4445 * X + (2.0315 * A @ A - 4.7750 * A) @ X
    return X.mT if G.shape[-2] > G.shape[-1] else X
