"""Statistics of models: ranks and areas with bootstrap intervals; the line and tails that they fix.

`overfitting_reference` and `trigger_reference` are what `findings/reference.json` holds: a line
through gaps, and the distributions of the largest statistics of clean models.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, gumbel_r, rankdata

from bilens.findings import OFFSET
from bilens_studies.study import Record

RESAMPLES = 2000
WEIGHT = 0.15  # of the sum over scans, beside the largest
LEVEL = 0.03  # p-value below which caution is asked for
THRESHOLD = 0.05  # of a gap, above which caution is asked for
MARGIN = 0.05  # by which readings may leave the range of the models, in parts of it
CAP = 25.0  # of −ln p of one scan
DIGITS = 5
PARTS = 100  # of the scores of the models, by which another is ranked
Numbers: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float, float]  # value, and 95 % of the resamples


def rank_correlation(x: Numbers, y: Numbers) -> Numbers:
    """Return Spearman's correlation over the last axis; 0 where one of the two is constant."""
    ranks = np.stack([rankdata(x, axis=-1), rankdata(y, axis=-1)])
    ranks -= ranks.mean(axis=-1, keepdims=True)
    scale = np.sqrt((ranks[0] ** 2).sum(axis=-1) * (ranks[1] ** 2).sum(axis=-1))
    found: Numbers = (ranks[0] * ranks[1]).sum(axis=-1) / np.where(scale > 0, scale, 1.0)
    return found


def area_under_roc(positive: Numbers, negative: Numbers) -> Numbers:
    """Return the probability that a positive scores above a negative, ties half; last axis."""
    difference = positive[..., :, None] - negative[..., None, :]
    found: Numbers = ((difference > 0) + (difference == 0) / 2).mean(axis=(-2, -1))
    return found


def with_interval(statistic: Callable[..., Numbers], *groups: Numbers) -> Interval:
    """Return a statistic and the 95 % percentile interval over resamples of each group's rows.

    The statistic takes all resamples at once, on a first axis.
    """
    draw = np.random.default_rng(0)
    drawn = (draw.integers(len(group), size=(RESAMPLES, len(group))) for group in groups)
    values = statistic(*(group[rows] for group, rows in zip(groups, drawn, strict=True)))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(statistic(*(group[None] for group in groups))[0]), float(low), float(high)


def correlation(x: Sequence[float], y: Sequence[float]) -> Interval:
    pairs = np.stack([np.asarray(x, float), np.asarray(y, float)], axis=1)
    return with_interval(lambda rows: rank_correlation(rows[..., 0], rows[..., 1]), pairs)


def ahead(x: Sequence[float], other: Sequence[float], y: Sequence[float]) -> Interval:
    """Return by how much x ranks y better than |ρ| of another does, in the same resamples."""
    rows = np.stack([np.asarray(x, float), np.asarray(other, float), np.asarray(y, float)], axis=1)

    def difference(drawn: Numbers) -> Numbers:
        best = rank_correlation(drawn[..., 0], drawn[..., 2])
        found: Numbers = best - np.abs(rank_correlation(drawn[..., 1], drawn[..., 2]))
        return found

    return with_interval(difference, rows)


def area(positive: Sequence[float] | Numbers, negative: Sequence[float] | Numbers) -> Interval:
    groups = np.asarray(positive, float), np.asarray(negative, float)
    return with_interval(area_under_roc, *groups)


def macro_area(groups: Sequence[Numbers], negative: Numbers) -> Interval:
    """Return the mean area over kinds, each kind resampled alone."""

    def mean_area(*drawn: Numbers) -> Numbers:
        areas = [area_under_roc(group, drawn[-1]) for group in drawn[:-1]]
        found: Numbers = np.mean(areas, axis=0)
        return found

    return with_interval(mean_area, *groups, negative)


def share(hits: Sequence[bool]) -> Interval:
    """Return a share and its exact 95 % interval (Clopper–Pearson)."""
    found = binomtest(sum(hits), len(hits)).proportion_ci(0.95, method="exact")
    return sum(hits) / len(hits), float(found.low), float(found.high)


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
    found: Numbers = -gumbel_r.logsf(statistics, location, scale)
    return found.clip(max=CAP)


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
    evidence = -gumbel_r.logsf(scores_of(models, reference), fit["location"], fit["scale"])
    found: list[bool] = (evidence > -math.log(LEVEL)).tolist()
    return found


def pairs(names: Sequence[str], low: Numbers, high: Numbers) -> Record:
    return {name: [rounded(a), rounded(b)] for name, a, b in zip(names, low, high, strict=True)}


def rounded(value: float) -> float:
    return (
        0.0 if value == 0 else round(float(value), DIGITS - 1 - math.floor(math.log10(abs(value))))
    )
