"""The two kinds of axis of a bilinear tensor, and the Gram matrices of its slices along them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from bilens.algebra.gram.inner_products import output_gram
from bilens.algebra.gram.input_gram import input_gram
from bilens.algebra.gram.squared_norms import EPS
from bilens.algebra.unit_rows import unit_rows
from bilens.base.checks import check_finite


class Mode(Protocol):
    """One axis of a tensor; a row of `rows` is a direction in it, and has a slice of the tensor.

    Without rows, the slices are those along the axis itself.
    """

    @property
    def size(self) -> int:
        """Length of the axis."""

    @property
    def slice_rounding(self) -> float:
        """Estimated spectral norm of the rounding in all slices of `dense_gram` together."""

    def gram(self, rows: Tensor | None) -> Tensor:
        """Return the inner products of the slices from the factors: fast; slices are not built."""

    def gram_rounding(self, rows: Tensor | None) -> float:
        """Estimated spectral norm of the rounding in `gram`; it does not fall with the result."""

    def dense_gram(self, rows: Tensor | None) -> Tensor:
        """Return the same from slices that are built, so that terms cancel before the square."""


def along(rows: Tensor | None, slices: Tensor) -> Tensor:
    """Return combinations of slices, which lie along the first axis; all as they are for None."""
    return slices if rows is None else rows @ slices


@dataclass(frozen=True, eq=False)
class Factors:
    """down, left and right in float64, the rows of left and right of unit length.

    Attributes:
        down: (out, hidden), the largest entry 1 in size unless all are zero.
        left: (hidden, in).
        right: (hidden, in).
        unit: the tensor is `unit` times that of these factors.
    """

    down: Tensor
    left: Tensor
    right: Tensor
    unit: float

    @classmethod
    def of(cls, down: Tensor, left: Tensor, right: Tensor) -> Factors:
        """Balance the factors of a tensor, O(hidden · (in + out)).

        Raises:
            NonFiniteError: If products of the lengths of rows overflow.
        """
        left, left_length = unit_rows(left.double())
        right, right_length = unit_rows(right.double())
        down = down.double() * left_length
        down *= right_length
        check_finite("down times the lengths of the rows of left and right", down)
        unit = max(float(down.max()), -float(down.min())) or 1.0
        down /= unit
        return cls(down, left, right, unit)

    @property
    def growth(self) -> float:
        """√hidden · eps: a sum of hidden terms of either sign, each rounded."""
        return EPS * math.sqrt(len(self.left))


@dataclass(frozen=True, eq=False)
class OutputMode:
    """Slices along output directions u: the interaction matrices Q_u."""

    factors: Factors

    @property
    def size(self) -> int:
        """Number of outputs."""
        return len(self.factors.down)

    @property
    def slice_rounding(self) -> float:
        """√hidden · eps · ‖down‖_F: a sum over h is rounded in proportion to its terms."""
        return self.factors.growth * float(self.factors.down.norm())

    def gram(self, rows: Tensor | None) -> Tensor:
        """Return all ⟨Q_u, Q_u'⟩, O(hidden² · (in + num)) time; see `output_gram`."""
        factors, weights = self.factors, along(rows, self.factors.down)
        return output_gram(
            weights, factors.left, factors.right, weights, factors.left, factors.right
        )

    def gram_rounding(self, rows: Tensor | None) -> float:
        """√hidden · eps · Σ_u ‖downᵀu‖²."""
        return self.factors.growth * float(along(rows, self.factors.down).square().sum())

    def dense_gram(self, rows: Tensor | None) -> Tensor:
        """Return all ⟨Q_u, Q_u'⟩ from entries of Q_u, one row of all matrices at a time.

        Cost: O(num · hidden · in²) time, O((hidden + num) · in) memory.
        """
        left, right = self.factors.left, self.factors.right
        weights = along(rows, self.factors.down) / 2
        total = weights.new_zeros(len(weights), len(weights))
        for i in range(left.shape[1]):  # Q is symmetric: entries right of the diagonal count twice
            products = left[:, i, None] * right[:, i:] + right[:, i, None] * left[:, i:]
            entries = weights @ products
            entries[:, 1:] *= 2**0.5
            total += entries @ entries.T
        return total


@dataclass(frozen=True, eq=False)
class InputMode:
    """Slices along input directions v: the matrices with rows Q_c v, one for each output c."""

    factors: Factors

    @property
    def size(self) -> int:
        """Number of inputs."""
        return self.factors.left.shape[1]

    @property
    def slice_rounding(self) -> float:
        """√hidden · eps · ‖down‖_F, as for the outputs."""
        return self.factors.growth * float(self.factors.down.norm())

    def gram(self, rows: Tensor | None) -> Tensor:
        """Return vᵀ (Σ_c Q_c²) v', O(hidden² · (in + num + out)) time; see `input_gram`."""
        return input_gram(self.factors.down, self.factors.left, self.factors.right, rows)

    def gram_rounding(self, rows: Tensor | None) -> float:
        """√hidden · eps · ½ Σ_v Σ_h ‖down_h‖² ((left_h·v)² + (right_h·v)²)."""
        size = self.factors.down.square().sum(dim=0)
        reach = sum(
            along(rows, branch.T).square().sum(dim=0)
            for branch in (self.factors.left, self.factors.right)
        )
        return self.factors.growth * float(size @ reach) / 2

    def dense_gram(self, rows: Tensor | None) -> Tensor:
        """Return the same from the vectors Q_c v, one output at a time.

        Cost: O(out · num · hidden · in) time, O(hidden · (in + num)) memory.
        """
        left, right = self.factors.left, self.factors.right
        outer_left, outer_right = along(rows, left.T), along(rows, right.T)
        total = left.new_zeros(len(outer_left), len(outer_left))
        for weight in self.factors.down / 2:
            entries = (outer_left * weight) @ right + (outer_right * weight) @ left
            total += entries @ entries.T
        return total
