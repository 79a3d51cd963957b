"""The factors of a CP model: inner products of its components, and their canonical form."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bilens.algebra.rows import unit_rows

Model = Literal["pairs", "symmetric"]
TIE = 1e-8  # relative: entries that agree to this are equal, so that rounding decides nothing


class Factors(NamedTuple):
    """Σ_a down_a ⊗ sym(left_a right_aᵀ), with sym(M) = ½ (M + Mᵀ); float64."""

    down: Tensor  # (out, rank)
    left: Tensor  # (rank, in)
    right: Tensor  # (rank, in); the same as `left` in the model "symmetric"


def pair_gram(left: Tensor, right: Tensor, left2: Tensor, right2: Tensor) -> Tensor:
    """Return ⟨sym(l_a r_aᵀ), sym(l'_b r'_bᵀ)⟩ = ½[(l_a·l'_b)(r_a·r'_b) + (l_a·r'_b)(r_a·l'_b)]."""
    straight = (left @ left2.T) * (right @ right2.T)
    return (straight + (left @ right2.T) * (right @ left2.T)) / 2


def down_gram(down: Tensor, ridge: float) -> Tensor:
    """Return Γ_ab = (1 + ridge·[a = b]) p_a·p_b, (rank, rank)."""
    # Source: V. de Silva, L.-H. Lim, 2008, SIAM J. Matrix Anal. Appl. 30 (ill-posedness).
    gram = down.T @ down
    return gram + ridge * torch.diag(gram.diagonal())


def normal_product(gram: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """Return the gradient of Σ_ab Γ_ab ⟨sym(l_a r_aᵀ), sym(l_b r_bᵀ)⟩ with respect to l."""
    # Math: (Γ∘(R Rᵀ)) L + (Γ∘(R Lᵀ)) R, linear in L. The second term couples l_a with r_b, because
    # sym(l rᵀ) is symmetric.
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


def canonical(factors: Factors) -> Factors:
    """Return the same sum by falling component size, with fixed signs and a fixed left row."""
    down, left, right = factors
    left_sign, right_sign = leading_signs(left), leading_signs(right)
    down = down * left_sign * right_sign
    left, right = in_order(left_sign[:, None] * left, right_sign[:, None] * right)
    sizes = squared_sizes(Factors(down, left, right))
    order = torch.argsort(sizes, descending=True, stable=True)
    return Factors(down[:, order], left[order], right[order])


def leading_signs(rows: Tensor) -> Tensor:
    """Return the sign of the largest entry of each row, (rows,)."""
    sizes = rows.abs()
    leading = (sizes >= sizes.amax(dim=1, keepdim=True) * (1 - TIE)).int().argmax(dim=1)
    return torch.where(rows.gather(1, leading[:, None])[:, 0] < 0, -1.0, 1.0).to(rows)


def in_order(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return pairs of rows with a rule for which comes first, since sym(l rᵀ) = sym(r lᵀ)."""
    difference = left - right
    apart = (difference.abs() > 1e-8).int()
    leading = difference.gather(1, apart.argmax(dim=1, keepdim=True))
    swap = (leading < 0) & apart.any(dim=1, keepdim=True)
    return torch.where(swap, right, left), torch.where(swap, left, right)
