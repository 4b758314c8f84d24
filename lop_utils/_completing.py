"""The steps that `completion.complete` is made of."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lop_utils import _finishing, descent, factored, rules
from lop_utils._starting import held, peak_of, spectral_start
from lop_utils.observed import ObservedEntries, _gathered

__all__ = [
    "COLUMNS",
    "Best",
    "Settings",
    "bold_driver",
    "entries",
    "gone_on",
]

_Run = Any  # a completion.Completion, which is defined above this module
_Callback = Callable[[dict[str, float]], object] | None
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
    width: int
    L: int
    eps: float
    finish: bool
    tol: float


class Best(NamedTuple):
    """The best root mean square error, when it was measured, and the layers as they train."""

    error: float
    t: int
    Ws: list[Tensor]

    def __repr__(self) -> str:
        """Return the error, when it was, and the shapes."""
        shapes = ", ".join(f"{len(W)} x {W.shape[1]}" for W in self.Ws)
        return f"Best({self.error:.4g} at step {self.t}, layers {shapes})"


def entries(Ws: list[Tensor], rows: Tensor, cols: Tensor) -> Tensor:
    """Return entries of the product of the layers."""
    Q = Ws[0]
    for W in Ws[1:-1]:
        Q = W @ Q
    return _gathered(Ws[-1], Q, rows, cols, {})


def gone_on(run: _Run, steps: int, progress: bool, callback: _Callback = None) -> _Run:
    """Return the run after so many steps in all, or when it has stopped before."""
    settings, fresh = run.settings, run.last is None and run.found is None
    try:
        if settings.finish and not settings.lam and fresh:
            run = _looked(run)
        if run.stopped == "exact":
            return run
        run = _trained(_with_start(run), steps, progress, callback)
        return run if run.stopped == "interrupted" or not settings.finish else _concluded(run)
    except KeyboardInterrupt:
        return replace(_with_start(run), stopped="interrupted")


def _scaled(run: _Run, unit: float) -> list[ObservedEntries | None]:
    return [part and part.with_values(part.values / unit) for part in (run.train, run.test)]


def _refitted(run: _Run, found: _finishing.Finish, unit: float) -> _finishing.Finish:
    """Return the fit of all entries, those held out too: they have judged."""
    if run.test is None:
        return found
    parts = [torch.cat(pair) for pair in zip(*map(_fields, _scaled(run, unit)), strict=True)]
    lam = run.settings.lam * run.train.p
    return _finishing.refitted(ObservedEntries(*parts, run.shape), found, lam, run.settings.L)


def _fields(part: ObservedEntries) -> tuple[Tensor, Tensor, Tensor]:
    return part.rows, part.cols, part.values


def _looked(run: _Run) -> _Run:
    """Return the run with what least squares finds before the first step; it ends if exact."""
    began, peak, settings = time.perf_counter(), peak_of(run.train), run.settings
    train, test = _scaled(run, peak)
    found = _finishing.grown(_finishing.Sample(train), test, settings.width, L=settings.L)
    if not (found and found.exact):
        return replace(run, found=found and found.divided(1 / peak))
    found = _refitted(run, found, peak)
    top = _finishing.svd_of_product(found.P, found.Qt)[1][0].item()
    scale, found = held(top * peak, train.values.dtype), found.divided(top)
    best = Best(scale * found.error, 0, found.layers(settings.L))
    row = 0, time.perf_counter() - began, scale * found.train, scale * found.held_out, settings.eta
    settings = settings._replace(scale=scale)
    return replace(run, history=_history([row]), stopped="exact", best=best, settings=settings)


def _with_start(run: _Run) -> _Run:
    if run.best.Ws:
        return run
    settings = run.settings
    Ws, scale = spectral_start(run.train, settings.width, settings.L, settings.eps)
    return replace(run, best=run.best._replace(Ws=Ws), settings=settings._replace(scale=scale))


def _concluded(run: _Run) -> _Run:
    """Return the run with the best fit by least squares, if it predicts better than the layers."""
    settings, scale = run.settings, run.settings.scale
    train, test = _scaled(run, scale)
    found = [run.found.divided(scale)] if run.found else []
    if run.best.t:
        start, lam = _finishing.shrunk(run.best.Ws), settings.lam * train.p
        sample, most = _finishing.Sample(train), settings.width
        found.append(_finishing.grown(sample, test, most, start, lam, settings.L))
    found = [each for each in found if each and (test is not None or each.exact)]
    finish = min(found, key=lambda each: each.error, default=None)
    # A tie goes to the fit of all entries, a tenth more of them.
    if finish is None or not scale * finish.error < 1.005 * run.best.error:
        return replace(run, finish=None)
    layers = _refitted(run, finish, scale).layers(settings.L)
    return replace(run, finish=Best(scale * finish.error, run.steps, layers))


def _history(rows: list[tuple]) -> dict[str, Tensor]:
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    return {
        name: torch.tensor(column, dtype=torch.int64 if name == "t" else torch.float64)
        for name, column in zip(COLUMNS, columns, strict=True)
    }


def _trained(run: _Run, steps: int, progress: bool, callback: _Callback) -> _Run:
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
                if callback is not None:
                    callback(dict(zip(COLUMNS, rows[-1], strict=True)))
            bar.update(last.t - bar.n)
            if best.error <= run.settings.tol:
                stopped = "tol"
                break
            if last.t - best.t > run.settings.patience and not _leaving(rows, best, run.settings):
                stopped = "patience"
                break
    except KeyboardInterrupt:
        stopped = "interrupted"
    finally:
        bar.close()
    return replace(run, history=_history(rows), stopped=stopped, best=best, last=last)


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
