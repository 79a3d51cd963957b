"""Outputs of one linear map cut into branches, and the GLU of two halves."""

from __future__ import annotations

from torch.fx.node import Node

from bilens.algebra.approximation.activation import Activation
from bilens.nn.mlp_search.expression import Applied, Neurons, Tree
from bilens.nn.mlp_search.graph_reader import GraphReader, Value
from bilens.nn.mlp_search.node_values import arguments, first_value
from bilens.nn.mlp_search.pointwise import Pointwise
from bilens.nn.mlp_search.steps import halves


def chunk(reader: GraphReader, node: Node) -> Value:
    """Read equal parts of the outputs of a linear map."""
    value, parts, *rest = arguments(reader, node)
    axis = rest[0] if rest else node.kwargs.get("dim", 0)
    if not isinstance(value, Tree) or not isinstance(parts, int) or axis == 0:
        return None
    return halves(value, parts)


def split(reader: GraphReader, node: Node) -> Value:
    """Read parts of one size of the outputs of a linear map."""
    value, size, *rest = arguments(reader, node)
    axis = rest[0] if rest else node.kwargs.get("dim", 0)
    d_out = value.step.d_out if isinstance(value, Applied) else None
    if not isinstance(value, Tree) or not isinstance(size, int) or axis == 0 or d_out is None:
        return None
    return halves(value, d_out // size)


def item(reader: GraphReader, node: Node) -> Value:
    """Read one of several values."""
    value, (_, index) = first_value(reader, node), arguments(reader, node)
    if isinstance(value, tuple) and isinstance(index, int) and -len(value) <= index < len(value):
        return value[index]
    return None


def gated_halves(reader: GraphReader, value: Tree | Pointwise) -> Value:
    """Read a GLU: its first half times the sigmoid of the second."""
    parts = halves(reader.realised(value), 2)
    if parts is None:
        return None
    gate, source = reader.linear(parts[1])
    branch, other = reader.linear(parts[0])
    return Neurons(Activation("sigmoid"), gate, branch, source) if source is other else None


def glu(reader: GraphReader, node: Node) -> Value:
    """Read F.glu."""
    value = first_value(reader, node)
    return gated_halves(reader, value) if isinstance(value, Tree | Pointwise) else None
