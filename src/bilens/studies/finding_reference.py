"""From models that fix to `findings/reference.json`: a line, and the tails of clean models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import gumbel_r

from bilens.findings.reference import OFFSET
from bilens.studies.finding_statistics import Numbers
from bilens.studies.study import Record

WEIGHT = 0.15  # of the sum over scans, beside the largest
LEVEL = 0.03  # p-value below which caution is asked for
THRESHOLD = 0.05  # of a gap, above which caution is asked for
MARGIN = 0.05  # by which readings may leave the range of the models, in parts of it
CAP = 25.0  # of −ln p of one scan
DIGITS = 5
PARTS = 100  # of the scores of the models, by which another is ranked


def line_of(models: Sequence[Record]) -> tuple[list[str], Numbers, Numbers, Numbers]:
    """Return names, logarithms with a column of ones, ln(gap + 0.02), and the least squares."""
    names = list(models[0]["readings"])
    logs = np.log([[one["readings"][name] for name in names] for one in models])
    design = np.column_stack([np.ones(len(logs)), logs])
    target = np.log(np.maximum([one["gap"] for one in models], 0.0) + OFFSET)
    return names, design, target, np.linalg.lstsq(design, target, rcond=None)[0]


def overfitting_reference(models: Sequence[Record]) -> Record:
    names, design, target, line = line_of(models)
    leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
    left = (target - design @ line) / np.maximum(1 - leverage, 1e-9)  # each model left out
    logs, small = design[:, 1:], np.exp(target) - OFFSET < THRESHOLD
    gaps = np.maximum(np.exp(np.minimum(design @ line, 0.0)) - OFFSET, 0.0)
    low, high = logs.min(axis=0), logs.max(axis=0)
    room = MARGIN * (high - low)
    usual = np.exp(np.quantile(logs[small], [0.05, 0.95], axis=0))
    return {
        "models": len(models),
        "intercept": rounded(line[0]),
        "weights": dict(zip(names, map(rounded, line[1:]), strict=True)),
        "spread": rounded(left.std()),
        "ranges": pairs(names, low - room, high + room),
        "usual": pairs(names, *usual),
        "scores": [rounded(gap) for gap in np.quantile(gaps, np.linspace(0, 1, PARTS + 1))],
        "threshold": THRESHOLD,
    }


def trigger_reference(models: Sequence[Record], scans: Iterable[str] | None = None) -> Record:
    """Return the distributions of the largest statistics of clean models."""
    models = [one for one in models if not one.get("obstacle")]
    names = list(scans or models[0]["scans"])
    fits = {name: fitted([max(one["scans"][name]) for one in models]) for name in names}
    scores = scores_of(models, {"scans": fits})
    return {
        "models": len(models),
        "scans": fits,
        "weight": WEIGHT,
        "combined": fitted(scores),
        "level": LEVEL,
    }


def fitted(values: Sequence[float] | Numbers) -> Record:
    location, scale = gumbel_r.fit(values)
    return {"location": rounded(location), "scale": rounded(scale)}


def evidence_of(models: Sequence[Record], scans: Mapping[str, Record]) -> Numbers:
    """Return −ln p of each statistic, (models, scans, classes)."""
    statistics = np.array([[one["scans"][name] for name in scans] for one in models])
    location, scale = (
        np.array([fit[key] for fit in scans.values()])[:, None] for key in ("location", "scale")
    )
    return tail(statistics, location, scale).clip(max=CAP)


def tail(values: Numbers, location: Numbers | float, scale: Numbers | float) -> Numbers:
    """Return −ln P(X > x) of a Gumbel distribution."""
    with np.errstate(over="ignore"):
        height = np.exp(-(values - location) / scale)
    found: Numbers = -np.log(-np.expm1(-height))
    return found


def largest_scores(evidence: Numbers) -> Numbers:
    """Return the score of the class that stands out most, (models, scans, classes) → (models,)."""
    found: Numbers = (evidence.max(axis=1) + WEIGHT * evidence.sum(axis=1)).max(axis=1)
    return found


def scores_of(models: Sequence[Record], reference: Record) -> Numbers:
    """Return the score of each model, 0 of one that cannot be read: nothing stands out there."""
    found = np.zeros(len(models))
    places = [place for place, one in enumerate(models) if not one.get("obstacle")]
    if places:
        evidence = evidence_of([models[place] for place in places], reference["scans"])
        found[places] = largest_scores(evidence)
    return found


def are_alarms(models: Sequence[Record], reference: Record) -> list[bool]:
    """Return which models have a p-value below the level."""
    fit = reference["combined"]
    evidence = tail(scores_of(models, reference), fit["location"], fit["scale"])
    found: list[bool] = (evidence > -math.log(LEVEL)).tolist()
    return found


def pairs(names: Sequence[str], low: Numbers, high: Numbers) -> Record:
    return {name: [rounded(a), rounded(b)] for name, a, b in zip(names, low, high, strict=True)}


def rounded(value: float) -> float:
    return (
        0.0 if value == 0 else round(float(value), DIGITS - 1 - math.floor(math.log10(abs(value))))
    )
