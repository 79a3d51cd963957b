"""Reads graphs of TensorFlow: operations, inputs and outputs, tensors.

The format is read field by field: nothing of TensorFlow is needed, and nothing is run.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bilens.io.contents import (
    Contents,
    Tensor,
    hash_of,
    shape_text,
    size_of,
)
from bilens.records.inventory import Port

# ---- TensorFlow: messages of protobuf, read field by field

TF_NUMBERS = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8"}
TF_NUMBERS |= {7: "string", 9: "int64", 10: "bool", 14: "bfloat16", 19: "float16"}
TF_NUMBERS |= {20: "resource", 22: "uint32"}
# Entries of an index of variables that are none of the model.
OF_TRAINING = re.compile(rb"_CHECKPOINTABLE|keras_api/|optimizer|save_counter|.*/\.OPTIMIZER_SLOT/")
Message = dict[int, list[Any]]


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def read_message(data: bytes) -> Message:
    """Return number of a field → its values: numbers, or bytes that may be messages."""
    found: Message = {}
    at = 0
    while at < len(data):
        value: int | bytes
        key, at = read_varint(data, at)
        size = {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 == 0:
            value, at = read_varint(data, at)
        elif key & 7 == 2 or size:
            size, at = (size, at) if size else read_varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"a field of type {key & 7}")
        if at > len(data) or not key >> 3:
            raise ValueError("a field behind the end")
        found.setdefault(key >> 3, []).append(value)
    return found


def to_signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def tf_shape(data: bytes) -> tuple[int, ...]:
    sides = read_message(data).get(2, [])
    return tuple(to_signed(read_message(side).get(1, [0])[0]) for side in sides)


def read_tensorflow(path: Path) -> Contents:
    """Read a SavedModel, its folder or a frozen graph."""
    folder = path if path.is_dir() else path.parent
    file = path / "saved_model.pb" if path.is_dir() else path
    whole, saved = read_message(file.read_bytes()), file.name == "saved_model.pb"
    found = Contents(
        "SavedModel of TensorFlow" if saved else "frozen graph of TensorFlow", [file], is_graph=True
    )
    metas = [read_message(one) for one in whole.get(2, [])] if saved else [{2: [], 5: []}]
    for meta in metas:
        ends = set[str]()
        for entry in map(read_message, meta.get(5, [])):
            name, signature = entry[1][0].decode(), read_message(entry.get(2, [b""])[0])
            if not name.startswith("__"):
                found.ports += [*tf_ports("input", signature, 1), *tf_ports("output", signature, 2)]
                made = (read_message(read_message(one)[2][0])[1][0] for one in signature.get(2, []))
                ends |= {name.decode().partition(":")[0] for name in made}
        for graph in [read_message(one) for one in meta[2]] or [whole]:
            library = (one for part in graph.get(2, []) for one in read_message(part).get(1, []))
            functions = {read_message(f[1][0])[1][0]: f for f in map(read_message, library)}
            nodes = [read_message(one) for one in graph.get(1, [])]
            chosen = nodes_behind(ends, nodes) if ends else nodes
            found.operations += count_operations(found, chosen, functions, {})
    if not found.operations:
        raise ValueError("a graph without operations")
    index = folder / "variables" / "variables.index"
    if saved and index.is_file():
        constants = [one._replace(counted=False) for one in found.tensors]
        found.tensors = [*constants, *tf_variables(index.read_bytes())]
        found.files += [index, *sorted(index.parent.glob("variables.data-*"))]
    return found


def tf_ports(side: Any, signature: Message, number: int) -> Iterator[Port]:
    for entry in map(read_message, signature.get(number, [])):
        about = read_message(entry[2][0])
        shape = ["?" if size < 0 else size for size in tf_shape(about.get(3, [b""])[0])]
        dtype = TF_NUMBERS.get(about.get(2, [0])[0], "")
        yield Port(side, entry[1][0].decode(), shape_text(shape), dtype)


def nodes_behind(ends: set[str], nodes: list[Message]) -> Iterator[Message]:
    """Yield the nodes that outputs are made by: others save, restore and train."""
    by_name, todo, seen = {one[1][0].decode(): one for one in nodes}, [*ends], set[str]()
    while todo:
        name = todo.pop()
        if name in by_name and name not in seen:
            seen.add(name)
            yield by_name[name]
            given = (one.decode() for one in by_name[name].get(3, []))
            todo += [one.removeprefix("^").partition(":")[0] for one in given]


def count_operations(
    found: Contents,
    nodes: Iterable[Message],
    functions: Mapping[bytes, Message],
    done: dict[bytes, Counter[str]],
) -> Counter[str]:
    """Count operations, those of functions at each call; constants of each are tensors once."""
    total = Counter[str]()
    for node in nodes:
        name, called = node[2][0].decode(), []
        for entry in map(read_message, node.get(5, [])):
            value = read_message(entry[2][0]) if 2 in entry else {}
            called += [read_message(one)[1][0] for one in value.get(10, [])]
            if name == "Const" and entry[1][0] == b"value":
                add_constant(found, node[1][0].decode(), read_message(value[8][0]))
        known = [one for one in called if one in functions]
        for function in known:
            if function not in done:
                done[function] = Counter()  # for one that calls itself
                inner = map(read_message, functions[function].get(3, []))
                done[function] = count_operations(found, inner, functions, done)
            total += done[function]
        if not known:
            total[name] += 1
    return total


def add_constant(found: Contents, label: str, proto: Message) -> None:
    dtype, shape = TF_NUMBERS.get(proto[1][0], ""), tf_shape(proto.get(2, [b""])[0])
    size, content = size_of(shape, dtype), hash_of(proto.get(4, [b""])[0])
    if len(shape) > 0 and dtype not in ("string", "int32", "int64"):
        found.tensors.append(Tensor(label, shape, dtype, size, None, content or label))


def tf_variables(data: bytes) -> Iterator[Tensor]:
    """Yield the tensors of an index of variables: a table of names and places."""
    (_, _), at = read_varint_pair(
        data, len(data) - 48
    )  # of the table of metadata, which is passed over
    (start, size), _ = read_varint_pair(data, at)
    for _, handle in table_entries(data[start : start + size]):
        (start, size), _ = read_varint_pair(handle, 0)
        for name, entry in table_entries(data[start : start + size]):
            about = read_message(entry)
            if name and not OF_TRAINING.match(name):
                dtype = TF_NUMBERS.get(about.get(1, [0])[0], "")
                shape = tf_shape(about.get(2, [b""])[0])
                label = name.decode().removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
                yield Tensor(label, shape, dtype, about.get(5, [0])[0], None, label)


def read_varint_pair(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    first, at = read_varint(data, at)
    second, at = read_varint(data, at)
    return (first, second), at


def table_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of each entry of a block; a key shares the start of the one before."""
    (restarts,) = struct.unpack("<I", block[-4:])
    at, end, key = 0, len(block) - 4 - 4 * restarts, b""
    while at < end:
        (shared, more), at = read_varint_pair(block, at)
        size, at = read_varint(block, at)
        key = key[:shared] + block[at : at + more]
        yield key, block[at + more : at + more + size]
        at += more + size
