"""The quadratic approximation of a gate with limits, against least squares on a fine grid.

Broken once: the term in the square of the other branch left out, as if it had no limit.
"""

import pytest
import torch
from torch import Tensor

from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.layer_weights import GLUWeights, MLPWeights
from bilens.algebra.approximation.quadratic_fit import fit_layers
from bilens.algebra.gaussian import GaussianInput
from bilens.base.errors import UsageError

MEAN, COVARIANCE = torch.tensor([0.3, -0.5]), torch.tensor([[1.0, 0.4], [0.4, 0.8]])
MEAN, COVARIANCE = MEAN.double(), COVARIANCE.double()


def layer(gate: list[float], value: list[float]) -> GLUWeights:
    """One neuron; biases move it off the middle."""
    rows = [torch.tensor([row], dtype=torch.float64) for row in (gate, value)]
    biases = torch.tensor([0.4], dtype=torch.float64), torch.tensor([1.2], dtype=torch.float64)
    return GLUWeights(torch.ones(1, 1, dtype=torch.float64), *rows, "clamped_swiglu", *biases)


def monomials(x: Tensor) -> Tensor:
    first, second = x.T
    one = torch.ones_like(first)
    return torch.stack([one, first, second, first**2, first * second, second**2], dim=1)


def least_squares(one: GLUWeights) -> Tensor:
    """The best of all quadratics under the normal input, by sums over a grid."""
    steps = torch.linspace(-7, 7, 701, dtype=torch.float64)
    z = torch.cartesian_prod(steps, steps)
    x = MEAN + z @ torch.linalg.cholesky(COVARIANCE).T
    weight = (-z.square().sum(dim=1) / 2).exp()[:, None]
    terms = monomials(x)
    return torch.linalg.solve(terms.T @ (weight * terms), terms.T @ (weight * one(x)))


@pytest.mark.parametrize(
    ("gate", "value"),
    [
        ([0.5, -0.3], [0.2, 0.9]),
        ([4.0, 2.0], [-3.0, 6.0]),  # beyond all limits
        ([20.0, -9.0], [30.0, 5.0]),
        ([4.0, 2.0], [-8.0, -4.0]),  # one direction
        ([3.0, -2.0], [0.0, 0.0]),
        ([0.0, 0.0], [5.0, 5.0]),
    ],
)
def test_the_map_is_the_one_of_least_squares(gate: list[float], value: list[float]) -> None:
    one, assumed = layer(gate, value), GaussianInput.from_moments(2, MEAN, COVARIANCE)
    x = MEAN + torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = monomials(x) @ least_squares(one)
    scale = float(one(x).std())
    found = approximate_layer(one, assumed)(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * max(scale, 1))


def test_far_from_the_limits_it_is_the_map_of_a_silu() -> None:
    """To what a tail beyond 14 deviations has, which is nothing."""
    one = layer([0.3, -0.2], [0.2, 0.3])
    assert one.gate_bias is not None
    scaled = GLUWeights(
        one.down / 1.702, 1.702 * one.gate, one.value, "silu", 1.702 * one.gate_bias, one.value_bias
    )
    assumed = GaussianInput.from_moments(2, MEAN, COVARIANCE)
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = (approximate_layer(layer, assumed)(x) for layer in (one, scaled))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_r_squared_is_of_the_layer_with_its_limits() -> None:
    one = layer([4.0, 2.0], [-3.0, 6.0])
    found = fit_layers([one], one, mean=MEAN, covariance=COVARIANCE, samples=4000)
    x = GaussianInput.from_moments(2, MEAN, COVARIANCE).draw(
        20_000, torch.Generator().manual_seed(1)
    )
    y, predicted = one(x), monomials(x) @ least_squares(one)
    expected = 1 - float((y - predicted).square().mean() / y.var(correction=0))
    score = found.r_squared.quadratic
    assert score.overall == pytest.approx(expected, abs=5 * score.standard_error)
    assert 0.3 < expected < 0.95


def test_it_is_a_gate_of_two_branches() -> None:
    eye = torch.eye(2)
    with pytest.raises(UsageError, match="a gate of two branches"):
        MLPWeights(eye, eye, "clamped_swiglu")
