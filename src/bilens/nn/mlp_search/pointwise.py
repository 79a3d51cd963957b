"""Functions of one linear value, entry by entry, and the activations that they turn out to be.

An activation is told by its values: names differ from library to library, functions do not.
"""

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from torch.fx.node import Node, map_arg

from bilens.algebra.approximation.activation import Activation, ActivationName
from bilens.nn.mlp_search.expression import Applied, Tree, patch_of

Function = Callable[[Tensor], Tensor]
FAR = 1e3  # from here a clamp shows that nearer points do not, and a formula may overflow
OUTER = torch.tensor([20.0, 40.0, FAR, 1e6])
POINTS = torch.cat([-OUTER, torch.linspace(-8, 8, 161), OUTER]).double()
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
    sampled = values_of(function)
    return None if sampled is None else activation_through(*sampled)


@dataclass(frozen=True)
class ScaledActivation:
    """scale · φ(inner · t) + shift."""

    activation: Activation
    inner: float
    scale: float
    shift: float


def scaled_activation(function: Callable[[Tensor], object]) -> ScaledActivation | None:
    """Return an activation between numbers, as in t · sigmoid(1.702 t); None for none."""
    sampled = values_of(function)
    if sampled is None:
        return None
    points, values = sampled
    near = points.abs() < FAR  # beside a value of 1e12 a shift is lost
    for inner in INNER_SCALES:
        for activation in map(Activation, CURVED):
            columns = torch.stack([activation(inner * points), torch.ones_like(points)], dim=1)
            solved = torch.linalg.lstsq(columns[near], values[near, None])
            scale, shift = solved.solution[:, 0].tolist()
            rest = (columns @ columns.new_tensor([scale, shift]) - values).abs()
            if abs(scale) > SMALLEST_SCALE and bool((rest <= TOLERANCE * (1 + values.abs())).all()):
                return ScaledActivation(activation, inner, scale, shift)
    return None


def is_square(function: Callable[[Tensor], object]) -> bool:
    sampled = values_of(function)
    return sampled is not None and torch.allclose(sampled[1], sampled[0].square(), rtol=TOLERANCE)


def values_of(function: Callable[[Tensor], object]) -> tuple[Tensor, Tensor] | None:
    """Return points and what somebody else's function makes of them; None if none of entries.

    Far points where it overflows, as a quotient of exponentials does, are left out.
    """
    try:
        with torch.no_grad():
            values, some = function(POINTS[None].clone()), function(POINTS[None, ::2].clone())
    except Exception:  # asked with an input that it may not expect
        return None
    if not isinstance(values, Tensor) or not isinstance(some, Tensor):
        return None
    same = values.shape == (1, len(POINTS)) and torch.allclose(values[:, ::2], some, equal_nan=True)
    if not same:
        return None  # of other entries too, as a normalisation is
    kept = values[0].isfinite()
    near = kept[POINTS.abs() < FAR]
    return (POINTS[kept], values[0, kept].double()) if bool(near.all()) else None


def activation_through(
    points: Tensor, values: Tensor, tolerance: float = TOLERANCE
) -> Activation | None:
    """Return the activation whose graph goes through points; None for none, or for several."""
    return the_only(factors(points, torch.ones_like(points), values, tolerance))


def factors(points: Tensor, times: Tensor, values: Tensor, tolerance: float) -> list[Activation]:
    """Return every φ with φ(points) · times = values."""
    t, v, y = points.double(), times.double(), values.double()
    known = [Activation(name) for name in ("identity", *CURVED)]
    negative = (t < -0.1) & (v.abs() > 1e-3) & y.isfinite()
    if bool(negative.any()):  # the slope that points below zero show
        slopes = y[negative] / v[negative] / t[negative]
        known.append(Activation("leaky_relu", float(slopes.median())))
    wanted = [(one, one(t) * v) for one in known]
    return [
        one
        for one, made in wanted
        if bool(((y - made).abs() <= tolerance * (1 + made.abs())).all())
    ]


def the_only(found: Collection[Activation]) -> Activation | None:
    """Return the one activation among some; None for none, or for several."""
    named = [one for one in found if one.name != "leaky_relu"]  # which has ReLU and t as ends
    chosen = named or [*found]
    return chosen[0] if len(chosen) == 1 else None
