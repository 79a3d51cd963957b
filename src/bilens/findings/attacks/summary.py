"""One curve a kind of mask: means over its members and over all objectives."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from bilens.findings.attacks.masks import EDGE, OPTIMAL, OPTIMAL_EDGE, READS
from bilens.records.attack import Effect, MethodCurve, ObjectiveFinding, PerturbationFinding
from bilens.records.base import Numbers


def curves_of(objectives: Sequence[ObjectiveFinding]) -> tuple[MethodCurve, ...]:
    """Return the curves of the kinds that occur, in the order of READS."""
    found = [curve_of(kind, objectives) for kind in READS]
    return tuple(curve for curve in found if curve is not None)


def curve_of(kind: str, objectives: Sequence[ObjectiveFinding]) -> MethodCurve | None:
    """Return the curve of one kind; None if there is no such mask."""
    best_kind = OPTIMAL_EDGE if kind in EDGE else OPTIMAL
    pairs = [
        (mask, best_of(objective, best_kind))
        for objective in objectives
        for mask in objective.perturbations
        if mask.kind == kind
    ]
    if not pairs:
        return None
    change = average([mask.change for mask, _ in pairs])
    best = average([best.change for _, best in pairs])
    return MethodCurve(
        kind=kind,
        reads=READS[kind],
        edge=kind in EDGE,
        members=max(mask.member for mask, _ in pairs),
        effect=mean_effect([mask.effect for mask, _ in pairs]),
        clipped=mean_effect([mask.clipped for mask, _ in pairs]),
        change=change,
        gap=tuple(own - least for own, least in zip(change, best, strict=True)),
    )


def best_of(objective: ObjectiveFinding, kind: str) -> PerturbationFinding:
    """Return the optimal mask of an objective."""
    return next(mask for mask in objective.perturbations if mask.kind == kind)


def mean_effect(effects: Sequence[Effect]) -> Effect:
    """Return the mean of each number."""
    return Effect(
        average([effect.accuracy for effect in effects]),
        average([effect.margin for effect in effects]),
        average([effect.target_rate for effect in effects]),
    )


def average(rows: Sequence[Numbers]) -> Numbers:
    """Return the mean of each column."""
    return tuple(fmean(column) for column in zip(*rows, strict=True))
