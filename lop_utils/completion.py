r"""Completion of real matrices by a compressed deep linear network, with nothing left to tune.

`complete` is scheme (B) of `compression` on the observed entries, at a cost linear in their
number: spectral start, discrepant step sizes, a step size that adapts itself, and an end when
entries held out of training are no longer predicted better.
"""

import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lop_utils import _checks, _files, descent, factored, init, observed, rules
from lop_utils.observed import ObservedEntries

__all__ = ["Completion", "complete", "load", "resume", "stable_eta", "stable_gamma"]

_FORMAT = "lop_utils.completion 2"


@dataclass(frozen=True, repr=False, eq=False)
class Completion:
    """A completed matrix, as the product of a few small ones."""

    Ws: list[Tensor]
    """Layers of shapes (k, d_x), (k, k), ..., (d_y, k), in the unit of the values: those that
    predicted the held-out entries best, or the observed ones if none were held out."""
    history: dict[str, Tensor]
    """Of every measurement: step t, seconds, root mean square errors train and held_out, eta."""
    stopped: str
    """Why training ended: "patience", "steps" or "interrupted"."""
    run: dict
    """What `resume` goes on from."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the completed matrix."""
        return self.Ws[-1].shape[0], self.Ws[0].shape[1]

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.run["iterate"].t

    def __repr__(self) -> str:
        """Return the sizes, and how the run ended."""
        (d_y, d_x), k = self.shape, len(self.Ws[0])
        error = self.run["best_error"]
        return (
            f"Completion({d_y} x {d_x}, width {k}, depth {len(self.Ws)}, error {error:.4g} after "
            f"{self.steps} steps, stopped by {self.stopped})"
        )

    def predict(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Return the entries at given places, shape (n,), in the unit of the values.

        A row or column of which nothing was observed is predicted as zero: centre the values
        before, so that zero means the average.
        """
        d_y, d_x = self.shape
        rows = _checks.indices("rows", rows, d_y).to(self.Ws[0].device)
        cols = _checks.indices("cols", cols, d_x).to(self.Ws[0].device)
        if len(rows) != len(cols):
            raise ValueError(f"cols: wanted {len(rows)} as rows, got {len(cols)}")
        return observed.product_entries(*_factors(self.Ws), rows, cols)

    def save(self, file: str | Path) -> None:
        """Write everything, the entries too, into one file that `load` reads."""
        run = self.run | {"iterate": tuple(self.run["iterate"])}
        run |= {name: dataclasses.astuple(run[name]) for name in ("train", "test") if run[name]}
        content = dict(format=_FORMAT, Ws=self.Ws, history=self.history, stopped=self.stopped)
        _files.write_whole(Path(file), partial(torch.save, content | {"run": run}))


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
    content = _files.read_torch(file, _FORMAT)
    run = content["run"]
    run["iterate"] = descent.Iterate(*run["iterate"])
    run |= {name: ObservedEntries(*run[name]) for name in ("train", "test") if run[name]}
    return Completion(content["Ws"], content["history"], content["stopped"], run)


def stable_eta(s: float, gamma: float, L: int) -> float:
    r"""Return the largest stable step size at a fitted singular value.

    Layers that start small stay balanced, :math:`w_1^2 = w_L^2 = \gamma w_l^2` at the rates
    :math:`\gamma\eta, \eta, \dots, \gamma\eta`, so that a fitted value has
    :math:`\gamma\,w_l^L = s`. There the sum of the squared slopes, each times its rate, is
    :math:`L\,\gamma^{2/L} s^{2-2/L}`, and gradient descent is stable below 2 over it.

    Parameters
    ----------
    s : float
        Largest singular value of the target, for a loss that sums over all entries; where a
        share p of them is observed, the result is to be divided by p.
    gamma : float
        Rate of the outer layers over that of the inner.
    L : int
        Depth.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If ``s`` or ``gamma`` is not positive, or ``L < 2``.

    Examples
    --------
    >>> stable_eta(1.0, gamma=1.0, L=2)
    1.0
    """
    s, gamma = _checks.positive("s", s), _checks.positive("gamma", gamma)
    L = _checks.count("L", L, at_least=2)
    return 2 / (L * gamma ** (2 / L) * s ** (2 - 2 / L))


def stable_gamma(s: float, eta: float, L: int) -> float:
    r"""Return the largest stable ratio of the rates: `stable_eta` solved for gamma.

    Parameters
    ----------
    s : float
        As in `stable_eta`.
    eta : float
        Rate of the inner layers, times p where a share p is observed.
    L : int
        Depth.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If ``s`` or ``eta`` is not positive, or ``L < 2``.

    Examples
    --------
    >>> round(stable_gamma(1.0, eta=stable_eta(1.0, gamma=5.0, L=3), L=3), 12)
    5.0
    """
    s, eta = _checks.positive("s", s), _checks.positive("eta", eta)
    L = _checks.count("L", L, at_least=2)
    return (2 / (L * eta * s ** (2 - 2 / L))) ** (L / 2)


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
    steps: int = 10_000,
    every: int = 10,
    progress: bool = True,
    generator: torch.Generator | int | None = 0,
) -> Completion:
    r"""Return a matrix completed from a sample of its entries.

    The values are divided by the largest singular value of
    :math:`\frac1p\,\Omega\odot\Phi`, whose singular vectors are the start (`init.spectral`). Each
    step costs O(n k), n the number of observed entries. Unless ``eta`` is given, the step size
    adapts itself by `rules.bold_driver`, below `stable_eta`.

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
        observed; see `stable_eta`.
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
    steps : int
        Steps at most.
    every : int
        Measure, and see whether to stop, when the step is a multiple of it, and at the last.
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
        columns that occur, exceeds the entries trained on, the values are all zero, the width
        exceeds the shape, or an option is out of range.
    FloatingPointError
        If a given ``eta`` makes the loss overflow; names the step.

    References
    ----------
    Kwon et al. (2024), arXiv:2311.05061.

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
    d_y, d_x = seen.shape
    rank = _checks.count("rank", rank, at_least=1)
    k = _checks.count("width", 2 * rank if width is None else width, at_least=1)
    k = min(k, d_y - 1, d_x - 1) if width is None else k
    if not rank <= k < min(d_y, d_x):
        raise ValueError(f"width: wanted {rank} <= width < {min(d_y, d_x)}, got {k}")
    L, gamma = _checks.count("L", L, at_least=2), _checks.positive("gamma", gamma)
    eps = 0.01 ** (1 / (L - 2) if L > 2 else 2) if eps is None else _checks.positive("eps", eps)
    train, test = _hold_out(seen, _checks.fraction("held_out", held_out), generator)
    _require_determined(train, rank)
    Ws, scale = _spectral(train, k, L, eps)
    run = {"train": train, "test": test, "scale": scale, "iterate": None}
    run |= {"gamma": gamma, "lam": _checks.nonnegative("lam", lam)}
    run |= {"eta": None if eta is None else _checks.positive("eta", eta)}
    run |= {"patience": _checks.count("patience", patience, at_least=1)}
    run |= {"every": _checks.count("every", every, at_least=1)}
    run |= {"best": Ws, "best_t": 0, "best_error": float("inf")}
    history = {name: [] for name in ("t", "seconds", "train", "held_out", "eta")}
    return _go_on(run, Ws, history, _checks.count("steps", steps), progress)


def resume(
    result: Completion, *, steps: int, patience: int | None = None, progress: bool = True
) -> Completion:
    """Return what a run gives that goes on from a result, on the same entries and settings.

    Parameters
    ----------
    result : Completion
        From `complete`, `load` or here; not changed.
    steps : int
        Steps in all.
    patience, progress
        As of `complete`.

    Returns
    -------
    Completion
        Digit for digit that of a run without the stop.

    Raises
    ------
    TypeError, ValueError
        If ``steps`` is below what was taken, or an option is out of range.

    Examples
    --------
    >>> places, values = torch.ones(9, 8).nonzero().T, torch.arange(72.0)
    >>> first = complete(ObservedEntries(*places, values, (9, 8)), 2, steps=20, progress=False)
    >>> resume(first, steps=50, progress=False).steps
    50
    """
    run = dict(result.run)
    if patience is not None:
        run["patience"] = _checks.count("patience", patience, at_least=1)
    history = {name: column.tolist() for name, column in result.history.items()}
    steps = _checks.count("steps", steps, at_least=result.steps)
    return _go_on(run, run["iterate"], history, steps, progress)


# --- The steps that they are made of


def _hold_out(
    seen: ObservedEntries, share: float, generator: torch.Generator | int | None
) -> tuple[ObservedEntries, ObservedEntries | None]:
    if not round(share * len(seen)):
        return seen, None
    return observed.split(seen, share, generator=generator)


def _require_determined(train: ObservedEntries, rank: int) -> None:
    d_y, d_x = (len(places.unique()) for places in (train.rows, train.cols))
    if (asked := rank * (d_y + d_x - rank)) > len(train):
        raise ValueError(
            f"rank: wanted rank (d_y + d_x - rank) <= {len(train)} entries to train on, got "
            f"{asked} for rank {rank} and {d_y} rows, {d_x} columns that occur: the sample cannot "
            "determine so much"
        )


def _spectral(train: ObservedEntries, k: int, L: int, eps: float) -> tuple[list[Tensor], float]:
    """Return the layers at the start, and what the values are to be divided by."""
    peak = train.values.abs().max().item()  # before anything is squared
    if peak == 0:
        raise ValueError("values: wanted some that are not zero, got zeros only")
    (d_y, d_x), kind = train.shape, dict(dtype=train.values.dtype, device=train.values.device)
    seed = torch.Generator().manual_seed(0)
    Q = torch.randn(k, d_x, generator=seed, dtype=kind["dtype"]).to(kind["device"])
    loss = factored.fastest_loss(train.with_values(train.values / peak), k)
    Ws, s = init.sampled_spectral(loss, torch.zeros(d_y, k, **kind), Q, L, eps)
    # Rounding leaves some 1e-20 in a column that nothing trains.
    Ws[0][:, torch.bincount(train.cols, minlength=d_x) == 0] = 0
    return Ws, s[0].item() * peak / train.p


def _training(run: dict, start, steps: int):
    """Return the stream of iterates."""
    train, L, k = run["train"], len(run["best"]), len(run["best"][0])
    scaled = train.with_values(train.values / run["scale"])
    loss = factored.of_factors(factored.fastest_loss(scaled, k))
    # On a plateau any step size lowers the loss; one that is too large for what comes after
    # would scatter the singular values that are still small.
    most = stable_eta(1.0, run["gamma"], L)
    eta, rule = run["eta"], None
    if eta is None:
        eta, rule = 0.25 * most, rules.bold_driver(most=4.0)
    rates = [eta * rate / train.p for rate in (run["gamma"], *[1.0] * (L - 2), run["gamma"])]
    lam = run["lam"] * train.p
    return descent.train(start, loss, rule, eta=rates, lam=lam, steps=steps, every=run["every"])


def _go_on(run: dict, start, history: dict[str, list], steps: int, progress: bool) -> Completion:
    began = time.perf_counter() - max(history["seconds"], default=0.0)
    stopped, done = "steps", getattr(start, "t", 0)
    quiet = {} if progress else {"disable": True}  # else TQDM_DISABLE decides
    bar = tqdm(total=steps, initial=done, **quiet)
    try:
        for iterate in _training(run, start, steps):
            run["iterate"] = iterate
            if iterate.t not in history["t"][-1:]:
                found = _measure(run) | {"seconds": time.perf_counter() - began}
                for name, column in history.items():
                    column.append(found[name])
                bar.set_postfix(held_out=found["held_out"], refresh=False)
            bar.update(iterate.t - bar.n)
            waited = iterate.t - run["best_t"]
            if waited > run["patience"] and not _leaving(history, run):
                stopped = "patience"
                break
    except KeyboardInterrupt:
        stopped = "interrupted"
    finally:
        bar.close()
    if run["iterate"] is None:  # stopped before the first
        run["iterate"] = descent.Iterate(0, start, torch.zeros(()), {}, "")
    return Completion(
        Ws=[W * run["scale"] ** (1 / len(run["best"])) for W in run["best"]],
        history={
            name: torch.tensor(column, dtype=torch.int64 if name == "t" else torch.float64)
            for name, column in history.items()
        },
        stopped=stopped,
        run=run,
    )


def _factors(Ws: list[Tensor]) -> tuple[Tensor, Tensor]:
    Q = Ws[0]
    for W in Ws[1:-1]:
        Q = W @ Q
    return Ws[-1], Q


def _measure(run: dict) -> dict[str, float]:
    """Return the errors of the layers that were accepted last, and keep them if they are best."""
    iterate, train, test, scale = run["iterate"], run["train"], run["test"], run["scale"]
    Ws = iterate.memory.get("kept", iterate.Ws)
    value = iterate.memory.get("kept_value", [iterate.loss])[0]
    eta = run["eta"] or 0.25 * stable_eta(1.0, run["gamma"], len(Ws))
    eta *= iterate.memory["factor"][0].item() if "factor" in iterate.memory else 1.0
    error = found = scale * (2 * value.item() / len(train)) ** 0.5
    held_out = float("nan")
    if test is not None:
        entries = observed.product_entries(*_factors(Ws), test.rows, test.cols)
        gap = scale * entries - test.values
        error = held_out = gap.square().mean().sqrt().item()
    if error < 0.999 * run["best_error"]:
        run |= {"best": Ws, "best_t": iterate.t, "best_error": error}
    return {"t": iterate.t, "train": found, "held_out": held_out, "eta": eta}


def _leaving(history: dict[str, list], run: dict) -> bool:
    """Say whether the loss falls faster and faster: a singular value is about to leave."""
    quarter = run["patience"] // (4 * run["every"])
    if quarter < 1 or len(history["t"]) <= 2 * quarter:
        return False
    before, then, now = (history["train"][-1 - i * quarter] for i in (2, 1, 0))
    error = history["held_out"][-1]
    overfitted = error > 1.005 * run["best_error"]  # what leaves then is noise; false for NaN
    return then - now > 1.2 * max(before - then, 0.0) and not overfitted
