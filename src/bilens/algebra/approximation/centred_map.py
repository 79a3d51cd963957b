"""A quadratic map written from its mean, mean slope and mean curvature under a Gaussian input."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bilens.algebra.approximation.gaussian_input import GaussianInput
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap


def map_from_expectations(
    curvature: BilinearTensor, slope: Tensor, value: Tensor, assumed: GaussianInput
) -> QuadraticMap:
    """Return the closest quadratic map to any f with these expectations under N(μ, Σ).

    Math: by orthogonality of Hermite polynomials it is c₀ + β·(x − μ) + (x − μ)ᵀQ(x − μ) − tr QΣ
        with c₀ = E f, β = E ∇f and Q = ½ E ∇²f (Stein's identity for a least-squares fit).
    Cost: O(out · hidden · in), and O(hidden · in²) for a covariance other than I.

    Args:
        curvature: of the matrices ½ E ∇²f.
        slope: E ∇f, (out, in).
        value: E f, (out,).
        assumed: the input.

    Source: arXiv:2502.01032 for closed forms of this kind; C. M. Stein, Estimation of the mean of
        a multivariate normal distribution (1981), for the identity.
    """
    down, left, right = curvature.down, curvature.left, curvature.right
    mean = assumed.mean
    at_left, at_right = left @ mean, right @ mean
    traces = (assumed.spread(left) * assumed.spread(right)).sum(dim=1)
    linear = slope - down @ (at_right[:, None] * left + at_left[:, None] * right)
    constant = value - slope @ mean + down @ (at_left * at_right - traces)
    return QuadraticMap(curvature, linear, constant)


@dataclass(frozen=True, eq=False)
class AffinePart:
    """The closest affine map to a quadratic one: c₀ + β·(x − μ).

    Attributes:
        mean: μ, (in,).
        value: c₀ = E f, (out,).
        slope: β = E ∇f, (out, in).
    """

    mean: Tensor
    value: Tensor
    slope: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return its values, (rows, in) → (rows, out)."""
        return self.value + (x - self.mean) @ self.slope.T


def affine_part(f: QuadraticMap, assumed: GaussianInput) -> AffinePart:
    """Return mean and mean slope of a map of float64 under an input, exact."""
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    mean = assumed.mean
    traces = (assumed.spread(left) * assumed.spread(right)).sum(dim=1)
    slope = down @ ((right @ mean)[:, None] * left + (left @ mean)[:, None] * right)
    if f.linear is not None:
        slope = slope + f.linear
    return AffinePart(mean, f(mean) + down @ traces, slope)
