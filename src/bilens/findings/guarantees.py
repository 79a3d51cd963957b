"""Guarantees for a classifier: radii, truncation, use of inputs, rounding of weights."""

import copy
import math
from collections import Counter
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from bilens.algebra.directions import output_form, outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.gaussian import mean_and_covariance
from bilens.algebra.map_comparison import Kind, rounded
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import UsageError
from bilens.certify.contrast import PairSpectra
from bilens.certify.input_influence import influence_range
from bilens.certify.input_use import InputRows, linear_part, unused_inputs
from bilens.certify.inputs import RadiusStatus
from bilens.certify.l2_certificates import L2Radius, certified_accuracy, l2_radius, projected_margin
from bilens.certify.linf_certificates import linf_radius
from bilens.certify.stability import spectrum_stability
from bilens.certify.truncated_agreement import certified_agreement
from bilens.certify.truncation import truncation_error, truncation_moments
from bilens.nn import BilinearClassifier
from bilens.records.guarantees import (
    Box,
    CurvePoint,
    EuclideanRadii,
    Influence,
    InputInterval,
    InputRadius,
    InputUse,
    LargestEntryRadii,
    RoundedClass,
    RoundingStability,
    TruncationGuarantee,
    TruncationGuarantees,
)

ROWS = 64  # inputs whose rows are read at a time
SPARE = 1e-9  # relative: more than the rounding of a limit


def input_use(f: QuadraticMap, centred: QuadraticMap, box: Box | None) -> InputUse:
    """Return unused inputs of a map, and in a box the strongest input of each centred output."""
    found = unused_inputs(f)
    influence: tuple[Influence, ...] = ()
    if box is not None:
        limits = influence_limits(centred, box)
        influence = tuple(strongest(centred, c, limits[c], box) for c in range(f.sizes.d_out))
    return InputUse(
        unused=tuple(found.unused.nonzero()[:, 0].tolist()),
        num_undecided=int(found.undecided.sum()),
        influence=influence,
    )


def influence_limits(f: QuadraticMap, box: Box) -> Tensor:
    """Return limits that no influence exceeds, (out, in); cheap, and not reached."""
    # Output c as a function of x_i alone is q t² + s t + a constant, so that it varies by at most
    # (high − low) · max |2 q t + s| ≤ (high − low) · (|b_i| + 2 Σ_j |q_ij| · max |x_j|).
    rows, width = InputRows.from_map(f), f.sizes.d_in
    farthest = max(abs(box.low), abs(box.high))
    parts = [slice(start, start + ROWS) for start in range(0, width, ROWS)]
    sums = torch.cat([rows.form_rows(part).abs().sum(dim=2) for part in parts], dim=1)
    sums = sums + rows.rounding() * width**0.5  # the 1-norm of what a row is off by, at most
    slope = linear_part(f).abs() + 2 * farthest * sums
    limits: Tensor = slope * (box.high - box.low) * (1 + SPARE)
    return limits


def strongest(f: QuadraticMap, output: int, limits: Tensor, box: Box) -> Influence:
    """The input that moves an output most: from the largest limit down, until none is left."""
    low, high = (
        torch.full((f.sizes.d_in,), end, dtype=torch.float64) for end in (box.low, box.high)
    )
    best, bound = None, 0.0
    for position in limits.argsort(descending=True).tolist():
        if best is not None and float(limits[position]) <= bound:
            break
        found = influence_range(f, position, (low, high), output)
        bound = max(bound, found.bound)
        if best is None or found.reached > best.reached:
            best = found
    assert best is not None, "a map has an input"
    return Influence(output, best.input, bound, best.reached)


OPEN_GAP = 1e-6  # relative: radius and distance farther apart than this are not called equal
CURVE_STEPS, ROUND_STEPS = 100, (1, 2, 2.5, 5, 10)
RESTARTS, STEPS = 4, 20  # of the attack that bounds the ℓ∞ distance from above


def euclidean_radii(
    f: QuadraticMap,
    x: Tensor,
    labels: Tensor,
    box: Box | None,
    pairs: PairSpectra | None = None,
    rows: Tensor | None = None,
) -> EuclideanRadii:
    """Return the radii of inputs, with the share of them up to each length.

    `rows` are their numbers in the data set; None for all of it.
    """
    numbers = range(len(x)) if rows is None else rows.tolist()
    found = l2_radius(f, x, labels, pairs)
    moved = found.radius > 0
    elsewhere = moved & found.distance.isfinite()
    assert box is not None, "inputs have one"
    margins = projected_margin(f, found, box.low, box.high)
    kinds = Counter(found.status)
    return EuclideanRadii(
        num_inputs=len(x),
        num_right=int((found.margin > 0).sum()),
        median=finite(median(found.radius)),
        curve=certified_curve(found),
        statuses={_name(status): kinds[status] for status in RadiusStatus},
        num_open=int((moved & found.radius.isfinite() & (found.gap > OPEN_GAP)).sum()),
        largest_gap=float(found.gap[elsewhere].amax()) if bool(elsewhere.any()) else 0.0,
        num_examples=int(elsewhere.sum()),
        num_examples_in_box=int((elsewhere & (margins < 0)).sum()),
        inputs=tuple(
            InputRadius(
                index=index,
                label=int(found.label[at]),
                status=_name(found.status[at]),
                radius=finite(found.radius[at]),
                distance=finite(found.distance[at]),
                rival=int(found.rival[at]) if found.rival[at] >= 0 else None,
                margin=float(found.margin[at]),
            )
            for at, index in enumerate(numbers)
        ),
    )


def certified_curve(found: L2Radius) -> tuple[CurvePoint, ...]:
    """Return certified accuracy at evenly spaced lengths, from 0 to one that no radius exceeds."""
    largest = max(filter(math.isfinite, found.radius.tolist()), default=0.0)
    end = round_up(largest) if largest > 0 else 1.0
    levels = [end * step / CURVE_STEPS for step in range(CURVE_STEPS + 1)]
    shares = certified_accuracy(found, levels).tolist()
    return tuple(CurvePoint(radius, share) for radius, share in zip(levels, shares, strict=True))


def round_up(value: float) -> float:
    """Return the next number of the form 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in ROUND_STEPS if step * power >= value * (1 - 1e-12))


def largest_entry_radii(
    f: QuadraticMap, x: Tensor, labels: Tensor, generator: torch.Generator, rows: Tensor
) -> LargestEntryRadii:
    """Return bounds on the ℓ∞ distance of inputs; `rows` are their numbers in the data set."""
    found = linf_radius(f, x, labels, generator, RESTARTS, STEPS)
    bounds = zip(rows.tolist(), found.status, found.radius, found.upper, strict=True)
    return LargestEntryRadii(
        num_inputs=len(x),
        median_lower=finite(median(found.radius)),
        median_upper=finite(median(found.upper)),
        restarts=RESTARTS,
        steps=STEPS,
        inputs=tuple(
            InputInterval(index, _name(status), finite(lower), finite(upper))
            for index, status, lower, upper in bounds
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


SHOWN_VECTORS = 5  # leading eigenvectors of each class


def rounding_stability(module: BilinearClassifier) -> tuple[RoundingStability, ...]:
    """Return, for float16, bfloat16 and int8, how far eigenvalues and eigenvectors can move."""
    f = outputs_of(module.quadratic_map().detach(), centred=True)
    found = []
    for kind in get_args(Kind):
        try:
            short = outputs_of(rounded_copy(module, kind).quadratic_map().detach(), centred=True)
        except UsageError as error:  # a weight beyond float16
            found.append(RoundingStability(kind, str(error), ()))
            continue
        classes = []
        for output in range(f.sizes.d_out):  # all pairs prove gaps
            one = spectrum_stability(output_form(f, output), output_form(short, output))
            largest = float(one.decomposition.eigenvalues.abs().max())
            sines = tuple(one.sine[:SHOWN_VECTORS].tolist())
            classes.append(RoundedClass(one.change, one.norm, one.movement, largest, sines))
        found.append(RoundingStability(kind, None, tuple(classes)))
    return tuple(found)


@torch.no_grad()
def rounded_copy(module: BilinearClassifier, kind: Kind) -> BilinearClassifier:
    """Return a copy whose weights are rounded."""
    evaluated = copy.deepcopy(module)
    for parameter in evaluated.parameters():
        if kind != "int8" or parameter.ndim == 2:
            parameter.copy_(rounded(parameter.detach(), kind))
    return evaluated


SHOWN = (1, 2, 5, 10, 20)
LEVEL = 0.99  # of certified agreement


def truncation_guarantees(
    f: QuadraticMap,
    eigs: EigenDecomposition,
    ball: tuple[float, str],
    x: Tensor | None = None,
    asked: int | None = None,
) -> TruncationGuarantees:
    """Proven bounds for several k, and the k that was asked for or is enough for the data."""
    radius, origin = ball  # of all inputs of at most a length
    width = eigs.eigenvalues.shape[1]
    shown = {k for k in SHOWN if k < width}
    chosen, by = asked, "none"
    if asked is not None:
        by, shown = "asked", shown | {asked}
    elif x is not None:
        chosen = enough(
            lambda k: certified_agreement(f, k, x, eigs).certified_share >= LEVEL, width
        )
        if chosen is not None:
            by, shown = "agreement", shown | {chosen, max(chosen - 1, 0)}
    moments = None if x is None else mean_and_covariance(x)
    points = []
    for k in sorted(shown):
        error = truncation_error(eigs, k, radius)
        agreed = None if x is None else certified_agreement(f, k, x, eigs)
        spread = None if moments is None else truncation_moments(eigs, k, *moments)
        points.append(
            TruncationGuarantee(
                k=k,
                bounds=tuple(error.bound.tolist()),
                attained=tuple(error.attained.tolist()),
                certified=None if agreed is None else agreed.certified_share,
                agreement=None if agreed is None else agreed.agreeing_share,
                mean=None if spread is None else tuple(spread.mean.tolist()),
                deviation=None if spread is None else tuple(spread.variance.sqrt().tolist()),
            )
        )
    return TruncationGuarantees(radius, origin, LEVEL, chosen, by, tuple(points))


def enough(reaches: Callable[[int], bool], width: int) -> int | None:
    """Return a k that reaches the level while k − 1 does not, by doubling and bisection."""
    below, k = -1, 1
    while not reaches(min(k, width)):
        below = min(k, width)
        if below == width:
            return None
        k *= 2
    above = min(k, width)
    while above - below > 1:
        middle = (above + below) // 2
        if reaches(middle):
            above = middle
        else:
            below = middle
    return above
