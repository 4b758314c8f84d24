"""Checks of arguments that are numbers, a word, a seed or a file, with messages as `_checks`."""

import math
import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "count",
    "each",
    "finite_number",
    "flag",
    "fraction",
    "instance",
    "nonnegative",
    "one_of",
    "path",
    "positive",
    "seeded",
    "shuffled",
]


def _single(value: Any) -> Any:
    """Return what a Tensor or array without axes holds, and all else as it is."""
    alone = isinstance(value, Tensor | np.ndarray) and value.ndim == 0
    return value.item() if alone and not getattr(value, "is_meta", False) else value


def finite_number(name: str, value: float) -> float:
    """Return ``value`` if it is a finite real number; a Tensor of one number is one, too."""
    value = _single(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name}: wanted a real number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # 10**400
        number = math.inf if value > 0 else -math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: wanted a finite number, got {number!r}")
    return number


def positive(name: str, value: float) -> float:
    """Return ``value`` if it is finite and greater than zero."""
    if (number := finite_number(name, value)) <= 0:
        raise ValueError(f"{name}: wanted {name} > 0, got {value!r}")
    return number


def nonnegative(name: str, value: float) -> float:
    """Return ``value`` if it is finite and not below zero."""
    if (number := finite_number(name, value)) < 0:
        raise ValueError(f"{name}: wanted {name} >= 0, got {value!r}")
    return number


def fraction(name: str, value: float) -> float:
    """Return ``value`` if it is at least 0 and below 1."""
    if not 0 <= (number := finite_number(name, value)) < 1:
        raise ValueError(f"{name}: wanted 0 <= {name} < 1, got {value!r}")
    return number


def count(name: str, value: int, at_least: int = 0) -> int:
    """Return ``value`` if it is a whole number of at least ``at_least``."""
    value = _single(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: wanted a whole number, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name}: wanted {name} >= {at_least}, got {value}")
    if value >= 2**63:
        raise ValueError(f"{name}: wanted {name} < 2**63, got more")
    return int(value)


def flag(name: str, value: bool) -> bool:
    """Return ``value`` if it is True or False; a word for no would count as yes."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: wanted True or False, got {value!r}")
    return bool(value)


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """Return ``value`` if it is one of the known words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: wanted one of {', '.join(known)}, got {value!r}")
    return value


def path(name: str, value: str | os.PathLike) -> Path:
    """Return the path of a file or folder."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name}: wanted a str or Path, got {value!r}")
    return Path(value)


def instance(name: str, value: Any, kind: type) -> Any:
    """Return ``value`` if it is of that class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: wanted {kind.__name__}, got {type(value).__name__}")
    return value


def seeded(generator: torch.Generator | int | None) -> torch.Generator | None:
    """Return the generator, or one on the CPU with that seed; None is torch's global one."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    seed = _single(generator)
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"generator: wanted a torch.Generator or a seed, got {seed!r}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"generator: wanted a seed of 64 bits, got {seed}")
    return torch.Generator().manual_seed(int(seed))


def shuffled(n: int, generator: torch.Generator | int | None) -> Tensor:
    """Return the numbers from 0 to n - 1 in random order, on the device of the generator."""
    generator = seeded(generator)
    device = "cpu" if generator is None else generator.device
    return torch.randperm(n, generator=generator, device=device)


def each(
    name: str, value: Any, L: int, what: str, check: Callable[[str, Any], float] = positive
) -> list[float]:
    """Return L checked numbers: of one the same for all, or those of a sequence."""
    if getattr(value, "ndim", 0) == 0 and not (isinstance(value, Sequence) and value != str(value)):
        return [check(name, value)] * L
    if len(value) != L:
        raise ValueError(f"{name}: wanted one or L = {L} {what}, got {len(value)}")
    return [check(f"{name}[{l}]", number) for l, number in enumerate(value)]
