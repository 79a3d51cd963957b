"""Moments of activations against adaptive quadrature, piece by piece, at every width."""

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch
from scipy.integrate import quad

from bilens.algebra.approximation.activation import Activation, ActivationName, activation_moments
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import vector

NAMES = get_args(ActivationName)
KINKED = ("relu", "leaky_relu", "squared_relu")
HERMITE = (lambda z: z**0, lambda z: z, lambda z: z * z - 1, lambda z: z**3 - 3 * z)
CASES = ((0.0, 1e-3), (-1.3, 0.3), (0.7, 1.0), (3.0, 4.0), (-12.0, 8.0), (5.0, 40.0), (-30.0, 1.0))


def moment(phi: Activation, mean: float, deviation: float, order: int) -> float:
    """E φ⁽ᵏ⁾ by adaptive quadrature; for a kink as s⁻ᵏ E φ(t) He_k, without a derivative."""
    kinked = phi.name in KINKED

    def integrand(z: float) -> float:
        bell = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        t = vector(mean + deviation * z)
        if kinked:
            return float(phi(t)) * HERMITE[order](z) / deviation**order * bell
        return float(phi.derivatives(t)[order]) * bell

    marks = [(at - mean) / deviation for at in (-5.0, 0.0, 5.0)]
    edges = sorted({-10.0, -3.0, 3.0, 10.0, *(m for m in marks if -10 < m < 10)})
    return sum(
        quad(integrand, a, b, epsabs=1e-12, epsrel=1e-11, limit=100)[0] for a, b in pairwise(edges)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("mean", "deviation"), CASES)
def test_moments_are_those_of_adaptive_quadrature(
    name: ActivationName, mean: float, deviation: float
) -> None:
    if name in KINKED and deviation < 0.1:
        pytest.skip("the reference divides by the width cubed")
    phi = Activation(name)
    found = activation_moments(name, vector(mean), vector(deviation))[:, 0]
    for order in range(4):
        size = max(1.0, abs(mean), deviation) ** (2 if name == "squared_relu" else 1)
        expected = moment(phi, mean, deviation, order)
        assert float(found[order]) == pytest.approx(expected, abs=1e-11 * size), order


@pytest.mark.parametrize("name", NAMES)
def test_without_variance_a_moment_is_the_value(name: ActivationName) -> None:
    mean = vector(-2.0, 0.0, 1.5)
    found = activation_moments(name, mean, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(found, torch.stack(Activation(name).derivatives(mean)))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in KINKED])
def test_narrow_inputs_lead_to_the_value_without_cancelling(name: ActivationName) -> None:
    mean, narrow = vector(-2.0, 0.0, 1.5), torch.full((3,), 1e-9, dtype=torch.float64)
    found = activation_moments(name, mean, narrow)
    torch.testing.assert_close(
        found, torch.stack(Activation(name).derivatives(mean)), atol=1e-14, rtol=0
    )


def test_each_moment_is_the_derivative_of_the_one_before() -> None:
    """d/dm E φ⁽ᵏ⁾(m + sZ) = E φ⁽ᵏ⁺¹⁾(m + sZ), by central differences."""
    mean, step = torch.linspace(-3, 3, 25, dtype=torch.float64), 1e-4
    width = torch.full_like(mean, 1.7)
    for name in NAMES:
        high = activation_moments(name, mean + step, width)
        low = activation_moments(name, mean - step, width)
        now = activation_moments(name, mean, width)
        torch.testing.assert_close((high - low)[:3] / (2 * step), now[1:], atol=1e-7, rtol=0)


def test_any_shape_comes_back() -> None:
    mean = torch.zeros(3, 2, 5)
    assert activation_moments("tanh", mean, mean + 1).shape == (4, 3, 2, 5)
    assert activation_moments("silu", mean, mean + 1).dtype == torch.float64


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(UsageError, match="negative entry"):
        activation_moments("relu", vector(0.0), vector(-1.0))
    with pytest.raises(ShapeError, match=r"mean has shape \(2,\) and deviation \(1,\)"):
        activation_moments("relu", vector(0.0, 1.0), vector(1.0))
    with pytest.raises(NonFiniteError, match="mean holds 1"):
        activation_moments("relu", vector(math.nan), vector(1.0))
    with pytest.raises(UsageError, match="'relu6' is not known"):
        activation_moments("relu6", vector(0.0), vector(1.0))  # type: ignore[arg-type]
