r"""Completion of real matrices by a compressed deep linear network, with nothing left to tune.

`complete` is scheme (B) of `compression` on the observed entries, at a cost linear in their
number: spectral start, discrepant step sizes, a step size that adapts itself, and an end when
entries held out of training are no longer predicted better. Least squares has the first look and
the last word, where it predicts them better still.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lop_utils import _checks, _completing, _files, _starting, _threads, descent, observed
from lop_utils._completing import COLUMNS, Best, Settings
from lop_utils._finishing import Finish
from lop_utils.compression import stable_eta
from lop_utils.observed import ObservedEntries

__all__ = ["Completion", "complete", "load", "resume"]

_FORMAT = "lop_utils.completion 4"


@dataclass(frozen=True, repr=False, eq=False)
class Completion:
    """A completed matrix, as the product of a few small ones."""

    history: dict[str, Tensor]
    """Of every measurement: step t, seconds, root mean square errors train and held_out, eta."""
    stopped: str
    """Why training ended: "exact", "tol", "patience", "steps" or "interrupted"."""
    best: Best
    """What predicted the held-out entries best, or the observed ones if none were held out."""
    found: Finish | None
    """What least squares found before the first step, where it was not exact."""
    finish: Best | None
    """What least squares made of all this in the end, where it predicts better than ``best``."""
    last: descent.Iterate | None
    """Where `resume` goes on."""
    train: ObservedEntries
    test: ObservedEntries | None
    """What is trained on, and what was held out, if anything."""
    settings: Settings

    @property
    def Ws(self) -> list[Tensor]:
        """Best layers, (k, d_x), (k, k), ..., (d_y, k), in the unit of the values.

        Where least squares has finished them k is the rank that was found.
        """
        Ws = (self.finish or self.best).Ws
        return [self.settings.scale ** (1 / len(Ws)) * W for W in Ws]

    @property
    def error(self) -> float:
        """Root mean square error on the held-out entries, or on the observed ones if none are."""
        return (self.finish or self.best).error

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the completed matrix."""
        return self.train.shape

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.last.t if self.last else 0

    def __repr__(self) -> str:
        """Return the sizes, and how the run ended."""
        (d_y, d_x), Ws = self.shape, (self.finish or self.best).Ws
        return (
            f"Completion({d_y} x {d_x}, width {len(Ws[0])}, depth {len(Ws)}, error "
            f"{self.error:.4g} after "
            f"{self.steps} steps, stopped by {self.stopped})"
        )

    def predict(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Return the entries at given places, shape (n,), in the unit of the values.

        A row or column of which nothing was observed is predicted as zero: centre the values
        before, so that zero means the average.
        """
        rows, cols = _checks.places(rows, cols, self.shape, self.train.values.device)
        return _completing.entries(self.Ws, rows, cols)

    def save(self, file: str | Path) -> None:
        """Write everything, the entries too, into one file that `load` reads."""
        content = {"format": _FORMAT, "history": self.history, "stopped": self.stopped}
        for name in ("best", "found", "finish", "last", "settings"):
            content[name] = getattr(self, name) and tuple(getattr(self, name))
        for name, part in (("train", self.train), ("test", self.test)):
            content[name] = part and (part.rows, part.cols, part.values, part.shape)
        if not (file := _checks.path("file", file)).name:
            raise ValueError(f"file: wanted the name of a file, got {str(file)!r}")
        _files.write_whole(file, partial(torch.save, content))


def load(file: str | Path) -> Completion:
    """Return what `Completion.save` wrote.

    Parameters
    ----------
    file : str or Path
        Where it is.

    Returns
    -------
    Completion

    Raises
    ------
    OSError, ValueError
        If there is no such file, or it is damaged or something else.

    Examples
    --------
    >>> load("no-such-file.pt")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'no-such-file.pt'
    """
    content = _files.read_torch(_checks.path("file", file), _FORMAT)
    kinds = {"best": Best, "found": Finish, "finish": Best}
    kinds |= {"last": descent.Iterate, "settings": Settings}
    kinds |= {"train": ObservedEntries, "test": ObservedEntries}
    parts = {name: content[name] and kind(*content[name]) for name, kind in kinds.items()}
    return Completion(history=content["history"], stopped=content["stopped"], **parts)


def complete(
    seen: ObservedEntries,
    rank: int,
    *,
    width: int | None = None,
    L: int = 3,
    eps: float | None = None,
    gamma: float = 5.0,
    eta: float | None = None,
    lam: float = 0.0,
    held_out: float = 0.1,
    patience: int = 500,
    tol: float = 0.0,
    steps: int = 10_000,
    every: int = 10,
    finish: bool = True,
    callback: Callable[[dict[str, float]], object] | None = None,
    progress: bool = True,
    generator: torch.Generator | int | None = 0,
) -> Completion:
    r"""Return a matrix completed from a sample of its entries.

    The values are divided by the largest singular value of
    :math:`\frac1p\,\Omega\odot\Phi`, whose singular vectors are the start (`init.spectral`). Each
    step costs O(n k), n the number of observed entries, on one thread where n k is below 512 x 512.
    Unless ``eta`` is given, the step size adapts itself by the bold driver (Battiti 1989), below
    `compression.stable_eta`.

    Before and after comes alternating least squares, no gradient descent. First, without decay, it
    goes the way of a deep network from a vanishing start, mode by mode (Li, Luo and Lyu 2021); if
    that leaves nothing but rounding, no step is taken. Last, it starts from the rank that the
    layers show, by the widest gap of singular values. What predicts the entries held out best is
    kept, and least squares is then fitted to these entries, too.

    Parameters
    ----------
    seen : ObservedEntries
        The sample, on the device and in the precision to compute in. Subtract what is simpler
        than low rank before, as `observed.fit_effects` does.
    rank : int
        Rank to expect: it sets the width, and a guess from above does little harm.
    width : int, optional
        Width k of the factors; twice the rank, or what the shape allows, by default.
    L : int
        Depth. Three layers and more keep the rank low by themselves; two do not.
    eps : float, optional
        Initialisation scale of every layer, for values divided as above; by default 1e-4 for
        two layers, and such that :math:`\varepsilon^{L-2}` = 1/100 for more, since to that a
        singular value's speed at the start is proportional. Values without noise are fitted
        more exactly from a smaller start, noisy ones better from a larger.
    gamma : float
        Rate of the outer layers over that of the inner.
    eta : float, optional
        A fixed step size instead of the adapted one, for the sum of squares divided by the share
        observed; see `compression.stable_eta`.
    lam : float
        Weight decay, for values divided as above. Without noise leave it out. With noise it
        helps, if ``eps`` is raised with it, to about twice ``lam``: from a smaller start a decay
        above :math:`\varepsilon^{L-2}s` never lets a singular value s leave. The held-out error
        tells which of several values is best.
    held_out : float
        Share of the observed entries that is kept out of training to judge when to stop; with 0
        the entries trained on judge.
    patience : int
        Steps to go on without an error lower by a thousandth before stopping, longer while the
        loss falls faster and faster. A weak singular value that is about to leave the start
        hardly shows in any error yet, so do not be short of it.
    tol : float
        Stop at an error no larger than this, in the unit of the values.
    steps : int
        Steps at most.
    every : int
        Measure, and see whether to stop, when the step is a multiple of it, and at the last.
    finish : bool
        Whether to fit by least squares, too.
    callback : callable, optional
        Is given each measurement, a dict as ``history``, one number under each name.
    progress : bool
        Show a progress bar.
    generator : torch.Generator or int
        Draws the held-out entries.

    Returns
    -------
    Completion
        Ctrl-C ends training early and still returns one. `resume` goes on from it.

    Raises
    ------
    TypeError, ValueError
        If ``rank (d_y + d_x - rank)``, the numbers that determine such a matrix on the rows and
        columns that occur, exceeds the entries trained on (with decay a warning), the values are
        all zero, the width exceeds the shape, or an option is out of range.
    FloatingPointError
        If ``eps``, ``gamma``, ``eta`` or ``lam`` makes the loss overflow; names the step.

    References
    ----------
    Kwon et al. (2024), arXiv:2311.05061; Li, Luo and Lyu (2021), arXiv:2012.09839.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> Phi = torch.randn(60, 1, generator=g) @ torch.randn(1, 50, generator=g)
    >>> rows, cols = (torch.rand(60, 50, generator=g) < 0.3).nonzero().T
    >>> seen = ObservedEntries(rows, cols, Phi[rows, cols], (60, 50))
    >>> result = complete(seen, rank=1, progress=False)
    >>> (result.predict([0, 7], [0, 9]) - Phi[[0, 7], [0, 9]]).abs().max().item() < 1e-2
    True
    """
    _checks.instance("seen", seen, ObservedEntries)
    rank, L = _checks.count("rank", rank, at_least=1), _checks.count("L", L, at_least=2)
    k, steps = _starting.width_for(seen.shape, rank, width), _checks.count("steps", steps)
    eps = 0.01 ** (1 / (L - 2) if L > 2 else 2) if eps is None else _checks.positive("eps", eps)
    gamma, share = _checks.positive("gamma", gamma), _checks.fraction("held_out", held_out)
    settings = Settings(
        scale=1.0,
        gamma=gamma,
        eta=0.25 * stable_eta(1.0, gamma, L) if eta is None else _checks.positive("eta", eta),
        adapts=eta is None,
        lam=_checks.nonnegative("lam", lam),
        patience=_checks.count("patience", patience, at_least=1),
        every=_checks.count("every", every, at_least=1),
        width=k,
        L=L,
        eps=eps,
        finish=_checks.flag("finish", finish),
        tol=_checks.nonnegative("tol", tol),
    )
    _starting.require_callback(callback)
    train, test = seen, None
    if held := round(share * len(seen)):
        if held == len(seen):
            raise ValueError(f"held_out: wanted less than all {held} entries, got {share}")
        train, test = observed.split(seen, share, generator=generator)
    _starting.require_determined(train, rank, settings.lam)
    best, none = Best(float("inf"), 0, []), {name: torch.zeros(0) for name in COLUMNS}
    start = Completion(none, "steps", best, None, None, None, train, test, settings)
    with _threads.for_numbers(k * len(train)):
        return _completing.gone_on(start, steps, _checks.flag("progress", progress), callback)


def resume(
    result: Completion,
    *,
    steps: int,
    patience: int | None = None,
    callback: Callable[[dict[str, float]], object] | None = None,
    progress: bool = True,
) -> Completion:
    """Return what a run gives that goes on from a result, on the same entries and settings.

    Parameters
    ----------
    result : Completion
        From `complete`, `load` or here; not changed.
    steps : int
        Steps in all.
    patience, callback, progress
        As of `complete`.

    Returns
    -------
    Completion
        Digit for digit that of a run without the stop; only that, where the stop was at no
        multiple of ``every``, the layers there may be the best.

    Raises
    ------
    TypeError, ValueError
        If ``steps`` is below what was taken, or an option is out of range.

    Examples
    --------
    >>> seen = ObservedEntries(*torch.ones(9, 8).nonzero().T, torch.arange(72.0), (9, 8))
    >>> first = complete(seen, 2, steps=20, finish=False, progress=False)
    >>> resume(first, steps=50, progress=False).steps
    50
    """
    steps = _checks.count("steps", steps, _checks.instance("result", result, Completion).steps)
    _starting.require_callback(callback)
    if patience is not None:
        patience = _checks.count("patience", patience, at_least=1)
        result = replace(result, settings=result.settings._replace(patience=patience))
    with _threads.for_numbers(result.settings.width * len(result.train)):
        return _completing.gone_on(result, steps, _checks.flag("progress", progress), callback)
