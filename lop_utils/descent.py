"""Training as a stream: generators of iterates that a caller can stop, zip or measure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks, dln

__all__ = ["Iterate", "adam", "gradient_descent", "record"]


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
