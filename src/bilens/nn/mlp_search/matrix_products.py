"""Linear maps that are written as functions of loose tensors."""

from __future__ import annotations

from torch.fx.node import Node

from bilens.nn.mlp_search.expression import Applied, Tree
from bilens.nn.mlp_search.graph_reader import GraphReader, Value
from bilens.nn.mlp_search.node_values import arguments, first_value
from bilens.nn.mlp_search.pointwise import Pointwise
from bilens.nn.mlp_search.steps import Weight, weighted


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
    shift = bias.fetch if isinstance(bias, Weight) else None
    return Applied(weighted(weight.path, weight.fetch, shift), reader.realised(value))


def matrix_product(reader: GraphReader, node: Node) -> Value:
    """Read x @ weight."""
    value, weight = arguments(reader, node)
    if not isinstance(value, Tree | Pointwise) or not isinstance(weight, Weight):
        return None
    if weight.fetch().ndim != 2:
        return None
    step = weighted(weight.path, lambda: weight.fetch().T, None)
    return Applied(step, reader.realised(value))


def transposition(reader: GraphReader, node: Node) -> Value:
    """Read the transposed matrix of the module."""
    return transposed(first_value(reader, node))
