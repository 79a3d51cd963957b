"""Weighted mean and standard deviation of columns."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.base.checks import check_finite

CONSTANT = 1e-12  # of the largest value: less spread than that is rounding


def standardisation(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return weighted mean and standard deviation of the columns, and which of them vary.

    Raises:
        NonFiniteError: If they overflow.
    """
    total = weights.sum()
    mean = check_finite("the mean of the columns", weights @ x / total)
    centred = x - mean
    peak = centred.abs().amax(dim=0)
    varies = peak > CONSTANT * x.abs().amax(dim=0)
    peak = torch.where(varies, peak, 1.0)
    deviation = peak * (weights @ (centred / peak).square() / total).sqrt()
    return mean, torch.where(varies, deviation, 1.0), varies
