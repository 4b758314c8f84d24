r"""What a step of training costs, before it is run: calls, flops, bytes, memory, messages.

A step takes :math:`\text{calls}\cdot o + \text{flops}/f + \text{bytes}/b` seconds on a
machine whose constants `calibrate` measures. Two refinements are needed to be right within a
third: a product with a thin side of k columns reaches only a part of the rate, and fetching a
row of a matrix from a random place costs more than its bytes. Both have a constant of their own.

The networks have depth ``L``, at least 2 for narrow ones. Full ones have square layers of width
``d``; narrow ones have width ``k`` and a product of ``d_y`` rows and ``d_x`` columns, which is
formed in full (dense) or at ``n`` observed entries only (sampled). A number has ``size`` bytes.
A step's ``work`` is a `Work`, and ``machine`` is a `Machine`.
"""

import time
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import NamedTuple

import torch

from lop_utils import _checks

__all__ = [
    "Machine",
    "Work",
    "calibrate",
    "core_step",
    "dense_bytes",
    "dense_step",
    "full_bytes",
    "full_step",
    "message_size",
    "parameters",
    "sampled_bytes",
    "sampled_step",
    "seconds",
]

# Calls of torch functions that a step is charged, as a multiple of L, and for the residual, views
# included: counted in the code that bench-model.json timed. `descent.train` makes fewer, of three
# layers 17, or 22 where an iterate is shown. The sampled residual's number is no count but a fit to
# timings on one machine: making a sparse matrix takes as long as several calls.
_CALLS, _RESIDUAL_CALLS, _SAMPLED_CALLS = 10, 10, 95


def _of_sizes(function: Callable) -> Callable:
    """Let pass whole numbers alone, as Python's: those of numpy overflow in silence."""

    @wraps(function)
    def checked(*sizes: int, **more: int) -> Work | int:
        given = signature(function).bind(*sizes, **more).arguments.items()
        return function(**{each: _checks.count(each, n, at_least=1) for each, n in given})

    return checked


class Machine(NamedTuple):
    """Five constants of a machine, at one size, type of number and count of threads."""

    overhead: float
    """Seconds of a call that computes next to nothing."""
    rate: float
    """Floating-point operations a second, of a large product of matrices."""
    bandwidth: float
    """Bytes a second, read and written, of a difference of two matrices."""
    thin: float
    """Floating-point operations a second, of products with a side of length k."""
    fetch: float
    """Seconds to fetch a row of k numbers from a random place."""


class Work(NamedTuple):
    """What a step asks of a machine."""

    calls: float
    """Calls of library functions."""
    flops: float = 0
    """Floating-point operations of products of square matrices."""
    bytes: float = 0
    """Bytes read and written by all that is no product."""
    thin: float = 0
    """Floating-point operations of products with a thin side."""
    fetches: float = 0
    """Rows fetched from random places."""


def _clock(function: Callable[[], object], least: float = 0.05) -> float:
    function()
    times: list[float] = []
    while len(times) < 5 or sum(times) < least:
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def calibrate(
    side: int = 1000,
    k: int = 10,
    *,
    rows: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Machine:
    """Return a machine's constants, measured by five micro-benchmarks in about a second.

    Parameters
    ----------
    side : int
        Side of the square matrices that are multiplied and subtracted. Take that of the
        problem: small products reach less of the peak rate, small matrices stay in the cache.
    k : int
        Width of the thin ones.
    rows : int, optional
        Rows of the matrix from which rows are fetched; by default ``side``.
    dtype, device
        Of the numbers.

    Returns
    -------
    Machine

    Examples
    --------
    >>> machine = calibrate(50, 4)
    >>> all(constant > 0 for constant in machine)
    True
    """
    side, k = _checks.count("side", side, at_least=1), _checks.count("k", k, at_least=1)
    rows = side if rows is None else _checks.count("rows", rows, at_least=1)
    kind = dict(dtype=dtype, device=device)
    small, A, B = (torch.ones(n, n, **kind) for n in (4, side, side))
    tall, wide = torch.ones(side, k, **kind), torch.ones(k, side, **kind)
    table, count = torch.ones(rows, k, **kind), 2**14  # what is fetched stays in the cache
    places = torch.randint(rows, (count,), generator=torch.Generator().manual_seed(0))
    places, fetched = places.to(device), torch.empty(count, k, **kind)

    def finished(function: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            function()
            if A.is_cuda:
                torch.cuda.synchronize()

        return run

    def calls() -> None:
        for _ in range(100):
            small @ small.T - small  # three calls: a view, a product, a difference

    def thin() -> None:  # as many of each as in a step
        torch.mm(tall, wide, out=A)
        A @ wide.T
        tall.T @ A

    def fetch() -> None:
        torch.index_select(table, 0, places, out=fetched)

    return Machine(
        overhead=_clock(finished(calls)) / 300,
        rate=2 * side**3 / _clock(finished(lambda: torch.mm(B, B, out=A))),
        bandwidth=3 * A.numel() * A.element_size() / _clock(finished(lambda: A - B)),
        thin=6 * side**2 * k / _clock(finished(thin)),
        fetch=_clock(finished(fetch)) / count,
    )


def seconds(work: Work, machine: Machine) -> float:
    """Return how long a step takes, says the model.

    Examples
    --------
    >>> machine = Machine(overhead=1e-6, rate=1e10, bandwidth=1e9, thin=1e9, fetch=1e-8)
    >>> seconds(Work(calls=10, flops=1e9, bytes=1e6), machine)
    0.10101
    """
    return (
        work.calls * machine.overhead
        + work.flops / machine.rate
        + work.bytes / machine.bandwidth
        + work.thin / machine.thin
        + work.fetches * machine.fetch
    )


@_of_sizes
def full_step(d: int, L: int, *, size: int = 8) -> Work:
    r"""Return the work of a step of full layers: 3(L - 1) products of d x d matrices.

    Examples
    --------
    >>> full_step(1000, 3).flops
    12000000000
    """
    # The difference passes three matrices, its squares and their sum three more; an update, five.
    return Work(_CALLS * L + _RESIDUAL_CALLS, 6 * (L - 1) * d**3, (6 + 5 * L) * d * d * size)


def _inner(d_x: int, k: int, L: int) -> int:
    return 6 * (L - 2) * d_x * k * k + 6 * (L - 1) * k**3 if L > 2 else 0


@_of_sizes
def dense_step(d_y: int, d_x: int, k: int, L: int, *, size: int = 8) -> Work:
    r"""Return the work of a step of a narrow network whose product is formed in full.

    Compressed with trained outer factors and narrow networks of equal width and depth cost the
    same: :math:`6\,d_y d_x k` operations on the outside, :math:`O((d_y + d_x)k^2 + Lk^3)` inside.

    Examples
    --------
    >>> dense_step(1000, 1000, 10, 3).thin  # 6e7 of it for the product and its contractions
    60612000
    """
    moved, calls = 6 * d_y * d_x + 5 * k * (d_y + d_x), _CALLS * L + _RESIDUAL_CALLS
    return Work(calls, bytes=moved * size, thin=6 * d_y * d_x * k + _inner(d_x, k, L))


@_of_sizes
def sampled_step(n: int, d_y: int, d_x: int, k: int, L: int, *, size: int = 8) -> Work:
    r"""Return the work of a step that looks at n observed entries only.

    An entry of the product fetches a row of either factor, and each contraction one more.
    Nothing grows with :math:`d_y d_x`.

    Examples
    --------
    >>> sampled_step(10**9, 10**6, 10**5, 40, 3).fetches
    4000000000
    """
    # The residual written, turned and read; places in 32 bits.
    moved = n * (6 * size + 16) + 5 * k * (d_y + d_x) * size
    calls = _SAMPLED_CALLS + _CALLS * L
    return Work(calls, bytes=moved, thin=_inner(d_x, k, L), fetches=4 * n)


@_of_sizes
def core_step(k: int, L: int, *, size: int = 8) -> Work:
    """Return the work of a step of the core, whatever the width of the network it stands for.

    Examples
    --------
    >>> core_step(6, 3).flops
    2592
    """
    return full_step(k, L, size=size)


@_of_sizes
def parameters(d_y: int, d_x: int, k: int, L: int) -> int:
    """Return how many numbers a narrow network trains.

    Examples
    --------
    >>> parameters(1000, 1000, 1000, 3), parameters(1000, 1000, 6, 3), parameters(6, 6, 6, 3)
    (3000000, 12036, 108)
    """
    return k * (d_y + d_x) + (L - 2) * k * k


@_of_sizes
def full_bytes(d: int, L: int, *, size: int = 8) -> int:
    """Return the bytes that a step of full layers holds at its peak.

    That is in the update: the target, the layers, their gradients and the next layers, and one
    gradient times the step size.

    Examples
    --------
    >>> full_bytes(1000, 3)
    88000000
    """
    return (3 * L + 2) * d * d * size


@_of_sizes
def dense_bytes(d_y: int, d_x: int, k: int, L: int, *, size: int = 8) -> int:
    """Return the bytes that a step of `dense_step` holds at its peak.

    That is where the residual goes backwards: target, product and residual in full; layers and
    first gradients; the products on the way, of which each but the last has k rows. With a width
    near that of the product, another moment holds more.

    Examples
    --------
    >>> dense_bytes(1000, 1000, 6, 3)
    24240288
    """
    inner = (L - 2) * (k * d_x + k * k)
    return (3 * d_y * d_x + 2 * k * (d_y + d_x) + inner) * size


@_of_sizes
def sampled_bytes(n: int, d_y: int, d_x: int, k: int, L: int, *, size: int = 8) -> int:
    """Return the bytes that a sampled run holds: O(n + d k).

    Two values and their residuals in two orders, places in 32 bits in both orders and the
    permutation between them; four copies of every layer (weights, gradients, the next weights,
    products on the way). What torch allocates is within a third of it.

    Examples
    --------
    >>> round(sampled_bytes(10**9, 10**6, 10**5, 40, 3) / 1e9, 1)  # gigabytes
    49.4
    """
    return n * (4 * size + 16) + 4 * parameters(d_y, d_x, k, L) * size


@_of_sizes
def message_size(d_x: int, k: int) -> int:
    r"""Return how many numbers a process sends in a step when rows lie with several processes.

    These are the entries of :math:`P^\top R`, and the loss.

    Examples
    --------
    >>> message_size(100_000, 40)
    4000001
    """
    return k * d_x + 1
