"""What columns and pairs of columns do in a map, exactly, and which values raise it most."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.directions import output_form, outputs_of
from bilens.algebra.interactions.streaming_statistics import RunningTop
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.records.table_audit import (
    ColumnEffect,
    InputValues,
    OutputEffects,
    PairEffect,
    WorstCaseInputs,
)

BLOCK_BYTES = 64 * 2**20  # a block of rows of one Q


def gauge_free(f: QuadraticMap) -> QuadraticMap:
    """Return the map that is read: class-centred outputs, or the one output as it is."""
    d_out = f.sizes.d_out
    f = f.to(torch.float64)
    return f if d_out == 1 else outputs_of(f, centred=True)


def output_effects(
    f: QuadraticMap, output_names: tuple[str, ...], num_pairs: int
) -> tuple[OutputEffects, ...]:
    """Return the effects of every output of a map of standardised columns."""
    return tuple(_effects(f, index, name, num_pairs) for index, name in enumerate(output_names))


def _effects(f: QuadraticMap, index: int, name: str, num_pairs: int) -> OutputEffects:
    form = output_form(f, index)
    matrix, linear = form.matrix, form.linear
    squares = (matrix.left * matrix.right * matrix.weight[:, None]).sum(dim=0)
    pairs, pair_variance = _strongest(matrix.left, matrix.right, matrix.weight, num_pairs)
    sizes = (linear.square() + 2 * squares.square()).sqrt()
    linear_variance = float(linear.square().sum())
    square_variance = float(2 * squares.square().sum())
    variance = linear_variance + square_variance + pair_variance
    shared = variance or 1.0
    return OutputEffects(
        index,
        name,
        float(form.constant),
        tuple(
            ColumnEffect(
                column, float(linear[column]), float(squares[column]), float(sizes[column])
            )
            for column in sizes.argsort(descending=True, stable=True).tolist()
        ),
        pairs,
        f.sizes.d_in * (f.sizes.d_in - 1) // 2,
        variance,
        linear_variance / shared,
        square_variance / shared,
        pair_variance / shared,
    )


def _strongest(
    left: Tensor, right: Tensor, weight: Tensor, count: int
) -> tuple[tuple[PairEffect, ...], float]:
    """Return the pairs with the largest |2 q_ij|, and the sum of the squares of all."""
    width = left.shape[1]
    top, total = RunningTop.empty(count, left.device), 0.0
    rows = max(BLOCK_BYTES // (32 * width), 1)
    for start in range(0, width - 1, rows):
        mine = slice(start, min(start + rows, width))
        block = (left[:, mine].T * weight) @ right[:, start:]
        block.addmm_(right[:, mine].T * weight, left[:, start:])
        i, j = torch.triu_indices(block.shape[0], block.shape[1], offset=1)
        values = block[i, j]
        total += float(values.square().sum())
        top = top.added(values, ((i + start) * width + (j + start)).__getitem__)
    found = zip(top.keys.tolist(), top.values.tolist(), strict=True)
    pairs = (PairEffect(key // width, key % width, value) for key, value in found)
    return tuple(pairs), total


REACH = 3.0  # standard deviations of a column that a value may be from its mean
ARRAYS = 20  # of the size of a block


@torch.no_grad()
def worst_case_inputs(f: QuadraticMap) -> tuple[WorstCaseInputs, ...]:
    """Return for each output the values that raise it most, exactly."""
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
        position = int(gains.argmax())
        i, j = divmod(position, width)
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
