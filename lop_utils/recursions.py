r"""The scalar recursions of the law of parsimony: what happens outside the core.

``eps`` is the scale of the layers at the start, :math:`\rho(0)`; ``eta`` the step size, for a loss
that sums over entries; ``lam`` weight decay; ``L`` the depth. Source: Yaras et al. (2023),
arXiv:2306.01154, Theorem 1; layers of unequal scale: Yaras et al. (2024), arXiv:2406.04112.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lop_utils import _checks

__all__ = ["rho_flow", "rho_frozen", "rho_recursion"]


def rho_recursion(
    eps: float | Sequence[float], *, eta: float, lam: float, L: int, steps: int
) -> Tensor:
    r"""Return the iterates of :math:`\rho \leftarrow \rho\,(1-\eta\lambda-\eta\rho^{2(L-1)})`.

    This is case 1. Layers that start with different scales keep different values,
    :math:`\rho_l \leftarrow \rho_l\,(1 - \eta\lambda - \eta\prod_{k\ne l}\rho_k^2)`.

    Parameters
    ----------
    eps : float or sequence of float
        :math:`\rho(0)`, of all layers or of each.
    eta, lam, L
        Step size, weight decay, depth.
    steps : int
        Number of steps.

    Returns
    -------
    Tensor of float64, shape (steps + 1,) or (steps + 1, L)

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or there are scales for others than L layers.
    FloatingPointError
        If ``eta`` is so large that the recursion overflows; names the step.

    Examples
    --------
    >>> rho_recursion(1.0, eta=0.5, lam=0.0, L=2, steps=2).tolist()
    [1.0, 0.5, 0.4375]
    >>> rho_recursion([1.0, 2.0], eta=0.1, lam=0.0, L=2, steps=1).tolist()
    [[1.0, 2.0], [0.6, 1.8]]
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
            raise _overflow(t, eta)
        values.append(rhos)
    found = torch.tensor(values, dtype=torch.float64)
    return found[:, 0] if one else found


def rho_frozen(eps: float, *, eta: float, lam: float, steps: int) -> Tensor:
    r"""Return :math:`\rho(t) = \varepsilon(1 - \eta\lambda)^t`, case 2: constant if ``lam = 0``.

    Parameters
    ----------
    eps, eta, lam
        Scale, step size, weight decay.
    steps : int
        Number of steps.

    Returns
    -------
    Tensor of float64, shape (steps + 1,)

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.
    FloatingPointError
        If ``eta`` is so large that the powers overflow; names the step.

    Examples
    --------
    >>> rho_frozen(1.0, eta=0.5, lam=1.0, steps=2).tolist()
    [1.0, 0.5, 0.25]
    """
    eps, eta = _checks.positive("eps", eps), _checks.positive("eta", eta)
    decay = 1 - eta * _checks.nonnegative("lam", lam)
    rho = eps * decay ** torch.arange(_checks.count("steps", steps) + 1, dtype=torch.float64)
    if not (finite := rho.isfinite()).all():
        raise _overflow(finite.int().argmin().item(), eta)
    return rho


def _overflow(t: int, eta: float) -> FloatingPointError:
    return FloatingPointError(
        f"rho: wanted a finite number, overflowed at step t = {t} with eta = {eta:g}"
    )


def rho_flow(eps: float, tau: Tensor, *, lam: float, L: int) -> Tensor:
    r"""Return the limit of `rho_recursion` for small steps.

    It solves :math:`\dot\rho = -\lambda\rho - \rho^{2L-1}`, which with :math:`k = 2(L-1)` the
    substitution :math:`\rho^{-k}` makes linear:

    .. math:: \rho(\tau) = \varepsilon e^{-\lambda\tau}
              \left(1 + \varepsilon^k\,\frac{1 - e^{-k\lambda\tau}}{\lambda}\right)^{-1/k}

    where the fraction is :math:`k\tau` at :math:`\lambda = 0`: without decay the complement fades
    only like :math:`\tau^{-1/k}`.

    Parameters
    ----------
    eps : float
        Scale.
    tau : Tensor, shape (...)
        Times ``eta t``.
    lam, L
        Weight decay, depth.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    Examples
    --------
    >>> rho_flow(1.0, [0.0, 7.5], lam=0.0, L=2).tolist()
    [1.0, 0.25]
    """
    eps, lam = _checks.positive("eps", eps), _checks.nonnegative("lam", lam)
    k, given = 2 * (_checks.count("L", L, at_least=1) - 1), _checks.scalars("tau", tau)
    tau = given.double()
    if not tau.is_meta and (tau < 0).any():
        raise ValueError(f"tau: wanted finite times >= 0, got {tau.min().item():g}")
    faded = torch.exp(-(lam * tau))
    if k == 0:
        rho = eps * faded * torch.exp(-tau)
    else:
        growth = k * tau if lam == 0 else -torch.expm1(-k * (lam * tau)) / lam
        if k * math.log(eps) < 350:
            rho = eps * faded * (1 + eps**k * growth) ** (-1 / k)
        else:  # the power is too large for a float
            sum_ = torch.logaddexp(torch.zeros_like(tau), k * math.log(eps) + growth.log())
            rho = eps * faded * torch.exp(-sum_ / k)
    return _checks.held("eps", rho.to(given.dtype), "rho")
