r"""The scalar recursions of the law of parsimony, and the closed forms of their flows.

`parsimony` hands them on: call them there.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = ["rho_flow", "rho_frozen", "rho_frozen_flow", "rho_recursion", "rho_scales"]


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


def rho_scales(eps: Sequence[float], *, eta: float, lam: float, steps: int) -> Tensor:
    r"""Iterate :math:`\rho_l \leftarrow \rho_l\,(1 - \eta\lambda - \eta\prod_{k\ne l}\rho_k^2)`.

    Layers that start with different scales keep different values on the rest; with equal ones
    this is `rho_recursion`.

    Parameters
    ----------
    eps : sequence of float
        Initialisation scale of each layer.
    eta : float
        Step size, for a loss that sums over the entries.
    lam : float
        Weight decay.
    steps : int
        Number of steps.

    Returns
    -------
    Tensor of float64, shape (steps + 1, L)

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    Yaras et al. (2024), arXiv:2406.04112.

    Examples
    --------
    >>> rho_scales([1.0, 2.0], eta=0.1, lam=0.0, steps=1).tolist()
    [[1.0, 2.0], [0.6, 1.8]]
    """
    start = [_checks.positive(f"eps[{l}]", scale) for l, scale in enumerate(eps)]
    eta, lam = _checks.positive("eta", eta), _checks.nonnegative("lam", lam)
    rhos = [torch.tensor(start, dtype=torch.float64)]
    L = len(start)
    others = ~torch.eye(L, dtype=torch.bool)
    for _ in range(_checks.count("steps", steps)):
        # Not the product over all divided by one: a value may reach zero.
        squares = torch.where(others, rhos[-1] ** 2, 1.0).prod(1)
        rhos.append(rhos[-1] * (1 - eta * lam - eta * squares))
    return torch.stack(rhos)


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
