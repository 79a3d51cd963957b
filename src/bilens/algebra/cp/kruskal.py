"""Kruskal ranks: how many columns of a matrix are always independent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, islice

import torch
from torch import Tensor

from bilens.algebra.unit_rows import unit_rows

TOLERANCE = 1e-8  # smallest singular value of unit vectors that still counts as independent
MAX_SUBSETS = 20_000
CHUNK = 1_000


@dataclass(frozen=True)
class KruskalRank:
    """The largest k such that any k of the vectors are linearly independent.

    Attributes:
        value: k, or a proven lower bound of it.
        exact: False if `value` is only a lower bound.
    """

    value: int
    exact: bool


def kruskal_rank(rows: Tensor) -> KruskalRank:
    """Return the Kruskal rank of the rows of a matrix, (num, in).

    Unit rows are numerically independent if their smallest singular value is above 1e-8.

    Math: if all rows are independent, k is their number. Otherwise subsets are tried by growing
        size, up to 20,000 in all; past that k ≥ ⌈1/μ⌉ with μ the largest |cosine| (any k rows
        with (k − 1) μ < 1 are independent, by Gershgorin's circles).
    Cost: one singular value decomposition, O(num² · in), and one of (k, num) for each subset.

    Source: J. B. Kruskal, 1977, Linear Algebra Appl. 18; bound: D. L. Donoho, M. Elad, 2003,
        PNAS 100.
    """
    unit, lengths = unit_rows(rows.detach().double())
    num = len(unit)
    if not bool((lengths > 0).all()):
        return KruskalRank(0, exact=True)
    rank = int((torch.linalg.svdvals(unit) > TOLERANCE).sum())
    if rank == num:
        return KruskalRank(num, exact=True)
    if unit.shape[1] > num:  # an orthogonal change of basis keeps singular values
        unit = torch.linalg.qr(unit.T, mode="r").R.T
    left = MAX_SUBSETS
    for size in range(2, rank + 1):
        left -= math.comb(num, size)
        if left < 0:
            return KruskalRank(max(size - 1, coherence_bound(unit)), exact=False)
        if not all_independent(unit, size):
            return KruskalRank(size - 1, exact=True)
    return KruskalRank(rank, exact=True)


def all_independent(unit: Tensor, size: int) -> bool:
    """Return whether all subsets of `size` rows are independent; a chunk of them at a time."""
    subsets = combinations(range(len(unit)), size)
    while chunk := list(islice(subsets, CHUNK)):
        smallest = torch.linalg.svdvals(unit[torch.tensor(chunk)])[:, -1]
        if not bool((smallest > TOLERANCE).all()):
            return False
    return True


def coherence_bound(unit: Tensor) -> int:
    """Return ⌈1/μ⌉, μ the largest |cosine| of two unit rows: any so many are independent."""
    cosines = (unit @ unit.T).abs().fill_diagonal_(0.0)
    largest = float(cosines.max())
    return len(unit) if largest == 0 else min(len(unit), math.ceil((1 - TOLERANCE) / largest))
