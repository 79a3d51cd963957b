"""Moments of layers one behind the other as if every wire were normal: close, and measured.

Beyond two layers nothing is exact: a wire behind a product is not normal, and moments of degree 16
and more decide. The Gaussian closure passes on mean and covariance alone; how far that is from the
network is measured on draws of its input, and told beside.
"""

import math

import torch
from torch import Tensor

from bilens.algebra.approximation.closed_form import output_moments as moments_of_layer
from bilens.algebra.gaussian import GaussianInput
from bilens.base.checks import check_count
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result
from bilens.polynomial.composition import layer_maps
from bilens.polynomial.network import PolynomialNetwork

ROWS = 4096  # inputs that run at a time


@frozen_result("mean_error", "variance_ratio", "largest_share", "num_samples")
class ApproximateMoments:
    """Mean and covariance of a network's outputs by the Gaussian closure, beside a sample.

    Attributes:
        mean: (outputs,), by the closure.
        covariance: (outputs, outputs), by the closure.
        sampled_mean: (outputs,), of the network itself.
        sampled_covariance: (outputs, outputs), of the network itself.
        mean_standard_error: (outputs,), of the sampled mean.
        variance_standard_error: (outputs,), of the sampled variances.
        largest_share: of the sampled total variance, what the largest draw alone brings: far above
            1 / num_samples, too few were drawn, and the standard errors are too small.
        num_samples: draws.
    """

    mean: Tensor
    covariance: Tensor
    sampled_mean: Tensor
    sampled_covariance: Tensor
    mean_standard_error: Tensor
    variance_standard_error: Tensor
    largest_share: float
    num_samples: int

    @property
    def mean_error(self) -> float:
        """How far the closure's mean is from the sampled one, in sampled standard deviations."""
        spread = math.sqrt(float(self.sampled_covariance.diagonal().sum()))
        return float((self.mean - self.sampled_mean).norm()) / spread if spread > 0 else math.nan

    @property
    def variance_ratio(self) -> float:
        """The closure's total variance over the sampled one: 1 where it is right."""
        sampled = float(self.sampled_covariance.diagonal().sum())
        return float(self.covariance.diagonal().sum()) / sampled if sampled > 0 else math.nan


def approximate_moments(
    network: PolynomialNetwork,
    mean: Tensor | None = None,
    covariance: Tensor | None = None,
    *,
    num_samples: int = 100_000,
    seed: int = 0,
) -> ApproximateMoments:
    """Approximate mean and covariance of a network's outputs under a Gaussian input, and measure.

    Math: of each layer mean and covariance are exact for a normal input with the moments of the
        wire before, Cov(q_i, q_j) = 2 tr(Q_i Σ Q_j Σ) + β_iᵀ Σ β_j, and are passed on as if that
        wire were normal. Of one layer that is exact; of two the mean is, and `bl.output_moments`
        gives both; of more nothing is, and a wire's heavy tails make variances too small.
    Cost: O(layers · (units² · width + width³)), and num_samples runs of the network.

    Args:
        network: layers one behind the other that read vectors; with a head or without.
        mean: (in,), of the input; None is zero.
        covariance: (in, in), of the input; None is the identity.
        num_samples: draws of the input that the network is run on, two or more.
        seed: of the draws.

    Raises: UsageError if the network has attention or an embedding of tokens, the covariance is
        none, or there are too few samples; ShapeError if the mean or the covariance does not fit;
        MemoryLimitError if the sampled outputs would not fit.
    """
    maps = layer_maps(network, "moments are approximated of layers")
    count = check_count("num_samples", num_samples, minimum=2)
    exact = network.to(torch.float64)
    if exact.head is not None:
        maps[-1] = maps[-1].compose_output(exact.head, exact.head_bias)
    assumed = GaussianInput.from_moments(network.d_in, mean, covariance)
    check_memory(8 * 3 * count * network.d_out, f"the outputs of {count} draws", "draw fewer")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.cat(
        [exact(assumed.draw(min(ROWS, count - at), generator)) for at in range(0, count, ROWS)]
    )
    wire = assumed
    for f in maps:
        middle, spread = moments_of_layer(f, wire)
        wire = GaussianInput.from_moments(len(middle), middle, spread)
    sampled_mean = drawn.mean(dim=0)
    far = drawn - sampled_mean
    squares = far.square()
    sampled = far.T @ far / (count - 1)
    total = squares.sum(dim=1)
    return ApproximateMoments(
        middle,
        spread,
        sampled_mean,
        sampled,
        (sampled.diagonal() / count).sqrt(),
        squares.std(dim=0) / math.sqrt(count),
        float(total.max() / total.sum()) if bool(total.any()) else 0.0,
        count,
    )
