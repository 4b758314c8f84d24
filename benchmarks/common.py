"""What the benchmarks share: interleaved timing, the environment, records, the command line."""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from lop_utils.book import scale

_STARTED = time.perf_counter()


class Timing(NamedTuple):
    """Seconds of one call."""

    median: float
    minimum: float


def arguments(description: str, *, threads: int = 2, **more: dict) -> argparse.Namespace:
    """Read --quick, --threads and ``more``, for each option what ``add_argument`` takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; records nothing")
    parser.add_argument("--threads", type=int, default=threads, help="of torch and of JAX")
    for name, options in more.items():
        parser.add_argument(f"--{name}", **options)
    found = parser.parse_args()
    os.environ["NPROC"] = str(found.threads)  # JAX's: read once, when it is first used
    torch.set_num_threads(found.threads)
    return found


def jax_or_none():
    """Return JAX in double precision on the CPU, or None where it is not installed."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    return jax


def interleaved(
    contenders: dict[str, Callable[[], Any]],
    seconds: float = 10.0,
    *,
    warm: int = 2,
    at_least: int = 5,
    block: float = 0.0,
    sync: Callable[[], Any] | None = None,
) -> dict[str, Timing]:
    """Time calls in turn, A B C A B C ..., so that a busy moment of the machine hits all.

    Parameters
    ----------
    contenders : dict of str to callable
        What to call, without arguments; each must have finished its work when it returns, or
        when ``sync`` does.
    seconds : float
        For all of them together, warm-up not counted.
    warm : int
        Calls of each that are not counted.
    at_least : int
        Rounds, whatever they take.
    block : float
        Seconds of a turn: a call that takes less is repeated, and the turn's mean counts. What is
        called after another finds the caches full of that one's numbers; a step of training
        finds its own.
    sync : callable, optional
        Such as ``torch.cuda.synchronize``.

    Returns
    -------
    dict of str to Timing
        Median and minimum.
    """
    wait = sync or (lambda: None)
    for _ in range(warm):
        for call in contenders.values():
            call()
    wait()
    repeats = dict.fromkeys(contenders, 1)
    for name, call in contenders.items() if block else ():
        start = time.perf_counter()
        call()
        wait()
        repeats[name] = max(1, round(block / (time.perf_counter() - start)))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < at_least or time.perf_counter() < end:
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            wait()
            taken[name].append((time.perf_counter() - start) / repeats[name])
        rounds += 1
    return {name: Timing(statistics.median(t), min(t)) for name, t in taken.items()}


def environment() -> dict[str, Any]:
    """Return the processors, the threads, and the versions of torch and JAX."""
    cpu = "unknown"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    jax = jax_or_none()
    return {
        "cpu": cpu,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "jax": jax.__version__ if jax else None,
    }


def record(name: str, values: dict[str, Any], *, seed: int = 0, device: str = "cpu") -> None:
    """Keep values, with the environment, as book/_recorded/bench-NAME.json."""
    values = {"environment": environment(), **values}
    with mock.patch.dict(os.environ, LOP_SCALE="paper"):  # else scale.save_result does nothing
        taken = time.perf_counter() - _STARTED
        scale.save_result(f"bench-{name}", values, seed=seed, device=device, seconds=taken)


def show(columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table."""
    cells = [columns] + [
        [f"{v:.4g}" if isinstance(v, float) else "-" if v is None else str(v) for v in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def agree(name: str, found: list, wanted: list, rtol: float = 1e-10) -> None:
    """Raise if a tensor or array is off the wanted one by more than rtol of its norm."""
    for a, b in zip(found, wanted, strict=True):
        a, b = (torch.as_tensor(x.tolist(), dtype=torch.float64) for x in (a, b))
        off = ((a - b).norm() / b.norm()).item()
        if not off <= rtol:
            raise AssertionError(f"{name}: off by {off:.1e} of the norm, wanted {rtol:.0e}")
