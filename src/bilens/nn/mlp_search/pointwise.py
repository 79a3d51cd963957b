"""Functions of one linear value, entry by entry, and the activations that they turn out to be.

An activation is told by its values, since names differ from library to library; but only where the
operations that it is made of leave nothing that could hide between the points.
"""

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, get_args

import torch
from torch import Tensor, fx, nn
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


class Kind(IntEnum):
    """The kind of function that operations make of t: smooth, with a kink at zero, or unknown."""

    UNKNOWN = 0  # it may do anything anywhere
    SMOOTH = 1  # made of elementary functions, with a kink nowhere but where t is zero
    LINES = 2  # a line through the origin on each side of zero


LINEAR = {"add", "sub", "neg", "mul", "truediv", "div", "float", "double", "contiguous", "clone"}
SMOOTH = LINEAR | {
    "pow", "square", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "expit", "erf", "ndtr",
    "sqrt", "rsqrt", "reciprocal", "softplus", "gelu", "silu", "mish", "rsub", "logsigmoid",
}  # fmt: skip
BENT = {"relu", "leakyrelu", "prelu", "abs"}  # where its argument is zero
LIMITED = {"clamp", "clip", "clampmin", "clampmax", "maximum", "minimum"}  # so with zero alone
NO_LIMIT = 3e38  # the largest number of float32 says that there is none


def kind_of_call(target: Any, given: list[Kind], numbers: list[Any]) -> Kind:
    """Return the kind of what an operation of torch gives, by that of its arguments."""
    name = (target if isinstance(target, str) else getattr(target, "__name__", "")).lower()
    name, home = name.replace("_", ""), getattr(target, "__module__", None) or "torch"
    least = min(given, default=Kind.UNKNOWN)
    if not least or not home.startswith(("torch", "_operator")):
        return Kind.UNKNOWN
    if least == Kind.LINES and name in BENT | LIMITED:
        limits = [one for one in numbers if one is not None and abs(one) < NO_LIMIT]
        return Kind.LINES if name in BENT or not any(limits) else Kind.UNKNOWN
    if name not in SMOOTH or (name == "div" and any(isinstance(one, str) for one in numbers)):
        return Kind.UNKNOWN  # also a quotient that is rounded
    shifted = numbers if name in ("add", "sub") else given[1:]
    return Kind.SMOOTH if shifted or name not in LINEAR else least


def kind_of_module(module: nn.Module, given: Kind) -> Kind:
    """Return the kind of what a module without parts gives."""
    if "forward" in vars(module):
        return Kind.UNKNOWN
    if type(module).__module__.startswith("torch."):
        return kind_of_call(type(module), [given], [])
    kinds: dict[Node, Kind] = {}
    try:
        graph = fx.Tracer().trace(module)
    except Exception:  # somebody else's code, run on values that are no tensors
        return Kind.UNKNOWN
    for node in graph.nodes:
        if node.op == "placeholder":
            kinds[node] = Kind.UNKNOWN if kinds else given
        elif node.op == "output":
            return kinds.get(node.args[0], Kind.UNKNOWN)
        else:
            kinds[node] = kind_of_node(node, kinds)
    return Kind.UNKNOWN


def kind_of_node(node: Node, kinds: Mapping[Node, Kind]) -> Kind:
    parts = [*node.args, *node.kwargs.values()]
    given = [kinds[part] for part in parts if isinstance(part, Node)]
    return kind_of_call(node.target, given, [one for one in parts if not isinstance(one, Node)])


def unread(*_: Any, **__: Any) -> Tensor:
    raise NotImplementedError("what it does between the points is not known")


@dataclass(frozen=True, eq=False)
class Pointwise:
    """function(argument), as the module computes it; perhaps not entry by entry."""

    argument: Tree  # the value that it is a function of
    function: Function  # what the nodes between compute
    node: Node  # the last of them
    kind: Kind
    by_values: bool  # whether it is several operations, which no name says the meaning of


def pointwise(
    node: Node, values: Mapping[Node, object], call: Callable[..., Tensor]
) -> Pointwise | None:
    """Return a node as a function of the one value that it depends on; None for several."""
    functions: dict[Node, Function] = {}
    kinds: dict[Node, Kind] = {}
    found: list[Tree] = []
    for before in node.all_input_nodes:
        value = values[before]
        if isinstance(value, Pointwise):
            functions[before], kinds[before] = value.function, value.kind
            found.append(value.argument)
        elif isinstance(value, Tree):
            functions[before], argument = through_numbers(value)
            zero = functions[before](torch.zeros(1, dtype=torch.float64))
            kinds[before] = Kind.SMOOTH if bool(zero.any()) else Kind.LINES
            found.append(argument)
        else:
            return None
    if not found or any(argument is not found[0] for argument in found):
        return None

    own = isinstance(call, nn.Module) and not type(call).__module__.startswith("torch.")
    module = call if isinstance(call, nn.Module) else None
    kind = kind_of_node(node, kinds) if module is None else kind_of_module(module, *kinds.values())
    call = call if kind else unread

    def function(t: Tensor) -> Tensor:
        def at(before: Node) -> Tensor:
            return functions[before](t)

        return call(*map_arg(node.args, at), **map_arg(node.kwargs, at))

    mixed = patch_of(found[0]) is not None and values_of(function) is None  # places of an image
    composed = len(kinds) > 1 or any(isinstance(values[before], Pointwise) for before in kinds)
    return None if mixed else Pointwise(found[0], function, node, kind, composed or own)


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


def factor_of_square(function: Callable[[Tensor], object]) -> float | None:
    """Return a where a function is a · t²; None for others."""
    points, values = values_of(function) or (POINTS, torch.zeros_like(POINTS))
    factor = float(values[-1] / points[-1] ** 2)
    same = torch.allclose(values, factor * points.square(), rtol=TOLERANCE, atol=0)
    return factor if same and abs(factor) > SMALLEST_SCALE else None


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
