"""What an adapter takes from gradients: where it starts, and which of its triplets stay."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lop_utils import _checks, init
from lop_utils._adapting import Seed, checked_linear
from lop_utils.compression import compress, low_rank_approximation, with_outer_layers

__all__ = [
    "Importance",
    "compressed_factors",
    "directions",
    "mask_for",
    "mixed",
    "triplet_scores",
    "weight_gradients",
]


def weight_gradients(
    model: nn.Module, layers: Mapping[str, nn.Linear], loss: Callable[[nn.Module], Tensor]
) -> dict[str, Tensor]:
    """Return the gradient in every layer's weight, with no trace left."""
    _checks.instance("loss", loss, Callable)
    weights = {name: checked_linear(layer).weight for name, layer in layers.items()}
    flags = [(W, W.requires_grad) for W in weights.values()]
    try:
        for W, _ in flags:
            W.requires_grad_(True)
        with torch.inference_mode(False), torch.enable_grad():
            value = loss(model)
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                raise ValueError("loss: wanted one number with a graph back to the model's layers")
            Gs = torch.autograd.grad(value.sum(), list(weights.values()), allow_unused=True)
    finally:
        for W, flag in flags:
            W.requires_grad_(flag)
    for name, G in zip(weights, Gs, strict=True):
        if G is None:
            raise ValueError(f"names: wanted layers that the loss depends on, got {name!r}")
        _checks.matrix(f"gradient of {name!r}", G)
    return dict(zip(weights, Gs, strict=True))


def _descent(linear: nn.Linear, G: Tensor) -> Tensor:
    weight, G = checked_linear(linear).weight, _checks.matrix("G", G)
    _checks.fits("G", G, weight.shape, "linear", weight)
    if not G.any():
        raise ValueError("G: wanted a gradient, got zero, which has no directions")
    return -G.detach()


def directions(
    linear: nn.Linear, G: Tensor, k: int, at_least: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first k singular triplets of -G, of which so many must be there."""
    U, s, Vh = torch.linalg.svd(descent := _descent(linear, G), full_matrices=False)
    rank = int((s > max(descent.shape) * torch.finfo(s.dtype).eps * s[0]).sum())
    if rank < at_least:
        raise ValueError(f"G: wanted a rank of at least {at_least}, got {rank}")
    return U[:, :k], s[:k], Vh[:k]


def compressed_factors(
    linear: nn.Linear, G: Tensor, k: int, eps: float, L: int, generator: Seed
) -> list[Tensor]:
    """Return V^T, L inner layers and U of a wide deep update with target -G."""
    Phi, generator = _descent(linear, G), _checks.seeded(generator)
    L, k = _checks.count("L", L, at_least=1), _checks.count("k", k, at_least=2)
    eps = _checks.positive("eps", eps)
    side, half, tall = min(Phi.shape), k // 2, len(Phi) > Phi.shape[1]
    if k % 2 or k >= side:
        raise ValueError(f"k: wanted an even number below {side}, got {k}")
    kind = dict(generator=generator, dtype=Phi.dtype, device=Phi.device)
    # V and U depend on the product of the wide layers alone: one is Haar, the others eps I.
    Ws0 = [*init.orthogonal((side, side), eps, **kind), *[eps * torch.eye(side).to(Phi)] * (L - 1)]
    square, turn = (Phi := low_rank_approximation(Phi, half)), None
    if len(Phi) != Phi.shape[1]:
        # What the wide start knows of the larger side: the gradient's directions, and random ones.
        U, _, Vh = torch.linalg.svd(Phi, full_matrices=False)
        own = U[:, :half] if tall else Vh[:half].T
        (others,) = init.orthogonal((side - half, max(Phi.shape)), 1.0, **kind)
        turn = torch.linalg.qr(torch.cat([own, others], 1)).Q
        square = turn.T @ Phi if tall else Phi @ turn
    first, *inner, last = with_outer_layers(compress(Ws0, square, half, eps))
    if turn is not None:
        first, last = (first, turn @ last) if tall else (first @ turn.T, last)
    return [first, *inner, last]


# --- Triplets of AdaLoRA


class Importance(NamedTuple):
    """Running averages over steps, of every A, E, B of every layer."""

    sensitivity: dict[str, list[Tensor]]
    """Of each weight times its gradient."""
    uncertainty: dict[str, list[Tensor]]
    """Of how far that is from its average."""


def mixed(beta: float, old: Sequence[Any], new: Sequence[Tensor]) -> list[Tensor]:
    """Return running averages; one that begins is 0."""
    return [beta * a + (1 - beta) * b for a, b in zip(old, new, strict=True)]


def triplet_scores(sensitivity: Sequence[Tensor], uncertainty: Sequence[Tensor]) -> Tensor:
    """Return the scores of the triplets of a layer, (r,)."""
    A, E, B = (mean * spread for mean, spread in zip(sensitivity, uncertainty, strict=True))
    return E + A.mean(1) + B.mean(0)


def mask_for(name: str, masks: Mapping[str, Tensor], E: Tensor) -> Tensor:
    """Return the mask of a layer, checked."""
    if name not in masks:
        raise ValueError(f"masks: wanted one for {name!r}, got none")
    mask = _checks.tensor(f"masks[{name!r}]", masks[name])
    if mask.dtype != torch.bool or mask.shape != E.shape:
        got = f"{mask.dtype} of shape {tuple(mask.shape)}"
        raise ValueError(f"masks[{name!r}]: wanted {len(E)} of bool, got {got}")
    return mask.to(E.device)
