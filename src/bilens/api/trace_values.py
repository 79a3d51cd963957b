"""The records of a trace as JSON values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.interactions.record import MULTIPLICITY, Interactions
from bilens.interp.behaviour import CausalEffect
from bilens.interp.clusters import Clusters
from bilens.interp.latent_readings import EigenvectorTokens, LatentContexts, TokenScore
from bilens.interp.layer_trace import NearestLatents
from bilens.interp.low_rank import LowRankFit

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 40  # of the distribution of correlations, from -1 to 1
SHOWN_EIGENVECTORS = 2  # with their nearest latents and tokens
DIGITS = 6  # significant, of what is one of many numbers in a list

Naming = Callable[[int], str]  # a token by its number


def short(value: float) -> float:
    """Return a number with few digits, so that long lists stay small."""
    return float(f"{value:.{DIGITS}g}")


def known(value: float | None) -> float | None:
    """Return a number; None for NaN, which is no number of JSON."""
    return None if value is None or math.isnan(value) else value


def token_values(scores: Sequence[TokenScore], name: Naming) -> list[dict[str, Any]]:
    """Return tokens with their numbers and texts."""
    return [
        {"id": score.token, "text": name(score.token), "value": short(score.value)}
        for score in scores
    ]


def ends(
    high: Sequence[TokenScore], low: Sequence[TokenScore], name: Naming
) -> dict[str, list[dict[str, Any]]]:
    """Return the tokens at both ends."""
    return {"high": token_values(high, name), "low": token_values(low, name)}


def latent_values(contexts: LatentContexts, tokens: dict[str, Any], name: Naming) -> dict[str, Any]:
    """Return one latent: where it is active, and its tokens."""
    return {
        "latent": contexts.latent,
        "density": contexts.density,
        "largest": short(contexts.largest),
        "contexts": [
            {
                "sequence": context.sequence,
                "start": context.start,
                "peak": context.peak,
                "tokens": [name(token) for token in context.tokens],
                "activations": [short(value) for value in context.activations],
            }
            for context in contexts.contexts
        ],
        "tokens": tokens,
    }


def causal_values(effect: CausalEffect, name: Naming) -> dict[str, Any]:
    """Return whether directions cause what goes with a latent."""
    tokens = {
        "high": [name(token) for token in effect.high],
        "low": [name(token) for token in effect.low],
    }
    return {
        "behaviour": tokens if effect.checks else None,
        "checks": [asdict(check) for check in effect.checks],
    }


def spectrum_values(
    pairs: EigenDecomposition,
    readings: Sequence[EigenvectorTokens],
    nearest: NearestLatents | None,
    row: int,
    name: Naming,
) -> dict[str, Any]:
    """Return the eigenvalues of one form, and how its leading eigenvectors are read.

    Args:
        pairs: of one form.
        readings: of its leading eigenvectors as tokens.
        nearest: input latents of a batch; None where there is no dictionary.
        row: of this form in that batch.
        name: names a token.
    """
    vectors = []
    for place, reading in enumerate(readings):
        near = [] if nearest is None else nearest_values(nearest, row, place)
        vectors.append(
            {
                "eigenvalue": reading.eigenvalue,
                "nearest": near,
                "tokens": ends(reading.positive, reading.negative, name),
            }
        )
    return {
        "eigenvalues": pairs.eigenvalues.tolist(),
        "num_eigenvalues": pairs.eigenvectors.shape[-1],
        "norm": float(pairs.norm),
        "explained": float(pairs.explained),
        "rounding_bound": float(pairs.rounding_bound),
        "complete": bool(pairs.complete),
        "eigenvectors": vectors,
    }


def nearest_values(nearest: NearestLatents, row: int, place: int) -> list[dict[str, Any]]:
    """Return the input latents closest to one eigenvector."""
    parts = (nearest.latents, nearest.cosines, nearest.projections)
    return [
        {"latent": latent, "cosine": short(cosine), "projection": short(projection)}
        for latent, cosine, projection in zip(
            *(part[row, place].tolist() for part in parts), strict=True
        )
    ]


def entry_values(found: Interactions, share: float) -> dict[str, Any]:
    """Return the largest interactions of one kind for one output, and the distribution of all."""
    histogram, moments = found.histogram, found.moments
    times = MULTIPLICITY[found.kind]
    return {
        "entries": [
            {"first": first, "second": second, "value": value, "coefficient": times * value}
            for first, second, value in zip(
                found.first.tolist(), found.second.tolist(), found.values.tolist(), strict=True
            )
        ],
        "count": int(moments.count),
        "mean": float(moments.mean),
        "standard_deviation": float(moments.std),
        "listed_share": share,
        "edges": [short(edge) for edge in histogram.edges.tolist()],
        "counts": histogram.counts.tolist(),
        "below": int(histogram.below),
        "above": int(histogram.above),
    }


FIT_NAMES = (
    "correlation",
    "correlation_active",
    "r_squared",
    "r_squared_active",
    "slope",
    "intercept",
    "null_correlation",
    "null_correlation_active",
    "null_edge_active",
)


def fit_values(fit: LowRankFit, row: int) -> list[dict[str, Any]]:
    """Return how well k eigenpairs predict one output latent, for each k."""
    return [
        {
            "rank": rank,
            **{name: known(float(getattr(fit, name)[row, place])) for name in FIT_NAMES},
        }
        for place, rank in enumerate(fit.ranks.tolist())
    ]


def correlation_values(fit: LowRankFit) -> dict[str, Any]:
    """Return the distribution over output latents of the correlations, for each k."""
    edges = torch.linspace(-1.0, 1.0, BINS + 1, dtype=torch.float64)
    columns = {
        "all": fit.correlation,
        "active": fit.correlation_active,
        "null": fit.null_correlation,
        "null_active": fit.null_correlation_active,
    }
    return {
        "num_latents": len(fit.latents),
        "num_latents_active": int((~fit.correlation_active[:, 0].isnan()).sum()),
        "num_random": fit.num_random,
        "edges": edges.tolist(),
        "ranks": [
            {
                "rank": rank,
                **{name: distribution(column[:, place], edges) for name, column in columns.items()},
            }
            for place, rank in enumerate(fit.ranks.tolist())
        ],
    }


def distribution(values: Tensor, edges: Tensor) -> dict[str, Any]:
    """Return quantiles and a histogram of the values that are numbers."""
    numbers = values[~values.isnan()].double().cpu().clamp(float(edges[0]), float(edges[-1]))
    if len(numbers) == 0:
        return {"levels": [], "values": [], "counts": [0] * (len(edges) - 1)}
    quantiles = numbers.quantile(torch.tensor(LEVELS, dtype=torch.float64))
    counts = torch.histogram(numbers, edges).hist
    return {
        "levels": list(LEVELS),
        "values": quantiles.tolist(),
        "counts": [int(count) for count in counts.tolist()],
    }


def cluster_values(clusters: Clusters) -> list[list[int]]:
    """Return the groups of more than one output latent."""
    return [
        [int(clusters.latents[place]) for place in group]
        for group in clusters.members
        if len(group) > 1
    ]
