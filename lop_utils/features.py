r"""How tightly a layer packs its classes, and how far apart: scatter, compression, separation.

Features are columns: ``Z`` has shape (..., d, N), and leading axes are layers, seeds or whole
networks that are measured at once. ``y`` holds the class of each column.
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
    "over_layers",
    "scatter",
]


def class_means(Z: Tensor, y: Tensor) -> Tensor:
    r"""Average the samples of each class: :math:`\mu_k = \frac{1}{n_k}\sum_{y_i = k} z_i`.

    Parameters
    ----------
    Z : Tensor, shape (..., d, N)
        Features in columns.
    y : Tensor of int, shape (N,)
        Class of each column, 0 to K - 1; each class has a sample.

    Returns
    -------
    Tensor, shape (..., d, K)

    Raises
    ------
    TypeError, ValueError
        If ``Z`` is not finite and floating-point, or the labels do not fit.

    Examples
    --------
    >>> class_means(torch.tensor([[1.0, 3.0, 5.0]]), torch.tensor([0, 0, 1]))
    tensor([[2., 5.]])
    """
    members, sizes = _checks.one_hot_classes(Z, y)
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
    Z : Tensor, shape (..., d, N)
        Features in columns; not changed.
    y : Tensor of int, shape (N,)
        Class of each column, 0 to K - 1; each class has a sample.

    Returns
    -------
    Scatter

    Raises
    ------
    TypeError, ValueError
        If ``Z`` is not finite and floating-point, or the labels do not fit.

    Examples
    --------
    >>> Z, y = torch.tensor([[0.0, 2.0, 9.0, 9.0]]), torch.tensor([0, 0, 1, 1])
    >>> within, between = scatter(Z, y)
    >>> within.item(), between.item()  # means 1 and 9 around 5
    (0.5, 16.0)
    """
    members, sizes = _checks.one_hot_classes(Z, y)
    means = Z @ (members / sizes)
    within = (Z - means @ members.T).square().sum((-2, -1)) / len(y)
    shares = sizes / len(y)
    centred = means - (means @ shares)[..., None]
    return Scatter(within, (centred.square().sum(-2) @ shares))


def compression_metric(Z: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`C = \operatorname{tr}\Sigma_W / \operatorname{tr}\Sigma_B`.

    Small when each class has shrunk towards its mean compared with how far the means are from
    one another. Rotations, shifts and a common scale do not change it.

    Parameters
    ----------
    Z : Tensor, shape (..., d, N)
        Features in columns; not changed.
    y : Tensor of int, shape (N,)
        Class of each column, 0 to K - 1, K >= 2; each class has a sample. How classes of
        different size count is said in `scatter`.

    Returns
    -------
    Tensor, shape (...)
        Infinite where all class means coincide, NaN where all samples do.

    Raises
    ------
    TypeError, ValueError
        If ``Z`` is not finite and floating-point, the labels do not fit, or K < 2.

    References
    ----------
    Wang et al. (2025), arXiv:2311.02960, who call it C_l; the talk of Qu (2023) says D_l.

    Examples
    --------
    >>> Z, y = torch.tensor([[0.0, 2.0, 9.0, 9.0]]), torch.tensor([0, 0, 1, 1])
    >>> compression_metric(Z, y).item()
    0.03125
    """
    _checks.one_hot_classes(Z, y, at_least=2)
    within, between = scatter(Z, y)
    return within / between


def _largest_cosine(means: Tensor, *, absolute: bool) -> Tensor:
    lengths = torch.linalg.norm(means, dim=-2, keepdim=True)
    if not lengths.all():
        raise ValueError("Z: wanted class means other than zero, got a zero mean")
    unit = means / lengths
    cosines = unit.mT @ unit
    cosines = cosines.abs() if absolute else cosines
    K = cosines.shape[-1]
    apart = torch.eye(K, dtype=torch.bool, device=cosines.device)
    return cosines.masked_fill(apart, -torch.inf).amax((-2, -1))


def discrimination_metric(Z: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`D = 1 - \max_{k\ne k'}\cos(\mu_k, \mu_{k'})` of the class means.

    The means are not centred and the cosine has its sign: 0 if two means have one direction, 1
    if all are orthogonal or further apart. Rotations and a common scale do not change it,
    shifts do.

    Parameters
    ----------
    Z : Tensor, shape (..., d, N)
        Features in columns; not changed.
    y : Tensor of int, shape (N,)
        Class of each column, 0 to K - 1, K >= 2; each class has a sample.

    Returns
    -------
    Tensor, shape (...)
        Between 0 and 1 + 1/(K - 1).

    Raises
    ------
    TypeError, ValueError
        If ``Z`` is not finite and floating-point, the labels do not fit, K < 2, or a class mean
        is zero.

    References
    ----------
    Wang et al. (2025), arXiv:2311.02960.

    Examples
    --------
    >>> discrimination_metric(torch.eye(2), torch.tensor([0, 1])).item()
    1.0
    """
    _checks.one_hot_classes(Z, y, at_least=2)
    return 1 - _largest_cosine(class_means(Z, y), absolute=False)


def centred_separation(Z: Tensor, y: Tensor) -> Tensor:
    r"""Return the talk's :math:`S = 1 - \max_{k\ne k'}|\cos(\mu_k - \mu_G, \mu_{k'} - \mu_G)|`.

    With :math:`\mu_G` the mean of the class means, K centred vectors add up to zero, so that
    :math:`S \le 1 - 1/(K-1)`: use `discrimination_metric` instead. This one is here to compare.

    Parameters
    ----------
    Z : Tensor, shape (..., d, N)
        Features in columns; not changed.
    y : Tensor of int, shape (N,)
        Class of each column, 0 to K - 1, K >= 2; each class has a sample.

    Returns
    -------
    Tensor, shape (...)
        Between 0 and 1 - 1/(K - 1).

    Raises
    ------
    TypeError, ValueError
        If ``Z`` is not finite and floating-point, the labels do not fit, K < 2, or a centred
        mean is zero.

    References
    ----------
    Qu (2023), the talk on arXiv:2306.01154, as S_l.

    Examples
    --------
    >>> round(centred_separation(torch.eye(3), torch.tensor([0, 1, 2])).item(), 6)
    0.5
    """
    _checks.one_hot_classes(Z, y, at_least=2)
    means = class_means(Z, y)
    return 1 - _largest_cosine(means - means.mean(-1, keepdim=True), absolute=True)


def over_layers(
    metric: Callable[[Tensor, Tensor], Tensor], outputs: Sequence[Tensor], y: Tensor
) -> Tensor:
    """Measure the features of every layer, whose widths may differ.

    Parameters
    ----------
    metric : callable
        Takes features (..., d, N) and labels, such as `compression_metric`.
    outputs : sequence of Tensor, shape (d_l, N) or (..., d_l, N) each
        Features layer by layer, as `dln.layer_outputs` and `networks.forward` return them. The
        input, which all runs share, may lack their axis.
    y : Tensor of int, shape (N,)
        Class of each column.

    Returns
    -------
    Tensor, shape (..., number of layers)

    Raises
    ------
    TypeError, ValueError
        What the metric raises; ``ValueError`` if there is no layer.

    Examples
    --------
    >>> Z, y = torch.tensor([[0.0, 2.0, 9.0, 9.0]]), torch.tensor([0, 0, 1, 1])
    >>> over_layers(compression_metric, [Z, 3 * Z, torch.stack([Z, Z**2])], y).shape
    torch.Size([2, 3])
    """
    if not outputs:
        raise ValueError("outputs: wanted at least one layer, got none")
    return torch.stack(torch.broadcast_tensors(*(metric(Z, y) for Z in outputs)), -1)


class Decay(NamedTuple):
    """A geometric sequence fitted to positive numbers, one for each leading axis."""

    ratio: Tensor
    """Shape (...): the factor from each number to the next."""
    r2: Tensor
    """Shape (...): share of the variance of the logarithms that the straight line explains."""


def geometric_fit(values: Tensor) -> Decay:
    r"""Fit :math:`c\,q^l` to a sequence by least squares on its logarithms.

    Parameters
    ----------
    values : Tensor, shape (..., n)
        Positive numbers, n >= 3, such as the compression of each layer.

    Returns
    -------
    Decay
        The ratio q, and R^2 of the line through the logarithms.

    Raises
    ------
    TypeError, ValueError
        If a number is not positive and finite, or there are fewer than three.

    Examples
    --------
    >>> ratio, r2 = geometric_fit(torch.tensor([8.0, 4.0, 2.0, 1.0]))
    >>> round(ratio.item(), 6), round(r2.item(), 6)
    (0.5, 1.0)
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = getattr(values, "dtype", type(values).__name__)
        raise TypeError(f"values: wanted a floating-point tensor, got {kind}")
    if values.ndim < 1 or values.shape[-1] < 3:
        raise ValueError(f"values: wanted at least three numbers, got shape {tuple(values.shape)}")
    if not ((values > 0) & values.isfinite()).all():
        raise ValueError("values: wanted positive finite numbers, got others")
    n = values.shape[-1]
    l = torch.arange(n, dtype=values.dtype, device=values.device) - (n - 1) / 2
    heights = values.log() - values.log().mean(-1, keepdim=True)
    slope = heights @ l / (l @ l)
    return Decay(slope.exp(), slope**2 * (l @ l) / heights.square().sum(-1))
