"""Conjugate gradients: a symmetric system that is solved by products with its matrix alone."""

from collections.abc import Callable

from torch import Tensor


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    right: Tensor,
    reduction: float,
    most: int,
    start: Tensor | None = None,
) -> Tensor:
    """Return s near H s = right, from 0 or a start, the preconditioned residual reduced as asked.

    Each step lowers ½ s·H s − right·s, so that any may be the last.

    Source: M. R. Hestenes, E. Stiefel, 1952, J. Res. Nat. Bur. Standards 49.
    """
    solution = right.new_zeros(right.shape) if start is None else start
    residual = right if start is None else right - product(start)
    direction = improved = precondition(residual)
    energy = (residual * improved).sum()
    target = reduction**2 * energy
    for _ in range(most):
        if energy <= target:
            break
        image = product(direction)
        curvature = (direction * image).sum()
        if curvature <= 0:  # only rounding is left in this direction
            break
        length = energy / curvature
        solution = solution + length * direction
        residual = residual - length * image
        improved = precondition(residual)
        before, energy = energy, (residual * improved).sum()
        direction = improved + (energy / before) * direction
    return solution
