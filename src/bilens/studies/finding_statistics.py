"""Rank correlations and areas under a ROC, each with a bootstrap interval over models."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

RESAMPLES = 2000
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
