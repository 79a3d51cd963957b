"""The least-squares update of one input factor of a CP model, by conjugate gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.cp.factors import normal_product

MAX_STEPS = 50
REDUCTION = 1e-3  # of the preconditioned residual; any reduction lowers the objective


def solve(gram: Tensor, right: Tensor, rhs: Tensor, start: Tensor) -> Tensor:
    """Return L near the minimum of ‖Σ_a p_a ⊗ sym(l_a r_aᵀ)‖² − 2⟨B, ·⟩ for fixed p and r.

    Math: the normal equations are W L + (Γ∘(R Lᵀ)) R = 2T with W = Γ∘(R Rᵀ), T_a = Q_{p_a} r_a.
        As ‖Σ p_a ⊗ sym(l_a r_aᵀ)‖² and the same with the antisymmetric part are both ≥ 0, the
        second term lies between −W and W: preconditioned with W, every eigenvalue is between 0
        and 2. Each step of conjugate gradients lowers the objective, so any of them may be the
        last.
    Cost: O(rank² · in) a step, a handful of steps.

    Args:
        gram: Γ, (rank, rank), positive definite after the elementwise product with R Rᵀ.
        right: R, (rank, in), unit rows.
        rhs: 2T, (rank, in).
        start: L to start from, (rank, in).

    Returns:
        (rank, in).

    Source: M. R. Hestenes, E. Stiefel, 1952, J. Res. Nat. Bur. Standards 49.
    """
    triangle = torch.linalg.cholesky(gram * (right @ right.T))
    solution = start
    residual = rhs - normal_product(gram, right, solution)
    improved = torch.cholesky_solve(residual, triangle)
    energy = (residual * improved).sum()
    target = REDUCTION**2 * energy
    direction = improved
    for _ in range(MAX_STEPS):
        if energy <= target:
            break
        image = normal_product(gram, right, direction)
        curvature = (direction * image).sum()
        if curvature <= 0:  # only rounding is left in this direction
            break
        step = energy / curvature
        solution = solution + step * direction
        residual = residual - step * image
        improved = torch.cholesky_solve(residual, triangle)
        before, energy = energy, (residual * improved).sum()
        direction = improved + (energy / before) * direction
    return solution
