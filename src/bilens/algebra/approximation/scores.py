"""How much of a function a map explains: R², with its standard error, output by output."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 1e-24  # of the mean square: what is left of the variance of a constant


@dataclass(frozen=True, eq=False)
class RSquared:
    """R² = 1 − E‖y − f(x)‖² / E‖y − E y‖² over rows of inputs.

    Attributes:
        overall: over all outputs, weighted by their variance.
        standard_error: of `overall`.
        outputs: (out,) float64, of each output; 1 for a constant one that is met.
        output_errors: (out,) float64, their standard errors.
    """

    overall: float
    standard_error: float
    outputs: Tensor
    output_errors: Tensor


@dataclass(frozen=True, eq=False)
class FitScores:
    """R² by degree; that of the best constant is 0.

    Attributes:
        linear: of the affine part of the map.
        quadratic: of the whole map.
        rows: inputs that were looked at.
    """

    linear: RSquared
    quadratic: RSquared
    rows: int


def r_squared(y: Tensor, predicted: Tensor) -> RSquared:
    """Return how well predictions explain values, both (rows, out) float64.

    Math: R² = 1 − A / B with mean squares A, B of residuals and deviations. The standard error is
        that of a ratio, sd(a − (A/B) b) / (B √rows) (delta method).
    """
    residuals = (y - predicted).square()
    deviations = (y - y.mean(dim=0)).square()
    sizes = y.square().mean(dim=0)
    outputs, errors = ratio(residuals, deviations, sizes)
    overall, error = ratio(
        residuals.sum(dim=1, keepdim=True), deviations.sum(dim=1, keepdim=True), sizes.sum(0, True)
    )
    return RSquared(float(overall), float(error), outputs, errors)


def ratio(residuals: Tensor, deviations: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 − A/B and its standard error for each column."""
    rows = len(residuals)
    lost, total = residuals.mean(dim=0), deviations.mean(dim=0)
    still = total <= ROUNDING * sizes
    share = lost / torch.where(still, 1.0, total)
    spread = (residuals - share * deviations).square().mean(dim=0).sqrt()
    error = spread / torch.where(still, 1.0, total) / math.sqrt(rows)
    met = torch.where(lost <= ROUNDING * sizes, 1.0, -torch.inf)
    return torch.where(still, met, 1 - share), torch.where(still, 0.0, error)
