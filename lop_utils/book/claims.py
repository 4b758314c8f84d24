"""A sentence of the book that is checked where it stands.

A claim raises when it does not hold and shows one quiet line when it does. The result travels
in the output of its cell, so a cached execution still carries it to the page of all claims.
"""

import math
from numbers import Real
from typing import Any, NamedTuple

from torch import Tensor

from lop_utils import _checks

__all__ = ["MIME", "Claim", "ClaimError", "claim"]

MIME = "application/vnd.lop.claim+json"

_SIGNS = {"at_most": "≤", "at_least": "≥", "near": "≈"}


class ClaimError(AssertionError):
    """A claim that does not hold."""


class Claim(NamedTuple):
    """One claim that held when it ran."""

    id: str
    statement: str
    measured: float
    bounds: dict[str, float]
    source: str

    def number(self) -> str:
        """Return the measurement beside its bounds, such as ``1.2e-15 ≤ 1e-12``."""
        parts = [
            f"{sign} {self.bounds[bound]:.6g}"
            for bound, sign in _SIGNS.items()
            if bound in self.bounds
        ]
        if (rtol := self.bounds.get("rtol")) == 0:
            parts[-1] = f"= {self.bounds['near']:.6g}"
        elif rtol is not None:
            parts[-1] += f" (to {rtol:.2g} relative)"
        return f"{self.measured:.3g} " + " and ".join(parts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        # Markdown, not HTML: formulas in HTML stay raw in Colab and in VS Code.
        return {
            MIME: {**self._asdict(), "shown": self.number()},
            "text/markdown": f"✓ {self.statement}: **{self.number()}**",
            "text/plain": f"✓ {self.statement}: {self.number()}",
        }


def _number(measured: Any) -> float:
    try:
        value = measured.item() if hasattr(measured, "item") else measured
        if isinstance(value, Real):
            return float(value)
    except OverflowError:
        return math.inf
    except (RuntimeError, ValueError):  # of torch and of numpy, for more than one element
        pass
    raise TypeError(f"measured: wanted one real number, got {measured!r}")


def claim(
    id: str,
    statement: str,
    *,
    measured: float | Tensor,
    at_most: float | None = None,
    at_least: float | None = None,
    near: float | None = None,
    rtol: float | None = None,
    source: str,
) -> Claim:
    """Return a quantitative sentence of the book, checked; as a cell's last value it is shown.

    Parameters
    ----------
    id : str
        Name of the claim, ``chapter.what``. That it is the only one of its name in the book is
        seen where the book is built: a reader may change a bound and run the cell again.
    statement : str
        The sentence, without its number.
    measured : float or Tensor of one element
        What this run gave.
    at_most, at_least, near : float
        At least one bound. ``near`` needs ``rtol``.
    rtol : float
        Relative tolerance of ``near``.
    source : str
        Whose sentence it is: a paper and its theorem, or ``this book``.

    Returns
    -------
    Claim

    Raises
    ------
    ClaimError
        If the measurement is outside a bound, or not finite.
    TypeError, ValueError
        If there is no bound, ``near`` and ``rtol`` do not come together, or one is no number.

    Examples
    --------
    >>> claim("doc.half", "half of one", measured=0.5, near=0.5, rtol=1e-9, source="arithmetic")
    Claim(id='doc.half', statement='half of one', measured=0.5, \
bounds={'near': 0.5, 'rtol': 1e-09}, source='arithmetic')
    """
    asked = {"at_most": at_most, "at_least": at_least, "near": near, "rtol": rtol}
    bounds = {
        name: _checks.finite_number(name, bound)
        for name, bound in asked.items()
        if bound is not None
    }
    if not bounds.keys() & _SIGNS.keys():
        raise ValueError(f"claim {id!r}: wanted at_most, at_least or near, got no bound")
    if (near is None) != (rtol is None):
        raise ValueError(f"claim {id!r}: wanted near and rtol together, got one of them")

    result = Claim(id, statement, _number(measured), bounds, source)
    holds = (
        math.isfinite(result.measured)
        and (at_most is None or result.measured <= at_most)
        and (at_least is None or result.measured >= at_least)
        and (near is None or abs(result.measured - near) <= rtol * abs(near))
    )
    if not holds:
        raise ClaimError(f"claim {id!r} does not hold: {statement}; {result.number()} is false")
    return result
