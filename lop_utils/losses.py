"""Losses of a deep linear network, each as the residual that `dln.gradients` asks for."""

import torch
from torch import Tensor

from lop_utils import _checks, dln

__all__ = ["data_residual", "masked_residual", "matrix_residual", "sensing_residual"]


def matrix_residual(Phi: Tensor) -> dln.Residual:
    r"""Return the residual of :math:`\ell(W) = \frac12\|W - \Phi\|_F^2`.

    Parameters
    ----------
    Phi : Tensor, shape (d_y, d_x)
        Target.

    Returns
    -------
    callable
        Maps ``W`` to the loss (sum, not mean, over the entries) and to ``W - Phi``.

    Raises
    ------
    TypeError, ValueError
        If ``Phi`` is no finite floating-point matrix.

    Examples
    --------
    >>> import torch
    >>> loss, R = matrix_residual(torch.tensor([[1.0, 2.0]]))(torch.zeros(1, 2))
    >>> loss.item(), R.tolist()
    (2.5, [[-1.0, -2.0]])
    """
    _checks.matrix("Phi", Phi)

    def residual(W: Tensor) -> tuple[Tensor, Tensor]:
        _checks.fits("W", W, Phi.shape, "Phi", Phi)  # or it would broadcast in silence
        R = W - Phi
        flat = R.flatten()
        return 0.5 * torch.dot(flat, flat), R  # one pass, no R * R in memory

    return residual


def data_residual(X: Tensor, Y: Tensor) -> dln.Residual:
    r"""Return the residual of :math:`\ell(W) = \frac12\|WX - Y\|_F^2`.

    Parameters
    ----------
    X : Tensor, shape (d_x, N)
        Inputs in columns.
    Y : Tensor, shape (d_y, N)
        Labels in columns.

    Returns
    -------
    callable
        Maps ``W`` to the loss (sum, not mean, over the samples) and to ``(W X - Y) X^T``.

    Raises
    ------
    TypeError, ValueError
        If ``X`` or ``Y`` is no finite floating-point matrix, or they differ in N.

    Examples
    --------
    >>> import torch
    >>> X, Y = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    >>> loss, R = data_residual(X, Y)(torch.ones(1, 1))
    >>> loss.item(), R.item()
    (2.0, 4.0)
    """
    _checks.matrix("X", X)
    _checks.shaped("Y", Y, (_checks.matrix("Y", Y).shape[0], X.shape[1]))
    _checks.same_kind("Y", Y, "X", X)

    def residual(W: Tensor) -> tuple[Tensor, Tensor]:
        _checks.fits("W", W, (Y.shape[0], X.shape[0]), "X", X)
        E = W @ X - Y
        return 0.5 * (E * E).sum(), E @ X.T

    return residual


def masked_residual(Omega: Tensor, Phi: Tensor) -> dln.Residual:
    r"""Return the residual of :math:`\ell(W) = \frac12\|\Omega\odot(W - \Phi)\|_F^2`.

    Parameters
    ----------
    Omega : Tensor of bool, shape (d_y, d_x)
        Which entries are observed.
    Phi : Tensor, shape (d_y, d_x)
        Target; what it is elsewhere does not count, but must be finite.

    Returns
    -------
    callable
        Maps ``W`` to the loss (sum over the observed entries) and to ``Omega * (W - Phi)``.
        `factored` has forms that cost less.

    Raises
    ------
    TypeError, ValueError
        If ``Phi`` is no finite floating-point matrix, ``Omega`` is not of bool, the shapes or
        devices differ, or nothing is observed.

    Examples
    --------
    >>> import torch
    >>> seen = torch.tensor([[True, False]])
    >>> loss, R = masked_residual(seen, torch.tensor([[1.0, 2.0]]))(torch.zeros(1, 2))
    >>> loss.item(), R.tolist()
    (0.5, [[-1.0, -0.0]])
    """
    _checks.matrix("Phi", Phi)
    if not isinstance(Omega, Tensor) or Omega.dtype != torch.bool:
        kind = Omega.dtype if isinstance(Omega, Tensor) else type(Omega).__name__
        raise TypeError(f"Omega: wanted a tensor of bool, got {kind}")
    mask = Omega.to(Phi.dtype)  # multiplies faster than bool does
    _checks.fits("Omega", mask, Phi.shape, "Phi", Phi)
    if not Omega.is_meta and not Omega.any():
        raise ValueError("Omega: wanted at least one observed entry, got none")

    def residual(W: Tensor) -> tuple[Tensor, Tensor]:
        _checks.fits("W", W, Phi.shape, "Phi", Phi)
        R = (W - Phi).mul_(mask)
        flat = R.flatten()
        return 0.5 * torch.dot(flat, flat), R

    return residual


def sensing_residual(As: Tensor, y: Tensor) -> dln.Residual:
    r"""Return the residual of :math:`\ell(W) = \frac12\sum_i(\langle A_i, W\rangle - y_i)^2`.

    Parameters
    ----------
    As : Tensor, shape (m, d_y, d_x)
        Measurement matrices.
    y : Tensor, shape (m,)
        Measurements.

    Returns
    -------
    callable
        Maps ``W`` to the loss (sum, not mean, over the measurements) and to
        :math:`\sum_i (\langle A_i, W\rangle - y_i) A_i`.

    Raises
    ------
    TypeError, ValueError
        If a tensor is not finite and floating-point, or the shapes do not follow.

    Examples
    --------
    >>> import torch
    >>> As, y = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]), torch.tensor([1.0, 3.0])
    >>> loss, R = sensing_residual(As, y)(torch.ones(1, 2))
    >>> loss.item(), R.tolist()
    (0.5, [[-1.0, -1.0]])
    """
    if not isinstance(As, Tensor) or As.ndim != 3:
        raise ValueError(f"As: wanted shape (m, d_y, d_x), got {tuple(getattr(As, 'shape', ()))}")
    m, *shape = As.shape
    rows = _checks.matrix("As", As.flatten(1))
    y = _checks.shaped("y", y[:, None] if isinstance(y, Tensor) and y.ndim == 1 else y, (m, 1))
    _checks.same_kind("y", y, "As", As)

    def residual(W: Tensor) -> tuple[Tensor, Tensor]:
        _checks.fits("W", W, shape, "As", As)
        gap = rows @ W.reshape(-1, 1) - y
        return 0.5 * (gap * gap).sum(), (rows.T @ gap).view(*shape)

    return residual
