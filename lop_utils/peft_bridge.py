r"""Deep LoRA for models that peft wraps, saves, merges and serves.

Importing this module registers the tuner, and needs the extra: ``pip install 'lop-utils[peft]'``.
``prepare``, then peft's own ``get_peft_model``; an optimiser over ``parameter_groups``:

>>> import peft, torch
>>> model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))
>>> X, y = torch.randn(8, 6), torch.randn(8, 1)
>>> config = DeepLoraConfig(r=2, target_modules=["0"])
>>> prepare(model, config, lambda model: (model(X) - y).square().mean())
>>> model = peft.get_peft_model(model, config)
>>> optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3))

What is saved loads without this preparation, where this module is imported.
``peft.tuners.lora.conversion.save_as_lora`` writes
the same update as an ordinary LoRA of rank ``r``, which any server loads.
"""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lop_utils import _checks, _peft_tuner, adaptive
from lop_utils._peft_tuner import BaseTunerLayer, DeepLoraLinear, PeftConfig  # says what it wants

__all__ = ["DeepLoraConfig", "parameter_groups", "prepare"]


@dataclass
class DeepLoraConfig(PeftConfig):
    r"""Configuration of Deep LoRA, :math:`W_0 + U\,\tilde W_L \cdots \tilde W_1 V^\top`.

    Parameters
    ----------
    r : int
        Columns of U and V, the rank of the update; even, unless ``aligned``.
    eps : float
        The inner factors start at eps I. What the model computes at first is off by eps^L.
    num_factors : int
        L, how many inner factors there are.
    gamma : float
        Step size of U and V over that of the inner factors, as `parameter_groups` gives it; at
        zero they are frozen.
    aligned : bool
        Start as `adaptive.deep_lora_aligned`, not as `adaptive.deep_lora_compressed`.
    target_modules, exclude_modules, modules_to_save, layers_to_transform, layers_pattern
        As everywhere in peft.
    bias : str
        ``"none"``: no bias is trained.

    Examples
    --------
    >>> DeepLoraConfig(r=3)
    Traceback (most recent call last):
    ValueError: r: wanted an even number, or aligned=True, got 3
    """

    r: int = 8
    eps: float = 1e-3
    num_factors: int = 3
    gamma: float = 0.01
    aligned: bool = False
    target_modules: list[str] | str | None = "all-linear"
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    bias: str = field(default="none")

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        self.peft_type = _peft_tuner.TYPE
        _checks.count("r", self.r, at_least=1)
        _checks.positive("eps", self.eps)
        _checks.count("num_factors", self.num_factors, at_least=1)
        _checks.nonnegative("gamma", self.gamma)
        if self.r % 2 and not _checks.flag("aligned", self.aligned):
            raise ValueError(f"r: wanted an even number, or aligned=True, got {self.r}")
        if self.bias != "none":
            raise ValueError(f"bias: wanted 'none', got {self.bias!r}")
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError("layers_to_transform: wanted a list as target_modules, got a str")
        for name in ("target_modules", "exclude_modules"):
            if isinstance(given := getattr(self, name), list):
                setattr(self, name, set(given))


def _targets(model: nn.Module, config: DeepLoraConfig) -> list[str]:
    """Return the paths of the Linear layers that a configuration means, of a wrapped model too."""
    paths: dict[str, str] = {}  # the name before anything was wrapped: the path now
    for path, module in model.named_modules():
        wrapped = isinstance(module, BaseTunerLayer)
        if isinstance(module.get_base_layer() if wrapped else module, nn.Linear):
            name = path.removeprefix("base_model.model.")
            if not any(name.startswith(f"{outer}.") for outer in paths):
                paths[name] = f"{path}.base_layer" if wrapped else path
    if config.target_modules == "all-linear":
        config = dataclasses.replace(config, target_modules=list(paths))
    return [
        path for name, path in paths.items() if _peft_tuner.check_target_module_exists(config, name)
    ]


def prepare(model: nn.Module, config: DeepLoraConfig, loss: Callable[[nn.Module], Tensor]) -> None:
    """Give the layers that a configuration names the gradient of a first batch's loss.

    Call it before ``get_peft_model``, or before ``model.add_adapter`` for a further adapter; the
    gradient is used up there. A model in half precision is prepared as ``model.float()``, and may
    go back before it is wrapped.

    Parameters
    ----------
    model : Module
        The model; only an attribute of its layers changes, which nothing saves.
    config : DeepLoraConfig
        Which layers they are.
    loss : callable
        Takes the model, returns the loss of the first batch: the larger the batch, the less its
        noise tilts the subspace.

    Raises
    ------
    TypeError, ValueError
        If no layer is meant (the message lists near names), or the loss does not depend on one.

    Examples
    --------
    >>> import peft, torch
    >>> model = nn.Sequential(nn.Linear(3, 3))
    >>> config = DeepLoraConfig(r=2, target_modules=["0"])
    >>> prepare(model, config, lambda model: model(torch.ones(3)).square().sum())
    >>> peft.get_peft_model(model, config)(torch.ones(3)).shape
    torch.Size([3])
    """
    _checks.instance("config", config, DeepLoraConfig)
    if not (paths := _targets(_checks.instance("model", model, nn.Module), config)):
        raise ValueError(
            f"target_modules: wanted names of Linear layers, got {config.target_modules}. "
            + _peft_tuner.near(model, config)
        )
    whole = nn.ModuleDict({"whole": model})  # so that no path is another one's end
    names = [f"whole.{path}" for path in paths]
    found = adaptive.first_gradients(whole, names, lambda _: loss(model))
    for name, G in found.items():
        whole.get_submodule(name)._deep_lora_gradient = G


def parameter_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Return groups for an optimiser: U and V learn at gamma times the rate of all else.

    An optimiser over ``model.parameters()`` would train them at the full rate, which is another
    method.

    Parameters
    ----------
    model : Module
        Wrapped.
    lr : float
        Rate of the inner factors, and of all else that is trained.

    Raises
    ------
    TypeError, ValueError
        If the model has no Deep LoRA that is trained.

    Examples
    --------
    >>> import peft, torch
    >>> model = nn.Sequential(nn.Linear(3, 3))
    >>> model = peft.get_peft_model(model, DeepLoraConfig(r=2, gamma=0.1, target_modules=["0"]))
    >>> [(group["lr"], len(group["params"])) for group in parameter_groups(model, 0.5)]
    [(0.05, 2), (0.5, 1)]
    """
    lr, groups, known = _checks.positive("lr", lr), {}, set()
    for module in _checks.instance("model", model, nn.Module).modules():
        if isinstance(module, DeepLoraLinear):
            for name, part in itertools.product(module.gamma, ("deep_lora_V", "deep_lora_U")):
                if (W := getattr(module, part)[name]).requires_grad:
                    groups.setdefault(lr * module.gamma[name], []).append(W)
                known.add(W)
    rest = [p for p in model.parameters() if p.requires_grad and p not in known]
    if not known or not rest:
        raise ValueError("model: wanted one with a Deep LoRA that is trained, got none in it")
    groups.setdefault(lr, []).extend(rest)
    return [{"params": Ws, "lr": rate} for rate, Ws in groups.items()]


_peft_tuner.register(DeepLoraConfig)
