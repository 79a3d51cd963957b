"""The factors of a CP model, and the inner products of its components."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bilens.algebra.unit_rows import unit_rows

Model = Literal["pairs", "symmetric"]


class Factors(NamedTuple):
    """Σ_a down_a ⊗ sym(left_a right_aᵀ), with sym(M) = ½ (M + Mᵀ); float64.

    Attributes:
        down: (out, rank).
        left: (rank, in).
        right: (rank, in); the same as `left` in the model "symmetric".
    """

    down: Tensor
    left: Tensor
    right: Tensor


def pair_gram(left: Tensor, right: Tensor, left2: Tensor, right2: Tensor) -> Tensor:
    """Return ⟨sym(l_a r_aᵀ), sym(l'_b r'_bᵀ)⟩ = ½[(l_a·l'_b)(r_a·r'_b) + (l_a·r'_b)(r_a·l'_b)].

    Cost: O(rank · rank' · in).

    Args:
        left: l, (rank, in).
        right: r, (rank, in).
        left2: l', (rank', in).
        right2: r', (rank', in).

    Returns:
        (rank, rank').
    """
    straight = (left @ left2.T) * (right @ right2.T)
    return (straight + (left @ right2.T) * (right @ left2.T)) / 2


def down_gram(down: Tensor, ridge: float) -> Tensor:
    """Return Γ_ab = (1 + ridge·[a = b]) p_a·p_b, (rank, rank).

    In place of the plain Gram matrix it adds the penalty ridge · Σ_a ‖component_a‖² to every
    squared norm of the model, Σ_ab Γ_ab ⟨sym(l_a r_aᵀ), sym(l_b r_bᵀ)⟩. Without it a best
    approximation need not exist: components may grow without bound and cancel.

    Source: V. de Silva, L.-H. Lim, 2008, SIAM J. Matrix Anal. Appl. 30 (ill-posedness).
    """
    gram = down.T @ down
    return gram + ridge * torch.diag(gram.diagonal())


def normal_product(gram: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """Return the gradient of Σ_ab Γ_ab ⟨sym(l_a r_aᵀ), sym(l_b r_bᵀ)⟩ with respect to l.

    Math: (Γ∘(R Rᵀ)) L + (Γ∘(R Lᵀ)) R, linear in L. The second term couples l_a with r_b, because
        sym(l rᵀ) is symmetric.
    Cost: O(rank² · in).

    Args:
        gram: Γ, (rank, rank).
        right: R, (rank, in).
        left: L, (rank, in).

    Returns:
        (rank, in).
    """
    return (gram * (right @ right.T)) @ left + (gram * (right @ left.T)) @ right


def unit_columns(down: Tensor) -> tuple[Tensor, Tensor]:
    """Return columns of unit length, (out, rank), and the lengths they had, (rank,)."""
    rows, lengths = unit_rows(down.T)
    return rows.T, lengths


def squared_sizes(factors: Factors) -> Tensor:
    """Return ‖component_a‖² = ‖p_a‖² · ½[‖l_a‖²‖r_a‖² + (l_a·r_a)²], (rank,)."""
    down, left, right = factors
    lengths = left.square().sum(dim=1) * right.square().sum(dim=1)
    overlap = (left * right).sum(dim=1).square()
    return down.square().sum(dim=0) * (lengths + overlap) / 2
