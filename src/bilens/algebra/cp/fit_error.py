"""How far a CP model is from its target, also where Gram matrices would only show rounding."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bilens.algebra.cp.factors import Factors
from bilens.algebra.cp.residual import EPS, SAFE, SLAB_PRODUCTS, slab_norm, slab_products
from bilens.algebra.cp.target import Target


class FitError(NamedTuple):
    """‖B − B̂‖ in units of ‖B‖.

    Attributes:
        relative_error: the error.
        resolution: the order of what rounding may have added to it or taken from it.
    """

    relative_error: float
    resolution: float


def fit_error(target: Target, factors: Factors) -> FitError:
    """Return ‖B − B̂‖/‖B‖ from Gram matrices, or from slabs where those cancel.

    1 − 2⟨B, B̂⟩ + ‖B̂‖² loses every digit once the error is below √eps of the terms. There the
    difference is taken before it is squared, one output at a time, if that takes no more than
    seconds; otherwise `resolution` says what is not known.

    Cost: O(rank · hidden · (in + out) + rank² · in); close to a perfect fit
        O(out · (hidden + rank) · in²) up to 10¹⁰ multiplications.
    """
    correlation = target.correlate(target.project(factors.left), target.project(factors.right))
    square, rounding = target.loss(factors, correlation, ridge=0.0), target.rounding(factors)
    if square <= SAFE / EPS * rounding:
        left, right = target.stacked.chunk(2)
        parts = (
            torch.cat([target.down, -factors.down], dim=1),
            torch.cat([left, factors.left]),
            torch.cat([right, factors.right]),
        )
        if slab_products(parts[0], parts[1]) <= SLAB_PRODUCTS:
            size = (rounding / EPS) ** 0.5
            return FitError(slab_norm(*parts), len(parts[1]) * EPS * size)
    error = max(square, 0.0) ** 0.5
    return FitError(error, rounding / max(error, rounding**0.5))
