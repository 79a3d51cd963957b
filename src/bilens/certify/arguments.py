"""What the certificates accept: numbers, vectors and inputs, brought to float64."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError, UsageError


def checked_number(name: str, value: object) -> float:
    """Return a finite number of at least 0, from a number or a tensor that holds one.

    Raises:
        UsageError: If it is something else.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, Real):
        number = float(value)
    if not 0 <= number < math.inf:
        raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
    return number


def checked_vector(name: str, vector: Tensor, d_in: int) -> Tensor:
    """Return a finite (in,) vector as float64.

    Raises:
        ShapeError: If it has another shape or is not real.
        NonFiniteError: If it holds NaN or infinity.
    """
    shape = check_float_tensor(name, vector)
    if shape != (d_in,):
        raise ShapeError(f"{name} has shape {shape}; expected ({d_in},), one entry an input.")
    return vector.detach().double()


def checked_inputs(x: Tensor, d_in: int) -> Tensor:
    """Return finite (batch, in) inputs as float64; the conversion is exact.

    Raises:
        ShapeError: If they have another shape or are not real.
        NonFiniteError: If an entry is NaN or infinite.
    """
    shape = check_float_tensor("x", x)
    if len(shape) != 2 or shape[1] != d_in:
        advice = "use x[None]" if shape == (d_in,) else "flatten images to one row of pixels each"
        raise ShapeError(f"x has shape {shape}; expected (batch, {d_in}): {advice}.")
    return x.detach().to(torch.float64)
