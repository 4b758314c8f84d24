"""One thread for small tensors, the caller's for large ones.

On two quiet cores a second thread makes a product 1.3 times faster at 64 x 64 and 1.8 times at
512 x 512, and an SVD below 1000 x 1000 slower. Where something else has one of the cores, each call
waits 4 to 12 ms for it: 50 times the product at 100 x 100, as much as the product at 700 x 700.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import TypeVar

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["for_numbers", "for_run"]

_T = TypeVar("_T")
_SMALL = 512 * 512  # numbers of the largest tensor


@contextmanager
def _one_thread() -> Iterator[None]:
    # For the calling thread, and for MKL in all of them; what a thread is that begins meanwhile
    # it stays: with one.
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def for_numbers(count: int) -> AbstractContextManager[None]:
    """Return a context on one thread, if the largest tensor in it has few numbers."""
    return _one_thread() if count <= _SMALL else nullcontext()


class _Largest(TorchFunctionMode):
    """Note how many numbers the largest tensor has that a function returns."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, list | tuple) else (found,):
            if isinstance(each, torch.Tensor):
                self.count = max(self.count, each.numel())
        return found


def for_run(stream: Callable[..., Iterator[_T]]) -> Callable[..., Iterator[_T]]:
    """Let a generator of (steps, layers, loss, ..., memory) run on one thread where all is small.

    Layers are seen to be small, what a loss makes is known once it was called. While the generator
    waits for its caller, and after its end, the caller's setting holds.
    """

    @wraps(stream)
    def run(ts, Ws, loss, *given) -> Iterator[_T]:
        *given, memory = given
        if max(W.numel() for W in Ws) > _SMALL:
            yield from stream(ts, Ws, loss, *given, memory)
            return
        generator = getattr(loss, "generator", None)
        state = generator and generator.get_state()
        iterates = stream(ts, Ws, loss, *given, dict(memory))
        with _one_thread(), _Largest() as largest:
            first = next(iterates)
        if largest.count > _SMALL and torch.get_num_threads() > 1:
            # Begun again: the first digits, too, are those of all threads, so that a run that goes
            # on from here is the one that was never stopped.
            if generator:
                generator.set_state(state)
            iterates = stream(ts, Ws, loss, *given, memory)
            first = next(iterates)
        yield first
        while True:
            with for_numbers(largest.count):
                it = next(iterates, None)
            if it is None:
                return
            yield it

    return run
