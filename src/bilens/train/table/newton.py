"""Newton's method for a penalised linear model: the one solution of a convex problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.train.table.losses import Loss

CG_STEPS = 500
SUFFICIENT_DECREASE = 1e-4  # of the one that the slope promises (Armijo)
ROUNDING = 1e-14  # of the objective: differences below it say nothing
SHORTEST_STEP = 2.0**-30
SETTLED = 0.05  # a gradient so small changes the curvature so little that P may stay

# Axes in this file: coefficients (features + 1, outputs), the last row is the intercept.


@dataclass(frozen=True, eq=False)
class Problem:
    """Σ_rows weight · loss(features · coefficients + intercept) + ½ alpha ‖coefficients‖².

    Attributes:
        features: (rows, features) float64, of weighted mean zero.
        weights: (rows,), positive.
        loss: of the outputs.
        alpha: the penalty; the intercept has none.
    """

    features: Tensor
    weights: Tensor
    loss: Loss
    alpha: float

    def outputs(self, coefficients: Tensor) -> Tensor:
        """Return the outputs of every row, (rows, outputs)."""
        return self.features @ coefficients[:-1] + coefficients[-1]

    def objective(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        """Return the penalised loss, a scalar."""
        penalty = self.alpha * coefficients[:-1].square().sum() / 2
        return self.weights @ self.loss.values(outputs) + penalty

    def pulled_back(self, row_parts: Tensor, coefficients: Tensor) -> Tensor:
        """Return what derivatives of the rows are in the coefficients, penalty included."""
        weighted = self.weights[:, None] * row_parts
        inner = self.features.T @ weighted + self.alpha * coefficients[:-1]
        return torch.cat([inner, weighted.sum(dim=0, keepdim=True)])

    def preconditioner(self, outputs: Tensor) -> Callable[[Tensor], Tensor]:
        """Return P⁻¹ at these outputs, with P near the Hessian and the same for every output."""
        curvature = self.weights * self.loss.curvature(outputs)
        gram = (self.features.T * curvature) @ self.features
        gram.diagonal().add_(self.alpha)
        triangle = torch.linalg.cholesky(gram)

        def precondition(gradient: Tensor) -> Tensor:
            inner = torch.cholesky_solve(gradient[:-1], triangle)
            return torch.cat([inner, gradient[-1:] / curvature.sum()])

        return precondition


@dataclass(frozen=True)
class Step:
    """One iteration: where it began.

    Attributes:
        objective: the penalised loss for each unit of weight.
        gradient: the size of its gradient in the metric of the curvature, by the same unit.
    """

    objective: float
    gradient: float


@dataclass(frozen=True, eq=False)
class Solution:
    """Where Newton's method ended.

    Attributes:
        coefficients: (features + 1, outputs).
        steps: one for each iteration.
        converged: whether the gradient met the tolerance, or only rounding was left of it.
    """

    coefficients: Tensor
    steps: tuple[Step, ...]
    converged: bool


def silent(number: int, step: Step) -> None:
    """Say nothing of an iteration."""


def minimise(
    problem: Problem,
    start: Tensor,
    max_iter: int,
    tol: float,
    report: Callable[[int, Step], object] = silent,
) -> Solution:
    """Return the coefficients at the minimum.

    The trajectory depends on the function that the features span and not on their basis, and a
    row of weight 2 is the same as two rows: so is the solution, up to rounding.

    Math: each step solves H s = −g by conjugate gradients, preconditioned with the Hessian in
        which the outputs of a row have one curvature, P = featuresᵀ diag(weights · curvature)
        features + alpha; for the squared error P is H, and one step is the solution.
        |g|_P⁻¹ ≤ tol · √Σ weights ends it.
    Cost: rows · features² + features³ / 3 for each step, and 4 · rows · features · outputs for
        each product with H.

    Args:
        problem: what is minimised.
        start: (features + 1, outputs).
        max_iter: of Newton's method.
        tol: of the gradient.
        report: called with the number of each iteration, from 1, and where it began.
    """
    total = problem.weights.sum()
    theta, steps = start, []
    outputs = problem.outputs(theta)
    value = problem.objective(outputs, theta)
    precondition = problem.preconditioner(outputs)
    refresh = False
    for _ in range(max_iter):
        if refresh:
            precondition = problem.preconditioner(outputs)
        gradient = problem.pulled_back(problem.loss.gradient(outputs), theta)
        size = float(((gradient * precondition(gradient)).sum() / total).sqrt())
        steps.append(Step(float(value / total), size))
        report(len(steps), steps[-1])
        refresh = size > SETTLED and not problem.loss.is_quadratic
        if size <= tol:
            return Solution(theta, tuple(steps), True)

        def hessian(direction: Tensor, at: Tensor = outputs) -> Tensor:
            change = problem.loss.hessian_product(at, problem.outputs(direction))
            return problem.pulled_back(change, direction)

        # as far as Newton's step itself can be trusted, and no further than is asked for
        reduction = max(min(0.1, size), 0.3 * tol / size)
        step = conjugate_gradients(hessian, precondition, -gradient, reduction)
        moved = problem.outputs(step)
        slope = float((gradient * step).sum())
        length = 1.0
        while length >= SHORTEST_STEP:
            new_outputs, new_theta = outputs + length * moved, theta + length * step
            new_value = problem.objective(new_outputs, new_theta)
            allowed = SUFFICIENT_DECREASE * length * slope + ROUNDING * float(value.abs())
            if float(new_value - value) <= allowed:
                break
            length /= 2
        else:
            return Solution(theta, tuple(steps), size <= ROUNDING**0.5)
        theta, outputs, value = new_theta, new_outputs, new_value
    return Solution(theta, tuple(steps), False)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    right: Tensor,
    reduction: float,
) -> Tensor:
    """Return s near H s = right, with the preconditioned residual reduced as asked.

    Source: M. R. Hestenes, E. Stiefel, 1952, J. Res. Nat. Bur. Standards 49.
    """
    solution, residual = torch.zeros_like(right), right
    improved = precondition(residual)
    energy = (residual * improved).sum()
    target = reduction**2 * energy
    direction = improved
    for _ in range(CG_STEPS):
        image = product(direction)
        curvature = (direction * image).sum()
        if curvature <= 0:  # only rounding is left in this direction
            break
        length = energy / curvature
        solution = solution + length * direction
        residual = residual - length * image
        improved = precondition(residual)
        before, energy = energy, (residual * improved).sum()
        if energy <= target:
            break
        direction = improved + (energy / before) * direction
    return solution
