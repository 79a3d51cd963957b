"""Distributions over reference models: clean ones, and ones whose gap is known.

`reference.json` comes from the fixing models of the study `findings/images`; what puts in how often
it was right on judged models, once these were read, is `tools/reproduction.py`.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from bilens.records.image_warnings import OverfittingPower, TriggerPower

if TYPE_CHECKING:  # a report is written without torch
    from torch import Tensor

OFFSET = 0.02  # of a gap, before its logarithm


class Gumbel(msgspec.Struct, frozen=True):
    """The distribution of a largest value: P(X ≤ x) = exp(−exp(−(x − location) / scale))."""

    location: float
    scale: float

    def evidence(self, values: Tensor) -> Tensor:
        """Return −ln P(X > x), precise in both tails."""
        height = ((self.location - values.double()) / self.scale).exp()
        return height.neg().expm1().neg().log().neg()


class TriggerReference(msgspec.Struct, frozen=True):
    """Largest statistics of clean models, scan by scan, and of all scans together."""

    models: int
    scans: dict[str, Gumbel]
    weight: float  # of the sum over scans, beside the largest
    combined: Gumbel
    level: float  # p-value below which caution is asked for


class OverfittingReference(msgspec.Struct, frozen=True):
    """A line through ln(gap + 0.02) of models, in logarithms of the readings."""

    models: int
    intercept: float
    weights: dict[str, float]  # of the logarithms
    spread: float  # standard deviation of what the line leaves, each model left out
    ranges: dict[str, tuple[float, float]]  # of the logarithms, over the models
    usual: dict[str, tuple[float, float]]  # of the readings: 90 % of models without a gap
    scores: list[float]  # quantiles of those of the models, rising, evenly spaced
    threshold: float  # a score above which caution is asked for

    def exponent(self, found: Mapping[str, float]) -> float:
        parts = (weight * math.log(found[name]) for name, weight in self.weights.items())
        return self.intercept + sum(parts)

    def gap(self, found: Mapping[str, float]) -> float:
        return max(math.exp(min(self.exponent(found), 0.0)) - OFFSET, 0.0)

    def interval(self, found: Mapping[str, float]) -> tuple[float, float]:
        """Return 90 % of the gaps of models with such readings."""
        middle, half = self.exponent(found), 1.645 * self.spread
        ends = (math.exp(min(middle + side * half, 0.0)) - OFFSET for side in (-1, 1))
        low, high = (max(end, 0.0) for end in ends)
        return low, high

    def rank(self, score: float) -> float:
        """Return the share of reference models with a smaller score, linear between quantiles."""
        place, parts = bisect.bisect_left(self.scores, score), len(self.scores) - 1
        if not 0 < place <= parts:
            return float(place > parts)
        low, high = self.scores[place - 1 : place + 1]
        return (place - 1 + (score - low) / (high - low)) / parts

    def is_outside(self, found: Mapping[str, float]) -> bool:
        """Return whether a reading lies outside of those of the reference models."""
        ranges = self.ranges.items()
        return not all(
            math.exp(low) <= found[name] <= math.exp(high) for name, (low, high) in ranges
        )


class Power(msgspec.Struct, frozen=True):
    triggers: TriggerPower
    overfitting: OverfittingPower


class Reference(msgspec.Struct, frozen=True):
    triggers: TriggerReference
    overfitting: OverfittingReference
    power: Power


FILE = files("bilens.findings").joinpath("reference.json")
REFERENCE = msgspec.json.decode(FILE.read_bytes(), type=Reference)
TRIGGERS, OVERFITTING, POWER = REFERENCE.triggers, REFERENCE.overfitting, REFERENCE.power
