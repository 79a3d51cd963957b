"""Proves which inputs a map does not use, from rows of its interaction matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.gram.kernel import unit_rows
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import as_integer, check_finite, check_type
from bilens.base.errors import UsageError
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result
from bilens.certify.inputs import checked_number
from bilens.certify.trust_region import shifted

EPS = torch.finfo(torch.float64).eps
TINY = torch.finfo(torch.float64).tiny  # what a product that underflows can lose
LEAST = 2.0**-1074  # stands for what underflowed: zero alone is a proof


@dataclass(frozen=True, eq=False)
class InputRows:
    """The factors of a map with rows of unit length, from which rows Q_c e_i are read."""

    down: Tensor  # (out, hidden) float64, with the lengths of the rows moved in
    left: Tensor  # (hidden, in), rows of unit length, or zero
    right: Tensor  # (hidden, in)

    @classmethod
    def from_map(cls, f: QuadraticMap) -> InputRows:
        tensor = f.detach().tensor
        rows = tensor.left.double(), tensor.right.double()
        (left, left_length), (right, right_length) = unit_rows(rows[0]), unit_rows(rows[1])
        down = product(tensor.down.double(), left_length, right_length)
        check_finite("down times the lengths of left and right", down)
        return cls(down, alive(left, rows[0]), alive(right, rows[1]))

    def form_rows(self, inputs: slice | list[int]) -> Tensor:
        """Return Q_c e_i, (out, inputs, in), in 4 · out · hidden · in operations an input."""
        half = self.down[:, None] / 2
        rows = (half * self.left[:, inputs].T) @ self.right
        return rows + (half * self.right[:, inputs].T) @ self.left

    def terms(self, inputs: slice | list[int]) -> Tensor:
        """Return ½ Σ_h |P_ch| (|l_hi| |r_h| + |r_hi| |l_h|), (out, inputs, in), entry by entry."""
        return InputRows(self.down.abs(), self.left.abs(), self.right.abs()).form_rows(inputs)

    def rounding(self) -> Tensor:
        """Return how far a row as read can be off in length, (out, in), O(out · hidden · in)."""
        # Math: (hidden + 8) eps · ½ Σ_h |P_ch| (|l_hi| ‖r_h‖ + |r_hi| ‖l_h‖), and what underflows;
        # 0 where every term is exactly zero.
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
    """Down with lengths moved in, (out, hidden): nothing vanishes on the way or at the end."""
    mantissas, exponents = zip(*map(torch.frexp, (down, left_length, right_length)), strict=True)
    mantissa = mantissas[0] * (mantissas[1] * mantissas[2])
    exponent = exponents[0].long() + (exponents[1] + exponents[2]).long()
    return alive(shifted(mantissa, exponent), mantissa)


def linear_part(f: QuadraticMap) -> Tensor:
    if f.linear is None:
        return torch.zeros(f.sizes.d_out, f.sizes.d_in, dtype=torch.float64, device=f.device)
    return f.linear.detach().double()


def checked_map(f: QuadraticMap) -> QuadraticMap:
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    return f


def checked_indices(name: str, indices: Sequence[int], size: int) -> list[int]:
    found = [as_integer(index) for index in indices]
    known = sorted(index for index in found if index is not None and 0 <= index < size)
    if not found or len(set(known)) != len(found):
        raise UsageError(
            f"{name}={list(indices)!r}; expected different integers between 0 and {size - 1}, at "
            "least one."
        )
    return known


BLOCK_BYTES = 64 * 2**20  # rows of the interaction matrices at a time


@frozen_result()
class UnusedInputs:
    """How much of each output each input can reach, and which inputs are proven unused.

    Attributes:
        quadratic: (out, in), ‖Q_c e_i‖, the length of the row of input i.
        linear: (out, in), |b_ci|.
        rounding: (out, in), `quadratic` is off by no more; 0 where every term is exactly zero.
        unused: (in,) bool, proven: row and linear entry of every output are within the tolerance.
        undecided: (in,) bool, rounding decides: neither proven unused nor proven used.
        tolerance: what was allowed.
        assumption: what the statement is about.
    """

    quadratic: Tensor
    linear: Tensor
    rounding: Tensor
    unused: Tensor
    undecided: Tensor
    tolerance: float
    assumption: str
    to_frame = frame("quadratic", "output", "input", without=("unused", "undecided"))


def unused_inputs(f: QuadraticMap, tolerance: float = 0.0) -> UnusedInputs:
    """Return which inputs no output of a map depends on, as a proof.

    With tolerance 0 an unused input changes nothing at all, wherever the others are. That is
    proven where every term of its row is exactly zero. Where terms cancel, floating-point numbers
    show it up to rounding only: such an input is `undecided`, and a tolerance above the rounding
    decides.

    Math: ∂f_c/∂x_i = 2 (Q_c e_i)·x + b_ci, at most 2 · tolerance · ‖x‖ + tolerance for an unused
        input.
    Cost: 4 · out · hidden · in² operations; O((hidden + out) · in) memory and 64 MiB, no
        (in, in) array.

    Args:
        f: the map.
        tolerance: of ‖Q_c e_i‖ and of |b_ci|, in units of the output per (squared) unit of the
            input.

    Raises: UsageError if f is no map, or the tolerance no finite number of at least 0;
        NonFiniteError if a weight with its lengths is beyond float64.
    """
    checked_map(f)
    tolerance = checked_number("tolerance", tolerance)
    rows = InputRows.from_map(f)
    d_out, d_hidden, d_in = f.sizes
    size = max(BLOCK_BYTES // (24 * d_out * (d_hidden + d_in)), 1)
    parts = []
    for start in range(0, d_in, size):
        block = rows.form_rows(slice(start, start + size))
        lengths = unit_rows(block.flatten(0, 1))[1]  # its squares neither overflow nor vanish
        parts.append(lengths.view(block.shape[:2]))
    quadratic, linear = torch.cat(parts, dim=1), linear_part(f).abs()
    rounding = rows.rounding() + (d_in + 8) * EPS * quadratic
    upper, lower = quadratic + rounding, quadratic - rounding
    unused = ((upper <= tolerance) & (linear <= tolerance)).all(dim=0)
    used = ((lower > tolerance) | (linear > tolerance)).any(dim=0)
    return UnusedInputs(
        quadratic,
        linear,
        rounding,
        unused,
        ~unused & ~used,
        tolerance,
        f"of the map as its weights stand, exact arithmetic, in the {f.basis} basis; an input that "
        "it does not use can still matter to what computes its other inputs",
    )
