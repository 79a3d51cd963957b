"""A factored matrix in a scale of its own, where nothing can overflow or vanish."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.interaction import InteractionMatrix
from bilens.algebra.unit_rows import unit_rows


@dataclass(frozen=True, eq=False)
class Balanced:
    """Q = unit · Σ_h weight_h sym(left_h right_hᵀ), with rows of unit length.

    The same for every way (α l, β r, s / αβ) of writing a neuron, up to rounding.

    Attributes:
        matrix: the factors; the largest |weight| lies between 1/8 and 1.
        unit: a power of two; infinite if Q itself cannot be written in float64.
    """

    matrix: InteractionMatrix
    unit: Tensor

    @property
    def size_before_cancelling(self) -> Tensor:
        """Σ_h |weight_h|: what ‖Q‖/unit would be at most, and how large its rounding is."""
        return self.matrix.weight.abs().sum()


def balance(matrix: InteractionMatrix) -> Balanced:
    """Return a float64 matrix with unit rows, its size moved into the weights and one unit.

    Cost: O(hidden · in).
    """
    left, left_size = unit_rows(matrix.left)
    right, right_size = unit_rows(matrix.right)
    mantissas, exponents = zip(
        *(torch.frexp(part) for part in (matrix.weight, left_size, right_size)), strict=True
    )
    mantissa = torch.stack(mantissas).prod(dim=0)
    exponent = torch.stack(exponents).sum(dim=0).double()  # the product itself may overflow
    used = exponent[mantissa != 0]
    largest = used.max() if len(used) > 0 else exponent.new_zeros(())
    weight = mantissa * torch.exp2(exponent - largest)
    return Balanced(InteractionMatrix(left, right, weight), torch.exp2(largest))
