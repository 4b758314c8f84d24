"""What is kept of a run: what was measured of it, and a file from which it can go on."""

import os
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lop_utils import _checks

__all__ = ["Iterate", "load", "record", "resume", "save"]

_FORMAT = "lop_utils.checkpoints 1"


class Iterate(NamedTuple):
    """One point of a run. Every iterate owns its tensors: keeping one does not change it."""

    t: int
    """Steps taken so far."""
    Ws: list[Tensor]
    """Layers."""
    loss: Tensor
    """Scalar: the loss of ``Ws``, without the weight-decay term."""
    memory: dict[str, list[Tensor]] | None = None
    """What the method knows beyond the layers, by name: ``velocity`` of momentum, ``step``,
    ``exp_avg`` and ``exp_avg_sq`` of Adam, the state of the ``generator`` of stochastic
    gradient descent. ``None`` if that is nothing, as for plain gradient descent."""


def _write(file: str | Path, iterate: Iterate, **more: Any) -> None:
    t, Ws, loss, memory = iterate
    content = {"format": _FORMAT, "t": t, "Ws": [W.detach() for W in Ws], "loss": loss.detach()}
    file = Path(file)
    draft = file.with_name(f"{file.name}.draft")
    try:
        with draft.open("wb") as stream:
            torch.save(content | {"memory": memory} | more, stream)
            stream.flush()
            os.fsync(stream.fileno())  # or a power cut could leave the new name on an empty file
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _read(file: str | Path) -> dict[str, Any]:
    # Where there is no GPU, a file written on one must open all the same.
    place = None if torch.cuda.is_available() else "cpu"
    try:
        with zipfile.ZipFile(file) as archive:  # torch writes check sums but does not read them
            if (member := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{member} has another check sum")
        content = torch.load(file, map_location=place, weights_only=True)
        known = content["format"] == _FORMAT and set(Iterate._fields) <= content.keys()
    except OSError:  # there is no such file, or it may not be read: Python's own words name it
        raise
    except Exception as error:  # torch has half a dozen kinds for a file that is not one
        raise ValueError(f"file: wanted a run that was saved, got {file}, damaged") from error
    if not known:
        raise ValueError(f"file: wanted a run that was saved, got {file}, which holds others' data")
    return content


def save(file: str | Path, iterate: Iterate) -> None:
    """Keep one iterate in a file, all that is needed to go on from there.

    The file replaces an older one at once, when it is complete: an interruption leaves the
    older one as it was. `torch.load` reads it with ``weights_only=True``.

    Parameters
    ----------
    file : str or Path
        Where to; the folder exists.
    iterate : Iterate
        Of any method.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save(f"{folder}/run.pt", Iterate(7, [torch.eye(2)], torch.tensor(0.5)))
    ...     load(f"{folder}/run.pt").t
    7
    """
    _write(file, iterate)


def load(file: str | Path) -> Iterate:
    """Read the iterate that `save` or `record` kept.

    Parameters
    ----------
    file : str or Path
        Where it is.

    Returns
    -------
    Iterate
        On the device that it came from; on the CPU if torch finds no GPU.

    Raises
    ------
    ValueError
        If the file is damaged or something else; names it.
    OSError
        If it is not there or cannot be read.

    Examples
    --------
    >>> load("no-such-run.pt")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'no-such-run.pt'
    """
    content = _read(file)
    return Iterate(*(content[field] for field in Iterate._fields))


def resume(file: str | Path, Ws0: Sequence[Tensor] | Iterate) -> Sequence[Tensor] | Iterate:
    """Return where to start a run that `record` keeps in a file: where it was left, or anew.

    Called again after an interruption, these three lines go on, and give what they would have
    given without one. A file does not know the step size: a run with another needs another::

        start = descent.resume(file, Ws0)
        run = descent.gradient_descent(start, residual, eta=0.1, steps=10_000)
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
        If there is a file and it is damaged or something else, or holds a run that did not
        start from ``Ws0``: other shapes, another dtype or other numbers, beyond rounding.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> Ws0 = [torch.zeros(1, 1)]
    >>> with TemporaryDirectory() as folder:
    ...     fresh = resume(f"{folder}/run.pt", Ws0)
    ...     save(f"{folder}/run.pt", Iterate(7, [torch.ones(1, 1)], torch.tensor(0.5)))
    ...     again = resume(f"{folder}/run.pt", Ws0)
    >>> fresh is Ws0, again.t, again.Ws
    (True, 7, [tensor([[1.]])])
    """
    if not Path(file).exists():
        return Ws0
    given = _checks.layers("Ws0", Ws0.Ws if isinstance(Ws0, Iterate) else Ws0)
    content, device = _read(file), given[0].device
    Ws = [W.to(device) for W in content["Ws"]]
    if len(given) != len(Ws):
        raise ValueError(f"Ws0: wanted {len(Ws)} layers as in {file}, got {len(given)}")
    for l, (W0, W) in enumerate(zip(given, Ws, strict=True)):
        _checks.fits(f"Ws0[{l}]", W0, W.shape, f"in {file}", W)
    for l, (W0, W) in enumerate(zip(given, content.get("start", given), strict=True)):
        # Not to the last digit: the same seed gives others on another machine.
        if torch.linalg.norm(W0 - W.to(device)) > torch.finfo(W0.dtype).eps ** 0.5 * W0.norm():
            raise ValueError(
                f"Ws0[{l}]: wanted the layer from which the run in {file} started, got another; "
                "without that file a new run starts"
            )
    # What is shaped as a layer lives where the layer lives; steps and generators on the CPU.
    memory = content["memory"] and {
        name: [A.to(device) if A.ndim == 2 else A for A in As]
        for name, As in content["memory"].items()
    }
    return Iterate(content["t"], Ws, content["loss"].to(device), memory)


_Rows = list[tuple[Tensor, ...]]


def _value(measured: Tensor | float) -> Tensor:
    # torch would round a Python float to float32.
    return torch.as_tensor(measured, dtype=torch.float64 if isinstance(measured, float) else None)


def _joined(before: dict[str, Tensor], names: list[str], rows: _Rows) -> dict[str, Tensor]:
    if not rows:
        return before
    columns = map(torch.stack, zip(*rows, strict=True))
    new = dict(zip(["t", *names], columns, strict=True))
    return {
        name: torch.cat([before[name].to(A.device), A]) if before else A for name, A in new.items()
    }


def _measured(file: str | Path, names: list[str], every: int) -> dict[str, Any]:
    """Read what `record` kept, if it measured the same."""
    content = _read(file)
    for what, wanted in (("measures", names), ("every", every)):
        if (got := content.get(what)) != wanted:
            raise ValueError(
                f"file: wanted a run recorded with {what} = {wanted}, "
                f"got {file} with {'none' if got is None else got}"
            )
    return content


def _rest(iterates: Iterable[Iterate], content: dict[str, Any], file) -> Iterator[Iterate]:
    """Drop the first iterate, which is the last one of the file, or refuse to go on."""
    iterates = iter(iterates)
    for first in iterates:
        if first.t != content["t"]:
            raise ValueError(
                f"iterates: wanted to go on at t = {content['t']} as {file} does, got a run that "
                f"starts at t = {first.t}; start it from resume({str(file)!r}, Ws0)"
            )
        here, there = ([W.cpu() for W in Ws] for Ws in (first.Ws, content["Ws"]))
        if len(here) != len(there) or not all(map(torch.equal, here, there)):
            raise ValueError(
                f"iterates: wanted the layers that {file} holds at t = {first.t}, got others; "
                f"start the run from resume({str(file)!r}, Ws0)"
            )
        break
    yield from iterates


def record(
    iterates: Iterable[Iterate],
    *,
    every: int = 1,
    file: str | Path | None = None,
    save_every: float = 60.0,
    **measures: Callable[[Iterate], Tensor | float],
) -> dict[str, Tensor]:
    """Measure a run as it passes and stack what was measured; no iterate is kept.

    With a ``file``, what has been measured and the last iterate are kept there, so that a run
    started from `resume` goes on after an interruption; the result is that of a run without
    one. A run that had ended gives its result at once, and goes on if ``steps`` has grown.

    Parameters
    ----------
    iterates : iterable of Iterate
        A run. A progress bar goes around it, ``tqdm(run, total=steps + 1)``; of a run that may
        go on, ``tqdm(run, total=steps + 1, initial=getattr(start, "t", 0))``.
    every : int
        Measure when ``t`` is a multiple of it.
    file : str or Path, optional
        Where to keep the run: at its first iterate, then every ``save_every`` seconds, and
        when it ends or is interrupted, by whatever exception.
    save_every : float
        Seconds between two writings of ``file``.
    **measures : callable
        Each takes an iterate, which it does not change, and returns a number or a tensor of a
        fixed shape.

    Returns
    -------
    dict of Tensor
        ``t``, shape (T,), and under each measure's name its values, shape (T, ...).

    Raises
    ------
    TypeError, ValueError
        If ``every < 1``, ``save_every < 0``, a measure is called ``t``, or the run held nothing
        to measure; with a file also if it is damaged, or belongs to another run: other
        measures, another ``every``, or not the first of the iterates.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> run = (Iterate(t, [torch.zeros(1, 1)], torch.tensor(0.5**t)) for t in range(5))
    >>> record(run, every=2, loss=lambda it: it.loss)
    {'t': tensor([0, 2, 4]), 'loss': tensor([1.0000, 0.2500, 0.0625])}
    """
    every = _checks.count("every", every, at_least=1)
    save_every = _checks.nonnegative("save_every", save_every)
    if "t" in measures:
        raise ValueError("measures: wanted any name but t, which holds the step, got t")
    names, before, start = list(measures), {}, None
    if file is not None and Path(file).exists():
        content = _measured(file, names, every)
        before, start = content["record"], content["start"]
        iterates = _rest(iterates, content, file)

    rows: _Rows = []
    # The last iterate that was dealt with, and how many rows there were then: one name, so that
    # no interruption comes between the two.
    done: tuple[Iterate | None, int] = None, 0

    def keep() -> None:
        last, count = done
        if file is not None and last is not None:
            found = _joined(before, names, rows[:count])
            _write(file, last, measures=names, every=every, record=found, start=start)

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
    found = _joined(before, names, rows)
    if not found:
        raise ValueError("iterates: wanted at least one, got none")
    return found
