"""Activations under the names that people, files and libraries give them."""

import math
from dataclasses import dataclass
from typing import get_args

from bilens.algebra.approximation.activation import Activation, ActivationName
from bilens.base.errors import UsageError

QUICK = 1.702  # of the quick GELU, t · sigmoid(1.702 t) = silu(1.702 t) / 1.702
QUICK_GELU = "quick_gelu"
SPELLINGS: dict[str, ActivationName] = {
    **{name: name for name in get_args(ActivationName)},
    "linear": "identity",
    "none": "identity",
    "logistic": "sigmoid",
    "swish": "silu",
    "relu2": "squared_relu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    QUICK_GELU: "silu",
}


@dataclass(frozen=True)
class NamedActivation:
    """An activation as somebody named it: φ(scale · t) / scale with our φ."""

    phi: Activation
    scale: float = 1.0

    def __str__(self) -> str:
        if self.scale == 1:
            return str(self.phi)
        return f"{self.phi} with {self.scale:g} in the weights (quick GELU)"


def activation_named(text: object) -> NamedActivation:
    """Return the activation of a name; "leaky_relu:0.2" has a slope."""
    if isinstance(text, Activation):
        return NamedActivation(text)
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
        return NamedActivation(Activation(found), QUICK if name == QUICK_GELU else 1.0)
    try:
        number = float(slope)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(
            f"activation {text!r}: {slope!r} is no slope: expected a number, as in leaky_relu:0.2."
        )
    try:
        return NamedActivation(Activation(found, number))
    except UsageError as error:
        raise UsageError(f"activation {text!r}: {error}") from error
