"""Singular values and directions along one axis of a tensor, by graded deflation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.algebra.eigen.ranking import ranked
from bilens.algebra.gram.squared_norms import EPS, no_negative
from bilens.algebra.modes import Mode

TARGET = 1e-7  # relative rounding with which a singular value is accepted
FLOOR = 1e-6  # of the largest: what is smaller is returned with the rounding it has
FALL = 100  # a further Gram matrix from the factors must have so much less rounding to be worth it
TINY = 1e-300  # keeps 0 / 0 from a division
CLUSTER_TOLERANCE = 1e-8  # relative: closer singular values are reported as one subspace


@dataclass(frozen=True, eq=False)
class ModeSpectrum:
    """The leading singular values of a tensor, flattened along one axis, and their directions.

    Attributes:
        singular_values: (k,), falling, in the unit of the tensor.
        directions: (k, n), orthonormal rows; the largest component of each is positive.
        rounding: (k,), estimate of how far a singular value is from the exact one.
        cluster: (k,), equal labels for values too close to tell apart: their directions are one
            basis of many of a common space.
        cluster_size: (k,), how many of the whole spectrum share the label; 1 stands alone.
        discarded_squared: the sum of the squares of the singular values beyond k.
    """

    singular_values: Tensor
    directions: Tensor
    rounding: Tensor
    cluster: Tensor
    cluster_size: Tensor
    discarded_squared: Tensor

    def tail_squared(self, k: int) -> Tensor:
        """Return the sum of the squares of the singular values beyond the k leading ones."""
        return self.singular_values[k:].square().sum() + self.discarded_squared


class Stage(NamedTuple):
    """What one Gram matrix tells: values, falling, (num,), and rows, (num, n)."""

    values: Tensor
    rows: Tensor
    rounding: Tensor

    def take(self, part: slice) -> Stage:
        """Return some of them, without holding on to the others."""
        return Stage(*(field[part].clone() for field in self))


def mode_spectrum(mode: Mode, unit: float, rank: int | None) -> ModeSpectrum:
    """Return the singular values and directions along a mode.

    A Gram matrix squares the singular values, so its rounding E hides those below √E. What it
    determines to TARGET is taken from it; the directions taken are projected out, and the rest
    has a Gram matrix of its own, whose rounding is in proportion to the factors of the rest. Where
    these do not shrink with the rest, because units cancel each other, its slices are built:
    then only what their sums round off is lost, and nothing is squared before it has cancelled.

    Cost: one Gram matrix from the factors and O(n³) for each factor of 100 or so between the
        singular values down to FLOOR; the cost of `dense_gram` where units cancel. Memory: see
        `check_mode_memory`, which the caller has called.

    Args:
        mode: the axis.
        unit: the factor that was taken out of the tensor.
        rank: how many to return; None for all.
    """
    rows, left = None, mode.size  # directions that are left over; at first all of the axis
    dense, last_rounding, largest = False, torch.inf, 0.0
    found: list[Stage] = []
    while left > 0:
        rounding = mode.gram_rounding(rows)
        dense = dense or rounding > last_rounding / FALL
        stage = dense_stage(mode, rows) if dense else factored_stage(mode, rows, rounding)
        largest, last_rounding = max(largest, float(stage.values[0])), rounding
        accepted = int((stage.rounding <= TARGET * stage.values).int().cumprod(dim=0).sum())
        done = float(stage.values[0]) <= FLOOR * largest or (dense and accepted == 0)
        count = left if done else accepted
        found.append(stage.take(slice(count)))
        rows, left = stage.rows[count:], left - count
    return selected(Stage(*(torch.cat(parts) for parts in zip(*found, strict=True))), unit, rank)


def factored_stage(mode: Mode, rows: Tensor | None, rounding: float) -> Stage:
    """Decompose the Gram matrix that the factors give."""
    return decomposed(mode.gram(rows), rows, rounding, mode.slice_rounding)


def dense_stage(mode: Mode, rows: Tensor | None) -> Stage:
    """Decompose the Gram matrix of slices that are built."""
    gram = mode.dense_gram(rows)
    return decomposed(gram, rows, len(gram) ** 0.5 * EPS * float(gram.trace()), mode.slice_rounding)


def decomposed(
    gram: Tensor, rows: Tensor | None, gram_rounding: float, slice_rounding: float
) -> Stage:
    """Return values and rows by a dense eigensolver; √λ is off by E / 2√λ, and never by √E."""
    squares, columns = torch.linalg.eigh(gram)
    values = no_negative(squares.flip(0)).sqrt()
    rounding = gram_rounding / (2 * values).clamp(min=TINY + gram_rounding**0.5)
    directions = columns.flip(1).T
    return Stage(
        values, directions if rows is None else directions @ rows, rounding + slice_rounding
    )


def selected(stage: Stage, unit: float, rank: int | None) -> ModeSpectrum:
    """Return the leading ones in their final order and sign, with the clusters of the whole."""
    values, rows, order = ranked(stage.values, stage.rows, len(stage.values), "magnitude")
    rounding = stage.rounding[order]
    labels, sizes = clusters(values, rounding)
    kept = slice(rank)
    return ModeSpectrum(
        singular_values=values[kept] * unit,
        directions=rows[kept],
        rounding=rounding[kept] * unit,
        cluster=labels[kept],
        cluster_size=sizes[kept],
        discarded_squared=(values[len(values[kept]) :] * unit).square().sum(),
    )


def clusters(values: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cluster of each of the falling values, and how many share it, int64."""
    limit = torch.maximum(CLUSTER_TOLERANCE * values[:-1], rounding[:-1] + rounding[1:])
    starts = torch.zeros(len(values), dtype=torch.int64)
    starts[1:] = (values[:-1] - values[1:] > limit).long()
    labels = starts.cumsum(dim=0)
    return labels, torch.bincount(labels)[labels]
