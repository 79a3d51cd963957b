"""Reads files of tensors, archives and trees, each by its header; nothing in them is run."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import struct
import zipfile
from collections import Counter
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import IO, Any

import msgspec

from bilens.base.errors import MissingExtraError, optional_package
from bilens.io.byte_ranges import opened, read_header, take
from bilens.io.contents import (
    ABOUT,
    Contents,
    Operation,
    Program,
    Tensor,
    TensorBytes,
    numpy_name,
    read_entry,
    size_of,
)
from bilens.io.file_kinds import XGBOOST
from bilens.io.formats.gguf_header import HeaderReader
from bilens.io.pickle_contents import walk_pickles
from bilens.io.pickle_inventory import OF_TRAINING, PLAIN, read_plain_pickle

SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
SAFETENSORS |= {f"{a}{n}": f"{b}{n}" for a, b in (("I", "int"), ("U", "uint")) for n in (8, 16, 32)}
SAFETENSORS |= {"I64": "int64", "U64": "uint64", "BOOL": "bool"}
SAFETENSORS |= {"F8_E4M3": "float8e4m3fn", "F8_E5M2": "float8e5m2"}
GENERAL = [  # keys of a GGUF file that say what it is
    "name", "license", "license.name", "author", "organization", "description", "url",
    "size_label", "finetune", "basename", "languages", "base_model.0.name",
]  # fmt: skip
# What says who made a file, when, from what and with which library, how its numbers are stored, and
# in which parts.
ABOUT_TENSORS = re.compile(
    rf"(.*\.)?({'|'.join(ABOUT)}|format|made_by)|ss(hs)?_.*|{OF_TRAINING.pattern}"
)
ABOUT_GGUF = re.compile(
    r"general\.(name|author|version|organization|description|quantized_by|size_label|finetune"
    r"|basename|languages|tags|uuid|doi|(repo_)?url|file_type|quantization_version"
    r"|(license|base_model|dataset|source)\b.*)|split\..*|quantize\.imatrix\.file"
)
MOST_HEADER = 1 << 20  # bytes of that of an array
FASTTEXT_MODELS = {1: "cbow", 2: "skipgram", 3: "supervised"}


def read_safetensors_contents(path: Path) -> Contents:
    header = read_header(path)
    found, words = Contents("safetensors", [path], said=dict(header.metadata)), header.metadata
    found.left_out = [key for key in words if ABOUT_TENSORS.fullmatch(key) and key != "format"]
    if own := {key: said for key, said in words.items() if not ABOUT_TENSORS.fullmatch(key)}:
        found.program = lambda: Operation("metadata", own)
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
    file = opened(path)
    header = HeaderReader(file).header()
    first = re.fullmatch(r"(.*)-00001-of-(\d{5})", path.stem)  # the others are part of it
    others = range(2, 1 + int(first[2])) if first else ()
    parts = [path.with_name(f"{first[1]}-{n:05}-of-{first[2]}.gguf") for n in others if first]
    said = {key: str(value) for key, value in header.values.items()}
    architecture = said.get("general.architecture", "")
    found = Contents(f"GGUF {architecture}".strip(), [path])

    def program() -> Program:
        held = {**said, **{key: array_text(take(file, *x)) for key, x in header.arrays.items()}}
        return Operation("header", {k: v for k, v in held.items() if not ABOUT_GGUF.fullmatch(k)})

    found.program = program
    found.left_out = [k for k in {**said, **header.arrays} if ABOUT_GGUF.fullmatch(k)]
    found.said = {k: said[f"general.{k}"] for k in GENERAL if f"general.{k}" in said}
    names, blocks = dict[int, str](), dict[int, tuple[int, int]]()
    sizes = ("context_length", "embedding_length", "block_count", "attention.head_count")
    found.said |= {k: said[f"{architecture}.{k}"] for k in sizes if f"{architecture}.{k}" in said}
    with suppress(MissingExtraError):
        gguf = optional_package("gguf", "gguf", "reading a GGUF file")
        plain = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
        names = {int(one): plain.get(one.name, one.name) for one in gguf.GGMLQuantizationType}
        blocks = {int(one): size for one, size in gguf.GGML_QUANT_SIZES.items()}
    for name, one in header.tensors.items():
        numbers, length = blocks.get(one.kind, (1, 0))
        size = prod(one.shape) // numbers * length
        dtype = names.get(one.kind, "")
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


def array_text(content: bytes | bytearray) -> str:
    """Return an array of a header, whose type and length are first, as it is told."""
    (count,) = struct.unpack_from("<Q", content, 4)
    return f"{count} values, SHA-256 {hashlib.sha256(content).hexdigest()[:32]}"


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
    elif XGBOOST.match(data) or data.startswith((b"{L", b"binf")):
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


def read_scores(path: Path) -> Contents:
    """Return the numbers by words of each object in one of JSON, as of n-grams."""
    found = Contents("JSON of scores", [path])
    for name, scores in json.loads(path.read_bytes()).items():
        numbers = scores.values() if isinstance(scores, dict) else [None]
        if not all(type(one) in (int, float) for one in numbers):
            raise ValueError(f"{name} holds no scores")
        found.tensors.append(Tensor(name, (len(scores),), "text", 0))
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
