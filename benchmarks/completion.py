"""CPU seconds to a relative error of 1e-3 in completion: ours against alternating least squares.

Least squares is told the true rank and sees all entries; ours is told twice the rank and holds a
tenth out. Errors are those of the whole matrix, measured after each round, which is not timed.
With noise, the errors at the end are compared.
"""

import time
from unittest import mock

import common
import torch

from lop_utils import _finishing, completion
from lop_utils.observed import ObservedEntries

LEVEL, R, F64 = 1e-3, 10, {"dtype": torch.float64}


def problem(d, over, condition, noise, generator):
    """Draw a matrix with entries of size 1 as two factors, and a sample of it."""
    sigma = torch.logspace(0, -torch.tensor(condition).log10().item(), R, **F64)
    U, V = (torch.linalg.qr(torch.randn(d, R, generator=generator, **F64)).Q for _ in range(2))
    U *= d * sigma / sigma.norm()
    n = round(over * R * (2 * d - R))
    places = torch.randperm(d * d, generator=generator)[:n].sort().values
    rows, cols = places // d, places % d
    values = (U[rows] * V[cols]).sum(1) + noise * torch.randn(n, generator=generator, **F64)
    return (U, V), ObservedEntries(rows, cols, values, (d, d))


class Clock:
    """CPU seconds until the error is below the level; measuring stops it."""

    def __init__(self, Phi):
        self.Phi, self.spent, self.reached, self.error = Phi, 0.0, None, float("inf")
        self.since = time.process_time()

    def __call__(self, P, Qt):
        self.spent += time.process_time() - self.since
        U, V = self.Phi
        left, right = torch.cat([P, -U], 1), torch.cat([Qt, V], 1)
        difference = torch.linalg.qr(left).R @ torch.linalg.qr(right).R.T
        self.error = (difference.norm() / U.norm()).item()
        if self.error < LEVEL and self.reached is None:
            self.reached = self.spent
        self.since = time.process_time()


class Rows:
    """Entries by row, padded to the longest: what a half round of least squares needs."""

    def __init__(self, rows, cols, values, count):
        order = torch.argsort(rows, stable=True)
        rows, cols, values = rows[order], cols[order], values[order]
        counts = torch.bincount(rows, minlength=count)
        at = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        shape = count, counts.max().item()
        self.cols, self.mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, **F64)
        self.values = torch.zeros(shape, **F64)
        self.cols[rows, at], self.mask[rows, at], self.values[rows, at] = cols, 1.0, values

    def solved(self, F):
        A = F[self.cols] * self.mask[:, :, None]
        gram = A.mT @ A + 1e-12 * F.square().sum() * torch.eye(F.shape[1], **F64)
        return torch.linalg.solve(gram, A.mT @ self.values[:, :, None])[:, :, 0]


def least_squares(seen, clock, rounds, noisy):
    """Alternate at the true rank, from a start at random."""
    by_row = Rows(seen.rows, seen.cols, seen.values, seen.shape[0])
    by_col = Rows(seen.cols, seen.rows, seen.values, seen.shape[1])
    Qt = torch.randn(seen.shape[1], R, generator=torch.Generator().manual_seed(1), **F64)
    for _ in range(rounds):
        Qt = torch.linalg.qr(Qt).Q  # else a factor shrinks as the other grows
        P = by_row.solved(Qt)
        Qt = by_col.solved(P)
        clock(P, Qt)
        if clock.reached is not None and not noisy:
            break


def ours(seen, clock):
    """Complete, told twice the rank; the clock sees each round, and what is returned."""
    solved = _finishing.Sample.solved
    peak = None

    def watched(self, F, old, ridge, *, turned=False):
        found = solved(self, F, old, ridge, turned=turned)
        if turned:
            clock(peak * F, found)
        return found

    train = completion.observed.split(seen, 0.1, generator=0)[0]
    peak = train.values.abs().max()
    clock.since = time.process_time()
    with mock.patch.object(_finishing.Sample, "solved", watched):
        result = completion.complete(seen, 2 * R, steps=1000, progress=False)
    Q = result.Ws[1] @ result.Ws[0]
    clock(result.Ws[-1], Q.T)
    return result


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0], threads=1)
    sizes = [60] if options.quick else [500, 2000]
    kinds = [(c, 0.0) for c in (1.0, 10.0, 100.0)] + [(1.0, 0.1)]
    rows, kept = [], []
    for d in sizes:
        for over in [3] if options.quick else [3, 5]:
            for condition, noise in kinds:
                generator = torch.Generator().manual_seed(0)
                Phi, seen = problem(d, over, condition, noise, generator)
                theirs, mine = Clock(Phi), Clock(Phi)
                least_squares(seen, theirs, 100, noise > 0)
                result = ours(seen, mine)
                share = mine.reached / theirs.reached if mine.reached and theirs.reached else None
                row = [d, over, condition, noise, theirs.reached, mine.reached, share]
                row += [theirs.error, mine.error, len(result.Ws[0]), result.stopped]
                rows.append(row)
                kept.append(dict(zip(COLUMNS, row, strict=True)))
    common.show(COLUMNS, rows)
    if not options.quick:
        common.record("completion", {"level": LEVEL, "rank": R, "rows": kept})


COLUMNS = ["d", "times the numbers", "condition", "noise", "ALS s", "ours s", "of its seconds"]
COLUMNS += ["ALS error", "our error", "rank", "stopped"]

if __name__ == "__main__":
    main()
