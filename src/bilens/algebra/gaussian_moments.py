"""Mean and variance of a quadratic map under a Gaussian input, from its factors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bilens.algebra.gram.squared_norms import squared_norms
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.whiten import whiten


@dataclass(frozen=True, eq=False)
class GaussianMoments:
    """Moments of f(x) for x ~ N(μ, Σ), exact up to rounding.

    Attributes:
        mean: (out,) float64, E f(x).
        variance: (out,) float64, Var f(x).
    """

    mean: Tensor
    variance: Tensor


def gaussian_moments(f: QuadraticMap, mean: Tensor, covariance: Tensor) -> GaussianMoments:
    """Return mean and variance of every output for inputs x ~ N(μ, Σ).

    Math: E q = tr QΣ + μᵀQμ + b·μ + c and Var q = 2 tr(QΣQΣ) + gᵀΣg, g = 2Qμ + b. In whitened
        coordinates, z ~ N(0, I), these are tr Q̃ + c̃ and 2‖Q̃‖_F² + ‖b̃‖².
    Cost: that of `whiten`, and O(hidden² · (in + out)).

    Args:
        f: the map.
        mean: μ, (in,).
        covariance: Σ, (in, in), symmetric, no eigenvalue below zero.

    Raises:
        ShapeError: If μ or Σ does not fit the inputs of the map.
        NonFiniteError: If one holds NaN or infinity.
        UsageError: If f is no map, or Σ is no covariance.

    Source: A. M. Mathai, S. B. Provost, Quadratic Forms in Random Variables (1992).
    """
    white = whiten(f, covariance, mean)
    average = white.tensor.traces()
    if white.constant is not None:
        average = average + white.constant
    tensor = white.tensor
    variance = 2 * squared_norms(tensor.down, tensor.left, tensor.right)
    if white.linear is not None:
        variance = variance + white.linear.square().sum(dim=1)
    return GaussianMoments(average, variance)
