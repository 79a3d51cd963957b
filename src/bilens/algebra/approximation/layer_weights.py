"""Plain weights of the two kinds of MLP: one branch with an activation, or two and a product."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import (
    CLAMPED,
    VALUE_LIMITS,
    Activation,
    ActivationName,
    as_activation,
)
from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import frozen_result


class LayerWeights(ABC):
    """The weights that MLPs with one or two branches share: a linear path and a constant."""

    branches: ClassVar[tuple[str, ...]]  # fields of (hidden, in), each with a bias of its own
    down: Tensor  # (out, hidden)
    activation: Activation | ActivationName  # φ
    linear: Tensor | None  # (out, in); None is zero
    constant: Tensor | None  # (out,); None is zero

    def __call__(self, x: Tensor) -> Tensor:
        return self.behind(self.hidden(x), x)

    def behind(self, hidden: Tensor, x: Tensor) -> Tensor:
        """Return the output from what the neurons compute, (…, hidden), (…, in) → (…, out)."""
        y = hidden @ self.down.T
        if self.linear is not None:
            y = y + x @ self.linear.T
        return y if self.constant is None else y + self.constant

    @abstractmethod
    def hidden(self, x: Tensor) -> Tensor:
        """Return the values of the hidden neurons, (…, in) → (…, hidden)."""

    @property
    def d_in(self) -> int:
        first: Tensor = getattr(self, self.branches[0])
        return first.shape[1]

    @property
    def phi(self) -> Activation:
        return as_activation(self.activation)

    def __post_init__(self) -> None:
        as_activation(self.activation)
        d_out, d_hidden = check_matrix("down", self.down)
        _, d_in = check_matrix(self.branches[0], getattr(self, self.branches[0]))
        expected: dict[str, tuple[int, ...]] = dict.fromkeys(self.branches, (d_hidden, d_in))
        expected |= {f"{name}_bias": (d_hidden,) for name in self.branches}
        expected |= {"linear": (d_out, d_in), "constant": (d_out,)}
        for name, shape in expected.items():
            if (part := getattr(self, name)) is not None:
                check_shape(name, part, shape, like=self.down)


@frozen_result()
class MLPWeights(LayerWeights):
    """f(x) = down φ(up x + up_bias) + linear x + constant.

    Attributes:
        down: (out, hidden).
        up: (hidden, in).
        activation: φ, or its name.
        up_bias: (hidden,); None is zero, as for `linear` and `constant`.
        linear: (out, in), a path past the neurons.
        constant: (out,), the output bias.

    Raises: ShapeError if the parts do not fit together; NonFiniteError if one holds NaN or
        infinity; UsageError if there is no such activation.
    """

    branches = ("up",)
    down: Tensor
    up: Tensor
    activation: Activation | ActivationName
    up_bias: Tensor | None = None
    linear: Tensor | None = None
    constant: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.phi.name == CLAMPED:
            raise UsageError(f"{CLAMPED} is a gate of two branches: pass GLUWeights.")

    def hidden(self, x: Tensor) -> Tensor:
        return self.phi(branch(x, self.up, self.up_bias))


@frozen_result()
class GLUWeights(LayerWeights):
    """f(x) = down [φ(gate x + gate_bias) ∘ (value x + value_bias)] + linear x + constant.

    Attributes:
        down: (out, hidden).
        gate: (hidden, in), the branch with the activation.
        value: (hidden, in).
        activation: φ, or its name; "identity" is a bilinear layer, "clamped_swiglu" keeps
            value x + value_bias between −6 and 8.
        gate_bias: (hidden,); None is zero, as for the parts below.
        value_bias: (hidden,).
        linear: (out, in), a path past the neurons.
        constant: (out,), the output bias.

    Raises: as `MLPWeights`.
    """

    branches = ("gate", "value")
    down: Tensor
    gate: Tensor
    value: Tensor
    activation: Activation | ActivationName
    gate_bias: Tensor | None = None
    value_bias: Tensor | None = None
    linear: Tensor | None = None
    constant: Tensor | None = None

    def hidden(self, x: Tensor) -> Tensor:
        return self.product(
            branch(x, self.gate, self.gate_bias), branch(x, self.value, self.value_bias)
        )

    def product(self, gate: Tensor, value: Tensor) -> Tensor:
        """Return the values of the neurons, (…, hidden), from those of their two branches."""
        return self.phi(gate) * (value.clamp(*VALUE_LIMITS) if self.phi.name == CLAMPED else value)


Layer = MLPWeights | GLUWeights
AnyLayer = TypeVar("AnyLayer", bound=LayerWeights)


def reading(layer: AnyLayer, scale: Tensor, shift: Tensor) -> AnyLayer:
    """Return z ↦ layer(scale · z + shift), with a matrix or a number for each input."""
    parts: dict[str, Tensor] = {}
    for name in (*layer.branches, "linear"):
        bias = "constant" if name == "linear" else f"{name}_bias"
        weight, before = getattr(layer, name), getattr(layer, bias)
        if weight is not None:
            parts[name] = weight @ scale if scale.ndim > 1 else weight * scale
            parts[bias] = weight @ shift + (0 if before is None else before)
    return replace(layer, **parts)  # type: ignore[type-var]


def products_alone(layer: GLUWeights) -> GLUWeights:
    """Return the same map with its linear path and constant as products with 1."""
    d_out, new = len(layer.down), layer.down.new_zeros
    constant = new(d_out) if layer.constant is None else layer.constant
    linear, bias, past = new(1, layer.d_in), new(1) + 1, constant[:, None]
    if layer.linear is not None:
        linear, bias, past = layer.linear, constant, torch.eye(d_out).to(layer.down)
    gate_bias, value_bias = layer.gate_bias, layer.value_bias
    assert gate_bias is not None and value_bias is not None, "`reading` gives them"  # noqa: PT018
    return GLUWeights(
        torch.cat([layer.down, past], dim=1),
        torch.cat([layer.gate, linear]),
        torch.cat([layer.value, 0 * linear]),
        "identity",
        torch.cat([gate_bias, bias]),
        torch.cat([value_bias, torch.ones_like(bias)]),
    )


def as_gated(layer: Layer) -> GLUWeights:
    """Return the weights of a layer with two branches; the second of an ordinary one is 1."""
    if isinstance(layer, GLUWeights):
        return layer
    none, ones = torch.zeros_like(layer.up), layer.up.new_ones(len(layer.up))
    phi, linear, constant = layer.activation, layer.linear, layer.constant
    return GLUWeights(layer.down, layer.up, none, phi, layer.up_bias, ones, linear, constant)


def each_part(layer: AnyLayer, change: Callable[[Tensor], Tensor]) -> AnyLayer:
    parts = {name: change(part) for name, part in vars(layer).items() if isinstance(part, Tensor)}
    return replace(layer, **parts)  # type: ignore[type-var]


def in_dtype(layer: Layer, dtype: torch.dtype) -> Layer:
    return each_part(layer, lambda part: part.detach().to(dtype))


def in_float64(layer: Layer) -> Layer:
    """Return a layer in float64, cut from the graph of gradients."""
    return in_dtype(layer, torch.float64)


def branch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x @ weight.T
    return y if bias is None else y + bias


def check_matrix(name: str, matrix: Tensor) -> tuple[int, int]:
    rows, columns = check_float_tensor(name, matrix, num_axes=2)
    if 0 in (rows, columns):
        raise ShapeError(f"{name} has shape {(rows, columns)}: every axis needs an entry.")
    return rows, columns
