"""What stands behind `mean_field`: checks, and the equations in the order of time.

Nothing at a step depends on what comes later, so `march` adds a row to every array at each step,
upwards through the layers for features and downwards for gradients. `march_branches` does it for
residual networks, in which each layer sees all others.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.losses import Loss, ValueAndGradients, of_product

__all__ = ["branched", "gram", "march", "march_branches"]


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
        _require_finite(t, eta, gamma0, ntk[t], Delta[t])
    return Delta, H.view(L, T, P, T, P), G[:L], ntk, apart / (largest or 1.0)


def _require_finite(t: int, eta: float, gamma0: float, ntk: Tensor, Delta: Tensor) -> None:
    if not ntk.isfinite().all() or not Delta.isfinite().all():
        raise FloatingPointError(
            f"eta: wanted a step size that keeps numbers finite in {Delta.dtype}, overflowed at "
            f"step t = {t} with eta = {eta:g}, gamma0 = {gamma0:g}; a smaller eta converges"
        )


def march_branches(
    K: Tensor, y: Tensor, L: int, beta: float, eta: float, gamma0: float, T: int, skip: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Return what `march` does, of the L + 1 states of a network with L residual branches.

    With ``skip`` = 0 and ``beta`` = 1 it is the plain network of L + 1 hidden layers.
    """
    # Features h and gradients g of a neuron, in all layers and at all steps, are sums over what
    # the start draws for it: inputs and, of each branch and step, u forwards; the output and r
    # backwards. Kept are the factors, those of the other direction divided by gamma0. So each
    # average is a product of factors and covariances, H of u and G of r.
    P, M, rate, square = len(y), L + 1, eta / len(y), gamma0 * gamma0
    n = T * P
    forth, back = P + L * n, 1 + L * T
    h_u, h_r = K.new_zeros(M, T, P, forth), K.new_zeros(M, T, P, back)
    g_u, g_r = K.new_zeros(M, T, forth), K.new_zeros(M, T, back)
    H, G = K.new_zeros(M, n, n), K.new_zeros(M, T, T)
    ntk, Delta, one = K.new_zeros(T, P, P), y.repeat(T, 1), torch.eye(P).to(K)
    apart, largest = 0.0, 0.0

    def covary(rows: Tensor, first: Tensor, blocks: Tensor) -> Tensor:
        inner = (
            rows[..., len(first) :].reshape(len(rows), L, blocks.shape[-1]).transpose(0, 1) @ blocks
        )
        return torch.cat([rows[..., : len(first)] @ first, inner.transpose(0, 1).flatten(1)], -1)

    for t in range(T):
        p, q, covs, outputs = t * P, t * P + P, [], K.new_zeros(M, P)
        for l in range(M):
            u, r = h_u[l, t], h_r[l, t]
            if l == 0:
                u[:, :P], scale = one, 1.0
                c = rate * Delta[:t] @ K
            else:
                u += skip * h_u[l - 1, t]
                r += skip * h_r[l - 1, t]
                start, scale = P + (l - 1) * n + p, beta
                u[:, start : start + P] += beta * one
                c = beta * rate * (H[l - 1, p:q, :p].view(P, t, P) * Delta[:t]).sum(-1).T
                c += h_r[l - 1, t, :, 1 + (l - 1) * T :][:, :t].T
            u += scale * square * c.T @ g_u[l, :t]
            r += scale * c.T @ g_r[l, :t]
            covs.append(covary(u, K, H[:L]))
            row = covs[l] @ h_u[l, : t + 1].flatten(0, 1).T
            row += square * covary(r, one[:1, :1], G[1:]) @ h_r[l, : t + 1].flatten(0, 1).T
            H[l, p:q, :q], H[l, :q, p:q] = row, row.T
        for l in reversed(range(M)):
            u, r = g_u[l, t], g_r[l, t]
            if l == L:
                r[0], scale = 1.0, 1.0
                d = rate * Delta[:t].flatten()
            else:
                u += skip * g_u[l + 1, t]
                r += skip * g_r[l + 1, t]
                r[1 + l * T + t] += beta
                scale, d = beta, beta * rate * (G[l + 1, t, :t, None] * Delta[:t]).flatten()
                d += g_u[l + 1, t, P + l * n :][:p]
            u += scale * d @ h_u[l, :t].flatten(0, 1)
            r += scale * square * d @ h_r[l, :t].flatten(0, 1)
            r_now = covary(r[None], one[:1, :1], G[1:])[0]
            row = g_r[l, : t + 1] @ r_now
            row += square * g_u[l, : t + 1] @ covary(u[None], K, H[:L])[0]
            G[l, t, : t + 1] = G[l, : t + 1, t] = row
            outputs[l] = covs[l] @ u + h_r[l, t] @ r_now
        Delta[t] -= outputs[-1]
        weights = torch.cat([beta * beta * G[1:, t, t], one.new_ones(1)])
        ntk[t] = G[0, t, t] * K + (H[:, p:q, p:q] * weights[:, None, None]).sum(0)
        largest = max(largest, outputs.abs().max().item())
        apart = max(apart, (outputs - outputs[-1]).abs().max().item())
        _require_finite(t, eta, gamma0, ntk[t], Delta[t])
    return Delta, H.view(M, T, P, T, P), G, ntk, apart / (largest or 1.0)


def branched(loss: Loss, beta: float, matrices: int = 1) -> Loss:
    """Return a loss of networks with residual branches, as `book.width.residual` says."""

    def of_branches(Ws: Sequence[Tensor]) -> ValueAndGradients:
        first, *inner, last = Ws
        if len(inner) % matrices:
            raise ValueError(f"Ws: wanted branches of {matrices} matrices, got {len(inner)} in all")
        branches = [inner[i : i + matrices] for i in range(0, len(inner), matrices)]
        eye = torch.eye(first.shape[-2], dtype=first.dtype, device=first.device)
        # Not by `networks.end_to_end`, which refuses runs that have diverged beside others.
        products = (reduce(lambda P, W: W @ P, branch) for branch in branches)
        chain = [first, *(eye + beta * product for product in products)]
        value, (first_grad, *grads, last_grad) = loss([*chain, last])
        found = [first_grad]
        for branch, G in zip(branches, grads, strict=True):
            found += of_product(lambda W, G=G: (value, beta * G))(branch).grads
        return ValueAndGradients(value, [*found, last_grad])

    return of_branches
