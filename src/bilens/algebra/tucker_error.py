"""How far a truncated HOSVD is from its tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.gram.squared_norms import no_negative, squared_norms
from bilens.algebra.modes import Factors, InputMode


@dataclass(frozen=True, eq=False)
class TuckerError:
    """How far a truncated tensor B' is from B.

    Attributes:
        exact: ‖B − B'‖_F, a float64 scalar.
        bound: √(Σ σ² of what was left out along the outputs + twice that along the inputs), which
            needs the singular values alone; never below `exact`, but for rounding.
        rounding: estimate of how far `exact` is from its exact value.
    """

    exact: Tensor
    bound: Tensor
    rounding: Tensor


def squared_outside(factors: Factors, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return ‖B − B ×₂ VᵀV ×₃ VᵀV‖² for the rows V of `columns`, and its estimated rounding."""
    complement = torch.linalg.qr(columns.T, mode="complete").Q[:, len(columns) :].T
    if len(complement) == 0:
        return columns.new_zeros(()), columns.new_zeros(())
    one_leg = InputMode(factors).gram(complement).trace()
    left, right = factors.left @ complement.T, factors.right @ complement.T
    both_legs = squared_norms(factors.down, left, right).sum()
    rounding = columns.new_tensor(InputMode(factors).gram_rounding(complement))
    unit = factors.unit**2
    return no_negative(2 * one_leg - both_legs) * unit, 2 * rounding * unit
