"""Activations and their derivatives against torch, their moments against adaptive quadrature."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.nn import functional

from bilens.algebra.approximation.activation import (
    Activation,
    ActivationName,
    activation_moments,
    as_activation,
)
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import vector

T = torch.linspace(-6.1, 6.3, 41, dtype=torch.float64)  # no kink among them
OURS = {
    "identity": lambda t: t,
    "relu": functional.relu,
    "leaky_relu": lambda t: functional.leaky_relu(t, 0.2),
    "squared_relu": lambda t: functional.relu(t) ** 2,
    "gelu": functional.gelu,
    "gelu_tanh": lambda t: functional.gelu(t, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "clamped_swiglu": lambda t: t.clamp(max=7) * torch.sigmoid(1.702 * t.clamp(max=7)),
}


def activation(name: str) -> Activation:
    """The activation, a leaky ReLU with a slope of 0.2."""
    return Activation(name, 0.2 if name == "leaky_relu" else None)


def test_every_activation_is_compared() -> None:
    assert {*OURS} == {*get_args(ActivationName)}


@pytest.mark.parametrize("name", OURS)
def test_values_are_those_of_torch(name: str) -> None:
    torch.testing.assert_close(activation(name)(T), OURS[name](T))
    torch.testing.assert_close(activation(name).derivatives(T)[0], OURS[name](T))


@pytest.mark.parametrize("name", OURS)
def test_derivatives_are_those_of_automatic_differentiation(name: str) -> None:
    found = activation(name).derivatives(T)
    for order in (1, 2, 3):
        torch.testing.assert_close(
            found[order], differentiated(OURS[name], order), atol=1e-12, rtol=0
        )


def differentiated(function: Callable[[Tensor], Tensor], order: int) -> Tensor:
    """The derivative of some order, entry by entry."""
    t = T.clone().requires_grad_()
    y = function(t)
    for _ in range(order):
        if not y.requires_grad:
            return torch.zeros_like(T)
        (y,) = torch.autograd.grad(y.sum(), t, create_graph=True, allow_unused=True)
        if y is None:
            return torch.zeros_like(T)
    return y.detach()


def test_far_out_derivatives_stay_finite() -> None:
    far = torch.tensor([-1e4, -800.0, 800.0, 1e4], dtype=torch.float64)
    for name in OURS:
        for part in activation(name).derivatives(far):
            assert bool(part.isfinite().all()), name


def test_the_usual_slope_of_a_leaky_relu_is_torchs() -> None:
    torch.testing.assert_close(as_activation("leaky_relu")(T), functional.leaky_relu(T))


def test_an_activation_is_written_with_the_slope_that_it_has() -> None:
    assert str(Activation("relu")) == "relu"
    assert str(Activation("leaky_relu", 0.25)) == "leaky_relu with slope 0.25"


def test_what_is_no_activation_is_refused() -> None:
    with pytest.raises(UsageError, match="'swish' is not known: use identity, relu"):
        as_activation("swish")
    with pytest.raises(UsageError, match="gelu has no slope"):
        Activation("gelu", 0.1)
    with pytest.raises(UsageError, match="slope must be a finite number"):
        Activation("leaky_relu", float("nan"))


NAMES = [name for name in get_args(ActivationName) if name != "clamped_swiglu"]  # of two branches
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
        activation_moments("relu6", vector(0.0), vector(1.0))
