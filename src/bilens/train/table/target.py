"""The target of a regression: fitted in units of its own spread, predicted in its unit."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.train.table.standardise import standardisation


def scaled_target(y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (y − mean) / deviation, mean (1,) and deviation (1,); 1 where y is constant.

    Args:
        y: (rows,) float64.
        weights: (rows,), at least 0.

    Raises:
        NonFiniteError: If they overflow.
    """
    mean, deviation, _ = standardisation(y[:, None], weights)
    return (y - mean) / deviation, mean, deviation


def in_units(f: QuadraticMap, mean: Tensor, deviation: Tensor) -> QuadraticMap:
    """Return the map to the target in its own unit: the scaling is folded in."""
    return f.compose_output(torch.diag(deviation), mean)
