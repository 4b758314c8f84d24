"""What no page computes at its size: a transformer as large as ViT-base, and d = 1000.

usage: full_size.py vit-digits | vit-cifar10 | inputs | momentum | adam

vit-...: the penultimate layer of a transformer of ViT-base's width, depth and heads, trained on
small images, so that they are few tokens.
inputs: the law's network at d = 1000 on inputs that are not whitened.
momentum, adam: the same network on whitened inputs, with another method.

Each keeps its run in build/runs and goes on from there after an interruption; what it found it
records in book/_recorded. Sizes, steps and seeds stand below. CIFAR-10 may be a copy: the record
says how many images it had.
"""

import argparse
import os
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lop_utils import _files, data, descent, images, init, law, losses, rules
from lop_utils.book import scale

FORMAT = "full_size 1"


# --- The penultimate layer of a transformer


@dataclass(frozen=True)
class Plan:
    """What is trained, on what. Width, depth, heads and hidden units are those of ViT-base."""

    data: str = "digits"
    patch: int = 4  # pixels; an image of 8 x 8 has four tokens
    d: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    batch: int = 64
    steps: int = 120
    every: int = 5
    eta: float = 0.05
    momentum: float = 0.9
    clip: float = 1.0  # the most that the norm of all gradients together may be
    seed: int = 0


DIGITS = Plan()
CIFAR = replace(DIGITS, data="cifar10", patch=16, steps=200, eta=0.02)  # ViT-base's patches


class Transformer(nn.Module):
    """A vision transformer, of which the mean of the tokens is read."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], classes: int = 10):
        super().__init__()
        self.shape = shape if len(shape) == 3 else (1, *shape)
        channels, rows, columns = self.shape
        tokens = (rows // plan.patch) * (columns // plan.patch)
        self.embed = nn.Conv2d(channels, plan.d, plan.patch, stride=plan.patch)
        self.place = nn.Parameter(0.5 * torch.randn(tokens, plan.d))
        block = nn.TransformerEncoderLayer(
            plan.d, plan.heads, plan.hidden, dropout=0.0, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(plan.d)  # as in ViT; without it twelve layers diverge
        self.blocks = nn.TransformerEncoder(block, plan.depth, norm, enable_nested_tensor=False)
        self.head = nn.Linear(plan.d, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores, (N, K), of images in rows."""
        tokens = self.embed(x.view(-1, *self.shape)).flatten(2).transpose(1, 2)
        return self.head(self.blocks(tokens + self.place).mean(1))

    def penultimate(self) -> nn.Linear:
        """Return the last linear layer before the head."""
        return self.blocks.layers[-1].linear2

    def spectrum(self) -> Tensor:
        """Return its singular values."""
        return torch.linalg.svdvals(self.penultimate().weight.detach().double())

    @torch.no_grad()
    def accuracy(self, X: Tensor, y: Tensor) -> float:
        """Return the share of images whose largest score is that of their class."""
        scores = torch.cat([self(part) for part in X.split(200)])
        return (scores.argmax(1) == y).double().mean().item()


def batches(plan: Plan, count: int, generator: torch.Generator) -> Tensor:
    """Return which images each step sees, (steps, batch), epoch by epoch."""
    epochs = -(-plan.steps * plan.batch // count)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(epochs)])
    return order[: plan.steps * plan.batch].reshape(plan.steps, plan.batch)


def train(plan: Plan, file: Path, *, save_every: int = 20) -> dict[str, Any]:
    """Train, and return the spectra of the penultimate layer, and what else is told of the run.

    ``file`` holds model, optimiser and what has been measured; which images a step sees follows
    from the seed, so the run after an interruption is the one without.
    """
    pictures = images.fetch_images(plan.data, dtype=torch.float32)
    X, y = pictures.X.T[: pictures.train], pictures.y[: pictures.train]
    X = (X - X.mean()) / X.std()
    generator = torch.Generator().manual_seed(plan.seed)
    order = batches(plan, len(y), generator)
    dims = (plan.hidden, plan.d)
    (start,) = init.orthogonal(dims, 1.0, generator=generator, dtype=torch.float32)
    torch.manual_seed(plan.seed)  # torch draws the other weights
    model = Transformer(plan, pictures.shape)
    model.penultimate().weight.data.copy_(start)
    optimiser = torch.optim.SGD(model.parameters(), lr=plan.eta, momentum=plan.momentum)
    state = {"format": FORMAT, "plan": asdict(plan), "t": 0, "seconds": 0.0}
    state |= {"spectra": [], "loss": []}
    if file.is_file():
        state = _files.read_torch(file, FORMAT)
        if state["plan"] != asdict(plan):
            raise ValueError(f"{file}: wanted a run of {plan}, found another; delete it")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    began = time.perf_counter() - state["seconds"]
    for t in range(state["t"], plan.steps):
        if t % plan.every == 0:
            state["spectra"].append(model.spectrum())
        loss = nn.functional.cross_entropy(model(X[order[t]]), y[order[t]])
        if not loss.isfinite():
            raise FloatingPointError(f"loss: wanted a finite number, got {loss} at step {t}")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimiser.step()
        state["loss"].append(loss.item())
        print(f"step {t + 1}, loss {loss.item():.3f}", flush=True)
        if (t + 1) % save_every == 0 or t + 1 == plan.steps:
            now = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            state |= now | {"t": t + 1, "seconds": time.perf_counter() - began}
            _files.write_whole(file, partial(torch.save, state))
    change = model.penultimate().weight.detach().double() - start.double()
    return {
        "t": [*range(0, plan.steps, plan.every), plan.steps],
        "spectra": torch.stack([*state["spectra"], model.spectrum()]),
        "change": torch.linalg.svdvals(change),
        "loss": state["loss"],
        "accuracy": model.accuracy(X[:2000], y[:2000]),
        "images": len(y),
        "seconds": state["seconds"],
    }


def vit(plan: Plan, id: str) -> None:
    """Record the spectra: both ends, every twentieth value between, and how many have moved."""
    name = f"limits-{id}"
    found = train(plan, scale.checkpoint(name))
    sv, seconds = found.pop("spectra"), found.pop("seconds")
    squares = found.pop("change").square()
    kept = sorted({*range(9), *range(9, plan.d - 9, 20), *range(plan.d - 9, plan.d)})
    found |= {
        "sv": sv[:, kept],
        "moved": [((sv[-1] - 1).abs() > least).sum() for least in (0.01, 0.001)],
        "change": squares[0].sqrt(),  # the largest singular value of it; of the layer all were 1
        "share": squares[:18].sum() / squares.sum(),
    }
    save(name, asdict(plan) | found, seed=plan.seed, seconds=seconds)


# --- The law's network at d = 1000


METHODS = {
    "descent": (rules.gradient_descent(), 0.05),
    "momentum": (rules.momentum(0.9), 0.01),
    "adam": (rules.from_torch(torch.optim.Adam), 3e-4),
}


def wide(id: str, *, d: int = 1000, steps: int, every: int, seed: int = 0) -> None:
    """Record the spectrum of W_1, how far it is from the theorem's form, and the loss.

    ``inputs`` are stretched by up to one half in random directions, and the last layer is as
    narrow as the rank, as in the first figure of *Where the law ends*; a method has whitened
    inputs, a square last layer and the small start of the introduction.
    """
    r, stretched = 3, id == "inputs"
    eps, d_y = (0.3, r) if stretched else (0.1, d)
    generator = torch.Generator().manual_seed(seed)
    strengths = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    Phi = data.low_rank_target(d_y, d, strengths, generator=generator)
    Ws0 = init.orthogonal((d, d, d, d_y), eps, generator=generator)
    spaces = law.invariant_subspaces(Ws0, Phi, r, eps)
    core = spaces.V[0][:, : spaces.core]
    loss = losses.squared_error(Phi)
    if stretched:
        (Q,) = init.orthogonal((d, d), 1.0, generator=generator)
        stretch = torch.linspace(1, 1.5, d, dtype=torch.float64) / 1.5**0.5
        loss = losses.least_squares(Q * stretch, Phi @ (Q / stretch))
    rule, eta = METHODS["descent" if stretched else id]

    def spectrum(it: descent.Iterate) -> Tensor:
        """Return the singular values, and the largest angle by which the middle has turned."""
        _, s, Vh = torch.linalg.svd(it.Ws[0])
        sine = torch.linalg.matrix_norm(Vh[r:-r] @ core, 2).clamp(max=1)
        return torch.cat([s, sine.asin()[None]])

    name, began = f"limits-{id}", time.perf_counter()
    file = scale.checkpoint(name)
    start = descent.resume(file, Ws0)
    found = descent.record(
        descent.train(start, loss, rule, eta=eta, steps=steps, every=every),
        every=every,
        file=file,
        spectrum=spectrum,
        off=lambda it: law.block_errors(it.Ws, spaces, 0.0).off_diagonal,
        loss=lambda it: it.loss,
    )
    sv = found["spectrum"][:, :-1]
    values = {
        "d": d,
        "r": r,
        "eps": eps,
        "eta": eta,
        "t": found["t"],
        "sv": sv[:, [*range(6), *range(6, d - 6, 90), *range(d - 6, d)]],
        "middle": [sv[:, r : d - r].amin(1), sv[:, r : d - r].amax(1)],
        "moved": ((sv / sv.median(1, keepdim=True).values - 1).abs() > 0.01).sum(1),
        "angle": found["spectrum"][1:, -1],  # at the start there is no middle
        "off": found["off"] / eps,
        "loss": found["loss"],
    }
    save(name, values, seed=seed, seconds=time.perf_counter() - began)


def save(id: str, values: dict[str, Any], *, seed: int, seconds: float) -> None:
    """Keep the record, with the threads that the seconds belong to."""
    device = f"cpu, {torch.get_num_threads()} thread(s)"
    scale.save_result(id, values, seed=seed, device=device, seconds=seconds)


RUNS = {
    "vit-digits": partial(vit, DIGITS),
    "vit-cifar10": partial(vit, CIFAR),
    "inputs": partial(wide, steps=160, every=8),
    "momentum": partial(wide, steps=200, every=20),
    "adam": partial(wide, steps=200, every=20),
}


def main() -> None:
    """Run one of them, and record it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", choices=RUNS)
    name = parser.parse_args().run
    os.environ["LOP_SCALE"] = "paper"
    RUNS[name](name)


if __name__ == "__main__":
    main()
