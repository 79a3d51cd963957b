"""The nearest point of a quadric, with a lower bound by duality that counts its rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.algebra.shapes import check_shape
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result
from bilens.certify.trust_region import (
    EPS,
    SMALLEST,
    Secular,
    Sums,
    checked_problems,
    exponents,
    root,
    rounded_up,
    row_exponents,
    secular,
    shifted,
    vanishing,
)

LARGEST = torch.finfo(torch.float64).max
GRID = 64  # multipliers of a search, by factors of two


class Errors(NamedTuple):
    """How far the true problem may be from the one at hand, (rows,) each, in safe units."""

    values: Tensor
    linear: Tensor
    constant: Tensor


class Slack(NamedTuple):
    """The errors as a part of the eigenvalues and a part of the constant, (rows,) each."""

    # Math: an error γ of g costs γ‖δ‖ ≤ γ (ρ + ‖δ‖²/ρ) / 2 for every ρ > 0, so that the bound holds
    # whatever ρ is; it is best where ρ is the length of the nearest point.

    lowered: Tensor
    level: Tensor


@dataclass(frozen=True, eq=False)
class DualBound:
    """A lower bound on ‖δ‖², for all problems within the errors."""

    problem: Secular
    values: Tensor  # λ, (rows, k)
    constant: Tensor  # m(0), (rows,), positive
    errors: Errors

    @property
    def rounding(self) -> float:
        """Relative error of a sum of k terms that are not negative, at most."""
        return (self.values.shape[1] + 16) * EPS

    def rows(self, chosen: Tensor) -> DualBound:
        return DualBound(
            self.problem.rows(chosen),
            self.values[chosen],
            self.constant[chosen],
            Errors._make(part[chosen] for part in self.errors),
        )

    def slack(self, reach: Tensor, spare: Tensor) -> Slack:
        """Return the errors for ρ = the reach, or less where that would use up the constant.

        `spare` is what m has left where it is least, of which a quarter may be used up, too.
        """
        linear = self.errors.linear
        exact = linear == 0
        rho = torch.maximum(reach, spare / (2 * linear)).minimum(self.constant / (2 * linear))
        share = (linear / (2 * rho)).clamp_min(SMALLEST)  # what vanishes is not nothing
        lowered = self.errors.values + torch.where(exact, 0.0, share)
        level = self.constant * (1 - 8 * EPS) - self.errors.constant
        level = level - torch.where(exact, 0.0, linear * rho * (0.5 + 8 * EPS))
        return Slack(lowered * (1 + 8 * EPS), level)

    def at(self, tau: Tensor, slack: Slack) -> Tensor:
        """Return the bound for a multiplier, (rows,): inf where m is positive everywhere."""
        lowered = slack.lowered
        shifted = tau + lowered
        used = self.problem.sums(shifted).first * (1 + self.rounding)
        multiplier = self.problem.least + shifted + lowered
        squared = (slack.level - used).clamp_min(0) / multiplier * (1 - 16 * EPS)
        squared = squared.nan_to_num(0.0, posinf=LARGEST)
        lowest = self.values.amin(dim=1)
        if not bool((lowest >= lowered).any()):
            return squared
        rest = (self.values - lowered[:, None]) * (1 - 2 * EPS)
        steep = torch.where(rest > 0, self.problem.squares / rest, torch.inf)  # not at −0
        needed = torch.where(self.problem.squares > 0, steep, 0.0)
        everywhere = (rest >= 0).all(dim=1)
        everywhere &= needed.sum(dim=1) * (1 + self.rounding) < slack.level
        return torch.where(everywhere, torch.inf, squared)

    def best(self, tau: Tensor, high: Tensor, slack: Slack) -> Tensor:
        """Return the best bound of a grid of multipliers, where the root's cancels (tangency).

        Each is tried with two lengths ρ for the error of g: that of the root's point, and that of
        its own stationary point. The first may be a long step along a vector of nearly no
        eigenvalue, where rounding alone decides that m comes down to 0 there.
        """
        best = self.at(tau, slack)
        none = torch.zeros_like(tau)
        for step in range(GRID):
            nearby = tau + high.clamp_min(SMALLEST) * 2.0**-step
            own = self.slack(self.problem.sums(nearby).second.sqrt(), none)
            best = best.maximum(self.at(nearby, slack)).maximum(self.at(nearby, own))
        return best


POOR = 1e-8  # of ‖δ‖²: larger gaps are worth a search for a better multiplier,
CANCELLED = 1e-2  # where the bound is a small difference of numbers of the size of the constant


@frozen_result()
class QuadricDistance:
    """The distance of the origin to {δ : m(δ) ≤ 0}, enclosed: radius ≤ true distance ≤ distance.

    Attributes:
        radius: (rows,), m is proven to be positive inside; inf where it is positive everywhere.
        distance: (rows,), the length of the point; inf where none was found.
        point: (rows, k), m(point) ≤ 0, its rounding counted; NaN where none was found.
    """

    radius: Tensor
    distance: Tensor
    point: Tensor
    to_frame = frame("distance", "row")

    @property
    def gap(self) -> Tensor:
        """(distance − radius) / distance, (rows,): 0 is exact, 1 says nothing."""
        gap = 1 - self.radius / self.distance
        return torch.where(
            self.radius == self.distance, 0.0, torch.where(self.distance.isinf(), 1.0, gap)
        )


def distance_to_quadric(
    values: Tensor,
    linear: Tensor,
    constant: Tensor,
    *,
    value_error: Tensor | None = None,
    linear_error: Tensor | None = None,
    constant_error: Tensor | None = None,
) -> QuadricDistance:
    """Return the least ‖δ‖ with m(δ) = constant + g·δ + Σ_i λ_i δ_i² ≤ 0, for each row.

    Math: the least point is δ_i = −g_i / (2 (λ_i + μ)), with μ > max(0, −λ_min) the root of
        Σ g_i² (2μ + λ_i) / (4 (λ_i + μ)²) = constant. Where there is none and λ_min < 0 (hard
        case), a step along the vector of λ_min is added; where λ_min ≥ 0, m is positive everywhere.
        Weak duality: (constant − Σ g_i² / (4 (λ_i + μ))) / μ is a lower bound of ‖δ‖² for every
        such μ. It is evaluated with bounds on its rounding, and the errors are subtracted, so that
        `radius` holds whatever the iteration did.
    Cost: about 100 · rows · k operations, 10 · rows · k numbers of memory.

    Args:
        values: λ, (k,) or (rows, k), in any order.
        linear: g in the same coordinates, (rows, k). What lies outside the range of a matrix of
            low rank is one more coordinate, with λ = 0.
        constant: m(0), (rows,); where it is not positive, radius and distance are 0.
        value_error: (rows,), how far the matrix may be from the true one, in the spectral norm:
            `radius` holds for the true one. None is 0.
        linear_error: (rows,), likewise for g, in the Euclidean norm.
        constant_error: (rows,), likewise for the constant.

    Raises: ShapeError if the shapes do not fit, or a tensor is not float64; NonFiniteError if an
        entry is NaN or infinite.
    Source: J. Moré, Generalizations of the trust region problem, Optim. Methods Softw. 2 (1993).
    """
    values, linear = checked_problems(values, linear)
    given = (value_error, linear_error, constant_error)
    bounds = checked_bounds(linear, constant, given)
    positive = constant > 0
    level = torch.where(positive, constant, 1.0)
    height = exponents(level)
    unit = torch.minimum(height - row_exponents(linear), (height - row_exponents(values)) // 2)
    unit = torch.where(unit > 10**5, 0, unit)  # neither a quadratic nor a linear part
    scaled = shifted(values, (2 * unit - height)[:, None])
    slopes = shifted(linear, (unit - height)[:, None])
    errors = Errors(
        rounded_up(bounds[0], 2 * unit - height) + vanishing(values, 2 * unit - height),
        rounded_up(bounds[1], unit - height),
        rounded_up(bounds[2], -height),
    )
    problem = secular(scaled, slopes, linear)
    found = solved(problem, scaled, slopes, shifted(level, -height), errors)
    radius = shifted(found.radius, unit)
    radius = torch.where(found.radius.isinf(), torch.inf, radius.clamp_max(LARGEST))
    return QuadricDistance(
        torch.where(positive, radius, 0.0),
        torch.where(positive, shifted(found.distance, unit), 0.0),
        torch.where(positive[:, None], shifted(found.point, unit[:, None]), 0.0),
    )


def checked_bounds(
    linear: Tensor, constant: Tensor, given: Sequence[Tensor | None]
) -> list[Tensor]:
    """Return how far each part may be from the true one, checked with the constant; None is 0."""
    bounds = [constant.new_zeros(len(linear)) if error is None else error for error in given]
    for name, part in zip(
        ("constant", "value_error", "linear_error", "constant_error"),
        (constant, *bounds),
        strict=True,
    ):
        check_shape(name, part, (len(linear),), like=linear)
    return bounds


def solved(
    problem: Secular, values: Tensor, linear: Tensor, constant: Tensor, errors: Errors
) -> QuadricDistance:
    """Return the answer to problems in safe units, with constants between ½ and 1."""
    mass = problem.squares.sum(dim=1)
    high = (mass + (mass.square() + constant * mass * problem.least).sqrt()) / constant
    tau = root(problem, equation, constant, high * (1 + 1e-12))
    missing = constant - equation(problem.sums(tau))[0]
    point = nearest_point(problem, values, linear, tau, missing)
    length = point.norm(dim=1)
    point, distance = moved_onto(values, linear, constant, point)
    bound = DualBound(problem, values, constant, errors)
    unreached = distance.isinf()
    spare = torch.where(unreached & (problem.least == 0), missing, 0.0)
    slack = bound.slack(torch.where(unreached, length, distance), spare)
    squared = bound.at(tau, slack)
    cancelled = squared * (problem.least + tau) < CANCELLED * constant
    poor = (cancelled & (squared < distance.square() * (1 - POOR))).nonzero()[:, 0]
    if len(poor):
        theirs = Slack._make(part[poor] for part in slack)
        squared[poor] = bound.rows(poor).best(tau[poor], high[poor], theirs)
    return QuadricDistance(squared.sqrt() * (1 - 4 * EPS), distance, point)


def equation(sums: Sums) -> tuple[Tensor, Tensor]:
    """Return constant − m(δ) as a function of the multiplier, and its slope."""
    value = sums.first + sums.multiplier * sums.second
    return value, -2 * sums.multiplier * sums.third


def nearest_point(
    problem: Secular, values: Tensor, linear: Tensor, tau: Tensor, missing: Tensor
) -> Tensor:
    """Return the stationary point, with a step along the lowest vector in the hard case."""
    point = linear / (-2 * (problem.offsets + tau[:, None]))
    lowest = values.argmin(dim=1, keepdim=True)
    there = point.gather(1, lowest)[:, 0]
    missing = torch.where(tau == problem.floor(), missing.clamp_min(0), 0.0)
    half = problem.least * there.abs()  # m falls by least·t² + 2·half·t along the step t
    step = missing / (half + (half.square() + problem.least * missing).sqrt())
    step = torch.where((missing > 0) & (problem.least > 0), step, 0.0)
    return point.scatter_add(1, lowest, torch.where(there < 0, -step, step)[:, None])


def moved_onto(
    values: Tensor, linear: Tensor, constant: Tensor, point: Tensor
) -> tuple[Tensor, Tensor]:
    """Return points moved along their rays to where m ≤ 0 is certain, and their lengths."""
    slopes, bends = linear * point, values * point.square()
    slope, bend = slopes.sum(dim=1), bends.sum(dim=1)
    size_of = (slopes.abs().sum(dim=1), bends.abs().sum(dim=1))
    descent = (slope.square() - 4 * constant * bend).sqrt()
    t = 2 * constant / (descent - slope)
    allowed = (values.shape[1] + 16) * EPS

    def rounding(t: Tensor) -> Tensor:
        return allowed * (constant + t * size_of[0] + t.square() * size_of[1])

    t = t + 2 * rounding(t) / descent
    reached = constant + t * slope + t.square() * bend + rounding(t) <= 0
    reached &= t.isfinite() & (t > 0)
    moved = torch.where(reached[:, None], point * t[:, None], torch.nan)
    distance = moved.norm(dim=1) * (1 + (values.shape[1] + 4) * EPS)
    return moved, distance.nan_to_num(torch.inf, posinf=torch.inf)
