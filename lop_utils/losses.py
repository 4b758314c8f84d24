"""Losses of a deep linear network, each as the residual that `dln.gradients` asks for."""

from torch import Tensor

from lop_utils import _checks, dln

__all__ = ["data_residual", "matrix_residual"]


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
        return 0.5 * (R * R).sum(), R

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
