"""‖Q‖_F² of balanced forms with its rounding, and what it proves about eigenvalues not found."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.ranking import Which, ends
from bilens.algebra.eigen.solver import BLOCK_BYTES, BalancedForms
from bilens.algebra.gram.inner_products import (
    squared_norm_rounding,
    squared_norms,
    squared_norms_in_float32,
)

EPS = torch.finfo(torch.float64).eps
SOLVER_TOLERANCE = 1000 * EPS  # of ‖Q‖_F, or of a unit vector: what a backward-stable solver keeps
SMALLEST = 2.0**-1074  # above zero, of float64
FACTOR_TOLERANCE = 10 * EPS  # of Σ|s_h|‖l_h‖‖r_h‖: rounding of the factors' own products
UNCERTAIN = 1e-3  # of ‖Q‖²: a larger rounding bound is worth another look at the form
UNCERTAIN_IN_FLOAT32 = 0.05
COLUMNS = 256  # of Q at a time, where it is looked at


def rounding_bound(forms: BalancedForms, squared: Tensor) -> Tensor:
    """Return a bound on the rounding error of eigenvalues, (num,), for forms of these ‖Q_c‖²."""
    return SOLVER_TOLERANCE * squared.sqrt() + FACTOR_TOLERANCE * forms.sizes_before_cancelling


def in_units(bound: Tensor, forms: BalancedForms) -> Tensor:
    """Return bounds in balanced units, (num,), in those of the forms, rounded up."""
    # Where the unit, and so Q, is below 2⁻¹⁰²² or nearly so, a product with it keeps few digits or
    # none: Σ|w| + 1 steps of float64 are more than it loses. Beside other numbers they are nothing.
    steps = torch.where(bound > 0, forms.sizes_before_cancelling + 1, 0.0)
    return bound * forms.units + SMALLEST * steps


def worst_rounding(forms: BalancedForms) -> Tensor:
    """Return how far Qv of a unit vector, or Q as an array, can be off at worst, (num,)."""
    return EPS * (len(forms.left) + forms.d_in + 16) * forms.sizes_before_cancelling


def summing_error(forms: BalancedForms) -> Tensor:
    """Return how far Q can be off because its weights are rounded sums of products, (num,)."""
    lost = forms.sizes_before_cancelling - forms.weights.abs().sum(dim=1)
    return EPS * (forms.summed + 2) * torch.where(lost > 0, forms.sizes_before_cancelling, 0.0)


def norms_with_error(forms: BalancedForms, in_float32: bool = False) -> tuple[Tensor, Tensor]:
    """Return ‖Q_c‖_F² in balanced units and how far each can be off by rounding, (num,) each."""
    # From the Gram matrix of the hidden units, for all forms together: 4 · hidden² · (in + num)
    # operations. Where neurons cancel, so that Q is far smaller than its terms, that is rounding;
    # such a form is measured column by column, where only the square root of the cancelling is
    # lost, in 2 · hidden · in²; so are a few forms, for which that is less work. In float32 the
    # bound is about a percent of ‖Q‖², the error 1e-6.
    num, hidden = forms.weights.shape
    if num * norm_by_columns(hidden, forms.d_in) < norms_by_gram(num, hidden, forms.d_in):
        each = [norm_of_columns(forms.form_at(index)) for index in range(num)]
        return torch.stack([squared for squared, _ in each]), torch.stack([e for _, e in each])
    factors = forms.weights, forms.left, forms.right
    fast = None
    if in_float32 and forms.left.dtype == torch.float32:
        fast = squared_norms_in_float32(*factors)
    squared, error = fast or (squared_norms(*factors), squared_norm_rounding(*factors))
    summed = summing_error(forms)
    error = error + 2 * squared.sqrt() * summed + summed.square()
    if fast is not None:
        again = (error > UNCERTAIN_IN_FLOAT32 * squared).nonzero()[:, 0]
        if len(again) > 0:
            squared[again], error[again] = norms_with_error(forms.rows(again))
        return squared, error
    for index in (error > UNCERTAIN * squared).nonzero()[:, 0].tolist():
        squared[index], error[index] = norm_of_columns(forms.form_at(index))
    return squared, error


def norms_by_gram(num: int, hidden: int, d_in: int) -> float:
    return 4.0 * hidden**2 * (d_in + num)


def norm_by_columns(hidden: int, d_in: int) -> float:
    return 2.0 * hidden * d_in**2


def norm_of_columns(form: BalancedForms) -> tuple[Tensor, Tensor]:
    """Return ‖Q‖_F² of one form from its columns, and how far it can be off; O(in) memory."""
    # Math: each entry sums 2 · hidden products, so that the array is off by at most e = eps ·
    # (hidden + in + 16) · Σ|w| in Frobenius norm, and its square by 2‖Q‖e + e²; adding the squares
    # up is off by eps · in of them at most.
    d_in, hidden = form.d_in, len(form.left)
    total = form.weights.new_zeros(())
    block = max(BLOCK_BYTES // (24 * d_in), 1)
    for start in range(0, d_in, COLUMNS):
        columns, width = slice(start, start + COLUMNS), min(COLUMNS, d_in - start)
        strip = form.weights.new_zeros(width, d_in - start)  # the rest follows by symmetry
        for first in range(0, hidden, block):
            rows = slice(first, first + block)
            left, right = form.left[rows].double(), form.right[rows].double()
            weights = form.weights[0, rows, None] / 2
            strip.addmm_((left[:, columns] * weights).T, right[:, start:])
            strip.addmm_((right[:, columns] * weights).T, left[:, start:])
        total += strip[:, :width].square().sum() + 2 * strip[:, width:].square().sum()
    off = worst_rounding(form)[0] + summing_error(form)[0]
    return total, 2 * total.sqrt() * off + off.square() + EPS * COLUMNS * d_in * total


@dataclass(frozen=True, eq=False)
class RefinedPairs:
    """k pairs of each form, in units of the balanced forms, float64."""

    values: Tensor  # (num, k), by falling |λ|
    vectors: Tensor  # (num, k, in), orthonormal rows
    residuals: Tensor  # (num, k), ‖Qv − λv‖ from the factors
    rounding_bound: Tensor  # (num,), of the factors, of the products and of the squared norm

    def slack(self) -> Tensor:
        """Return how far the values can be from as many eigenvalues of Q, (num,) (Kahan)."""
        slack: Tensor = self.residuals.norm(dim=1) + self.rounding_bound
        return slack


def proven_by_norm(
    pairs: RefinedPairs,
    squared: Tensor,
    squared_error: Tensor,
    which: Which,
    worst_rounding: Tensor | float = 0.0,
) -> Tensor:
    """Tell for which forms ‖Q‖² leaves no room for a pair that was missed, (num,) bool."""
    # Math: with orthonormal vectors and residuals R, k eigenvalues of Q pair off with the values θ
    # within δ = ‖R‖_F (Kahan), so all others together have Σλ² ≤ ‖Q‖² − Σ(|θ| − δ)². If that is
    # less than (|θ_k| − δ)², none is as large as the smallest one at hand; for an end of the
    # spectrum θ_k is the innermost value there, on its side of zero. What is below the rounding
    # cannot be missed. `worst_rounding` is how far Qv, or a vector from being orthogonal to the
    # others, can be off.
    k = pairs.values.shape[1]
    slack = pairs.slack() + k**0.5 * worst_rounding
    sizes = (pairs.values.abs() - slack[:, None]).clamp(min=0.0)
    rest = (squared + squared_error - sizes.square().sum(dim=1)).clamp(min=0.0).sqrt()
    bar = innermost(pairs.values, which) - slack
    sure: Tensor = (rest < bar) | (rest <= pairs.rounding_bound)
    return sure


def proven_by_rank(pairs: RefinedPairs, forms: BalancedForms, which: Which) -> Tensor:
    """Tell for which forms every eigenvalue that is not zero is at hand, (num,) bool."""
    # Math: r neurons give at most 2r eigenvalues that are not zero. If that many are at hand, each
    # surely not zero (Kahan), all others are zero, and none of them belongs to the selection unless
    # that holds something on the far side of zero.
    held = (pairs.values.abs() > pairs.slack()[:, None]).sum(dim=1)
    most = 2 * (forms.weights != 0).sum(dim=1)
    sure: Tensor = (held >= most) & (innermost(pairs.values, which) >= -pairs.rounding_bound)
    return sure


def zeros_missed(pairs: RefinedPairs, forms: BalancedForms, which: Which) -> Tensor:
    """Tell for which forms the rank shows that an end of the spectrum was missed, (num,) bool."""
    # Math: r neurons give zero at least in − 2r times, so of the u largest eigenvalues min(u, in −
    # 2r) or more are not negative, and of the smallest not positive. An iteration meets a repeated
    # eigenvalue once, and can take smaller ones for its repetitions.
    if which == "magnitude":
        return pairs.values.new_zeros(len(pairs.values), dtype=torch.bool)
    upper, lower = ends(pairs.values.shape[1], which)
    slack = pairs.slack()[:, None]
    zeros = (forms.d_in - 2 * (forms.weights != 0).sum(dim=1)).clamp(min=0)
    ordered = pairs.values.sort(dim=1, descending=True).values
    above = (ordered[:, :upper] >= -slack).sum(dim=1)
    below = (ordered[:, upper:] <= slack).sum(dim=1)
    missed: Tensor = (above < zeros.clamp(max=upper)) | (below < zeros.clamp(max=lower))
    return missed


def innermost(values: Tensor, which: Which) -> Tensor:
    """Return how large a missed eigenvalue would have to be at least, (num,)."""
    if which == "magnitude":
        return values.abs().amin(dim=1)
    upper, lower = ends(values.shape[1], which)
    ordered = values.sort(dim=1, descending=True).values
    bars = []
    if upper > 0:
        bars.append(ordered[:, upper - 1])
    if lower > 0:
        bars.append(-ordered[:, upper])
    return torch.stack(bars).amin(dim=0)


def skew(pairs: RefinedPairs) -> Tensor:
    """Return how much the vectors fail to be orthonormal, in units of the values, (num,)."""
    overlap = pairs.vectors @ pairs.vectors.mT
    overlap.diagonal(dim1=1, dim2=2).sub_(1)
    lost: Tensor = overlap.norm(dim=(1, 2)) * pairs.values.abs().amax(dim=1)
    return lost
