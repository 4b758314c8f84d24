"""Simulated ratings, in the place of real ones that no repository may carry."""

import torch
from torch import Tensor

from lop_utils import _checks
from lop_utils.observed import ObservedEntries

__all__ = ["simulate_ratings"]


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
