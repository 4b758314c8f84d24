"""Effects of rows and columns, by conjugate gradients on the smaller side alone."""

from collections.abc import Callable

import numpy as np

__all__ = ["TwoWay", "best_shrinkage"]

_Pair = tuple[np.ndarray, np.ndarray]


class TwoWay:
    r"""Entries, ready for the fit of :math:`r_{ui} \approx b_u + c_i`.

    With M of ones where an entry is, and diagonal D of counts plus shrinkage, the normal equations
    are :math:`D_b b + Mc = f_b` and :math:`M^\top b + D_c c = f_c`. One side is eliminated, since
    its D is diagonal, and the other solves a system with the Schur complement
    :math:`D_c - M^\top D_b^{-1} M`.
    """

    def __init__(
        self, rows: np.ndarray, cols: np.ndarray, values: np.ndarray, shape: tuple[int, int]
    ) -> None:
        from scipy import sparse  # only when asked for

        counts = np.bincount(rows, minlength=shape[0]), np.bincount(cols, minlength=shape[1])
        sums = np.bincount(rows, values, shape[0]), np.bincount(cols, values, shape[1])
        starts = np.append(0, counts[0].cumsum())
        self.M = sparse.csr_array((np.ones(len(rows)), cols, starts), shape=shape)
        self.turned = shape[0] < shape[1]  # the larger side is eliminated
        self.counts, self.sums = (pair[:: -1 if self.turned else 1] for pair in (counts, sums))
        if self.turned:
            self.M = self.M.T

    def solve(self, shrinkage: _Pair, start: _Pair | None = None, rtol: float = 1e-10) -> _Pair:
        """Return effects of rows and columns; of least norm where several fit equally well."""
        from scipy.sparse.linalg import LinearOperator, cg

        order = slice(None, None, -1 if self.turned else 1)
        M, (f_b, f_c), shrinkage = self.M, self.sums, shrinkage[order]
        # Who has no entry is coupled to nobody: any D but 0 leaves the effect at 0.
        D_b, D_c = (
            np.where(count, count + extra, 1.0)
            for count, extra in zip(self.counts, shrinkage, strict=True)
        )
        side = LinearOperator(
            (len(f_c),) * 2, lambda c: D_c * c - M.T @ (M @ c / D_b), dtype=np.float64
        )
        scaled = LinearOperator(side.shape, lambda c: c / D_c, dtype=np.float64)
        # What rounding leaves of a right side that is 0 is nothing to solve for.
        least = 1e-14 * np.hypot(np.linalg.norm(f_b), np.linalg.norm(f_c))
        x0 = None if start is None else start[order][1]
        c, _ = cg(side, f_c - M.T @ (f_b / D_b), x0=x0, rtol=rtol, atol=least, M=scaled)
        b = (f_b - M @ c) / D_b
        if min(shrinkage) < 1:  # else the gradients were exact enough in all directions
            b, c = self._shifted(b, c, shrinkage)
        return (b, c)[order]

    def _shifted(self, b: np.ndarray, c: np.ndarray, shrinkage: _Pair) -> _Pair:
        """Return the same sums by effects of least penalty: b + t and c - t, where connected."""
        from scipy import sparse

        places = self.M.tocoo()
        size = len(b) + len(c)
        both = sparse.coo_array(
            (places.data, (places.coords[0], len(b) + places.coords[1])), shape=(size, size)
        )
        label = sparse.csgraph.connected_components(both, directed=False)[1]
        on_b, on_c = shrinkage if max(shrinkage) else (1.0, 1.0)
        pull = np.bincount(label, np.append(-on_b * b, on_c * c))
        weight = np.bincount(label, np.repeat([on_b, on_c], [len(b), len(c)]))
        t = np.divide(pull, weight, out=np.zeros_like(pull), where=weight > 0)[label]
        return b + t[: len(b)], c - t[len(b) :]


def best_shrinkage(
    fit: TwoWay, error: Callable[[_Pair], float], middle: float
) -> tuple[tuple[float, float], float]:
    """Return the shrinkage of rows and of columns of least error, and that error.

    Steps by a factor of four in either, then of two, from ``middle`` for as long as they help,
    each solved from the best solution so far.
    """
    tried: dict[tuple[int, int], float] = {}
    at, found = (0, 0), None

    def visit(place: tuple[int, int]) -> None:
        nonlocal at, found
        if place in tried or max(map(abs, place)) > 10:
            return
        effects = fit.solve(tuple(middle * 2.0**power for power in place), found, rtol=1e-5)
        tried[place] = error(effects)
        if tried[place] <= tried[at]:
            at, found = place, effects

    visit(at)
    for step in (2, 1):
        before = None
        while before != at:
            before = at
            for move in (
                (step, step),
                (-step, -step),
                (step, 0),
                (-step, 0),
                (0, step),
                (0, -step),
            ):
                visit((at[0] + move[0], at[1] + move[1]))
    return tuple(middle * 2.0**power for power in at), tried[at]
