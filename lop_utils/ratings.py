"""Ratings of items by users: MovieLens, a simulated stand-in, and what means alone predict."""

import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lop_utils import _checks, downloads

__all__ = [
    "Effects",
    "Ratings",
    "Split",
    "fit_effects",
    "load_movielens",
    "simulate_ratings",
    "split",
]


class Ratings(NamedTuple):
    """The observed entries of a matrix of users times items; no entry is there twice."""

    rows: Tensor
    """Shape (N,), int64: the users, from 0."""
    cols: Tensor
    """Shape (N,), int64: the items, from 0."""
    values: Tensor
    """Shape (N,): what the user gave the item; float64 from the functions of this module."""
    shape: tuple[int, int]
    """Numbers of users and of items, with those that nothing is known of."""
    items: Tensor | None = None
    """Shape (shape[1],), int64: by which number the source knows the item of each column."""


def _positions(name: str, index: Tensor, shape: tuple[int, ...], size: int) -> None:
    got = getattr(index, "dtype", type(index).__name__)
    if got != torch.int64:
        raise TypeError(f"{name}: wanted a tensor of int64, got {got}")
    if len(shape) != 1 or index.shape != shape or 0 in shape:
        raise ValueError(
            f"{name}: wanted a vector with entries, as long as the others, got shape "
            f"{tuple(index.shape)} beside {tuple(shape)}"
        )
    if index.min() < 0 or index.max() >= size:
        raise ValueError(f"{name}: wanted 0 to {size - 1}, got {index.min()} to {index.max()}")


def _check(ratings: Ratings) -> None:
    rows, cols, values, shape, _ = ratings
    _checks.matrix("values", values[None] if getattr(values, "ndim", 0) == 1 else values)
    _positions("rows", rows, values.shape, shape[0])
    _positions("cols", cols, values.shape, shape[1])


# MovieLens

_GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
# Name, MD5 checksum, the file in the archive, and what stands between the fields of its lines.
_ARCHIVES = {
    "ml-100k": ("ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", "ml-100k/u.data", b"\t"),
    "ml-1m": ("ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", "ml-1m/ratings.dat", b"::"),
}


def _member(path: Path, name: str, url: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise OSError(
            f"{path.name}: wanted {name} in a zip archive from {url}, got {type(error).__name__}: "
            f"{error}\nThe checksum is right, so that another download would not help: report it"
        ) from error


def _parse(text: bytes, separator: bytes, name: str) -> Ratings:
    """Read lines of user, item, rating and time; number users and items without gaps."""
    number = rb"[0-9]{1,10}"
    right = re.compile(separator.join([number, number, rb"[1-5]", number]))
    for n, line in enumerate(text.splitlines() or [b""], start=1):
        if not right.fullmatch(line):
            wanted = separator.join([b"user", b"item", b"1 to 5", b"time"])
            raise ValueError(f"{name}, line {n}: wanted {wanted}, got {line[:80]}")
    numbers = np.fromstring(text.replace(separator, b" ").decode(), dtype=np.int64, sep=" ")
    fields = torch.from_numpy(numbers).reshape(-1, 4)
    users, rows = fields[:, 0].unique(return_inverse=True)
    items, cols = fields[:, 1].unique(return_inverse=True)
    return Ratings(rows, cols, fields[:, 2].double(), (len(users), len(items)), items)


def load_movielens(
    name: str, *, folder: str | os.PathLike | None = None, url: str | None = None
) -> Ratings:
    """Load a set of MovieLens ratings: 1 to 5 stars that people gave to films.

    The archive is downloaded at the first call and kept; later calls need no network. Each call
    compares its MD5 checksum and replaces a file that fails it, as `downloads.fetch` does.

    The data are GroupLens's and no part of this book. Their terms, in full in the archive's
    README: use for research, citing the reference below; no redistribution without permission;
    no commercial use without permission; no endorsement by GroupLens or the University of
    Minnesota may be stated or implied.

    Parameters
    ----------
    name : str
        ``"ml-100k"``: 100 000 ratings, 943 users, 1682 films, 5 MB. ``"ml-1m"``: 1 000 209
        ratings, 6040 users, 3706 films, 6 MB.
    folder : str or path, optional
        Where to keep the archive. By default what the environment variable ``LOP_DATA_DIR``
        says, or else ``lop`` in the user's folder for caches.
    url : str, optional
        Another address, http or https, of the same archive; the checksum stays.

    Returns
    -------
    Ratings
        In the archive's order. User ``r`` is ``r + 1`` in the archive. Of the films only those
        that somebody rated are there: ``items[c]`` is the archive's number of the film ``c``.

    Raises
    ------
    ValueError
        If there is no set of that name, or a line is none of user, item, rating and time.
    OSError
        If the archive cannot be had: no network, no answer in time, an error or a file that is
        cut off or another than expected, a folder that cannot be written.

    References
    ----------
    Harper and Konstan (2015), The MovieLens Datasets: History and Context, ACM Transactions on
    Interactive Intelligent Systems 5(4), doi:10.1145/2827872.

    Examples
    --------
    >>> ratings = load_movielens("ml-100k")  # doctest: +SKIP
    >>> ratings.shape, len(ratings.values)  # doctest: +SKIP
    ((943, 1682), 100000)
    """
    if name not in _ARCHIVES:
        raise ValueError(f"name: wanted 'ml-100k' or 'ml-1m', got {name!r}")
    file, md5, member, separator = _ARCHIVES[name]
    url = _GROUPLENS + file if url is None else url
    path = downloads.fetch(url, md5, file, folder=folder)
    return _parse(_member(path, member, url), separator, member)


# Simulated ratings


def _observed(users: int, items: int, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw ``count`` of the pairs, numbered row by row, without replacement; ascending."""
    kind = dict(generator=generator, dtype=torch.float64)
    activity, popularity = torch.randn(users, **kind), 1.3 * torch.randn(items, **kind)
    # Clocks that ring at the rates a_u w_i: the first to ring are a draw without replacement.
    clocks = torch.empty(users, items, dtype=torch.float64).exponential_(generator=generator)
    clocks /= activity.exp()[:, None]
    clocks /= popularity.exp()
    return clocks.flatten().topk(count, largest=False, sorted=False).indices.sort().values


def simulate_ratings(
    users: int,
    items: int,
    count: int,
    *,
    rank: int,
    noise: float,
    generator: torch.Generator | None = None,
) -> Ratings:
    r"""Draw ratings from a stated model, in the place of real ones.

    User :math:`u` gives item :math:`i` the whole number from 1 to 5 that is nearest to

    .. math::

        3.6 + b_u + c_i + \tfrac12\,\langle p_u, q_i\rangle/\sqrt{\text{rank}}
        + \text{noise}\cdot\varepsilon_{ui},
        \qquad b_u \sim N(0, 0.4^2),\quad c_i \sim N(0, 0.5^2),

    where :math:`p_u, q_i \sim N(0, I_{\text{rank}})` and :math:`\varepsilon_{ui} \sim N(0, 1)`:
    an effect of the user, one of the item, and a taste of variance 1/4. Which ratings are seen is
    drawn without replacement, each next pair with a probability proportional to

    .. math:: a_u w_i, \qquad \log a_u \sim N(0, 1),\quad \log w_i \sim N(0, 1.3^2),

    so that a tenth of the items has about 40% of the ratings, and a tenth of the users gave 30%.
    Unlike in real data, which ratings are seen does not depend on their values. The
    numbers are round, not fitted; with ``noise=0.8``, mean 3.5 and spread 1.1 are as in MovieLens.

    Parameters
    ----------
    users, items : int
        Sizes. Memory and time are those of a dense matrix.
    count : int
        Number of ratings. Some users and items may be left without any.
    rank : int
        Of the taste; 0 leaves it out.
    noise : float
        Standard deviation of the noise before rounding.
    generator : torch.Generator, optional
        Source of randomness, on the CPU; torch's global one if absent.

    Returns
    -------
    Ratings
        Row by row.

    Raises
    ------
    TypeError, ValueError
        If a number is out of its range.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> ratings = simulate_ratings(50, 80, 1000, rank=3, noise=0.8, generator=generator)
    >>> ratings.shape, len(ratings.values)
    ((50, 80), 1000)
    """
    users, items = _checks.count("users", users, 1), _checks.count("items", items, 1)
    count, rank = _checks.count("count", count, 1), _checks.count("rank", rank)
    noise = _checks.nonnegative("noise", noise)
    if count > users * items:
        raise ValueError(f"count: wanted at most users * items = {users * items}, got {count}")
    kind = dict(generator=generator, dtype=torch.float64)
    pairs = _observed(users, items, count, generator)
    rows, cols = pairs // items, pairs % items
    values = 3.6 + 0.4 * torch.randn(users, **kind)[rows] + 0.5 * torch.randn(items, **kind)[cols]
    for _ in range(rank):  # one direction at a time: rank times less memory
        p, q = torch.randn(users, **kind), torch.randn(items, **kind)
        values += 0.5 * p[rows] * q[cols] / rank**0.5
    values += noise * torch.randn(count, **kind)
    return Ratings(rows, cols, values.round_().clamp_(1, 5), (users, items))


class Split(NamedTuple):
    """Two parts of a set of ratings, of the same shape."""

    train: Ratings
    """What a method may see."""
    test: Ratings
    """What it has to predict."""


def split(ratings: Ratings, fraction: float, *, generator: torch.Generator | None = None) -> Split:
    """Hold out a fraction of the ratings, drawn evenly from all of them.

    Parameters
    ----------
    ratings : Ratings
        All of them.
    fraction : float
        What part goes into ``test``, rounded to a whole number of ratings.
    generator : torch.Generator, optional
        Source of randomness, on the CPU; torch's global one if absent.

    Returns
    -------
    Split
        Each part in the order of ``ratings``. Users and items of ``test`` may be missing in
        ``train``.

    Raises
    ------
    TypeError, ValueError
        If ``ratings`` do not fit together, or a part would be empty.

    Examples
    --------
    >>> ratings = simulate_ratings(50, 80, 1000, rank=3, noise=0.8)
    >>> train, test = split(ratings, 0.1)
    >>> len(train.values), len(test.values)
    (900, 100)
    """
    _check(ratings)
    N = len(ratings.values)
    held_out = round(_checks.finite_number("fraction", fraction) * N)
    if not 0 < held_out < N:
        raise ValueError(f"fraction: wanted some of {N} ratings in each part, got {fraction}")
    mixed = torch.randperm(N, generator=generator).to(ratings.rows.device)
    test, train = mixed[:held_out].sort().values, mixed[held_out:].sort().values
    rows, cols, values, *rest = ratings
    return Split(
        Ratings(rows[train], cols[train], values[train], *rest),
        Ratings(rows[test], cols[test], values[test], *rest),
    )


class Effects(NamedTuple):
    """A rating as a mean, an effect of the user and an effect of the item."""

    mean: Tensor
    """Scalar: the mean of the ratings."""
    users: Tensor
    """Shape (users,); 0 for a user without ratings."""
    items: Tensor
    """Shape (items,); 0 for an item without ratings."""

    def predict(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Return the ratings expected at these positions, of shape (N,), not clipped."""
        shape = getattr(rows, "shape", (1,))
        _positions("rows", rows, shape, len(self.users))
        _positions("cols", cols, shape, len(self.items))
        return self.mean + self.users[rows] + self.items[cols]


def fit_effects(ratings: Ratings, *, shrinkage: float = 5.0) -> Effects:
    r"""Fit what means alone can say: how kind a user is, and how well liked an item.

    With :math:`\mu` the mean of the ratings, the effects minimise

    .. math::

        \sum_{(u, i)\ \text{seen}} (r_{ui} - \mu - b_u - c_i)^2
        + \text{shrinkage}\,\Big(\sum_u b_u^2 + \sum_i c_i^2\Big).

    Parameters
    ----------
    ratings : Ratings
        What is seen.
    shrinkage : float
        How many ratings an effect needs before it counts half. Best is the variance of what
        effects leave unexplained over that of the effects, about 5 for `simulate_ratings`. At 0
        effects are fixed only up to constants, and those of least norm are returned.

    Returns
    -------
    Effects
        In the dtype and on the device of the values.

    Raises
    ------
    TypeError, ValueError
        If ``ratings`` do not fit together, or ``shrinkage`` is below 0.

    Examples
    --------
    >>> rows, cols = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    >>> values = torch.tensor([5.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    >>> effects = fit_effects(Ratings(rows, cols, values, (2, 2)), shrinkage=0)
    >>> [round(b, 6) for b in effects.users.tolist()]
    [1.0, -1.0]
    >>> round(effects.predict(rows, cols)[0].item(), 6)
    5.0
    """
    _check(ratings)
    shrinkage = _checks.nonnegative("shrinkage", shrinkage)
    from scipy import sparse  # only when asked for

    values = ratings.values.double()
    mean = values.mean()
    users, items = ratings.shape
    rows, cols = ratings.rows.cpu().numpy(), ratings.cols.cpu().numpy()
    # One line a rating, with a 1 for its user and a 1 for its item. LSQR starts at 0 and adds
    # combinations of these lines, so an effect that is in none of them stays 0.
    ones = np.ones(2 * len(rows))
    places = (np.arange(len(rows)).repeat(2), np.stack([rows, users + cols], axis=1).ravel())
    A = sparse.csr_array((ones, places), shape=(len(rows), users + items))
    rest = (values - mean).cpu().numpy()
    found = sparse.linalg.lsqr(A, rest, damp=shrinkage**0.5, atol=1e-10, btol=1e-10)[0]
    effects = torch.from_numpy(found).to(ratings.values)
    return Effects(mean.to(ratings.values), effects[:users], effects[users:])
