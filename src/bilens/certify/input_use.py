"""Which inputs a map provably does not use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.unit_rows import unit_rows
from bilens.certify.arguments import checked_number
from bilens.certify.input_rows import EPS, InputRows, checked_map, linear_part

BLOCK_BYTES = 64 * 2**20  # rows of the interaction matrices at a time


@dataclass(frozen=True, eq=False)
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

    Raises:
        UsageError: If f is no map, or the tolerance no finite number of at least 0.
        NonFiniteError: If a weight with its lengths is beyond float64.
    """
    checked_map(f)
    tolerance = checked_number("tolerance", tolerance)
    rows = InputRows.of(f)
    d_out, d_hidden, d_in = f.sizes
    size = max(BLOCK_BYTES // (24 * d_out * (d_hidden + d_in)), 1)
    parts = []
    for start in range(0, d_in, size):
        block = rows.read(slice(start, start + size))
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
