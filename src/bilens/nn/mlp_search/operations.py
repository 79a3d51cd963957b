"""What each operation of a graph makes of the values before it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from operator import attrgetter

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node

from bilens.nn.mlp_search.arithmetic import addition, division, multiplication, subtraction
from bilens.nn.mlp_search.cuts import chunk, gated_halves, glu, item, split
from bilens.nn.mlp_search.expression import Applied, Source, Tree
from bilens.nn.mlp_search.graph_reader import GraphReader, Value
from bilens.nn.mlp_search.matrix_products import (
    linear_call,
    matrix_product,
    transposed,
    transposition,
)
from bilens.nn.mlp_search.node_values import first_value
from bilens.nn.mlp_search.pointwise import Pointwise, by_method, pointwise
from bilens.nn.mlp_search.steps import Weight, linear_step

# What changes nothing of rows in evaluation; every layer found is checked by numbers afterwards.
PASSED_MODULES = (nn.Identity, nn.Flatten, nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout)
PASSED = {
    "dropout",
    "alpha_dropout",
    "feature_alpha_dropout",
    "contiguous",
    "clone",
    "detach",
    "to",
}
PASSED |= {"float", "double", "half", "bfloat16", "type_as", "flatten", "view", "reshape"}
NO_VALUES = {"size", "dim", "numel"}
HEADS = {"softmax", "log_softmax", "Softmax", "LogSoftmax"}


def read_graph(root: nn.Module, graph: fx.Graph) -> GraphReader:
    """Return what the values of a graph are."""
    reader = GraphReader(root, graph)
    for node in graph.nodes:
        if node.op == "output":
            reader.finish(node.args[0])
        else:
            reader.keep(node, READERS[node.op](reader, node))
    return reader


def given_value(_reader: GraphReader, node: Node) -> Value:
    """Return an argument of the module."""
    return Source(node)


def attribute_value(reader: GraphReader, node: Node) -> Value:
    """Return a tensor of the module itself."""
    path = str(node.target)
    fetch = attrgetter(path)
    if isinstance(fetch(reader.root), Tensor):
        return Weight(path, lambda: fetch(reader.root))
    return None


def module_value(reader: GraphReader, node: Node) -> Value:
    """Return what a module makes of its argument."""
    path = str(node.target)
    module = reader.root.get_submodule(path)
    value = first_value(reader, node)
    if isinstance(value, Tree | Pointwise) and len(node.all_input_nodes) == 1:
        if isinstance(module, PASSED_MODULES):
            return value
        if (step := linear_step(path, module)) is not None:
            return Applied(step, reader.realised(value))
        if isinstance(module, nn.GLU):
            return gated_halves(reader, value)
        if type(module).__name__ in HEADS:
            return reader.head(node, value, type(module).__name__)
        bare = next(module.parameters(), None) is None or isinstance(module, nn.PReLU)
        if bare and next(module.children(), None) is None:
            found = pointwise(node, reader.values, copy.deepcopy(module).to("cpu", torch.float64))
            if found is not None:
                return found
    if next(module.children(), None) is not None:
        reader.inside.append(path)
    return reader.taken_as_it_comes(node)


def call_value(reader: GraphReader, node: Node) -> Value:
    """Return what a function or a method of tensors makes of its arguments."""
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    name = name.strip("_")
    value = first_value(reader, node)
    if name in NO_VALUES or value is None:
        return None
    if name in PASSED:
        return value
    if name == "getattr":
        return transposed(value) if node.args[1] in ("T", "mT") else None
    if name in HEADS and isinstance(value, Tree | Pointwise):
        return reader.head(node, value, name)
    operation = OPERATIONS.get(name)
    if operation is not None and (result := operation(reader, node)) is not None:
        return result
    call = by_method(target) if isinstance(target, str) else target
    if (found := pointwise(node, reader.values, call)) is not None:
        return found
    return reader.taken_as_it_comes(node)


READERS: dict[str, Callable[[GraphReader, Node], Value]] = {
    "placeholder": given_value,
    "get_attr": attribute_value,
    "call_module": module_value,
    "call_function": call_value,
    "call_method": call_value,
}
OPERATIONS: dict[str, Callable[[GraphReader, Node], Value]] = {
    "linear": linear_call,
    "matmul": matrix_product,
    "mm": matrix_product,
    "add": addition,
    "iadd": addition,
    "sub": subtraction,
    "isub": subtraction,
    "mul": multiplication,
    "imul": multiplication,
    "truediv": division,
    "div": division,
    "chunk": chunk,
    "split": split,
    "getitem": item,
    "glu": glu,
    "t": transposition,
}
