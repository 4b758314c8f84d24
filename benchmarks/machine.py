"""The five constants of a machine, from which lop_utils.book.cost predicts, by size and width.

On one thread, the best of several: what else the machine does only ever adds. The larger
matrices are too large for the caches.
"""

import common
import torch

from lop_utils.book import cost

SIDES, ROWS, WIDTHS = (200, 1000, 3000), (200, 1000, 3000, 100_000, 1_000_000), (1, 4, 10, 40, 160)
BEST = cost.Machine(overhead=min, rate=max, bandwidth=max, thin=max, fetch=min)


def best(times, *sizes, **more):
    """Return the best of each constant."""
    found = zip(*(cost.calibrate(*sizes, **more) for _ in range(times)), strict=True)
    return cost.Machine(*(of(constants) for of, constants in zip(BEST, found, strict=True)))


def constants(dtype, sides, rows, widths, times):
    """Return rate and bandwidth by side, thin by side and width, fetch by rows and width."""
    square = [[best(times, side, k, dtype=dtype) for k in widths] for side in sides]
    picked = [[best(times, 50, k, rows=n, dtype=dtype).fetch for k in widths] for n in rows]
    return {
        "overhead": min(machine.overhead for line in square for machine in line),
        "rate": [max(machine.rate for machine in line) for line in square],
        "bandwidth": [max(machine.bandwidth for machine in line) for line in square],
        "thin": [[machine.thin for machine in line] for line in square],
        "fetch": picked,
    }


def main():
    """Run the benchmark and record its constants."""
    options = common.arguments(__doc__.splitlines()[0], threads=1)
    sides, rows, widths = ((60,), (60,), (4,)) if options.quick else (SIDES, ROWS, WIDTHS)
    found = {
        str(dtype.itemsize): constants(dtype, sides, rows, widths, 1 if options.quick else 3)
        for dtype in (torch.float64, torch.float32)
    }
    lines = []
    for size, machine in found.items():
        for i, side in enumerate(rows):
            for j, k in enumerate(widths):
                at = min(i, len(sides) - 1)
                line = [8 * int(size), side, k, machine["overhead"] * 1e6]
                line += [machine["rate"][at] / 1e9, machine["bandwidth"][at] / 1e9]
                lines.append([*line, machine["thin"][at][j] / 1e9, machine["fetch"][i][j] * 1e9])
    columns = ["bits", "side", "k", "call us", "Gflop/s", "GB/s", "thin Gflop/s", "fetch ns"]
    common.show(columns, lines)
    if not options.quick:
        values = {"sides": sides, "rows": rows, "widths": widths, "constants": found}
        common.record("machine", values)


if __name__ == "__main__":
    main()
