"""The operations of a graph, each with the value that it makes of those before it."""

import copy
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node

from bilens.algebra.approximation.activation import Activation
from bilens.nn.mlp_search.convolution import convolved, convolved_by, is_image
from bilens.nn.mlp_search.expression import (
    Applied,
    Fetch,
    Neurons,
    NormMoments,
    Step,
    Total,
    Tree,
    ValueSource,
    Weight,
    halves,
    linear_step,
    matrix_step,
    number,
    patch_of,
    rows,
    shifted,
    widths,
)
from bilens.nn.mlp_search.graph_reader import GraphReader, Value
from bilens.nn.mlp_search.pointwise import Pointwise, argument_of, by_method, pointwise

# What changes nothing of rows in evaluation; every layer found is checked by numbers afterwards.
PASSED_MODULES = (nn.Identity, nn.Flatten, nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout)
PASSED = {
    "dropout", "alpha_dropout", "feature_alpha_dropout", "contiguous", "clone", "detach",
    "to", "float", "double", "half", "bfloat16", "type_as", "flatten", "view", "reshape",
}  # fmt: skip
RESHAPED = {"flatten", "view", "reshape"}  # which makes other rows of an image
NO_VALUES = {"size", "dim", "numel"}
HEADS = {"softmax", "log_softmax", "Softmax", "LogSoftmax"}


def read_graph(root: nn.Module, graph: fx.Graph) -> GraphReader:
    reader = GraphReader(root, graph)
    for node in graph.nodes:
        if node.op == "output":
            reader.finish(node.args[0])
        elif node.op == "placeholder":
            reader.keep(node, ValueSource(node))
        elif node.op == "get_attr":
            reader.keep(node, attribute_value(reader, str(node.target)))
        else:
            read = module_value if node.op == "call_module" else call_value
            reader.keep(node, read(reader, node))
    return reader


def attribute_value(reader: GraphReader, path: str) -> Value:
    own = reader.root._parameters  # of a file by whole names, which may be those of methods
    read: Callable[..., Any] = own.__getitem__ if path in own else attrgetter(path)
    fetch = partial(read, path if path in own else reader.root)
    return Weight(path, fetch) if isinstance(fetch(), Tensor) else None


def module_value(reader: GraphReader, node: Node) -> Value:
    path = str(node.target)
    module = reader.root.get_submodule(path)
    value = first_value(reader, node)
    if isinstance(value, Tree | Pointwise) and len(node.all_input_nodes) == 1:
        if isinstance(module, PASSED_MODULES):
            mixed = isinstance(module, nn.Flatten) and is_image(value)
            return reader.taken_as_it_comes(node) if mixed else value
        if (found := convolved_by(reader, value, path, module)) is not None:
            return found
        if (step := linear_step(path, module)) is not None:
            return Applied(step, reader.realised(value))
        if isinstance(module, nn.GLU):
            return gated_halves(reader, value)
        if (kind := type(module).__name__) in HEADS:
            return reader.head(node, value, kind, getattr(module, "dim", None))
        bare = next(module.parameters(), None) is None or isinstance(module, nn.PReLU)
        if bare and next(module.children(), None) is None:
            found = pointwise(node, reader.values, copy.deepcopy(module).to("cpu", torch.float64))
            if found is not None:
                return found
    if next(module.children(), None) is not None:
        reader.inside.append(path)
    return reader.taken_as_it_comes(node)


def call_value(reader: GraphReader, node: Node) -> Value:
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    name = name.strip("_")
    value = first_value(reader, node)
    known = any(reader.values[before] is not None for before in node.all_input_nodes)
    if name in NO_VALUES or not known:
        return None
    if value is None:  # of a number or a size and of a value
        return reader.taken_as_it_comes(node)
    if name in PASSED:
        mixed = (name in RESHAPED and is_image(value)) or rounds(reader.root, node, name)
        return reader.taken_as_it_comes(node) if mixed else value
    if name == "getattr":
        return transposed(value) if node.args[1] in ("T", "mT") else None
    if name in HEADS and isinstance(value, Tree | Pointwise):
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return reader.head(node, value, name, axis)
    operation = OPERATIONS.get(name)
    if operation is not None and (result := operation(reader, node)) is not None:
        return result
    call = by_method(target) if isinstance(target, str) else target
    if (found := pointwise(node, reader.values, call)) is not None:
        return found
    return reader.taken_as_it_comes(node)


def rounds(root: nn.Module, node: Node, name: str) -> bool:
    """Tell whether a cast goes to whole numbers, or to half of what a module's weights are in."""
    named = [getattr(torch, name, None), *node.args[1:], *node.kwargs.values()]
    to = next((one for one in named if isinstance(one, torch.dtype)), torch.float64)
    weights = [torch.finfo(one.dtype).eps for one in root.parameters() if one.is_floating_point()]
    finest = max(torch.finfo(torch.float32).eps, min(weights, default=0.0))
    return not to.is_floating_point or torch.finfo(to).eps > finest


def first_value(reader: GraphReader, node: Node) -> Value:
    return next((reader.values[before] for before in node.all_input_nodes), None)


def arguments(reader: GraphReader, node: Node) -> list[object]:
    """Return the values of the positional arguments, constants as they are."""
    return [reader.values[part] if isinstance(part, Node) else part for part in node.args]


# ---- linear maps written as functions of loose tensors


def transposed(value: Value) -> Value:
    """Return a matrix of the module the other way round."""
    return Weight(value.path, lambda: value.fetch().T) if isinstance(value, Weight) else None


def linear_call(reader: GraphReader, node: Node) -> Value:
    """Read F.linear(x, weight, bias)."""
    value, weight, *rest = arguments(reader, node)
    bias = rest[0] if rest else node.kwargs.get("bias")
    bias = reader.values[bias] if isinstance(bias, Node) else bias
    if not isinstance(value, Tree | Pointwise) or not isinstance(weight, Weight):
        return None
    found = Applied(matrix_step(weight.path, weight.fetch, None), reader.realised(value))
    return shifted(found, Step(bias.path, None, bias.fetch)) if isinstance(bias, Weight) else found


def convolution_call(reader: GraphReader, node: Node) -> Value:
    """Read F.conv2d(x, weight, bias, stride, padding, dilation, groups), all of them given."""
    if len(node.args) != 7:
        return None
    value, weight, bias, *sizes, groups = arguments(reader, node)
    if not isinstance(value, Tree | Pointwise) or not isinstance(weight, Weight):
        return None
    return convolved(reader, value, weight, bias, sizes, groups)


def matrix_product(reader: GraphReader, node: Node) -> Value:
    """Read x @ weight."""
    value, weight = arguments(reader, node)
    if not isinstance(value, Tree | Pointwise) or not isinstance(weight, Weight):
        return None
    if weight.fetch().ndim != 2:
        return None
    step = matrix_step(weight.path, lambda: weight.fetch().T, None)
    return Applied(step, reader.realised(value))


def normalisation(reader: GraphReader, node: Node) -> Value:
    """Read F.batch_norm(x, mean, variance, gain, shift, training, momentum, ε), all given."""
    if len(node.args) != 8 or node.args[5]:
        return None
    value, mean, variance, gain, shift, _, _, epsilon = arguments(reader, node)
    if not isinstance(mean, Weight) or not isinstance(variance, Weight):
        return None
    if not isinstance(value, Tree | Pointwise) or not isinstance(epsilon, float):
        return None
    tree, size = reader.realised(value), len(mean.fetch())
    if widths(tree).given not in (None, size):
        return None

    def scale() -> Tensor:
        return torch.rsqrt(variance.fetch().double() + epsilon)

    tree = shifted(tree, Step(mean.path, None, lambda: -mean.fetch()))
    name = mean.path.rpartition(".")[0] or mean.path
    sees = NormMoments(
        f"BatchNorm {name}", lambda: torch.zeros(size), lambda: variance.fetch().sqrt()
    )
    tree = Applied(Step(variance.path, scale, None, size, size, sees=sees), tree)
    if isinstance(gain, Weight):
        tree = Applied(Step(gain.path, gain.fetch, None, size, size), tree)
    return shifted(tree, Step(shift.path, None, shift.fetch)) if isinstance(shift, Weight) else tree


# ---- sums and products


def total(reader: GraphReader, node: Node, sign: float = 1.0) -> Value:
    """Read first + sign · second."""
    first, second = arguments(reader, node)[:2]
    if node.kwargs or depend_on_one(first, second):
        return None
    axes = max(map(axes_of, (first, second)))
    left, right = (shift_or_tree(reader, part, axes) for part in (first, second))
    if left is None or right is None or (isinstance(left, Step) and isinstance(right, Step)):
        return None
    if sign < 0:
        right = opposite(right)
    if isinstance(left, Step):
        return shifted(right, left)  # type: ignore[arg-type]
    return shifted(left, right) if isinstance(right, Step) else Total((left, right))


def shift_or_tree(reader: GraphReader, part: object, axes: int) -> Step | Tree | None:
    """Return a bias or a number as the step that adds it, a value as a tree."""
    if isinstance(part, Tree | Pointwise):
        return reader.realised(part)
    if isinstance(part, Weight) and (vector := vector_of(part, axes)) is not None:
        return Step(part.path, None, vector)
    return Step("", None, number(part)) if isinstance(part, int | float) else None


def axes_of(value: object) -> int:
    """Return how many axes of an image stand behind its channels; 0 for rows."""
    if not isinstance(value, Tree | Pointwise):
        return 0
    patch = patch_of(value.argument if isinstance(value, Pointwise) else value)
    return 0 if patch is None else len(patch.kernel)


def vector_of(part: Weight, axes: int) -> Fetch | None:
    """Return numbers along one axis: of columns, or of channels with so many axes behind them."""
    shape = part.fetch().shape
    if max(shape[:-1], default=1) == 1:
        return lambda: part.fetch().reshape(shape[-1:])
    along = len(shape) > axes > 0 and shape.numel() == shape[-1 - axes]
    return (lambda: part.fetch().flatten()) if along else None


def opposite(part: Step | Tree) -> Step | Tree:
    """Return −x, or the step that subtracts what another one adds."""
    if not isinstance(part, Step):
        return Applied(Step("", number(-1)), part)
    bias = part.bias
    assert bias is not None, "a shift"
    return Step(part.path, None, lambda: -bias())


def multiplication(reader: GraphReader, node: Node) -> Value:
    """Read a product of two branches, or of a value and a number or a gain."""
    first, second = arguments(reader, node)[:2]
    for value, factor in ((first, second), (second, first)):
        step = factor_step(factor, axes_of(value))
        known = Tree | Pointwise if step is not None and step.path else Tree
        if step is not None and isinstance(value, known):
            return Applied(step, reader.realised(value))
    if not isinstance(first, Tree | Pointwise) or not isinstance(second, Tree | Pointwise):
        return None
    if argument_of(first) is argument_of(second):
        return None  # a function of one value, perhaps a square
    return reader.product(first, second)


def factor_step(factor: object, axes: int) -> Step | None:
    """Return the step that multiplies by a number or a gain."""
    if isinstance(factor, Weight) and (vector := vector_of(factor, axes)) is not None:
        width = None if factor.fetch().numel() == 1 else factor.fetch().numel()
        return Step(factor.path, vector, None, d_out=width, d_in=width)
    return Step("", number(factor)) if isinstance(factor, int | float) else None


def division(reader: GraphReader, node: Node) -> Value:
    value, divisor = arguments(reader, node)[:2]
    rounded = bool(node.kwargs)
    if isinstance(value, Tree) and isinstance(divisor, int | float) and divisor and not rounded:
        return Applied(Step("", number(1 / divisor)), value)
    return None


def depend_on_one(first: object, second: object) -> bool:
    """Tell whether two values are functions of the same linear value, and one is not linear."""
    known = [part for part in (first, second) if isinstance(part, Tree | Pointwise)]
    if not any(isinstance(part, Pointwise) for part in known):
        return False
    return len({argument_of(part) for part in known}) == 1


# ---- branches


def chunk(reader: GraphReader, node: Node, by_size: bool = False) -> Value:
    """Read the outputs of a linear map in so many parts, or in parts of one size."""
    value, count, *rest = arguments(reader, node)
    axis = rest[0] if rest else node.kwargs.get("dim", 0)
    if not isinstance(value, Applied) or not isinstance(count, int) or axis == 0:
        return None
    d_out = value.step.d_out
    return None if d_out is None else halves(value, d_out // count if by_size else count)


def item(reader: GraphReader, node: Node) -> Value:
    value, (_, index) = first_value(reader, node), arguments(reader, node)
    if isinstance(value, tuple) and isinstance(index, int) and -len(value) <= index < len(value):
        return value[index]
    part = index[1] if isinstance(index, tuple) and index[:1] == (...,) and index[1:] else None
    if not isinstance(value, Applied) or not isinstance(part, slice) or is_image(value):
        return None
    step = value.step
    if step.weight is None or step.d_out is None or isinstance(part.start or part.stop, Node):
        return None
    start, stop, by = part.indices(step.d_out)
    return Applied(rows(step, start, stop), value.inner) if by == 1 and start < stop else None


def gated_halves(reader: GraphReader, value: Value) -> Value:
    """Read a GLU: its first half times the sigmoid of the second."""
    parts = halves(reader.realised(value), 2) if isinstance(value, Tree | Pointwise) else None
    if parts is None:
        return None
    gate, source = reader.linear(parts[1])
    branch, other = reader.linear(parts[0])
    return Neurons(Activation("sigmoid"), gate, branch, source) if source is other else None


subtraction = partial(total, sign=-1.0)
OPERATIONS: dict[str, Callable[[GraphReader, Node], Value]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution_call),
    "batch_norm": normalisation,
    "linear": linear_call,
    "matmul": matrix_product,
    "mm": matrix_product,
    "add": total,
    "iadd": total,
    "sub": subtraction,
    "isub": subtraction,
    "mul": multiplication,
    "imul": multiplication,
    "truediv": division,
    "div": division,
    "chunk": chunk,
    "split": partial(chunk, by_size=True),
    "getitem": item,
    "glu": lambda reader, node: gated_halves(reader, first_value(reader, node)),
    "t": lambda reader, node: transposed(first_value(reader, node)),
}
