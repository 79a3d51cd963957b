"""L-BFGS: all factors of a CP model at once, along a quasi-Newton direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bilens.algebra.cp.alternating_least_squares import Fitted, begin
from bilens.algebra.cp.factors import Factors, Model, down_gram, normal_product, pair_gram
from bilens.algebra.cp.target import Target
from bilens.base.errors import NumericalError

MEMORY = 20  # past gradients; the factors of a CP model are badly scaled against each other
STRICTER = 1e-3  # one small step of L-BFGS is no sign of convergence; one small sweep of ALS is


def fit(
    target: Target, start: Factors, model: Model, ridge: float, max_sweeps: int, tolerance: float
) -> Fitted:
    """Minimise the loss of `alternating_least_squares.fit` over all factors together."""
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
        losses.append(float(intermediate_result.fun))

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
    """Return all entries in one row, on the processor."""
    return torch.cat([part.reshape(-1) for part in parts]).cpu()


def unflatten(flat: Tensor, parts: tuple[Tensor, ...], model: Model) -> Factors:
    """Return factors of the shapes of `parts` from one row of entries."""
    pieces = torch.split(flat, [part.numel() for part in parts])
    down, left, *rest = (
        piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)
    )
    return Factors(down, left, left if model == "symmetric" else rest[0])
