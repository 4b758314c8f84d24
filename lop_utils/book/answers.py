"""What a test of a student's answer needs: compare, and name the likely mistake.

The tests of the book's assignments call a student's function on cases of their own. A test that
says only that an answer is wrong teaches little, so each one brings the answers to which known
mistakes lead, and the message names the mistake whose answer came.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["call", "compare", "require"]

_SEEN = {
    "it has the wrong sign": lambda wanted: -wanted,
    "it is the transpose of what was asked for": lambda wanted: wanted.mT,
}


def require(condition: bool | Tensor, message: str) -> None:
    """Raise, and say what is wrong, where a condition does not hold.

    Parameters
    ----------
    condition : bool or Tensor, shape ()
        What has to be true.
    message : str
        What to say otherwise.

    Raises
    ------
    AssertionError
        With the message, where the condition does not hold.

    Examples
    --------
    >>> require(1 + 1 == 2, "you cannot add")
    """
    # Not a bare `assert`: the line that failed would be shown beside the message.
    if not condition:
        raise AssertionError(message)


def call(function: Callable[..., Any] | None, *arguments: Any) -> Any:
    """Return what a student's function returns, once it is seen to leave its arguments alone.

    Parameters
    ----------
    function : callable or None
        What the student wrote; None where it is missing.
    *arguments
        Tensors, lists of tensors, numbers. The function gets copies.

    Returns
    -------
    object
        What the function returns.

    Raises
    ------
    AssertionError
        If there is no function, if it returns nothing (an unfinished one does), or if it changes
        an argument in place, be it a tensor or a list of them.

    Examples
    --------
    >>> call(torch.linalg.svdvals, torch.eye(2))
    tensor([1., 1.])
    >>> call(lambda A: A.mul_(2), torch.eye(2))
    Traceback (most recent call last):
    ...
    AssertionError: <lambda> changes its argument 1 in place: work on a copy of it
    """
    require(
        callable(function), "the function is missing: was its cell run, and does it keep its name?"
    )
    copies = [_copy(argument) for argument in arguments]
    result = function(*copies)
    for i, (copy, argument) in enumerate(zip(copies, arguments, strict=True), start=1):
        require(
            _same(copy, argument),
            f"{function.__name__} changes its argument {i} in place: work on a copy of it",
        )
    require(
        result is not None and result is not ...,
        f"{function.__name__} returns nothing: replace the dots, and return the result",
    )
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


def _same(copy: Any, value: Any) -> bool:
    if isinstance(value, Tensor):
        return (
            isinstance(copy, Tensor)
            and (copy.shape, copy.dtype, copy.device) == (value.shape, value.dtype, value.device)
            and torch.allclose(copy, value, rtol=0.0, atol=0.0, equal_nan=True)
        )
    if isinstance(value, list | tuple):
        same_length = isinstance(copy, list) and len(copy) == len(value)
        return same_length and all(map(_same, copy, value))
    return copy is value


def _tensor(value: Any) -> Tensor:
    numbers = torch.as_tensor(value, dtype=torch.complex128).detach()
    # What has an imaginary part is close to nothing real.
    return torch.where(numbers.imag == 0, numbers.real, torch.nan)


def _close(got: Tensor, wanted: Tensor, rtol: float, atol: float) -> bool:
    if got.shape != wanted.shape:
        return False
    scale = wanted.abs().max() if wanted.numel() else 0.0
    return bool(((got - wanted).abs() <= rtol * scale + atol).all())


def compare(
    name: str,
    got: Any,
    wanted: Tensor | float,
    *,
    mistakes: Mapping[str, Any] | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-12,
) -> None:
    """Compare an answer with the right one, and name the mistake that it looks like.

    Parameters
    ----------
    name : str
        What the answer is called in the message.
    got : object
        The student's answer.
    wanted : Tensor or float
        The right one.
    mistakes : mapping of str to Tensor or float, optional
        What known mistakes lead to, under the sentence that names each. They are tried in this
        order, and after them the transpose, the opposite sign, and a constant factor of several
        entries. One that happens to equal the right answer is passed over.
    rtol, atol : float
        Errors up to ``rtol`` times the largest entry of ``wanted``, plus ``atol``, are accepted,
        so that an answer in other words, or in another order of operations, is right.

    Raises
    ------
    AssertionError
        If the answer is missing, no number or tensor, of another shape, not finite, or differs.

    Examples
    --------
    >>> compare("loss", 2.0, torch.tensor(2.0))
    >>> compare("loss", 0.5, 2.0, mistakes={"the mean instead of the sum": 0.5})
    Traceback (most recent call last):
    ...
    AssertionError: loss: the mean instead of the sum
    >>> compare("gradient", torch.ones(2), torch.full((2,), 2.0))
    Traceback (most recent call last):
    ...
    AssertionError: gradient: it is 0.5 times what was asked for
    """
    require(got is not None and got is not ..., f"{name}: still missing")
    try:
        answer = _tensor(got)
    except (TypeError, ValueError, RuntimeError):
        raise AssertionError(
            f"{name}: wanted a number or a torch.Tensor, got {type(got).__name__}"
        ) from None
    right = _tensor(wanted)
    if _close(answer, right, rtol, atol):
        return
    known = dict(mistakes or {})
    for sentence, change in _SEEN.items():
        if right.ndim == 2 or sentence.endswith("sign"):
            known[sentence] = change(right)
    for sentence, value in known.items():
        wrong = _tensor(value)
        if _close(answer, wrong, rtol, atol) and not _close(wrong, right, rtol, atol):
            raise AssertionError(f"{name}: {sentence}")
    require(
        answer.shape == right.shape,
        f"{name}: wanted shape {tuple(right.shape)}, got {tuple(answer.shape)}",
    )
    require(torch.isfinite(answer).all(), f"{name}: wanted finite real numbers, got others")
    if right.numel() > 1 and (square := (right * right).sum()) > 0:
        factor = (answer * right).sum() / square
        if factor and _close(answer, factor * right, rtol, atol):
            raise AssertionError(f"{name}: it is {factor:.6g} times what was asked for")
    error = (answer - right).abs().max() / right.abs().max().clamp(min=atol)
    raise AssertionError(f"{name}: differs from what was asked for by {error:.1e} of its size")
