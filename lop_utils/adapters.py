r"""Adapters: small trained updates of the Linear layers of any model, put in and merged back.

An adapter leaves a layer's weight :math:`W_0` frozen and trains factors of an update,
:math:`W_0 + s\,W_L \cdots W_1`. The factors act from the left as everywhere in this package,
``(d_out, ...), ..., (..., d_in)``; samples are rows, as torch's modules take them, ``x`` of shape
``(..., d_in)``. What makes an adapter takes the ``linear`` layer first: ``adapt`` calls it for
every layer of a model. Numbers come from ``generator``, a `torch.Generator` or a seed, in the dtype
and on the device of the layer. `adaptive` holds the adapters that look at gradients.
"""

import copy
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lop_utils import _checks, init

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


def _linear(linear: nn.Linear) -> nn.Linear:
    weight = _checks.instance("linear", linear, nn.Linear)._parameters.get("weight")
    if weight is None or nn.parameter.is_lazy(weight):
        raise ValueError("linear: wanted a weight that is a parameter, got one yet to be computed")
    if weight.dtype not in (torch.float32, torch.float64):  # sums in half precision are no merging
        raise TypeError(f"linear: wanted float32 or float64, got {weight.dtype}; see model.float()")
    return linear


class _Factors(nn.Module):
    """A product of trained matrices; a vector stands for a diagonal one."""

    def __init__(self, linear: nn.Linear, factors: Sequence[Tensor], scale: float) -> None:
        super().__init__()
        weight, factors = _linear(linear).weight, list(factors)
        as_matrices = [torch.diag(W) if getattr(W, "ndim", 2) == 1 else W for W in factors]
        _checks.layers("factors", as_matrices)
        _checks.same_kind("factors", as_matrices[0], "linear", weight)
        shape = (len(as_matrices[-1]), as_matrices[0].shape[1])
        if shape != weight.shape:
            raise ValueError(f"factors: wanted a product {tuple(weight.shape)}, got {shape}")
        self.factors = nn.ParameterList(W.detach().clone() for W in factors)
        self.scale = _checks.positive("scale", scale)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def delta(self) -> Tensor:
        """Return what the factors add to the weight, ``(d_out, d_in)``."""
        matrices = (torch.diag(W) if W.ndim == 1 else W for W in self.factors)
        return self.scale * reduce(lambda product, W: W @ product, matrices)

    def count(self) -> int:
        """Return how many numbers are trained."""
        return sum(W.numel() for W in self.factors)

    def extra_repr(self) -> str:
        """Return sizes for the printed model."""
        return f"{self.in_features}, {self.out_features}, scale={self.scale:g}"

    def _through(self, x: Tensor) -> Tensor:
        first, *others = self.factors  # a slice would make Parameters of what functional_call gives
        z = F.linear(x, first) * self.scale  # where it is narrow
        for W in others:
            z = z * W if W.ndim == 1 else F.linear(z, W)
        return z


class Adapter(_Factors):
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
        return self.linear(x) + self._through(x)

    def merge(self) -> nn.Linear:
        """Return a frozen Linear layer that computes the same."""
        merged = copy.deepcopy(self.linear)
        merged.weight = nn.Parameter(self.weight.detach(), requires_grad=False)
        return merged


class LowRank(_Factors):
    r"""A layer whose weight is a product of trained matrices from the start, ``W = W_L ... W_1``.

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
        trained = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())
        self.bias = trained

    @property
    def weight(self) -> Tensor:
        """The product."""
        return self.delta()

    def count(self) -> int:
        """Return how many numbers are trained."""
        return super().count() + (0 if self.bias is None else self.bias.numel())

    def forward(self, x: Tensor) -> Tensor:
        """Return the features that follow ``x``, ``(..., d_out)``."""
        z = self._through(x)
        return z if self.bias is None else z + self.bias

    def merge(self) -> nn.Linear:
        """Return a Linear layer that computes the same, and is trained on."""
        merged = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        merged.weight = nn.Parameter(self.weight.detach())
        merged.bias = None if self.bias is None else nn.Parameter(self.bias.detach().clone())
        return merged


def _adapters(model: nn.Module) -> Iterator[tuple[str, _Factors]]:
    for name, module in _checks.instance("model", model, nn.Module).named_modules(
        remove_duplicate=False
    ):
        if isinstance(module, _Factors):
            yield name, module


def _matched(model: nn.Module, names: str | Sequence[str]) -> dict[str, nn.Linear]:
    """Return the Linear layers whose dotted names end with one of ``names``."""
    taken = dict(_adapters(model))
    inside = tuple(f"{name}." for name in taken)
    linears = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if name and isinstance(module, nn.Linear) and not f"{name}.".startswith(inside or ("..",))
    }
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("names: wanted at least one name of a layer, got none")
    chosen: set[str] = set()
    for end in names:
        fits = lambda name, end=end: f".{name}".endswith(f".{end}")  # noqa: E731
        if found := [name for name in linears if fits(name)]:
            chosen.update(found)
            continue
        if any(fits(name) for name in taken):
            raise ValueError(f"names: {end!r} is adapted already; merge(model) ends that")
        ends = {name.split(".", cut)[-1] for name in linears for cut in range(name.count(".") + 1)}
        near = difflib.get_close_matches(str(end), sorted(ends), 5, 0.5)
        if not near:
            near = sorted({name.rpartition(".")[2] for name in linears})[:9]
        raise ValueError(
            f"names: wanted ends of names of Linear layers, got {end!r}; "
            + (f"the model has {', '.join(near)}" if near else "the model has no Linear layer")
        )
    return {name: linears[name] for name in linears if name in chosen}


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def adapt(
    model: nn.Module,
    names: str | Sequence[str],
    make: Callable[..., nn.Module],
    *,
    gradients: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | int | None = None,
) -> dict[str, nn.Module]:
    """Return the adapters that it puts into the model, in the places of Linear layers.

    What the model had before is frozen, also elsewhere: of a head that is to learn, too, say
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
    layers, generator = _matched(model, names), _checks.seeded(generator)
    more = {} if generator is None else {"generator": generator}
    trained = [(p, p.requires_grad) for p in model.parameters()]
    made: dict[nn.Linear, nn.Module] = {}
    try:
        for name, linear in layers.items():
            if linear not in made:
                if gradients is not None and name not in gradients:
                    raise ValueError(f"gradients: wanted one of {name!r}, got none")
                given = () if gradients is None else (gradients[name],)
                made[linear] = _checks.instance(
                    "make(linear)", make(linear, *given, **more), _Factors
                )
    except BaseException:
        for p, flag in trained:
            p.requires_grad_(flag)
        raise
    for p, _ in trained:
        p.requires_grad_(False)
    for name, linear in layers.items():
        _put(model, name, made[linear])
    return {name: made[linear] for name, linear in layers.items()}


def merge(model: nn.Module) -> None:
    """Put Linear layers in the places of all adapters; the model computes what it computed.

    Parameters
    ----------
    model : Module
        Changed in place; what was frozen stays so until ``model.requires_grad_(True)``.

    Raises
    ------
    TypeError, ValueError
        If it has no adapter.

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
    found = {name: module for name, module in _adapters(model) if name}
    if not found:
        raise ValueError("model: wanted a module that holds adapters, got none in it")
    merged = {module: module.merge() for module in dict.fromkeys(found.values())}
    for name, module in found.items():
        _put(model, name, merged[module])


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
    eta, groups, known = _checks.positive("eta", eta), {}, set()
    for _, module in _adapters(model):
        if module not in known:
            each = _checks.each(
                "ratios", ratios, len(module.factors), "factors", _checks.nonnegative
            )
            for W, ratio in zip(module.factors, each, strict=True):
                groups.setdefault(eta * ratio, []).append(W)
        known |= {module, *module.factors}
    if not known:
        raise ValueError("model: wanted a module that holds adapters, got none in it")
    groups.setdefault(eta, []).extend(
        p for p in model.parameters() if p.requires_grad and p not in known
    )
    return [{"params": Ws, "lr": rate} for rate, Ws in groups.items() if Ws and rate]


def lora(
    linear: nn.Linear, r: int, scale: float, *, generator: torch.Generator | int | None = None
) -> Adapter:
    r"""Return LoRA: :math:`W_0 + s\,BA` with A uniform on :math:`\pm d_{in}^{-1/2}`, B zero.

    Parameters
    ----------
    linear, r, scale, generator
        Layer; rank; :math:`\alpha/r`, or :math:`\alpha/\sqrt r` (rsLoRA).

    References
    ----------
    Hu et al. (2022), arXiv:2106.09685; Kalajdzievski (2023), arXiv:2312.03732, rsLoRA.

    Examples
    --------
    >>> lora(nn.Linear(4, 3), r=2, scale=16 / 2).count()
    14
    """
    A, B = _default(linear, r, generator)
    return Adapter(linear, [A, torch.zeros_like(B)], scale)


def deep_lora(
    linear: nn.Linear,
    width: int,
    eps: float,
    *,
    L: int = 3,
    generator: torch.Generator | int | None = None,
) -> Adapter:
    r"""Return a deep update, :math:`W_0 + W_L \cdots W_1`, orthogonal up to ``eps`` at its start.

    With the smaller side of the layer as ``width`` it is the full-width Deep LoRA, with fewer the
    narrow random one; what it computes at first is of size eps^L, not zero.

    Parameters
    ----------
    linear, width, eps, L, generator
        Layer; columns of the factors; their singular values; depth.

    References
    ----------
    Yaras et al. (2024), arXiv:2406.04112.

    Examples
    --------
    >>> deep_lora(nn.Linear(4, 3), width=2, eps=1e-3).count()  # 2 * 4 + 2 * 2 + 3 * 2
    18
    """
    L, weight = _checks.count("L", L, at_least=2), _linear(linear).weight
    width = _narrow("width", width, weight)
    dims = (weight.shape[1], *[width] * (L - 1), weight.shape[0])
    kind = dict(generator=generator, dtype=weight.dtype, device=weight.device)
    return Adapter(linear, init.orthogonal(dims, eps, **kind))


def _narrow(name: str, k: int, weight: Tensor) -> int:
    if (k := _checks.count(name, k, at_least=1)) > min(weight.shape):
        raise ValueError(f"{name}: wanted at most {min(weight.shape)}, got {k}")
    return k


def _default(linear: nn.Linear, r: int, generator: torch.Generator | int | None) -> list[Tensor]:
    """Return two factors as Linear layers start, uniform on 1 / sqrt(columns) and its negative."""
    weight = _linear(linear).weight
    r = _narrow("r", r, weight)
    shapes = [(r, weight.shape[1]), (weight.shape[0], r)]
    drawn = init._drawn(torch.rand, shapes, generator, weight.dtype, weight.device)
    return [(2 * W - 1) * W.shape[1] ** -0.5 for W in drawn]


def low_rank(
    linear: nn.Linear, r: int, *, generator: torch.Generator | int | None = None
) -> LowRank:
    r"""Return a layer W = BA whose factors start as torch's Linear layers do.

    Orthogonal factors are ``LowRank(linear, init.orthogonal((d_in, r, d_out), eps))``.

    Parameters
    ----------
    linear, r, generator
        Layer; rank.

    Examples
    --------
    >>> low_rank(nn.Linear(4, 3), r=2).count()  # 2 * 4 + 3 * 2, and 3 of the bias
    17
    """
    return LowRank(linear, _default(linear, r, generator))


def low_rank_spectral(linear: nn.Linear, r: int) -> LowRank:
    r"""Return a layer W = BA that starts as the nearest one of rank r to the layer's weight.

    Both factors get the roots of the singular values.

    Parameters
    ----------
    linear, r
        Layer; rank.

    References
    ----------
    Khodak et al. (2021), arXiv:2105.01029.

    Examples
    --------
    >>> layer = nn.Linear(4, 3)
    >>> torch.allclose(low_rank_spectral(layer, r=3).weight, layer.weight, atol=1e-6)
    True
    """
    weight = _linear(linear).weight.detach()
    U, s, Vh = torch.linalg.svd(weight, full_matrices=False)
    r = _narrow("r", r, weight)
    root = s[:r].sqrt()
    return LowRank(linear, [root[:, None] * Vh[:r], U[:, :r] * root])
