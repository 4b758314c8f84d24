r"""Losses that draw at random at each call, and so bring noise into training.

A loss of this kind has a ``generator``, a `torch.Generator`. `descent.train` keeps its state with
every iterate, so that a run goes on digit for digit.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.losses import Loss, ValueAndGradients, _samples

__all__ = ["Minibatches"]


class Minibatches:
    r"""A loss on a few samples, drawn anew at each call, that equals the full one on average.

    A call draws ``batch`` of the N samples without replacement, the same for all runs, scales
    their loss by N / batch, and costs what the batch costs.

    Parameters
    ----------
    make : callable
        The loss of given samples: `losses.least_squares`, or
        ``lambda X, Y: network(X, Y, activations)``.
    X, Y : Tensor, shapes (d_x, N) and (d_y, N)
        Inputs and labels in columns.
    batch : int
        Samples a call.
    generator : torch.Generator or int, optional
        Source of randomness, on the CPU, or a seed; torch's global one if absent.

    Examples
    --------
    >>> from lop_utils.losses import least_squares
    >>> loss = Minibatches(least_squares, torch.eye(2), torch.eye(2), batch=1, generator=0)
    >>> loss([torch.zeros(2, 2)]).value  # one sample of two, weighted twice
    tensor(1.)
    """

    def __init__(
        self,
        make: Callable[[Tensor, Tensor], Loss],
        X: Tensor,
        Y: Tensor,
        *,
        batch: int,
        generator: torch.Generator | int | None = None,
    ) -> None:
        self.make, (self.X, self.Y) = make, _samples(X, Y)
        self.batch, self.N = _checks.count("batch", batch, at_least=1), self.X.shape[1]
        if self.batch > self.N:
            raise ValueError(f"batch: wanted at most N = {self.N} samples, got {batch}")
        self.generator = _checks.seeded(generator) or torch.default_generator

    def draw(self) -> Tensor:
        """Return which samples come next, in time that does not grow with N for a small batch."""
        if 4 * self.batch > self.N:
            return torch.randperm(self.N, generator=self.generator)[: self.batch]
        chosen: dict[int, None] = {}
        while len(chosen) < self.batch:  # those drawn twice are drawn again
            more = torch.randint(self.N, (self.batch - len(chosen),), generator=self.generator)
            chosen |= dict.fromkeys(more.tolist())
        return torch.tensor(list(chosen))

    def __call__(self, Ws: Sequence[Tensor]) -> ValueAndGradients:
        """Return the loss of the next batch at these layers."""
        drawn = self.draw().to(self.X.device)
        value, grads = self.make(self.X[:, drawn], self.Y[:, drawn])(Ws)
        weight = self.N / self.batch
        return ValueAndGradients(weight * value, [weight * G for G in grads])
