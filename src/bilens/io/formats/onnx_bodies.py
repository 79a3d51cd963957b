"""Graphs inside the nodes of an ONNX file, and its functions, written beside the other nodes.

The bodies of If, Loop and Scan hold weights and layers as the graph around them does. Their nodes
come before the node that they are in, which is known to depend on what they give; names of a body
begin with the name of that node and of the body, so that two bodies may use the same ones.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from bilens.base.errors import optional_package

TURN = "turn"  # of a loop, or a slice of a scan: what a body is given each time
MOST_DENSE = 1 << 26  # numbers of a tensor of which those that are not zero are stored


def fill_sparse(model: Any, folder: str) -> None:
    """Write sparse tensors of a model with their zeros, but for those of very many numbers."""
    onnx = optional_package("onnx", "onnx", "reading an ONNX file")
    graphs = [model.graph, *model.functions]
    for graph in graphs:  # which grows
        for node in graph.node:
            for part in node.attribute:
                graphs += [*([part.g] if part.HasField("g") else []), *part.graphs]
                if part.name == "sparse_value" and is_small(part.sparse_tensor):
                    held = dense_tensor(onnx, part.sparse_tensor, folder)
                    part.CopyFrom(onnx.helper.make_attribute("value", held))
        stored = getattr(graph, "sparse_initializer", [])
        for at in reversed(range(len(stored))):
            if is_small(stored[at]):
                graph.initializer.append(dense_tensor(onnx, stored[at], folder))
                del stored[at]


def is_small(sparse: Any) -> bool:
    return bool(0 < prod(sparse.dims) <= MOST_DENSE)


def dense_tensor(onnx: Any, sparse: Any, folder: str) -> Any:
    read = onnx.numpy_helper.to_array
    values, places = (read(one, folder) for one in (sparse.values, sparse.indices))
    found = np.zeros(tuple(sparse.dims), values.dtype)
    found[tuple(places.T) if places.ndim > 1 else np.unravel_index(places, found.shape)] = values
    return onnx.numpy_helper.from_array(found, sparse.values.name)


def without_bodies(model: Any) -> tuple[Any, dict[str, str]]:
    """Return a model without graphs in nodes or functions, and when each body is run, in words."""
    if model.functions:
        inliner = optional_package("onnx", "onnx", "reading an ONNX file", "onnx.inliner").inliner
        model = inliner.inline_local_functions(model)
    bodies: dict[str, str] = {}
    nodes = [*flattened(model.graph, [*model.graph.node], "", {}, bodies)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model, bodies


def flattened(
    graph: Any, nodes: list[Any], prefix: str, called: Mapping[str, str], bodies: dict[str, str]
) -> Iterator[Any]:
    """Yield nodes under the names that they are called by, those of the bodies in them before."""
    onnx = optional_package("onnx", "onnx", "reading an ONNX file")
    for node in nodes:
        name = next(filter(None, node.output), node.name)
        ends: list[str] = []
        for part in node.attribute:
            for number, body in enumerate([part.g] if part.HasField("g") else part.graphs):
                index = f".{number}" if part.graphs else ""
                own = f"{prefix}{name}.{part.name}{index}."
                inner = {**called, **named_in(body, own)}
                given = [one for one in body.input if one.name in {*inner}]
                stored = {one.name for one in body.initializer}
                for one in given:
                    if one.name not in stored:
                        yield onnx.helper.make_node(TURN, [], [inner[one.name]])
                move_tensors(graph, body, inner)
                bodies[own] = when_run(node.op_type, name, part.name)
                yield from flattened(graph, [*body.node], own, inner, bodies)
                ends += [inner.get(one.name, one.name) for one in body.output]
        kept = [one for one in node.attribute if not one.HasField("g") and not one.graphs]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.input[:] = [called.get(one, one) for one in node.input] + ends
        node.output[:] = [called.get(one, one) for one in node.output]
        yield node


def named_in(body: Any, prefix: str) -> dict[str, str]:
    """Return name in a body → its name beside the other nodes."""
    names = [one.name for one in (*body.input, *body.initializer)]
    names += [one.values.name for one in body.sparse_initializer]
    names += [name for node in body.node for name in node.output]
    return {name: f"{prefix}{name}" for name in names if name}


def move_tensors(graph: Any, body: Any, called: Mapping[str, str]) -> None:
    """Put the tensors of a body, and what is known of its values, into the graph around it."""
    for kind in ("initializer", "value_info"):
        for one in getattr(body, kind):
            one.name = called.get(one.name, one.name)
        getattr(graph, kind).extend(getattr(body, kind))
    for one in body.sparse_initializer:
        one.values.name = called[one.values.name]
    graph.sparse_initializer.extend(body.sparse_initializer)
    for one in (*body.input, *body.output):
        known = graph.value_info.add()
        known.CopyFrom(one)
        known.name = called.get(one.name, one.name)


def when_run(kind: str, name: str, part: str) -> str:
    """Say when the body of a node is run."""
    if kind == "If":
        holds = "holds" if part == "then_branch" else "does not hold"
        return f"run only where the condition of the If {name} {holds}"
    return f"run in each turn of the {kind} {name}"
