r"""Adapters that gradients shape: where they start by the first one, their ranks by all of them.

``linear`` is the layer, ``G`` the gradient of a loss in its weight before it is adapted,
``(d_out, d_in)``, from `first_gradients`. ``r`` and ``k`` are columns of the factors, ``scale``
what multiplies their product, ``eps`` and ``L`` start and number of the inner ones, ``generator``
a `torch.Generator` or a seed. ``model`` has adapters, put into it by `adapters.adapt`, which also
says what ``names`` are.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lop_utils import _adapting, _checks, _gradients, init
from lop_utils._adapting import Seed
from lop_utils._gradients import Importance
from lop_utils.adapters import Adapter

__all__ = [
    "AdaLoRA",
    "allocate",
    "budget",
    "deep_lora_aligned",
    "deep_lora_compressed",
    "first_gradients",
    "importance",
    "lora_ga",
    "lora_one",
    "orthogonality",
    "prune",
]


def first_gradients(
    model: nn.Module, names: str | Sequence[str], loss: Callable[[nn.Module], Tensor]
) -> dict[str, Tensor]:
    """Return the gradient of a loss in the weight of every Linear layer that a name ends.

    Nothing is left behind: no ``grad``, and what was frozen is frozen again.

    Parameters
    ----------
    model, names, loss
        Before it is adapted; takes the model and returns the loss of the first batch, say.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> first_gradients(model, "0", lambda model: model(torch.tensor([[3.0, 4.0]])).sum())
    {'0': tensor([[3., 4.]])}
    """
    return _gradients.weight_gradients(model, _adapting.matched(model, names), loss)


def lora_one(linear: nn.Linear, G: Tensor, r: int, scale: float, eta: float) -> Adapter:
    r"""Return LoRA-One: it starts after one step of descent, :math:`-\eta\,G` cut to rank r.

    Parameters
    ----------
    linear, G, r, scale, eta
        Size of the step, whose singular values both factors share.

    References
    ----------
    Zhang, Liu and Chen (2025), arXiv:2502.01235.

    Examples
    --------
    >>> start = lora_one(nn.Linear(2, 2), torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 1, 2.0, eta=0.1)
    >>> torch.allclose(start.delta(), torch.tensor([[-0.3, 0.0], [0.0, 0.0]]))
    True
    """
    r = _adapting.narrow("r", r, linear)
    U, s, Vh = _gradients.directions(linear, G, r, at_least=r)
    root = (_checks.positive("eta", eta) * s / _checks.positive("scale", scale)).sqrt()
    return Adapter(linear, [root[:, None] * Vh, U * root], scale)


def lora_ga(linear: nn.Linear, G: Tensor, r: int, scale: float, size: float) -> Adapter:
    r"""Return LoRA-GA: A on the first r right singular vectors of G, B on the next r left ones.

    What they make is taken from a copy of the frozen weight, so that the model starts as it was.

    Parameters
    ----------
    linear, G, r, scale, size
        Singular values of both factors, :math:`d_{out}^{1/4}\gamma^{-1/2}` of its authors.

    References
    ----------
    Wang, Yu and Li (2024), arXiv:2407.05000.

    Examples
    --------
    >>> layer = nn.Linear(4, 4)
    >>> start = lora_ga(layer, torch.eye(4), 2, 1.0, size=0.5)
    >>> torch.allclose(start.weight, layer.weight, atol=1e-6)
    True
    """
    r, size = _checks.count("r", r, at_least=1), _checks.positive("size", size)
    both = _adapting.narrow("2 r", 2 * r, linear)
    U, _, Vh = _gradients.directions(linear, G, both, at_least=both)
    start = Adapter(linear, [size * Vh[:r], size * U[:, r:]], scale)
    base = copy.deepcopy(linear)
    base.weight = nn.Parameter((linear.weight - start.delta()).detach())
    return Adapter(base, start.factors, scale)


def deep_lora_compressed(
    linear: nn.Linear,
    G: Tensor,
    k: int,
    eps: float,
    *,
    L: int = 3,
    generator: Seed = None,
) -> Adapter:
    r"""Return the compressed Deep LoRA, :math:`W_0 + U\,\tilde W_L \cdots \tilde W_1 V^\top`.

    `compression.compress` reads it off a wide deep update that starts orthogonal and has the target
    -G: half of V are right singular vectors of G, the others images of its left ones under the
    wide start, which is random. k is even and below both sides of the layer. The L inner factors
    start at eps I; the outer two learn slower, ``ratios=[gamma, 1, ..., 1, gamma]`` of
    `adapters.parameter_groups`. Of a layer that is not square the wide start is an isometry between
    its smaller side and a random subspace of the larger one that holds the singular vectors of G.
    The method is that of Yaras et al. (2024), arXiv:2406.04112.

    Examples
    --------
    >>> start = deep_lora_compressed(nn.Linear(5, 4), torch.eye(4, 5), k=2, eps=1e-3, generator=0)
    >>> [tuple(W.shape) for W in start.factors]
    [(2, 5), (2, 2), (2, 2), (2, 2), (4, 2)]
    """
    return Adapter(linear, _gradients.compressed_factors(linear, G, k, eps, L, generator))


def deep_lora_aligned(linear: nn.Linear, G: Tensor, k: int, eps: float, *, L: int = 3) -> Adapter:
    r"""Return a compressed Deep LoRA all of whose k directions are singular vectors of G.

    It is read off a wide start that sends the right vectors of -G to its left ones (`init.aligned`)
    where that of `deep_lora_compressed` is random; nothing is drawn, and k may be odd.

    Examples
    --------
    >>> start = deep_lora_aligned(nn.Linear(2, 2), torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 1, 0.1)
    >>> torch.allclose(start.delta(), torch.tensor([[-0.001, 0.0], [0.0, 0.0]]))
    True
    """
    L, eps = _checks.count("L", L, at_least=1), _checks.positive("eps", eps)
    U, _, Vh = _gradients.directions(linear, G, _adapting.narrow("k", k, linear), at_least=1)
    return Adapter(linear, [Vh, *[eps * torch.eye(U.shape[1]).to(U)] * L, U])


class AdaLoRA(Adapter):
    r"""AdaLoRA: :math:`W_0 + s\,B\,\mathrm{diag}(E)\,A`, of which `allocate` keeps some triplets.

    Arguments are those of `adapters.lora`; peft's scale is alpha / (r + 1e-5). After ``backward``
    `importance` averages what numbers are worth; now and then `allocate` says which triplets stay,
    and `prune` zeroes the others. Momentum brings those back at the next step: prune again, with
    the same masks, to hold the ranks. Where nothing was ever pruned it is plain LoRA, and
    ``rank()`` and ``merge()`` raise a ``RuntimeError``.

    References
    ----------
    Zhang et al. (2023), arXiv:2303.10512.

    Examples
    --------
    >>> layer = AdaLoRA(nn.Linear(4, 3), r=2, scale=1.0)
    >>> [tuple(W.shape) for W in layer.factors]  # A, E, B
    [(2, 4), (2,), (3, 2)]
    """

    def __init__(self, linear: nn.Linear, r: int, scale: float, *, generator: Seed = None) -> None:
        r, W = _adapting.narrow("r", r, linear), linear.weight
        shapes = [(r, W.shape[1]), (W.shape[0], r)]
        A, B = init._drawn(torch.randn, shapes, generator, W.dtype, W.device)
        super().__init__(linear, [0.02 * A, torch.zeros_like(A[:, 0]), 0.02 * B], scale)
        self.register_buffer("pruned", torch.tensor(False))

    def rank(self) -> int:
        """Return how many triplets are not zero."""
        if not self.pruned:
            raise RuntimeError("AdaLoRA: wanted an allocation, none was made; see adaptive.prune")
        return int(self.factors[1].count_nonzero())

    def merge(self) -> nn.Linear:
        """Return a frozen Linear layer that computes the same."""
        self.rank()
        return super().merge()


def importance(
    model: nn.Module, before: Importance | None = None, *, beta: float = 0.85
) -> Importance:
    r"""Return what weights are worth, :math:`|w\,\partial_w|`, averaged with what was found before.

    The averages ``sensitivity``, of that, and ``uncertainty``, of how far it is from its average,
    hold tensors for A, E and B of every layer.

    Parameters
    ----------
    model, before, beta
        After ``backward()``; what the step before returned; share of the past in both averages.

    Examples
    --------
    >>> model = nn.Sequential(AdaLoRA(nn.Linear(2, 2), r=1, scale=1.0))
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> importance(model).sensitivity["0"][1]  # E is zero yet
    tensor([0.])
    """
    beta, now = _checks.fraction("beta", beta), Importance({}, {})
    for name, layer in _adapting.of_kind(model, AdaLoRA).items():
        if any(W.grad is None for W in layer.factors):
            raise ValueError(f"model: wanted gradients, {name!r} has none; call before zero_grad()")
        worth = [(W * W.grad).abs().detach() for W in layer.factors]
        old = [[0.0] * 3] * 2 if before is None else [each[name] for each in before]
        now.sensitivity[name] = mean = _gradients.mixed(beta, old[0], worth)
        spread = [(w - m).abs() for w, m in zip(worth, mean, strict=True)]
        now.uncertainty[name] = _gradients.mixed(beta, old[1], spread)
    return now


def budget(step: int, start: int, target: int, *, warmup: int, final: int, steps: int) -> int:
    r"""Return how many triplets may stay at a step: from all to the target, along a cubic curve.

    Parameters
    ----------
    step, start, target, warmup, final, steps
        Steps done; triplets first and last; steps that keep all, that keep the target, all steps.

    Examples
    --------
    >>> [budget(t, 24, 8, warmup=10, final=20, steps=50) for t in (10, 15, 20, 30, 40)]
    [24, 14, 10, 8, 8]
    """
    for name, number in locals().copy().items():
        _checks.count(name, number)
    if target > start or warmup + final >= steps:
        raise ValueError("budget: wanted target <= start and warmup + final < steps")
    left = 1 - (step - warmup) / (steps - final - warmup)
    return int((start - target) * min(max(left, 0), 1) ** 3 + target)


def allocate(worth: Importance, keep: int) -> dict[str, Tensor]:
    """Return which triplets stay, of every layer a mask: the most important ones of all layers.

    The score of a triplet is that of its E, and the means over its row of A and column of B.

    Parameters
    ----------
    worth : Importance
        From `importance`.
    keep : int
        How many stay in all, from `budget`.

    Examples
    --------
    >>> model = nn.Sequential(AdaLoRA(nn.Linear(2, 2), r=2, scale=1.0))
    >>> _ = [nn.init.ones_(W) for W in model[0].factors]
    >>> model[0].factors[1].data[1] = 3.0
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> allocate(importance(model), keep=1)
    {'0': tensor([False,  True])}
    """
    layers = {name: (values, worth.uncertainty[name]) for name, values in worth.sensitivity.items()}
    scores = {name: _gradients.triplet_scores(*pair) for name, pair in layers.items()}
    together = torch.cat(list(scores.values()))
    if not together.any():
        raise ValueError("worth: wanted some importance, got zero: E moves at the first step")
    mask = torch.zeros_like(together, dtype=torch.bool)
    mask[together.topk(min(_checks.count("keep", keep), len(mask))).indices] = True
    return dict(zip(scores, mask.split([len(s) for s in scores.values()]), strict=True))


def prune(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the ranks that remain once the triplets outside the masks are zeroed, in place.

    Parameters
    ----------
    model, masks
        Of every layer, from `allocate`.

    Examples
    --------
    >>> model = nn.Sequential(AdaLoRA(nn.Linear(2, 2), r=2, scale=1.0))
    >>> _ = nn.init.ones_(model[0].factors[1])
    >>> prune(model, {"0": torch.tensor([True, False])})
    {'0': 1}
    """
    layers = _adapting.of_kind(model, AdaLoRA)
    drops = {name: ~_gradients.mask_for(name, masks, a.factors[1]) for name, a in layers.items()}
    for name, layer in layers.items():
        layer.factors[1].data.masked_fill_(drops[name], 0.0)
        layer.pruned.fill_(True)
    return {name: layer.rank() for name, layer in layers.items()}


def orthogonality(model: nn.Module) -> Tensor:
    r"""Return :math:`\|AA^\top - I\|_F` and :math:`\|B^\top B - I\|_F`, the mean over all layers.

    Times a weight (0.5 in peft) it is what AdaLoRA adds to the loss.

    Examples
    --------
    >>> model = nn.Sequential(AdaLoRA(nn.Linear(2, 2), r=1, scale=1.0))
    >>> _ = [nn.init.zeros_(W) for W in model[0].factors]
    >>> orthogonality(model)
    tensor(1., grad_fn=<MeanBackward0>)
    """
    layers = _adapting.of_kind(model, AdaLoRA).values()
    pairs = [(layer.factors[0], layer.factors[2].T) for layer in layers]
    gaps = [M @ M.T - torch.eye(len(M)).to(M) for pair in pairs for M in pair]
    return torch.stack([torch.linalg.norm(gap) for gap in gaps]).mean()
