"""The name of an activation as people and configurations spell it."""

from __future__ import annotations

from typing import get_args

from bilens.algebra.approximation.activation import Activation, ActivationName
from bilens.base.errors import UsageError

OTHER_NAMES: dict[str, ActivationName] = {
    "linear": "identity",
    "none": "identity",
    "logistic": "sigmoid",
    "swish": "silu",
    "relu2": "squared_relu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def activation_named(text: str | Activation) -> Activation:
    """Return the activation of a name; "leaky_relu:0.2" has a slope.

    Raises:
        UsageError: If there is none of that name.
    """
    if isinstance(text, Activation):
        return text
    if not isinstance(text, str):
        raise UsageError(f"activation is a {type(text).__name__}; expected a name such as relu.")
    name, _, slope = text.strip().lower().partition(":")
    known = {known: known for known in get_args(ActivationName)} | OTHER_NAMES
    if name not in known:
        raise UsageError(
            f"activation {text!r} is not known: use one of {', '.join(known)}; leaky_relu:0.2 "
            "has a slope."
        )
    if not slope:
        return Activation(known[name])
    try:
        return Activation(known[name], float(slope))
    except ValueError as error:
        raise UsageError(f"activation {text!r}: {slope!r} is no slope: {error}") from error
