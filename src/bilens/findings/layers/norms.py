"""Which layer has weights of another size than the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from msgspec.structs import replace

from bilens.records.layer_audit import LayerReading

FEWEST = 5  # layers that say what is usual
CONSISTENT = 0.6745  # makes the median deviation of a normal variable one standard deviation
SMALLEST = 0.01  # median deviation of a logarithm: layers that agree to 1 % do not make 5 % huge


def with_norm_scores(layers: Sequence[LayerReading]) -> tuple[LayerReading, ...]:
    """Return the readings with the robust z of each weight norm; None with few layers.

    Math: 0.6745 (x − median) / median |x − median|, x = log of the norm; layers whose norm is zero
        take no part.

    Source: B. Iglewicz, D. Hoaglin, How to detect and handle outliers (1993).
    """
    sizes = [math.log(norm) for layer in layers if (norm := layer.weight_norm)]
    if len(sizes) < FEWEST:
        return tuple(layers)
    middle = median(sizes)
    spread = max(median(abs(size - middle) for size in sizes), SMALLEST)
    return tuple(
        replace(layer, norm_z=CONSISTENT * (math.log(layer.weight_norm) - middle) / spread)
        if layer.weight_norm
        else layer
        for layer in layers
    )
