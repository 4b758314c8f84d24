r"""Update rules: how a method turns the gradients of the layers into the next layers.

A `Rule` is what it remembers at the start and a step. The trainer, `descent.train`, hands it the
gradients :math:`G_l = \nabla_l\ell + \lambda W_l`, decay included, and the step size of each layer;
a new method is a function here that returns a `Rule`. The law of parsimony holds for rules linear
in the gradients seen so far, `gradient_descent`, `momentum` and `nesterov`, and its blocks stay for
spectral functions of these, such as `muon`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks, spectra

__all__ = [
    "Memory",
    "Rule",
    "StepSize",
    "from_torch",
    "gradient_descent",
    "momentum",
    "muon",
    "nesterov",
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
    memory out. What goes in is not changed."""
    decays: bool = False
    """Whether the step applies the decay; if not, its part is in the gradients already."""


StepSize = float | Sequence[float] | Tensor
"""One number for all layers, one for each layer, or a tensor with one for each run."""


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


def nesterov(beta: float) -> Rule:
    r"""Return Nesterov's momentum, which looks one step of the velocity ahead.

    .. math:: M_l \leftarrow \beta M_l + G_l, \qquad W_l \leftarrow W_l - \eta_l(G_l + \beta M_l)

    The layers are those at which gradients are taken, as in torch, not those before the look ahead.

    Parameters
    ----------
    beta : float
        From 0, which is `gradient_descent`, to below 1.

    Raises
    ------
    TypeError, ValueError
        If ``beta`` is out of range.

    References
    ----------
    Nesterov (1983), Soviet Mathematics Doklady 27; the form is that of Sutskever et al. (2013).

    Examples
    --------
    >>> rule, W, G = nesterov(0.5), torch.tensor([[1.0]]), torch.tensor([[1.0]])
    >>> rule.step([W], None, [G], [0.1], 0.0, rule.start([W]))[0]  # 1.5 times a plain step
    [tensor([[0.8500]])]
    """
    beta, plain = _checks.fraction("beta", beta), momentum(beta)

    def step(Ws, value, grads, rates, lam, memory):
        _, memory = plain.step(Ws, value, grads, rates, lam, memory)
        ahead = [
            torch.add(G, M, alpha=beta) for G, M in zip(grads, memory["velocity"], strict=True)
        ]
        return _moved(Ws, ahead, rates), memory

    return plain._replace(name="Nesterov", step=step)


def muon(
    beta: float = 0.95, orthogonalise: Callable[[Tensor], Tensor] = spectra.newton_schulz
) -> Rule:
    r"""Return Muon: momentum whose every step has singular values near one.

    With the gradients :math:`G_l` and ``f`` = ``orthogonalise``

    .. math::

        M_l \leftarrow \beta M_l + (1 - \beta) G_l, \qquad W_l \leftarrow (1 - \eta_l\lambda) W_l
        - \eta_l \sqrt{\max(1, d_l/d_{l-1})}\, f(\beta M_l + (1 - \beta) G_l)

    This is `torch.optim.Muon` in the precision of the layers; that one orthogonalises in bfloat16.

    Parameters
    ----------
    beta : float
        Momentum, from 0 to below 1.
    orthogonalise : callable
        Takes a matrix, or one for each run, to one of its shape, such as `spectra.polar`.

    Raises
    ------
    TypeError, ValueError
        If ``beta`` is out of range or ``orthogonalise`` no function.

    References
    ----------
    Jordan et al. (2024), https://kellerjordan.github.io/posts/muon.

    Examples
    --------
    >>> rule, W, G = muon(beta=0.0), torch.zeros(1, 1), torch.tensor([[7.0]])
    >>> rule.step([W], None, [G], [0.1], 0.0, rule.start([W]))[0]
    [tensor([[-0.0696]])]
    """
    beta = _checks.fraction("beta", beta)
    if not callable(orthogonalise):
        kind = type(orthogonalise).__name__
        raise TypeError(f"orthogonalise: wanted a function of a matrix, got {kind}")

    def turned(G):
        lost = ~G.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)  # runs that diverged
        S = orthogonalise(G.masked_fill(lost, 0))
        if getattr(S, "shape", None) != G.shape:
            got = tuple(S.shape) if isinstance(S, Tensor) else type(S).__name__
            raise ValueError(f"orthogonalise: wanted shape {tuple(G.shape)}, got {got}")
        return S.masked_fill(lost, torch.nan)

    def start(Ws):
        return {"momentum": [torch.zeros_like(W) for W in Ws]}

    def step(Ws, value, grads, rates, lam, memory):
        M = [torch.lerp(G, A, beta) for G, A in zip(grads, memory["momentum"], strict=True)]
        steps = [turned(torch.lerp(G, A, beta)) for G, A in zip(grads, M, strict=True)]
        steps = [max(1, S.shape[-2] / S.shape[-1]) ** 0.5 * S for S in steps]
        if lam:
            steps = [torch.add(S, W, alpha=lam) for S, W in zip(steps, Ws, strict=True)]
        return _moved(Ws, steps, rates), {"momentum": M}

    return Rule("Muon", start, step, decays=True)


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
