"""What people hand over in the place of a good argument, and the property that must then hold.

Every answer is right, or refused by an error that names an argument. `spoilers(value)` lists what
can happen to a valid argument of that kind; `judge` spoils one and holds a function to the
property, against the same function on a plain copy of the same numbers: whole tensors of float64
and int64.
"""

import dataclasses
import importlib.util
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import torch
from columns import KINDS
from torch import Tensor

NAN, INF = math.nan, math.inf


class Spoiler(NamedTuple):
    """How an argument is spoiled, and what must come of it."""

    spoil: Callable[[Any], Any]
    effect: str
    """``same``: the answer is that of the plain copy. ``refused``: an error that names an
    argument. ``either``: one of the two."""


def _entry(value):
    def spoil(A):
        A = A.clone()
        A.view(-1)[A.numel() // 2] = value
        return A

    return spoil


def _table(A):
    import pandas

    if A.ndim > 2:
        return A
    table = pandas.DataFrame(A.numpy()) if A.ndim == 2 else pandas.Series(A.numpy())
    table.index = range(100, 100 + len(A))  # as a filter leaves it
    return table


_PANDAS = {"pandas": _table} if importlib.util.find_spec("pandas") else {}
_CONTAINERS = {
    **KINDS,
    **_PANDAS,
    "big-endian": lambda A: A.numpy().astype(A.numpy().dtype.newbyteorder(">")),
    "rows": lambda A: [row.numpy() for row in A],
    "strided": lambda A: torch.stack([A, A], -1)[..., 0],
    "turned": lambda A: A.mT.contiguous().mT if A.ndim > 1 else A.flip(0).flip(0),
}
_SHAPES = {
    "one": lambda A: A.flatten()[:1].reshape((1,) * A.ndim),
    "first": lambda A: A[..., :1],
    "first-row": lambda A: A[:1],
    "less": lambda A: A[..., :-1],
    "scalar": lambda A: A.flatten()[0],
    "flat": lambda A: A.flatten(),
    "lead": lambda A: A[None],
    "trail": lambda A: A[..., None],
}
_NO_TENSOR = {
    "none": lambda A: None,
    "text": lambda A: "text",
    "names": lambda A: np.full(tuple(A.shape), "cat"),
    "objects": lambda A: np.full(tuple(A.shape), None, dtype=object),
    "dict": lambda A: {"a": 1},
    "ragged": lambda A: [[1.0], [1.0, 2.0]],
    "empty": lambda A: A[..., :0],
    "complex": lambda A: A.to(torch.complex128) + 1j,
    "masked": lambda A: np.ma.masked_array(A.numpy(), A.numpy() == A.numpy().flat[0]),
    "sparse": lambda A: A.to_sparse(),
    "dates": lambda A: np.zeros(tuple(A.shape), "datetime64[s]"),
}


def _all(spoils: dict[str, Callable], effect: str) -> dict[str, Spoiler]:
    return {name: Spoiler(spoil, effect) for name, spoil in spoils.items()}


_DTYPES = {
    str(dtype).removeprefix("torch."): lambda A, dtype=dtype: A.to(dtype)
    for dtype in (torch.float16, torch.bfloat16, torch.float32)
}
_WHOLE = {
    str(dtype).removeprefix("torch."): lambda A, dtype=dtype: A.to(dtype)
    for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8)
}
_SCALES = {
    f"{scale:g}{'' if dtype == torch.float64 else '-float32'}": (
        lambda A, scale=scale, dtype=dtype: (scale * A).to(dtype)
    )
    for scale in (1e-30, 1e-12, 1e15, 1e30)
    for dtype in (torch.float64, torch.float32)
}

FLOATS = {
    **_all(_CONTAINERS, "same"),
    "graph": Spoiler(lambda A: A.clone().requires_grad_(), "same"),
    **_all(_SHAPES, "either"),
    **_all(_DTYPES, "either"),
    **_all(_SCALES, "either"),
    **_all({"whole": lambda A: A.round().long(), "bool": lambda A: A > 0}, "either"),
    **_all({"long": lambda A: A.numpy().astype(np.longdouble)}, "either"),
    **_all({"zero": torch.zeros_like, "ones": torch.ones_like}, "either"),
    **_all({"nan": _entry(NAN), "inf": _entry(INF), "-inf": _entry(-INF)}, "refused"),
    **_all(_NO_TENSOR, "refused"),
}
WHOLES = {
    **_all(_CONTAINERS, "same"),
    **_all(_WHOLE, "same"),
    **_all(_SHAPES, "either"),
    **_all({"zero": torch.zeros_like, "gap": lambda A: 2 * A}, "either"),
    **_all({"float": lambda A: A.double(), "half-way": lambda A: A + 0.5}, "either"),
    **_all({"huge": _entry(2**62), "negative": _entry(-1), "bool": lambda A: A > 0}, "refused"),
    **_all({"unsigned": lambda A: A.numpy().astype("u8") + np.uint64(2**63)}, "refused"),
    **_all(_NO_TENSOR, "refused"),
}
BOOLS = {
    **_all(_CONTAINERS, "same"),
    **_all(_SHAPES, "either"),
    **_all({"zero": torch.zeros_like, "whole": lambda A: A.long()}, "either"),
    **_all(_NO_TENSOR, "refused"),
}
NUMBERS = {
    **_all({"numpy": np.float64, "tensor": lambda x: torch.tensor(x, dtype=torch.float64)}, "same"),
    **_all({"zero": lambda x: 0.0, "minus": lambda x: -x, "one": lambda x: 1}, "either"),
    **_all({"tiny": lambda x: 1e-300, "large": lambda x: 1e300}, "either"),
    **_all({"float32": np.float32, "array": np.asarray, "longdouble": np.longdouble}, "either"),
    **_all({"nan": lambda x: NAN, "inf": lambda x: INF, "-inf": lambda x: -INF}, "refused"),
    **_all({"huge": lambda x: 10**400, "complex": lambda x: x + 1j}, "refused"),
    **_all({"none": lambda x: None, "text": lambda x: "1", "bool": lambda x: True}, "refused"),
    **_all({"list": lambda x: [x, x, x, x, x], "decimal": lambda x: Decimal("NaN")}, "refused"),
}
COUNTS = {
    **_all({"numpy": np.int64, "int8": np.int8}, "same"),
    **_all({"zero": lambda n: 0, "one": lambda n: 1, "more": lambda n: n + 1}, "either"),
    **_all({"tensor": torch.tensor, "float": float}, "either"),
    **_all({"minus": lambda n: -n or -1, "huge": lambda n: 2**70, "bool": bool}, "refused"),
    **_all({"none": lambda n: None, "text": lambda n: "1", "nan": lambda n: NAN}, "refused"),
    **_all({"half-way": lambda n: n + 0.5, "list": lambda n: [n]}, "refused"),
}
TEXTS = {
    **_all(
        {"none": lambda text: None, "number": lambda text: 3, "list": lambda text: [text]},
        "refused",
    ),
    **_all({"unknown": lambda text: "no-such", "empty": lambda text: ""}, "refused"),
}


def _one_of(spoiler: Spoiler) -> Spoiler:
    return Spoiler(lambda Ws: [*Ws[:-1], spoiler.spoil(Ws[-1])], spoiler.effect)


def spoilers(value: Any) -> dict[str, Spoiler]:
    """Return what can happen to a valid argument, by its kind; nothing to one of another."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            return FLOATS
        return BOOLS if value.dtype == torch.bool else WHOLES
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        whole = {"none": lambda Ws: None, "no-layers": lambda Ws: [], "text": lambda Ws: "text"}
        each = {f"last-{name}": _one_of(one) for name, one in spoilers(value[-1]).items()}
        each |= _all({"tuple": tuple}, "same") | _all(
            {"turned-over": lambda Ws: Ws[::-1]}, "either"
        )
        return each | _all(whole, "refused")
    if type(value) is tuple and all(type(n) is int for n in value):
        whole = {"none": lambda ns: None, "text": lambda ns: "text", "number": lambda ns: ns[0]}
        each = {
            f"last-{name}": Spoiler(lambda ns, one=one: (*ns[:-1], one.spoil(ns[-1])), one.effect)
            for name, one in COUNTS.items()
        }
        same = _all({"list": list, "array": np.array, "size": torch.Size}, "same")
        short = _all({"short": lambda ns: ns[:-1], "empty": lambda ns: ()}, "either")
        return each | same | short | _all(whole, "refused")
    kinds = {str: TEXTS, float: NUMBERS, int: COUNTS}  # and none for bool
    return kinds.get(type(value), {})


class Draws:
    """Valid arguments by their names, drawn from a generator of one's own."""

    def matrix(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def __call__(self, names: str, **others) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names.split()} | others


# --- The property


def plain(value: Any, valid: Any = None) -> Any:
    """Return the same numbers in the plain form of a valid argument, and all else as it is."""
    if type(valid) is tuple:
        return tuple(int(n) for n in value)
    if isinstance(value, list | tuple) and any(isinstance(W, Tensor) for W in value):
        return [plain(W) for W in value] if type(value) in (list, tuple) else value
    if isinstance(value, Tensor):
        whole = torch.float64 if value.is_floating_point() else torch.int64
        return value.detach().to(value.dtype if value.dtype == torch.bool else whole, copy=True)
    if type(value) is not list and (isinstance(value, str) or not hasattr(value, "__array__")):
        return value
    array = np.asarray(value)
    wide = {"f": "f8", "i": "i8", "u": "i8"}.get(array.dtype.kind, array.dtype)
    return torch.tensor(array.astype(wide)) if array.ndim else array.item()


def leaves(found: Any) -> list[Tensor]:
    """Return every tensor and number of an answer as tensors, in a fixed order."""
    if isinstance(found, Tensor):
        return [found.detach()]
    if isinstance(found, bool | int | float | np.number | np.ndarray):
        return [torch.tensor(np.asarray(found, dtype=float))]
    if isinstance(found, torch.nn.Module):
        return leaves(list(found.state_dict().values()))
    if dataclasses.is_dataclass(found):
        found = [getattr(found, field.name) for field in dataclasses.fields(found)]
    if isinstance(found, dict):
        found = [found[name] for name in found]
    if isinstance(found, list | tuple):
        return [leaf for each in found for leaf in leaves(each)]
    return []


def _each(value: Any) -> list:
    return value if type(value) is list else [value]


def cases(valid: dict[str, Any], but: str = "$.") -> dict[str, tuple[str, Spoiler]]:
    """Return each way to spoil one of the arguments, or (``*``) all their tensors together.

    ``but`` is a pattern of those that are left out, such as ``W: none`` of an optional one.
    """
    one = {
        f"{name}: {what}": (name, spoiler)
        for name, value in valid.items()
        for what, spoiler in spoilers(value).items()
    }
    together = {**_DTYPES, "turned": _CONTAINERS["turned"], "strided": _CONTAINERS["strided"]}
    if any(isinstance(A, Tensor) for value in valid.values() for A in _each(value)):
        one |= {f"*: {what}": ("*", FLOATS[what]) for what in (*together, *_SCALES)}
    return {what: case for what, case in one.items() if not re.search(f"^({but})$", what)}


def _precision(arguments: dict[str, Any]) -> float:
    """Return the coarsest rounding of any argument."""
    coarse = torch.finfo(torch.float64).eps
    for value in arguments.values():
        for A in _each(value):
            if isinstance(A, Tensor) and A.is_floating_point():
                coarse = max(coarse, torch.finfo(A.dtype).eps)
            elif isinstance(A, np.ndarray | np.floating) and A.dtype.kind == "f":
                coarse = max(coarse, float(np.finfo(A.dtype).eps))
    return min(coarse, torch.finfo(torch.float32).eps)  # half precision is accumulated in float32


def judge(
    call: Callable[..., Any],
    valid: dict[str, Any],
    name: str,
    spoiler: Spoiler,
    *,
    also: tuple[str, ...] = (),
    loose: float = 1e4,
    unit: float = 0.0,
    infinite: bool = False,
    unchecked: bool = False,
) -> None:
    """Hold a function to the property where one of its arguments is spoiled; ``*``: all tensors.

    ``also`` are words that an error may name beside the arguments; ``loose``, how many roundings
    an answer may be away, relative to its size and ``unit``. With ``infinite`` an answer may be
    infinite or NaN as the plain one is, and with ``unchecked`` wherever something overflows, as in
    training, which asks once for all.
    """
    spoiled = dict(valid)
    for each, value in valid.items():
        if each == name:
            spoiled[each] = spoiler.spoil(value)
        elif name == "*" and isinstance(value, list) and isinstance(value[0], Tensor):
            spoiled[each] = [spoiler.spoil(W) for W in value]
        elif name == "*" and isinstance(value, Tensor) and value.is_floating_point():
            spoiled[each] = spoiler.spoil(value)
    try:
        found = call(**spoiled)
    except (TypeError, ValueError, FloatingPointError, FileNotFoundError) as error:
        said = "|".join(map(re.escape, [*valid, *also]))
        if not re.match(rf"({said})\b[^:]*: ", str(error)):
            raise AssertionError(f"names no argument: {type(error).__name__}: {error}") from error
        if spoiler.effect == "same":
            raise AssertionError(f"refused what is right: {error}") from error
        return
    assert spoiler.effect != "refused", f"accepted, and gave {found!r}"
    copies = {each: plain(value, valid[each]) for each, value in spoiled.items()}
    try:
        expected = leaves(call(**copies))
    except ValueError:  # what is orthogonal in float32 is not in float64
        assert name == "*" and spoiler.effect == "either"
        expected = leaves(call(**valid))
    found = leaves(found)
    assert len(found) == len(expected)
    tolerance = loose * _precision(spoiled)
    if unchecked and not all(leaf.isfinite().all() for leaf in found):
        return
    for ours, right in zip(found, expected, strict=True):
        assert ours.shape == right.shape
        if not infinite:
            assert ours.isfinite().all(), f"not finite: {ours}"
        least = torch.finfo(ours.dtype).tiny if ours.is_floating_point() else 0.0
        ours, right = ours.double(), right.double()
        far = torch.where((ours == right) | (ours.isnan() & right.isnan()), 0, ours - right).abs()
        size = torch.where(right.isfinite(), right, 0).abs().sum() + unit
        assert (far <= tolerance * size + least).all(), f"wanted {right}, got {ours}"
