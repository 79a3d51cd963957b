"""The secular equation: one monotone function of a multiplier for each problem of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import frozen_result

EPS = torch.finfo(torch.float64).eps
SMALLEST = 2.0**-1022  # below it float64 loses digits
NO_EXPONENT = -(10**6)  # of zero; any other exponent is larger
TOLERANCE = 1e-13  # of the equation; bounds err by its square, points are moved onto the boundary
MAX_STEPS = 200
NEWTON_STEPS = 20  # after that every second step halves the bracket

Equation = Callable[["Sums"], tuple[Tensor, Tensor]]  # value, and its slope in τ


@dataclass(frozen=True, eq=False)
class Sums:
    """Σ g²/(4p), Σ g²/(4p²), Σ g²/(4p³) and the multiplier, (rows,) each."""

    first: Tensor
    second: Tensor
    third: Tensor
    multiplier: Tensor


@dataclass(frozen=True, eq=False)
class Secular:
    """One problem a row, in units where nothing overflows."""

    offsets: Tensor  # (rows, k), λ_i + least ≥ 0
    squares: Tensor  # (rows, k), g_i² / 4, rounded up to the smallest number where it vanishes
    least: Tensor  # (rows,), the smallest multiplier allowed, max(0, −λ_min)

    def sums(self, tau: Tensor) -> Sums:
        """Return the sums at multiplier least + τ; relative error at most (k + 8) eps each."""
        inverse = (self.offsets + tau[:, None]).reciprocal_()
        terms = self.squares * inverse
        first = terms.sum(dim=1)
        terms.mul_(inverse)
        second = terms.sum(dim=1)
        return Sums(first, second, terms.mul_(inverse).sum(dim=1), self.least + tau)

    def rows(self, chosen: Tensor) -> Secular:
        return Secular(self.offsets[chosen], self.squares[chosen], self.least[chosen])

    def floor(self) -> Tensor:
        """Return the smallest τ that is told from zero, (rows,)."""
        return (self.least * 2.0**-60).clamp_min(2.0**-1020)


def secular(values: Tensor, linear: Tensor, before: Tensor) -> Secular:
    """Return the problems of (rows, k) eigenvalues and linear terms, already in safe units."""
    least = (-values.amin(dim=1)).clamp_min(0)
    squares = linear.square().mul_(0.25)
    if squares.numel() and float(squares.min()) < SMALLEST:
        squares = torch.where(before != 0, squares.clamp_min(SMALLEST), 0.0)
    return Secular(values + least[:, None], squares, least)


def root(problem: Secular, equation: Equation, target: Tensor, high: Tensor) -> Tensor:
    """Return τ with equation(τ) = target for each row, or the floor where none is above it."""
    # Math: Newton on equation^−½, which is nearly linear near a pole, inside a bracket; a step that
    # leaves it is replaced by the geometric mean of its ends.
    low = problem.floor()
    result = low.clone()
    value, _ = equation(problem.sums(low))
    active = ((value > target) & (low < high)).nonzero()[:, 0]
    low, high = low[active], high[active]
    current, goal = problem.rows(active), target[active]
    mean = (current.squares * current.offsets).sum(dim=1) / current.squares.sum(dim=1)
    start = high - mean.nan_to_num(0.0)  # exact where all offsets are equal
    tau = torch.where(start > low, torch.minimum(start, high), low.sqrt() * high.sqrt())
    for step in range(MAX_STEPS):
        if len(active) == 0:
            break
        value, slope = equation(current.sums(tau))
        low, high = torch.where(value >= goal, tau, low), torch.where(value <= goal, tau, high)
        result[active] = tau
        open_rows = ((value - goal).abs() > TOLERANCE * goal) & (high > low * (1 + 2 * EPS))
        ratio = value / goal
        following = tau + 2 * value / -slope * (ratio.sqrt() - 1)
        middle = low.sqrt() * high.sqrt()
        halve = ~((following > low) & (following < high))
        if step >= NEWTON_STEPS and step % 2:
            halve[:] = True
        tau = torch.where(halve, middle, following)
        if 2 * int(open_rows.sum()) <= len(active):  # drop what is done
            active, current = active[open_rows], current.rows(open_rows)
            low, high, tau, goal = low[open_rows], high[open_rows], tau[open_rows], goal[open_rows]
    return result


def exponents(values: Tensor) -> Tensor:
    """Return e with |value| < 2ᵉ, int64; far below all others for zero."""
    exponent = torch.frexp(values).exponent.long()
    return torch.where(values == 0, NO_EXPONENT, exponent)


def row_exponents(rows: Tensor) -> Tensor:
    """Return e with every |entry| of a row below 2ᵉ, (..., k) → (...)."""
    return exponents(rows.abs().amax(dim=-1))


def vanishing(values: Tensor, exponent: Tensor) -> Tensor:
    """Return the loss of values (k,) or (rows, k) by underflow in units of 2^−exponent, (rows,)."""
    smallest = torch.where(values == 0, torch.inf, values.abs()).amin(dim=-1)
    return SMALLEST * (shifted(smallest, exponent) < SMALLEST).double()


def shifted(values: Tensor, exponent: Tensor) -> Tensor:
    """Values · 2^exponent, exact unless the result under- or overflows; the two broadcast."""
    exponent = exponent.clamp(-4000, 2046)
    half = exponent // 2
    return values * torch.exp2(half.double()) * torch.exp2((exponent - half).double())


def norm_of(vector: Tensor) -> Tensor:
    """Return ‖vector‖, as its norm alone where the squares stay in float64."""
    exponent = row_exponents(vector)
    return shifted(shifted(vector, -exponent).norm(), exponent)


def rounded_up(values: Tensor, exponent: Tensor) -> Tensor:
    """Return values · 2^exponent for bounds of errors: nothing positive becomes zero."""
    return torch.where(values > 0, shifted(values, exponent).clamp_min(SMALLEST), 0.0)


def checked_problems(values: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, (k,) or (rows, k), and linear terms, (rows, k), after a check."""
    rows, width = check_float_tensor("linear", linear, num_axes=2)
    if linear.dtype != torch.float64:
        raise ShapeError(f"linear has dtype {linear.dtype}; use linear.double().")
    shape = check_float_tensor("values", values, like=linear)
    if width == 0 or shape not in ((width,), (rows, width)):
        raise ShapeError(
            f"values has shape {shape} and linear {(rows, width)}; expected (k,) or (rows, k), and "
            "(rows, k), with k at least 1."
        )
    return values, linear


@frozen_result()
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

    Raises: ShapeError if the shapes do not fit, or a tensor is not float64; NonFiniteError if an
        entry is NaN or infinite; UsageError if a radius is negative.
    Source: J. Moré and D. Sorensen, Computing a trust region step, SIAM J. Sci. Stat. Comput. 4
        (1983).
    """
    values, linear = checked_problems(values, linear)
    check_shape("radius", radius, (len(linear),), like=linear)
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
