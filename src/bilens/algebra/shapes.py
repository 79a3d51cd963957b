"""Checks of an argument whose shape, or whose number, another part decides."""

from collections.abc import Sequence

from torch import Tensor

from bilens.base.checks import as_integer, check_dense_tensor, check_float_tensor
from bilens.base.errors import ShapeError, UsageError


def check_shape(
    name: str,
    tensor: Tensor,
    expected: Sequence[int | str],
    like: Tensor | None = None,
    advice: str = "",
    finite: bool = True,
) -> tuple[int, ...]:
    """Return the shape of a finite tensor: a text is an axis of any length, "…" any number of them.

    With `finite=False` its entries are not looked at.
    """
    shape = (check_float_tensor if finite else check_dense_tensor)(name, tensor, like=like)
    last = expected[1:] if expected[0] == "…" else expected
    fits = len(shape) == len(last) or (expected[0] == "…" and len(shape) > len(last))
    ends = zip(shape[len(shape) - len(last) :], last, strict=False)
    if not fits or any(isinstance(one, int) and one != size for size, one in ends):
        axes = f"({', '.join(map(str, expected))}{',' if len(expected) == 1 else ''})"
        raise ShapeError(f"{name} has shape {shape}; expected {axes}{advice and f', {advice}'}.")
    return shape


def check_index(name: str, value: object, count: int) -> int:
    number = as_integer(value)
    if number is None or number not in range(count):
        raise UsageError(f"{name} {value!r} does not exist: there are {count}, counted from 0.")
    return number
