"""Whether the components of a CP model are the only ones that give its function."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bilens.algebra.cp.factors import Factors, Model
from bilens.algebra.cp.kruskal import TOLERANCE, KruskalRank, kruskal_rank
from bilens.algebra.unit_rows import unit_rows


@dataclass(frozen=True)
class Uniqueness:
    """What is proven about the components of a fitted function Σ_a p_a ⊗ sym(l_a r_aᵀ).

    It is about the sum that was fitted: another sum may come as close to the map. Unique means
    up to the order of the components, the lengths and signs within one, and, since
    sym(l rᵀ) = sym(r lᵀ), which of l_a and r_a is called left: {l_a, r_a} is an unordered pair.

    Attributes:
        unique: True or False if proven (numerically, see `tolerance`), None if not.
        reason: the condition that decided, or that failed.
        down, left, right: Kruskal ranks of the factors.
        kruskal: k_P + k_L + k_R ≥ 2·rank + 2. Proves uniqueness of the *ordered* tensor
            Σ p ⊗ l ⊗ r, which is the function only in the model "symmetric". None if a rank is a
            lower bound that does not reach it.
        tolerance: the smallest singular value of unit vectors that counts as independent.
    """

    unique: bool | None
    reason: str
    down: KruskalRank
    left: KruskalRank
    right: KruskalRank
    kruskal: bool | None
    tolerance: float = TOLERANCE


def check_uniqueness(factors: Factors, model: Model) -> Uniqueness:
    """Return what the factors prove about themselves; the cost of three Kruskal ranks.

    Math: "symmetric": Kruskal's condition. "pairs": the l_a and r_a are 2·rank independent
        vectors A, and no two p_a are parallel. Then Q_u Q_w⁺ = A diag((u·p_a)/(w·p_a)) A⁺ has one
        eigenspace span(l_a, r_a) for each a, and a product of two linear forms factors in one
        way. Parallel p_a ∥ p_b disprove: the sum of their two matrices can be split in others.

    Source: J. B. Kruskal, 1977, Linear Algebra Appl. 18; for pairs, as terms of rank (2, 2, 1):
        L. De Lathauwer, 2008, SIAM J. Matrix Anal. Appl. 30, part II, theorem 4.1.
    """
    down, left, right = factors
    ranks = (
        kruskal_rank(down.T),
        kruskal_rank(left),
        kruskal_rank(left if model == "symmetric" else right),
    )
    num = len(left)
    enough = sum(rank.value for rank in ranks) >= 2 * num + 2
    decided = enough or all(rank.exact for rank in ranks)
    unique, reason = _decide(factors, model, ranks, enough)
    return Uniqueness(unique, reason, *ranks, kruskal=enough if decided else None)


def _decide(
    factors: Factors, model: Model, ranks: tuple[KruskalRank, ...], kruskal: bool
) -> tuple[bool | None, str]:
    if any(rank.value == 0 for rank in ranks):
        return False, "a component is zero"
    if len(factors.left) == 1:
        return True, "a single component"
    if ranks[0].value == 1:
        return False, "two components write to parallel outputs: their sum can be split otherwise"
    if model == "symmetric":
        if kruskal:
            return True, "k_down + 2 k_left ≥ 2 rank + 2 (Kruskal)"
        return None, "k_down + 2 k_left ≥ 2 rank + 2 (Kruskal) is not shown"
    rows, _ = unit_rows(torch.cat([factors.left, factors.right]))
    if len(rows) <= rows.shape[1] and float(torch.linalg.svdvals(rows)[-1]) > TOLERANCE:
        return True, "left and right rows are independent, and no two output columns parallel"
    return None, "the left and right rows together are dependent, or more than the inputs"
