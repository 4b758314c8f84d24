"""What `completion.complete` checks of a sample, and where it starts."""

import warnings

import torch
from torch import Tensor

from lop_utils import _checks, factored, init
from lop_utils.observed import ObservedEntries

__all__ = [
    "held",
    "peak_of",
    "require_callback",
    "require_determined",
    "spectral_start",
    "width_for",
]


def width_for(shape: tuple[int, int], rank: int, width: int | None) -> int:
    """Return the width, twice the rank where nothing else is asked for."""
    most = min(shape) - 1
    k = min(2 * rank, most) if width is None else _checks.count("width", width, at_least=1)
    if not rank <= k <= most:
        raise ValueError(f"width: wanted {rank} <= width < {min(shape)}, got {k}")
    return k


def require_determined(train: ObservedEntries, rank: int, lam: float) -> None:
    """Require as many entries as numbers determine a matrix of that rank; with decay only warn."""
    d_y, d_x = (len(places.unique()) for places in (train.rows, train.cols))
    r = min(rank, d_y, d_x)
    if (asked := r * (d_y + d_x - r)) > len(train):
        message = (
            f"rank: wanted rank (d_y + d_x - rank) <= {len(train)} entries to train on, got "
            f"{asked} for rank {rank} and {d_y} rows, {d_x} columns that occur: the sample cannot "
            "determine so much"
        )
        if not lam:
            raise ValueError(message)
        warnings.warn(f"{message}, the decay decides", stacklevel=3)


def require_callback(callback: object) -> None:
    """Require a function, or nothing."""
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: wanted a function of one measurement, got {callback!r}")


def peak_of(train: ObservedEntries) -> float:
    """Return the largest value, by which all are divided before anything is squared."""
    if (peak := train.values.abs().max().item()) == 0:
        raise ValueError("values: wanted some that are not zero, got zeros only")
    return peak


def held(scale: float, dtype: torch.dtype) -> float:
    """Return the norm of a completed matrix, if a dtype can hold it."""
    if scale > (most := torch.finfo(dtype).max / 4):
        raise ValueError(
            f"values: wanted a completed matrix that {dtype} can hold, of norm at most "
            f"{most:.3g}, got about {scale:.3g}; divide the values"
        )
    return scale


def spectral_start(
    train: ObservedEntries, k: int, L: int, eps: float
) -> tuple[list[Tensor], float]:
    """Return the layers at the start, and what the values are to be divided by."""
    peak = peak_of(train)
    (d_y, d_x), kind = train.shape, dict(dtype=train.values.dtype, device=train.values.device)
    seed = torch.Generator().manual_seed(0)
    Q = torch.randn(k, d_x, generator=seed, dtype=kind["dtype"]).to(kind["device"])
    loss = factored.fastest_loss(train.with_values(train.values / peak), k)
    Ws, s = init._sampled_spectral(loss, torch.zeros(d_y, k, **kind), Q, L, eps)
    # Rounding leaves some 1e-20 in a column that nothing trains.
    Ws[0][:, torch.bincount(train.cols, minlength=d_x) == 0] = 0
    return Ws, held(s[0].item() * peak / train.p, Q.dtype)
