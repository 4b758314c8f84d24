r"""What is read off the features of a layer: collapse, a linear probe, principal components.

Features ``Z``, (..., d, N), are columns with classes ``y``, (N,), as in `features`, K >= 2.
Results do not depend on the scale of the features; half precision is accumulated in float32.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.features import _scale, _standard

__all__ = ["Collapse", "Probe", "linear_probe", "neural_collapse", "principal_components"]


def _side_by_side(name: str, A: Tensor, other_name: str, B: Tensor) -> None:
    """Require one kind, and leading axes that fit."""
    _checks.same_kind(name, A, other_name, B)
    try:
        torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"{name}: wanted the leading axes of {other_name}, {tuple(B.shape)}, got shape "
            f"{tuple(A.shape)}"
        ) from None


class Collapse(NamedTuple):
    """How far features are from neural collapse; each is 0 when they have collapsed."""

    nc1: Tensor
    r"""Shape (...): :math:`\operatorname{tr}(\Sigma_W\Sigma_B^+)/K`: variance within classes,
    measured by that between them."""
    nc2: Tensor
    """Shape (...): distance of the centred means' Gram matrix from a simplex's."""
    nc3: Tensor | None
    """Shape (...): distance of classifier times centred means from a simplex's; None without a
    classifier."""


def neural_collapse(Z: Tensor, y: Tensor, W: Tensor | None = None) -> Collapse:
    r"""Return the three measures of neural collapse.

    With the centred means :math:`M` (d x K, from the mean of the means) and the simplex
    :math:`E = (I_K - \frac1K\mathbf 1\mathbf 1^\top)/\sqrt{K-1}` of Frobenius norm 1,

    .. math::

        \mathrm{NC}_1 = \tfrac1K\operatorname{tr}(\Sigma_W\Sigma_B^+), \quad
        \mathrm{NC}_2 = \Bigl\|\tfrac{M^\top M}{\|M^\top M\|_F} - E\Bigr\|_F, \quad
        \mathrm{NC}_3 = \Bigl\|\tfrac{WM}{\|WM\|_F} - E\Bigr\|_F .

    Both scatter matrices of the first one are projected on the span of the means, of K - 1
    dimensions: there alone the pseudo-inverse differs from zero. Classes count equally in all
    three, so it is :math:`\frac1K\sum_k` of each class's scatter. All are NaN where all class
    means coincide.

    Parameters
    ----------
    Z, y : Tensor, shapes (..., d, N) and (N,)
    W : Tensor, shape (..., K, d), optional
        The linear classifier on top of the features.

    Returns
    -------
    Collapse

    References
    ----------
    Papyan, Han and Donoho (2020), arXiv:2008.08186; Zhu et al. (2021), arXiv:2105.02375, with
    forms close to these.

    Examples
    --------
    >>> nc = neural_collapse(torch.eye(3), torch.tensor([0, 1, 2]), torch.eye(3))
    >>> [round(value.item(), 6) for value in nc]
    [0.0, 0.0, 0.0]
    """
    Z = _checks.features("Z", Z)
    members, sizes = _checks.classes(Z, y, at_least=2)
    K, d = len(sizes), Z.shape[-2]
    Z, _ = _standard(Z)
    shares = members / sizes
    means = Z @ shares
    M = means - means.mean(-1, keepdim=True)
    # Sigma_B = M M^T / K: with M = U S V^T its pseudo-inverse is K U S^-2 U^T.
    U, s, _ = torch.linalg.svd(M, full_matrices=False)
    U, s = U[..., : K - 1], s[..., : K - 1]
    # Below it stands what rounding makes of means that coincide.
    rounding = torch.linalg.matrix_norm(Z.abs() @ shares)[..., None]
    floor = 4 * torch.finfo(Z.dtype).eps * torch.maximum(rounding, max(M.shape[-2:]) * s[..., :1])
    inverse = torch.where(s > floor, 1 / s, 0)
    deviations = inverse[..., None] * (U.mT @ (Z - means @ members.T))
    nc1 = (deviations.square() @ shares).sum((-2, -1)) / K
    apart = (s > floor)[..., 0]  # no means apart: no collapse either

    eye = torch.eye(K, dtype=Z.dtype, device=Z.device)
    simplex = (eye - 1 / K) / (K - 1) ** 0.5

    def distance(G: Tensor) -> Tensor:
        norm = torch.linalg.norm(G, dim=(-2, -1), keepdim=True)
        return torch.linalg.norm(G / norm - simplex, dim=(-2, -1))

    def measures(*values: Tensor | None) -> Collapse:
        return Collapse(*(v if v is None else torch.where(apart, v, torch.nan) for v in values))

    M = M / _scale(M)
    if W is None:
        return measures(nc1, distance(M.mT @ M), None)
    if (shape := _checks.tensor("W", W).shape)[-2:] != (K, d):
        raise ValueError(f"W: wanted shape (..., {K}, {d}), got {tuple(shape)}")
    W = _checks.features("W", W)
    _side_by_side("W", W, "Z", Z)
    return measures(nc1, distance(M.mT @ M), distance(W / _scale(W) @ M))


@dataclass(frozen=True, repr=False, eq=False)
class Probe:
    """A linear classifier of features, one for each leading axis."""

    W: Tensor
    """Shape (..., K, d)."""
    b: Tensor
    """Shape (..., K, 1)."""

    def __repr__(self) -> str:
        """Return the shape."""
        return f"Probe(W {' x '.join(map(str, self.W.shape))})"

    def predict(self, Z: Tensor) -> Tensor:
        """Return the class of each column of ``Z``, (..., d, N), as int64 of shape (..., N)."""
        Z = _checks.features("Z", Z)
        if Z.shape[-2] != self.W.shape[-1]:
            raise ValueError(f"Z: wanted d = {self.W.shape[-1]} rows, got shape {tuple(Z.shape)}")
        _side_by_side("Z", Z, "W", self.W)
        outputs = self.W @ Z + self.b
        return _checks.held("Z", outputs, "features with outputs").argmax(-2)

    def accuracy(self, Z: Tensor, y: Tensor) -> Tensor:
        """Return the share of the columns of ``Z`` that are classified as ``y``, shape (...)."""
        predicted = self.predict(Z)
        y = _checks.indices("y", y, self.W.shape[-2]).to(predicted.device)
        if len(y) != predicted.shape[-1]:
            raise ValueError(
                f"y: wanted N = {predicted.shape[-1]} labels as Z has columns, got {len(y)}"
            )
        return (predicted == y).double().mean(-1)


def linear_probe(Z: Tensor, y: Tensor, *, ridge: float) -> Probe:
    r"""Return a linear classifier of features, fitted by ridge regression on one-hot labels.

    It minimises :math:`\frac1N\|WZ + b\mathbf 1^\top - Y\|_F^2 + \text{ridge}\cdot s\,\|W\|_F^2`
    in closed form, where :math:`s` is the mean variance of a feature: what counts as a small
    ``ridge`` does not depend on the scale of the features.

    Parameters
    ----------
    Z, y : Tensor, shapes (..., d, N) and (N,)
    ridge : float
        Strength of the penalty, above d roundings of the dtype; 1e-3 is a small one.

    Returns
    -------
    Probe

    References
    ----------
    Alain and Bengio (2016), arXiv:1610.01644, for probing the layers of a network.

    Examples
    --------
    >>> Z, y = torch.tensor([[0.0, 1.0, 4.0, 5.0]]), torch.tensor([0, 0, 1, 1])
    >>> linear_probe(Z, y, ridge=1e-3).accuracy(Z, y).item()
    1.0
    """
    Z = _checks.features("Z", Z)
    members, _ = _checks.classes(Z, y, at_least=2)
    ridge = _checks.positive("ridge", ridge)
    if ridge <= (least := Z.shape[-2] * torch.finfo(Z.dtype).eps):
        raise ValueError(
            f"ridge: wanted ridge > {least:.1e}, d roundings of {Z.dtype}, got {ridge}"
        )
    first = Z[..., :1]
    Z, scale = _standard(Z)
    centre, target = Z.mean(-1, keepdim=True), members.mean(0, keepdim=True)
    A, B = Z - centre, (members - target).expand(*Z.shape[:-2], *members.shape)
    d, N = A.shape[-2:]
    penalty = ridge * A.square().sum((-2, -1), keepdim=True) / d + torch.finfo(Z.dtype).tiny
    eye = torch.eye(min(d, N), dtype=Z.dtype, device=Z.device)
    # Solve in the smaller of the two spaces: W^T = (A A^T + p I)^-1 A B = A (A^T A + p I)^-1 B.
    if d <= N:
        W = torch.linalg.solve(A @ A.mT + penalty * eye, A @ B).mT
    else:
        W = (A @ torch.linalg.solve(A.mT @ A + penalty * eye, B)).mT
    W, b = W / scale, target.mT - W @ centre
    return Probe(_checks.held("Z", W, "features with weights"), b - W @ first)


def principal_components(Z: Tensor, k: int = 2) -> Tensor:
    r"""Return the coordinates of features on their ``k`` principal axes.

    Parameters
    ----------
    Z : Tensor, shape (..., d, N)
        Features in columns; centred for this purpose.
    k : int
        Number of axes, at most ``min(d, N)``.

    Returns
    -------
    Tensor, shape (..., k, N)
        Rows in the order of their variance, with the scale of ``Z``; the sign of an axis is such
        that its largest coordinate is positive.

    Examples
    --------
    >>> Z = torch.tensor([[0.0, 2.0, 10.0], [1.0, 1.0, 1.0]])
    >>> [round(value, 4) for value in principal_components(Z, 1).squeeze().tolist()]
    [-4.0, -2.0, 6.0]
    """
    Z = _checks.features("Z", Z)
    if _checks.count("k", k, at_least=1) > min(Z.shape[-2:]):
        raise ValueError(f"k: wanted at most min(d, N) = {min(Z.shape[-2:])}, got {k}")
    _, s, Vh = torch.linalg.svd(Z - Z.mean(-1, keepdim=True), full_matrices=False)
    plane = s[..., :k, None] * Vh[..., :k, :]
    peaks = plane.gather(-1, plane.abs().argmax(-1, keepdim=True))
    return plane * torch.where(peaks < 0, -1, 1)
