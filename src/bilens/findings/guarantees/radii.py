"""How far the inputs of a data set can move before the prediction changes, and how close that is.

Euclidean radii are exact; for the largest entry, where exactness is NP-hard, two bounds.
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.certify.inputs import RadiusStatus
from bilens.certify.l2_certificates import L2Radius, certified_accuracy, l2_radius, projected_margin
from bilens.certify.linf_certificates import linf_radius
from bilens.records.guarantees import (
    Box,
    CurvePoint,
    EuclideanRadii,
    InputInterval,
    InputRadius,
    LargestEntryRadii,
)

OPEN_GAP = 1e-6  # relative: radius and distance farther apart than this are not called equal
CURVE_STEPS, ROUND_STEPS = 100, (1, 2, 2.5, 5, 10)
RESTARTS, STEPS = 4, 20  # of the attack that bounds the ℓ∞ distance from above


def euclidean_radii(f: QuadraticMap, x: Tensor, labels: Tensor, box: Box) -> EuclideanRadii:
    """Return the radii of inputs, numbered from 0, with the share of them up to each length.

    Cost: that of `l2_radius`.
    """
    found = l2_radius(f, x, labels)
    gap = found.gap
    moved = found.radius > 0
    elsewhere = moved & found.distance.isfinite()
    margins = projected_margin(f, found, box.low, box.high)
    kinds = Counter(_name(status) for status in found.status)
    return EuclideanRadii(
        num_inputs=len(x),
        num_right=int((found.margin > 0).sum()),
        median=finite(median(found.radius)),
        curve=certified_curve(found),
        statuses={_name(status): kinds[_name(status)] for status in RadiusStatus},
        num_open=int((moved & found.radius.isfinite() & (gap > OPEN_GAP)).sum()),
        largest_gap=float(gap[elsewhere].amax()) if bool(elsewhere.any()) else 0.0,
        num_examples=int(elsewhere.sum()),
        num_examples_in_box=int((elsewhere & (margins < 0)).sum()),
        inputs=tuple(
            InputRadius(
                index=index,
                label=int(found.label[index]),
                status=_name(found.status[index]),
                radius=finite(found.radius[index]),
                distance=finite(found.distance[index]),
                rival=int(found.rival[index]) if found.rival[index] >= 0 else None,
                margin=float(found.margin[index]),
            )
            for index in range(len(x))
        ),
    )


def certified_curve(found: L2Radius) -> tuple[CurvePoint, ...]:
    """Return certified accuracy at evenly spaced lengths, from 0 to one that no radius exceeds."""
    finite_radii = found.radius[found.radius.isfinite()]
    largest = float(finite_radii.max()) if len(finite_radii) else 0.0
    end = round_up(largest) if largest > 0 else 1.0
    levels = [end * step / CURVE_STEPS for step in range(CURVE_STEPS + 1)]
    shares = certified_accuracy(found, levels).tolist()
    return tuple(CurvePoint(*pair) for pair in zip(levels, shares, strict=True))


def round_up(value: float) -> float:
    """Return the next number of the form 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in ROUND_STEPS if step * power >= value * (1 - 1e-12))


def largest_entry_radii(
    f: QuadraticMap, x: Tensor, labels: Tensor, generator: torch.Generator
) -> LargestEntryRadii:
    """Return bounds on the ℓ∞ distance of inputs, numbered from 0.

    Cost: that of `linf_radius`.
    """
    found = linf_radius(f, x, labels, generator, RESTARTS, STEPS)
    return LargestEntryRadii(
        num_inputs=len(x),
        median_lower=finite(median(found.radius)),
        median_upper=finite(median(found.upper)),
        restarts=RESTARTS,
        steps=STEPS,
        inputs=tuple(
            InputInterval(
                index,
                _name(found.status[index]),
                finite(found.radius[index]),
                finite(found.upper[index]),
            )
            for index in range(len(x))
        ),
    )


def median(values: Tensor) -> float:
    """Return the lower median, which is one of the values."""
    return float(values.sort().values[(len(values) - 1) // 2])


def finite(value: Tensor | float) -> float | None:
    """Return a number, or None where it is infinite."""
    number = float(value)
    return number if math.isfinite(number) else None


def _name(status: RadiusStatus) -> str:
    return status.name.lower()
