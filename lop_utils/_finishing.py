r"""Where a completion is finished: least squares of the rank that was found, mode by mode.

None of this is gradient descent. From a vanishing start a network of three layers learns one
singular value after the other, each when the last has settled (greedy low-rank learning: Li, Luo
and Lyu 2021, arXiv:2012.09839). `grown` goes the same way without the plateaus between: the
residual's singular values say which directions come next, those that stand out above what signs
drawn at random leave of it (Hong, Sheng and Dobriban 2020, arXiv:2012.02985), and least squares,
alternating between two factors, settles them whatever the condition of the target.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lop_utils import factored
from lop_utils.observed import ObservedEntries

__all__ = ["Finish", "Sample", "grown", "rank_of", "refitted", "shrunk", "svd_of_product"]

_BLOCK = 2**13  # entries whose factors are gathered at once: they stay in the cache
_ROUNDS = 500  # of least squares at most; a sample that determines the matrix asks for dozens
_CLEAR = 1.02  # how far above chance a singular value stands out


class Finish(NamedTuple):
    """Two factors (d_y, r) and (d_x, r), and the root mean square errors of their product."""

    P: Tensor
    Qt: Tensor
    train: float
    held_out: float
    """NaN if nothing was held out."""
    exact: bool
    """Whether nothing but rounding is left, held out or not."""

    @property
    def error(self) -> float:
        """Return the error that judges: that held out, if there is one."""
        return self.train if self.held_out != self.held_out else self.held_out

    def divided(self, unit: float) -> "Finish":
        """Return what it is for values divided by a unit."""
        root = unit**0.5
        train, held_out = self.train / unit, self.held_out / unit
        return Finish(self.P / root, self.Qt / root, train, held_out, self.exact)

    def layers(self, L: int) -> list[Tensor]:
        """Return L balanced layers with the same product."""
        U, s, V = svd_of_product(self.P, self.Qt)
        root = s ** (1 / L)
        return [(V * root).T.contiguous(), *(torch.diag(root) for _ in range(L - 2)), U * root]


class Sample:
    """Products with observed entries, and least squares for either factor."""

    def __init__(self, seen: ObservedEntries) -> None:
        """Sort the entries by column, too, and lay rows of like length side by side."""
        (d_y, d_x), self.values, self.shape = seen.shape, seen.values, seen.shape
        self.rows, self.cols = seen.rows.int(), seen.cols.int()
        self.turn = torch.argsort(seen.cols, stable=True).int()
        self.turned, self.mkl = self.rows[self.turn], factored._has_csr(seen.values)
        self.crow = factored._pointers(seen.rows, d_y)
        self.ccol = factored._pointers(seen.cols, d_x)
        self.blocks = _laid_out(self.crow, self.cols, d_x), _laid_out(self.ccol, self.turned, d_y)
        self.occur = [int((crow.diff() > 0).sum()) for crow in (self.crow, self.ccol)]

    def entries(self, P: Tensor, Qt: Tensor) -> Tensor:
        """Return the observed entries of the product."""
        if P.is_cuda:
            return (P[self.rows] * Qt[self.cols]).sum(1)
        dots = torch.ops.aten._embedding_bag_per_sample_weights_backward
        return dots(P.contiguous(), Qt.contiguous(), self.cols, self.crow[:-1], self.rows, 0)

    def times(self, R: Tensor, F: Tensor, *, turned: bool = False) -> Tensor:
        """Return the sparse matrix of the entries R, or its transpose, times F."""
        crow, col = (self.ccol, self.turned) if turned else (self.crow, self.cols)
        R, F = R[self.turn] if turned else R, F.contiguous()
        if self.mkl:
            return factored._csr(crow, col, R, (len(crow) - 1, len(F))) @ F
        return factored._summed(crow, col, R, F)

    def solved(self, F: Tensor, old: Tensor, ridge: Tensor, *, turned: bool = False) -> Tensor:
        """Return the best P for a given Q^T, or turned, as close to the old one as is left open."""
        wanted, found = self.times(self.values, F, turned=turned), torch.zeros_like(old)
        padded, blocks = torch.cat([F, torch.zeros_like(F[:1])]), self.blocks[turned]
        longest = max(places.numel() for _, places in blocks)
        memory, kind = F.new_empty(longest, F.shape[1]), torch.finfo(F.dtype)
        for rows, places in blocks:
            A = torch.index_select(padded, 0, places.view(-1), out=memory[: places.numel()])
            A = A.view(*places.shape, -1)
            gram = A.mT @ A
            near = kind.eps**0.5 * gram.diagonal(0, 1, 2).mean(1, keepdim=True) + kind.tiny**0.5
            gram.diagonal(0, 1, 2).add_(near + ridge)
            found[rows] = torch.linalg.solve(gram, wanted[rows] + near * old[rows])
        return found

    def leading(self, R: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return about the k leading singular triplets of the sparse matrix of the entries R."""
        seed = torch.Generator().manual_seed(0)
        V = torch.randn(self.shape[1], k, generator=seed, dtype=R.dtype).to(R.device)
        for _ in range(4):
            U = torch.linalg.qr(self.times(R, V)).Q
            V = self.times(R, U, turned=True)
        return svd_of_product(U, V)


def _laid_out(crow: Tensor, col: Tensor, nothing: int) -> list[tuple[Tensor, Tensor]]:
    """Return blocks of rows with their columns, the shorter ones filled up with ``nothing``."""
    counts, order = torch.sort(crow.diff(), descending=True)
    lengths, first, blocks, start = counts.tolist(), crow[:-1][order], [], 0
    end = int((counts > 0).sum())
    while start < end:
        longest, stop = lengths[start], start + 1
        while stop < end and 2 * lengths[stop] > longest and (stop - start) * longest < _BLOCK:
            stop += 1
        offsets = torch.arange(longest, device=col.device, dtype=torch.int32)
        here = offsets < counts[start:stop, None]
        at = torch.where(here, first[start:stop, None] + offsets, 0)
        blocks.append((order[start:stop], torch.where(here, col[at], nothing)))
        start = stop
    return blocks


def svd_of_product(P: Tensor, Qt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, s and V of P Q, from matrices that are small."""
    (U, A), (V, B) = torch.linalg.qr(P), torch.linalg.qr(Qt)
    u, s, vh = torch.linalg.svd(A @ B.T)
    # Rounding leaves something in rows that have no entries.
    U, V = U @ u * (P != 0).any(1, keepdim=True), V @ vh.T * (Qt != 0).any(1, keepdim=True)
    return U, s, V


def rank_of(s: Tensor) -> int:
    """Return how many singular values lie above the widest gap, in logarithm."""
    s = s.clamp(min=s[0].item() * torch.finfo(s.dtype).eps)
    return int((s[:-1] / s[1:]).argmax()) + 1 if len(s) > 1 else 1


def shrunk(Ws: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return two factors of the rank that the product of the layers shows."""
    Q = Ws[0]
    for W in Ws[1:-1]:
        Q = W @ Q
    U, s, V = svd_of_product(Ws[-1], Q.T)
    root = s[: rank_of(s)].sqrt()
    return U[:, : len(root)] * root, V[:, : len(root)] * root


def _settled(sample, test, P, Qt, lam, L, share):
    """Alternate until the loss falls by less than a share of it a round; return the residual too.

    A decay lam of L layers costs a singular value s as much as a ridge of lam s^(2/L - 1) costs it
    in two, so that depth is kept here, too.
    """
    floor = torch.finfo(P.dtype).eps ** 2 * sample.values.square().sum().item()
    before = float("inf")
    for _ in range(_ROUNDS):
        U, s, V = svd_of_product(P, Qt)
        root = s.sqrt()
        ridge = lam * s.clamp(min=1e-6 * s[0].item() + 1e-30) ** (2 / L - 1)
        P = sample.solved(V * root, U * root, ridge)
        Qt = sample.solved(P, V * root, ridge, turned=True)
        R = sample.values - sample.entries(P, Qt)
        loss = R.square().sum().item()
        if not floor < loss <= (1 - share) * before:
            break
        before = loss
    train, held_out, middle = (loss / len(R)) ** 0.5, float("nan"), 0.0
    if test is not None:
        gap = (P[test.rows] * Qt[test.cols]).sum(1) - test.values
        # The median: a row without entries of its own is missed, however exact the others are.
        held_out, middle = gap.square().mean().sqrt().item(), gap.abs().median().item()
    rounding = torch.finfo(P.dtype).eps ** 0.5 * sample.values.square().mean().sqrt().item()
    return Finish(P, Qt, train, held_out, max(train, middle) < rounding), R


def grown(sample, test, most, start=None, lam=0.0, L=3) -> Finish | None:
    """Return the factors that predict best, of a rank that grows while something stands out.

    ``most`` bounds the rank, ``start`` are two factors to begin with; with None, and nothing that
    stands out, there are none to return.
    """
    R, n, best = sample.values, len(sample.values), None
    seed = torch.Generator().manual_seed(0)
    signs = (1 - 2 * torch.randint(2, (n,), generator=seed)).to(R)
    P, Qt = start or (R.new_zeros(sample.shape[0], 0), R.new_zeros(sample.shape[1], 0))
    while True:
        if r := P.shape[1]:
            now, R = _settled(sample, test, P, Qt, lam, L, 0.1)
            if best is not None and not (now.exact or now.error < 0.99 * best.error):
                break
            best, P, Qt = now, now.P, now.Qt
        room = min(most, *sample.occur) - r
        if room < 1 or n <= r * (sum(sample.occur) - r) or (best and best.exact):
            break
        k = min(most + 5, *sample.occur)  # some to spare: the first ones are found more exactly
        U, s, V = sample.leading(R, k)
        new = min(int((s > _CLEAR * sample.leading(R * signs, k)[1][0]).sum()), room)
        if not new:
            break
        root = (s[:new] * sample.shape[0] * sample.shape[1] / n).sqrt()  # 1/p of them is seen
        P, Qt = torch.cat([P, U[:, :new] * root], 1), torch.cat([Qt, V[:, :new] * root], 1)
    return best and _settled(sample, test, best.P, best.Qt, lam, L, 1e-6)[0]


def refitted(seen: ObservedEntries, found: Finish, lam: float, L: int) -> Finish:
    """Return what fits all entries, from what was found on a part, with the part's errors."""
    fit, _ = _settled(Sample(seen), None, found.P, found.Qt, lam, L, 1e-6)
    return found._replace(P=fit.P, Qt=fit.Qt)
