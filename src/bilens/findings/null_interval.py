"""What a quantity is under the null distribution: its median and an interval."""

from __future__ import annotations

import math

from torch import Tensor

from bilens.records.verdict import NullInterval

LEVEL = 0.95
MINIMUM_SAMPLES = 39  # the fewest that can hold 95 % between two order statistics


def null_interval(samples: Tensor) -> NullInterval:
    """Return the median of a quantity under the null, and an interval that holds at least 95 %.

    The ends are order statistics, ⌊0.025 (samples + 1)⌋ from either side, so that another draw of
    the null lies between them with probability 1 − 2⌊0.025 (samples + 1)⌋ / (samples + 1).
    """
    ordered = samples.sort().values
    outside = math.floor((1 - LEVEL) / 2 * (len(samples) + 1) + 1e-9)
    assert outside >= 1, "the audit asks for at least MINIMUM_SAMPLES"
    low, high = float(ordered[outside - 1]), float(ordered[-outside])
    return NullInterval(float(samples.median()), low, high)
