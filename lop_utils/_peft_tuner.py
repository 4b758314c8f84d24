"""Deep LoRA in the form of a peft tuner: its layer, its model, and how peft finds them.

`peft_bridge` is what people import. Nothing here is imported where peft is not installed.
"""

import difflib
import importlib.metadata
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lop_utils import adaptive

__all__ = ["TYPE", "DeepLoraLinear", "DeepLoraModel", "near", "register"]

_LOWEST, _BELOW = (0, 21, 2), (0, 23)
_WANTED = "peft >= 0.21.2 and < 0.23, which pip install 'lop-utils[peft]' brings"


def _version() -> str:
    try:
        found = importlib.metadata.version("peft")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"lop_utils.peft_bridge: wanted {_WANTED}, found none") from None
    if not _LOWEST <= tuple(map(int, re.findall(r"\d+", found)[:3])) < _BELOW:
        raise ImportError(f"lop_utils.peft_bridge: wanted {_WANTED}, found {found}")
    return found


_VERSION = _version()

import peft.mapping  # noqa: E402  # only in a version that this knows
from peft import PeftConfig  # noqa: E402
from peft.tuners.tuners_utils import (  # noqa: E402
    BaseTuner,
    BaseTunerLayer,
    check_adapters_to_merge,
    check_target_module_exists,  # noqa: F401
)
from peft.utils.error import NoMatchingPeftModuleError  # noqa: E402

TYPE = "DEEP_LORA"  # no member of peft's enumeration, which is closed to others


class DeepLoraLinear(nn.Module, BaseTunerLayer):
    """A Linear layer with a Deep LoRA for each adapter; `get_peft_model` makes it.

    ``deep_lora_V`` is (r, d_in), ``deep_lora_core`` (L, r, r), ``deep_lora_U`` (d_out, r).
    """

    adapter_layer_names = ("deep_lora_V", "deep_lora_core", "deep_lora_U")
    other_param_names = ("gamma",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: PeftConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict())
        self.gamma: dict[str, float] = {}
        self.frozen_peft_weight_names = {}
        self._disable_adapters, self.merged_adapters = False, []
        self._unstarted: set[str] = set()
        self._active_adapter = adapter_name
        linear = self.get_base_layer()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: PeftConfig) -> None:
        """Add an adapter; without a gradient it waits to be loaded."""
        linear, r = self.get_base_layer(), config.r
        G = linear.__dict__.pop("_deep_lora_gradient", None)
        if G is None:
            L, (m, n) = config.num_factors, (self.out_features, self.in_features)
            V, core, U = torch.zeros(r, n), torch.zeros(L, r, r), torch.zeros(m, r)
            self._unstarted.add(adapter_name)
        else:
            G = G.to(linear.weight.device)
            float_linear = nn.Linear(1, 1, device="meta")  # half precision has too few digits
            float_linear.weight = nn.Parameter(torch.empty_like(G))
            more = dict(eps=config.eps, L=config.num_factors)
            start = (
                adaptive.deep_lora_aligned(float_linear, G, r, **more)
                if config.aligned
                else adaptive.deep_lora_compressed(float_linear, G, r, **more)
            )
            V, *inner, U = (W.detach() for W in start.factors)
            core = torch.stack(inner)
            self._unstarted.discard(adapter_name)
        for name, W in zip(self.adapter_layer_names, (V, core, U), strict=True):
            getattr(self, name)[adapter_name] = nn.Parameter(W)
        self.gamma[adapter_name] = config.gamma
        if config.gamma == 0:
            self.frozen_peft_weight_names[adapter_name] = ("deep_lora_V", "deep_lora_U")
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        loaded = {
            name for name in self.deep_lora_core if f"{prefix}deep_lora_core.{name}" in state_dict
        }
        self._unstarted -= loaded
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _factors(self, adapter: str) -> tuple[Tensor, Tensor, Tensor]:
        if adapter in self._unstarted:
            raise RuntimeError(
                f"adapter {adapter!r}: wanted a first gradient, or saved weights, found neither; "
                "call prepare(model, config, loss) before the model is wrapped"
            )
        return tuple(getattr(self, name)[adapter] for name in self.adapter_layer_names)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return what the adapter adds to the weight, (d_out, d_in), at least in float32."""
        V, core, U = self._factors(adapter)
        if V.dtype in (torch.float16, torch.bfloat16):
            V, core, U = V.float(), core.float(), U.float()
        for W in core:
            V = W @ V
        return U @ V

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add adapters to the weight; with ``safe_merge`` refuse what is not finite."""
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter in self.deep_lora_core:
                self._add(self.get_delta_weight(adapter), safe_merge)
                self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Take merged adapters out of the weight again."""
        while self.merged_adapters:
            self._add(-self.get_delta_weight(self.merged_adapters.pop()), False)

    def _add(self, delta: Tensor, safe: bool) -> None:
        weight = self.get_base_layer().weight
        if not weight.is_floating_point():
            raise TypeError(f"merge: wanted a floating dtype, got {weight.dtype}: it is quantised")
        merged = weight.data + delta.detach()  # in the wider dtype of the two
        if safe and not torch.isfinite(merged).all():
            raise ValueError("merge: wanted finite weights, got NaN or infinity")
        weight.data = merged.to(weight.dtype)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return True: the update is a matrix of rank r."""
        return True

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the features of the layer and of its active adapters."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for adapter in self.active_adapters:
            if adapter in self.deep_lora_core:
                V, core, U = self._factors(adapter)
                z = F.linear(self._cast_input_dtype(x, V.dtype), V)
                for W in core:
                    z = F.linear(z, W)
                result = result + F.linear(z, U).to(result.dtype)
        return result


class DeepLoraModel(BaseTuner):
    """What `get_peft_model` wraps a model in for a `DeepLoraConfig`."""

    prefix = "deep_lora_"
    tuner_layer_cls = DeepLoraLinear
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # of peft's own form

    def _create_and_replace(
        self, config, adapter_name, target, target_name, parent, current_key, parameter_name=None
    ) -> None:
        linear = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{current_key}: wanted a Linear layer, got {type(linear).__name__}")
        if config.r >= (side := min(linear.in_features, linear.out_features)):
            raise ValueError(
                f"r: wanted less than {side}, the smaller side of {current_key}, got {config.r}; "
                "exclude_modules leaves layers out"
            )
        if isinstance(target, DeepLoraLinear):
            target.update_layer(adapter_name, config)
            return
        new = DeepLoraLinear(target, adapter_name, config)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        self._replace_module(parent, target_name, new, target)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args, **kwargs) -> None:
        """Put the layers in; a name that nothing matches is answered with near ones."""
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except NoMatchingPeftModuleError as error:
            raise NoMatchingPeftModuleError(
                f"{error} {near(model, self.peft_config[adapter_name])}"
            ) from None


def near(model: nn.Module, config: PeftConfig) -> str:
    """Return a sentence about the Linear layers whose names are near those asked for."""
    linears = [name for name, each in model.named_modules() if isinstance(each, nn.Linear)]
    ends = sorted({name.rpartition(".")[2] for name in linears if name})
    asked = config.target_modules or ()
    close = set()
    for name in [asked] if isinstance(asked, str) else asked:
        close.update(difflib.get_close_matches(name.rpartition(".")[2], ends, 3, 0.5))
    if not ends:
        return "This model has no Linear layer."
    return f"Linear layers of this model are called {', '.join(sorted(close) or ends)}."


def register(config: type) -> None:
    """Put the tuner where peft looks one up; `register_peft_method` takes peft's own only."""
    entries = {"CONFIG": config, "TUNER": DeepLoraModel, "PREFIX": "deep_lora_"}
    for what, entry in entries.items():
        name = f"PEFT_TYPE_TO_{what}_MAPPING"
        if not isinstance(mapping := getattr(peft.mapping, name, None), dict):
            raise ImportError(f"peft {_VERSION}: wanted its table peft.mapping.{name}, found none")
        mapping[TYPE] = entry
