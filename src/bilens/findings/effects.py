"""What single columns and pairs of columns do in a map, exactly, in units that can be compared."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.directions import output_form, outputs_of
from bilens.algebra.interactions.streaming_statistics import RunningTop
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.records.table_audit import ColumnEffect, OutputEffects, PairEffect

BLOCK_BYTES = 64 * 2**20  # a block of rows of one Q


def gauge_free(f: QuadraticMap) -> QuadraticMap:
    """Return the map that is read: class-centred outputs, or the one output as it is."""
    d_out = f.sizes.d_out
    f = f.to(torch.float64)
    return f if d_out == 1 else outputs_of(f, centred=True)


def output_effects(
    f: QuadraticMap, output_names: tuple[str, ...], num_pairs: int
) -> tuple[OutputEffects, ...]:
    """Return the effects of every output of a map of standardised columns.

    Cost: O(hidden · in²) for each output; memory of a block of rows of one Q.

    Args:
        f: the map as it is to be read, float64; see `gauge_free`.
        output_names: one for each output.
        num_pairs: how many of the strongest pairs are listed.
    """
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
