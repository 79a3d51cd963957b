"""The values of what a node is given."""

from __future__ import annotations

from torch.fx.node import Node

from bilens.nn.mlp_search.graph_reader import GraphReader, Value


def first_value(reader: GraphReader, node: Node) -> Value:
    """Return the value of the first argument that is one, however it is passed."""
    return next((reader.values[before] for before in node.all_input_nodes), None)


def arguments(reader: GraphReader, node: Node) -> list[object]:
    """Return the values of the positional arguments, constants as they are."""
    return [reader.values[part] if isinstance(part, Node) else part for part in node.args]
