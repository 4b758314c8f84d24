r"""Losses, each as a function of the layers that returns its value and its gradients.

``loss(Ws)`` of layers ``Ws = [W_1, ..., W_L]`` is what a trainer asks for. A loss of the
end-to-end matrix alone, :math:`\ell(W_L \cdots W_1)`, comes from its own value and gradient by
`of_product`; of a matrix W it is ``loss([W])``. Layers may have a leading axis of runs,
``(..., d_l, d_{l-1})``; the value then has shape ``(...)``. Losses sum, over entries or samples:
where another code takes a mean over n of them, its step size is n times ours.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.networks import Activation, _features, _one_each

__all__ = [
    "Loss",
    "Minibatches",
    "ValueAndGradients",
    "least_squares",
    "masked",
    "network",
    "of_product",
    "sensing",
    "squared_error",
]


class ValueAndGradients(NamedTuple):
    """A loss at some layers."""

    value: Tensor
    """Shape (...), of every run."""
    grads: list[Tensor]
    """The gradient in every layer, of its shape."""


Loss = Callable[[Sequence[Tensor]], ValueAndGradients]
"""Layers in, value and gradients out. One that draws at random also has a ``generator``."""


def of_product(matrix_loss: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Loss:
    r"""Return a loss of the end-to-end matrix as a loss of the layers.

    With :math:`R = \nabla\ell(W_{L:1})` the chain rule gives
    :math:`\nabla_l = (W_L \cdots W_{l+1})^\top R\,(W_{l-1} \cdots W_1)^\top`. One pass forms the
    prefixes :math:`W_{l:1}`, one reverse sweep :math:`S \leftarrow W_l^\top S` from ``S = R``
    leaves :math:`\nabla_l = S\,W_{l-1:1}^\top` on its way: 3(L - 1) products, as of autograd.

    Parameters
    ----------
    matrix_loss : callable
        Takes ``W`` of shape ``(..., d_L, d_0)``; returns the value and the gradient in ``W``.

    References
    ----------
    Saxe, McClelland and Ganguli (2013), arXiv:1312.6120, the equation of motion.

    Examples
    --------
    >>> loss = of_product(lambda W: (0.5 * (W - 7).square().sum(), W - 7))
    >>> value, grads = loss([torch.tensor([[3.0]]), torch.tensor([[2.0]])])  # W = 6
    >>> value.item(), [G.item() for G in grads]
    (0.5, [-2.0, -3.0])
    """

    def loss(Ws: Sequence[Tensor]) -> ValueAndGradients:
        Ws = _tensors(Ws)
        times = {2: torch.mm, 3: torch.bmm}.get(Ws[0].ndim, torch.matmul)  # `@` takes longer
        prefixes = [Ws[0]]
        try:
            for W in Ws[1:]:
                prefixes.append(times(W, prefixes[-1]))
        except RuntimeError:
            _checks.chain("Ws", Ws)  # says what does not fit; asked each time it would cost more
            raise
        product = prefixes.pop()
        value, S = matrix_loss(product)
        if S.shape != product.shape:
            wanted, got = tuple(product.shape), tuple(S.shape)
            raise ValueError(f"loss: wanted a gradient of shape {wanted}, got {got}")
        grads = []
        for W, prefix in zip(reversed(Ws), reversed(prefixes), strict=False):
            grads.append(times(S, prefix.mT))
            S = times(W.mT, S)
        return ValueAndGradients(value, [S, *reversed(grads)])

    return loss


def _tensors(Ws: Sequence[Tensor]) -> Sequence[Tensor]:
    known = isinstance(Ws, list) and Ws and all(isinstance(W, Tensor) and W.ndim > 1 for W in Ws)
    return Ws if known else _checks.chain("Ws", Ws)


def _half_squares(shape, name: str, A: Tensor, residual: Callable, back=lambda R: R) -> Loss:
    """Return half the square of a residual of W, of which ``back`` makes the gradient in W."""

    def matrix_loss(W: Tensor) -> tuple[Tensor, Tensor]:
        if W.shape[-len(shape) :] != shape or W.dtype != A.dtype:  # it would broadcast in silence
            _checks.fits("W", W, (*W.shape[: -len(shape)], *shape), name, A)
        R = residual(W)
        if R.ndim > 2:
            return 0.5 * (R * R).sum((-2, -1)), back(R)
        flat = R.flatten()
        return 0.5 * torch.dot(flat, flat), back(R)  # one pass, no R * R in memory

    return of_product(matrix_loss)


def squared_error(Phi: Tensor) -> Loss:
    r"""Return :math:`\ell(W) = \frac12\|W - \Phi\|_F^2`, with the gradient :math:`W - \Phi`.

    Parameters
    ----------
    Phi : Tensor, shape (d_y, d_x) or (..., d_y, d_x)
        Target, of all runs or of each.

    Examples
    --------
    >>> value, (R,) = squared_error([[1.0, 2.0]])([[[0.0, 0.0]]])
    >>> value.item(), R.tolist()
    (2.5, [[-1.0, -2.0]])
    """
    Phi = _checks.matrix("Phi", Phi, runs=True)
    return _half_squares(Phi.shape, "Phi", Phi, lambda W: W - Phi)


def least_squares(X: Tensor, Y: Tensor) -> Loss:
    r"""Return :math:`\ell(W) = \frac12\|WX - Y\|_F^2`, with the gradient :math:`(WX - Y)X^\top`.

    Parameters
    ----------
    X, Y : Tensor, shapes (d_x, N) and (d_y, N), or (..., d_y, N)
        Inputs and labels in columns; labels of all runs or of each.

    Examples
    --------
    >>> value, (G,) = least_squares([[1.0, 2.0]], [[1.0, 0.0]])([[[1.0]]])
    >>> value.item(), G.item()
    (2.0, 4.0)
    """
    X, Y = _samples(X, Y, runs=True)

    def residual(W: Tensor) -> Tensor:
        _checks.of_runs("Y", Y, W)
        return W @ X - Y

    return _half_squares((Y.shape[-2], len(X)), "X", X, residual, lambda R: R @ X.mT)


def _samples(X: Tensor, Y: Tensor, runs: bool = False) -> tuple[Tensor, Tensor]:
    X, Y = _checks.matrix("X", X), _checks.matrix("Y", Y, runs=runs)
    _checks.fits("Y", Y, (*Y.shape[:-1], X.shape[1]), "X", X)
    return X, Y


def masked(Omega: Tensor, Phi: Tensor) -> Loss:
    r"""Return :math:`\ell(W) = \frac12\|\Omega\odot(W - \Phi)\|_F^2`; see `factored` for large W.

    Parameters
    ----------
    Omega, Phi : Tensor, shape (d_y, d_x)
        Which entries are observed, as bool; the target, finite elsewhere, too.

    Examples
    --------
    >>> value, (R,) = masked([[True, False]], [[1.0, 2.0]])([[[0.0, 0.0]]])
    >>> value.item(), R.tolist()
    (0.5, [[-1.0, -0.0]])
    """
    Omega, Phi = _checks.tensor("Omega", Omega), _checks.matrix("Phi", Phi)
    if Omega.dtype != torch.bool:
        raise TypeError(f"Omega: wanted a tensor of bool, got {Omega.dtype}")
    mask = Omega.to(Phi.dtype)  # multiplies faster than bool does
    _checks.fits("Omega", mask, Phi.shape, "Phi", Phi)
    if not Omega.is_meta and not Omega.any():
        raise ValueError("Omega: wanted at least one observed entry, got none")
    return _half_squares(Phi.shape, "Phi", Phi, lambda W: (W - Phi).mul_(mask))


def sensing(As: Tensor, y: Tensor) -> Loss:
    r"""Return :math:`\ell(W) = \frac12\sum_i(\langle A_i, W\rangle - y_i)^2`.

    Parameters
    ----------
    As, y : Tensor, shapes (m, d_y, d_x) and (m,)
        Measurement matrices and measurements.

    Examples
    --------
    >>> As, y = [[[1.0, 0.0]], [[1.0, 1.0]]], [1.0, 3.0]
    >>> value, (R,) = sensing(As, y)([[[1.0, 1.0]]])
    >>> value.item(), R.tolist()
    (0.5, [[-1.0, -1.0]])
    """
    As, y = _checks.matrix("As", As, runs=True), _checks.vector("y", y)
    if As.ndim != 3:
        raise ValueError(f"As: wanted shape (m, d_y, d_x), got {tuple(As.shape)}")
    _checks.fits("y", y, As.shape[:1], "As", As)
    shape, rows, y = As.shape[1:], As.flatten(1), y[:, None]
    return _half_squares(
        shape,
        "As",
        As,
        lambda W: rows @ W.flatten(-2)[..., None] - y,
        lambda gap: (rows.T @ gap).unflatten(-2, shape)[..., 0],
    )


def network(X: Tensor, Y: Tensor, activations: Sequence[Activation], *, alpha: float = 1.0) -> Loss:
    r"""Return :math:`\frac12\|\alpha f(X) - Y\|_F^2` of a network with nonlinear layers.

    Gradients come from autograd; `least_squares` of linear layers needs none.

    Parameters
    ----------
    X, Y : Tensor, shapes (d_0, N) and (d_L, N), or (..., d_L, N)
        Inputs and labels in columns; labels of all runs or of each.
    activations : sequence of callable or None
        One behind each layer.
    alpha : float
        Factor at the output.

    Examples
    --------
    >>> value, grads = network([[1.0]], [[2.0]], [torch.relu, None])([[[1.0]], [[1.0]]])
    >>> value.item(), [G.item() for G in grads]
    (0.5, [-1.0, -1.0])
    """
    (X, Y), alpha = _samples(X, Y, runs=True), _checks.positive("alpha", alpha)

    def loss(Ws: Sequence[Tensor]) -> ValueAndGradients:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("network: wanted no torch.inference_mode(), which records nothing")
        params = [W.detach().requires_grad_() for W in _checks.chain("Ws", Ws)]
        _checks.fits("Ws[0]", params[0], (*params[0].shape[:-1], X.shape[0]), "X", X)
        with torch.enable_grad():
            f = _features(params, X, _one_each(activations, len(params)))[-1]
            _checks.of_runs("Y", Y, f)
            _checks.fits("f(X)", f, (*params[0].shape[:-2], *Y.shape[-2:]), "Y", Y)
            value = 0.5 * (alpha * f - Y).square().sum((-2, -1))
            grads = torch.autograd.grad(value.sum(), params)
        return ValueAndGradients(value.detach(), list(grads))

    return loss


class Minibatches:
    r"""A loss on a few samples, drawn anew at each call, that equals the full one on average.

    Its ``generator`` is a `torch.Generator`, whose state `descent.train` keeps with every iterate,
    so that a run goes on digit for digit.

    A call draws ``batch`` of the N samples without replacement, the same for all runs, scales
    their loss by N / batch, and costs what the batch costs. Label noise is drawn for each run.

    Parameters
    ----------
    make : callable
        The loss of given samples: `least_squares`, or
        ``lambda X, Y: network(X, Y, activations)``.
    X, Y : Tensor, shapes (d_x, N) and (d_y, N)
        Inputs and labels in columns.
    batch : int
        Samples a call.
    noise : float
        Standard deviation of the Gaussian noise on each label (Blanc et al. 2020).
    generator : torch.Generator or int, optional
        Source of randomness, on the CPU, or a seed; torch's global one if absent.

    Examples
    --------
    >>> loss = Minibatches(least_squares, torch.eye(2), torch.eye(2), batch=1, generator=0)
    >>> loss([torch.zeros(2, 2)]).value  # one sample of two, weighted twice
    tensor(1.)
    """

    def __init__(
        self,
        make: Callable[[Tensor, Tensor], Loss],
        X: Tensor,
        Y: Tensor,
        *,
        batch: int,
        noise: float = 0.0,
        generator: torch.Generator | int | None = None,
    ) -> None:
        self.make, (self.X, self.Y) = make, _samples(X, Y)
        self.batch, self.N = _checks.count("batch", batch, at_least=1), self.X.shape[1]
        if self.batch > self.N:
            raise ValueError(f"batch: wanted at most N = {self.N} samples, got {batch}")
        self.noise = _checks.nonnegative("noise", noise)
        self.generator = _checks.seeded(generator) or torch.default_generator

    def draw(self) -> Tensor:
        """Return which samples come next, in time that does not grow with N for a small batch."""
        if 4 * self.batch > self.N:
            return torch.randperm(self.N, generator=self.generator)[: self.batch]
        chosen: dict[int, None] = {}
        while len(chosen) < self.batch:  # those drawn twice are drawn again
            more = torch.randint(self.N, (self.batch - len(chosen),), generator=self.generator)
            chosen |= dict.fromkeys(more.tolist())
        return torch.tensor(list(chosen))

    def __call__(self, Ws: Sequence[Tensor]) -> ValueAndGradients:
        """Return the loss of the next batch at these layers."""
        drawn = self.draw().to(self.X.device)
        X, Y = self.X[:, drawn], self.Y[:, drawn]
        if self.noise:
            shape = (*_tensors(Ws)[0].shape[:-2], *Y.shape)
            drawn = torch.randn(shape, generator=self.generator, dtype=Y.dtype)
            Y = Y + self.noise * drawn.to(Y.device)
        value, grads = self.make(X, Y)(Ws)
        weight = self.N / self.batch
        return ValueAndGradients(weight * value, [weight * G for G in grads])
