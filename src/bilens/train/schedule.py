"""How a learning rate moves over a run."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["linear", "cosine"]


def learning_rate(peak: float, schedule: Schedule, warmup: float, step: int, total: int) -> float:
    """Return the rate of a step: up to the peak over the warm-up, then down towards zero.

    Args:
        peak: the rate at the end of the warm-up.
        schedule: the way down, "linear" or "cosine".
        warmup: share of the steps in which the rate rises.
        step: counted from 0, below `total`.
        total: steps of the run.
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    done = (step - rising) / (total - rising)
    return peak * (1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)
