"""Rank correlations and areas under a ROC, each with a bootstrap interval over models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

RESAMPLES = 2000
Numbers = NDArray[np.float64]


def rank_correlation(x: Sequence[float] | Numbers, y: Sequence[float] | Numbers) -> Numbers:
    """Return Spearman's correlation over the last axis; 0 where one of the two is constant."""
    ranks = np.stack([rankdata(x, axis=-1), rankdata(y, axis=-1)])
    ranks -= ranks.mean(axis=-1, keepdims=True)
    scale = np.sqrt((ranks[0] ** 2).sum(axis=-1) * (ranks[1] ** 2).sum(axis=-1))
    found: Numbers = (ranks[0] * ranks[1]).sum(axis=-1) / np.where(scale > 0, scale, 1.0)
    return found


def area_under_roc(
    positive: Sequence[float] | Numbers, negative: Sequence[float] | Numbers
) -> Numbers:
    """Return the probability that a positive scores above a negative, ties half; last axis."""
    difference = np.asarray(positive)[..., :, None] - np.asarray(negative)[..., None, :]
    found: Numbers = (difference > 0).mean(axis=(-2, -1)) + (difference == 0).mean(
        axis=(-2, -1)
    ) / 2
    return found


def interval(
    statistic: Callable[..., Numbers], *groups: Numbers, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval over resamples of each group's rows.

    The statistic takes all resamples at once, on a first axis.
    """
    draw = np.random.default_rng(seed)
    drawn = [
        [draw.integers(len(group), size=len(group)) for group in groups] for _ in range(RESAMPLES)
    ]
    values = statistic(
        *(group[list(rows)] for group, rows in zip(groups, zip(*drawn, strict=True), strict=True))
    )
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def correlation_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return the interval of a rank correlation over models."""
    pairs = np.stack([np.asarray(x, float), np.asarray(y, float)], axis=1)
    return interval(lambda rows: rank_correlation(rows[..., 0], rows[..., 1]), pairs)


def least_squares(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Return coefficients, the constant first, and what each row is predicted by the others.

    Math: leave-one-out residuals e_i / (1 − h_ii), h the diagonal of the hat matrix.
    """
    design = np.column_stack([np.ones(len(x)), x])
    inverse = np.linalg.pinv(design)
    hat = np.einsum("ij,ji->i", design, inverse)
    coefficients = inverse @ y
    return coefficients, y - (y - design @ coefficients) / np.maximum(1 - hat, 1e-9)


def best_three(columns: dict[str, Numbers], y: Numbers) -> tuple[str, ...]:
    """Return the three columns whose fit, left one out, ranks the models best."""

    def quality(names: tuple[str, ...]) -> float:
        return float(rank_correlation(least_squares(standard(columns, names), y)[1], y))

    return max(combinations(sorted(columns), 3), key=quality)


def standard(columns: dict[str, Numbers], names: Sequence[str]) -> Numbers:
    """Return columns side by side, each in units of its deviation."""
    table = np.column_stack([columns[name] for name in names])
    scale = table.std(axis=0)
    units: Numbers = (table - table.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    return units
