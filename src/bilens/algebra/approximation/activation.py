"""Activations that a layer may have, with their first three derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bilens.base.errors import UsageError
from bilens.base.notebook import html_summary

ActivationName = Literal[
    "identity",
    "relu",
    "leaky_relu",
    "squared_relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "tanh",
    "sigmoid",
]
LEAK = 0.01  # torch's slope of a leaky ReLU
CUBIC = 0.044715  # of the tanh form of GELU
TANH_SCALE = math.sqrt(2 / math.pi)


@dataclass(frozen=True)
class Activation:
    """φ: "gelu" is t·Φ(t) with the normal distribution function, "gelu_tanh" the usual tanh form.

    Attributes:
        name: one of the names of `ActivationName`.
        slope: of "leaky_relu" below zero; None is 0.01 there, and what it has to be elsewhere.

    Raises: UsageError if there is no such activation, or a slope that it does not have.
    """

    name: ActivationName
    slope: float | None = None

    _repr_html_ = html_summary()

    def __post_init__(self) -> None:
        known = get_args(ActivationName)
        if self.name not in known:
            raise UsageError(f"activation {self.name!r} is not known: use {', '.join(known)}.")
        if self.slope is None:
            return
        if self.name != "leaky_relu":
            raise UsageError(f"{self.name} has no slope: leave it out.")
        if not isinstance(self.slope, int | float) or not math.isfinite(self.slope):
            raise UsageError(f"slope must be a finite number, got {self.slope!r}.")

    def __str__(self) -> str:
        return self.name if self.name != "leaky_relu" else f"leaky_relu with slope {self.leak:g}"

    @property
    def leak(self) -> float:
        """The slope below zero of a ReLU, leaky or not."""
        if self.name == "leaky_relu":
            return LEAK if self.slope is None else float(self.slope)
        return 0.0

    def __call__(self, t: Tensor) -> Tensor:
        """Return φ(t)."""
        if self.name == "leaky_relu":
            return torch.where(t > 0, t, self.leak * t)
        return ACTIVATIONS[self.name][0](t)

    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return φ(t), φ'(t), φ''(t), φ'''(t); at a kink the mean of both sides, jumps left out."""
        if self.name == "leaky_relu":
            return leaky_derivatives(t, self.leak)
        return ACTIVATIONS[self.name][1](t)


Derivatives = tuple[Tensor, Tensor, Tensor, Tensor]


def density(t: Tensor) -> Tensor:
    """Return the standard normal density."""
    return torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)


def normal_derivatives(t: Tensor) -> Derivatives:
    """Return Φ and its derivatives."""
    bell = density(t)
    return torch.special.ndtr(t), bell, -t * bell, (t.square() - 1) * bell


def tanh_derivatives(t: Tensor) -> Derivatives:
    """Return tanh and its derivatives."""
    y = torch.tanh(t)
    first = 1 / torch.cosh(t.clamp(-300, 300)).square()  # 1 − y² cancels where it is small
    second = -2 * y * first
    return y, first, second, -2 * (first.square() + y * second)


def sigmoid_derivatives(t: Tensor) -> Derivatives:
    """Return 1 / (1 + e⁻ᵗ) and its derivatives."""
    y = torch.sigmoid(t)
    first = y * torch.sigmoid(-t)
    tilt = torch.sigmoid(-t) - y
    second = first * tilt
    return y, first, second, second * tilt - 2 * first.square()


def times_argument(gate: Derivatives, t: Tensor) -> Derivatives:
    """Return t·g(t) and its derivatives from those of g."""
    g, first, second, third = gate
    return t * g, g + t * first, 2 * first + t * second, 3 * second + t * third


def tanh_gate(t: Tensor) -> Derivatives:
    """Return ½ (1 + tanh √(2/π) (t + 0.044715 t³)) and its derivatives, by the chain rule."""
    scale = TANH_SCALE
    y, first, second, third = tanh_derivatives(scale * (t + CUBIC * t**3))
    u1, u2, u3 = scale * (1 + 3 * CUBIC * t.square()), scale * 6 * CUBIC * t, scale * 6 * CUBIC
    return (
        (1 + y) / 2,
        first * u1 / 2,
        (second * u1.square() + first * u2) / 2,
        (third * u1**3 + 3 * second * u1 * u2 + first * u3) / 2,
    )


def step(t: Tensor) -> Tensor:
    """Return 1 above zero, 0 below, ½ at zero."""
    return torch.heaviside(t, t.new_tensor(0.5))


def leaky_derivatives(t: Tensor, leak: float) -> Derivatives:
    """Return the ReLU with a slope below zero."""
    slope = leak + (1 - leak) * step(t)
    zero = torch.zeros_like(t)
    return slope * t, slope, zero, zero


def squared_relu_derivatives(t: Tensor) -> Derivatives:
    """Return max(t, 0)² and its derivatives."""
    positive = torch.relu(t)
    return positive.square(), 2 * positive, 2 * step(t), torch.zeros_like(t)


def identity_derivatives(t: Tensor) -> Derivatives:
    """Return t and its derivatives."""
    zero = torch.zeros_like(t)
    return t, torch.ones_like(t), zero, zero


def gelu_derivatives(t: Tensor) -> Derivatives:
    """Return t·Φ(t) and its derivatives."""
    return times_argument(normal_derivatives(t), t)


# φ, and φ with its first three derivatives; the slope of a leaky ReLU is an argument of its own.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Derivatives]]] = {
    "identity": (lambda t: t, identity_derivatives),
    "relu": (torch.relu, lambda t: leaky_derivatives(t, 0.0)),
    "squared_relu": (lambda t: torch.relu(t).square(), squared_relu_derivatives),
    "gelu": (lambda t: t * torch.special.ndtr(t), gelu_derivatives),
    "gelu_tanh": (
        lambda t: t * (1 + torch.tanh(TANH_SCALE * (t + CUBIC * t**3))) / 2,
        lambda t: times_argument(tanh_gate(t), t),
    ),
    "silu": (
        lambda t: t * torch.sigmoid(t),
        lambda t: times_argument(sigmoid_derivatives(t), t),
    ),
    "tanh": (torch.tanh, tanh_derivatives),
    "sigmoid": (torch.sigmoid, sigmoid_derivatives),
}


def as_activation(activation: Activation | ActivationName) -> Activation:
    """Return an activation that was given itself or by name."""
    return activation if isinstance(activation, Activation) else Activation(activation)
