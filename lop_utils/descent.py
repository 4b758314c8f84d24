r"""Training as a stream: one trainer for every loss and every update rule.

`train` yields iterates that a caller can stop, zip or measure; `record` measures them as they
pass, and with a file keeps a run from which it can go on. Layers ``Ws`` may have a leading axis of
runs, ``(..., d_l, d_{l-1})``: many runs then share each call, and none sees the others. Below
512 x 512 numbers `train` computes on one thread; while the caller has an iterate, as before.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks, _files, _threads, rules
from lop_utils.losses import Loss

__all__ = ["Iterate", "record", "resume", "train"]

_FORMAT = "lop_utils.descent 2"


class Iterate(NamedTuple):
    """One point of a run. Every iterate owns its tensors: keeping one does not change it."""

    t: int
    """Steps taken so far."""
    Ws: list[Tensor]
    """Layers."""
    loss: Tensor
    """Shape (...): the loss of each run at ``Ws``, without decay, or of the batch that comes."""
    memory: rules.Memory
    """What the rule remembers, and the state of the loss's ``generator`` if any."""
    method: str
    """The name of the rule."""


def train(
    Ws: Sequence[Tensor] | Iterate,
    loss: Loss,
    rule: rules.Rule | None = None,
    *,
    eta: rules.StepSize | Callable[[int], rules.StepSize],
    lam: float = 0.0,
    steps: int,
    every: int = 1,
) -> Iterator[Iterate]:
    r"""Return the iterates of training all layers at once, by default by gradient descent.

    .. math:: W_l(t+1) = (1 - \eta_l\lambda)\,W_l(t) - \eta_l\,\nabla_l\ell(W(t))

    Parameters
    ----------
    Ws : sequence of Tensor, or Iterate
        Layers at ``t = 0``; not changed. An iterate goes on from there, digit for digit.
    loss : Loss
        What to minimise, from `losses` or `factored`.
    rule : Rule, optional
        Another method, from `rules`.
    eta : StepSize, or callable
        Step size of all layers, of each or of each run; or what gives it for step t.
    lam : float
        Weight decay: rules see the gradient of :math:`\ell + \frac\lambda2\sum_l\|W_l\|_F^2`.
    steps : int
        Number of steps from ``t = 0`` to the last iterate.
    every : int
        Yield when ``t`` is a multiple of it, and at the first and the last step.

    Yields
    ------
    Iterate

    Raises
    ------
    TypeError, ValueError
        At the call.
    FloatingPointError
        While running, if no run has a finite loss any more; names the step and ``eta``.

    References
    ----------
    Yaras et al. (2023), arXiv:2306.01154, the iteration of the theorem; Kwon et al. (2024),
    arXiv:2311.05061, a step size for each layer, called discrepant learning rates.

    Examples
    --------
    >>> from lop_utils.losses import squared_error
    >>> run = train([[[1.0]], [[1.0]]], squared_error([[2.0]]), eta=0.1, steps=2)
    >>> [round(iterate.loss.item(), 3) for iterate in run]
    [0.5, 0.312, 0.175]
    """
    earlier = Ws if isinstance(Ws, Iterate) else None
    # Where many runs go on, some may have diverged.
    Ws = _checks.chain("Ws", earlier.Ws) if earlier else _checks.layers("Ws", Ws, runs=True)
    Ws = [W.detach().clone() for W in Ws]
    rule = rules.gradient_descent() if rule is None else rule
    if not callable(loss):
        raise TypeError(f"loss: wanted a function of the layers, got {type(loss).__name__}")
    if not isinstance(rule, rules.Rule):
        raise TypeError(f"rule: wanted a Rule, got {rule!r}")
    rates = None if callable(eta) else rules._rates(eta, Ws)
    lam, steps = _checks.nonnegative("lam", lam), _checks.count("steps", steps)
    every = _checks.count("every", every, at_least=1)
    if earlier is None:
        return _stream(range(steps + 1), Ws, loss, rule, eta, rates, lam, every, rule.start(Ws))
    draws = getattr(loss, "generator", None) is not None
    if earlier.method != rule.name or ("generator" in earlier.memory) != draws:
        raise ValueError(
            f"Ws: wanted an iterate of {rule.name} on a loss{' that draws' if draws else ''}, got "
            f"one of {earlier.method} that remembers {', '.join(earlier.memory) or 'nothing'}; its "
            "layers alone start a new run"
        )
    if steps < earlier.t:
        raise ValueError(f"steps: wanted steps >= t = {earlier.t} of the iterate, got {steps}")
    ts, memory = range(earlier.t, steps + 1), rules._copied(earlier.memory)
    return _stream(ts, Ws, loss, rule, eta, rates, lam, every, memory)


@_threads.for_run
def _stream(ts, Ws, loss, rule, eta, rates, lam, every, memory) -> Iterator[Iterate]:
    generator = getattr(loss, "generator", None)
    if "generator" in memory:  # only now: until the first iterate is asked for nothing happens
        generator.set_state(memory.pop("generator")[0])
    for t in ts:
        shown = t % every == 0 or t in (ts[0], ts[-1])
        draws = {"generator": [generator.get_state()]} if generator and shown else {}
        value, grads = loss(Ws)
        if value.requires_grad:  # of data that came with a graph
            value, grads = value.detach(), [G.detach() for G in grads]
        if shown:
            if not (math.isfinite(value.item()) if value.ndim == 0 else value.isfinite().any()):
                led = rules._shown(eta(max(t - 1, 0)) if callable(eta) else eta)
                raise FloatingPointError(
                    f"loss: wanted a finite number, got {value.max().item()} at step t = {t} with "
                    f"eta = {led}; a smaller eta keeps the run from diverging"
                )
            kept = [W.clone() for W in Ws]
            yield Iterate(t, kept, value.clone(), rules._copied(memory) | draws, rule.name)
        if t == ts[-1]:
            return
        if lam and not rule.decays:
            grads = [torch.add(G, W, alpha=lam) for G, W in zip(grads, Ws, strict=True)]
        now = rules._rates(eta(t), Ws) if rates is None else rates
        Ws, memory = rule.step(Ws, value, grads, now, lam, memory)


# --- What is kept of a run


def resume(file: str | Path, Ws0: Sequence[Tensor] | Iterate) -> Sequence[Tensor] | Iterate:
    """Return where to start a run that `record` keeps in a file: where it was left, or anew.

    Called again after an interruption, these lines go on, and give what they would have given
    without one. A file does not know the step size: a run with another needs another::

        start = descent.resume(file, Ws0)
        run = descent.train(start, loss, eta=0.1, steps=10_000)
        history = descent.record(run, every=100, file=file, loss=lambda it: it.loss)

    Parameters
    ----------
    file : str or Path
        Where `record` keeps the run.
    Ws0 : sequence of Tensor, or Iterate
        Where the run starts when there is no file.

    Returns
    -------
    Iterate, or what ``Ws0`` is
        The last iterate in the file, on the device of ``Ws0``; ``Ws0`` if there is no file.

    Raises
    ------
    TypeError, ValueError
        If the file is damaged or something else, or its run started elsewhere.

    Examples
    --------
    >>> Ws0 = [torch.zeros(1, 1)]
    >>> resume("no-such-run.pt", Ws0) is Ws0
    True
    """
    if not Path(file).exists():
        return Ws0
    given = _checks.chain("Ws0", Ws0.Ws if isinstance(Ws0, Iterate) else Ws0)
    content, device = _files.read_torch(file, _FORMAT), given[0].device
    if len(given) != (L := len(content["start"])):
        raise ValueError(f"Ws0: wanted {L} layers as in {file}, got {len(given)}")
    for l, (W0, start) in enumerate(zip(given, content["start"], strict=True)):
        _checks.fits(f"Ws0[{l}]", W0, start.shape, f"in {file}", start.to(device))
        # Not to the last digit: the same seed gives others on another machine.
        if torch.linalg.norm(W0 - start.to(device)) > torch.finfo(W0.dtype).eps ** 0.5 * W0.norm():
            raise ValueError(
                f"Ws0[{l}]: wanted the layer from which the run in {file} started, got another; "
                "without that file a new run starts"
            )
    t, Ws, loss, memory, method = (content[field] for field in Iterate._fields)
    # What is shaped as a layer lives where the layer lives; steps and generators on the CPU.
    for name, As in memory.items():
        memory[name] = [A.to(device) if A.ndim >= 2 else A for A in As]
    return Iterate(t, [W.to(device) for W in Ws], loss.to(device), memory, method)


def _joined(before: dict[str, Tensor], names: list[str], rows: list) -> dict[str, Tensor]:
    if not rows:
        return before
    new = dict(zip(["t", *names], map(torch.stack, zip(*rows, strict=True)), strict=True))
    return {n: torch.cat([before[n].to(A.device), A]) if before else A for n, A in new.items()}


def _goes_on(iterates: Iterable[Iterate], content: dict[str, Any], file, **kept) -> Iterator:
    """Drop the first iterate, which is the last one of the file, or refuse to go on."""
    for what, wanted in kept.items():
        if (got := content[what]) != wanted:
            raise ValueError(
                f"file: wanted a run recorded with {what} = {wanted}, got {file} with {got}"
            )
    iterates = iter(iterates)
    if first := next(iterates, None):
        here, there = ([W.nan_to_num().cpu() for W in Ws] for Ws in (first.Ws, content["Ws"]))
        same = len(here) == len(there) and all(map(torch.equal, here, there))
        if first.t != content["t"] or not same:
            raise ValueError(
                f"iterates: wanted the run to go on at t = {content['t']} with the layers that "
                f"{file} holds, got t = {first.t}{'' if same else ' with others'}; start it from "
                f"resume({str(file)!r}, Ws0)"
            )
    yield from iterates


def record(
    iterates: Iterable[Iterate],
    *,
    every: int = 1,
    file: str | Path | None = None,
    save_every: float = 60.0,
    **measures: Callable[[Iterate], Tensor | float],
) -> dict[str, Tensor]:
    """Return what was measured of a run, stacked; no iterate is kept.

    With a ``file``, what has been measured and the last iterate are kept there, and a run started
    from `resume` goes on after an interruption, to the same result. One that had ended gives its
    result at once, and goes on if ``steps`` has grown.

    Parameters
    ----------
    iterates : iterable of Iterate
        A run. A progress bar goes around it:
        ``tqdm(run, total=steps + 1, initial=getattr(start, "t", 0))``.
    every : int
        Measure when ``t`` is a multiple of it.
    file, save_every : str or Path, optional, and float
        Where to keep the run: at its first iterate, every so many seconds, and when it ends or
        is interrupted, by whatever exception.
    **measures : callable
        Each makes of an iterate a number or a tensor of a fixed shape.

    Returns
    -------
    dict of Tensor
        ``t``, shape (T,), and under each measure's name its values, shape (T, ...).

    Raises
    ------
    TypeError, ValueError
        Also if the run held nothing to measure, or the file is damaged or of another run.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> run = train([[[1.0]]], lambda Ws: (Ws[0].sum(), Ws), eta=0.5, steps=4)
    >>> record(run, every=2, loss=lambda it: it.loss)["loss"]
    tensor([1.0000, 0.2500, 0.0625], dtype=torch.float64)
    """
    every = _checks.count("every", every, at_least=1)
    save_every = _checks.nonnegative("save_every", save_every)
    if "t" in measures:
        raise ValueError("measures: wanted any name but t, which holds the step, got t")
    names, before, start, rows = list(measures), {}, None, []
    if file is not None and Path(file).exists():
        content = _files.read_torch(file, _FORMAT)
        before, start = content["record"], content["start"]
        iterates = _goes_on(iterates, content, file, measures=names, every=every)

    done: tuple[Iterate | None, int] = None, 0  # one name: no interruption comes between the two

    def keep() -> None:
        last, count = done
        if file is None or last is None:
            return
        found = _joined(before, names, rows[:count])
        more = dict(format=_FORMAT, measures=names, every=every, record=found, start=start)
        _files.write_whole(Path(file), lambda stream: torch.save(last._asdict() | more, stream))

    due = float("-inf")  # a file that cannot be written is better known at once
    try:
        for iterate in iterates:
            if iterate.t % every == 0:
                values = [_value(measure(iterate)) for measure in measures.values()]
                rows.append((torch.tensor(iterate.t), *values))
            if start is None and file is not None:
                start = [W.clone() for W in iterate.Ws]
            done = iterate, len(rows)
            if file is not None and time.monotonic() >= due:
                keep()
                due = time.monotonic() + save_every
    finally:
        keep()
    if found := _joined(before, names, rows):
        return found
    raise ValueError("iterates: wanted at least one, got none")


def _value(measured: Tensor | float) -> Tensor:
    # torch would round a Python float to float32.
    return torch.as_tensor(measured, dtype=torch.float64 if isinstance(measured, float) else None)
