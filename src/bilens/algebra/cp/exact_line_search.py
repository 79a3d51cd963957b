"""Exact line search: the best point on a line of sums of squares, from a quartic."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.cp.factors import Factors, down_gram, pair_gram
from bilens.algebra.cp.target import Projection, Target


def exact_step(
    target: Target, factors: Factors, projection: Projection, direction: Tensor, ridge: float
) -> float:
    """Return the t that minimises the loss of Σ p_a ⊗ (v_a + t d_a)(v_a + t d_a)ᵀ, a quartic.

    Math: with M₁ = Σ p ⊗ sym(v dᵀ), M₂ = Σ p ⊗ d dᵀ and the residual E = B − model,
        loss(t) − loss(0) = −4⟨E, M₁⟩ t + (4‖M₁‖² − 2⟨E, M₂⟩) t² + 4⟨M₁, M₂⟩ t³ + ‖M₂‖² t⁴.
    Cost: O(rank · hidden · (in + out) + rank² · (in + out)).

    Args:
        target: B.
        factors: p and v.
        projection: that of v.
        direction: d, (rank, in).
        ridge: weight of the penalty in the loss.
    """
    down, rows, _ = factors
    direction_projection = target.project(direction)
    weights, gram = target.weigh(down), down_gram(down, ridge)

    def inner(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
        return float((gram * pair_gram(*first, *second)).sum())

    old, mixed, new = (rows, rows), (rows, direction), (direction, direction)
    with_mixed = target.inner(weights, projection, direction_projection)
    with_new = target.inner(weights, direction_projection, direction_projection)
    return quartic_minimum(
        -4 * (with_mixed - inner(old, mixed)),
        4 * inner(mixed, mixed) - 2 * (with_new - inner(old, new)),
        4 * inner(mixed, new),
        inner(new, new),
    )


def quartic_minimum(first: float, second: float, third: float, fourth: float) -> float:
    """Return the t with the least first·t + second·t² + third·t³ + fourth·t⁴; fourth ≥ 0.

    The roots of the derivative are the eigenvalues of its companion matrix; 0 if none is better.
    """
    if not fourth > 0:
        return 0.0
    companion = torch.tensor(
        [
            [0.0, 0.0, -first / (4 * fourth)],
            [1.0, 0.0, -second / (2 * fourth)],
            [0.0, 1.0, -0.75 * third / fourth],
        ],
        dtype=torch.float64,
    )
    if not bool(torch.isfinite(companion).all()):
        return 0.0
    candidates: list[float] = [0.0, *torch.linalg.eigvals(companion).real.tolist()]
    candidates.sort(key=lambda t: t * (first + t * (second + t * (third + t * fourth))))
    return candidates[0]
