"""Two scales from one source: a size that runs in a minute, and the size of the papers.

``LOP_SCALE=paper`` makes a notebook run at the second; what it then finds is kept as a small
file, so that the page, executed at book scale, can show both side by side. Whatever runs at paper
scale asks first for a place to keep it: a `ValueError` or an `OSError` comes before the hours.
"""

import json
import math
import os
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch

from lop_utils import _files

__all__ = ["checkpoint", "load_result", "pick", "save_result"]

_T = TypeVar("_T")
_CHECKOUT = Path(__file__).resolve().parents[2] / "book" / "_recorded"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _at_paper_scale() -> bool:
    scale = os.environ.get("LOP_SCALE", "book")
    if scale not in ("book", "paper"):
        raise ValueError(f"LOP_SCALE: wanted 'book' or 'paper', got {scale!r}")
    if scale == "paper" and not os.access(_CHECKOUT, os.W_OK):
        raise FileNotFoundError(
            "LOP_SCALE=paper: wanted a checkout of the book to keep results in, "
            f"found no folder {_CHECKOUT} that can be written"
        )
    return scale == "paper"


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

    Examples
    --------
    >>> pick(book=200, paper=1000)
    200
    """
    return paper if _at_paper_scale() else book


def checkpoint(id: str) -> Path | None:
    """Return the file from which a paper-scale run goes on after an interruption.

    It lies in the checkout under ``build/runs``, which ``make clean`` empties; delete it to begin
    anew.

    Parameters
    ----------
    id : str
        Name of the run, such as ``networks-mnist-hybrid-0``.

    Returns
    -------
    Path or None
        ``None`` at book scale, where a run takes seconds and nothing is kept.

    Examples
    --------
    >>> checkpoint("example")  # book scale
    """
    if not _at_paper_scale():
        return None
    file = _CHECKOUT.parents[1] / "build" / "runs" / f"{id}.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _commit() -> str:
    def git(*words: str) -> str:
        command = ["git", "-C", str(_CHECKOUT.parents[1]), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        # A record that the same run has just written does not make the code another.
        changed = git("status", "--porcelain", "--", ".", ":!book/_recorded")
    except OSError:  # no git
        return "unknown"
    return f"{commit}-dirty" if commit and changed else commit or "unknown"


def _as_json(value: Any) -> Any:
    """Return what JSON can hold of a value; of what it cannot, at least the words."""
    if hasattr(value, "tolist"):  # a tensor, an array, or a number of numpy
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(each) for each in value]
    if isinstance(value, float):
        if math.isfinite(value):
            return float(f"{value:.6g}")
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if isinstance(value, str | int | None) else repr(value)


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _from_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_from_json(each) for each in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def save_result(id: str, values: dict[str, Any], *, seed: int, device: str, seconds: float) -> None:
    """Keep what a paper-scale run found; at book scale do nothing.

    The file ``book/_recorded/ID.json`` holds ``id, seed, commit, device, seconds, torch,
    values``; numbers are kept to six significant digits, and of a value that is no JSON its
    ``repr``, since nobody wants to run for hours again. It replaces an older one at once, so that
    no reader ever meets half a file.

    Parameters
    ----------
    id : str
        Name of the record, such as ``intro-spectrum``.
    values : dict
        Numbers, strings, tensors, arrays, and lists and dicts of them.
    seed : int
        The seed that the run started from.
    device : str
        What it ran on.
    seconds : float
        How long it took.

    Examples
    --------
    >>> save_result("example", {"loss": 1.0}, seed=0, device="cpu", seconds=0.1)  # book scale
    """
    if not _at_paper_scale():
        return
    content = {
        "id": id,
        "seed": seed,
        "commit": _commit(),
        "device": str(device),
        "seconds": round(float(seconds), 1),
        "torch": torch.__version__,
        "values": values,
    }
    text = json.dumps(_as_json(content), separators=(",", ":"), allow_nan=False)
    _files.write_whole(_CHECKOUT / f"{id}.json", lambda file: file.write(f"{text}\n".encode()))


def load_result(id: str) -> dict[str, Any]:
    """Return what a paper-scale run found.

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

    Examples
    --------
    >>> load_result("intro-spectrum")["values"]["d"]
    1000
    """
    # A checkout keeps the records among the chapters; an installed wheel carries a copy.
    folder = _CHECKOUT if _CHECKOUT.is_dir() else resources.files("lop_utils") / "_recorded"
    file = folder / f"{id}.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"id: wanted the name of a record, got {id!r}; LOP_SCALE=paper records one"
        )
    return _from_json(json.loads(file.read_text(encoding="utf-8")))
