"""Reads files of tensors, archives and trees, each by its header; nothing in them is run."""

from __future__ import annotations

import ast
import io
import json
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import IO, Any

import msgspec

from bilens.base.errors import MissingExtraError, optional_package
from bilens.io.byte_ranges import opened, read_header
from bilens.io.contents import (
    TRAINING_GROUPS,
    Contents,
    Name,
    Operation,
    Program,
    Tensor,
    TensorBytes,
    WeightPlace,
    numpy_name,
    read_entry,
    shape_text,
    size_of,
)
from bilens.io.formats.gguf_header import HeaderReader
from bilens.io.pickle_contents import walk_pickles
from bilens.io.pickle_inventory import PLAIN, read_plain_pickle
from bilens.records.inventory import Port

SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
SAFETENSORS |= {f"{a}{n}": f"{b}{n}" for a, b in (("I", "int"), ("U", "uint")) for n in (8, 16, 32)}
SAFETENSORS |= {"I64": "int64", "U64": "uint64", "BOOL": "bool"}
SAFETENSORS |= {"F8_E4M3": "float8e4m3fn", "F8_E5M2": "float8e5m2"}
GENERAL = [  # keys of a GGUF file that say what it is
    "name", "license", "license.name", "author", "organization", "description", "url",
    "size_label", "finetune", "basename", "languages", "base_model.0.name",
]  # fmt: skip
# What says who made a file and how its numbers are stored, and in which parts.
LEFT_OUT, ABOUT = ("quantize.imatrix.file",), ("general.", "split.")
MOST_HEADER = 1 << 20  # bytes of that of an array
FASTTEXT_MODELS = {1: "cbow", 2: "skipgram", 3: "supervised"}


def read_safetensors_contents(path: Path) -> Contents:
    header = read_header(path)
    found = Contents("safetensors", [path], said=dict(header.metadata))
    for name, one in header.entries.items():
        low, high = (header.stop + end for end in one.data_offsets)
        dtype, place = SAFETENSORS.get(one.dtype, one.dtype.lower()), TensorBytes(path, low, high)
        found.tensors.append(Tensor(name, one.shape, dtype, high - low, place))
    names = {one.name for one in found.tensors}
    scales = ("_scale", ".scales", ".qzeros", ".absmax", ".quant_state", "_scale_inv")
    if any(name.endswith(scales) for name in names):
        found.mark_codes(names)
    return found


def read_gguf_contents(path: Path) -> Contents:
    header = HeaderReader(opened(path)).header()
    first = re.fullmatch(r"(.*)-00001-of-(\d{5})", path.stem)  # the others are part of it
    others = range(2, 1 + int(first[2])) if first else ()
    parts = [path.with_name(f"{first[1]}-{n:05}-of-{first[2]}.gguf") for n in others if first]
    said = {key: str(value) for key, value in header.values.items()}
    architecture = said.get("general.architecture", "")
    own = {k: v for k, v in said.items() if k not in LEFT_OUT and not k.startswith(ABOUT)}
    found = Contents(f"GGUF {architecture}".strip(), [path])
    found.program = lambda: Operation("header", own)
    found.said = {k: said[f"general.{k}"] for k in GENERAL if f"general.{k}" in said}
    gguf = None
    sizes = ("context_length", "embedding_length", "block_count", "attention.head_count")
    found.said |= {k: said[f"{architecture}.{k}"] for k in sizes if f"{architecture}.{k}" in said}
    with suppress(MissingExtraError):
        gguf = optional_package("gguf", "gguf", "reading a GGUF file")
        plain = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
        names = {int(one): plain.get(one.name, one.name) for one in gguf.GGMLQuantizationType}
        blocks = {int(one): size for one, size in gguf.GGML_QUANT_SIZES.items()}
    for name, one in header.tensors.items():
        known = gguf is not None and one.kind in blocks
        numbers, length = blocks[one.kind] if known else (1, 0)
        size = prod(one.shape) // numbers * length
        dtype = names.get(one.kind, "") if gguf is not None else ""
        place = TensorBytes(path, one.offset, one.offset + size)
        if place.stop > path.stat().st_size:
            raise ValueError(f"{name} ends behind the end of the file")
        codes = not dtype.startswith(("float", "bfloat"))
        dtype = dtype or f"ggml type {one.kind}"
        found.tensors.append(Tensor(name, one.shape, dtype, size, place, None, codes))
    for part in map(read_gguf_contents, filter(Path.is_file, parts)):
        found.files += part.files
        found.tensors += part.tensors
    return found


# ---- archives


def read_npz(path: Path) -> Contents:
    """Return the arrays of an .npz, of skops (whose classes its schema names) or of an .npy."""
    found = Contents("arrays of NumPy", [path])
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            add_array(found, path.stem, file)
        return found
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "schema.json" in names:
            text = read_entry(archive, "schema.json").decode()
            pairs = re.findall(r'"__class__": "(\w+)",\s*"__module__": "([\w.]+)"', text)
            found.format = "skops"
            classes = (f"{module}.{name}" for name, module in pairs)
            found.operations = Counter(x for x in classes if not x.startswith(PLAIN))
        for name in names:
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    add_array(found, name.removesuffix(".npy"), file)
    return found


def add_array(found: Contents, name: str, file: IO[bytes]) -> None:
    """Add an array; one of objects is a pickle behind its header, which is walked."""
    tensor = npy_header(name, file)
    found.tensors.append(tensor)
    if "|O" in tensor.dtype:
        _, names, notes = walk_pickles(io.BytesIO(file.read()))
        found.imports = tuple(sorted({*found.imports, *names}))
        found.notes += [f"{name}: a pickle of objects, opened by none but allow_pickle=True"]
        found.notes += [f"{name}: {note}" for note in notes]


def npy_header(name: str, file: IO[bytes]) -> Tensor:
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise ValueError(f"{name} is no array")
    code = "<H" if magic[6] == 1 else "<I"
    (length,) = struct.unpack(code, file.read(struct.calcsize(code)))
    if length > MOST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    said = ast.literal_eval(file.read(length).decode("latin1"))
    shape, dtype = tuple(said["shape"]), numpy_name(str(said["descr"]))
    return Tensor(name, shape, dtype, size_of(shape, dtype))


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
    found.program = lambda: keras_program(config, names, by_name=False)
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


def keras_program(config: Any, paths: Sequence[str], by_name: bool) -> Program:
    """Return a whole configuration, and the tensors of the layers, in whose paths names may be."""
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

    order = {name: at for at, name in enumerate(names)}
    split = [path.split("/") for path in paths]
    if by_name:  # layers in the order of the configuration
        split.sort(key=lambda parts: [(order.get(one, -1), one) for one in parts])
    weights = [
        Operation(
            f"the tensor {'/'.join(parts)}",
            {
                "path": [Name(one) if by_name and one in order else one for one in parts],
                "weight": WeightPlace("/".join(parts), None, None),
            },
        )
        for parts in split
    ]
    return [tree("", config), Operation("tensors", {"stored": weights})]


def add_hdf5(found: Contents, source: Path | io.BytesIO) -> None:
    h5py = optional_package("h5py", "keras", "reading an HDF5 file")
    with h5py.File(source, "r") as file:
        if config := file.attrs.get("model_config"):
            version = f"Keras {file.attrs.get('keras_version', '')}".strip()
            found.format = f"{version}, before Keras 3"
            add_keras_layers(found, json.loads(config))
            paths = (one.name for one in found.tensors)
            found.program = lambda: keras_program(json.loads(config), [*paths], by_name=True)

        def add(name: str, one: Any) -> None:
            group, _, is_inside = name.partition("/")
            if is_inside and group in TRAINING_GROUPS:
                found.left_out += [] if group in found.left_out else [group]
            elif hasattr(one, "dtype"):
                name = name.removeprefix("model_weights/")
                shape, dtype = tuple(one.shape), one.dtype.name
                found.tensors.append(Tensor(name, shape, dtype, one.dtype.itemsize * prod(shape)))

        file.visititems(add)


def read_exported(path: Path) -> Contents:
    """Return the operations of a program of `torch.export`."""
    found = Contents("program of torch.export", [path], is_graph=True)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".json") and re.search(r"models/|exported_program", name):
                text = read_entry(archive, name).decode()
                calls = re.findall(r'"target": ?"torch\.ops\.([\w.]+)"', text)
                found.operations += Counter(calls)
            if name.endswith("_config.json") and re.search("/data/(weights|constants)/", name):
                held = json.loads(read_entry(archive, name))["config"]
                found.tensors += [
                    exported_tensor(*one) for one in held.items() if one[1].get("tensor_meta")
                ]
        if not found.tensors:
            found.notes.append("its weights are not listed")
    return found


EXPORTED = "uint8 int8 int16 int32 int64 float16 float32 float64 complex32 complex64 complex128"
EXPORTED_DTYPES = dict(enumerate(EXPORTED.split(), 1)) | {12: "bool", 13: "bfloat16"}


def exported_tensor(name: str, said: Any) -> Tensor:
    meta = said["tensor_meta"]
    shape = tuple(int(one["as_int"]) for one in meta["sizes"])
    dtype = EXPORTED_DTYPES.get(meta["dtype"], "")
    return Tensor(name, shape, dtype, size_of(shape, dtype), None, said["path_name"])


# ---- trees and others without layers


def read_trees(path: Path) -> Contents:
    """Read the kind, the number and the objective of decision trees, without the trees."""
    data = path.read_bytes()
    if data[:2] == b"PK":
        return read_npz(path)
    if data[:1] == b"\x80":
        return read_plain_pickle(path)
    found = Contents("decision trees", [path])
    if data.lstrip().startswith(b"tree\n"):
        found.format, found.parts["trees"] = "LightGBM", data.count(b"\nTree=")
        for key in ("num_class", "objective", "max_feature_idx"):
            if value := re.search(rf"^{key}=(.*)$".encode(), data[:65536], re.MULTILINE):
                found.said[key] = value[1].decode("utf-8", "replace")
    elif data.startswith(b"CBM1"):
        found.format = "CatBoost"
    elif data.startswith((b'{"learner"', b"{L", b"binf")):
        found.format = "XGBoost"
        count = re.search(rb'num_trees(?:"\s*:\s*"|SL.{8})(\d+)', data, re.DOTALL)  # JSON, UBJSON
        found.parts["trees"] = int(count[1]) if count else 0
        if objective := re.search(rb'"objective"\s*:\s*\{\s*"name"\s*:\s*"([\w:]+)"', data):
            found.said["objective"] = objective[1].decode()
    return found


def read_fasttext(path: Path) -> Contents:
    with path.open("rb") as file:
        numbers = struct.unpack("<14i", file.read(56))
    said = dict(zip(("dimension", "word n-grams"), (numbers[2], numbers[7]), strict=True))
    found = Contents(f"fastText {FASTTEXT_MODELS.get(numbers[9], '')}".strip(), [path])
    found.said = {key: str(value) for key, value in said.items()}
    found.notes.append("its matrices are not read")
    return found


def read_dynet(path: Path) -> Contents:
    """Return the tensors of a file of DyNet, whose lines of numbers stand below their names."""
    found = Contents("DyNet", [path])
    pattern = re.compile(rb"^#\w+# (\S+) \{([\d,]+)\} \d+", re.MULTILINE)
    for name, sizes in pattern.findall(path.read_bytes()):
        shape = tuple(map(int, sizes.split(b",")))
        found.tensors.append(Tensor(name.decode(), shape, "text", 0))
    return found


def read_thinc(path: Path) -> Contents:
    """Return the parts of a component of spaCy, and their arrays."""
    content = msgspec.msgpack.decode(path.read_bytes())
    found = Contents("spaCy (thinc)", [path])
    found.operations = Counter(node["name"] for node in content["nodes"])
    for number, (node, params) in enumerate(zip(content["nodes"], content["params"], strict=True)):
        for key, one in params.items():
            if isinstance(one, dict):
                shape, dtype = tuple(one[b"shape"]), numpy_name(one[b"type"])
                name = f"{number}.{node['name']}.{key}"
                found.tensors.append(Tensor(name, shape, dtype, len(one[b"data"])))
    return found


def name_unopened(kind: str, path: Path) -> Contents:
    """Name a file of a kind that is known and not opened."""
    weights = sorted((path.parent / "weights").glob("*")) if kind == "Core ML" else []
    return Contents(kind, [path, *weights], notes=["what it holds is not read"])
