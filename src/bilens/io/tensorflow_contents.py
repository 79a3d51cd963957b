"""Reads graphs of TensorFlow and models of Keras: operations, inputs and outputs, tensors.

Formats are read field by field: nothing of TensorFlow is needed, and nothing is run.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from bilens.base.errors import optional_package
from bilens.io.contents import (
    TRAINING_GROUPS,
    Contents,
    Name,
    Operation,
    Program,
    Tensor,
    WeightPlace,
    hash_of,
    read_entry,
    shape_text,
    size_of,
)
from bilens.records.inventory import Port

# ---- TensorFlow: messages of protobuf, read field by field

TF_NUMBERS = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8"}
TF_NUMBERS |= {7: "string", 9: "int64", 10: "bool", 14: "bfloat16", 19: "float16"}
TF_NUMBERS |= {20: "resource", 22: "uint32"}
# Entries of an index of variables that are none of the model.
OF_SAVING = re.compile(rb"_CHECKPOINTABLE|keras_api/|optimizer|save_counter|.*/\.OPTIMIZER_SLOT/")
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
            if name and not OF_SAVING.match(name):
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


# ---- Keras: a configuration, and arrays of HDF5


def read_keras_contents(path: Path) -> Contents:
    """Return the layers of a file of Keras by class, and its weights."""
    from bilens.base.memory import check_memory  # loads torch, which headers do without

    found = Contents("Keras", [path])
    with zipfile.ZipFile(path) as archive:
        config = json.loads(read_entry(archive, "config.json"))
        about: dict[str, Any] = {}
        if "metadata.json" in archive.namelist():
            about = json.loads(read_entry(archive, "metadata.json"))
        size = archive.getinfo("model.weights.h5").file_size
        check_memory(2 * size, f"{path}", "name a smaller file")
        weights = archive.read("model.weights.h5")
    found.format = f"Keras {about.get('keras_version', '')}".strip()
    add_keras_layers(found, config)
    add_hdf5(found, io.BytesIO(weights))
    names = [one.name for one in found.tensors]
    found.program = lambda: keras_program(config, names)
    return found


def read_hdf5_contents(path: Path) -> Contents:
    found = Contents("HDF5 weights", [path])
    add_hdf5(found, path)
    return found


def add_keras_layers(found: Contents, config: Any) -> None:
    """Count the layers of a configuration, those of models inside it too."""
    found.imports = tuple(sorted({*named_outside_keras(config)}))
    todo = [config]
    while todo:
        one = todo.pop()
        if not isinstance(one, dict):
            continue
        inner = one.get("config")
        layers = inner.get("layers") if isinstance(inner, dict) else None
        if isinstance(layers, list):
            todo += layers[::-1]
        elif name := one.get("class_name"):
            found.operations[str(name)] += 1
            inner = inner if isinstance(inner, dict) else {}
            todo += [inner[key] for key in AROUND if key in inner]
            if name == "InputLayer" and inner:
                shape = inner.get("batch_shape") or inner.get("batch_input_shape") or ()
                sides = shape_text("?" if side is None else side for side in shape)
                dtype = inner.get("dtype")
                dtype = dtype if isinstance(dtype, str) else "float32"
                found.ports.append(Port("input", str(inner.get("name", "")), sides, dtype))


def named_outside_keras(config: Any) -> Iterator[str]:
    """Yield what a configuration names that is no part of Keras, and Python code that it holds."""
    if isinstance(config, dict):
        module, name = str(config.get("module") or "keras"), str(config.get("class_name"))
        if module.partition(".")[0] not in KERAS or name in ("Lambda", "__lambda__"):
            yield f"{module}.{name}"
    for part in config.values() if isinstance(config, dict) else config:
        if isinstance(part, dict | list):
            yield from named_outside_keras(part)


KERAS = ("keras", "tf_keras", "tensorflow")
AROUND = ("layer", "forward_layer", "cell")  # keys of a layer that another one is put around


# Nothing of an answer: what layers began with and were trained by, and a number of the run.
OF_TRAINING = re.compile(
    r"^(trainable|compile_config|shared_object_id)$|_(initializer|regularizer|constraint)$"
)


def keras_program(
    config: Any, paths: Sequence[str], placed: Mapping[str, Sequence[str]] | None = None
) -> Program:
    """Return a whole configuration, and the tensors of the layers.

    `placed` are the paths of each layer in the order in which Keras gives it weights; None where
    names of layers stand in no path.
    """
    names, todo = dict[str, None](), [config]
    while todo:
        one = todo.pop()
        if isinstance(one, dict) and "class_name" in one and isinstance(one.get("config"), dict):
            names[str(one["config"].get("name", ""))] = None
        if isinstance(one, dict | list):
            todo += [*(one.values() if isinstance(one, dict) else one)][::-1]

    def tree(key: str, one: Any) -> Program:
        if isinstance(one, list) and len(one) > 2 and one[0] in [*names] and type(one[1]) is int:
            return [Name(one[0]), *(tree("", part) for part in one[1:])]  # what is read
        if isinstance(one, list):
            return [tree("", part) for part in one]
        if not isinstance(one, dict):
            return Name(str(one)) if key == "name" and str(one) in names else one
        parts = {k: tree(k, x) for k, x in one.items() if not OF_TRAINING.search(k)}
        inner = one.get("config")
        said = f"{one.get('class_name')} {inner.get('name', '')}" if isinstance(inner, dict) else ""
        if not said or key in ("dtype", "args"):
            return parts
        own = parts.pop("config")  # its settings by their own names
        return Operation(said.strip(), {f"{k} of the layer": x for k, x in parts.items()} | own)

    order = {name: at for at, name in enumerate([*names, *(placed or ())])}
    split = [path.split("/") for path in paths]
    if placed is not None:  # others in the order of the layers
        split.sort(key=lambda parts: [(order.get(one, -1), one) for one in parts])
        said = [path.split("/") for parts in placed.values() for path in parts]
        split = said + [parts for parts in split if parts not in said]
    weights = [
        Operation(
            f"the tensor {'/'.join(parts)}",
            {
                "path": [Name(x) if placed is not None and x in order else x for x in parts],
                "weight": WeightPlace("/".join(parts), None, None),
            },
        )
        for parts in split
    ]
    return [tree("", config), Operation("tensors", {"stored": weights})]


def add_hdf5(found: Contents, source: Path | io.BytesIO) -> None:
    h5py = optional_package("h5py", "keras", "reading an HDF5 file")
    with h5py.File(source, "r") as file:
        config, placed = file.attrs.get("model_config"), paths_by_layer(file)
        if config:
            version = f"Keras {file.attrs.get('keras_version', '')}".strip()
            found.format = f"{version}, before Keras 3"
            add_keras_layers(found, json.loads(config))
        if config or placed:
            found.program = lambda: keras_program(
                json.loads(config or "null"), [*found.names()], placed
            )
        else:
            found.program = lambda: Operation("attributes", attributes_in(h5py, source))

        def add(name: str, one: Any) -> None:
            group, _, is_inside = name.partition("/")
            if is_inside and group in TRAINING_GROUPS:
                found.left_out += [] if group in found.left_out else [group]
            elif hasattr(one, "dtype"):
                name = name.removeprefix("model_weights/")
                shape, dtype = tuple(one.shape), one.dtype.name
                found.tensors.append(Tensor(name, shape, dtype, one.dtype.itemsize * prod(shape)))

        file.visititems(add)


def attributes_in(h5py: Any, source: Path | io.BytesIO) -> dict[str, Program]:
    """Return the attributes of a file and of all that is in it."""
    with h5py.File(source, "r") as file:
        every: dict[str, Any] = {"": file}
        file.visititems(every.__setitem__)
        return {
            f"{name}@{key}": value.tolist() if hasattr(value, "tolist") else value
            for name, one in every.items()
            for key, value in one.attrs.items()
        }


def paths_by_layer(file: Any) -> dict[str, list[str]]:
    """Return the paths of the weights of each layer, in the order in which Keras before 3 reads."""

    def listed(one: Any, key: str) -> list[str]:  # of a long list a part under each of key0, key1
        keys = [key, *(f"{key}{number}" for number in range(len(one.attrs)))]
        said = [name for each in keys if each in one.attrs for name in one.attrs[each]]
        return [name.decode() if isinstance(name, bytes) else str(name) for name in said]

    home = file.get("model_weights", file)
    layers = [name for name in listed(home, "layer_names") if name in home]
    return {name: [f"{name}/{x}" for x in listed(home[name], "weight_names")] for name in layers}
