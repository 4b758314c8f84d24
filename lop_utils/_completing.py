"""The steps that `completion.complete` is made of."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lop_utils import _checks, descent, factored, init, rules
from lop_utils.observed import ObservedEntries, _gathered

__all__ = [
    "COLUMNS",
    "Best",
    "Settings",
    "bold_driver",
    "entries",
    "gone_on",
    "require_determined",
    "spectral_start",
    "width_for",
]

_Run = Any  # a completion.Completion, which is defined above this module
COLUMNS = ("t", "seconds", "train", "held_out", "eta")


class Settings(NamedTuple):
    """What a run was told, as of `completion.complete`, and what it divides the values by."""

    scale: float
    gamma: float
    eta: float
    adapts: bool
    lam: float
    patience: int
    every: int


class Best(NamedTuple):
    """The best root mean square error, when it was measured, and the layers as they train."""

    error: float
    t: int
    Ws: list[Tensor]

    def __repr__(self) -> str:
        """Return the error, when it was, and the shapes."""
        shapes = ", ".join(f"{len(W)} x {W.shape[1]}" for W in self.Ws)
        return f"Best({self.error:.4g} at step {self.t}, layers {shapes})"


def width_for(shape: tuple[int, int], rank: int, width: int | None) -> int:
    """Return the width, twice the rank where nothing else is asked for."""
    most = min(shape) - 1
    k = min(2 * rank, most) if width is None else _checks.count("width", width, at_least=1)
    if not rank <= k <= most:
        raise ValueError(f"width: wanted {rank} <= width < {min(shape)}, got {k}")
    return k


def require_determined(train: ObservedEntries, rank: int) -> None:
    """Require as many entries as numbers determine a matrix of that rank."""
    d_y, d_x = (len(places.unique()) for places in (train.rows, train.cols))
    r = min(rank, d_y, d_x)
    if (asked := r * (d_y + d_x - r)) > len(train):
        raise ValueError(
            f"rank: wanted rank (d_y + d_x - rank) <= {len(train)} entries to train on, got "
            f"{asked} for rank {rank} and {d_y} rows, {d_x} columns that occur: the sample cannot "
            "determine so much"
        )


def spectral_start(
    train: ObservedEntries, k: int, L: int, eps: float
) -> tuple[list[Tensor], float]:
    """Return the layers at the start, and what the values are to be divided by."""
    peak = train.values.abs().max().item()  # before anything is squared
    if peak == 0:
        raise ValueError("values: wanted some that are not zero, got zeros only")
    (d_y, d_x), kind = train.shape, dict(dtype=train.values.dtype, device=train.values.device)
    seed = torch.Generator().manual_seed(0)
    Q = torch.randn(k, d_x, generator=seed, dtype=kind["dtype"]).to(kind["device"])
    loss = factored.fastest_loss(train.with_values(train.values / peak), k)
    Ws, s = init._sampled_spectral(loss, torch.zeros(d_y, k, **kind), Q, L, eps)
    # Rounding leaves some 1e-20 in a column that nothing trains.
    Ws[0][:, torch.bincount(train.cols, minlength=d_x) == 0] = 0
    scale, most = s[0].item() * peak / train.p, torch.finfo(Q.dtype).max / 4
    if scale > most:
        raise ValueError(
            f"values: wanted a completed matrix that {Q.dtype} can hold, of norm at most "
            f"{most:.3g}, got about {scale:.3g}; divide the values"
        )
    return Ws, scale


def entries(Ws: list[Tensor], rows: Tensor, cols: Tensor) -> Tensor:
    """Return entries of the product of the layers."""
    Q = Ws[0]
    for W in Ws[1:-1]:
        Q = W @ Q
    return _gathered(Ws[-1], Q, rows, cols, {})


def gone_on(run: _Run, steps: int, progress: bool) -> _Run:
    """Return the run after so many steps in all, or when it has stopped before."""
    columns = [run.history[name].tolist() for name in COLUMNS]
    rows = [row for row in zip(*columns, strict=True) if row[0] % run.settings.every == 0]
    best, last, stopped = run.best, run.last, "steps"
    began = time.perf_counter() - max(columns[1], default=0.0)
    quiet = {} if progress else {"disable": True}  # else TQDM_DISABLE decides
    bar = tqdm(total=steps, initial=run.steps, **quiet)
    try:
        for last in _iterates(run, steps):
            due = last.t % run.settings.every == 0 or last.t == steps
            if due and (not rows or rows[-1][0] < last.t):
                now, train, held_out, eta = _measured(run, last)
                best = now if now.error < 0.999 * best.error else best
                rows.append((last.t, time.perf_counter() - began, train, held_out, eta))
                bar.set_postfix(held_out=held_out, refresh=False)
            bar.update(last.t - bar.n)
            if last.t - best.t > run.settings.patience and not _leaving(rows, best, run.settings):
                stopped = "patience"
                break
    except KeyboardInterrupt:
        stopped = "interrupted"
    finally:
        bar.close()
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    history = {
        name: torch.tensor(column, dtype=torch.int64 if name == "t" else torch.float64)
        for name, column in zip(COLUMNS, columns, strict=True)
    }
    return replace(run, history=history, stopped=stopped, best=best, last=last)


def _iterates(run: _Run, steps: int) -> Iterator[descent.Iterate]:
    train, settings, L = run.train, run.settings, len(run.best.Ws)
    scaled = train.with_values(train.values / settings.scale)
    loss = factored.of_factors(factored.fastest_loss(scaled, len(run.best.Ws[0])))
    # On a plateau any step size lowers the loss; one that is too large for what comes after
    # would scatter the singular values that are still small. So stable_eta is the most.
    rule = bold_driver(most=4.0) if settings.adapts else None
    relative = (settings.gamma, *[1.0] * (L - 2), settings.gamma)
    rates = [settings.eta * rate / train.p for rate in relative]
    options = dict(lam=settings.lam * train.p, steps=steps, every=settings.every)
    return descent.train(run.last or run.best.Ws, loss, rule, eta=rates, **options)


def _measured(run: _Run, iterate: descent.Iterate) -> tuple[Best, float, float, float]:
    """Return the layers that were accepted last, both errors, and the step size."""
    memory, scale = iterate.memory, run.settings.scale
    Ws = memory.get("kept", iterate.Ws)
    value = memory.get("kept_value", [iterate.loss])[0].item()
    error = train = scale * (2 * value / len(run.train)) ** 0.5
    held_out = float("nan")
    if run.test is not None:
        # Divided before anything is squared.
        gap = entries(Ws, run.test.rows, run.test.cols) - run.test.values / scale
        error = held_out = scale * gap.square().mean().sqrt().item()
    factor = memory["factor"][0].item() if "factor" in memory else 1.0
    return Best(error, iterate.t, Ws), train, held_out, factor * run.settings.eta


def _leaving(rows: list[tuple], best: Best, settings: Settings) -> bool:
    """Say whether the loss falls faster and faster: a singular value is about to leave."""
    quarter = settings.patience // (4 * settings.every)
    if quarter < 1 or len(rows) <= 2 * quarter:
        return False
    before, then, now = (rows[-1 - i * quarter][2] for i in (2, 1, 0))
    overfitted = rows[-1][3] > 1.005 * best.error  # what leaves then is noise; false for NaN
    return then - now > 1.2 * max(before - then, 0.0) and not overfitted


def bold_driver(*, grow: float = 1.05, shrink: float = 0.5, most: float) -> rules.Rule:
    r"""Return gradient descent that adapts its step size and takes bad steps back.

    After a step that did not raise the loss the step sizes grow by a factor; one that did is
    undone, and they shrink. ``eta`` is where they start, ``most`` how far they may grow as a
    multiple of it; their ratios stay. The memory holds ``kept`` and ``kept_grads``, the last layers
    that were accepted, their ``kept_value`` (loss, and loss with decay) and the ``factor`` of the
    step sizes; an iterate's own layers are those tried next (Battiti 1989, Complex Systems 3).
    """

    def step(Ws, value, grads, rates, lam, memory):
        factor = memory["factor"][0] if memory else torch.ones((), dtype=torch.float64)
        decay = 0.5 * lam * sum(W.square().sum() for W in Ws) if lam else 0.0
        found = {"kept": Ws, "kept_grads": grads, "kept_value": [value, value + decay]}
        if memory:
            rounded = 1 + 64 * torch.finfo(value.dtype).eps
            # Where the start is small the loss falls by less than it is rounded; NaN is refused.
            if value + decay <= rounded * memory["kept_value"][1]:
                factor = (grow * factor).clamp(max=most)
            else:
                factor = shrink * factor
                found = {name: memory[name] for name in found}
                Ws, grads = found["kept"], found["kept_grads"]
        rates = [factor.item() * rate for rate in rates]
        return rules._moved(Ws, grads, rates), {**found, "factor": [factor]}

    def start(Ws):
        if Ws[0].ndim > 2:
            raise ValueError(f"Ws: wanted one run, got {tuple(Ws[0].shape[:-2])} side by side")
        return {}

    return rules.Rule("bold driver", start, step)
