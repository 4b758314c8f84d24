"""Argument checks whose messages name the symbol, what was wanted and what came.

A type that can never work is a ``TypeError``; a value outside a hypothesis is a ``ValueError``.
Tensors on the meta device carry shapes but no numbers, so checks of values pass them by.
"""

from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

__all__ = [
    "chain",
    "count",
    "features",
    "finite_number",
    "fits",
    "layers",
    "matrix",
    "nonnegative",
    "one_hot_classes",
    "orthogonal_up_to",
    "positive",
    "same_kind",
    "shaped",
]


def finite_number(name: str, value: float) -> float:
    """Return ``value`` if it is a finite real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: wanted a real number, got {value!r}")
    if not float("-inf") < value < float("inf"):
        raise ValueError(f"{name}: wanted a finite number, got {value!r}")
    return float(value)


def positive(name: str, value: float) -> float:
    """Return ``value`` if it is finite and greater than zero."""
    if finite_number(name, value) <= 0:
        raise ValueError(f"{name}: wanted {name} > 0, got {value!r}")
    return float(value)


def nonnegative(name: str, value: float) -> float:
    """Return ``value`` if it is finite and not below zero."""
    if finite_number(name, value) < 0:
        raise ValueError(f"{name}: wanted {name} >= 0, got {value!r}")
    return float(value)


def count(name: str, value: int, at_least: int = 0) -> int:
    """Return ``value`` if it is a whole number of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: wanted a whole number, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name}: wanted {name} >= {at_least}, got {value}")
    return int(value)


def _floating_matrix(name: str, A: Tensor) -> None:
    if not isinstance(A, Tensor):
        raise TypeError(f"{name}: wanted a torch.Tensor, got {type(A).__name__}")
    if not A.is_floating_point():
        raise TypeError(f"{name}: wanted a floating-point matrix, got {A.dtype}")
    if A.ndim != 2:
        raise ValueError(f"{name}: wanted a matrix, got shape {tuple(A.shape)}")
    if 0 in A.shape:
        raise ValueError(f"{name}: wanted a matrix with entries, got shape {tuple(A.shape)}")


def _finite(name: str, A: Tensor) -> None:
    if not A.is_meta and not torch.isfinite(A).all():
        raise ValueError(f"{name}: wanted finite entries, got NaN or infinity")


def matrix(name: str, A: Tensor) -> Tensor:
    """Return ``A`` if it is a two-dimensional floating-point tensor without NaN or infinity."""
    _floating_matrix(name, A)
    _finite(name, A)
    return A


def shaped(name: str, A: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the matrix ``A`` if it has the given shape."""
    if tuple(matrix(name, A).shape) != tuple(shape):
        raise ValueError(f"{name}: wanted shape {tuple(shape)}, got {tuple(A.shape)}")
    return A


def same_kind(name: str, A: Tensor, other_name: str, B: Tensor) -> None:
    """Require one dtype and one device of two tensors."""
    if A.dtype != B.dtype or A.device != B.device:
        raise ValueError(
            f"{name}: wanted {B.dtype} on {B.device} as {other_name}, got {A.dtype} on {A.device}"
        )


def fits(name: str, A: Tensor, shape: tuple[int, int], other_name: str, B: Tensor) -> None:
    """Require a shape, and the dtype and device of ``B``, of ``A``, whose values may be any."""
    if tuple(A.shape) != tuple(shape):
        raise ValueError(f"{name}: wanted shape {tuple(shape)}, got {tuple(A.shape)}")
    same_kind(name, A, other_name, B)


def chain(name: str, Ws: Sequence[Tensor]) -> list[Tensor]:
    """Return ``Ws`` as a list if the shapes multiply as ``W_L ... W_1``; values may be any."""
    if isinstance(Ws, Tensor) or not isinstance(Ws, Sequence):
        raise TypeError(f"{name}: wanted a sequence of matrices, got {type(Ws).__name__}")
    if not Ws:
        raise ValueError(f"{name}: wanted at least one matrix, got none")
    for i, W in enumerate(Ws):
        _floating_matrix(f"{name}[{i}]", W)
        same_kind(f"{name}[{i}]", W, f"{name}[0]", Ws[0])
        if i and W.shape[1] != Ws[i - 1].shape[0]:
            raise ValueError(
                f"{name}[{i}]: wanted {Ws[i - 1].shape[0]} columns to follow {name}[{i - 1}] "
                f"of shape {tuple(Ws[i - 1].shape)}, got shape {tuple(W.shape)}"
            )
    return list(Ws)


def layers(name: str, Ws: Sequence[Tensor]) -> list[Tensor]:
    """Return ``Ws`` as a list if its finite matrices can be multiplied as ``W_L ... W_1``."""
    for i, W in enumerate(chain(name, Ws)):
        _finite(f"{name}[{i}]", W)
    return list(Ws)


def orthogonal_up_to(name: str, W: Tensor, eps: float) -> None:
    """Require ``W^T W = eps^2 I`` or ``W W^T = eps^2 I``, whichever the shape allows."""
    if W.is_meta:
        return
    rows, cols = W.shape
    gram = W @ W.T if rows < cols else W.T @ W
    eye = torch.eye(min(rows, cols), dtype=W.dtype, device=W.device)
    gap = ((gram / eps**2 - eye).abs().max()).item()
    wanted = max(rows, cols) * 100 * torch.finfo(W.dtype).eps
    if not gap <= wanted:
        raise ValueError(
            f"{name}: wanted an orthogonal matrix times eps = {eps:g}, "
            f"got a Gram matrix {gap:.1e} away from eps^2 I (relative; at most {wanted:.1e})"
        )


def features(name: str, Z: Tensor) -> Tensor:
    """Return ``Z`` if it holds finite floating-point features as columns, (..., d, N)."""
    if not isinstance(Z, Tensor):
        raise TypeError(f"{name}: wanted a torch.Tensor, got {type(Z).__name__}")
    if Z.ndim < 2 or 0 in Z.shape:
        raise ValueError(f"{name}: wanted shape (..., d, N) with entries, got {tuple(Z.shape)}")
    matrix(name, Z.reshape(-1, Z.shape[-1]))
    return Z


def one_hot_classes(Z: Tensor, y: Tensor, at_least: int = 1) -> tuple[Tensor, Tensor]:
    """Check features and labels; return the one-hot matrix (N, K) and the class sizes (K,)."""
    features("Z", Z)
    kind = getattr(y, "dtype", type(y).__name__)
    if kind not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(f"y: wanted a tensor of whole numbers, got {kind}")
    if y.shape != Z.shape[-1:]:
        raise ValueError(
            f"y: wanted N = {Z.shape[-1]} labels as Z has columns, got {tuple(y.shape)}"
        )
    if y.device != Z.device:
        raise ValueError(f"y: wanted labels on {Z.device} as Z, got {y.device}")
    if y.min() < 0:
        raise ValueError(f"y: wanted classes 0, 1, ..., K - 1, got {y.min().item()}")
    sizes = torch.bincount(y.long())
    if (sizes == 0).any():
        none = (sizes == 0).nonzero()[0].item()
        raise ValueError(
            f"y: wanted samples of all classes 0 to {len(sizes) - 1}, got none of {none}"
        )
    if len(sizes) < at_least:
        raise ValueError(f"y: wanted K >= {at_least} classes, got K = {len(sizes)}")
    return torch.nn.functional.one_hot(y.long()).to(Z.dtype), sizes.to(Z.dtype)
