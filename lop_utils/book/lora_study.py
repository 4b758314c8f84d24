r"""Ways to adapt a small transformer, trained side by side from every seed at every step size.

An `Arm` says which layers get which factors, and what moves them. `few_shot` puts adapters of
`lop_utils.adapters` into a copy of the model for each seed, stacks what is trained, and runs all
copies together through `torch.func`. Task and model are those of `lora_task`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from lop_utils import adapters, init, spectra
from lop_utils.book.lora_task import (
    LAYERS,
    Task,
    Transformer,
    fitted_heads,
    gradients,
    sample,
    with_head,
)

__all__ = ["Arm", "Result", "angles", "best", "compare", "few_shot", "product", "product_arm"]


class Arm(NamedTuple):
    """A way to adapt."""

    make: Callable[..., nn.Module] | None
    """As of `adapters.adapt`; None trains the head alone."""
    names: Sequence[str] = LAYERS
    """Which layers."""
    ratios: Sequence[float] | None = None
    """What multiplies the step size of each factor; None stands for ones."""
    rule: str = "adamw"
    """Or "gd", or "muon": what moves the factors. The head has AdamW in all arms."""
    first: bool = False
    """Whether ``make`` is handed the first gradient."""
    random: bool = True
    """Whether ``make`` draws."""


def product(
    linear: nn.Linear, width: int | None, L: int, eps: float, last: float, *, generator=None
) -> adapters.Adapter:
    """Return an adapter of L orthogonal factors times eps, the last one times ``last`` besides.

    Parameters
    ----------
    linear, width, L, eps, last, generator
        Layer; columns of the factors, None for the smaller side of the layer; depth; start.

    Examples
    --------
    >>> product(nn.Linear(4, 3), width=2, L=2, eps=1.0, last=0.0, generator=0).delta().norm()
    tensor(0., grad_fn=<LinalgVectorNormBackward0>)
    """
    weight = linear.weight
    width = min(weight.shape) if width is None else width
    dims = (weight.shape[1], *[width] * (L - 1), weight.shape[0])
    *inner, outer = init.orthogonal(dims, eps, generator=generator, dtype=weight.dtype)
    return adapters.Adapter(linear, [*inner, last * outer])


def product_arm(L: int, width: int | None, small: bool, names: Sequence[str] = LAYERS) -> Arm:
    """Return an arm of the 2 x 2 x 2 comparison.

    Parameters
    ----------
    L, width, small, names
        Depth; width, None for full; all factors at 1e-3, or all at 1 but the last, which is 0.

    Examples
    --------
    >>> product_arm(2, 8, False).make(nn.Linear(32, 32), generator=0).count()
    512
    """
    start = dict(eps=1e-3, last=1.0) if small else dict(eps=1.0, last=0.0)
    return Arm(partial(product, width=width, L=L, **start), names)


def _adapted(
    task: Task, arm: Arm, heads: dict[str, Tensor], seed: int, chosen: Tensor
) -> Transformer:
    model = with_head(task, heads, seed)
    if arm.make:
        G = gradients(task, heads, seed, chosen, arm.names) if arm.first else None
        draw = seed if arm.random else None
        adapters.adapt(model, arm.names, arm.make, gradients=G, generator=draw)
        model.head.requires_grad_(True)
    return model


def _moves(rule: str, P: Tensor, memory: dict[str, Tensor], G: Tensor, t: int) -> Tensor:
    if rule == "gd":
        return G
    M = memory.setdefault("M", torch.zeros_like(P))
    if rule == "muon":
        M.mul_(0.95).add_(G)
        return spectra.newton_schulz(G + 0.95 * M)  # Nesterov's
    V = memory.setdefault("V", torch.zeros_like(P))
    M.mul_(0.9).add_(G, alpha=0.1)
    V.mul_(0.999).addcmul_(G, G, value=0.001)
    return M / (1 - 0.9**t) / ((V / (1 - 0.999**t)).sqrt() + 1e-8)


class Result(NamedTuple):
    """What an arm came to, by step size and seed."""

    etas: list[float]
    """The step sizes."""
    val: Tensor
    """Accuracy on the images that choose, shape (step sizes, seeds)."""
    test: Tensor
    """Accuracy on the test, of the same shape."""
    loss: Tensor
    """Loss on the sample in the last step, of the same shape."""
    deltas: dict[str, Tensor]
    """Final updates of the layers by name, shape (step sizes, seeds, d_out, d_in)."""
    count: int
    """Numbers trained besides the head's."""


def few_shot(
    task: Task, arm: Arm, etas: Sequence[float], *, n: int, seeds: int, steps: int, head: float
) -> Result:
    r"""Return what an arm comes to from every seed at every step size, all side by side.

    First a head is fitted to the features, then head and factors move together on all n images
    for ``steps`` steps; all step sizes fall linearly to zero.

    Parameters
    ----------
    task, arm : Task, Arm
        What is learned, and how.
    etas : sequence of float
        Step sizes of the factors.
    n, seeds, steps, head
        Images to learn from; seeds 0, 1, ... of samples and starts; steps; step size of the head.

    Examples
    --------
    >>> task = Task(Transformer(4, 4, 2), torch.randn(20, 4, 4), torch.arange(20) % 2, 4, 4)
    >>> few_shot(task, Arm(None), [1.0], n=6, seeds=2, steps=2, head=0.01).test.shape
    torch.Size([1, 2])
    """
    chosen = torch.stack([sample(task, n, seed) for seed in range(seeds)])
    heads = fitted_heads(task, chosen, steps=steps, eta=head)
    models = [_adapted(task, arm, heads, seed, part) for seed, part in enumerate(chosen)]
    named = [dict(model.named_parameters()) for model in models]
    stacked = {  # what is trained, and a base that a start has changed
        name: torch.stack([each[name].detach() for each in named])
        for name, p in named[0].items()
        if p.requires_grad or any(not torch.equal(p, each[name]) for each in named)
    }
    E, S = len(etas), seeds
    runs = {name: A.repeat(E, *[1] * (A.ndim - 1)) for name, A in stacked.items()}
    P = {name: runs[name].requires_grad_() for name in runs if named[0][name].requires_grad}
    eta = torch.tensor(etas).repeat_interleave(S)
    x, y = task.X[chosen].repeat(E, 1, 1, 1), task.y[chosen].repeat(E, 1)
    shared = {name: p for name, p in named[0].items() if name not in runs}

    def outputs(runs: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(models[0], shared | runs, (x,))

    train, measure = vmap(outputs), vmap(outputs, in_dims=(0, None))
    memory = {name: {} for name in P}
    for t in range(1, steps + 1):
        loss = F.cross_entropy(train(runs, x).mT, y, reduction="none").mean(1)
        grads = torch.autograd.grad(loss.sum(), list(P.values()))
        left = 1 - (t - 1) / steps
        for (name, p), G in zip(P.items(), grads, strict=True):
            size, rule = head, "adamw"
            if not name.startswith("head"):
                ratio = arm.ratios[int(name.rpartition(".")[2])] if arm.ratios else 1.0
                size, rule = ratio * eta.view(-1, *[1] * (p.ndim - 1)), arm.rule
            p.data -= left * size * _moves(rule, p.data, memory[name], G, t)
    with torch.no_grad():
        parts = task.X[: task.val + task.test].split(100)
        out = torch.cat([measure(runs, part) for part in parts], 1)
        right = (out.argmax(-1) == task.y[: out.shape[1]]).float().view(E, S, -1)
    adapted = {
        name: module for name, module in models[0].named_modules() if hasattr(module, "delta")
    }
    deltas = {}
    for name, module in adapted.items():
        factors = [P[f"{name}.factors.{l}"].detach() for l in range(len(module.factors))]
        W = reduce(lambda product, W: W @ product, factors)
        deltas[name] = (module.scale * W).view(E, S, *W.shape[1:])
    val, test = right[..., : task.val].mean(-1), right[..., task.val :].mean(-1)
    count = sum(module.count() for module in adapted.values())
    return Result(list(etas), val, test, loss.detach().view(E, S), deltas, count)


def best(result: Result) -> int:
    """Return the place of the step size whose mean accuracy on the choosing images is largest.

    Parameters
    ----------
    result
        From `few_shot`.

    Examples
    --------
    >>> val = torch.tensor([[0.5, 0.6], [0.7, 0.6]])
    >>> best(Result([0.1, 0.2], val, val, val, {}, 0))
    1
    """
    return int(result.val.mean(1).argmax())


def compare(
    task: Task, arms: Mapping[str, tuple[Arm, Sequence[float]]], **sizes: Any
) -> dict[str, dict[str, Any]]:
    """Return what each arm came to, as a record keeps it.

    Parameters
    ----------
    task : Task
        What is learned.
    arms : mapping
        Arm and step sizes, by name.
    **sizes
        As of `few_shot`.

    Returns
    -------
    dict
        By name ``etas``, ``val``, ``test``, ``loss`` and ``count`` of its `Result`.

    Examples
    --------
    >>> task = Task(Transformer(4, 4, 2), torch.randn(20, 4, 4), torch.arange(20) % 2, 4, 4)
    >>> found = compare(task, {"head": (Arm(None), [1.0])}, n=6, seeds=2, steps=2, head=0.1)
    >>> found["head"]["count"]
    0
    """
    found = {
        name: few_shot(task, arm, etas, **sizes)._asdict() for name, (arm, etas) in arms.items()
    }
    return {name: {k: v for k, v in each.items() if k != "deltas"} for name, each in found.items()}


def angles(A: Tensor, B: Tensor, k: int) -> Tensor:
    """Return the cosines of all principal angles of two matrices' leading subspaces, descending.

    Parameters
    ----------
    A, B, k
        Matrices of one shape, with leading axes; how many singular vectors of each.

    Returns
    -------
    Tensor
        Shape ``(2, ..., k)``: of the left ones, of the right ones.

    Examples
    --------
    >>> A, B = torch.diag(torch.tensor([3.0, 2.0, 0.0])), torch.diag(torch.tensor([3.0, 0.0, 2.0]))
    >>> angles(A, B, 2)[0]
    tensor([1., 0.])
    """
    (U, _, Vh), (P, _, Qh) = (torch.linalg.svd(M, full_matrices=False) for M in (A, B))
    left = torch.linalg.svdvals(U[..., :k].mT @ P[..., :k])
    return torch.stack([left, torch.linalg.svdvals(Vh[..., :k, :] @ Qh[..., :k, :].mT)])
