"""Whether the weights look like those of a model that learnt its training inputs by heart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bilens.algebra.concentration import cosine_transform
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.leads import Leads, gradients, usual_length
from bilens.findings.reference import OVERFITTING, POWER
from bilens.records.image_warnings import Overfitting, OverfittingPart

SMALLEST_IMAGE = 14  # rows and columns, below which a row of weights has too few frequencies
INNER = 7  # a row of weights is read without this part of each side
UPPER = 0.9  # quantile over the inputs
COARSE, FINE = (0.0, 0.24), (0.6, 0.8)  # of the highest frequency
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


def readings(leads: Leads, first: Tensor) -> dict[str, float]:
    """Return the readings of a map and of the first linear map of its model, (hidden, in)."""
    return {
        "steepness": steepness(leads.f, leads.shape),
        "margin": margin(leads),
        **weight_readings(first, leads.shape),
    }


def margin(leads: Leads) -> float:
    """Return the lead of a class on its template over its usual slope, in units of the input."""
    scores = leads.f(leads.images)
    own = scores.gather(1, leads.sources[:, None])
    lead = own - scores.masked_fill(~leads.is_rival, -torch.inf).amax(dim=1, keepdim=True)
    slope = leads.slopes[leads.is_rival].norm(dim=1).median()
    return float(lead.mean() / slope) if slope > 0 else 0.0


def weight_readings(first: Tensor, shape: tuple[int, int]) -> dict[str, float]:
    """Return the readings of a first linear map alone, (hidden, in), ratios all of them.

    Its usual start is uniform within ±1/√in, with standard deviation 1/√(3 in). What is left of it
    is small, fine and without direction; what is learnt stands out of it.
    """
    weights = first.detach().double() * math.sqrt(3 * first.shape[1])
    few, many = sorted(weights.shape)
    edge = math.sqrt(many) + math.sqrt(few)  # of the singular values of the start
    columns = weights.square().mean(dim=0).sqrt()
    growth = float(weights.square().mean().sqrt())
    inner, size = inner_part(weights, shape)
    return {
        "growth": growth,
        "breadth": float(columns.quantile(UPPER)) / growth if growth > 0 else 0.0,
        "learnt": float((torch.linalg.svdvals(weights) > edge).double().mean()) + FLOOR,
        "fine": ratio(inner, size, FINE, COARSE),
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


def read_overfitting(leads: Leads, first: Tensor) -> Overfitting:
    """Return the gap that the readings speak of, or why there is none."""
    if reason := obstacle(leads.f, first, leads.shape):
        return Overfitting(None, None, None, None, None, (), reason)
    found = readings(leads, first)
    usual = OVERFITTING.usual
    parts = tuple(
        OverfittingPart(name, value, low=usual[name][0], high=usual[name][1])
        for name, value in found.items()
    )
    if OVERFITTING.is_outside(found):
        return Overfitting(None, None, None, None, None, parts, "unlike")
    score = OVERFITTING.gap(found)
    low, high = OVERFITTING.interval(found)
    rank, power = OVERFITTING.rank, POWER.overfitting
    limit = rank(OVERFITTING.threshold)
    return Overfitting(
        score, low, high, rank(score), limit, parts, "", rank(low), rank(high), power=power
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
