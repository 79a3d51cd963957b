"""What is proven about the eigenvalues that an iteration did not return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.forms import BalancedForms
from bilens.algebra.eigen.ranking import Which, ends


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
    """Tell for which forms ‖Q‖² leaves no room for a pair that was missed, (num,) bool.

    Math: with orthonormal vectors and residuals R, k eigenvalues of Q pair off with the values
        within δ = ‖R‖_F (Kahan), so all others together have Σλ² ≤ ‖Q‖² − Σ(|θ| − δ)². If that
        is less than (|θ_k| − δ)², none of them is as large as the smallest one at hand. For an
        end of the spectrum, θ_k is the innermost value at that end, if it lies on that side of
        zero. What is smaller than the rounding cannot be told from zero and cannot be missed.

    `squared` is ‖Q_c‖_F² up to `squared_error`; `worst_rounding` is how far Qv as computed, and a
    vector from being orthogonal to the others, can be off at worst.
    """
    k = pairs.values.shape[1]
    slack = pairs.slack() + k**0.5 * worst_rounding
    sizes = (pairs.values.abs() - slack[:, None]).clamp(min=0.0)
    rest = (squared + squared_error - sizes.square().sum(dim=1)).clamp(min=0.0).sqrt()
    bar = innermost(pairs.values, which) - slack
    sure: Tensor = (rest < bar) | (rest <= pairs.rounding_bound)
    return sure


def proven_by_rank(pairs: RefinedPairs, forms: BalancedForms, which: Which) -> Tensor:
    """Tell for which forms every eigenvalue that is not zero is at hand, (num,) bool.

    Math: a form of r neurons has at most 2r eigenvalues that are not zero. If that many are at
        hand, each surely not zero (Kahan, as in `proven_by_norm`), all others are zero, and none
        of them belongs to the selection unless that holds something on the far side of zero.
    """
    held = (pairs.values.abs() > pairs.slack()[:, None]).sum(dim=1)
    most = 2 * (forms.weights != 0).sum(dim=1)
    sure: Tensor = (held >= most) & (innermost(pairs.values, which) >= -pairs.rounding_bound)
    return sure


def zeros_missed(pairs: RefinedPairs, forms: BalancedForms, which: Which) -> Tensor:
    """Tell for which forms the rank shows that an end of the spectrum was missed, (num,) bool.

    Math: a form of r neurons has the eigenvalue zero at least in − 2r times, so of the u largest
        eigenvalues min(u, in − 2r) or more are not negative, and of the smallest not positive. An
        iteration meets a repeated eigenvalue once, and can take smaller ones for its repetitions.
    """
    if which == "magnitude":
        return torch.zeros(len(pairs.values), dtype=torch.bool)
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
    unit = torch.eye(pairs.values.shape[1], dtype=torch.float64)
    overlap = (pairs.vectors @ pairs.vectors.mT - unit).norm(dim=(1, 2))
    lost: Tensor = overlap * pairs.values.abs().amax(dim=1)
    return lost
