"""Covariance matrices: checked where they enter, and their symmetric root."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError, UsageError

EPS = torch.finfo(torch.float64).eps
SYMMETRY = 1e-6  # of the largest entry: what a covariance may deviate by, and be negative by


def checked_covariance(covariance: Tensor, d_in: int) -> Tensor:
    """Return a covariance of `d_in` inputs in float64, exactly symmetric.

    Raises:
        ShapeError: If it does not fit the inputs.
        NonFiniteError: If it holds NaN or infinity.
        UsageError: If it is not symmetric.
    """
    shape = check_float_tensor("covariance", covariance, num_axes=2)
    if shape != (d_in, d_in):
        raise ShapeError(f"covariance has shape {shape}; expected ({d_in}, {d_in}).")
    covariance = covariance.detach().double()
    largest = float(covariance.abs().max())
    if float((covariance - covariance.T).abs().max()) > SYMMETRY * largest:
        raise UsageError("covariance is not symmetric: pass a covariance matrix of the inputs.")
    return (covariance + covariance.T) / 2


def symmetric_root(covariance: Tensor, d_in: int) -> Tensor:
    """Return Σ^½, (in, in) float64; eigenvalues up to in · eps of the largest are rounding, and 0.

    Cost: O(in³) time, O(in²) memory.

    Raises:
        ShapeError: If Σ does not fit the inputs.
        NonFiniteError: If it holds NaN or infinity.
        UsageError: If it is not symmetric, or has an eigenvalue below zero.
    """
    covariance = checked_covariance(covariance, d_in)
    values, columns = torch.linalg.eigh(covariance)
    if float(values.min()) < -SYMMETRY * float(covariance.abs().max()):
        raise UsageError(
            f"covariance has the eigenvalue {float(values.min()):.3g}; none below zero was "
            "expected: pass a covariance matrix of the inputs."
        )
    values = torch.where(values > d_in * EPS * values.max(), values, 0.0)
    root: Tensor = (columns * values.sqrt()) @ columns.T
    return root
