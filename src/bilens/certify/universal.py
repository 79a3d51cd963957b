"""One change for all inputs: the one that provably lowers the mean margin most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_type
from bilens.base.errors import UsageError
from bilens.certify.arguments import checked_vector
from bilens.certify.contrast import contrast_of
from bilens.certify.secular import EPS
from bilens.certify.trust_region import solve_trust_region


@dataclass(frozen=True, eq=False)
class UniversalPerturbation:
    """The change of input that lowers the mean margin most, for each length allowed.

    Attributes:
        delta: (num, in), or (in,) where one radius was given; ‖delta‖ ≤ radius.
        change: (num,) or (), the mean margin with delta minus that without, not positive.
        lower: (num,) or (), no delta within the radius changes the mean margin by less than this.
        radius: (num,) or ().
        source: the output that should lose.
        target: the output that should win.
    """

    delta: Tensor
    change: Tensor
    lower: Tensor
    radius: Tensor
    source: int
    target: int

    @property
    def gap(self) -> Tensor:
        """(change − lower) / |lower|: 0 is a proof that nothing does better."""
        return torch.where(self.lower == 0, 0.0, (self.change - self.lower) / -self.lower)


def universal_perturbation(
    f: QuadraticMap,
    mean: Tensor,
    source: int,
    target: int,
    radius: float | Sequence[float] | Tensor,
    *,
    memory_limit: int | str | None = None,
) -> UniversalPerturbation:
    """Return the δ that lowers the mean of f_source − f_target most, with its proof.

    Math: over any data with mean μ, E[m(x + δ) − m(x)] = (2Aμ + b)·δ + δᵀAδ, A = Q_source −
        Q_target: one trust-region problem. It is optimal for the *mean margin*, not for the share
        of inputs that flip. `lower` is its dual bound, less what rounding may do.
    Cost: one eigendecomposition, O(hidden · in² + in³), whatever the number of radii; then
        O(in²) a radius.

    Args:
        f: the map, any floating dtype; it is read in float64.
        mean: μ, (in,).
        source: the output that should lose.
        target: the output that should win.
        radius: how long δ may be, in units of the input; one or several.
        memory_limit: bytes, or a text such as "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the
            memory at hand.

    Raises:
        ShapeError: If the mean has another width.
        NonFiniteError: If the mean or a radius is not finite.
        UsageError: If source and target are not two outputs, or a radius is negative.
        NumericalError: If the pair cannot be decomposed to the tolerance.
        MemoryLimitError: If the work would not fit.

    Source: J. Moré and D. Sorensen, Computing a trust region step, SIAM J. Sci. Stat. Comput. 4
        (1983).
    """
    check_type("f", f, QuadraticMap, "pass the map of a module, module.quadratic_map()")
    mu = checked_vector("mean", mean, f.sizes.d_in)
    radii = torch.as_tensor(radius, dtype=torch.float64).detach()
    if radii.ndim > 1 or bool((radii < 0).any()):
        raise UsageError(f"radius must be one or several numbers of at least 0, got {radius!r}.")
    exact = f.detach().to(torch.float64)
    contrast = contrast_of(exact, source, target, memory_limit)
    levels = radii.reshape(-1)
    gradient = contrast.gradient(mu[None]).expand(len(levels), -1)
    found = solve_trust_region(contrast.values, gradient, levels)
    delta = found.point @ contrast.vectors
    length = delta.norm(dim=1) * (1 + (f.sizes.d_in + 8) * EPS)
    delta = delta * torch.where(length > levels, levels / length, 1.0)[:, None]
    error = contrast.gradient_error(mu.norm()[None]) * levels + contrast.value_error * levels**2
    shape = radii.shape
    return UniversalPerturbation(
        delta.reshape(*shape, -1),
        found.value.reshape(shape),
        (found.lower - error).reshape(shape),
        radii,
        contrast.first,
        contrast.second,
    )
