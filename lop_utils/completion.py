r"""Completion of real matrices by a compressed deep linear network, with nothing left to tune.

`complete` is scheme (B) of `compression` on the observed entries, at a cost linear in their
number: spectral start, discrepant step sizes, a step size that adapts itself, and an end when
entries held out of training are no longer predicted better.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lop_utils import _checks, compression, factored, sampling

__all__ = ["Completion", "complete", "stable_alpha", "stable_eta"]

_GROW, _SHRINK = 1.05, 0.5


class Completion(NamedTuple):
    """A completed matrix, as the product of a few small ones."""

    factors: list[Tensor]
    """[W_1, ..., W_L] of shapes (k, d_x), (k, k), ..., (d_y, k), in the unit of the values: those
    that predicted the held-out entries best, or the observed ones if none were held out."""
    history: dict[str, Tensor]
    """Of every measurement: step t, seconds, root mean square errors train and held_out, eta."""
    stopped: str
    """Why training ended: "patience", "steps" or "interrupted"."""
    state: dict
    """What `complete` continues from."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the completed matrix."""
        return self.factors[-1].shape[0], self.factors[0].shape[1]

    def predict(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Return the entries at given places, shape (n,), in the unit of the values.

        A row or column of which nothing was observed is predicted as zero: centre the values
        before, so that zero means the average.
        """
        d_y, d_x = self.shape
        rows = sampling.indices("rows", rows, d_y).to(self.factors[0].device)
        cols = sampling.indices("cols", cols, d_x).to(self.factors[0].device)
        if len(rows) != len(cols):
            raise ValueError(f"cols: wanted {len(rows)} as rows, got {len(cols)}")
        return sampling.entries(*_product(self.factors), rows, cols)


def stable_eta(s: float, alpha: float, L: int) -> float:
    r"""Return the largest stable step size at a fitted singular value.

    Layers that start small stay balanced, :math:`w_1^2 = w_L^2 = \alpha w_l^2` at the rates
    :math:`\alpha\eta, \eta, \dots, \alpha\eta`, so that a fitted value has
    :math:`\alpha\,w_l^L = s`. There the sum of the squared slopes, each times its rate, is
    :math:`L\,\alpha^{2/L} s^{2-2/L}`, and gradient descent is stable below 2 over it.

    Parameters
    ----------
    s : float
        Largest singular value of the target, for a loss that sums over all entries; where a
        share p of them is observed, the result is to be divided by p.
    alpha : float
        Rate of the outer layers over that of the inner.
    L : int
        Depth.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If ``s`` or ``alpha`` is not positive, or ``L < 2``.

    Examples
    --------
    >>> stable_eta(1.0, alpha=1.0, L=2)
    1.0
    """
    s, alpha = _checks.positive("s", s), _checks.positive("alpha", alpha)
    L = _checks.count("L", L, at_least=2)
    return 2 / (L * alpha ** (2 / L) * s ** (2 - 2 / L))


def stable_alpha(s: float, eta: float, L: int) -> float:
    r"""Return the largest stable ratio of the rates: `stable_eta` solved for alpha.

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
    >>> round(stable_alpha(1.0, eta=stable_eta(1.0, alpha=5.0, L=3), L=3), 12)
    5.0
    """
    s, eta = _checks.positive("s", s), _checks.positive("eta", eta)
    L = _checks.count("L", L, at_least=2)
    return (2 / (L * eta * s ** (2 - 2 / L))) ** (L / 2)


def complete(
    rows: Tensor,
    cols: Tensor,
    values: Tensor,
    shape: tuple[int, int],
    rank: int,
    *,
    width: int | None = None,
    L: int = 3,
    eps: float | None = None,
    alpha: float = 5.0,
    eta: float | None = None,
    lam: float = 0.0,
    held_out: float = 0.1,
    patience: int = 500,
    steps: int = 10_000,
    every: int = 10,
    progress: bool = True,
    generator: torch.Generator | None = None,
    start: Completion | None = None,
) -> Completion:
    r"""Complete a matrix from a sample of its entries.

    The values are divided by the largest singular value of
    :math:`\frac1p\,\Omega\odot\Phi`, whose singular vectors are the start
    (`compression.spectral_init`). Each step costs O(n k), n the number of observed entries.
    Unless ``eta`` is given, the step size grows by 5 per cent after a step that lowered the loss;
    a step that did not is taken back, and the step size halved. It stays below `stable_eta`.

    Parameters
    ----------
    rows, cols : Tensor of integers, shape (n,)
        Where the observed entries stand, from 0; anything that `torch.as_tensor` takes.
    values : Tensor, shape (n,)
        What they are, on the device and, if floating point, in the precision to compute in.
        Subtract what is simpler than low rank before, as `ratings.fit_effects` does.
    shape : tuple of int
        Rows d_y and columns d_x of the whole matrix.
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
    alpha : float
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
        Measure when the step is a multiple of it.
    progress : bool
        Show a progress bar.
    generator : torch.Generator, optional
        Draws the held-out entries; by default one with seed 0.
    start : Completion, optional
        Continue from it, for ``steps`` steps in all, on the same entries, width and depth; the
        entries held out stay the same.

    Returns
    -------
    Completion
        Ctrl-C ends training early and still returns one. Its fields are plain tensors and
        numbers: ``torch.save(result._asdict(), file)`` keeps it,
        ``Completion(**torch.load(file))`` brings it back.

    Raises
    ------
    TypeError, ValueError
        If the entries are refused by `sampling.observe`, ``rank (d_y + d_x - rank)``, the
        numbers that determine such a matrix, exceeds the entries trained on, the width exceeds
        the shape, or an option is out of range.
    FloatingPointError
        If a given ``eta`` makes the loss overflow; names the step.

    References
    ----------
    Kwon et al. (2024), arXiv:2311.05061; the adaptation of the step size is the bold driver of
    Battiti (1989), Complex Systems 3.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> Phi = torch.randn(60, 1, generator=g) @ torch.randn(1, 50, generator=g)
    >>> rows, cols = (torch.rand(60, 50, generator=g) < 0.3).nonzero().T
    >>> result = complete(rows, cols, Phi[rows, cols], (60, 50), rank=1, progress=False)
    >>> (result.predict([0, 7], [0, 9]) - Phi[[0, 7], [0, 9]]).abs().max().item() < 1e-2
    True
    """
    obs = sampling.observe(rows, cols, values, shape)
    (d_y, d_x), n = obs.shape, len(obs.values)
    rank = _checks.count("rank", rank, at_least=1)
    k = _checks.count("width", 2 * rank if width is None else width, at_least=1)
    k = min(k, d_y - 1, d_x - 1) if width is None else k
    if not rank <= k < min(d_y, d_x):
        raise ValueError(f"width: wanted {rank} <= width < {min(d_y, d_x)}, got {k}")
    L = _checks.count("L", L, at_least=2)
    alpha = _checks.positive("alpha", alpha)
    eps = 0.01 ** (1 / (L - 2) if L > 2 else 2) if eps is None else _checks.positive("eps", eps)
    eta = None if eta is None else _checks.positive("eta", eta)
    lam, steps = _checks.nonnegative("lam", lam), _checks.count("steps", steps)
    patience = _checks.count("patience", patience, at_least=1)
    every = _checks.count("every", every, at_least=1)
    if not _checks.nonnegative("held_out", held_out) < 1:
        raise ValueError(f"held_out: wanted 0 <= held_out < 1, got {held_out!r}")

    if start is None:
        kept, out = _split(n, held_out, generator or torch.Generator().manual_seed(0))
    else:
        kept, out = start.state["kept"], start.state["out"]
        if len(kept) + len(out) != n or start.shape != obs.shape:
            raise ValueError(
                f"start: wanted one of {n} entries of a matrix of shape {obs.shape}, got "
                f"{len(kept) + len(out)} of {start.shape}"
            )
    train, test = (
        obs._replace(rows=obs.rows[i], cols=obs.cols[i], values=obs.values[i]) for i in (kept, out)
    )
    if rank * (d_y + d_x - rank) > len(kept):
        raise ValueError(
            f"rank: wanted rank (d_y + d_x - rank) <= {len(kept)} entries to train on, got "
            f"{rank * (d_y + d_x - rank)} for rank {rank}: the sample cannot determine so much"
        )
    if start is None:
        kind = dict(dtype=obs.values.dtype, device=obs.values.device)
        seed = torch.Generator().manual_seed(0)
        spectral = compression.sampled_spectral_init(
            factored.fastest_residual(train, k),
            torch.zeros(d_y, k, **kind),
            torch.randn(k, d_x, generator=seed, dtype=kind["dtype"]).to(kind["device"]),
            L,
            eps,
        )
        # Rounding leaves some 1e-20 in a column that nothing trains.
        spectral.Ws[0][:, torch.bincount(train.cols, minlength=d_x) == 0] = 0
        scale = spectral.s[0].item() / train.fraction
        if scale == 0:
            raise ValueError("values: wanted some that are not zero, got zeros only")
        state = {"t": 0, "Ws": spectral.Ws, "scale": scale, "kept": kept, "out": out}
        state["eta"] = 0.25 * stable_eta(1.0, alpha, L) if eta is None else eta
        state |= {"best": spectral.Ws, "best_t": 0, "best_error": float("inf")}
        columns = {name: [] for name in ("t", "seconds", "train", "held_out", "eta")}
    else:
        got = len(start.factors), len(start.factors[0])
        if got != (L, k):
            raise ValueError(
                f"start: wanted L = {L} layers of width {k}, got {got[0]} of width {got[1]}"
            )
        state = start.state | ({} if eta is None else {"eta": eta})
        columns = {name: column.tolist() for name, column in start.history.items()}

    scaled = train._replace(values=train.values / state["scale"])
    residual = factored.fastest_residual(scaled, k)
    rates = [rate / train.fraction for rate in (alpha, *[1.0] * (L - 2), alpha)]
    # On a plateau any step size lowers the loss; one that is too large for what comes after
    # would scatter the singular values that are still small.
    most = stable_eta(1.0, alpha, L)
    descend = _adapting if eta is None else _fixed
    run = descend(state, residual, rates, lam * train.fraction, most)
    began = time.perf_counter() - max(columns["seconds"], default=0.0)
    stopped = "steps"
    bar = tqdm(total=steps, initial=state["t"], disable=not progress)
    try:
        for loss in run:
            if state["t"] % every == 0 and state["t"] not in columns["t"][-1:]:
                found = _measure(state, loss, test, len(kept))
                for name, value in {**found, "seconds": time.perf_counter() - began}.items():
                    columns[name].append(value)
                bar.set_postfix(held_out=found["held_out"], refresh=False)
            waited = state["t"] - state["best_t"]
            if waited > patience and not _leaving(columns, state, patience // (4 * every)):
                stopped = "patience"
                break
            if state["t"] >= steps:
                break
            bar.update()
    except KeyboardInterrupt:
        stopped = "interrupted"
    finally:
        bar.close()
    return Completion(
        factors=[W * state["scale"] ** (1 / L) for W in state["best"]],
        history={name: torch.tensor(column) for name, column in columns.items()},
        stopped=stopped,
        state=state,
    )


def _split(n: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(n, generator=generator)
    out = round(share * n)
    return order[out:].sort().values, order[:out].sort().values


def _product(Ws: list[Tensor]) -> tuple[Tensor, Tensor]:
    Q = Ws[0]
    for W in Ws[1:-1]:
        Q = W @ Q
    return Ws[-1], Q


def _measure(state: dict, loss: Tensor, test: sampling.Observations, trained: int) -> dict:
    scale, held_out = state["scale"], float("nan")
    error = train = scale * (2 * loss.item() / trained) ** 0.5
    if len(test.values):
        gap = scale * sampling.entries(*_product(state["Ws"]), test.rows, test.cols) - test.values
        error = held_out = gap.square().mean().sqrt().item()
    if error < 0.999 * state["best_error"]:
        state |= {"best": state["Ws"], "best_t": state["t"], "best_error": error}
    return {"t": state["t"], "train": train, "held_out": held_out, "eta": state["eta"]}


def _leaving(columns: dict, state: dict, quarter: int) -> bool:
    # The loss falls faster and faster: a singular value is about to leave the start.
    if quarter < 1 or len(columns["t"]) <= 2 * quarter:
        return False
    before, then, now = (columns["train"][-1 - i * quarter] for i in (2, 1, 0))
    error = columns["held_out"][-1]
    overfitted = error > 1.005 * state["best_error"]  # what leaves then is noise; false for NaN
    return then - now > 1.2 * max(before - then, 0.0) and not overfitted


def _stepped(Ws, grads, eta: float, rates: list[float], lam: float) -> list[Tensor]:
    return [W - eta * rate * (G + lam * W) for W, G, rate in zip(Ws, grads, rates, strict=True)]


def _adapting(state, residual, rates, lam, most) -> Iterator[Tensor]:
    def objective(Ws: list[Tensor], loss: Tensor) -> Tensor:
        return loss + 0.5 * lam * sum((W * W).sum() for W in Ws) if lam else loss

    loss, grads = factored.contracted_gradients(state["Ws"], residual)
    rounded = 1 + 64 * torch.finfo(loss.dtype).eps
    yield loss
    best = objective(state["Ws"], loss)
    while True:
        trial = _stepped(state["Ws"], grads, state["eta"], rates, lam)
        found, found_grads = factored.contracted_gradients(trial, residual)
        state["t"] += 1
        # Where the start is small the loss falls by less than it is rounded; NaN is refused.
        if objective(trial, found) <= rounded * best:
            state["Ws"], loss, grads = trial, found, found_grads
            best = objective(trial, loss)
            state["eta"] = min(_GROW * state["eta"], most)
        else:
            state["eta"] *= _SHRINK
        yield loss


def _fixed(state, residual, rates, lam, _) -> Iterator[Tensor]:
    while True:
        loss, grads = factored.contracted_gradients(state["Ws"], residual)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss: wanted a finite number, got {loss.item()} at step t = {state['t']} with "
                f"eta = {state['eta']:g}; without eta the step size adapts itself"
            )
        yield loss
        state["Ws"] = _stepped(state["Ws"], grads, state["eta"], rates, lam)
        state["t"] += 1
