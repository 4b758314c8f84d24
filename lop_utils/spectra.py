"""Angles between subspaces and vectors, and three ways to count a spectrum's size."""

from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = [
    "SingularAngles",
    "effective_rank",
    "numerical_rank",
    "principal_angles",
    "share_rank",
    "singular_angles",
    "stable_rank",
    "vector_angles",
]


def _orthonormal(name: str, P: Tensor) -> Tensor:
    _checks.matrix(name, P)
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
    P : Tensor, shape (d, p)
        Orthonormal columns.
    Q : Tensor, shape (d, q)
        Orthonormal columns, ``q <= p``.

    Returns
    -------
    Tensor, shape (q,)
        Angles in radians, from small to large, between 0 and pi / 2.

    Raises
    ------
    TypeError, ValueError
        If the columns are not orthonormal, the row counts differ, or ``q > p``.

    References
    ----------
    Björck and Golub (1973), doi:10.1090/S0025-5718-1973-0348991-3.

    Examples
    --------
    >>> E = torch.eye(3, dtype=torch.float64)
    >>> tilted = torch.stack([E[0] + 1e-12 * E[2], E[1]], dim=1)
    >>> principal_angles(E[:, :2], tilted).tolist()
    [0.0, 1e-12]
    """
    _orthonormal("P", P)
    _orthonormal("Q", Q)
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
        Angles in radians between 0 and pi / 2: a singular vector has no sign of its own.

    Raises
    ------
    TypeError, ValueError
        If the shapes, dtypes or devices differ, or a column is zero.

    Examples
    --------
    >>> E = torch.eye(2, dtype=torch.float64)
    >>> vector_angles(E, -E).tolist()
    [0.0, 0.0]
    """
    _checks.matrix("U", U)
    _checks.shaped("V", V, tuple(U.shape))
    _checks.same_kind("V", V, "U", U)
    for name, A in (("U", U), ("V", V)):
        if not A.is_meta and not A.any(dim=0).all():
            raise ValueError(f"{name}: wanted columns of any length but zero, got a zero column")
    U, V = (A / torch.linalg.norm(A, dim=0) for A in (U, V))
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
    r"""Measure how far the singular vectors of ``W`` have turned away from those of ``W_ref``.

    The vectors in the middle share one singular value, so none of them is defined by itself;
    the subspace that they span is, and has one angle here.

    Parameters
    ----------
    W : Tensor, shape (d, d)
        A layer.
    W_ref : Tensor, shape (d, d)
        The same layer at a time when its r leading and r last singular values have already left
        the others: after one step, say. At ``t = 0`` of an orthogonal start all are equal and
        its singular vectors are arbitrary.
    r : int
        How many vectors to follow at each end; ``2r < d``.

    Returns
    -------
    SingularAngles

    Raises
    ------
    TypeError, ValueError
        If a matrix is not square, the shapes differ, or ``2r >= d``.

    Examples
    --------
    >>> W = torch.diag(torch.tensor([3.0, 1.0, 1.0, 0.5]))
    >>> singular_angles(W, W, r=1).right.tolist()
    [0.0, 0.0, 0.0]
    """
    d = _checks.matrix("W", W).shape[0]
    _checks.shaped("W", W, (d, d))
    _checks.shaped("W_ref", W_ref, (d, d))
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


def _spectrum(s: Tensor) -> Tensor:
    if not isinstance(s, Tensor) or not s.is_floating_point():
        raise TypeError(f"s: wanted a floating-point tensor, got {getattr(s, 'dtype', type(s))}")
    if s.ndim < 1 or s.shape[-1] == 0:
        raise ValueError(f"s: wanted singular values along the last axis, got {tuple(s.shape)}")
    if not s.is_meta:
        if not torch.isfinite(s).all() or (s < 0).any():
            raise ValueError("s: wanted finite singular values >= 0, got others")
        if (s.amax(-1) == 0).any():
            raise ValueError("s: wanted a non-zero spectrum, got zeros only")
    return s


def effective_rank(s: Tensor) -> Tensor:
    r"""Return :math:`\exp(-\sum_i p_i \log p_i)` with :math:`p_i = \sigma_i / \sum_j \sigma_j`.

    Parameters
    ----------
    s : Tensor, shape (..., k)
        Singular values.

    Returns
    -------
    Tensor, shape (...)
        Between 1 (one non-zero value) and k (all equal).

    Raises
    ------
    TypeError, ValueError
        If a value is negative or not finite, or a spectrum is zero.

    References
    ----------
    Roy and Vetterli (2007), EUSIPCO; Huh et al. (2023), arXiv:2103.10427.

    Examples
    --------
    >>> round(effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])).item(), 4)
    3.0
    """
    s = _spectrum(s)
    p = s / s.sum(-1, keepdim=True)
    return torch.exp(torch.special.entr(p).sum(-1))


def stable_rank(s: Tensor) -> Tensor:
    r"""Return :math:`\|A\|_F^2 / \|A\|_2^2`, from the singular values of ``A``.

    Parameters
    ----------
    s : Tensor, shape (..., k)
        Singular values.

    Returns
    -------
    Tensor, shape (...)
        Between 1 and the rank; moves little when small singular values do.

    Raises
    ------
    TypeError, ValueError
        If a value is negative or not finite, or a spectrum is zero.

    References
    ----------
    Rudelson and Vershynin (2007), doi:10.1145/1255443.1255449.

    Examples
    --------
    >>> stable_rank(torch.tensor([2.0, 1.0, 1.0])).item()
    1.5
    """
    s = _spectrum(s)
    return ((s / s.amax(-1, keepdim=True)) ** 2).sum(-1)


def numerical_rank(s: Tensor, rtol: float) -> Tensor:
    """Count the singular values above ``rtol`` times the largest.

    Parameters
    ----------
    s : Tensor, shape (..., k)
        Singular values.
    rtol : float
        Relative threshold, between 0 and 1. There is no default: a rank is counted against a
        precision, and the reader should see which.

    Returns
    -------
    Tensor of int64, shape (...)

    Raises
    ------
    TypeError, ValueError
        If ``rtol`` is out of range, a value is negative or not finite, or a spectrum is zero.

    Examples
    --------
    >>> numerical_rank(torch.tensor([3.0, 1.0, 1e-9]), rtol=1e-6).item()
    2
    """
    s = _spectrum(s)
    if not 0 <= _checks.finite_number("rtol", rtol) < 1:
        raise ValueError(f"rtol: wanted 0 <= rtol < 1, got {rtol!r}")
    return (s > rtol * s.amax(-1, keepdim=True)).sum(-1)


def share_rank(s: Tensor, share: float) -> Tensor:
    """Count how many singular values it takes to reach a share of the sum of all.

    Parameters
    ----------
    s : Tensor, shape (..., k)
        Singular values, in descending order.
    share : float
        Above 0 and at most 1. There is no default, for the reason given in `numerical_rank`.

    Returns
    -------
    Tensor of int64, shape (...)
        Of values, not of their squares: small values count for more than in a share of the
        variance.

    Raises
    ------
    TypeError, ValueError
        If ``share`` is out of range, a value is negative, not finite or above the one before it,
        or a spectrum is zero.

    References
    ----------
    Public code of Wang et al. (2025), arXiv:2311.02960, with a share of 0.95.

    Examples
    --------
    >>> share_rank(torch.tensor([6.0, 3.0, 1.0]), share=0.9).item()
    2
    """
    s = _spectrum(s)
    if not 0 < _checks.finite_number("share", share) <= 1:
        raise ValueError(f"share: wanted 0 < share <= 1, got {share!r}")
    if not s.is_meta and (s.diff(dim=-1) > 0).any():
        raise ValueError("s: wanted singular values in descending order, got another order")
    wanted = share * (1 - 4 * torch.finfo(s.dtype).eps) * s.sum(-1, keepdim=True)
    return (s.cumsum(-1) < wanted).sum(-1) + 1
