r"""How tightly a layer packs its classes, and how far apart: scatter, compression, separation.

Features are columns: ``Z`` has shape (..., d, N), and leading axes are layers, seeds or whole
networks that are measured at once. ``y``, of shape (N,), holds the class of each column, 0 to
K - 1; each class has a sample, and metrics need K >= 2. Class k has the mean :math:`\mu_k` of
:math:`n_k` samples. Half precision is accumulated in float32. `class_means` and `scatter` have
the scale of the features; the metrics do not depend on it, however large or small.

The metrics are those of Wang et al. (2025), arXiv:2311.02960, and of the talk of Qu (2023) on
arXiv:2306.01154.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = [
    "Decay",
    "Scatter",
    "centred_separation",
    "class_means",
    "compression_metric",
    "discrimination_metric",
    "geometric_fit",
    "layerwise",
    "scatter",
]


def _scale(A: Tensor, dim: int | tuple[int, ...] = (-2, -1)) -> Tensor:
    """Return a power of two near the largest magnitude: to divide by it rounds nothing."""
    peak = torch.linalg.vector_norm(A.detach(), torch.inf, dim=dim, keepdim=True)
    return torch.where(peak > 0, peak / (2 * torch.frexp(peak).mantissa), 1)


def _standard(Z: Tensor) -> tuple[Tensor, Tensor]:
    """Return features shifted and scaled, and the scale: samples that coincide become zero."""
    outer = _scale(Z)
    Z = Z / outer
    Z = Z - Z[..., :1]
    inner = _scale(Z)
    return Z / inner, outer * inner


def class_means(Z: Tensor, y: Tensor) -> Tensor:
    r"""Return the mean of each class: :math:`\mu_k = \frac{1}{n_k}\sum_{y_i = k} z_i`.

    Parameters
    ----------
    Z, y : Tensor, shapes (..., d, N) and (N,)

    Returns
    -------
    Tensor, shape (..., d, K)

    Examples
    --------
    >>> class_means(torch.tensor([[1.0, 3.0, 5.0]]), torch.tensor([0, 0, 1]))
    tensor([[2., 5.]])
    """
    Z = _checks.features("Z", Z)
    members, sizes = _checks.classes(Z, y)
    return Z @ (members / sizes)


class Scatter(NamedTuple):
    """Traces of the scatter matrices; shape (...) each. Their sum is the total variance."""

    within: Tensor
    between: Tensor


def scatter(Z: Tensor, y: Tensor) -> Scatter:
    r"""Return the traces of the within- and between-class scatter.

    .. math::

        \operatorname{tr}\Sigma_W = \frac1N\sum_i\|z_i - \mu_{y_i}\|^2, \qquad
        \operatorname{tr}\Sigma_B = \frac1N\sum_k n_k\|\mu_k - \mu_G\|^2,

    with :math:`\mu_G` the mean of all samples. Each sample counts once, so that the two add up to
    the variance whatever the sizes of the classes; with balanced classes
    :math:`n_k/N = 1/K`. No d x d matrix is formed: time and memory are those of ``Z``.

    Parameters
    ----------
    Z, y : Tensor, shapes (..., d, N) and (N,)

    Returns
    -------
    Scatter

    Examples
    --------
    >>> within, between = scatter(torch.tensor([[0.0, 2.0, 9.0, 9.0]]), torch.tensor([0, 0, 1, 1]))
    >>> within.item(), between.item()  # means 1 and 9 around 5
    (0.5, 16.0)
    """
    Z = _checks.features("Z", Z)
    _checks.classes(Z, y)
    Z, scale = _standard(Z)
    what = "features whose squares add up to a number"
    # Twice, for the square of the scale is less or more than what it multiplies.
    rescaled = (part * scale[..., 0, 0] * scale[..., 0, 0] for part in _scatter(Z, y))
    return Scatter(*(_checks.held("Z", part, what) for part in rescaled))


def _scatter(Z: Tensor, y: Tensor) -> Scatter:
    members, sizes = _checks.classes(Z, y)
    means, shares = Z @ (members / sizes), sizes / Z.shape[-1]
    within = (Z - means @ members.T).square().sum((-2, -1)) / Z.shape[-1]
    centred = means - (means @ shares)[..., None]
    return Scatter(within, centred.square().sum(-2) @ shares)


def compression_metric(Z: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`C = \operatorname{tr}\Sigma_W / \operatorname{tr}\Sigma_B`.

    Small when each class has shrunk towards its mean compared with how far the means are from
    one another; Wang et al. say C_l, the talk D_l. Rotations, shifts and a common scale do not
    change it. How classes of different size count is said in `scatter`.

    Parameters
    ----------
    Z, y : Tensor, shapes (..., d, N) and (N,)

    Returns
    -------
    Tensor, shape (...)
        Infinite where all class means coincide, NaN where all samples do.

    Examples
    --------
    >>> compression_metric([[0.0, 2.0, 9.0, 9.0]], [0, 0, 1, 1]).item()
    0.03125
    """
    Z = _checks.features("Z", Z)
    _checks.classes(Z, y, at_least=2)
    within, between = _scatter(_standard(Z)[0], y)
    return within / between


def _means(Z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class means and, of the same shape, how far rounding may have moved them."""
    Z = _checks.features("Z", Z)
    members, sizes = _checks.classes(Z, y, at_least=2)
    Z, shares = Z / _scale(Z), members / sizes
    return Z @ shares, 4 * torch.finfo(Z.dtype).eps * (Z.abs() @ shares)


def _cosines(means: Tensor, rounding: Tensor) -> Tensor:
    scale = _scale(means, -2)
    means, rounding = means / scale, rounding / scale
    lengths = torch.linalg.norm(means, dim=-2, keepdim=True)
    if (lengths <= torch.linalg.norm(rounding, dim=-2, keepdim=True)).any():
        raise ValueError("Z: wanted class means other than zero, got a zero mean")
    unit = means / lengths
    itself = torch.eye(unit.shape[-1], dtype=torch.bool, device=unit.device)
    return (unit.mT @ unit).masked_fill(itself, -torch.inf)


def discrimination_metric(Z: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`D = 1 - \max_{k\ne k'}\cos(\mu_k, \mu_{k'})` of the class means.

    The means are not centred and the cosine has its sign: 0 if two means have one direction, 1
    if all are orthogonal or further apart. Rotations and a common scale do not change it,
    shifts do.

    Parameters
    ----------
    Z, y : Tensor, shapes (..., d, N) and (N,)
        No class mean is zero.

    Returns
    -------
    Tensor, shape (...)
        Between 0 and 1 + 1/(K - 1).

    Examples
    --------
    >>> discrimination_metric(torch.eye(2), torch.tensor([0, 1])).item()
    1.0
    """
    return 1 - _cosines(*_means(Z, y)).amax((-2, -1))


def centred_separation(Z: Tensor, y: Tensor) -> Tensor:
    r"""Return the talk's :math:`S = 1 - \max_{k\ne k'}|\cos(\mu_k - \mu_G, \mu_{k'} - \mu_G)|`.

    With :math:`\mu_G` the mean of the class means, K centred vectors add up to zero, so that
    :math:`S \le 1 - 1/(K-1)`: use `discrimination_metric` instead. This one is here to compare.

    Parameters
    ----------
    Z, y : Tensor, shapes (..., d, N) and (N,)
        No centred mean is zero.

    Returns
    -------
    Tensor, shape (...)
        Between 0 and 1 - 1/(K - 1).

    Examples
    --------
    >>> round(centred_separation(torch.eye(3), torch.tensor([0, 1, 2])).item(), 6)
    0.5
    """
    means, rounding = _means(Z, y)
    rounding = rounding + rounding.mean(-1, keepdim=True)
    cosines = _cosines(means - means.mean(-1, keepdim=True), rounding)
    return 1 - torch.where(cosines.isinf(), 0, cosines.abs()).amax((-2, -1))


def layerwise(
    metric: Callable[[Tensor, Tensor], Tensor], outputs: Sequence[Tensor], y: Tensor
) -> Tensor:
    """Return a metric of the features of every layer, whose widths may differ.

    Parameters
    ----------
    metric : callable
        Takes features (..., d, N) and labels, such as `compression_metric`.
    outputs : sequence of Tensor, shape (d_l, N) or (..., d_l, N) each
        Features layer by layer, as `networks.forward` returns them. The input, which all runs
        share, may lack their axis.
    y : Tensor of int, shape (N,)
        Class of each column.

    Returns
    -------
    Tensor, shape (..., number of layers)

    Examples
    --------
    >>> Z, y = torch.tensor([[0.0, 2.0, 9.0, 9.0]]), torch.tensor([0, 0, 1, 1])
    >>> layerwise(compression_metric, [Z, 3 * Z, torch.stack([Z, Z**2])], y).shape
    torch.Size([2, 3])
    """
    if not hasattr(outputs, "__len__"):
        raise TypeError(f"outputs: wanted a sequence of features, got {type(outputs).__name__}")
    found = [metric(Z, y) for Z in outputs]
    if not found:
        raise ValueError("outputs: wanted at least one layer, got none")
    try:
        return torch.stack(torch.broadcast_tensors(*found), -1)
    except RuntimeError:
        shapes = ", ".join(str(tuple(each.shape)) for each in found)
        raise ValueError(f"outputs: wanted one shape of the metric, got {shapes}") from None


class Decay(NamedTuple):
    """A geometric sequence fitted to positive numbers, one for each leading axis."""

    ratio: Tensor
    """Shape (...): the factor from each number to the next."""
    r2: Tensor
    """Shape (...): share of the variance of the logarithms that the straight line explains."""


def geometric_fit(values: Tensor) -> Decay:
    r"""Return the :math:`c\,q^l` that fits a sequence, by least squares on its logarithms.

    Parameters
    ----------
    values : Tensor, shape (..., n)
        Positive numbers, n >= 3, such as the compression of each layer.

    Returns
    -------
    Decay
        The ratio q, and R^2 of the line through the logarithms.

    Examples
    --------
    >>> ratio, r2 = geometric_fit(torch.tensor([8.0, 4.0, 2.0, 1.0]))
    >>> round(ratio.item(), 6), round(r2.item(), 6)
    (0.5, 1.0)
    """
    values = _checks.numbers("values", values)
    n = values.shape[-1]
    if n < 3:
        raise ValueError(f"values: wanted at least three numbers, got shape {tuple(values.shape)}")
    if not (values > 0).all():
        raise ValueError(f"values: wanted positive numbers, got {values.min().item()}")
    l = torch.arange(n, dtype=values.dtype, device=values.device) - (n - 1) / 2
    logs = values.log()
    heights = logs - logs.mean(-1, keepdim=True)
    slope = heights @ l / (l @ l)
    # Equal numbers lie on a line, however their logarithms were rounded.
    rounding = 4 * torch.finfo(values.dtype).eps * logs.abs().amax(-1)
    variance, rest = (A.square().sum(-1) for A in (heights, heights - slope[..., None] * l))
    flat = variance <= n * rounding**2
    return Decay(slope.exp(), torch.where(flat, 1, 1 - rest / torch.where(flat, 1, variance)))
