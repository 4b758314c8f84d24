"""Argument checks whose messages name the symbol, what was wanted and what came.

What is to be a tensor may be a Tensor, a numpy array, a list or a column of pandas: each check
returns the Tensor that it makes of it. A Tensor stays what it is, and of whole numbers is refused
where real ones are wanted; whole numbers of other kinds become float64 there. A type that can
never work is a ``TypeError``; a value outside a hypothesis is a ``ValueError``. Tensors on the
meta device carry shapes but no numbers, so checks of values pass them by.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Who checks an argument need not know in which of the two files the check stands.
from lop_utils._scalars import (  # noqa: F401
    count,
    each,
    finite_number,
    flag,
    fraction,
    instance,
    nonnegative,
    one_of,
    path,
    positive,
    seeded,
    shuffled,
)

__all__ = [
    "chain",
    "classes",
    "features",
    "fits",
    "held",
    "indices",
    "layers",
    "matrix",
    "numbers",
    "of_runs",
    "orthogonal_up_to",
    "places",
    "present",
    "same_kind",
    "scalars",
    "shaped",
    "tensor",
    "vector",
    "whole",
]

# --- Tensors


def tensor(name: str, value: Any) -> Tensor:
    """Return a Tensor of what is one, an array, a list or a column of numbers."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized:
            raise TypeError(f"{name}: wanted a dense tensor, got {value.layout}, {value.dtype}")
        return value
    if np.ma.is_masked(value):  # asarray would take what is hidden for numbers
        raise ValueError(f"{name}: wanted numbers throughout, got a masked array that hides some")
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufc" or np.ma.is_masked(value):
            raise TypeError
        # Our own numbers, in our order of bytes: torch takes no read-only arrays and no
        # negative strides.
        plain = f"{array.dtype.kind}{array.dtype.itemsize}"
        return torch.from_numpy(array.astype(plain, order="C"))
    except (TypeError, ValueError, RuntimeError):
        kind = getattr(value, "dtype", None) or type(value).__name__
        raise TypeError(f"{name}: wanted a tensor of numbers, got {kind}") from None


def present(name: str, A: Tensor) -> Tensor:
    """Return the tensor if it has numbers, which one on the meta device has not."""
    if A.is_meta:
        raise TypeError(f"{name}: wanted numbers, got a tensor on the meta device")
    return A


def _real(name: str, value: Any) -> Tensor:
    A = tensor(name, value)
    if not isinstance(value, Tensor) and not (A.is_floating_point() or A.is_complex()):
        A = A.double()
    if A.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: wanted float32 or float64, got {A.dtype}")
    return A


def _finite(name: str, A: Tensor) -> Tensor:
    if not A.is_meta and not torch.isfinite(A).all():
        raise ValueError(f"{name}: wanted finite entries, got NaN or infinity")
    return A


def held(name: str, A: Tensor, what: str) -> Tensor:
    """Return what came of finite numbers, if the dtype can hold it."""
    if not A.is_meta and not torch.isfinite(A).all():
        raise ValueError(f"{name}: wanted {what} that {A.dtype} can hold, got more; scale it down")
    return A


def scalars(name: str, value: Any) -> Tensor:
    """Return finite real numbers of any shape and floating dtype; whole ones become float64."""
    A = tensor(name, value)
    if A.is_complex():
        raise TypeError(f"{name}: wanted real numbers, got {A.dtype}")
    return _finite(name, A if A.is_floating_point() else A.double())


def vector(name: str, value: Any) -> Tensor:
    """Return a vector of finite real numbers."""
    v = _real(name, value)
    if v.ndim != 1 or 0 in v.shape:
        raise ValueError(f"{name}: wanted a vector with entries, got shape {tuple(v.shape)}")
    return _finite(name, v)


def _matrix(name: str, value: Any, *, runs: bool = False) -> Tensor:
    A = _real(name, value)
    if A.ndim < 2 or (A.ndim > 2 and not runs):
        raise ValueError(f"{name}: wanted a matrix, got shape {tuple(A.shape)}")
    if 0 in A.shape:
        raise ValueError(f"{name}: wanted a matrix with entries, got shape {tuple(A.shape)}")
    return A


def matrix(name: str, value: Any, *, runs: bool = False) -> Tensor:
    """Return a matrix of finite real numbers; with ``runs`` it may be one for each run."""
    return _finite(name, _matrix(name, value, runs=runs))


def shaped(name: str, value: Any, shape: tuple[int, ...], *, runs: bool = False) -> Tensor:
    """Return the matrix if it has the given shape, with ``runs`` in its last two axes."""
    A = matrix(name, value, runs=runs)
    if tuple(A.shape[-len(shape) :] if runs else A.shape) != tuple(shape):
        raise ValueError(f"{name}: wanted shape {tuple(shape)}, got {tuple(A.shape)}")
    return A


def of_runs(name: str, A: Tensor, other: Tensor) -> None:
    """Refuse a tensor with runs that are not those of another."""
    if A.ndim > 2 and A.shape[:-2] != (runs := other.shape[:-2]):
        got = tuple(A.shape)
        raise ValueError(
            f"{name}: wanted one of all runs or one of each of {tuple(runs)}, got {got}"
        )


def same_kind(name: str, A: Tensor, other_name: str, B: Tensor) -> None:
    """Require one dtype and one device of two tensors."""
    if A.dtype != B.dtype or A.device != B.device:
        raise ValueError(
            f"{name}: wanted {B.dtype} on {B.device} as {other_name}, got {A.dtype} on {A.device}"
        )


def fits(name: str, A: Tensor, shape: tuple[int, ...], other_name: str, B: Tensor) -> None:
    """Require a shape, and the dtype and device of ``B``, of ``A``, whose values may be any."""
    tensor(name, A)
    if tuple(A.shape) != tuple(shape):
        raise ValueError(f"{name}: wanted shape {tuple(shape)}, got {tuple(A.shape)}")
    same_kind(name, A, other_name, B)


# --- Networks


def chain(name: str, Ws: Sequence[Any]) -> list[Tensor]:
    """Return matrices whose shapes multiply as ``W_L ... W_1``, all with the same axes of runs."""
    if isinstance(Ws, Tensor | np.ndarray) or not isinstance(Ws, Sequence):
        raise TypeError(f"{name}: wanted a sequence of matrices, got {type(Ws).__name__}")
    if not Ws:
        raise ValueError(f"{name}: wanted at least one matrix, got none")
    Ws = [_matrix(f"{name}[{i}]", W, runs=True) for i, W in enumerate(Ws)]
    for i, W in enumerate(Ws):
        same_kind(f"{name}[{i}]", W, f"{name}[0]", Ws[0])
        if W.shape[:-2] != Ws[0].shape[:-2]:
            raise ValueError(
                f"{name}[{i}]: wanted one matrix for each run as {name}[0] of shape "
                f"{tuple(Ws[0].shape)}, got shape {tuple(W.shape)}"
            )
        if i and W.shape[-1] != Ws[i - 1].shape[-2]:
            raise ValueError(
                f"{name}[{i}]: wanted {Ws[i - 1].shape[-2]} columns to follow {name}[{i - 1}] "
                f"of shape {tuple(Ws[i - 1].shape)}, got shape {tuple(W.shape)}"
            )
    return Ws


def layers(name: str, Ws: Sequence[Any], *, runs: bool = False) -> list[Tensor]:
    """Return finite matrices that multiply as ``W_L ... W_1``; with ``runs``, of many networks."""
    Ws = chain(name, Ws)
    return [matrix(f"{name}[{i}]", W, runs=runs) for i, W in enumerate(Ws)]


def orthogonal_up_to(name: str, W: Tensor, eps: float) -> None:
    """Require ``W^T W = eps^2 I`` or ``W W^T = eps^2 I``, whichever the shape allows."""
    if W.is_meta:
        return
    rows, cols = W.shape
    Q = W / eps  # first: squares of a small or large scale are lost
    gram = Q @ Q.T if rows < cols else Q.T @ Q
    eye = torch.eye(min(rows, cols), dtype=W.dtype, device=W.device)
    gap = (gram - eye).abs().max().item()
    wanted = max(rows, cols) * 100 * torch.finfo(W.dtype).eps
    if not gap <= wanted:
        raise ValueError(
            f"{name}: wanted an orthogonal matrix times eps = {eps:g}, "
            f"got a Gram matrix {gap:.1e} away from eps^2 I (relative; at most {wanted:.1e})"
        )


# --- Data


def features(name: str, value: Any) -> Tensor:
    """Return finite features in columns, (..., d, N); half precision becomes float32."""
    Z = tensor(name, value)
    if Z.dtype in (torch.float16, torch.bfloat16):
        Z = Z.float()  # sums of squares in half precision overflow
    if Z.ndim < 2 or 0 in Z.shape:
        raise ValueError(f"{name}: wanted shape (..., d, N) with entries, got {tuple(Z.shape)}")
    return _finite(name, _real(name, Z if isinstance(value, Tensor) else Z.numpy()))


def numbers(name: str, value: Any) -> Tensor:
    """Return finite real numbers along the last axis, (..., n); half precision becomes float32."""
    shape = tuple(tensor(name, value).shape)
    if not shape or 0 in shape:
        raise ValueError(f"{name}: wanted shape (..., n) with entries, got {shape}")
    return features(name, value[None] if isinstance(value, Tensor) else [value])[0]


def whole(name: str, value: Any) -> Tensor:
    """Return a vector of int64."""
    try:
        given = present(name, tensor(name, value))
    except TypeError as error:
        raise TypeError(f"{error}; numpy.unique(..., return_inverse=True) numbers names") from None
    if given.ndim != 1 or len(given) == 0:
        raise ValueError(f"{name}: wanted a vector with entries, got shape {tuple(given.shape)}")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"{name}: wanted whole numbers, got {given.dtype}")
    index = given.long()
    if given.dtype == torch.uint64 and (index < 0).any():
        raise ValueError(f"{name}: wanted numbers below 2**63, got {given.cpu().numpy().max()}")
    return index


def indices(name: str, value: Any, bound: int) -> Tensor:
    """Return a vector of int64 from 0 to ``bound - 1``."""
    index = whole(name, value)
    low, high = index.min().item(), index.max().item()
    if low < 0 or high >= bound:
        raise ValueError(f"{name}: wanted 0 to {bound - 1}, got {low} to {high}")
    return index


def places(rows: Any, cols: Any, shape: tuple[int, int], device: Any) -> tuple[Tensor, Tensor]:
    """Return where entries of a matrix of that shape stand, two vectors of one length."""
    rows, cols = indices("rows", rows, shape[0]), indices("cols", cols, shape[1])
    if len(rows) != len(cols):
        raise ValueError(f"cols: wanted {len(rows)} as rows, got {len(cols)}")
    return rows.to(device), cols.to(device)


def classes(Z: Tensor, value: Any, at_least: int = 1) -> tuple[Tensor, Tensor]:
    """Check labels of features; return the one-hot matrix (N, K) and the class sizes (K,)."""
    y = tensor("y", value)
    if y.shape != Z.shape[-1:]:
        raise ValueError(
            f"y: wanted N = {Z.shape[-1]} labels as Z has columns, got {tuple(y.shape)}"
        )
    y = indices("y", y, len(y)).to(Z.device)  # as each class has a sample
    sizes = torch.bincount(y)
    if (sizes == 0).any():
        none = (sizes == 0).nonzero()[0].item()
        raise ValueError(
            f"y: wanted samples of all classes 0 to {len(sizes) - 1}, got none of {none}"
        )
    if len(sizes) < at_least:
        raise ValueError(f"y: wanted K >= {at_least} classes, got K = {len(sizes)}")
    return torch.nn.functional.one_hot(y).to(Z.dtype), sizes.to(Z.dtype)
