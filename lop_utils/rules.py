r"""Update rules: how a method turns the gradients of the layers into the next layers.

A `Rule` is what it remembers at the start and a step. The trainer, `descent.train`, hands it the
gradients :math:`G_l = \nabla_l\ell + \lambda W_l`, decay included, and the step size of each layer;
a new method is a function here that returns a `Rule`. The law of parsimony holds for the rules
that are linear in the gradients seen so far: `gradient_descent` and `momentum`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = [
    "Memory",
    "Rule",
    "StepSize",
    "bold_driver",
    "from_torch",
    "gradient_descent",
    "momentum",
    "step_sizes",
]

Memory = dict[str, list[Tensor]]
"""What a method knows beyond the layers, by name: a tensor for each layer, or single ones."""


def _copied(memory: Memory) -> Memory:
    return {name: [A.clone() for A in As] for name, As in memory.items()}


class Rule(NamedTuple):
    """An update rule."""

    name: str
    """What a run of it is called: one goes on only with the rule that it began with."""
    start: Callable[[list[Tensor]], Memory]
    """Layers in, memory before the first step out."""
    step: Callable[..., tuple[list[Tensor], Memory]]
    """Layers, loss, gradients, step sizes of the layers, decay and memory in; next layers and
    memory out. The decay's part of the gradients is in them already. What goes in is not
    changed."""


StepSize = float | Sequence[float] | Tensor
"""One number for all layers, one for each layer, or a tensor with one for each run."""


def step_sizes(eta: StepSize, Ws: Sequence[Tensor]) -> list[float] | list[Tensor]:
    """Return the step size of each layer.

    Parameters
    ----------
    eta : float, sequence of float, or Tensor
        One for all layers; one for each, where 0 freezes a layer; or one for each run, as a
        tensor of the runs' axes.
    Ws : sequence of Tensor
        Layers.

    Returns
    -------
    list
        L of them: numbers, or tensors of shape ``(..., 1, 1)``.

    Raises
    ------
    TypeError, ValueError
        If there are others than one, L or one for each run, or one is out of range.

    Examples
    --------
    >>> step_sizes(0.1, [torch.eye(2), torch.eye(2)])
    [0.1, 0.1]
    """
    return _rates(eta, _checks.chain("Ws", Ws))


def _rates(eta: StepSize, Ws: list[Tensor]) -> list[float] | list[Tensor]:
    runs = Ws[0].shape[:-2]
    if hasattr(eta, "__array__"):
        eta = _checks.scalars("eta", eta)
    if isinstance(eta, Tensor) and eta.ndim:
        if eta.shape != runs or not (eta > 0).all():
            raise ValueError(f"eta: wanted positive step sizes of shape {tuple(runs)}, got {eta}")
        return [eta.to(Ws[0])[..., None, None]] * len(Ws)
    many = isinstance(eta, Sequence) and not isinstance(eta, str)
    check = _checks.nonnegative if many else _checks.positive
    rates = _checks.each("eta", eta, len(Ws), "step sizes", check)
    if not any(rates):
        raise ValueError(f"eta: wanted at least one layer with eta[l] > 0, got {tuple(eta)}")
    return rates


def _shown(eta: StepSize) -> str:
    many = getattr(eta, "ndim", 1) and hasattr(eta, "__len__")
    return f"({', '.join(f'{rate:g}' for rate in eta)})" if many else f"{eta:g}"


def _moved(Ws: list[Tensor], grads: list[Tensor], rates: list) -> list[Tensor]:
    if isinstance(rates[0], Tensor):
        return [W - rate * G for W, G, rate in zip(Ws, grads, rates, strict=True)]
    return [torch.sub(W, G, alpha=r) for W, G, r in zip(Ws, grads, rates, strict=True)]


def gradient_descent() -> Rule:
    r"""Return plain gradient descent, :math:`W_l \leftarrow W_l - \eta_l G_l`.

    Returns
    -------
    Rule

    Examples
    --------
    >>> W, G = torch.tensor([[1.0]]), torch.tensor([[0.5]])
    >>> gradient_descent().step([W], None, [G], [0.1], 0.0, {})
    ([tensor([[0.9500]])], {})
    """

    def step(Ws, value, grads, rates, lam, memory):
        return _moved(Ws, grads, rates), memory

    return Rule("gradient descent", lambda Ws: {}, step)


def momentum(beta: float) -> Rule:
    r"""Return heavy-ball momentum.

    .. math:: M_l \leftarrow \beta M_l + G_l, \qquad W_l \leftarrow W_l - \eta_l M_l

    Parameters
    ----------
    beta : float
        From 0, which is `gradient_descent`, to below 1.

    Returns
    -------
    Rule

    Raises
    ------
    TypeError, ValueError
        If ``beta`` is out of range.

    References
    ----------
    Polyak (1964), doi:10.1016/0041-5553(64)90137-5.

    Examples
    --------
    >>> rule, W, G = momentum(0.5), torch.tensor([[1.0]]), torch.tensor([[1.0]])
    >>> Ws, memory = rule.step([W], None, [G], [0.1], 0.0, rule.start([W]))
    >>> rule.step(Ws, None, [G], [0.1], 0.0, memory)[1]  # half of the first step is in it
    {'velocity': [tensor([[1.5000]])]}
    """
    beta = _checks.fraction("beta", beta)

    def start(Ws):
        return {"velocity": [torch.zeros_like(W) for W in Ws]}

    def step(Ws, value, grads, rates, lam, memory):
        velocity = [beta * M + G for M, G in zip(memory["velocity"], grads, strict=True)]
        return _moved(Ws, velocity, rates), {"velocity": velocity}

    return Rule("momentum", start, step)


def from_torch(optimiser: type[torch.optim.Optimizer], **options: Any) -> Rule:
    """Return the rule of an optimiser of torch, such as ``torch.optim.Adam``.

    Parameters
    ----------
    optimiser : type
        A class of `torch.optim` that steps without a closure; it is given a step size for each
        layer.
    **options
        Passed on to it; its ``lr`` and ``weight_decay`` are the trainer's ``eta`` and ``lam``.

    Returns
    -------
    Rule
        It remembers what the optimiser keeps of each layer, by torch's names.

    Raises
    ------
    TypeError
        If it is no optimiser, or ``lr`` is among the options; while running, if step sizes differ
        from run to run, which torch does not offer.

    References
    ----------
    Adam: Kingma and Ba (2015), arXiv:1412.6980.

    Examples
    --------
    >>> rule, W, G = from_torch(torch.optim.Adam), torch.tensor([[1.0]]), torch.tensor([[7.0]])
    >>> (moved,), memory = rule.step([W], None, [G], [0.1], 0.0, rule.start([W]))
    >>> round(moved.item(), 6), sorted(memory)  # the first step has the length eta
    (0.9, ['exp_avg', 'exp_avg_sq', 'step'])
    """
    if not (isinstance(optimiser, type) and issubclass(optimiser, torch.optim.Optimizer)):
        raise TypeError(f"optimiser: wanted a class of torch.optim, got {optimiser!r}")
    if "lr" in options:
        raise TypeError(f"lr: wanted eta of the trainer in its place, got lr = {options['lr']}")

    def step(Ws, value, grads, rates, lam, memory):
        if any(isinstance(rate, Tensor) for rate in rates):
            raise TypeError(f"eta: wanted one step size for all runs with {optimiser.__name__}")
        params = [W.clone() for W in Ws]
        groups = [{"params": [W], "lr": rate} for W, rate in zip(params, rates, strict=True)]
        method = optimiser(groups, **options)
        for l, (W, G) in enumerate(zip(params, grads, strict=True)):
            W.grad = G
            if memory:  # the optimiser changes its state in place
                method.state[W] = {name: As[l].clone() for name, As in memory.items()}
        method.step()
        names = method.state[params[0]]
        return params, {name: [method.state[W][name] for W in params] for name in names}

    return Rule(optimiser.__name__, lambda Ws: {}, step)


def bold_driver(*, grow: float = 1.05, shrink: float = 0.5, most: float) -> Rule:
    r"""Return gradient descent that adapts its step size and takes bad steps back.

    After a step that did not raise the loss the step sizes grow by a factor; one that did is
    undone, and they shrink. ``eta`` is where they start; their ratios stay.

    Parameters
    ----------
    grow, shrink : float
        The two factors.
    most : float
        How far the step sizes may grow, as a multiple of ``eta``.

    Returns
    -------
    Rule
        It remembers ``kept`` and ``kept_grads``, the last layers that were accepted, their
        ``kept_value`` (loss, and loss with decay) and the ``factor`` of the step sizes. An
        iterate's own layers are those tried next.

    Raises
    ------
    TypeError, ValueError
        If a factor is not positive; from the trainer, if there are several runs.

    References
    ----------
    Battiti (1989), Complex Systems 3.

    Examples
    --------
    >>> rule, W, G = bold_driver(most=2.0), torch.tensor([[1.0]]), torch.tensor([[1.0]])
    >>> Ws, memory = rule.step([W], torch.tensor(0.5), [G], [4.0], 0.0, {})
    >>> Ws, memory = rule.step(Ws, torch.tensor(4.5), [-3 * G], [4.0], 0.0, memory)  # worse
    >>> Ws, memory["factor"]
    ([tensor([[-1.]])], [tensor(0.5000, dtype=torch.float64)])
    """
    grow, shrink = _checks.positive("grow", grow), _checks.positive("shrink", shrink)
    most = _checks.positive("most", most)

    def step(Ws, value, grads, rates, lam, memory):
        factor = memory["factor"][0] if memory else torch.ones((), dtype=torch.float64)
        decay = 0.5 * lam * sum(W.square().sum() for W in Ws) if lam else 0.0
        found = {"kept": Ws, "kept_grads": grads, "kept_value": [value, value + decay]}
        if memory:
            rounded = 1 + 64 * torch.finfo(value.dtype).eps
            # Where the start is small the loss falls by less than it is rounded; NaN is refused.
            if value + decay <= rounded * memory["kept_value"][1]:
                factor = (grow * factor).clamp(max=most)
            else:
                factor = shrink * factor
                found = {name: memory[name] for name in found}
                Ws, grads = found["kept"], found["kept_grads"]
        rates = [factor.item() * rate for rate in rates]
        return _moved(Ws, grads, rates), {**found, "factor": [factor]}

    def start(Ws):
        if Ws[0].ndim > 2:
            raise ValueError(f"Ws: wanted one run, got {tuple(Ws[0].shape[:-2])} side by side")
        return {}

    return Rule("bold driver", start, step)
