"""Training as a stream: generators of iterates that a caller can stop, zip or measure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks, dln, losses

__all__ = ["Iterate", "adam", "gradient_descent", "heavy_ball", "minibatch_sgd", "record"]


class Iterate(NamedTuple):
    """One point of a run. Every iterate owns its tensors: keeping one does not change it."""

    t: int
    """Steps taken so far."""
    Ws: list[Tensor]
    """Layers."""
    loss: Tensor
    """Scalar: the loss of ``Ws``, without the weight-decay term."""


_Step = Callable[[list[Tensor], list[Tensor]], list[Tensor]]


def _descend(Ws, residual, step: _Step, *, eta, steps) -> Iterator[Iterate]:
    for t in range(steps + 1):
        loss, grads = dln.gradients(Ws, residual)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss: wanted a finite number, got {loss.item()} at step t = {t} with "
                f"eta = {eta:g}; a smaller eta keeps the run from diverging"
            )
        yield Iterate(t, [W.clone() for W in Ws], loss)
        if t < steps:
            Ws = step(Ws, grads)


def gradient_descent(
    Ws: Sequence[Tensor],
    residual: dln.Residual,
    *,
    eta: float,
    lam: float = 0.0,
    steps: int,
) -> Iterator[Iterate]:
    r"""Run gradient descent with weight decay on all layers at once.

    .. math:: W_l(t+1) = (1 - \eta\lambda)\,W_l(t) - \eta\,\nabla_l\ell(W(t))

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers at ``t = 0``; ``W_l`` has shape ``(d_l, d_{l-1})``. They are not changed.
    residual : callable
        Takes the end-to-end matrix; returns the loss and its gradient in that matrix.
    eta : float
        Step size, for a loss that sums over entries or samples. Authors' code that averages
        over d_y d_x entries means ``eta`` times ``1 / (d_y d_x)`` here.
    lam : float
        Weight decay.
    steps : int
        Number of steps; the stream has ``steps + 1`` iterates, ``t = 0`` first.

    Yields
    ------
    Iterate

    Raises
    ------
    TypeError, ValueError
        At the call, if an argument is out of range or the shapes of the layers do not follow.
    FloatingPointError
        While running, if the loss is no longer finite; names the step and ``eta``.

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154, the iteration of the theorem.

    Examples
    --------
    >>> from lop_utils import losses
    >>> Ws = [torch.tensor([[1.0]]), torch.tensor([[1.0]])]
    >>> run = gradient_descent(Ws, losses.matrix_residual(torch.tensor([[2.0]])), eta=0.1, steps=2)
    >>> [round(iterate.loss.item(), 3) for iterate in run]
    [0.5, 0.312, 0.175]
    """
    Ws = [W.detach().clone() for W in _checks.layers("Ws", Ws)]
    eta, lam = _checks.positive("eta", eta), _checks.nonnegative("lam", lam)
    steps = _checks.count("steps", steps)

    def step(Ws: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        return [(1 - eta * lam) * W - eta * G for W, G in zip(Ws, grads, strict=True)]

    return _descend(Ws, residual, step, eta=eta, steps=steps)


def heavy_ball(
    Ws: Sequence[Tensor],
    residual: dln.Residual,
    *,
    eta: float,
    beta: float,
    lam: float = 0.0,
    steps: int,
) -> Iterator[Iterate]:
    r"""Run gradient descent with heavy-ball momentum.

    .. math:: M_l \leftarrow \beta M_l + \nabla_l\ell + \lambda W_l, \qquad
              W_l \leftarrow W_l - \eta M_l

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers at ``t = 0``; ``W_l`` has shape ``(d_l, d_{l-1})``. They are not changed.
    residual : callable
        Takes the end-to-end matrix; returns the loss and its gradient in that matrix.
    eta : float
        Step size, for a loss that sums over entries or samples.
    beta : float
        Momentum, from 0 (which is `gradient_descent`) to below 1.
    lam : float
        Weight decay.
    steps : int
        Number of steps; the stream has ``steps + 1`` iterates, ``t = 0`` first.

    Yields
    ------
    Iterate

    Raises
    ------
    TypeError, ValueError
        At the call, if an argument is out of range or the shapes of the layers do not follow.
    FloatingPointError
        While running, if the loss is no longer finite; names the step and ``eta``.

    References
    ----------
    Polyak (1964), doi:10.1016/0041-5553(64)90137-5.

    Examples
    --------
    >>> from lop_utils import losses
    >>> Ws = [torch.tensor([[1.0]])]
    >>> target = losses.matrix_residual(torch.zeros(1, 1))
    >>> run = heavy_ball(Ws, target, eta=0.5, beta=0.5, steps=2)
    >>> [iterate.Ws[0].item() for iterate in run]  # the second step has the first one's half
    [1.0, 0.5, 0.0]
    """
    Ws = [W.detach().clone() for W in _checks.layers("Ws", Ws)]
    eta, lam = _checks.positive("eta", eta), _checks.nonnegative("lam", lam)
    steps = _checks.count("steps", steps)
    if not _checks.nonnegative("beta", beta) < 1:
        raise ValueError(f"beta: wanted 0 <= beta < 1, got {beta!r}")
    velocity = [torch.zeros_like(W) for W in Ws]

    def step(Ws: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        for l, (W, G) in enumerate(zip(Ws, grads, strict=True)):
            velocity[l] = beta * velocity[l] + G + lam * W
        return [W - eta * M for W, M in zip(Ws, velocity, strict=True)]

    return _descend(Ws, residual, step, eta=eta, steps=steps)


def minibatch_sgd(
    Ws: Sequence[Tensor],
    X: Tensor,
    Y: Tensor,
    *,
    eta: float,
    batch: int,
    steps: int,
    generator: torch.Generator | None = None,
) -> Iterator[Iterate]:
    r"""Run stochastic gradient descent on :math:`\frac12\|W_{L:1}X - Y\|_F^2`.

    Each step draws ``batch`` of the N samples without replacement and scales their gradient by
    N / batch, so that it equals the full gradient on average.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers at ``t = 0``; ``W_l`` has shape ``(d_l, d_{l-1})``. They are not changed.
    X : Tensor, shape (d_x, N)
        Inputs in columns.
    Y : Tensor, shape (d_y, N)
        Labels in columns.
    eta : float
        Step size, for a loss that sums over the samples.
    batch : int
        Samples a step; N gives `gradient_descent`.
    steps : int
        Number of steps; the stream has ``steps + 1`` iterates, ``t = 0`` first.
    generator : torch.Generator, optional
        Source of randomness, on the CPU; torch's global one if absent.

    Yields
    ------
    Iterate
        The loss is that of all samples.

    Raises
    ------
    TypeError, ValueError
        At the call, if an argument is out of range or the shapes do not follow.
    FloatingPointError
        While running, if the loss is no longer finite; names the step and ``eta``.

    Examples
    --------
    >>> X = Y = torch.eye(2)
    >>> run = minibatch_sgd([torch.zeros(2, 2)], X, Y, eta=0.5, batch=1, steps=1)
    >>> list(run)[-1].Ws[0].diagonal().sort().values.tolist()  # one sample, weighted twice
    [0.0, 1.0]
    """
    full = losses.data_residual(X, Y)
    Ws = [W.detach().clone() for W in _checks.layers("Ws", Ws)]
    eta, steps = _checks.positive("eta", eta), _checks.count("steps", steps)
    N = X.shape[1]
    if _checks.count("batch", batch, at_least=1) > N:
        raise ValueError(f"batch: wanted at most N = {N} samples, got {batch}")

    def step(Ws: list[Tensor], _: list[Tensor]) -> list[Tensor]:
        drawn = torch.randperm(N, generator=generator)[:batch].to(X.device)
        part = losses.data_residual(X[:, drawn], Y[:, drawn])
        grads = dln.gradients(Ws, part).grads
        return [W - eta * N / batch * G for W, G in zip(Ws, grads, strict=True)]

    return _descend(Ws, full, step, eta=eta, steps=steps)


def adam(
    Ws: Sequence[Tensor], residual: dln.Residual, *, eta: float, steps: int
) -> Iterator[Iterate]:
    """Run Adam on all layers, with torch's defaults for everything but the step size.

    Parameters
    ----------
    Ws : sequence of Tensor
        Layers at ``t = 0``; ``W_l`` has shape ``(d_l, d_{l-1})``. They are not changed.
    residual : callable
        Takes the end-to-end matrix; returns the loss and its gradient in that matrix.
    eta : float
        Step size: roughly how far each entry of each layer moves in one step.
    steps : int
        Number of steps; the stream has ``steps + 1`` iterates, ``t = 0`` first.

    Yields
    ------
    Iterate

    Raises
    ------
    TypeError, ValueError
        At the call, if an argument is out of range or the shapes of the layers do not follow.
    FloatingPointError
        While running, if the loss is no longer finite; names the step and ``eta``.

    References
    ----------
    Kingma and Ba (2015), arXiv:1412.6980.

    Examples
    --------
    >>> from lop_utils import losses
    >>> Ws = [torch.tensor([[1.0]]), torch.tensor([[1.0]])]
    >>> run = adam(Ws, losses.matrix_residual(torch.tensor([[2.0]])), eta=0.1, steps=1)
    >>> round(list(run)[-1].Ws[0].item(), 6)  # the first step has length eta in each entry
    1.1
    """
    params = [W.detach().clone() for W in _checks.layers("Ws", Ws)]
    eta, steps = _checks.positive("eta", eta), _checks.count("steps", steps)
    optimiser = torch.optim.Adam(params, lr=eta)

    def step(params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        for W, G in zip(params, grads, strict=True):
            W.grad = G
        optimiser.step()
        return params

    return _descend(params, residual, step, eta=eta, steps=steps)


def record(
    iterates: Iterable[Iterate],
    *,
    every: int = 1,
    **measures: Callable[[Iterate], Tensor | float],
) -> dict[str, Tensor]:
    """Measure a run as it passes and stack what was measured; no iterate is kept.

    Parameters
    ----------
    iterates : iterable of Iterate
        A run.
    every : int
        Measure when ``t`` is a multiple of it.
    **measures : callable
        Each takes an iterate and returns a number or a tensor of a fixed shape.

    Returns
    -------
    dict of Tensor
        ``t``, shape (T,), and under each measure's name its values, shape (T, ...).

    Raises
    ------
    TypeError, ValueError
        If ``every < 1``, a measure is called ``t``, or the run held nothing to measure.

    Examples
    --------
    >>> from lop_utils import losses
    >>> Ws = [torch.tensor([[1.0]])]
    >>> run = gradient_descent(Ws, losses.matrix_residual(torch.zeros(1, 1)), eta=0.5, steps=4)
    >>> record(run, every=2, loss=lambda it: it.loss)
    {'t': tensor([0, 2, 4]), 'loss': tensor([0.5000, 0.0312, 0.0020])}
    """
    every = _checks.count("every", every, at_least=1)
    if "t" in measures:
        raise ValueError("measures: wanted any name but t, which holds the step, got t")
    ts, values = [], {name: [] for name in measures}
    for iterate in iterates:
        if iterate.t % every == 0:
            ts.append(iterate.t)
            for name, measure in measures.items():
                value = measure(iterate)
                # torch would round a Python float to float32.
                dtype = torch.float64 if isinstance(value, float) else None
                values[name].append(torch.as_tensor(value, dtype=dtype))
    if not ts:
        raise ValueError("iterates: wanted at least one, got none")
    return {"t": torch.tensor(ts)} | {name: torch.stack(v) for name, v in values.items()}
