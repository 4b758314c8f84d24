"""A small transformer that reads images, and what it is to be adapted to.

Images are tokens, shape ``(N, tokens, pixels of a patch)``, float32; ``y`` counts classes from 0.
The head of a new task is fitted first, to the features of the frozen model: at a head of zeros all
other gradients vanish, and at a random one they say what would suit a random head.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lop_utils import adaptive

__all__ = [
    "LAYERS",
    "Task",
    "Transformer",
    "fitted_heads",
    "gradients",
    "patches",
    "pretrained",
    "sample",
    "with_head",
]

LAYERS = ("q", "k", "v", "o", "fc1", "fc2")
"""Names of the Linear layers of a block."""


class _Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm1(x)
        q, k, v = (
            layer(z).unflatten(-1, (self.heads, -1)).transpose(-3, -2)
            for layer in (self.q, self.k, self.v)
        )
        seen = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
        x = x + self.o(seen.transpose(-3, -2).flatten(-2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """A classifier of images cut into patches: blocks of attention and MLP, and a linear head.

    Parameters
    ----------
    tokens, pixels : int
        Patches of an image; pixels of a patch.
    classes, d, heads, depth : int
        Outputs; width; heads of attention; blocks.

    Examples
    --------
    >>> Transformer(16, 4, classes=5)(torch.zeros(3, 16, 4)).shape
    torch.Size([3, 5])
    """

    def __init__(
        self, tokens: int, pixels: int, classes: int, d: int = 32, heads: int = 4, depth: int = 2
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(pixels, d)
        self.place = nn.Parameter(0.1 * torch.randn(tokens, d))
        self.blocks = nn.ModuleList(_Block(d, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return what the head is given, ``(..., d)``."""
        x = self.embed(x) + self.place
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(-2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of images, ``(..., classes)``."""
        return self.head(self.features(x))


def patches(X: Tensor, shape: Sequence[int], side: int) -> Tensor:
    """Return images, the columns of X, cut into squares.

    Parameters
    ----------
    X, shape, side
        Shape ``(pixels, N)``; rows and columns of an image; side of a patch, which divides both.

    Returns
    -------
    Tensor
        Shape ``(N, tokens, side * side)``.

    Examples
    --------
    >>> patches(torch.arange(16.0)[:, None], (4, 4), 2)[0, 1]  # the second patch of the first row
    tensor([2., 3., 6., 7.])
    """
    rows, columns = shape
    x = X.T.reshape(-1, rows // side, side, columns // side, side)
    return x.transpose(2, 3).reshape(X.shape[1], -1, side * side)


def pretrained(X: Tensor, y: Tensor, *, epochs: int, seed: int, eta: float = 2e-3) -> Transformer:
    """Return a transformer that was trained on images by AdamW, in batches of 64.

    Parameters
    ----------
    X, y, epochs, seed, eta
        Images; labels; passes; seed of weights and batches; step size, which falls to zero.

    Examples
    --------
    >>> X, y = torch.randn(8, 4, 4), torch.arange(8) % 2
    >>> pretrained(X, y, epochs=1, seed=0)(X).shape
    torch.Size([8, 2])
    """
    with torch.random.fork_rng(devices=[]):  # torch's modules draw from its own generator alone
        torch.default_generator.manual_seed(seed)
        model = Transformer(*X.shape[1:], int(y.max()) + 1)
        batches = [part for _ in range(epochs) for part in torch.randperm(len(X)).split(64)]
    optimiser = torch.optim.AdamW(model.parameters(), lr=eta)
    fall = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, len(batches))
    for part in batches:
        optimiser.zero_grad()
        F.cross_entropy(model(X[part]), y[part]).backward()
        optimiser.step()
        fall.step()
    return model.requires_grad_(False)


class Task(NamedTuple):
    """What a model is to be adapted to."""

    model: Transformer
    """Pre-trained on something else."""
    X: Tensor
    """Images, shape (N, tokens, pixels), in random order."""
    y: Tensor
    """Their classes, shape (N,)."""
    val: int
    """How many of them, the first, choose step sizes."""
    test: int
    """How many of them, the next, are the test. The others are those to learn from."""

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.y.max()) + 1


def sample(task: Task, n: int, seed: int) -> Tensor:
    """Return the places of n images to learn from, of each class as many.

    Parameters
    ----------
    task, n, seed
        Task; how many in all; draws them.

    Examples
    --------
    >>> task = Task(None, torch.zeros(20, 1, 1), torch.arange(20) % 2, val=3, test=5)
    >>> chosen = sample(task, 6, seed=0)
    >>> task.y[chosen].sum().item(), chosen.min().item() >= 8
    (3, True)
    """
    generator = torch.Generator().manual_seed(seed)
    first = task.val + task.test
    order = first + torch.randperm(len(task.y) - first, generator=generator)
    each = n // task.classes
    return torch.cat([order[task.y[order] == c][:each] for c in range(task.classes)])


def fitted_heads(task: Task, chosen: Tensor, *, steps: int, eta: float) -> dict[str, Tensor]:
    """Return heads fitted to samples, from zero, by Adam on the features of the frozen model.

    Parameters
    ----------
    task, chosen, steps, eta
        Task; places of samples, shape ``(seeds, n)``; steps; step size.

    Returns
    -------
    dict
        ``head.weight``, shape ``(seeds, classes, d)``, and ``head.bias``.

    Examples
    --------
    >>> task = Task(Transformer(4, 4, 2), torch.randn(20, 4, 4), torch.arange(20) % 2, 4, 4)
    >>> heads = fitted_heads(task, torch.arange(8, 20).view(2, 6), steps=3, eta=0.01)
    >>> heads["head.weight"].shape
    torch.Size([2, 2, 32])
    """
    with torch.no_grad():
        z = task.model.features(task.X[chosen])
    kind = dict(requires_grad=True, dtype=z.dtype)
    weight = torch.zeros(len(chosen), task.classes, z.shape[-1], **kind)
    bias = torch.zeros(len(chosen), task.classes, **kind)
    optimiser = torch.optim.Adam([weight, bias], lr=eta)
    for _ in range(steps):
        optimiser.zero_grad()
        out = z @ weight.mT + bias[:, None]
        F.cross_entropy(out.mT, task.y[chosen], reduction="none").mean(1).sum().backward()
        optimiser.step()
    return {"head.weight": weight.detach(), "head.bias": bias.detach()}


def with_head(task: Task, heads: dict[str, Tensor], seed: int) -> Transformer:
    """Return a copy of the model with one of the heads, which is to be trained.

    Parameters
    ----------
    task, heads, seed
        Task; from `fitted_heads`; which of them.

    Examples
    --------
    >>> task = Task(Transformer(4, 4, 2), torch.randn(20, 4, 4), torch.arange(20) % 2, 4, 4)
    >>> heads = fitted_heads(task, torch.arange(8, 20).view(2, 6), steps=3, eta=0.01)
    >>> with_head(task, heads, 1)(task.X[:3]).shape
    torch.Size([3, 2])
    """
    model = copy.deepcopy(task.model)
    model.head = nn.Linear(heads["head.weight"].shape[-1], task.classes)
    model.head.weight = nn.Parameter(heads["head.weight"][seed].clone())
    model.head.bias = nn.Parameter(heads["head.bias"][seed].clone())
    return model


def gradients(
    task: Task, heads: dict[str, Tensor], seed: int, chosen: Tensor, names: Sequence[str] = LAYERS
) -> dict[str, Tensor]:
    """Return the first gradient of every named layer on some images, by `first_gradients`.

    Parameters
    ----------
    task, heads, seed, chosen, names
        Task; heads and which of them; places of images; layers.

    Examples
    --------
    >>> task = Task(Transformer(4, 4, 2), torch.randn(20, 4, 4), torch.arange(20) % 2, 4, 4)
    >>> heads = fitted_heads(task, torch.arange(8, 20).view(2, 6), steps=3, eta=0.01)
    >>> gradients(task, heads, 0, torch.arange(8, 14), ["q"])["blocks.1.q"].shape
    torch.Size([32, 32])
    """
    x, y = task.X[chosen], task.y[chosen]
    return adaptive.first_gradients(
        with_head(task, heads, seed), names, lambda model: F.cross_entropy(model(x), y)
    )
