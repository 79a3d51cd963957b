"""Rows of the interaction matrices of a map, with a bound on their rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.unit_rows import unit_rows
from bilens.base.checks import as_integer, check_finite, check_type
from bilens.base.errors import UsageError
from bilens.certify.secular import shifted

EPS = torch.finfo(torch.float64).eps
TINY = torch.finfo(torch.float64).tiny  # what a product that underflows can lose
LEAST = 2.0**-1074  # stands for what underflowed: zero alone is a proof


@dataclass(frozen=True, eq=False)
class InputRows:
    """The factors of a map with rows of unit length, from which rows Q_c e_i are read.

    Attributes:
        down: (out, hidden) float64, with the lengths of the rows moved in.
        left: (hidden, in), rows of unit length, or zero.
        right: (hidden, in).
    """

    down: Tensor
    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, f: QuadraticMap) -> InputRows:
        """Return the factors of a map, O((hidden + out) · in).

        Raises:
            NonFiniteError: If a weight with its lengths is beyond float64.
        """
        tensor = f.detach().tensor
        rows = tensor.left.double(), tensor.right.double()
        (left, left_length), (right, right_length) = unit_rows(rows[0]), unit_rows(rows[1])
        down = product(tensor.down.double(), left_length, right_length)
        check_finite("down times the lengths of left and right", down)
        return cls(down, alive(left, rows[0]), alive(right, rows[1]))

    def read(self, inputs: slice | list[int]) -> Tensor:
        """Return Q_c e_i, (out, inputs, in), in 4 · out · hidden · in operations an input."""
        half = self.down[:, None] / 2
        rows = (half * self.left[:, inputs].T) @ self.right
        return rows + (half * self.right[:, inputs].T) @ self.left

    def terms(self, inputs: slice | list[int]) -> Tensor:
        """Return ½ Σ_h |P_ch| (|l_hi| |r_h| + |r_hi| |l_h|), (out, inputs, in), entry by entry."""
        return InputRows(self.down.abs(), self.left.abs(), self.right.abs()).read(inputs)

    def rounding(self) -> Tensor:
        """Return how far a row as read can be off in length, (out, in), O(out · hidden · in).

        Math: (hidden + 8) eps · ½ Σ_h |P_ch| (|l_hi| ‖r_h‖ + |r_hi| ‖l_h‖), and what underflows;
            0 where every term is exactly zero.
        """
        alive_left, alive_right = self.left.any(dim=1), self.right.any(dim=1)
        by_left, by_right = (
            torch.where(rows != 0, rows.abs().clamp_min(TINY), 0.0)
            for rows in (self.left, self.right)
        )
        reached = by_left * alive_right[:, None] + by_right * alive_left[:, None]
        used = (self.down != 0).double() @ (reached != 0).double() > 0
        size = self.down.abs() @ reached / 2 * (1 + 1e-12) + TINY * len(self.left)
        return torch.where(used, EPS * (len(self.left) + 8) * size + TINY, 0.0)


def alive(rounded: Tensor, exact: Tensor) -> Tensor:
    """Return rounded numbers in which what is not zero has not become zero."""
    return torch.where((rounded == 0) & (exact != 0), LEAST, rounded)


def product(down: Tensor, left_length: Tensor, right_length: Tensor) -> Tensor:
    """Return down with lengths moved in, (out, hidden): nothing vanishes on the way or at the end.

    Mantissas and exponents apart, as a product of two of the three may underflow where that of
    all is large.
    """
    mantissas, exponents = zip(*map(torch.frexp, (down, left_length, right_length)), strict=True)
    mantissa = mantissas[0] * (mantissas[1] * mantissas[2])
    exponent = exponents[0].long() + (exponents[1] + exponents[2]).long()
    return alive(shifted(mantissa, exponent), mantissa)


def linear_part(f: QuadraticMap) -> Tensor:
    """Return the linear part of a map, (out, in) float64; zeros where there is none."""
    if f.linear is None:
        return torch.zeros(f.sizes.d_out, f.sizes.d_in, dtype=torch.float64)
    return f.linear.detach().double()


def checked_map(f: QuadraticMap) -> QuadraticMap:
    """Refuse what is not a map.

    Raises:
        UsageError: With the type that came.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    return f


def checked_places(name: str, places: Sequence[int], size: int) -> list[int]:
    """Return different indices below `size`, in rising order.

    Raises:
        UsageError: If there are none, one comes twice, or one is outside.
    """
    found = [as_integer(place) for place in places]
    known = sorted(place for place in found if place is not None and 0 <= place < size)
    if not found or len(set(known)) != len(found):
        raise UsageError(
            f"{name}={list(places)!r}; expected different integers between 0 and {size - 1}, at "
            "least one."
        )
    return known
