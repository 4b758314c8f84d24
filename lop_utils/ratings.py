"""Ratings of items by users: MovieLens, a simulated stand-in, and what means alone predict.

Ratings are `observed.ObservedEntries` of a matrix with a row for each user and a column for each
item; `observed.split` holds some out.
"""

import os
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lop_utils import _checks, _files
from lop_utils.observed import ObservedEntries

__all__ = ["Effects", "fit_effects", "load_movielens", "simulate_ratings"]

_GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
# MD5 checksum, the file in the archive, and what stands between the fields of its lines.
_ARCHIVES = {
    "ml-100k": ("0e33842e24a9c977be4e0107933c0723", "ml-100k/u.data", b"\t"),
    "ml-1m": ("c4d9eecfca2ab87c1945afe126590906", "ml-1m/ratings.dat", b"::"),
}


def load_movielens(
    name: str, *, folder: str | os.PathLike | None = None, url: str | None = None
) -> ObservedEntries:
    """Return a set of MovieLens ratings: 1 to 5 stars that people gave to films.

    The archive is downloaded at the first call and kept; later calls need no network. Each call
    compares its MD5 checksum and replaces a file that fails it.

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
    ObservedEntries
        User ``r`` is ``r + 1`` in the archive. Of the films only those that somebody rated are
        there, in the order of the archive's numbers.

    Raises
    ------
    ValueError
        If there is no set of that name.
    OSError
        If the archive cannot be had: no network, no answer in time, an error or another file
        than expected, a folder that cannot be written.

    References
    ----------
    Harper and Konstan (2015), The MovieLens Datasets: History and Context, ACM Transactions on
    Interactive Intelligent Systems 5(4), doi:10.1145/2827872.

    Examples
    --------
    >>> load_movielens("ml-100k")  # doctest: +SKIP
    ObservedEntries(100000 of 943 x 1682)
    """
    md5, member, separator = _ARCHIVES[_checks.one_of("name", name, list(_ARCHIVES))]
    path = _files.fetch(url or f"{_GROUPLENS}{name}.zip", md5, f"{name}.zip", folder)
    with zipfile.ZipFile(path) as archive:
        text = archive.read(member).replace(separator, b" ").decode()
    # User, item, rating and time: the checksum says that nothing else is there.
    numbers = torch.from_numpy(np.fromstring(text, dtype=np.int64, sep=" ")).reshape(-1, 4)
    users, rows = numbers[:, 0].unique(return_inverse=True)
    items, cols = numbers[:, 1].unique(return_inverse=True)
    return ObservedEntries(rows, cols, numbers[:, 2].double(), (len(users), len(items)))


def _seen(users: int, items: int, count: int, generator: torch.Generator | None) -> Tensor:
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
    generator: torch.Generator | int | None = None,
) -> ObservedEntries:
    r"""Return ratings that are drawn from a stated model, in the place of real ones.

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
    generator : torch.Generator or int, optional
        Source of randomness, on the CPU, or a seed.

    Returns
    -------
    ObservedEntries

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> simulate_ratings(50, 80, 1000, rank=3, noise=0.8, generator=0)
    ObservedEntries(1000 of 50 x 80)
    """
    generator = _checks.seeded(generator)
    users, items = _checks.count("users", users, 1), _checks.count("items", items, 1)
    count, rank = _checks.count("count", count, 1), _checks.count("rank", rank)
    noise = _checks.nonnegative("noise", noise)
    if count > users * items:
        raise ValueError(f"count: wanted at most users * items = {users * items}, got {count}")
    kind = dict(generator=generator, dtype=torch.float64)
    pairs = _seen(users, items, count, generator)
    rows, cols = pairs // items, pairs % items
    values = 3.6 + 0.4 * torch.randn(users, **kind)[rows] + 0.5 * torch.randn(items, **kind)[cols]
    for _ in range(rank):  # one direction at a time: rank times less memory
        p, q = torch.randn(users, **kind), torch.randn(items, **kind)
        values += 0.5 * p[rows] * q[cols] / rank**0.5
    values += noise * torch.randn(count, **kind)
    return ObservedEntries(rows, cols, values.round_().clamp_(1, 5), (users, items))


@dataclass(frozen=True, repr=False, eq=False)
class Effects:
    """A rating as a mean, an effect of the user and an effect of the item."""

    mean: Tensor
    """Scalar: the mean of the ratings."""
    users: Tensor
    """Shape (users,); 0 for a user without ratings."""
    items: Tensor
    """Shape (items,); 0 for an item without ratings."""

    def __repr__(self) -> str:
        """Return the sizes."""
        return f"Effects({len(self.users)} users, {len(self.items)} items, mean {self.mean:.3g})"

    def predict(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Return the ratings expected at these positions, of shape (n,), not clipped."""
        rows = _checks.indices("rows", rows, len(self.users)).to(self.mean.device)
        cols = _checks.indices("cols", cols, len(self.items)).to(self.mean.device)
        if len(rows) != len(cols):
            raise ValueError(f"cols: wanted {len(rows)} as rows, got {len(cols)}")
        return self.mean + self.users[rows] + self.items[cols]


def fit_effects(seen: ObservedEntries, *, shrinkage: float = 5.0) -> Effects:
    r"""Return what means alone can say: how kind a user is, and how well liked an item.

    With :math:`\mu` the mean of the ratings, the effects minimise

    .. math::

        \sum_{(u, i)\ \text{seen}} (r_{ui} - \mu - b_u - c_i)^2
        + \text{shrinkage}\,\Big(\sum_u b_u^2 + \sum_i c_i^2\Big).

    Parameters
    ----------
    seen : ObservedEntries
        The ratings.
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

    Examples
    --------
    >>> seen = ObservedEntries([0, 0, 1, 1], [0, 1, 0, 1], [5.0, 3.0, 3.0, 1.0], (2, 2))
    >>> effects = fit_effects(seen, shrinkage=0)
    >>> effects, [round(b, 6) for b in effects.users.tolist()]
    (Effects(2 users, 2 items, mean 3), [1.0, -1.0])
    >>> round(effects.predict([0], [1]).item(), 6)
    3.0
    """
    shrinkage = _checks.nonnegative("shrinkage", shrinkage)
    from scipy import sparse  # only when asked for

    n, (users, items) = len(seen), seen.shape
    rows, cols, values = (A.cpu().numpy() for A in (seen.rows, seen.cols, seen.values.double()))
    mean = values.mean()
    # One line a rating, with a 1 for its user and a 1 for its item. LSQR starts at 0 and adds
    # combinations of these lines, so an effect that is in none of them stays 0.
    places = (np.arange(n).repeat(2), np.stack([rows, users + cols], axis=1).ravel())
    A = sparse.csr_array((np.ones(2 * n), places), shape=(n, users + items))
    found = sparse.linalg.lsqr(A, values - mean, damp=shrinkage**0.5, atol=1e-10, btol=1e-10)[0]
    effects = torch.from_numpy(found).to(seen.values)
    return Effects(seen.values.new_tensor(mean), effects[:users], effects[users:])
