"""Singular values and directions along one axis of a tensor, by graded deflation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.algebra.eigen.ranking import ranked
from bilens.algebra.gram.inner_products import EPS, no_negative, own_gram, slices_gram
from bilens.algebra.gram.kernel import Branches, blocks, rows_within
from bilens.base.checks import check_finite

TARGET = 1e-7  # relative rounding with which a singular value is accepted
FLOOR = 1e-6  # of the largest: what is smaller is returned with the rounding it has
FALL = 100  # a further Gram matrix from the factors must have so much less rounding to be worth it
TINY = 1e-300  # keeps 0 / 0 from a division
CLUSTER_TOLERANCE = 1e-8  # relative: closer singular values are reported as one subspace


def along(rows: Tensor | None, slices: Tensor) -> Tensor:
    """Return combinations of slices, which lie along the first axis; all as they are for None."""
    return slices if rows is None else rows @ slices


@dataclass(frozen=True, eq=False)
class BlockedTensor:
    """A tensor as its branches read it: a block at a time, so that there is no copy of it."""

    down: Tensor  # (out, hidden) float64; as it came, its largest entry is read as ±1, or 0
    branches: Branches  # the tensor is `branches.unit` times that of what is read

    @classmethod
    def from_parts(
        cls, down: Tensor, left: Tensor, right: Tensor, dtype: torch.dtype = torch.float64
    ) -> BlockedTensor:
        found = cls(down.double(), Branches.from_factors(left, right))
        unit = max(float(weights.abs().max()) for _, weights in found.weights(found.down))
        return replace(found, branches=replace(found.branches, dtype=dtype, unit=unit or 1.0))

    def weights(self, down: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield blocks of hidden units, and their weights in combinations of outputs."""
        hidden = down.shape[1]
        for part in blocks(hidden, rows_within(4 * (len(down) + self.branches.left.shape[1]))):
            about = (
                f"down times the lengths of the rows of left and right from unit {part.start} on"
            )
            yield part, check_finite(about, self.branches.weigh(down, part))

    def unit_copies(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
        """Return copies of down, left and right as they are read, the last two in a dtype."""
        down = torch.empty_like(self.down)
        left, right = (
            torch.empty_like(part, dtype=dtype)
            for part in (self.branches.left, self.branches.right)
        )
        for part, weights in self.weights(self.down):
            down[:, part] = weights
            left[part], right[part] = self.branches.unit_rows_of(part)
        return down, left, right

    @property
    def growth(self) -> float:
        """√hidden · eps: a sum of hidden terms of either sign, each rounded."""
        return EPS * math.sqrt(self.down.shape[1])

    def mass(self, down: Tensor) -> float:
        """Return Σ_u ‖downᵀu‖², as it is read."""
        return sum(float(weights.square().sum()) for _, weights in self.weights(down))

    @property
    def slice_rounding(self) -> float:
        """√hidden · eps · ‖down‖_F, the spectral norm of the rounding in slices that are built."""
        return self.growth * math.sqrt(self.mass(self.down))


@dataclass(frozen=True, eq=False)
class OutputMode:
    """Slices along output directions u: the interaction matrices Q_u."""

    factors: BlockedTensor

    @property
    def size(self) -> int:
        return len(self.factors.down)

    def gram(self, rows: Tensor | None) -> Tensor:
        """Return all ⟨Q_u, Q_u'⟩, O(hidden² · (in + num)) time; see `output_gram`."""
        return own_gram(along(rows, self.factors.down), self.factors.branches)

    def gram_rounding(self, rows: Tensor | None) -> float:
        """√hidden · eps · Σ_u ‖downᵀu‖²."""
        return self.factors.growth * self.factors.mass(along(rows, self.factors.down))

    def dense_gram(self, rows: Tensor | None) -> Tensor:
        """Return all ⟨Q_u, Q_u'⟩ from entries of Q_u, one row of all matrices at a time."""
        down, left, right = self.factors.unit_copies()
        weights = along(rows, down) / 2
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

    factors: BlockedTensor

    @property
    def size(self) -> int:
        return self.factors.branches.left.shape[1]

    def gram(self, rows: Tensor | None) -> Tensor:
        """Return vᵀ (Σ_c Q_c²) v', O(hidden² · (in + num + out)) time; see `input_gram`."""
        return slices_gram(self.factors.down, self.factors.branches, rows)

    def gram_rounding(self, rows: Tensor | None) -> float:
        """√hidden · eps · ½ Σ_v Σ_h ‖down_h‖² ((left_h·v)² + (right_h·v)²)."""
        total = 0.0
        for part, weights in self.factors.weights(self.factors.down):
            both = self.factors.branches.unit_rows_of(part)
            reach = sum(along(rows, branch.T).square().sum(dim=0) for branch in both)
            total += float(weights.square().sum(dim=0) @ reach)
        return self.factors.growth * total / 2

    def dense_gram(self, rows: Tensor | None) -> Tensor:
        """Return the same from the vectors Q_c v, one output at a time."""
        down, left, right = self.factors.unit_copies()
        outer_left, outer_right = along(rows, left.T), along(rows, right.T)
        total = left.new_zeros(len(outer_left), len(outer_left))
        for weight in down / 2:
            entries = (outer_left * weight) @ right + (outer_right * weight) @ left
            total += entries @ entries.T
        return total


# One axis of the tensor. A row of `rows` is a direction in it, and has a slice of the tensor; None
# is the axis itself. `gram` takes inner products of slices from the factors, fast, with a rounding
# that does not fall with the result; `dense_gram` builds the slices: terms cancel before a square.
Mode = OutputMode | InputMode


@dataclass(frozen=True, eq=False)
class ModeSpectrum:
    """The leading singular values of a tensor, flattened along one axis, and their directions."""

    singular_values: Tensor  # (k,), falling, in the unit of the tensor
    directions: Tensor  # (k, n), orthonormal rows; the largest component of each is positive
    rounding: Tensor  # (k,), estimate of how far a singular value is from the exact one
    # (k,), equal labels for values too close to tell apart: their directions are one basis of many
    # of a common space
    cluster: Tensor
    cluster_size: Tensor  # (k,), how many of the whole spectrum share the label; 1 stands alone
    discarded_squared: Tensor  # the sum of the squares of the singular values beyond k

    def tail_squared(self, k: int) -> Tensor:
        """Return the sum of the squares of the singular values beyond the k leading ones."""
        return self.singular_values[k:].square().sum() + self.discarded_squared


class Stage(NamedTuple):
    """The spectrum of one Gram matrix: values, falling, (num,), and rows, (num, n)."""

    values: Tensor
    rows: Tensor
    rounding: Tensor


def mode_spectrum(mode: Mode, rank: int | None) -> ModeSpectrum:
    # A Gram matrix squares the singular values, so its rounding E hides those below √E. What it
    # determines to TARGET is taken from it; the directions taken are projected out, and the rest
    # has a Gram matrix of its own, with a rounding in proportion to the factors of the rest. Where
    # these do not shrink with the rest, because units cancel each other, its slices are built: then
    # only what their sums round off is lost, and nothing is squared before it has cancelled.
    rows, left = None, mode.size  # directions that are left over; at first all of the axis
    dense, last_rounding, largest = False, torch.inf, 0.0
    found: list[Stage] = []
    while left > 0:
        rounding = mode.gram_rounding(rows)
        dense = dense or rounding > last_rounding / FALL
        gram = mode.dense_gram(rows) if dense else mode.gram(rows)
        lost = len(gram) ** 0.5 * EPS * float(gram.trace()) if dense else rounding
        stage = decomposed(gram, rows, lost, mode.factors.slice_rounding)
        del gram  # before the next one is made
        largest, last_rounding = max(largest, float(stage.values[0])), rounding
        accepted = int((stage.rounding <= TARGET * stage.values).int().cumprod(dim=0).sum())
        done = float(stage.values[0]) <= FLOOR * largest or (dense and accepted == 0)
        count = left if done else accepted
        found.append(Stage._make(field[:count].clone() for field in stage))  # lets go of the rest
        rows, left = stage.rows[count:], left - count
    whole = Stage._make(torch.cat(parts) for parts in zip(*found, strict=True))
    return selected(whole, mode.factors.branches.unit, rank)


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
    starts = values.new_zeros(len(values), dtype=torch.int64)
    starts[1:] = (values[:-1] - values[1:] > limit).long()
    labels = starts.cumsum(dim=0)
    return labels, torch.bincount(labels)[labels]
