"""The tensor that a CP model approximates: scaled to norm one, read through its factors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp.factors import Factors, down_gram, pair_gram
from bilens.algebra.cp.residual import accurate_norm
from bilens.algebra.unit_rows import unit_rows
from bilens.base.checks import check_finite

Projection = tuple[Tensor, Tensor]  # on the left and on the right rows, twice (rank, hidden)


def paired(left: Projection, right: Projection) -> Tensor:
    """Return ⟨sym(left_h right_hᵀ), sym(l_a r_aᵀ)⟩, (rank, hidden), from projections."""
    return (left[0] * right[1] + left[1] * right[0]) / 2


@dataclass(frozen=True, eq=False)
class Target:
    """B / ‖B‖ with unit rows in the input factors, float64.

    Attributes:
        down: (out, hidden).
        stacked: (2·hidden, in), the left rows above the right ones, so that one product reads both.
        norm: ‖B‖; 0 if B is zero up to the rounding of its factors.
        size: Σ_h ‖down_h‖, what the norm would be at most; above 1 by as much as terms cancel.
    """

    down: Tensor
    stacked: Tensor
    norm: float
    size: float

    @classmethod
    def of(cls, tensor: BilinearTensor) -> Target:
        """Return the target of a tensor, in O(hidden² · (in + out)).

        Raises:
            NonFiniteError: If products of the factors overflow.
            NumericalError: If its terms cancel so far that the norm cannot be told.
        """
        left, left_size = unit_rows(tensor.left.detach().double())
        right, right_size = unit_rows(tensor.right.detach().double())
        down = tensor.down.detach().double() * left_size * right_size
        check_finite("the product of the factors", down)
        largest = down.abs().max()
        down = down / torch.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
        norm = accurate_norm(down, left, right)
        down = down / (norm if norm > 0 else 1.0)
        size = float(down.norm(dim=0).sum())
        return cls(down, torch.cat([left, right]), norm * float(largest), size)

    def project(self, rows: Tensor) -> Projection:
        """Return rows·left and rows·right, twice (rank, hidden), in O(hidden · in · rank)."""
        left, right = (rows @ self.stacked.T).chunk(2, dim=1)
        return left, right

    def correlate(self, left: Projection, right: Projection) -> Tensor:
        """Return ⟨B_c, sym(l_a r_aᵀ)⟩, (out, rank), from projections, in O(out · hidden · rank)."""
        return (paired(left, right) @ self.down.T).T

    def inner(self, weights: Tensor, left: Projection, right: Projection) -> float:
        """Return ⟨B, Σ_a p_a ⊗ sym(l_a r_aᵀ)⟩ from weights and projections, O(hidden · rank)."""
        return float((weights * paired(left, right)).sum())

    def weigh(self, down: Tensor) -> Tensor:
        """Return the weights p_a·down_h of Q_{p_a}, (rank, hidden), in O(out · hidden · rank)."""
        return down.T @ self.down

    def apply(self, weights: Tensor, right: Projection) -> Tensor:
        """Return Q_{p_a} r_a, (rank, in), from weights and projections, in O(hidden · in · rank).

        Math: ½[Lᵀ(s∘R r) + Rᵀ(s∘L r)], s the weights.
        """
        crossed = torch.cat([weights * right[1], weights * right[0]], dim=1)
        return crossed @ self.stacked / 2

    def loss(self, factors: Factors, correlation: Tensor, ridge: float) -> float:
        """Return ‖B − model‖² + ridge · Σ_a ‖component_a‖² in units of ‖B‖².

        Math: 1 − 2⟨B, model⟩ + ‖model‖²; see `rounding` for its accuracy.
        Cost: O(rank² · (in + out)) once ⟨B_c, sym(l_a r_aᵀ)⟩ is known.
        """
        down, left, right = factors
        square = (down_gram(down, ridge) * pair_gram(left, right, left, right)).sum()
        return float(1 - 2 * (down * correlation).sum() + square)

    def rounding(self, factors: Factors) -> float:
        """Return the order of the rounding in a loss: eps · (sum of the sizes of all terms)²."""
        down, left, right = factors
        sizes = down.norm(dim=0) * left.norm(dim=1) * right.norm(dim=1)
        return torch.finfo(torch.float64).eps * (self.size + float(sizes.sum())) ** 2
