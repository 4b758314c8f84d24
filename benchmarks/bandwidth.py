"""Compare one sampled step with the speed at which the device copies memory.

Counted are the bytes that must move at least: for each entry its row, column and value, the
residual written once and read twice (for the two products; once more in the other order), and the
factors. What is gathered from the factors is not counted: a cache that held them would spare it.
"""

import torch
from common import arguments, interleaved, record, show

from lop_utils import factored
from lop_utils.observed import ObservedEntries

K = 10


def problem(n: int, share: float, dtype: torch.dtype, device: str):
    """Draw about n entries of a square matrix, the share observed, in order of rows."""
    d = max(20, round((n / share) ** 0.5))
    generator = torch.Generator(device).manual_seed(0)
    kind = dict(generator=generator, device=device)
    each = max(1, round(n / d))  # of every row
    # A column in each of `each` equal stretches of a row: sorted, and none twice.
    stretch = d // each
    starts = torch.arange(each, device=device) * stretch
    cols = (starts + torch.randint(stretch, (d, each), **kind)).flatten()
    rows = torch.arange(d, device=device).repeat_interleave(each)
    values = torch.randn(len(rows), dtype=dtype, **kind)
    P = torch.randn(d, K, dtype=dtype, **kind)
    Q = torch.randn(K, d, dtype=dtype, **kind)
    return ObservedEntries(rows, cols, values, (d, d)), P, Q


def bytes_moved(obs: ObservedEntries) -> int:
    """Return the least a step moves: int32 indices and numbers of the values' precision."""
    n, (d_y, d_x), number = len(obs.values), obs.shape, obs.values.element_size()
    # sample: row and column, value in, residual out; R Q^T: column, residual in; turning it:
    # place, residual in, residual out; P^T R: row, residual in
    per_entry = 4 * (2 + 1 + 1 + 1) + number * (2 + 1 + 2 + 1)
    # P and Q in once for the sample and once for the product, R Q^T and P^T R out
    return per_entry * n + number * 3 * K * (d_y + d_x)


def main() -> None:
    cuda = torch.cuda.is_available()
    options = arguments(
        __doc__.splitlines()[0],
        entries=dict(type=float, help="observed entries, 1e8 on a GPU; a CPU is asked for them"),
        share=dict(type=float, default=0.01, help="observed"),
        dtype=dict(choices=["float32", "float64"], default="float32"),
    )
    if options.entries is None and not options.quick and not cuda:
        print("No GPU: not run. --entries 1e6, say, runs it on the CPU; it records nothing then.")
        return
    n = int(options.entries or (2e4 if options.quick else 1e8))
    device = "cuda" if cuda else "cpu"
    obs, P, Q = problem(n, options.share, getattr(torch, options.dtype), device)
    loss = factored.fastest_loss(obs, K)
    source = torch.empty(2**20 if options.quick else 2**28 if cuda else 2**25, device=device)
    target = torch.empty_like(source)
    times = interleaved(
        {"step": lambda: loss([Q, P]), "copy": lambda: target.copy_(source)},
        seconds=0.1 if options.quick else 10.0,
        sync=torch.cuda.synchronize if cuda else None,
    )
    copied = 2 * source.numel() * source.element_size() / times["copy"].median
    moved = bytes_moved(obs)
    reached = moved / times["step"].median
    row = {
        "n": len(obs.values),
        "d": obs.shape[0],
        "bytes": moved,
        "step": times["step"].median,
        "step_minimum": times["step"].minimum,
        "bandwidth": reached,
        "copy_bandwidth": copied,
        "share": reached / copied,
    }
    show(
        ["entries", "d", "step ms", "GB moved", "GB/s", "copy GB/s", "share"],
        [
            [row["n"], row["d"], row["step"] * 1e3, moved / 1e9, reached / 1e9, copied / 1e9]
            + [row["share"]]
        ],
    )
    if cuda and not options.quick and (options.share, options.dtype) == (0.01, "float32"):
        record("bandwidth", {"k": K, "dtype": "float32", "rows": [row]}, device="cuda")


if __name__ == "__main__":
    main()
