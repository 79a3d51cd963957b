"""Weak duality: a lower bound of a distance from any multiplier, its rounding counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.certify.secular import EPS, SMALLEST, Secular

LARGEST = torch.finfo(torch.float64).max
GRID = 64  # multipliers of a search, by factors of two


@dataclass(frozen=True, eq=False)
class Errors:
    """How far the true problem may be from the one at hand, (rows,) each, in safe units."""

    values: Tensor
    linear: Tensor
    constant: Tensor


@dataclass(frozen=True, eq=False)
class Slack:
    """The errors as a part of the eigenvalues and a part of the constant, (rows,) each.

    An error γ of g costs γ‖δ‖ ≤ γ (ρ + ‖δ‖²/ρ) / 2, for every ρ > 0.
    """

    lowered: Tensor
    level: Tensor

    def rows(self, chosen: Tensor) -> Slack:
        """Return some of the rows."""
        return Slack(self.lowered[chosen], self.level[chosen])


@dataclass(frozen=True, eq=False)
class DualBound:
    """What ‖δ‖² cannot be below, for all problems within the errors.

    Attributes:
        problem: the secular equation.
        values: λ, (rows, k).
        constant: m(0), (rows,), positive.
        errors: of the three parts.
    """

    problem: Secular
    values: Tensor
    constant: Tensor
    errors: Errors

    @property
    def rounding(self) -> float:
        """Relative error of a sum of k terms that are not negative, at most."""
        return (self.values.shape[1] + 16) * EPS

    def rows(self, chosen: Tensor) -> DualBound:
        """Return some of the rows."""
        return DualBound(
            self.problem.rows(chosen),
            self.values[chosen],
            self.constant[chosen],
            Errors(
                self.errors.values[chosen],
                self.errors.linear[chosen],
                self.errors.constant[chosen],
            ),
        )

    def slack(self, missing: Tensor, distance: Tensor) -> Slack:
        """Return the errors for ρ = the distance, or less where that would use up the constant."""
        linear = self.errors.linear
        exact = linear == 0
        unreached = distance.isinf() & (self.problem.least == 0)
        margin = torch.where(unreached, missing, self.constant).clamp_min(SMALLEST)
        rho = torch.minimum(distance, margin / (2 * linear))
        lowered = self.errors.values + torch.where(exact, 0.0, linear / (2 * rho))
        level = self.constant * (1 - 8 * EPS) - self.errors.constant
        level = level - torch.where(exact, 0.0, linear * rho * (0.5 + 8 * EPS))
        return Slack(lowered * (1 + 8 * EPS), level)

    def at(self, tau: Tensor, slack: Slack) -> Tensor:
        """Return the bound for a multiplier, (rows,): inf where m is positive everywhere.

        With eigenvalues lowered by e, the multiplier least + τ + 2e leaves p_i = offset_i + τ + e.
        """
        lowered = slack.lowered
        place = tau + lowered
        used = self.problem.sums(place).first * (1 + self.rounding)
        multiplier = self.problem.least + place + lowered
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
        """Return the best bound of a grid of multipliers, where the root's cancels (tangency)."""
        best = self.at(tau, slack)
        for step in range(GRID):
            best = best.maximum(self.at(tau + high.clamp_min(SMALLEST) * 2.0**-step, slack))
        return best
