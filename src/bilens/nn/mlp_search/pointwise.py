"""Functions of one linear value, entry by entry, and the activations that they turn out to be.

An activation is told by its values: names differ from library to library, functions do not.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from torch.fx.node import Node, map_arg

from bilens.algebra.approximation.activation import Activation, ActivationName
from bilens.nn.mlp_search.expression import Applied, Tree, patch_of

Function = Callable[[Tensor], Tensor]
POINTS = torch.cat([torch.linspace(-8, 8, 161), torch.tensor([-40.0, -20.0, 20.0, 40.0])]).double()
INNER_SCALES = (1.0, 1.702)  # the second is that of the quick GELU
CURVED = tuple(
    name
    for name in get_args(ActivationName)
    if name not in ("identity", "leaky_relu", "clamped_swiglu")  # the last one is of two branches
)
SMALLEST_SCALE = 1e-6  # below it a function is a constant
TOLERANCE = 1e-6  # GELU and its tanh form are 5e-4 apart, constants in float32 1e-8


@dataclass(frozen=True, eq=False)
class Pointwise:
    """function(argument), as the module computes it; perhaps not entry by entry."""

    argument: Tree  # the value that it is a function of
    function: Function  # what the nodes between compute
    node: Node  # the last of them


def pointwise(
    node: Node, values: Mapping[Node, object], call: Callable[..., Tensor]
) -> Pointwise | None:
    """Return a node as a function of the one value that it depends on; None for several."""
    functions: dict[Node, Function] = {}
    found: list[Tree] = []
    for before in node.all_input_nodes:
        value = values[before]
        if isinstance(value, Pointwise):
            functions[before] = value.function
            found.append(value.argument)
        elif isinstance(value, Tree):
            functions[before], argument = through_numbers(value)
            found.append(argument)
        else:
            return None
    if not found or any(argument is not found[0] for argument in found):
        return None

    def function(t: Tensor) -> Tensor:
        def at(before: Node) -> Tensor:
            return functions[before](t)

        return call(*map_arg(node.args, at), **map_arg(node.kwargs, at))

    mixed = patch_of(found[0]) is not None and values_of(function) is None  # places of an image
    return None if mixed else Pointwise(found[0], function, node)


def through_numbers(tree: Tree) -> tuple[Function, Tree]:
    """Return a value as a function of the one below the numbers that multiply it or are added."""
    if not isinstance(tree, Applied) or tree.step.path:
        return itself, tree
    below, argument = through_numbers(tree.inner)
    weight, bias = tree.step.weight, tree.step.bias

    def function(t: Tensor) -> Tensor:
        y = below(t) if weight is None else weight() * below(t)
        return y if bias is None else y + bias()

    return function, argument


def argument_of(value: Tree | Pointwise) -> Tree:
    """Return the value that another one is a function of, itself where nothing is known."""
    return value.argument if isinstance(value, Pointwise) else through_numbers(value)[1]


def itself(t: Tensor) -> Tensor:
    """Return a copy, since an operation behind it may work in place."""
    return t.clone()


def by_method(name: str) -> Callable[..., Tensor]:
    return lambda first, *rest, **options: operator.attrgetter(name)(first)(*rest, **options)


# ---- which activation it is


def known_activation(function: Callable[[Tensor], object]) -> Activation | None:
    """Return the activation that a function is, entry by entry; None for none that is known."""
    values = values_of(function)
    return None if values is None else activation_through(POINTS, values)


@dataclass(frozen=True)
class ScaledActivation:
    """scale · φ(inner · t) + shift."""

    activation: Activation
    inner: float
    scale: float
    shift: float


def scaled_activation(function: Callable[[Tensor], object]) -> ScaledActivation | None:
    """Return an activation between numbers, as in t · sigmoid(1.702 t); None for none."""
    values = values_of(function)
    if values is None:
        return None
    for inner in INNER_SCALES:
        for activation in map(Activation, CURVED):
            columns = torch.stack([activation(inner * POINTS), torch.ones_like(POINTS)], dim=1)
            scale, shift = torch.linalg.lstsq(columns, values[:, None]).solution[:, 0].tolist()
            rest = (columns @ columns.new_tensor([scale, shift]) - values).abs()
            if abs(scale) > SMALLEST_SCALE and bool((rest <= TOLERANCE * (1 + values.abs())).all()):
                return ScaledActivation(activation, inner, scale, shift)
    return None


def is_square(function: Callable[[Tensor], object]) -> bool:
    values = values_of(function)
    return values is not None and torch.allclose(values, POINTS.square(), rtol=TOLERANCE)


def values_of(function: Callable[[Tensor], object]) -> Tensor | None:
    """Return what somebody else's function makes of `POINTS`; None if it is none of entries."""
    try:
        with torch.no_grad():
            values, some = function(POINTS[None].clone()), function(POINTS[None, ::2].clone())
    except Exception:  # asked with an input that it may not expect
        return None
    if not isinstance(values, Tensor) or not isinstance(some, Tensor):
        return None
    if values.shape != (1, len(POINTS)) or not torch.allclose(values[:, ::2], some):
        return None  # of other entries too, as a normalisation is
    return values[0].double()


def activation_through(
    points: Tensor, values: Tensor, tolerance: float = TOLERANCE
) -> Activation | None:
    """Return the activation whose graph goes through points; None for none, or for several."""
    t, y = points.double(), values.double()
    found = []
    for one in candidates(t, y):
        expected = one(t)
        if bool(((y - expected).abs() <= tolerance * (1 + expected.abs())).all()):
            found.append(one)
    named = [one for one in found if one.name != "leaky_relu"]  # which has ReLU and t as ends
    chosen = named or found
    return chosen[0] if len(chosen) == 1 else None


def candidates(t: Tensor, y: Tensor) -> list[Activation]:
    """Return every activation, a leaky ReLU with the slope that points below zero show."""
    known = [Activation(name) for name in ("identity", *CURVED)]
    negative = t < -0.1
    if bool(negative.any()):
        known.append(Activation("leaky_relu", float((y[negative] / t[negative]).median())))
    return known
