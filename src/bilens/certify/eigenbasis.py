"""Problems in the coordinates of an eigenbasis, as both solvers of this folder take them."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError


def checked_problems(values: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, (k,) or (rows, k), and linear terms, (rows, k), after a check.

    Raises:
        ShapeError: If the shapes do not fit, or a tensor is not float64.
        NonFiniteError: If an entry is NaN or infinite.
    """
    rows, width = check_float_tensor("linear", linear, num_axes=2)
    if linear.dtype != torch.float64:
        raise ShapeError(f"linear has dtype {linear.dtype}; use linear.double().")
    shape = check_float_tensor("values", values, like=linear)
    if width == 0 or shape not in ((width,), (rows, width)):
        raise ShapeError(
            f"values has shape {shape} and linear {(rows, width)}; expected (k,) or (rows, k), and "
            "(rows, k), with k at least 1."
        )
    return values, linear
