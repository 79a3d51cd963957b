"""Graphs inside the nodes of an ONNX file, and its functions, written beside the other nodes.

The bodies of If, Loop and Scan hold weights and layers as the graph around them does. Their nodes
come before the node that they are in, which is known to depend on what they give; names of a body
begin with the name of that node and of the body, so that two bodies may use the same ones.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np

from bilens.base.errors import optional_package

TURN = "turn"  # of a loop, or a slice of a scan: what a body is given each time
MOST_DENSE = 1 << 28  # numbers of a tensor of which some are stored


def fill_sparse(model: Any, folder: str) -> None:
    """Write the sparse tensors of a model with their zeros, and in each tensor its own name."""
    onnx = optional_package("onnx", "onnx", "reading an ONNX file")
    dense = partial(dense_tensor, onnx.numpy_helper, folder)
    graphs = [model.graph, *model.functions]
    for graph in graphs:  # which grows
        for part in (one for node in graph.node for one in node.attribute):
            graphs += bodies_in(part)
            if part.name == "sparse_value":
                part.CopyFrom(onnx.helper.make_attribute("value", dense(part.sparse_tensor)))
        if sparse := [*getattr(graph, "sparse_initializer", ())]:
            graph.initializer.extend(map(dense, sparse))
            del graph.sparse_initializer[:]
    taken = set[str]()
    for graph in (model.graph, *model.functions):
        home = "" if graph is model.graph else f"{graph.name}."
        for name, tensor in tensors_below(graph, home):
            while home and name in taken:
                name = f"'{name}"
            taken.add(name)
            tensor.doc_string = name


def tensors_below(graph: Any, home: str) -> Iterator[tuple[str, Any]]:
    """Yield every tensor of a graph and of the bodies in it, which are called by their nodes."""
    yield from ((f"{home}{one.name}", one) for one in getattr(graph, "initializer", ()))
    for node in graph.node:
        for part in node.attribute:
            name = f"{home}{next(filter(None, node.output), node.name)}"
            name += "" if node.op_type == "Constant" else f".{part.name}"
            if part.t.data_type:
                yield name, part.t
            yield from ((f"{name}.{number}", one) for number, one in enumerate(part.tensors))
            for number, body in enumerate(bodies_in(part)):
                index = f".{number}" if part.graphs else ""
                yield from tensors_below(body, f"{name}{index}.")


def bodies_in(part: Any) -> list[Any]:
    """Return the graphs of an attribute of a node."""
    return [*([part.g] if part.HasField("g") else []), *part.graphs]


def dense_tensor(numpy_helper: Any, folder: str, sparse: Any) -> Any:
    if prod(sparse.dims) > MOST_DENSE:
        raise ValueError(f"a sparse tensor of {prod(sparse.dims)} numbers")
    values, at = (numpy_helper.to_array(one, folder) for one in (sparse.values, sparse.indices))
    found = np.zeros(tuple(sparse.dims), values.dtype)
    found[tuple(at.T) if at.ndim > 1 else np.unravel_index(at, found.shape)] = values
    return numpy_helper.from_array(found, sparse.values.name)


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
            for number, body in enumerate(bodies_in(part)):
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
        kept = [one for one in node.attribute if not bodies_in(one)]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.input[:] = [called.get(one, one) for one in node.input] + ends
        node.output[:] = [called.get(one, one) for one in node.output]
        yield node


def named_in(body: Any, prefix: str) -> dict[str, str]:
    """Return name in a body → its name beside the other nodes."""
    names = [one.name for one in (*body.input, *body.initializer)]
    names += [name for node in body.node for name in node.output]
    return {name: f"{prefix}{name}" for name in names if name}


def move_tensors(graph: Any, body: Any, called: Mapping[str, str]) -> None:
    """Put the tensors of a body, and what is known of its values, into the graph around it."""
    for kind in ("initializer", "value_info"):
        for one in getattr(body, kind):
            one.name = called.get(one.name, one.name)
        getattr(graph, kind).extend(getattr(body, kind))
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
