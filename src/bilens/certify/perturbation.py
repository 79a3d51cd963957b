"""Trust-region problems, and the one change of all inputs that lowers a mean margin most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_float_tensor, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import html_summary
from bilens.certify.contrast import contrast_of
from bilens.certify.inputs import checked_vector
from bilens.certify.secular import (
    EPS,
    Secular,
    Sums,
    checked_problems,
    exponents,
    root,
    row_exponents,
    secular,
    shifted,
    vanishing,
)


@dataclass(frozen=True, eq=False)
class TrustRegion:
    """The least value of m(δ) = g·δ + Σ λ_i δ_i² in a ball, enclosed: lower ≤ least ≤ value.

    Attributes:
        point: (rows, k), inside the ball.
        value: (rows,), m(point), at most 0.
        lower: (rows,), a proven lower bound of m in the whole ball.
    """

    point: Tensor
    value: Tensor
    lower: Tensor

    _repr_html_ = html_summary()

    @property
    def gap(self) -> Tensor:
        """(value − lower) / |lower|, (rows,): 0 is a proof that nothing does better."""
        return torch.where(self.lower == 0, 0.0, (self.value - self.lower) / -self.lower)


def solve_trust_region(values: Tensor, linear: Tensor, radius: Tensor) -> TrustRegion:
    """Return the global minimum of m(δ) = g·δ + Σ_i λ_i δ_i² over ‖δ‖ ≤ radius, for each row.

    Math: δ_i = −g_i / (2 (λ_i + ν)) with the smallest ν ≥ max(0, −λ_min) for which ‖δ‖ ≤ radius:
        the secular equation, by safeguarded Newton on 1/‖δ(ν)‖. In the hard case, where ‖δ‖ is too
        short for every ν, a step along the vector of λ_min fills the ball. Weak duality:
        −Σ g_i² / (4 (λ_i + ν)) − ν·radius² is a lower bound of m for every such ν.
        Both sides hold whatever the sizes; they may be apart where the value is less than 1e-150
        of radius · ‖g‖ + radius² · max|λ|, which is beyond the range of squares in float64.
    Cost: about 60 · rows · k operations, 8 · rows · k numbers of memory.

    Args:
        values: λ, (k,) or (rows, k), in any order.
        linear: g in the same coordinates, (rows, k). What lies outside the range of a matrix of
            low rank is one more coordinate, with λ = 0.
        radius: (rows,), not negative.

    Raises:
        ShapeError: If the shapes do not fit, or a tensor is not float64.
        NonFiniteError: If an entry is NaN or infinite.
        UsageError: If a radius is negative.

    Source: J. Moré and D. Sorensen, Computing a trust region step, SIAM J. Sci. Stat. Comput. 4
        (1983).
    """
    values, linear = checked_problems(values, linear)
    if check_float_tensor("radius", radius, num_axes=1, like=linear) != (len(linear),):
        raise ShapeError(f"radius has shape {tuple(radius.shape)}; expected ({len(linear)},).")
    if bool((radius < 0).any()):
        raise UsageError(f"a radius must not be negative, got {float(radius.min())}.")
    inside = radius > 0
    size = exponents(torch.where(inside, radius, 1.0))
    unit = torch.maximum(row_exponents(linear) + size, row_exponents(values) + 2 * size)
    unit = torch.where(unit < -(10**5), 0, unit)  # neither a quadratic nor a linear part
    scaled = shifted(values, (2 * size - unit)[:, None])
    slopes = shifted(linear, (size - unit)[:, None])
    problem = secular(scaled, slopes, linear)
    found = solved(problem, scaled, slopes, shifted(torch.where(inside, radius, 1.0), -size))
    lower = found.lower - vanishing(values, 2 * size - unit)
    return TrustRegion(
        torch.where(inside[:, None], shifted(found.point, size[:, None]), 0.0),
        torch.where(inside, shifted(found.value, unit), 0.0),
        torch.where(inside, shifted(lower, unit), 0.0),
    )


def solved(problem: Secular, values: Tensor, linear: Tensor, radius: Tensor) -> TrustRegion:
    """Return the answer to problems in safe units, with radii between ½ and 1."""
    width = values.shape[1]
    target = radius.square()
    tau = root(problem, equation, target, problem.squares.sum(dim=1).sqrt() / radius * (1 + 1e-12))
    sums = problem.sums(tau)
    point = linear / (-2 * (problem.offsets + tau[:, None]))
    lowest = values.argmin(dim=1, keepdim=True)
    there = point.gather(1, lowest)[:, 0]
    room = (target - point.square().sum(dim=1)).clamp_min(0)  # at a root, nothing but rounding
    room = torch.where(problem.least > 0, room, 0.0)
    step = (there.square() + room).sqrt() - there.abs()
    point = point.scatter_add(1, lowest, torch.where(there < 0, -step, step)[:, None])
    length = point.norm(dim=1) * (1 + (width + 8) * EPS)
    point = point * torch.where(length > radius, radius / length, 1.0)[:, None]
    value = (linear * point + values * point.square()).sum(dim=1)
    lower = -(sums.first + sums.multiplier * target) * (1 + (width + 16) * EPS)
    lower = torch.where(problem.squares.any(dim=1) | (problem.least > 0), lower, 0.0)
    return TrustRegion(point, value.clamp_max(0), torch.minimum(lower, value))


def equation(sums: Sums) -> tuple[Tensor, Tensor]:
    """Return ‖δ‖² as a function of the multiplier, and its slope."""
    return sums.second, -2 * sums.third


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

    _repr_html_ = html_summary()

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
