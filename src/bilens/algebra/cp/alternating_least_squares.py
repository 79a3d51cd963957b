"""Alternating least squares: each factor in turn is fitted with the others held fixed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.cp import conjugate_gradient
from bilens.algebra.cp.exact_line_search import exact_step
from bilens.algebra.cp.factors import Factors, Model, pair_gram, unit_columns
from bilens.algebra.cp.fitted import Fitted
from bilens.algebra.cp.target import Projection, Target
from bilens.algebra.unit_rows import unit_rows


@dataclass(frozen=True, eq=False)
class Iterate:
    """A model with unit input rows, its projections on B, and its loss.

    Attributes:
        factors: `down` is the least-squares answer to `left` and `right`.
        left: the projection of l on the factors of B.
        right: that of r.
        loss: see `Target.loss`.
    """

    factors: Factors
    left: Projection
    right: Projection
    loss: float


def fit(
    target: Target, start: Factors, model: Model, ridge: float, max_sweeps: int, tolerance: float
) -> Fitted:
    """Sweep over the factors until a sweep lowers the loss by less than `tolerance` of itself.

    Math: loss = ‖B − Σ_a p_a ⊗ sym(l_a r_aᵀ)‖² + ridge · Σ_a ‖component_a‖², ‖B‖ = 1; no update
        raises it.
    Cost: O(rank · hidden · (in + out) + rank² · (in + out) + rank³) a sweep.

    Args:
        target: B.
        start: l and r to start from; p is fitted to them first.
        model: "pairs" fits l, r, p in turn; "symmetric" keeps l = r.
        ridge: weight of the penalty.
        max_sweeps: how many sweeps at most.
        tolerance: relative decrease at which to stop.

    Source: R. A. Harshman, 1970, UCLA Working Papers in Phonetics 16; J. D. Carroll, J.-J. Chang,
        1970, Psychometrika 35.
    """
    sweep = SWEEPS[model]
    current = begin(target, start, ridge)
    losses, converged = [current.loss], False
    for _ in range(max_sweeps):
        following = sweep(target, current, ridge)
        decrease = current.loss - following.loss
        floor = max(tolerance * current.loss, target.rounding(following.factors))
        if decrease >= 0:  # a rise can only be rounding
            current = following
        losses.append(current.loss)
        if decrease <= floor:
            converged = True
            break
    return Fitted(current.factors, tuple(losses), converged)


def begin(target: Target, start: Factors, ridge: float) -> Iterate:
    """Return the iterate of some input factors: unit rows, and the best `down` for them."""
    left, _ = unit_rows(start.left)
    if start.right is start.left:
        projection = target.project(left)
        return fit_down(target, left, left, projection, projection, ridge)
    right, _ = unit_rows(start.right)
    return fit_down(target, left, right, target.project(left), target.project(right), ridge)


def fit_down(
    target: Target,
    left: Tensor,
    right: Tensor,
    left_projection: Projection,
    right_projection: Projection,
    ridge: float,
) -> Iterate:
    """Return the model whose `down` is the least-squares answer to unit rows l and r.

    Math: P (G + ridge · diag G) = C, G_ab = ⟨sym(l_a r_aᵀ), sym(l_b r_bᵀ)⟩, C the same with B_c.
    """
    gram = pair_gram(left, right, left, right)
    correlation = target.correlate(left_projection, right_projection)
    triangle = torch.linalg.cholesky(gram + ridge * torch.diag(gram.diagonal()))
    factors = Factors(torch.cholesky_solve(correlation.T, triangle).T, left, right)
    loss = target.loss(factors, correlation, ridge)
    return Iterate(factors, left_projection, right_projection, loss)


@dataclass(frozen=True, eq=False)
class OneFactor:
    """Least squares for one input factor, with unit columns of `down` held fixed.

    Attributes:
        target: B.
        gram: inner products of the columns, with the ridge, (rank, rank).
        weights: see `Target.weigh`.
    """

    target: Target
    gram: Tensor
    weights: Tensor

    @classmethod
    def of(cls, target: Target, unit: Tensor, ridge: float) -> OneFactor:
        """Return the problem for (out, rank) unit columns."""
        identity = torch.eye(unit.shape[1], dtype=unit.dtype, device=unit.device)
        return cls(target, unit.T @ unit + ridge * identity, target.weigh(unit))

    def fit(self, fixed: Tensor, projection: Projection, start: Tensor) -> Tensor:
        """Return rows near the best ones beside the `fixed` rows of the other factor."""
        rhs = 2 * self.target.apply(self.weights, projection)
        return conjugate_gradient.solve(self.gram, fixed, rhs, start)


def sweep_pairs(target: Target, current: Iterate, ridge: float) -> Iterate:
    """Fit `left`, then `right`, then `down`. The factor that is fitted carries the sizes."""
    down, left, right = current.factors
    unit, sizes = unit_columns(down)
    one = OneFactor.of(target, unit, ridge)
    left, sizes = renewed(left, one.fit(right, current.right, sizes[:, None] * left))
    left_projection = target.project(left)
    right, _ = renewed(right, one.fit(left, left_projection, sizes[:, None] * right))
    return fit_down(target, left, right, left_projection, target.project(right), ridge)


def sweep_symmetric(target: Target, current: Iterate, ridge: float) -> Iterate:
    """Move l = r = v along a Gauss–Newton direction to the exact minimum on it; then fit `down`.

    Math: with r = v held fixed the best left factor is L*. To first order v + d in both places is
        v + 2d in one of them, so d = (L* − v)/2 is the Gauss–Newton direction. Along it the loss
        is a polynomial of degree four, whose minimum is found exactly: it cannot rise.
    """
    down, rows, _ = current.factors
    unit, sizes = unit_columns(down)
    best = OneFactor.of(target, unit, ridge).fit(rows, current.left, sizes[:, None] * rows)
    best = best / torch.where(sizes > 0, sizes, 1.0)[:, None]
    direction = torch.where(sizes[:, None] > 0, (best - rows) / 2, 0.0)
    step = exact_step(target, current.factors, current.left, direction, ridge)
    moved, _ = renewed(rows, rows + step * direction)
    projection = target.project(moved)
    return fit_down(target, moved, moved, projection, projection, ridge)


def renewed(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit rows and their lengths; a row that became zero stays what it was before."""
    unit, lengths = unit_rows(after)
    return torch.where(lengths[:, None] > 0, unit, before), lengths


SWEEPS: dict[Model, Callable[[Target, Iterate, float], Iterate]] = {
    "pairs": sweep_pairs,
    "symmetric": sweep_symmetric,
}
