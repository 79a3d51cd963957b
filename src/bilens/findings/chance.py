"""The level of chance: what a quantity is under the rotation null."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

LEVEL = 0.95
MINIMUM_SAMPLES = 39  # the fewest that can hold 95 % between two order statistics


@dataclass(frozen=True)
class Chance:
    """A quantity under the rotation null: its median and the interval that holds 95 %."""

    median: float
    low: float
    high: float


def chance(samples: Tensor) -> Chance:
    """Return the median of a quantity under the null, and an interval that holds at least 95 %.

    The ends are order statistics, ⌊0.025 (samples + 1)⌋ from either side, so that another draw of
    the null lies between them with probability 1 − 2⌊0.025 (samples + 1)⌋ / (samples + 1).
    """
    ordered = samples.sort().values
    outside = math.floor((1 - LEVEL) / 2 * (len(samples) + 1) + 1e-9)
    assert outside >= 1, "the audit asks for at least MINIMUM_SAMPLES"
    low, high = float(ordered[outside - 1]), float(ordered[-outside])
    return Chance(float(samples.median()), low, high)
