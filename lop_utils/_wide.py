"""What stands behind `mean_field`: checks, and the equations in the order of time.

Nothing at a step depends on what comes later, so `march` adds a row to every array at each step,
upwards through the layers for features and downwards for gradients.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = ["each", "gram", "march"]


def gram(name: str, A: Tensor) -> Tensor:
    """Return a symmetric matrix, or one for each run, with no negative eigenvalue."""
    _checks.held(name, A, "a Gram matrix")
    rounding = 100 * A.shape[-1] * torch.finfo(A.dtype).eps
    if (apart := (A - A.mT).abs().max().item()) > rounding * A.abs().max().item():
        raise ValueError(
            f"{name}: wanted a symmetric matrix, got one {apart:.1e} from its transpose"
        )
    A = A / 2 + A.mT / 2
    values = torch.linalg.eigvalsh(A)
    if (negative := values[..., 0] < -rounding * values[..., -1].abs()).any():
        got = values[..., 0][negative].min().item()
        raise ValueError(f"{name}: wanted a Gram matrix, got one with an eigenvalue of {got:.3g}")
    return A


def each(name: str, value: float | Tensor, K: Tensor, runs: tuple[int, ...]) -> Tensor:
    """Return a positive number of all runs or of each, with an axis for coordinates."""
    if not getattr(value, "ndim", 0) and not isinstance(value, Sequence):
        value = _checks.positive(name, value)
    values = _checks.scalars(name, value).to(K)
    if values.shape not in ((), runs) or not (values > 0).all():
        wanted = f"{name} > 0, one or of shape {tuple(runs)}"
        raise ValueError(f"{name}: wanted {wanted}, got {values.tolist()}")
    return values[..., None]


def march(
    K: Tensor, y: Tensor, L: int, eta: float, gamma0: float, T: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Return Delta, H, G, the tangent kernel and the mismatch, as `mean_field.MeanField` has."""
    # Rows of samples in the order of time. Everything odd in gamma0 is divided by it, so that
    # only its square enters and the lazy limit is a case like others.
    P, rate, square = len(y), eta / len(y), gamma0 * gamma0
    n = T * P
    H, G, ntk = K.new_zeros(L, n, n), K.new_ones(L + 1, T, T), K.new_zeros(T, P, P)
    A, B = K.new_zeros(L + 1, n, T), K.new_zeros(L + 1, T, n)  # responses, from layer 0 on
    C, D = K.new_zeros(L, n, T), K.new_zeros(L, T, n)
    X = K.new_zeros(L, T, n)  # g(t) . h(s) / (gamma0 N)
    own = torch.eye(T, dtype=K.dtype, device=K.device).repeat(L, 1, 1)  # d g / d r
    Delta = y.repeat(T, 1)
    apart, largest = 0.0, 0.0
    for t in range(T):
        p, q = t * P, t * P + P
        for l in range(L):
            past, now = (K.repeat(1, t + 1) if l == 0 else H[l - 1, p:q, :q]).split([p, P], 1)
            c = A[l, p:q, :t] + rate * (past.reshape(P, t, P) * Delta[:t]).sum(-1)
            C[l, p:q, :t], A[l + 1, p:q, :t] = c, c @ own[l, :t, :t]
            u_g = past @ B[l, :t, :p].T
            row = past + square * (u_g @ C[l, :p, :t].T + c @ X[l, :t, :p])
            H[l, p:q, :p], H[l, :p, p:q] = row, row.T
            drift, g_c = c @ u_g.T, G[l, :t, :t] @ c.T
            H[l, p:q, p:q] = now + square * (drift + drift.T + c @ g_c)
            X[l, :t, p:q] = u_g.T + g_c
        for l in reversed(range(L)):
            past = G[l + 1, t, :t]
            d = B[l + 1, t, :p] + rate * (past[:, None] * Delta[:t]).flatten()
            D[l, t, :p], own[l, t, :t] = d, square * (d @ A[l + 1, :p, :t])
            B[l, t, :p] = d + square * (d @ C[l, :p, :t] @ B[l, :t, :p])
            r_h, d_h = A[l + 1, :q, :t] @ past, H[l, :q, :p] @ d
            row = past + square * (D[l, :t, :p] @ r_h[:p] + X[l, :t, :p] @ d)
            G[l, t, :t] = G[l, :t, t] = row
            G[l, t, t] = G[l + 1, t, t] + square * (2 * d @ r_h[:p] + d @ d_h[:p])
            X[l, t, :q] = r_h + d_h
        outputs = X[:, t, p:q]
        Delta[t] -= outputs[-1]
        ntk[t] = G[0, t, t] * K + (H[:, p:q, p:q] * G[1:, t, t, None, None]).sum(0)
        largest = max(largest, outputs.abs().max().item())
        apart = max(apart, (outputs - outputs[-1]).abs().max().item())
        if not ntk[t].isfinite().all() or not Delta[t].isfinite().all():
            raise FloatingPointError(
                f"eta: wanted a step size that keeps numbers finite in {K.dtype}, overflowed at "
                f"step t = {t} with eta = {eta:g}, gamma0 = {gamma0:g}; a smaller eta converges"
            )
    return Delta, H.view(L, T, P, T, P), G[:L], ntk, apart / (largest or 1.0)
