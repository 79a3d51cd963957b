"""The tensor that a CP model approximates, the factors of the model, and how far it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.ranking import leading_signs
from bilens.algebra.gram.inner_products import squared_norms
from bilens.algebra.gram.kernel import unit_rows
from bilens.base.checks import check_finite
from bilens.base.errors import NumericalError

Model = Literal["pairs", "symmetric"]


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


def in_order(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return pairs of rows with a rule for which comes first, since sym(l rᵀ) = sym(r lᵀ)."""
    difference = left - right
    apart = (difference.abs() > 1e-8).int()
    leading = difference.gather(1, apart.argmax(dim=1, keepdim=True))
    swap = (leading < 0) & apart.any(dim=1, keepdim=True)
    return torch.where(swap, right, left), torch.where(swap, left, right)


EPS = torch.finfo(torch.float64).eps
SAFE = 1e6 * EPS  # a squared norm above this share of its terms keeps six digits
SLAB_PRODUCTS = 10**10  # multiplications: seconds on one core


def accurate_norm(down: Tensor, left: Tensor, right: Tensor) -> float:
    """Return ‖Σ_h down_h ⊗ sym(l_h r_hᵀ)‖_F, from Gram matrices or, where they cancel, slabs."""
    size = float(down.norm(dim=0).sum())  # the rows of left and right have unit length
    square = float(squared_norms(down, left, right).sum())
    if square > SAFE * size**2:
        return math.sqrt(square)
    if slab_products(down, left) > SLAB_PRODUCTS:
        raise NumericalError(
            f"the hidden units cancel to less than {SAFE**0.5:.0e} of their size, where the norm "
            f"of {tuple(left.shape)} factors is rounding: merge or drop hidden units that cancel."
        )
    norm = slab_norm(down, left, right)
    return norm if norm > len(left) * EPS * size else 0.0


def slab_products(down: Tensor, left: Tensor) -> int:
    (d_out, d_hidden), d_in = down.shape, left.shape[1]
    return min(d_out, d_hidden) * d_hidden * min(d_in, 2 * d_hidden) ** 2


def slab_norm(down: Tensor, left: Tensor, right: Tensor) -> float:
    """Return ‖Σ_h down_h ⊗ sym(l_h r_hᵀ)‖_F from its entries, one output at a time."""
    d_hidden = len(left)
    if down.shape[0] > d_hidden:  # an orthogonal change of basis keeps norms
        down = torch.linalg.qr(down, mode="r").R
    if left.shape[1] > 2 * d_hidden:
        corner = torch.linalg.qr(torch.cat([left, right]).T, mode="r").R
        left, right = corner[:, :d_hidden].T, corner[:, d_hidden:].T
    total = down.new_zeros(())
    for weight in down:
        half = (left.T * weight) @ right
        total = total + ((half + half.T) / 2).square().sum()
    return float(total.sqrt())


Projection = tuple[Tensor, Tensor]  # on the left and on the right rows, twice (rank, hidden)


def paired(left: Projection, right: Projection) -> Tensor:
    """Return ⟨sym(left_h right_hᵀ), sym(l_a r_aᵀ)⟩, (rank, hidden), from projections."""
    return (left[0] * right[1] + left[1] * right[0]) / 2


@dataclass(frozen=True, eq=False)
class Target:
    """B / ‖B‖ with unit rows in the input factors, float64."""

    down: Tensor  # (out, hidden)
    # (2·hidden, in), the left rows above the right ones, so that one product reads both
    stacked: Tensor
    norm: float  # ‖B‖; 0 if B is zero up to the rounding of its factors
    size: float  # Σ_h ‖down_h‖, what the norm would be at most; above 1 by as much as terms cancel

    @classmethod
    def from_tensor(cls, tensor: BilinearTensor) -> Target:
        left, left_size = unit_rows(tensor.left.detach().double())
        right, right_size = unit_rows(tensor.right.detach().double())
        down = tensor.down.detach().double() * left_size * right_size
        check_finite("the product of the factors", down)
        largest = down.abs().max()
        down = down / torch.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
        norm = accurate_norm(down, left, right)
        down = down / (norm if norm > 0 else 1.0)
        size = float(down.norm(dim=0).sum())
        return cls(down, torch.cat([left, right]), norm * float(largest), size)

    def project(self, rows: Tensor) -> Projection:
        """Return rows·left and rows·right, twice (rank, hidden), in O(hidden · in · rank)."""
        left, right = (rows @ self.stacked.T).chunk(2, dim=1)
        return left, right

    def correlate(self, left: Projection, right: Projection) -> Tensor:
        """Return ⟨B_c, sym(l_a r_aᵀ)⟩, (out, rank), from projections, in O(out · hidden · rank)."""
        return (paired(left, right) @ self.down.T).T

    def inner(self, weights: Tensor, left: Projection, right: Projection) -> float:
        """Return ⟨B, Σ_a p_a ⊗ sym(l_a r_aᵀ)⟩ from weights and projections, O(hidden · rank)."""
        return float((weights * paired(left, right)).sum())

    def weigh(self, down: Tensor) -> Tensor:
        """Return the weights p_a·down_h of Q_{p_a}, (rank, hidden), in O(out · hidden · rank)."""
        return down.T @ self.down

    def apply(self, weights: Tensor, right: Projection) -> Tensor:
        """Return Q_{p_a} r_a, (rank, in), from weights and projections."""
        # Math: ½[Lᵀ(s∘R r) + Rᵀ(s∘L r)], s the weights.
        crossed = torch.cat([weights * right[1], weights * right[0]], dim=1)
        return crossed @ self.stacked / 2

    def loss(self, factors: Factors, correlation: Tensor, ridge: float) -> float:
        """Return ‖B − model‖² + ridge · Σ_a ‖component_a‖² in units of ‖B‖²."""
        # Math: 1 − 2⟨B, model⟩ + ‖model‖²; see `rounding` for its accuracy.
        down, left, right = factors
        square = (down_gram(down, ridge) * pair_gram(left, right, left, right)).sum()
        return float(1 - 2 * (down * correlation).sum() + square)

    def rounding(self, factors: Factors) -> float:
        """Return the order of the rounding in a loss: eps · (sum of the sizes of all terms)²."""
        down, left, right = factors
        sizes = down.norm(dim=0) * left.norm(dim=1) * right.norm(dim=1)
        return torch.finfo(torch.float64).eps * (self.size + float(sizes.sum())) ** 2


class FitError(NamedTuple):
    """‖B − B̂‖ in units of ‖B‖."""

    relative_error: float  # the error
    resolution: float  # the order of what rounding may have added to it or taken from it


def fit_error(target: Target, factors: Factors) -> FitError:
    """Return ‖B − B̂‖/‖B‖ from Gram matrices, or from slabs where those cancel."""
    # 1 − 2⟨B, B̂⟩ + ‖B̂‖² loses every digit once the error is below √eps of the terms.
    correlation = target.correlate(target.project(factors.left), target.project(factors.right))
    square, rounding = target.loss(factors, correlation, ridge=0.0), target.rounding(factors)
    if square <= SAFE / EPS * rounding:
        left, right = target.stacked.chunk(2)
        parts = (
            torch.cat([target.down, -factors.down], dim=1),
            torch.cat([left, factors.left]),
            torch.cat([right, factors.right]),
        )
        if slab_products(parts[0], parts[1]) <= SLAB_PRODUCTS:
            size = (rounding / EPS) ** 0.5
            return FitError(slab_norm(*parts), len(parts[1]) * EPS * size)
    error = max(square, 0.0) ** 0.5
    return FitError(error, rounding / max(error, rounding**0.5))
