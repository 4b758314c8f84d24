"""What a test of a student's answer needs: compare, and name the likely mistake.

The tests of the book's assignments call a student's function on cases of their own. A test that
says only that an answer is wrong teaches little, so each one brings the answers to which known
mistakes lead, and the message names the mistake whose answer came.

An answer may be a tensor, an array, a number, or a list of these, whatever its dtype, device or
layout. A test reads it by ``items``, ``tensor`` and ``compare`` alone, and has its size before it
computes with it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["call", "compare", "items", "require", "tensor"]

# How far from right an answer of few digits may be, to be told that it has few digits.
_SHORT = {"float32": 1e-3, "float16": 1e-1, "bfloat16": 1e-1}

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
    name = getattr(function, "__name__", type(function).__name__)  # a partial has none
    for i, (copy, argument) in enumerate(zip(copies, arguments, strict=True), start=1):
        require(
            _same(copy, argument),
            f"{name} changes its argument {i} in place: work on a copy of it",
        )
    require(
        result is not None and result is not ...,
        f"{name} returns nothing: replace the dots, and return the result",
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


def _plain(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, list | tuple):
        return torch.stack([_plain(item) for item in value]) if value else torch.empty(0)
    return torch.from_numpy(np.array(value))  # a copy: strides may be negative


def _read(name: str, value: Any) -> Tensor:
    require(value is not None and value is not ..., f"{name}: still missing")
    try:
        return _plain(value)
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise AssertionError(f"{name}: wanted a number or a torch.Tensor, got {kind}") from None


def _double(numbers: Tensor) -> Tensor:
    numbers = numbers.to_dense().to(torch.complex128)
    # What has an imaginary part is close to nothing real.
    return torch.where(numbers.imag == 0, numbers.real, torch.nan)


def _shapes(wanted: Sequence[int], got: Sequence[int]) -> str:
    said = [f"shape {tuple(shape)}" if shape else "a number" for shape in (wanted, got)]
    return f"wanted {said[0]}, got {said[1]}"


def items(
    name: str, value: Any, count: int, *, mistakes: Mapping[int, str] | None = None
) -> list[Any]:
    """Return the items of an answer that has to be a list.

    Parameters
    ----------
    name : str
        What the answer is called in the message.
    value : object
        The answer: a list, a tuple, or a tensor or array with a first axis.
    count : int
        How many items are wanted.
    mistakes : mapping of int to str, optional
        What to say of other numbers of items.

    Raises
    ------
    AssertionError
        If the answer is missing, no list, or of another length.

    Examples
    --------
    >>> items("(loss, R)", (1.0, 2.0), 2)
    [1.0, 2.0]
    >>> items("layers", [1.0, 2.0], 3, mistakes={2: "is the last one missing?"})
    Traceback (most recent call last):
    ...
    AssertionError: layers: is the last one missing?
    """
    require(value is not None and value is not ..., f"{name}: still missing")
    stacked = isinstance(value, Tensor | np.ndarray) and value.ndim > 0
    listed = stacked or isinstance(value, list | tuple)
    got = len(value) if listed else type(value).__name__
    said = (mistakes or {}).get(got, f"wanted a list of {count}, got {got}")
    require(got == count, f"{name}: {said}")
    return list(value)


def tensor(
    name: str,
    value: Any,
    shape: Sequence[int],
    *,
    mistakes: Mapping[tuple[int, ...], str] | None = None,
    nan: str = "wanted finite real numbers, got others",
) -> Tensor:
    """Return an answer as a tensor of float64, once its shape is right.

    Parameters
    ----------
    name : str
        What the answer is called in the message.
    value : object
        The answer.
    shape : sequence of int
        The shape that is wanted.
    mistakes : mapping of tuple to str, optional
        What to say of other shapes.
    nan : str
        What to say where numbers are not finite, or not real.

    Returns
    -------
    Tensor, shape ``shape``
        With finite entries, without a graph, on the CPU.

    Raises
    ------
    AssertionError
        If the answer is missing, no number or tensor, of another shape, or not finite.

    Examples
    --------
    >>> tensor("x", np.float32(2), ())
    tensor(2., dtype=torch.float64)
    >>> tensor("x", [1.0, 2.0], (2, 1))
    Traceback (most recent call last):
    ...
    AssertionError: x: wanted shape (2, 1), got shape (2,)
    """
    found, shape = _read(name, value), tuple(shape)
    got = tuple(found.shape)
    # Before it becomes dense: an expanded or a sparse tensor may have any size.
    require(got == shape, f"{name}: {(mistakes or {}).get(got, _shapes(shape, got))}")
    found = _double(found)
    require(torch.isfinite(found).all(), f"{name}: {nan}")
    return found


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
    rtol: float = 1e-6,
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
        so that an answer in other words, in another order of operations, or with a number of
        float32 somewhere in it, is right.

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
    answer, right = _read(name, got), _double(_plain(wanted))
    known = {sentence: _double(_plain(value)) for sentence, value in (mistakes or {}).items()}
    for sentence, change in _SEEN.items():
        if right.ndim == 2 or sentence.endswith("sign"):
            known[sentence] = change(right)
    kind, shape = str(answer.dtype).removeprefix("torch."), answer.shape
    # Before it becomes dense: an expanded or a sparse tensor may have any size.
    require(
        shape in {each.shape for each in (right, *known.values())},
        f"{name}: {_shapes(right.shape, shape)}",
    )
    answer = _double(answer)
    if _close(answer, right, rtol, atol):
        return
    for sentence, wrong in known.items():
        if _close(answer, wrong, rtol, atol) and not _close(wrong, right, rtol, atol):
            raise AssertionError(f"{name}: {sentence}")
    require(shape == right.shape, f"{name}: {_shapes(right.shape, shape)}")
    require(torch.isfinite(answer).all(), f"{name}: wanted finite real numbers, got others")
    error = (answer - right).abs().max() / right.abs().max().clamp(min=atol)
    differs = f"differs from what was asked for by {error:.1e} of its size"
    if error < _SHORT.get(kind, 1e-5):
        short = f"it is {kind}" if kind in _SHORT else "something in it is float32, it seems"
        raise AssertionError(f"{name}: {short}; wanted float64: it {differs}")
    if right.numel() > 1 and (square := (right * right).sum()) > 0:
        factor = (answer * right).sum() / square
        if factor and _close(answer, factor * right, rtol, atol):
            raise AssertionError(f"{name}: it is {factor:.6g} times what was asked for")
    raise AssertionError(f"{name}: {differs}")
