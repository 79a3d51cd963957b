"""Mean and covariance of inputs, without a copy of all of them in float64."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 4096  # inputs that are widened at a time


def mean_and_covariance(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return μ and Σ of inputs, (num, in) → (in,) and (in, in), in float64.

    Math: Σ = 1/num Σ_i (x_i − μ)(x_i − μ)ᵀ, in two passes: what is constant has exactly no
        variance but for the rounding of its mean.
    Cost: O(num · in²) time, O(in²) memory beside the inputs and a block of ROWS of them.

    Args:
        inputs: one a row, at least one.
    """
    num, d_in = inputs.shape
    total = torch.zeros(d_in, dtype=torch.float64)
    for start in range(0, num, ROWS):
        total += inputs[start : start + ROWS].double().sum(dim=0)
    mean = total / num
    covariance = torch.zeros(d_in, d_in, dtype=torch.float64)
    for start in range(0, num, ROWS):
        centred = inputs[start : start + ROWS].double() - mean
        covariance += centred.T @ centred
    return mean, covariance / num
