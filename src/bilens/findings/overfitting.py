"""Whether the weights look like those of a model that learnt its training inputs by heart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bilens.algebra.concentration import cosine_transform
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.leads import gradients, usual_length
from bilens.findings.reference import OVERFITTING, POWER
from bilens.records.image_warnings import Overfitting, OverfittingPart

SMALLEST_IMAGE = 14  # rows and columns, below which a row of weights has too few frequencies
INNER = 7  # a row of weights is read without this part of each side
UPPER = 0.75  # quantile over the inputs
SECOND = slice(5, 10)  # eigenvectors of a class, by falling |λ|
COARSE, FINE, FINEST = (0.0, 0.24), (0.6, 0.8), (0.8, 1.01)  # of the highest frequency
FLOOR = 1e-3  # of a share, before its logarithm


def gaussian_blob(shape: tuple[int, int]) -> Tensor:
    """Return a Gaussian blob in the middle of an image, (in,), of unit length."""
    down, across = (
        torch.exp(-8 * ((torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5).square())
        for side in shape
    )
    blob = torch.outer(down, across).flatten()
    unit: Tensor = blob / blob.norm()
    return unit


def steepness(f: QuadraticMap, shape: tuple[int, int]) -> float:
    """Return how fast one class overtakes another at a Gaussian blob, in logits per unit."""
    slopes = gradients(f, usual_length(f.sizes.d_in) * gaussian_blob(shape)[None])[0]
    between = torch.pdist(slopes)
    return float(between.median()) if len(between) else 0.0


def readings(
    f: QuadraticMap, eigs: EigenDecomposition, first: Tensor, shape: tuple[int, int]
) -> dict[str, float]:
    """Return the readings of a map, its spectra, and the first linear map of its model.

    All but the steepness are ratios: to the usual start, or of frequencies to each other.
    """
    inner, size = inner_part(eigs.eigenvectors[:, SECOND].flatten(0, 1), shape)
    return {
        "steepness": steepness(f, shape),
        **weight_readings(first, shape),
        "fine_vectors": ratio(inner, size, FINE, COARSE),
    }


def weight_readings(first: Tensor, shape: tuple[int, int]) -> dict[str, float]:
    """Return the readings of a first linear map alone, (hidden, in).

    Its usual start is uniform within ±1/√in, with standard deviation 1/√(3 in). What is left of it
    is small, fine and without direction; what is learnt stands out of it.
    """
    weights = first.detach().double() * math.sqrt(3 * first.shape[1])
    few, many = sorted(weights.shape)
    sizes = torch.linalg.svdvals(weights) / (math.sqrt(many) + math.sqrt(few))  # 1: the start's end
    squares = sizes.square()
    learnt = squares[sizes > 1].sum() / squares.sum().clamp(min=torch.finfo(squares.dtype).tiny)
    columns = weights.square().mean(dim=0).sqrt()
    growth = float(weights.square().mean().sqrt())
    inner, size = inner_part(weights, shape)
    return {
        "growth": growth,
        "breadth": float(columns.quantile(UPPER)) / growth if growth > 0 else 0.0,
        "largest": float(sizes[0]),
        "learnt": float(learnt) + FLOOR,
        "finest": ratio(inner, size, FINEST, COARSE),
    }


def inner_part(rows: Tensor, shape: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Return images without their edges, and rows and columns of what is left."""
    down, across = (round(side / INNER) for side in shape)
    inner = rows.reshape(-1, *shape)[:, down : shape[0] - down, across : shape[1] - across]
    return inner.flatten(1), (inner.shape[1], inner.shape[2])


def ratio(rows: Tensor, shape: tuple[int, int], *bands: tuple[float, float]) -> float:
    """Return the mean power of images at frequencies of a band over that of another, or zero.

    The frequency is the larger of the two axes.
    """
    energy = cosine_transform(rows, shape).square().mean(dim=0)
    down, across = (torch.arange(side, dtype=torch.float64) / side for side in shape)
    frequency = torch.maximum(down[:, None], across)
    above, below = (
        float(energy[(frequency >= low) & (frequency < high)].mean()) for low, high in bands
    )
    return above / below if below > 0 else 0.0


def read_overfitting(
    f: QuadraticMap, eigs: EigenDecomposition, first: Tensor, shape: tuple[int, int]
) -> Overfitting:
    """Return the gap that the readings speak of, or why there is none."""
    if reason := obstacle(f, first, shape):
        return Overfitting(None, None, None, None, None, None, (), reason)
    found = readings(f, eigs, first, shape)
    parts = tuple(
        OverfittingPart(name, value, *OVERFITTING.usual[name]) for name, value in found.items()
    )
    if OVERFITTING.is_outside(found):
        return Overfitting(None, None, None, None, None, None, parts, "unlike")
    score = OVERFITTING.gap(found)
    low, high = OVERFITTING.interval(found)
    return Overfitting(
        *(score, low, high, OVERFITTING.rank(score), OVERFITTING.most, OVERFITTING.threshold),
        *(parts, "", OVERFITTING.rank(low), OVERFITTING.rank(high), POWER.overfitting),
    )


def obstacle(f: QuadraticMap, first: Tensor, shape: tuple[int, int]) -> str:
    """Return why there is no score, one of the reasons of `Overfitting`, or nothing."""
    if min(shape) == 1:
        return "not_an_image"
    if min(shape) < SMALLEST_IMAGE:
        return "too_small"
    if not bool(first.any()) or not steepness(f, shape) > 0:
        return "flat"
    return ""
