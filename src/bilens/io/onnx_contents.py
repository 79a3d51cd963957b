"""Reads the graph of an ONNX file: operations, inputs and outputs, tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

from bilens.base.errors import optional_package
from bilens.io.contents import (
    ABOUT,
    Contents,
    Name,
    Operation,
    Program,
    Tensor,
    TensorBytes,
    WeightPlace,
    bits_of,
    hash_of,
    shape_text,
)
from bilens.io.formats.onnx_bodies import bodies_in, fill_sparse, tensors_below
from bilens.records.inventory import Port

NUMBERS = {"float": "float32", "double": "float64"}  # as onnx calls them
QUANTISED = ("DequantizeLinear", "QLinear", "MatMulInteger", "ConvInteger", "MatMulNBits")
PASSED_ON = ("Cast", "Dropout", "Identity", "Where", "Mul", "Reshape", "IsNaN")


def read_onnx_contents(path: Path) -> Contents:
    onnx = optional_package("onnx", "onnx", "reading an ONNX file")
    model = onnx.load(str(path), load_external_data=False)
    if not model.graph.node and not model.graph.initializer:
        raise ValueError("a graph without operations and tensors")
    fill_sparse(model, str(path.parent))
    maker = " ".join(filter(None, (model.producer_name, model.producer_version)))
    found = Contents(f"ONNX{f' of {maker}' if maker else ''}", [path], is_graph=True)
    kinds = onnx.TensorProto.DataType
    graphs = [model.graph, *model.functions]
    users = set[str]()
    for graph in graphs:
        for _, proto in tensors_below(graph, ""):
            add_onnx_tensor(found, path, proto, kinds)
    while graphs:  # graphs inside If and Loop, and functions, stand behind
        graph = graphs.pop(0)
        made = {name: node for node in graph.node for name in node.output}
        for node in graph.node:
            name = node.op_type
            plain = node.domain in ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
            found.operations[name if plain else f"{node.domain}.{name}"] += 1
            found.parts["attention"] += reads_softmax(node, made)
            if name.startswith("TreeEnsemble"):
                trees = {at for x in node.attribute if x.name == "nodes_treeids" for at in x.ints}
                found.parts["trees"] += len(trees)
            users |= {*node.input} if name.startswith(QUANTISED) else set()
            for part in node.attribute:
                graphs += bodies_in(part)
    held = {one.name for one in found.tensors}
    for side, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            if value.name not in held:
                found.ports.append(onnx_port(side, value, kinds))
    ends = {name: {name[at.end() :] for at in re.finditer(r"^|\.", name)} for name in held}
    found.mark_codes([name for name in held if ends[name] & users])  # in bodies, too
    found.said = {entry.key: entry.value for entry in model.metadata_props}
    versions = (f"{one.domain or 'ai.onnx'} {one.version}" for one in model.opset_import)
    found.said |= {"opset": ", ".join(versions)}
    found.program = lambda: OnnxProgram(onnx, path, model).tree()
    return found


# Fields that nothing is computed with: who wrote a file and with which version of the format, words
# about it, what inner values are, which the operations tell, and tensors, which are where they are
# read.
LEFT_OUT = {"doc_string", "metadata_props", "producer_name", "producer_version", "ir_version"}
LEFT_OUT |= {"model_version", "value_info", "initializer"}
# Names, and what is put in the place of names and lists in no order.
OTHERWISE = {
    "ModelProto": {"domain", "graph", "functions", "opset_import"},
    "GraphProto": {"name", "node", "input", "output"},
    "FunctionProto": {"domain", "name", "overload", "node", "input", "output", "opset_import"},
    "NodeProto": {"domain", "op_type", "overload", "name", "input", "output", "attribute"},
}


class OnnxProgram:
    """The program of an ONNX file: all fields of its message but those that compute nothing.

    Operations stand as the outputs need them, so that the order of independent ones is no matter.
    """

    def __init__(self, onnx: Any, path: Path, model: Any) -> None:
        self.onnx, self.folder, self.model = onnx, str(path.parent), model
        self.functions = {(one.domain, one.name, one.overload): one for one in model.functions}
        self.called, self.domains = dict[Any, None](), set[str]()
        self.opsets = {plain_domain(one.domain): one.version for one in model.opset_import}

    def tree(self) -> Program:
        graph = Operation("graph", self.graph(self.model.graph, {}, is_main=True))
        functions, done = list[Program](), set[Any]()
        while left := [key for key in (*self.called, *self.functions) if key not in done]:
            done.add(left[0])  # in the order in which they are called
            one = self.functions[left[0]]
            inner = self.graph(one, {}) | {"function": Name(".".join(left[0][:2]), left[0])}
            inner["opset_import"] = {plain_domain(x.domain): x.version for x in one.opset_import}
            functions.append(Operation(f"function {left[0][1]}", inner))
        # an import says nothing of a domain of which there is no operation
        opsets = {name: version for name, version in self.opsets.items() if name in self.domains}
        said = Operation("graph", {"opset": [f"{n} {v}" for n, v in sorted(opsets.items())]})
        words = {x.key: x.value for x in self.model.metadata_props if x.key not in ABOUT}
        more = {"functions": functions, **self.fields(self.model, {})}
        return [said, graph, Operation("file", more), Operation("metadata", words)]

    def fields(self, message: Any, scope: dict[str, Program]) -> dict[str, Program]:
        """List the fields of a message by their descriptors."""
        from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]

        kind, found = message.DESCRIPTOR.name, dict[str, Program]()
        if len(UnknownFieldSet(message)):
            raise ValueError(f"{kind} has a field that this version of onnx does not know")
        for field, value in message.ListFields():
            if field.name not in LEFT_OUT | OTHERWISE.get(kind, set()):
                many = not isinstance(value, str | bytes) and hasattr(value, "__len__")
                parts = [self.value(one, scope) for one in (value if many else [value])]
                found[field.name] = parts if many else parts[0]
        return found

    def value(self, one: Any, scope: dict[str, Program]) -> Program:
        kind = one.DESCRIPTOR.name if hasattr(one, "DESCRIPTOR") else ""
        if kind == "TensorProto":
            fetch = partial(bytes_of, self.onnx, one, self.folder)
            return WeightPlace(one.doc_string, (one.data_type, *one.dims), fetch)
        if kind == "GraphProto":
            return self.graph(one, scope)
        return self.fields(one, scope) if kind else one

    def graph(self, graph: Any, outer: dict[str, Program], *, is_main: bool = False) -> Program:
        """Return a graph, a body of a node or a function, whose names are its own."""
        ends = {
            side: [getattr(one, "name", one) for one in getattr(graph, side)]
            for side in ("input", "output")
        }
        made = [name for node in graph.node for name in node.output]
        scope = outer | {name: Name(name, id(graph)) for name in (*ends["input"], *made)}
        for proto in getattr(graph, "initializer", ()):
            scope[proto.name] = self.value(proto, scope)
        for one in graph.node:
            if (held := constant_in(one)) is not None:  # as if it was an initializer
                scope[one.output[0]] = self.value(held, scope)
        found: dict[str, Program] = {
            s: [scope.get(x, x) for x in names] for s, names in ends.items()
        }
        if is_main:  # others give and take values under these names, in these types
            for side in ends:
                found[f"{side} values"] = [self.fields(one, {}) for one in getattr(graph, side)]
        nodes = [x for x in in_order(graph.node, ends["output"]) if constant_in(x) is None]
        found["nodes"] = [self.node(one, scope) for one in nodes]
        return found | self.fields(graph, scope)

    def node(self, node: Any, scope: dict[str, Program]) -> Operation:
        domain, first = plain_domain(node.domain), (*node.output, "")[0]
        key = (node.domain, node.op_type, node.overload)
        own = key in self.functions
        if own:
            self.called[key] = None
        else:
            self.domains.add(domain)
        kind = (
            Name(".".join(key[:2]), key)
            if own
            else f"{domain} {node.op_type} {node.overload}".strip()
        )
        found: dict[str, Program] = {"operation": kind}
        with suppress(Exception):  # of an operation that onnx does not know
            version = self.opsets.get(domain, 1)
            schema = self.onnx.defs.get_schema(node.op_type, version, node.domain)
            for name, one in schema.attributes.items():
                if one.default_value.type and not own:
                    found[name] = self.attribute(one.default_value, scope)
        for one in sorted(node.attribute, key=lambda one: str(one.name)):
            found[one.name] = self.attribute(one, scope)
        for side in ("input", "output"):  # those at the end may be left out
            names = [*getattr(node, side)]
            while names and not names[-1]:
                names.pop()
            found[f"{side}s"] = [scope.get(name, name) for name in names]
        return Operation(f"{node.op_type} {first}".strip(), found | self.fields(node, scope))

    def attribute(self, one: Any, scope: dict[str, Program]) -> Program:
        if one.ref_attr_name:
            return {"of the function": one.ref_attr_name}
        value = self.onnx.helper.get_attribute_value(one)
        if isinstance(value, list):
            return [self.value(x, scope) for x in value]
        return self.value(value, scope)


def plain_domain(domain: str) -> str:
    return domain or "ai.onnx"


def constant_in(node: Any) -> Any:
    """Return the tensor that a node is; None for another one."""
    is_constant = (plain_domain(node.domain), node.op_type) == ("ai.onnx", "Constant")
    held = [one.t for one in node.attribute if one.name == "value" and not one.ref_attr_name]
    return held[0] if is_constant and held else None


def bytes_of(onnx: Any, proto: Any, folder: str) -> bytes:
    array = onnx.numpy_helper.to_array(proto, folder)
    return repr(array.tolist()).encode() if array.dtype == object else bytes(array.tobytes())


def names_read(node: Any) -> Iterator[str]:
    """Yield what a node reads, and what the bodies in it do."""
    yield from node.input
    for body in chain(*map(bodies_in, node.attribute)):
        yield from chain(*map(names_read, body.node), (one.name for one in body.output))


def in_order(nodes: Sequence[Any], ends: Sequence[str]) -> list[Any]:
    """Return nodes in the order in which the outputs need them, before those that none needs."""
    made = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    found, todo = dict[int, None](), [(at, False) for at in reversed(range(len(nodes)))]
    todo += [(made[name], False) for name in reversed(ends) if name in made]
    opened = set[int]()
    while todo:
        at, is_read = todo.pop()
        if is_read:
            found[at] = None
        elif at not in opened:
            opened.add(at)
            needed = [made[name] for name in names_read(nodes[at]) if name in made]
            todo += [(at, True), *((one, False) for one in reversed(needed))]
    return [nodes[at] for at in found]


def add_onnx_tensor(found: Contents, path: Path, proto: Any, kinds: Any) -> None:
    name, dtype = proto.doc_string, kinds.Name(proto.data_type).lower()
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
