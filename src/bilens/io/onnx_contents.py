"""Reads the graph of an ONNX file: operations, inputs and outputs, tensors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

from bilens.base.errors import optional_package
from bilens.io.contents import (
    INPUTS,
    Contents,
    Tensor,
    TensorBytes,
    bits_of,
    hash_of,
    shape_text,
    short_text,
)
from bilens.records.inventory import Port

NUMBERS = {"float": "float32", "double": "float64"}  # as onnx calls them
QUANTISED = ("DequantizeLinear", "QLinear", "MatMulInteger", "ConvInteger", "MatMulNBits")
PASSED_ON = ("Cast", "Dropout", "Identity", "Where", "Mul", "Reshape", "IsNaN")


def read_onnx_contents(path: Path) -> Contents:
    onnx = optional_package("onnx", "onnx", "reading an ONNX file")
    model = onnx.load(str(path), load_external_data=False)
    if not model.graph.node and not model.graph.initializer:
        raise ValueError("a graph without operations and tensors")
    maker = " ".join(filter(None, (model.producer_name, model.producer_version)))
    found = Contents(f"ONNX{f' of {maker}' if maker else ''}", [path], is_graph=True)
    kinds = onnx.TensorProto.DataType
    graphs = [model.graph, *model.functions]
    opsets = {one.domain: one.version for one in model.opset_import}
    users: set[str] = set()
    while graphs:  # graphs inside If and Loop, and functions, stand behind
        graph = graphs.pop(0)
        for proto in getattr(graph, "initializer", ()):
            add_onnx_tensor(found, path, proto, proto.name, kinds)
        for sparse in getattr(graph, "sparse_initializer", ()):
            add_onnx_tensor(found, path, sparse.values, sparse.values.name, kinds)
        made = {name: node for node in graph.node for name in node.output}
        for node in graph.node:
            name = node.op_type
            plain = node.domain in ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
            found.operations[name if plain else f"{node.domain}.{name}"] += 1
            found.parts["attention"] += reads_softmax(node, made)
            found.set_operation(name, (*node.output, "")[0], node_settings(onnx, node, opsets))
            if name.startswith("TreeEnsemble"):
                trees = {at for x in node.attribute if x.name == "nodes_treeids" for at in x.ints}
                found.parts["trees"] += len(trees)
            users |= {*node.input} if name.startswith(QUANTISED) else set()
            for part in node.attribute:
                if part.t.data_type:
                    own = "" if name == "Constant" else f".{part.name}"
                    add_onnx_tensor(found, path, part.t, f"{node.output[0]}{own}", kinds)
                graphs += [part.g] if part.HasField("g") else []
                graphs += part.graphs
    held = {one.name for one in found.tensors}
    for side, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            if value.name not in held:
                found.ports.append(onnx_port(side, value, kinds))
    found.mark_codes(users)
    found.said = {entry.key: entry.value for entry in model.metadata_props}
    versions = (f"{one.domain or 'ai.onnx'} {one.version}" for one in model.opset_import)
    found.said |= {"opset": ", ".join(versions)}
    found.set_operation("graph", "", {"opset": found.said["opset"]})
    return found


def node_settings(onnx: Any, node: Any, versions: Mapping[str, int]) -> dict[str, str]:
    """Return the attributes of a node, defaults of those that are left out too, and its inputs.

    Tensors and graphs in it stand for themselves.
    """
    found = dict[str, str]()
    with suppress(Exception):  # of an operation that onnx does not know
        known = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
        for name, one in known.attributes.items():
            found |= (
                {name: attribute_text(onnx, one.default_value)} if one.default_value.type else {}
            )
    for one in node.attribute:
        if not (one.t.data_type or one.HasField("g") or one.graphs or one.tensors):
            found[one.name] = attribute_text(onnx, one)
    return found | {INPUTS: ", ".join(node.input)}


def attribute_text(onnx: Any, attribute: Any) -> str:
    value = onnx.helper.get_attribute_value(attribute)
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return short_text(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def add_onnx_tensor(found: Contents, path: Path, proto: Any, name: str, kinds: Any) -> None:
    dtype = kinds.Name(proto.data_type).lower()
    dtype, shape = NUMBERS.get(dtype, dtype), tuple(proto.dims)
    said = {entry.key: entry.value for entry in proto.external_data}
    size, place, content = -(-bits_of(dtype) * prod(shape) // 8), None, None
    if location := said.get("location"):
        file, start = path.parent / Path(location).name, int(said.get("offset", 0))
        if file.is_file():
            found.files += [] if file in found.files else [file]
            place = TensorBytes(file, start, start + int(said.get("length", size)))
        elif (note := f"{location}: its tensors are not there") not in found.notes:
            found.notes.append(note)
    elif proto.raw_data and len(shape) > 1:
        content = hash_of(proto.raw_data)
    found.tensors.append(Tensor(name, shape, dtype, size, place, content or name))


def reads_softmax(node: Any, made: dict[str, Any]) -> bool:
    """Tell whether a product of two values has a softmax in it: the second one of an attention."""
    if node.op_type not in ("MatMul", "Einsum") or not node.input:
        return False
    names = [*node.input]
    for _ in range(4):
        nodes = [made[name] for name in names if name in made]
        if any(one.op_type == "Softmax" for one in nodes):
            return True
        names = [name for one in nodes if one.op_type in PASSED_ON for name in one.input]
    return False


def onnx_port(side: Any, value: Any, kinds: Any) -> Port:
    kind = value.type.tensor_type
    if not kind.elem_type:
        return Port(side, value.name, "", value.type.WhichOneof("value") or "")
    dtype = kinds.Name(kind.elem_type).lower()
    sides = (
        one.dim_param or (one.dim_value if one.dim_value > 0 else "?") for one in kind.shape.dim
    )
    shape = shape_text(sides) if kind.HasField("shape") else ""
    return Port(side, value.name, shape, NUMBERS.get(dtype, dtype))
