"""Two scales from one source: a size that runs in a minute, and the size of the papers.

``LOP_SCALE=paper`` makes a notebook run at the second; what it then finds is kept as a small
file, so that the page, executed at book scale, can show both side by side.
"""

import json
import os
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch

__all__ = ["Recorded", "checkpoint", "pick", "record", "recorded"]

_T = TypeVar("_T")
Recorded = dict[str, Any]

_CHECKOUT = Path(__file__).resolve().parent.parent / "book" / "_recorded"


def _scale() -> str:
    scale = os.environ.get("LOP_SCALE", "book")
    if scale not in ("book", "paper"):
        raise ValueError(f"LOP_SCALE: wanted 'book' or 'paper', got {scale!r}")
    return scale


def pick(*, book: _T, paper: _T) -> _T:
    """Return the value that belongs to the scale of this run.

    Parameters
    ----------
    book : object
        For the run that the page shows: seconds on two cores.
    paper : object
        For ``LOP_SCALE=paper``.

    Returns
    -------
    object
        One of the two, as it is.

    Raises
    ------
    ValueError
        If ``LOP_SCALE`` is set to anything but ``book`` or ``paper``.

    Examples
    --------
    >>> pick(book=200, paper=1000)
    200
    """
    return {"book": book, "paper": paper}[_scale()]


def checkpoint(id: str) -> Path | None:
    """Name the file from which a paper-scale run goes on after an interruption.

    It is what `checkpoints.resume` and `checkpoints.record` take. It lies in the checkout under
    ``build/runs``, which ``make clean`` empties; delete it to begin anew.

    Parameters
    ----------
    id : str
        Name of the run, such as ``networks-mnist-hybrid-0``.

    Returns
    -------
    Path or None
        ``None`` at book scale, where a run takes seconds and nothing is kept.

    Raises
    ------
    FileNotFoundError
        At paper scale, if this is no checkout of the book: there is nowhere to keep the file.

    Examples
    --------
    >>> checkpoint("example")  # book scale
    """
    if _scale() == "book":
        return None
    if not _CHECKOUT.is_dir():
        raise FileNotFoundError(
            f"id: wanted a checkout of the book to keep {id!r} in, found no folder {_CHECKOUT}"
        )
    file = _CHECKOUT.parent.parent / "build" / "runs" / f"{id}.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _folder():
    # A checkout keeps the records among the chapters; an installed wheel carries a copy.
    return _CHECKOUT if _CHECKOUT.is_dir() else resources.files("lop_utils") / "_recorded"


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(_CHECKOUT.parent.parent), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD")
    # A record that the same run has just written does not make the code another.
    changed = git("status", "--porcelain", "--", ".", ":!book/_recorded")
    return f"{commit}-dirty" if commit and changed else commit or "unknown"


def _rounded(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def record(id: str, values: dict[str, Any], *, seed: int, device: str, seconds: float) -> None:
    """Keep what a paper-scale run found; at book scale do nothing.

    The file ``book/_recorded/ID.json`` holds ``id, seed, commit, device, seconds, torch,
    values``; numbers are kept to six significant digits. It replaces an older one at once, so
    that no reader ever meets half a file.

    Parameters
    ----------
    id : str
        Name of the record, such as ``intro-spectrum``.
    values : dict
        Numbers, strings, tensors, and lists and dicts of them.
    seed : int
        The seed that the run started from.
    device : str
        What it ran on.
    seconds : float
        How long it took.

    Raises
    ------
    FileNotFoundError
        At paper scale, if this is no checkout of the book: there is nowhere to keep the file.

    Examples
    --------
    >>> record("example", {"loss": 1.0}, seed=0, device="cpu", seconds=0.1)  # book scale
    """
    if _scale() == "book":
        return
    if not _CHECKOUT.is_dir():
        raise FileNotFoundError(
            f"id: wanted a checkout of the book to record {id!r} in, found no folder {_CHECKOUT}"
        )
    content = {
        "id": id,
        "seed": seed,
        "commit": _commit(),
        "device": device,
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
        "values": _rounded(values),
    }
    file = _CHECKOUT / f"{id}.json"
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")
    draft.replace(file)


def recorded(id: str) -> Recorded:
    """Read what a paper-scale run found.

    Parameters
    ----------
    id : str
        Name of the record.

    Returns
    -------
    dict
        ``id, seed, commit, device, seconds, torch, values``.

    Raises
    ------
    FileNotFoundError
        If nothing has been recorded under that name.
    """
    file = _folder() / f"{id}.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"id: wanted the name of a record, got {id!r}; LOP_SCALE=paper records one"
        )
    return json.loads(file.read_text())
