"""The one or two values that raise an output most: what a trigger planted in a table would be."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.directions import output_form
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.records.table_audit import InputValues, WorstCaseInputs

REACH = 3.0  # standard deviations of a column that a value may be from its mean
BLOCK_BYTES = 64 * 2**20  # of all that is computed for a block of rows of one Q
ARRAYS = 20  # of the size of a block


@torch.no_grad()
def worst_case_inputs(f: QuadraticMap) -> tuple[WorstCaseInputs, ...]:
    """Return for each output the values that raise it most, exactly.

    Math: max over |z_i|, |z_j| ≤ 3 of b_i z_i + b_j z_j + q_ii z_i² + q_jj z_j² + 2 q_ij z_i z_j.
        A quadratic is largest at its stationary point, or on an edge, at the edge's own largest.
    Cost: O(hidden · in²) for each output; memory of a block of rows of one Q.

    Args:
        f: of standardised columns, as it is to be read, float64; see `gauge_free`.
    """
    return tuple(_of_output(f, output) for output in range(f.sizes.d_out))


def _of_output(f: QuadraticMap, output: int) -> WorstCaseInputs:
    form = output_form(f, output)
    matrix, linear = form.matrix, form.linear
    left, right = matrix.left, matrix.right
    squares = (left * right * matrix.weight[:, None]).sum(dim=0)
    gains, z = largest_of_one(linear, squares)
    best = int(gains.argmax())
    one = InputValues((best,), (float(z[best]),), float(gains[best]))
    two: InputValues | None = None
    width = len(linear)
    rows = max(BLOCK_BYTES // (8 * ARRAYS * width), 1)
    for start in range(0, width - 1, rows):
        mine = slice(start, min(start + rows, width))
        cross = (left[:, mine].T * matrix.weight) @ right
        cross = (cross + (right[:, mine].T * matrix.weight) @ left) / 2
        gains, first, second = largest_of_two(
            linear[mine, None], squares[mine, None], linear, squares, cross
        )
        gains = gains.triu(start + 1) + torch.full_like(gains, -torch.inf).tril(start)
        place = int(gains.argmax())
        i, j = divmod(place, width)
        if two is None or float(gains[i, j]) > two.effect:
            values = (float(first[i, j]), float(second[i, j]))
            two = InputValues((start + i, j), values, float(gains[i, j]))
    return WorstCaseInputs(output, one, two)


def largest_of_one(linear: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest linear · z + square · z² over |z| ≤ 3, and the z."""
    end = torch.full_like(linear, REACH).copysign(linear)
    peak = (-linear / (2 * square)).nan_to_num(0.0).clamp(-REACH, REACH)
    z = torch.where(square < 0, peak, end)
    return linear * z + square * z * z, z


def largest_of_two(
    linear_i: Tensor, square_i: Tensor, linear_j: Tensor, square_j: Tensor, cross: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest value of two columns together, (rows, in), and z_i and z_j there."""
    determinant = 4 * (square_i * square_j - cross * cross)
    z_i = 2 * (cross * linear_j - square_j * linear_i) / determinant
    z_j = 2 * (cross * linear_i - square_i * linear_j) / determinant
    inside = (z_i.abs() <= REACH) & (z_j.abs() <= REACH)  # NaN is not
    gain = torch.where(inside, (linear_i * z_i + linear_j * z_j) / 2, -torch.inf)
    for end in (-REACH, REACH):
        other, z = largest_of_one(linear_j + 2 * end * cross, square_j.expand_as(cross))
        found = other + linear_i * end + square_i * end**2
        z_i, z_j = torch.where(found > gain, end, z_i), torch.where(found > gain, z, z_j)
        gain = gain.maximum(found)
        other, z = largest_of_one(linear_i + 2 * end * cross, square_i.expand_as(cross))
        found = other + linear_j * end + square_j * end**2
        z_i, z_j = torch.where(found > gain, z, z_i), torch.where(found > gain, end, z_j)
        gain = gain.maximum(found)
    return gain, z_i, z_j
