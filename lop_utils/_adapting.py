"""What adapters are made of, and where in a model they stand."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lop_utils import _checks, init

__all__ = [
    "Factors",
    "Seed",
    "adapters_in",
    "built",
    "checked_linear",
    "default_factors",
    "groups",
    "matched",
    "narrow",
    "of_kind",
    "put",
    "put_all",
]

Seed = torch.Generator | int | None


def checked_linear(linear: nn.Linear) -> nn.Linear:
    """Return a Linear layer that an adapter can stand on."""
    weight = _checks.instance("linear", linear, nn.Linear)._parameters.get("weight")
    if weight is None or nn.parameter.is_lazy(weight):
        raise ValueError("linear: wanted a weight that is a parameter, got one yet to be computed")
    if weight.dtype not in (torch.float32, torch.float64):  # what is half cannot be merged exactly
        raise TypeError(f"linear: wanted float32 or float64, got {weight.dtype}; see model.float()")
    return linear


def narrow(name: str, k: int, linear: nn.Linear) -> int:
    """Return a width that is no larger than a side of the layer."""
    side = min(checked_linear(linear).weight.shape)
    if (k := _checks.count(name, k, at_least=1)) > side:
        raise ValueError(f"{name}: wanted at most {side}, got {k}")
    return k


class Factors(nn.Module):
    """A product of trained matrices; a vector stands for a diagonal one."""

    def __init__(self, linear: nn.Linear, factors: Sequence[Tensor], scale: float) -> None:
        super().__init__()
        weight = checked_linear(linear).weight
        factors = _checks.instance("factors", factors, Iterable)
        factors = [_checks.tensor(f"factors[{i}]", W) for i, W in enumerate(factors)]
        matrices = [torch.diag(W) if W.ndim == 1 else W for W in factors]
        _checks.layers("factors", matrices)
        _checks.same_kind("factors", matrices[0], "linear", weight)
        shape = (len(matrices[-1]), matrices[0].shape[1])
        if shape != weight.shape:
            raise ValueError(f"factors: wanted a product {tuple(weight.shape)}, got {shape}")
        self.factors = nn.ParameterList(W.detach().clone() for W in factors)
        self.scale = _checks.positive("scale", scale)
        _checks.held("factors", self.delta(), "factors with a product")
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @property
    def weight(self) -> Tensor:
        """The weight of the Linear layer that computes the same."""
        return self.delta()

    def delta(self) -> Tensor:
        """Return what the factors make, ``(d_out, d_in)``: scale times their product."""
        matrices = (torch.diag(W) if W.ndim == 1 else W for W in self.factors)
        return self.scale * reduce(lambda product, W: W @ product, matrices)

    def count(self) -> int:
        """Return how many numbers are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def extra_repr(self) -> str:
        """Return sizes for the printed model."""
        return f"{self.in_features}, {self.out_features}, scale={self.scale:g}"

    def through(self, x: Tensor) -> Tensor:
        """Return rows times what the factors make, without making it."""
        first, *others = self.factors  # a slice of them would be new parameters
        z = F.linear(x, first) * self.scale  # where it is narrow
        for W in others:
            z = z * W if W.ndim == 1 else F.linear(z, W)
        return z


def default_factors(linear: nn.Linear, r: int, generator: Seed) -> list[Tensor]:
    """Return two factors as Linear layers start, uniform on 1 / sqrt(columns) and its negative."""
    r, weight = narrow("r", r, linear), linear.weight
    shapes = [(r, weight.shape[1]), (weight.shape[0], r)]
    drawn = init._drawn(torch.rand, shapes, generator, weight.dtype, weight.device)
    return [(2 * W - 1) * W.shape[1] ** -0.5 for W in drawn]


# --- Places in a model


def adapters_in(model: nn.Module) -> Iterator[tuple[str, Factors]]:
    """Yield the adapters of a model with their names; one that stands in two places has two."""
    model = _checks.instance("model", model, nn.Module)
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Factors):
            yield name, module


def of_kind(model: nn.Module, kind: type) -> dict[str, Any]:
    """Return the adapters of one class, of which there must be some."""
    found = {name: layer for name, layer in adapters_in(model) if isinstance(layer, kind)}
    if not found:
        raise ValueError(f"model: wanted one with layers of {kind.__name__}, got none")
    return found


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Let a module stand where another of that name stood."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def put_all(model: nn.Module, adapters: dict[str, Factors]) -> dict[str, Factors]:
    """Return the adapters, once they stand in the model and all but adapters is frozen."""
    for name, adapter in adapters.items():
        put(model, name, adapter)
    learn = {p for _, adapter in adapters_in(model) for p in adapter.parameters()}
    for p in model.parameters():
        p.requires_grad_(p.requires_grad and p in learn)
    return adapters


def matched(model: nn.Module, names: str | Sequence[str]) -> dict[str, nn.Linear]:
    """Return the Linear layers whose dotted names end with one of ``names``."""
    taken = dict(adapters_in(model))
    inside = tuple(f"{name}." for name in taken)
    linears = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if name and isinstance(module, nn.Linear) and not name.startswith(inside)
    }
    names = [names] if isinstance(names, str) else list(_checks.instance("names", names, Iterable))
    if not names:
        raise ValueError("names: wanted at least one name of a layer, got none")
    chosen: set[str] = set()
    for end in names:
        found = [name for name in linears if f".{name}".endswith(f".{end}")]
        if not found:
            raise ValueError(f"names: {_no_match(end, list(linears), list(taken))}")
        chosen.update(found)
    return {name: linear for name, linear in linears.items() if name in chosen}


def _no_match(end: str, linears: list[str], taken: list[str]) -> str:
    if any(f".{name}".endswith(f".{end}") for name in taken):
        return f"{end!r} is adapted already; merge(model) ends that"
    ends = {name.split(".", cut)[-1] for name in linears for cut in range(name.count(".") + 1)}
    near = difflib.get_close_matches(str(end), sorted(ends), 5, 0.5)
    near = near or sorted({name.rpartition(".")[2] for name in linears})[:9]
    has = f"the model has {', '.join(near)}" if near else "the model has no Linear layer"
    return f"wanted ends of names of Linear layers, got {end!r}; {has}"


def built(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    make: Callable[..., nn.Module],
    gradients: Mapping[str, Tensor] | None,
    generator: torch.Generator | None,
) -> dict[nn.Linear, Factors]:
    """Return the adapter of every layer; the model is as it was if one cannot be made."""
    _checks.instance("make", make, Callable)
    flags = [(p, p.requires_grad) for p in model.parameters()]
    more = {} if generator is None else {"generator": generator}
    made: dict[nn.Linear, Factors] = {}
    try:
        for name, linear in layers.items():
            if gradients is not None and name not in gradients:
                raise ValueError(f"gradients: wanted one of {name!r}, got none")
            if linear not in made:
                given = () if gradients is None else (gradients[name],)
                made[linear] = adapter = make(linear, *given, **more)
                if not isinstance(adapter, Factors):
                    kind = type(adapter).__name__
                    raise TypeError(f"make: wanted an Adapter or LowRank of {name!r}, got {kind}")
    except BaseException:
        for p, flag in flags:
            p.requires_grad_(flag)
        raise
    return made


def groups(model: nn.Module, eta: float, ratios: Any) -> list[dict[str, Any]]:
    """Return the parameters that are trained, in groups of one step size."""
    rates = {p: eta for p in model.parameters() if p.requires_grad}
    for layer in of_kind(model, Factors).values():
        Ws, check = layer.factors, _checks.nonnegative
        each = _checks.each("ratios", ratios, len(Ws), "factors", check)
        rates |= {W: eta * ratio for W, ratio in zip(Ws, each, strict=True) if W in rates}
    found: dict[float, list[Tensor]] = {}
    for W, rate in rates.items():
        found.setdefault(rate, []).append(W)
    return [{"params": Ws, "lr": rate} for rate, Ws in found.items() if rate]
