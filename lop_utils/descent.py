"""Training as a stream: generators of iterates that a caller can stop, zip or measure."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lop_utils import _checks, dln, losses
from lop_utils.checkpoints import Iterate, record, resume

__all__ = [
    "Iterate",
    "adam",
    "gradient_descent",
    "heavy_ball",
    "minibatch_sgd",
    "record",
    "resume",
]

_Step = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
_Memory = dict[str, list[Tensor]]


def _start(
    Ws: Sequence[Tensor] | Iterate, steps: int, *remembered: str
) -> tuple[range, list[Tensor], _Memory]:
    """Return the steps to come, and own copies of the layers and of what the method remembers."""
    earlier = Ws if isinstance(Ws, Iterate) else None
    Ws = [W.detach().clone() for W in _checks.layers("Ws", earlier.Ws if earlier else Ws)]
    steps = _checks.count("steps", steps)
    if earlier is None:
        return range(steps + 1), Ws, {}
    memory = earlier.memory or {}
    if set(memory) != set(remembered):
        wanted, got = (", ".join(sorted(names)) or "nothing" for names in (remembered, memory))
        raise ValueError(
            f"Ws: wanted an iterate of the same method, which remembers {wanted}, got one that "
            f"remembers {got}; its layers alone start a new run"
        )
    if steps < _checks.count("t", earlier.t):
        raise ValueError(
            f"steps: wanted steps >= t = {earlier.t} of the iterate to go on from, got {steps}"
        )
    return range(earlier.t, steps + 1), Ws, _copied(memory)


def _copied(memory: _Memory) -> _Memory:
    return {name: [A.clone() for A in As] for name, As in memory.items()}


def _rates(eta: float | Sequence[float], L: int) -> list[float]:
    """Return the step size of each of ``L`` layers."""
    if not isinstance(eta, Sequence):
        return [_checks.positive("eta", eta)] * L
    if len(eta) != L:
        raise ValueError(f"eta: wanted one or L = {L} step sizes, got {len(eta)}")
    rates = [_checks.nonnegative(f"eta[{l}]", rate) for l, rate in enumerate(eta)]
    if not any(rates):
        raise ValueError(f"eta: wanted at least one layer with eta[l] > 0, got {tuple(eta)}")
    return rates


def _descend(ts: range, Ws, residual, step: _Step, *, eta, memory=None) -> Iterator[Iterate]:
    for t in ts:
        loss, grads = dln.gradients(Ws, residual)
        if not math.isfinite(loss.item()):
            of_each = isinstance(eta, Sequence)
            rates = f"({', '.join(f'{rate:g}' for rate in eta)})" if of_each else f"{eta:g}"
            raise FloatingPointError(
                f"loss: wanted a finite number, got {loss.item()} at step t = {t} with "
                f"eta = {rates}; a smaller eta keeps the run from diverging"
            )
        yield Iterate(t, [W.clone() for W in Ws], loss, memory and _copied(memory))
        if t + 1 < ts.stop:
            Ws = step(Ws, grads)


def gradient_descent(
    Ws: Sequence[Tensor] | Iterate,
    residual: dln.Residual,
    *,
    eta: float | Sequence[float],
    lam: float = 0.0,
    steps: int,
) -> Iterator[Iterate]:
    r"""Run gradient descent with weight decay on all layers at once.

    .. math:: W_l(t+1) = (1 - \eta_l\lambda)\,W_l(t) - \eta_l\,\nabla_l\ell(W(t))

    Parameters
    ----------
    Ws : sequence of Tensor, or Iterate
        Layers at ``t = 0``; ``W_l`` has shape ``(d_l, d_{l-1})``. They are not changed. An
        iterate of this method goes on from there, digit for digit.
    residual : callable
        Takes the end-to-end matrix; returns the loss and its gradient in that matrix.
    eta : float or sequence of float
        Step size of all layers, or of each, where 0 freezes a layer; for a loss that sums over
        entries or samples. Authors' code that averages over d_y d_x entries means ``eta`` times
        ``1 / (d_y d_x)`` here.
    lam : float
        Weight decay.
    steps : int
        Number of steps from ``t = 0``, the first iterate of the stream unless ``Ws`` is one,
        to the last.

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
    Yaras et al. (2023), arXiv:2306.01154, the iteration of the theorem; a step size for each
    layer: Kwon et al. (2024), arXiv:2311.05061, who call them discrepant learning rates.

    Examples
    --------
    >>> from lop_utils import losses
    >>> Ws = [torch.tensor([[1.0]]), torch.tensor([[1.0]])]
    >>> run = gradient_descent(Ws, losses.matrix_residual(torch.tensor([[2.0]])), eta=0.1, steps=2)
    >>> [round(iterate.loss.item(), 3) for iterate in run]
    [0.5, 0.312, 0.175]
    """
    ts, Ws, _ = _start(Ws, steps)
    rates, lam = _rates(eta, len(Ws)), _checks.nonnegative("lam", lam)

    def step(Ws: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        if lam:  # a product less for each layer without, and the same digits
            Ws = [(1 - rate * lam) * W for rate, W in zip(rates, Ws, strict=True)]
        return [W - rate * G for rate, W, G in zip(rates, Ws, grads, strict=True)]

    return _descend(ts, Ws, residual, step, eta=eta)


def heavy_ball(
    Ws: Sequence[Tensor] | Iterate,
    residual: dln.Residual,
    *,
    eta: float | Sequence[float],
    beta: float,
    lam: float = 0.0,
    steps: int,
) -> Iterator[Iterate]:
    r"""Run gradient descent with heavy-ball momentum.

    .. math:: M_l \leftarrow \beta M_l + \nabla_l\ell + \lambda W_l, \qquad
              W_l \leftarrow W_l - \eta_l M_l

    Parameters
    ----------
    Ws : sequence of Tensor, or Iterate
        Layers at ``t = 0``; ``W_l`` has shape ``(d_l, d_{l-1})``. They are not changed. An
        iterate of this method goes on from there, digit for digit.
    residual : callable
        Takes the end-to-end matrix; returns the loss and its gradient in that matrix.
    eta : float or sequence of float
        Step size of all layers, or of each, where 0 freezes a layer; for a loss that sums over
        entries or samples.
    beta : float
        Momentum, from 0 (which is `gradient_descent`) to below 1.
    lam : float
        Weight decay.
    steps : int
        Number of steps from ``t = 0``, the first iterate of the stream unless ``Ws`` is one,
        to the last.

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
    ts, Ws, memory = _start(Ws, steps, "velocity")
    rates, lam = _rates(eta, len(Ws)), _checks.nonnegative("lam", lam)
    if not _checks.nonnegative("beta", beta) < 1:
        raise ValueError(f"beta: wanted 0 <= beta < 1, got {beta!r}")
    velocity = memory.setdefault("velocity", [torch.zeros_like(W) for W in Ws])

    def step(Ws: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        for l, (W, G) in enumerate(zip(Ws, grads, strict=True)):
            velocity[l] = beta * velocity[l] + G + lam * W
        return [W - rate * M for rate, W, M in zip(rates, Ws, velocity, strict=True)]

    return _descend(ts, Ws, residual, step, eta=eta, memory=memory)


def minibatch_sgd(
    Ws: Sequence[Tensor] | Iterate,
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
    Ws : sequence of Tensor, or Iterate
        Layers at ``t = 0``; ``W_l`` has shape ``(d_l, d_{l-1})``. They are not changed. An
        iterate of this method goes on from there, digit for digit.
    X : Tensor, shape (d_x, N)
        Inputs in columns.
    Y : Tensor, shape (d_y, N)
        Labels in columns.
    eta : float
        Step size, for a loss that sums over the samples.
    batch : int
        Samples a step; N gives `gradient_descent`.
    steps : int
        Number of steps from ``t = 0``, the first iterate of the stream unless ``Ws`` is one,
        to the last.
    generator : torch.Generator, optional
        Source of randomness, on the CPU; torch's global one if absent. A run that goes on from
        an iterate first puts it into the state of that time.

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
    ts, Ws, memory = _start(Ws, steps, "generator")
    eta = _checks.positive("eta", eta)
    N = X.shape[1]
    if _checks.count("batch", batch, at_least=1) > N:
        raise ValueError(f"batch: wanted at most N = {N} samples, got {batch}")

    source = torch.default_generator if generator is None else generator

    def step(Ws: list[Tensor], _: list[Tensor]) -> list[Tensor]:
        drawn = torch.randperm(N, generator=source)[:batch].to(X.device)
        memory["generator"] = [source.get_state()]
        part = losses.data_residual(X[:, drawn], Y[:, drawn])
        grads = dln.gradients(Ws, part).grads
        return [W - eta * N / batch * G for W, G in zip(Ws, grads, strict=True)]

    def stream() -> Iterator[Iterate]:
        if memory:  # only now: until the first iterate is asked for nothing happens
            source.set_state(memory["generator"][0])
        memory["generator"] = [source.get_state()]
        yield from _descend(ts, Ws, full, step, eta=eta, memory=memory)

    return stream()


def adam(
    Ws: Sequence[Tensor] | Iterate, residual: dln.Residual, *, eta: float, steps: int
) -> Iterator[Iterate]:
    """Run Adam on all layers, with torch's defaults for everything but the step size.

    Parameters
    ----------
    Ws : sequence of Tensor, or Iterate
        Layers at ``t = 0``; ``W_l`` has shape ``(d_l, d_{l-1})``. They are not changed. An
        iterate of this method goes on from there, digit for digit.
    residual : callable
        Takes the end-to-end matrix; returns the loss and its gradient in that matrix.
    eta : float
        Step size: roughly how far each entry of each layer moves in one step.
    steps : int
        Number of steps from ``t = 0``, the first iterate of the stream unless ``Ws`` is one,
        to the last.

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
    ts, params, memory = _start(Ws, steps, "step", "exp_avg", "exp_avg_sq")
    eta = _checks.positive("eta", eta)
    optimiser = torch.optim.Adam(params, lr=eta)
    memory = memory or {
        "step": [torch.tensor(0.0, device="cpu") for _ in params],
        "exp_avg": [torch.zeros_like(W) for W in params],
        "exp_avg_sq": [torch.zeros_like(W) for W in params],
    }
    for l, W in enumerate(params):  # the optimiser changes these tensors in place
        optimiser.state[W] = {name: As[l] for name, As in memory.items()}

    def step(params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        for W, G in zip(params, grads, strict=True):
            W.grad = G
        optimiser.step()
        return params

    return _descend(ts, params, residual, step, eta=eta, memory=memory)
