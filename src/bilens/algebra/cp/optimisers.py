"""Two ways to fit a CP model: alternating least squares, and L-BFGS on all factors at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bilens.algebra.conjugate_gradients import conjugate_gradients
from bilens.algebra.cp.target import (
    Factors,
    Model,
    Projection,
    Target,
    down_gram,
    normal_product,
    pair_gram,
    unit_columns,
)
from bilens.algebra.gram.kernel import unit_rows
from bilens.base.errors import NumericalError

MAX_STEPS = 50
REDUCTION = 1e-3  # of the preconditioned residual; any reduction lowers the objective


@dataclass(frozen=True, eq=False)
class Fitted:
    factors: Factors  # unit rows in the input factors; `down` is the least-squares answer to them
    # the loss at the start and after each sweep or iteration; it does not rise
    losses: tuple[float, ...]
    converged: bool  # the last sweep lowered the loss by less than the tolerance

    @property
    def sweeps(self) -> int:
        return len(self.losses) - 1


@dataclass(frozen=True, eq=False)
class Iterate:
    """A model with unit input rows, its projections on B, and its loss."""

    factors: Factors  # `down` is the least-squares answer to `left` and `right`
    left: Projection  # the projection of l on the factors of B
    right: Projection  # that of r
    loss: float  # see `Target.loss`


def alternating_least_squares(
    target: Target, start: Factors, model: Model, ridge: float, max_sweeps: int, tolerance: float
) -> Fitted:
    """Sweep over the factors until a sweep lowers the loss by less than `tolerance` of itself."""
    # Math: loss = ‖B − Σ_a p_a ⊗ sym(l_a r_aᵀ)‖² + ridge · Σ_a ‖component_a‖², ‖B‖ = 1; no update
    # raises it.
    # Source: R. A. Harshman, 1970, UCLA Working Papers in Phonetics 16; J. D. Carroll, J.-J. Chang,
    # 1970, Psychometrika 35.
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
    """Return the model whose `down` is the least-squares answer to unit rows l and r."""
    # Math: P (G + ridge · diag G) = C, G_ab = ⟨sym(l_a r_aᵀ), sym(l_b r_bᵀ)⟩, C the same with B_c.
    gram = pair_gram(left, right, left, right)
    correlation = target.correlate(left_projection, right_projection)
    triangle = torch.linalg.cholesky(gram + ridge * torch.diag(gram.diagonal()))
    factors = Factors(torch.cholesky_solve(correlation.T, triangle).T, left, right)
    loss = target.loss(factors, correlation, ridge)
    return Iterate(factors, left_projection, right_projection, loss)


@dataclass(frozen=True, eq=False)
class OneFactor:
    """Least squares for one input factor, with unit columns of `down` held fixed."""

    target: Target  # B
    gram: Tensor  # inner products of the columns, with the ridge, (rank, rank)
    weights: Tensor  # see `Target.weigh`

    @classmethod
    def from_target(cls, target: Target, unit: Tensor, ridge: float) -> OneFactor:
        identity = torch.eye(unit.shape[1], dtype=unit.dtype, device=unit.device)
        return cls(target, unit.T @ unit + ridge * identity, target.weigh(unit))

    def fit(self, fixed: Tensor, projection: Projection, start: Tensor) -> Tensor:
        """Return rows near the best ones beside the `fixed` rows of the other factor."""
        rhs = 2 * self.target.apply(self.weights, projection)
        return normal_solution(self.gram, fixed, rhs, start)


def sweep_pairs(target: Target, current: Iterate, ridge: float) -> Iterate:
    """Fit `left`, then `right`, then `down`. The factor that is fitted carries the sizes."""
    down, left, right = current.factors
    unit, sizes = unit_columns(down)
    one = OneFactor.from_target(target, unit, ridge)
    left, sizes = renewed(left, one.fit(right, current.right, sizes[:, None] * left))
    left_projection = target.project(left)
    right, _ = renewed(right, one.fit(left, left_projection, sizes[:, None] * right))
    return fit_down(target, left, right, left_projection, target.project(right), ridge)


def sweep_symmetric(target: Target, current: Iterate, ridge: float) -> Iterate:
    """Move l = r = v along a Gauss–Newton direction to the exact minimum on it; then fit `down`."""
    # Math: with r = v held fixed the best left factor is L*. To first order v + d in both places is
    # v + 2d in one of them, so d = (L* − v)/2 is the Gauss–Newton direction. Along it the loss is a
    # polynomial of degree four, whose minimum is found exactly: it cannot rise.
    down, rows, _ = current.factors
    unit, sizes = unit_columns(down)
    best = OneFactor.from_target(target, unit, ridge).fit(rows, current.left, sizes[:, None] * rows)
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


def normal_solution(gram: Tensor, right: Tensor, rhs: Tensor, start: Tensor) -> Tensor:
    """Return L near the minimum of ‖Σ_a p_a ⊗ sym(l_a r_aᵀ)‖² − 2⟨B, ·⟩ for fixed p and r."""
    # Math: the normal equations are W L + (Γ∘(R Lᵀ)) R = 2T with W = Γ∘(R Rᵀ), T_a = Q_{p_a} r_a.
    # As ‖Σ p_a ⊗ sym(l_a r_aᵀ)‖² and the same with the antisymmetric part are both ≥ 0, the second
    # term lies between −W and W: preconditioned with W, every eigenvalue is between 0 and 2.
    triangle = torch.linalg.cholesky(gram * (right @ right.T))
    product = partial(normal_product, gram, right)

    def solve(residual: Tensor) -> Tensor:
        return torch.cholesky_solve(residual, triangle)

    return conjugate_gradients(product, solve, rhs, REDUCTION, MAX_STEPS, start)


def exact_step(
    target: Target, factors: Factors, projection: Projection, direction: Tensor, ridge: float
) -> float:
    """Return the t that minimises the loss of Σ p_a ⊗ (v_a + t d_a)(v_a + t d_a)ᵀ, a quartic."""
    # Math: with M₁ = Σ p ⊗ sym(v dᵀ), M₂ = Σ p ⊗ d dᵀ and the residual E = B − model, loss(t) −
    # loss(0) = −4⟨E, M₁⟩ t + (4‖M₁‖² − 2⟨E, M₂⟩) t² + 4⟨M₁, M₂⟩ t³ + ‖M₂‖² t⁴.
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
    """Return the t with the least first·t + second·t² + third·t³ + fourth·t⁴; fourth ≥ 0."""
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


MEMORY = 20  # past gradients; the factors of a CP model are badly scaled against each other
STRICTER = 1e-3  # one small step of L-BFGS is no sign of convergence; one small sweep of ALS is


def limited_memory_bfgs(
    target: Target, start: Factors, model: Model, ridge: float, max_sweeps: int, tolerance: float
) -> Fitted:
    """Minimise the loss of `alternating_least_squares` over all factors together."""
    # Source: D. C. Liu, J. Nocedal, 1989, Math. Programming 45, as in `scipy.optimize`; gradients
    # of CP models: E. Acar, D. M. Dunlavy, T. G. Kolda, 2011, J. Chemometrics 25.
    from scipy.optimize import minimize  # slow to import, needed only here

    first = begin(target, start, ridge)
    point = share_sizes(first.factors)
    parts = point[:2] if model == "symmetric" else point
    losses = [first.loss]

    def evaluate(flat: Any) -> tuple[float, Any]:
        factors = unflatten(torch.from_numpy(flat).to(target.down.device), parts, model)
        loss, gradient = loss_and_gradient(target, factors, model, ridge)
        return loss, flatten(gradient).numpy()

    def record(intermediate_result: Any) -> None:
        # a rise can only be rounding: the first loss is that of other factors of the same sum
        losses.append(min(float(intermediate_result.fun), losses[-1]))

    result = minimize(
        evaluate,
        flatten(parts).numpy(),
        jac=True,
        method="L-BFGS-B",
        callback=record,
        options={
            "maxiter": max_sweeps,
            "maxfun": 20 * max_sweeps,
            "maxcor": MEMORY,
            "ftol": tolerance * STRICTER,
            "gtol": 0.0,
        },
    )
    flat = torch.from_numpy(result.x).to(target.down.device)
    if not bool(torch.isfinite(flat).all()):
        raise NumericalError(f"L-BFGS left the finite numbers: {result.message}")
    # A line search that rounding ended counts, if the gradient promises nothing more.
    promise = float(torch.from_numpy(result.jac).square().sum()) / 2
    settled = bool(result.success) or promise <= tolerance * STRICTER
    last = begin(target, unflatten(flat, parts, model), ridge)  # unit rows again
    losses[-1] = min(last.loss, losses[-1])
    return Fitted(last.factors, tuple(losses), settled and len(losses) <= max_sweeps)


def loss_and_gradient(
    target: Target, factors: Factors, model: Model, ridge: float
) -> tuple[float, tuple[Tensor, ...]]:
    """Return the loss and its gradient with respect to p, l and r, or p and v where l = r = v."""
    # Math: ∂p: 2(P G − C); ∂l: (Γ∘RRᵀ)L + (Γ∘RLᵀ)R − 2Q_{p}r; ∂r with l and r swapped.
    down, left, right = factors
    left_projection = target.project(left)
    right_projection = left_projection if model == "symmetric" else target.project(right)
    correlation = target.correlate(left_projection, right_projection)
    gram, inputs = down_gram(down, ridge), pair_gram(left, right, left, right)
    inputs_ridge = inputs + ridge * torch.diag(inputs.diagonal())
    loss = target.loss(factors, correlation, ridge)
    by_down = 2 * (down @ inputs_ridge - correlation)
    weights = target.weigh(down)
    by_left = normal_product(gram, right, left) - 2 * target.apply(weights, right_projection)
    if model == "symmetric":
        return loss, (by_down, 2 * by_left)
    by_right = normal_product(gram, left, right) - 2 * target.apply(weights, left_projection)
    return loss, (by_down, by_left, by_right)


def share_sizes(factors: Factors) -> Factors:
    """Return the same sum with p_a, l_a and r_a of equal length, which scales the problem well."""
    size = factors.down.norm(dim=0)
    root = torch.where(size > 0, size, 1.0) ** (1 / 3)
    left = root[:, None] * factors.left
    right = left if factors.right is factors.left else root[:, None] * factors.right
    return Factors(factors.down / root**2, left, right)


def flatten(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts]).cpu()


def unflatten(flat: Tensor, parts: tuple[Tensor, ...], model: Model) -> Factors:
    pieces = torch.split(flat, [part.numel() for part in parts])
    down, left, *rest = (
        piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)
    )
    return Factors(down, left, left if model == "symmetric" else rest[0])
