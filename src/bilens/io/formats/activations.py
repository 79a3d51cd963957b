"""Activations under the names that people, files and libraries give them, and as torch has them.

One table: our name, and the function of `torch.nn.functional` that a reading is compared with.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.approximation.activation import CLAMPED, Activation, ActivationName
from bilens.base.errors import UsageError

QUICK = 1.702  # of the quick GELU, t · sigmoid(1.702 t) = silu(1.702 t) / 1.702


@dataclass(frozen=True)
class Spelling:
    """What a name means: φ(scale · t) / scale, and the same function as torch computes it."""

    ours: ActivationName
    function: Callable[[Tensor], Tensor]
    scale: float = 1.0


def gelu_tanh(t: Tensor) -> Tensor:
    return functional.gelu(t, approximate="tanh")


IDENTITY = Spelling("identity", lambda t: t)
SIGMOID, SILU = Spelling("sigmoid", torch.sigmoid), Spelling("silu", functional.silu)
CLAMPED_GATE = Spelling(CLAMPED, Activation(CLAMPED))
SQUARED = Spelling("squared_relu", lambda t: functional.relu(t).square())
TANH_FORM = Spelling("gelu_tanh", gelu_tanh)
GELU = Spelling("gelu", functional.gelu)
SPELLINGS: dict[str, Spelling] = {
    "identity": IDENTITY,
    "relu": Spelling("relu", functional.relu),
    "leaky_relu": Spelling("leaky_relu", functional.leaky_relu),
    "squared_relu": SQUARED,
    "gelu": GELU,
    "gelu_tanh": TANH_FORM,
    "silu": SILU,
    "tanh": Spelling("tanh", torch.tanh),
    CLAMPED: CLAMPED_GATE,
    "sigmoid": SIGMOID,
    "linear": IDENTITY,
    "none": IDENTITY,
    "logistic": SIGMOID,
    "swish": SILU,
    "relu2": SQUARED,
    "gelu_new": TANH_FORM,
    "gelu_fast": TANH_FORM,
    "gelu_pytorch_tanh": TANH_FORM,
    "gelu_python": GELU,
    "quick_gelu": Spelling("silu", lambda t: t * torch.sigmoid(QUICK * t), QUICK),
}


@dataclass(frozen=True)
class NamedActivation:
    """An activation as somebody named it: φ(scale · t) / scale with our φ."""

    phi: Activation
    scale: float
    function: Callable[[Tensor], Tensor]

    def __str__(self) -> str:
        if self.scale == 1:
            return str(self.phi)
        return f"{self.phi} with {self.scale:g} in the weights (quick GELU)"


def activation_named(text: object) -> NamedActivation:
    """Return the activation of a name; "leaky_relu:0.2" has a slope."""
    if isinstance(text, Activation):
        return with_function(text)
    if not isinstance(text, str):
        raise UsageError(f"activation is a {type(text).__name__}; expected a name such as relu.")
    name, colon, slope = text.strip().lower().partition(":")
    found = SPELLINGS.get(name)
    if found is None:
        raise UsageError(
            f"activation {text!r} is not known: use one of {', '.join(SPELLINGS)}; leaky_relu:0.2 "
            "has a slope."
        )
    if not colon:
        return NamedActivation(Activation(found.ours), found.scale, found.function)
    try:
        number = float(slope)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(
            f"activation {text!r}: {slope!r} is no slope: expected a number, as in leaky_relu:0.2."
        )
    try:
        return with_function(Activation(found.ours, number))
    except UsageError as error:
        raise UsageError(f"activation {text!r}: {error}") from error


def with_function(phi: Activation) -> NamedActivation:
    """Return one of our activations beside torch's."""
    if phi.name == "leaky_relu":
        return NamedActivation(phi, 1.0, lambda t: functional.leaky_relu(t, phi.leak))
    return NamedActivation(phi, 1.0, SPELLINGS[phi.name].function)
