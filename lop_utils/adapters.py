r"""Adapters: small trained updates of the Linear layers of any model, put in and merged back.

An adapter leaves a layer's weight :math:`W_0` frozen and trains factors of an update,
:math:`W_0 + s\,W_L \cdots W_1`. They act from the left as everywhere in this package, and samples
are rows, as torch's modules take them: ``x`` of shape ``(..., d_in)`` becomes ``x @ W.T``. What
makes an adapter takes the ``linear`` layer first; `adapt` calls it for the layers of a model.
``r`` and ``width`` are columns of factors, ``eps`` their singular values, ``L`` how many there are.
``scale`` is s: alpha / r, or alpha / sqrt(r) (rsLoRA). ``generator`` is a `torch.Generator`, or a
seed. Dtype and device are the layer's. Every adapter has ``delta()``, the update; ``merge()``, the
Linear layer that computes the same; ``count()``, how many numbers it trains. `adaptive` holds
those that look at gradients.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lop_utils import _adapting, _checks, init
from lop_utils._adapting import Seed

__all__ = [
    "Adapter",
    "LowRank",
    "adapt",
    "deep_lora",
    "lora",
    "low_rank",
    "low_rank_spectral",
    "merge",
    "parameter_groups",
]


class Adapter(_adapting.Factors):
    r"""A Linear layer that is frozen, and a trained update of its weight.

    Its ``weight`` is the sum of both, so that modules that read it instead of calling the layer
    (`torch.nn.MultiheadAttention` does) are right, too.

    Parameters
    ----------
    linear : Linear
        Layer; frozen here.
    factors : sequence of Tensor
        ``[W_1, ..., W_L]``, copied.
    scale : float
        What multiplies their product.

    Examples
    --------
    >>> layer = Adapter(nn.Linear(3, 2), [torch.ones(1, 3), torch.zeros(2, 1)])
    >>> layer.count(), layer.delta().shape
    (5, torch.Size([2, 3]))
    """

    def __init__(self, linear: nn.Linear, factors: Sequence[Tensor], scale: float = 1.0) -> None:
        super().__init__(linear, factors, scale)
        self.linear = linear.requires_grad_(False)

    @property
    def weight(self) -> Tensor:
        """The updated weight."""
        return self.linear.weight + self.delta()

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the features that follow ``x``, ``(..., d_out)``."""
        return self.linear(x) + self.through(x)

    def merge(self) -> nn.Linear:
        """Return a frozen Linear layer that computes the same."""
        merged = copy.deepcopy(self.linear)
        merged.weight = nn.Parameter(self.weight.detach(), requires_grad=False)
        return merged


class LowRank(_adapting.Factors):
    """A layer that has a product of trained matrices for a weight from the start.

    After `adapt` the rest of the model is frozen; ``model.requires_grad_(True)`` trains it all.

    Parameters
    ----------
    linear : Linear
        Layer whose place it takes and whose bias it trains on; its weight is dropped.
    factors : sequence of Tensor
        ``[W_1, ..., W_L]``, copied.

    Examples
    --------
    >>> W_1, W_2 = init.orthogonal((4, 2, 3), 1.0, dtype=torch.float32)
    >>> LowRank(nn.Linear(4, 3), [W_1, W_2]).count()  # 2 * 4 + 3 * 2, and 3 of the bias
    17
    """

    def __init__(self, linear: nn.Linear, factors: Sequence[Tensor]) -> None:
        super().__init__(linear, factors, 1.0)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return the features that follow ``x``, ``(..., d_out)``."""
        z = self.through(x)
        return z if self.bias is None else z + self.bias

    def merge(self) -> nn.Linear:
        """Return a Linear layer that computes the same, and is trained on."""
        merged = nn.Linear(self.in_features, self.out_features, device="meta")
        merged.weight, merged.bias = nn.Parameter(self.weight.detach()), copy.deepcopy(self.bias)
        return merged


def adapt(
    model: nn.Module,
    names: str | Sequence[str],
    make: Callable[..., nn.Module],
    *,
    gradients: Mapping[str, Tensor] | None = None,
    generator: Seed = None,
) -> dict[str, nn.Module]:
    """Return the adapters that it puts into the model, in the places of Linear layers.

    All but adapters is frozen, also elsewhere: of a head that is to learn, too, say
    ``model.head.requires_grad_(True)`` afterwards. A layer that stands in several places stays one.
    If a layer cannot be adapted, the model is left as it was.

    Parameters
    ----------
    model : Module
        Changed in place.
    names : str or sequence of str
        Ends of dotted names: ``"query"`` is the layer of that name in every block.
    make : callable
        Takes a Linear layer, its gradient if there are ``gradients``, and ``generator`` by
        keyword if there is one; ``partial(lora, r=8, scale=2.0)`` or ``LowRank`` with factors.
    gradients : mapping of str to Tensor, optional
        From `adaptive.first_gradients`.
    generator : torch.Generator or int, optional
        Handed to ``make``: one that goes on from layer to layer.

    Raises
    ------
    TypeError, ValueError
        If a name is no Linear layer's (the message lists near ones), or a layer has no gradient.

    Examples
    --------
    >>> from functools import partial
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> list(adapt(model, "0", partial(lora, r=2, scale=1.0), generator=0))
    ['0']
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)  # 2 * 4 + 3 * 2
    14
    """
    layers = _adapting.matched(model, names)
    made = _adapting.built(model, layers, make, gradients, _checks.seeded(generator))
    return _adapting.put_all(model, {name: made[linear] for name, linear in layers.items()})


def merge(model: nn.Module) -> None:
    """Put Linear layers in the places of all adapters; the model computes what it computed.

    Parameters
    ----------
    model : Module
        Changed in place; what was frozen stays so until ``model.requires_grad_(True)``.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = adapt(model, "0", lambda linear: lora(linear, r=2, scale=1.0))
    >>> merge(model)
    >>> model
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
    )
    """
    found = {name: module for name, module in _adapting.adapters_in(model) if name}
    if not found:
        raise ValueError("model: wanted a module that holds adapters, got none in it")
    merged = {module: module.merge() for module in dict.fromkeys(found.values())}
    for name, module in found.items():
        _adapting.put(model, name, merged[module])


def parameter_groups(
    model: nn.Module, eta: float, ratios: float | Sequence[float]
) -> list[dict[str, object]]:
    r"""Return groups for an optimiser of torch, with a step size for each factor.

    Parameters
    ----------
    model : Module
        With adapters.
    eta : float
        Step size, also of all else that is trained.
    ratios : float or sequence of float
        What multiplies it, factor by factor: ``[1, 16]`` is LoRA+, ``[gamma, 1, 1, 1, gamma]`` the
        discrepant rates of Deep LoRA. Factors of ratio 0 are left out, and do not move.

    References
    ----------
    Hayou, Ghosh and Yu (2024), arXiv:2402.12354, LoRA+; Yaras et al. (2024), arXiv:2406.04112.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = adapt(model, "0", lambda linear: lora(linear, r=2, scale=1.0))
    >>> [(group["lr"], len(group["params"])) for group in parameter_groups(model, 0.5, [1, 16])]
    [(0.5, 1), (8.0, 1)]
    """
    return _adapting.groups(model, _checks.positive("eta", eta), ratios)


def lora(linear: nn.Linear, r: int, scale: float, *, generator: Seed = None) -> Adapter:
    r"""Return LoRA: :math:`W_0 + s\,BA` with A uniform on :math:`\pm d_{in}^{-1/2}`, B zero.

    References
    ----------
    Hu et al. (2022), arXiv:2106.09685; Kalajdzievski (2023), arXiv:2312.03732, rsLoRA.

    Examples
    --------
    >>> lora(nn.Linear(4, 3), r=2, scale=16 / 2).count()
    14
    """
    A, B = _adapting.default_factors(linear, r, generator)
    return Adapter(linear, [A, torch.zeros_like(B)], scale)


def deep_lora(
    linear: nn.Linear, width: int, eps: float, *, L: int = 3, generator: Seed = None
) -> Adapter:
    r"""Return a deep update, :math:`W_0 + W_L \cdots W_1`, orthogonal up to ``eps`` at its start.

    With the smaller side of the layer as ``width`` it is the full-width Deep LoRA, with fewer the
    narrow random one; what it computes at first is of size eps^L, not zero.

    References
    ----------
    Yaras et al. (2024), arXiv:2406.04112.

    Examples
    --------
    >>> deep_lora(nn.Linear(4, 3), width=2, eps=1e-3).count()  # 2 * 4 + 2 * 2 + 3 * 2
    18
    """
    L, width = _checks.count("L", L, at_least=2), _adapting.narrow("width", width, linear)
    dims = (linear.in_features, *[width] * (L - 1), linear.out_features)
    kind = dict(generator=generator, dtype=linear.weight.dtype, device=linear.weight.device)
    return Adapter(linear, init.orthogonal(dims, eps, **kind))


def low_rank(linear: nn.Linear, r: int, *, generator: Seed = None) -> LowRank:
    r"""Return a layer W = BA whose factors start as torch's Linear layers do.

    Orthogonal factors are ``LowRank(linear, init.orthogonal((d_in, r, d_out), eps))``.

    Examples
    --------
    >>> low_rank(nn.Linear(4, 3), r=2).count()  # 2 * 4 + 3 * 2, and 3 of the bias
    17
    """
    return LowRank(linear, _adapting.default_factors(linear, r, generator))


def low_rank_spectral(linear: nn.Linear, r: int) -> LowRank:
    r"""Return a layer W = BA that starts as the nearest one of rank r to the layer's weight.

    Both factors get the roots of the singular values.

    References
    ----------
    Khodak et al. (2021), arXiv:2105.01029.

    Examples
    --------
    >>> layer = nn.Linear(4, 3)
    >>> torch.allclose(low_rank_spectral(layer, r=3).weight, layer.weight, atol=1e-6)
    True
    """
    r = _adapting.narrow("r", r, linear)
    U, s, Vh = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    root = s[:r].sqrt()
    return LowRank(linear, [root[:, None] * Vh[:r], U[:, :r] * root])
