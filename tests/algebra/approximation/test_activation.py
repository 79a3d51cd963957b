"""Activations against torch's own, and their derivatives against automatic differentiation."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.approximation.activation import Activation, ActivationName, as_activation
from bilens.base.errors import UsageError

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
}


def activation(name: str) -> Activation:
    """The activation, a leaky ReLU with a slope of 0.2."""
    return Activation(name, 0.2 if name == "leaky_relu" else None)  # type: ignore[arg-type]


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
        as_activation("swish")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="gelu has no slope"):
        Activation("gelu", 0.1)
    with pytest.raises(UsageError, match="slope must be a finite number"):
        Activation("leaky_relu", float("nan"))
