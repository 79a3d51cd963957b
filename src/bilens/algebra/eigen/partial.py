"""From Ritz vectors to a record: refined and judged in float64, and what is proven about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.balance import BalancedForms
from bilens.algebra.eigen.checked import (
    CLUSTER_TOLERANCE,
    FACTOR_TOLERANCE,
    SOLVER_TOLERANCE,
)
from bilens.algebra.eigen.ranking import Which, by_size_and_sign, ends, with_sign


@dataclass(frozen=True, eq=False)
class Refined:
    """k pairs of each form, in units of the balanced forms, float64.

    Attributes:
        values: (num, k), by falling |λ|.
        vectors: (num, k, in), orthonormal rows.
        residuals: (num, k), ‖Qv − λv‖ from the factors.
        noise: (num,), rounding of the factors, of the products and of the squared norm.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    noise: Tensor


@torch.no_grad()
def refine(forms: BalancedForms, vectors: Tensor, mass: Tensor) -> Refined:
    """Return the Rayleigh–Ritz pairs of the space of some vectors, in float64.

    A Rayleigh quotient errs by the square of its vector's error, so that vectors from float32
    give eigenvalues to nearly all digits of float64.

    Cost: 8 · hidden · in operations for each vector, in float64.

    Args:
        forms: the forms.
        vectors: (num, k, in), of full rank. A form whose vectors are not finite gets pairs of NaN.
        mass: (num,), ‖Q_c‖_F² in balanced units.
    """
    broken = ~vectors.isfinite().all(dim=(1, 2))
    vectors = torch.where(broken[:, None, None], 0.0, vectors)
    basis = torch.linalg.qr(vectors.double().mT).Q.mT
    products = forms.products(basis)
    small = products @ basis.mT
    values, columns = torch.linalg.eigh((small + small.mT) / 2)
    vectors, products = columns.mT @ basis, columns.mT @ products
    residuals = (products - values[..., None] * vectors).norm(dim=-1)
    order = by_size_and_sign(values)
    vectors = with_sign(vectors.gather(1, order[..., None].expand_as(vectors)))
    values, residuals = values.gather(1, order), residuals.gather(1, order)
    for part in (values, vectors, residuals):
        part[broken] = torch.nan
    return Refined(values, vectors, residuals, rounding(forms, mass))


def rounding(forms: BalancedForms, mass: Tensor) -> Tensor:
    """Return what the factors and a solver lose by rounding, (num,), for forms of these ‖Q_c‖²."""
    return SOLVER_TOLERANCE * mass.sqrt() + FACTOR_TOLERANCE * forms.sizes_before_cancelling


def proven_by_mass(
    pairs: Refined,
    mass: Tensor,
    mass_error: Tensor,
    which: Which,
    most_rounding: Tensor | float = 0.0,
) -> Tensor:
    """Tell for which forms ‖Q‖² leaves no room for a pair that was missed, (num,) bool.

    Math: with orthonormal vectors and residuals R, k eigenvalues of Q pair off with the values
        within δ = ‖R‖_F (Kahan), so all others together have Σλ² ≤ ‖Q‖² − Σ(|θ| − δ)². If that
        is less than (|θ_k| − δ)², none of them is as large as the smallest one at hand. For an
        end of the spectrum, θ_k is the innermost value at that end, if it lies on that side of
        zero. What is smaller than the noise cannot be told from zero and cannot be missed.

    Args:
        pairs: what was found.
        mass: (num,), ‖Q_c‖_F².
        mass_error: (num,), how far the mass can be off by rounding.
        which: the end of the spectrum.
        most_rounding: (num,), how far Qv as computed, and a vector from being orthogonal to the
            others, can be off at worst.
    """
    k = pairs.values.shape[1]
    slack = pairs.residuals.norm(dim=1) + pairs.noise + k**0.5 * most_rounding
    sizes = (pairs.values.abs() - slack[:, None]).clamp(min=0.0)
    rest = (mass + mass_error - sizes.square().sum(dim=1)).clamp(min=0.0).sqrt()
    bar = innermost(pairs.values, which) - slack
    sure: Tensor = (rest < bar) | (rest <= pairs.noise)
    return sure


def skew(pairs: Refined) -> Tensor:
    """Return how much the vectors fail to be orthonormal, in units of the values, (num,)."""
    unit = torch.eye(pairs.values.shape[1], dtype=torch.float64)
    overlap = (pairs.vectors @ pairs.vectors.mT - unit).norm(dim=(1, 2))
    lost: Tensor = overlap * pairs.values.abs().amax(dim=1)
    return lost


def proven_by_rank(pairs: Refined, forms: BalancedForms, which: Which) -> Tensor:
    """Tell for which forms every eigenvalue that is not zero is at hand, (num,) bool.

    Math: a form of r neurons has at most 2r eigenvalues that are not zero. If that many are at
        hand, each surely not zero (Kahan, as in `proven_by_mass`), all others are zero, and none
        of them belongs to the selection unless that holds something on the far side of zero.

    Args:
        pairs: what was found.
        forms: the forms.
        which: the end of the spectrum.
    """
    slack = pairs.residuals.norm(dim=1) + pairs.noise
    held = (pairs.values.abs() > slack[:, None]).sum(dim=1)
    most = 2 * (forms.weights != 0).sum(dim=1)
    sure: Tensor = (held >= most) & (innermost(pairs.values, which) >= -pairs.noise)
    return sure


def zeros_missed(pairs: Refined, forms: BalancedForms, which: Which) -> Tensor:
    """Tell for which forms the rank shows that an end of the spectrum was missed, (num,) bool.

    Math: a form of r neurons has the eigenvalue zero at least in − 2r times, so of the u largest
        eigenvalues min(u, in − 2r) or more are not negative, and of the smallest not positive. An
        iteration meets a repeated eigenvalue once, and can take smaller ones for its repetitions.

    Args:
        pairs: what was found.
        forms: the forms.
        which: the end of the spectrum.
    """
    if which == "magnitude":
        return torch.zeros(len(pairs.values), dtype=torch.bool)
    upper, lower = ends(pairs.values.shape[1], which)
    slack = (pairs.residuals.norm(dim=1) + pairs.noise)[:, None]
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


def same_values(found: Tensor, whole: Tensor, which: Which, noise: Tensor) -> Tensor:
    """Tell for which forms the values found are those of the whole spectrum, (num,) bool.

    Args:
        found: (num, k).
        whole: (num, in).
        which: the end of the spectrum.
        noise: (num,), differences up to this are none.
    """
    k = found.shape[1]
    if which == "magnitude":
        here = found.abs().sort(dim=1, descending=True).values
        there = whole.abs().sort(dim=1, descending=True).values[:, :k]
    else:
        upper, lower = ends(k, which)
        here = found.sort(dim=1, descending=True).values
        there = whole.sort(dim=1, descending=True).values
        there = torch.cat([there[:, :upper], there[:, whole.shape[1] - lower :]], dim=1)
    return ((here - there).abs() <= noise[:, None]).all(dim=1)


def partial_clusters(values: Tensor, rivals: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cluster of each value and how many share it, as far as it is known.

    A rival that was left out and belongs to a cluster counts, so that a cut through it is seen;
    an eigenvalue that no basis has met does not.

    Args:
        values: (num, k).
        rivals: (num, 2), NaN for none.
        limit: (num,), closer values cannot be told apart.

    Returns:
        (num, k) labels and (num, k) sizes, int64.
    """
    k = values.shape[1]
    ordered = values.sort(dim=1, descending=True)
    starts = torch.ones_like(ordered.indices)
    starts[:, 1:] = (ordered.values[:, :-1] - ordered.values[:, 1:] > limit[:, None]).long()
    labels = torch.empty_like(starts).scatter_(1, ordered.indices, starts.cumsum(dim=1) - 1)
    counts = torch.zeros(len(values), k, dtype=torch.int64).scatter_add_(
        1, labels, torch.ones_like(labels)
    )
    for rival in rivals.unbind(dim=1):
        distance, nearest = (values - rival[:, None]).abs().min(dim=1)
        joins = (distance <= limit).long()  # NaN is never close
        counts.scatter_add_(1, labels.gather(1, nearest[:, None]), joins[:, None])
    return labels, counts.gather(1, labels)


def cluster_limit(pairs: Refined) -> Tensor:
    """Return how close two eigenvalues must be for their vectors to mean nothing alone, (num,)."""
    largest = pairs.values.abs().amax(dim=1)
    return torch.maximum(CLUSTER_TOLERANCE * largest, pairs.noise + pairs.residuals.amax(dim=1))
