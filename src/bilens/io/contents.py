"""The contents of a model file, as readers of headers find them: no torch, and nothing is run."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from zipfile import ZipFile

from bilens.base.errors import CheckpointError
from bilens.base.files import file_sha256
from bilens.io.tensor_names import PACKED, fold_names, holds_weights, kind_of
from bilens.records.inventory import PartCount, Port, TensorGroup

# What a matrix of a kind is a part of; one tensor of each part is counted.
PARTS = {"q": "attention", "qkv": "attention", "up": "mlp", "gate_up": "mlp", "conv": "convolution"}
PARTS |= {name: name for name in ("norm", "embedding", "head")}
OF_OTHERS = ("o", "k", "v", "gate", "down")  # matrices beside the one that is counted
RECURRENT = re.compile(r"(?:^|[._])w(?:eight)?_hh(?:_l\d+)?(?:_reverse)?$|recurrent_kernel$")
READS_INPUT = re.compile(r"(?:^|[._])w(?:eight)?_ih(?:_l\d+)?(?:_reverse)?$")  # beside one of them
BATCH_NORM = re.compile(r"batch_?norm", re.IGNORECASE)
# In a program of TorchScript: of a call the last number, or the last but one; of a class its own.
BATCH_NORM_CALL = re.compile(r"batch_norm\([^()]* (\d[\d.e-]*)(?:, \w+)?,? *\)")
EPSILON_OF_CLASS = re.compile(r"\beps : Final\[float\] = (\d[\d.e-]*)")
GATES = {4: "lstm", 3: "gru", 1: "rnn"}
# Operations and layers that are parts by themselves, whatever their tensors are called.
OPERATIONS = {
    "convolution": r"(Depthwise|Separable|Quant\w*)?Conv(Transpose|Integer|\d?D\w*)?"
    r"|QLinearConv|DepthwiseConv2dNative|(DEPTHWISE_)?CONV_\dD|TRANSPOSE_CONV",
    "lstm": r"(\w+_|Q|DynamicQuantize)?LSTM(Cell|BlockCell)?|BlockLSTM\w*",
    "gru": r"GRU(Cell)?|GRUBlockCell",
    "rnn": r"(SimpleRNN|RNN|UNIDIRECTIONAL_SEQUENCE_RNN|BIDIRECTIONAL_SEQUENCE_RNN)",
    "norm": r"(Layer|Batch|Group|Instance|Simplified|RMS|SkipLayer|SkipSimplifiedLayer)\w*Norm\w*"
    r"|FusedBatchNorm\w*|BatchNorm\d?d",
    "attention": r"(\w+_)?(Multi[Hh]ead|GroupQuery|Linear|Sparse|Self)?Attention|QAttention",
}
OPERATION = {kind: re.compile(pattern) for kind, pattern in OPERATIONS.items()}
# Types of numbers that may be codes of others, and the bits of those whose names do not say them.
CODES = ("int8", "uint8", "int4", "uint4", "int16", "uint16", "float8e4m3fn", "float8e5m2")
BITS = {"bool": 8, "string": 0, "float8e4m3fn": 8, "float8e5m2": 8, "float4e2m1": 4}
# Keys of words on a whole model that say when it was made, by whom and for what.
ABOUT = {"author", "date", "description", "docs", "license", "provenance", "version"}
TRAINING_GROUPS = ("optimizer", "optimizer_weights", "metrics")  # of files of Keras
MOST_TEXT = 64 << 20  # bytes of an entry
EDGE = 4096  # bytes at both ends of a tensor by which equal ones are looked for


class TensorBytes(NamedTuple):
    """The bytes of a tensor in a file."""

    path: Path
    start: int
    stop: int


class Tensor(NamedTuple):
    """A tensor as a header describes it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    place: TensorBytes | None = None
    content: object = None  # the same for tensors of one storage or of the same bytes
    quantised: bool = False
    counted: bool = True  # or it is a constant beside the variables of a graph


class Name(NamedTuple):
    """A name in a program: where it stands again counts, and not how it is written."""

    text: str
    scope: object = ""  # the same text in two of them is two names


class WeightPlace(NamedTuple):
    """A tensor that a program reads, with its type and shape, and what fetches its bytes."""

    name: str
    kind: object
    fetch: Callable[[], bytes] | None  # None where its name alone says which one it is


class Operation(NamedTuple):
    """A part of a program, as it is called when a difference in it is told."""

    label: str
    parts: dict[str, Any]


# All that a file says of what is computed: dicts, lists, operations, names, weights, plain values.
Program: TypeAlias = Any


class UnknownKindError(CheckpointError):
    """A file that is no model of a kind that is known."""


@dataclass
class Contents:
    """The tensors, operations, inputs and outputs of a file, and its words on the model."""

    format: str
    files: list[Path]
    tensors: list[Tensor] = field(default_factory=list)
    operations: Counter[str] = field(default_factory=Counter)
    ports: list[Port] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)  # by the file, of the model
    program: Callable[[], Program] | None = None  # None where a format gives no whole one
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # of no answer, such as an optimizer
    imports: tuple[str, ...] = ()
    parts: Counter[str] = field(default_factory=Counter)  # that the format tells itself
    is_graph: bool = False  # whether its operations say all that it computes
    hashes: dict[Path, str] = field(default_factory=dict)  # SHA-256 of files where it is known

    def weights(self) -> Iterator[Tensor]:
        """Yield the tensors that hold weights; of a graph single numbers and places are none."""
        for one in self.tensors:
            is_place = one.dtype in ("int32", "uint32") and not one.quantised
            if not one.counted or (self.is_graph and (is_place or not one.shape)):
                continue
            if holds_weights(one.name, len(one.shape), one.dtype):
                yield one

    def mark_codes(self, names: Collection[str]) -> None:
        """Mark the tensors with these names as quantised where their numbers may be codes."""
        codes = ("int32", *CODES)
        self.tensors = [
            one._replace(quantised=one.name in names and one.dtype in codes) for one in self.tensors
        ]

    def epsilons(self) -> set[float]:
        """List the ε of the batch normalisations of a file, as far as it says them."""
        found, todo = set[float](), list[Program]()
        with suppress(Exception):  # a field that is not known, or damaged bytes
            todo = [] if self.program is None else [self.program()]
        while todo:
            one = todo.pop()
            if isinstance(one, Operation):
                if BATCH_NORM.search(one.label):
                    said = one.parts.get("epsilon")
                    found |= {said} if isinstance(said, float) else set()
                    found |= {float(text) for text in EPSILON_OF_CLASS.findall(str(one.parts))}
                todo.append(one.parts)
            elif isinstance(one, dict):
                todo += one.values()
            elif isinstance(one, list):
                code = " ".join(part for part in one if isinstance(part, str))
                found |= {float(text) for text in BATCH_NORM_CALL.findall(code)}
                todo += one
        return found

    @property
    def parameters(self) -> int:
        return sum(prod(one.shape) for one in self.weights())

    @property
    def codes(self) -> int:
        """Return how many of the parameters are whole numbers, which stand for weights."""
        return sum(prod(one.shape) for one in self.weights() if one.dtype in PACKED)

    @property
    def sha256(self) -> str:
        found = [self.hashes.get(file) or file_sha256(file) for file in self.files]
        return hashlib.sha256("".join(found).encode()).hexdigest() if found[1:] else "".join(found)

    def groups(self) -> tuple[TensorGroup, ...]:
        """Return the tensors by names that differ in numbers alone, and by how they are stored."""
        by_name: defaultdict[tuple[str, str, bool], list[Tensor]] = defaultdict(list)
        pattern = {name: p for p, names in fold_names(self.names()).items() for name in names}
        for one in self.tensors:
            by_name[pattern[one.name], one.dtype, one.quantised].append(one)
        return tuple(
            TensorGroup(
                name,
                len(members),
                ", ".join(dict.fromkeys(shape_text(one.shape) for one in members)),
                sum(prod(one.shape) for one in members),
                dtype,
                sum(one.bytes for one in members),
                quantised,
            )
            for (name, dtype, quantised), members in by_name.items()
        )

    def names(self) -> Iterator[str]:
        return (tensor.name for tensor in self.tensors)

    def counted_parts(self, read: Collection[str] | None = None) -> tuple[PartCount, ...]:
        """Return the parts by kind; of those told by their tensors how many of these were read."""
        by_names: defaultdict[str, list[str]] = defaultdict(list)
        for one in self.tensors:
            kind = part_of(one)
            if kind and not (self.is_graph and kind in OPERATIONS):
                by_names[kind].append(one.name)
        told = Counter(self.parts)
        for name, count in self.operations.items():
            for kind, pattern in OPERATION.items():
                told[kind] += count if pattern.fullmatch(name.rpartition(".")[2]) else 0
        counts = {kind: len(names) for kind, names in by_names.items()} | {**+told}
        found = []
        for kind, count in sorted(counts.items(), key=lambda one: -one[1]):
            done = None
            if read is not None:
                done = min(count, sum(name in read for name in by_names[kind]))
            found.append(PartCount(kind, count, done))
        return tuple(found)

    def tied(self) -> tuple[tuple[str, ...], ...]:
        """Return matrices of one storage or of the same bytes; those of one number are no news."""
        matrices = [one for one in self.tensors if sum(side > 1 for side in one.shape) > 1]
        alike: defaultdict[object, list[Tensor]] = defaultdict(list)
        for one in matrices:
            alike[one.shape, one.dtype, one.content].append(one)
        found = []
        for members in alike.values():
            if len(members) < 2:
                continue
            if members[0].content is not None:
                found.append(members)
            else:
                found += same_bytes(members)
        return tuple(tuple(one.name for one in members) for members in found)


def part_of(tensor: Tensor) -> str:
    """Return the kind of part that a tensor stands for; empty for one beside another."""
    name, shape = tensor.name.removesuffix(":0"), tensor.shape  # as Keras writes names
    if len(shape) < 2:
        is_gain = len(shape) == 1 and not re.search(r"(bias|_b|mean|var|variance|beta)$", name)
        return "norm" if is_gain and kind_of(name.lower(), shape) == "norm" else ""
    if RECURRENT.search(name):
        rows, columns = shape[-2:] if shape[-2] > shape[-1] else shape[:-3:-1]
        return GATES.get(rows // max(columns, 1), "rnn")
    if READS_INPUT.search(name) or not holds_weights(name, len(shape), tensor.dtype):
        return ""
    kind = kind_of(name, shape)
    return "" if kind in OF_OTHERS else PARTS.get(kind, "matrix")


def same_bytes(members: list[Tensor]) -> list[list[Tensor]]:
    """Return the tensors that hold the same bytes, in groups; not those of one byte alone."""
    for hash_bytes in (hash_of_ends, hash_of_all):
        by_digest: defaultdict[str, list[Tensor]] = defaultdict(list)
        for one in members:
            if one.place is not None and one.place.stop > one.place.start:
                by_digest[hash_bytes(one.place)].append(one)
        groups = [group for digest, group in by_digest.items() if digest and len(group) > 1]
        members = [one for group in groups for one in group]
    return groups


def hash_of_ends(place: TensorBytes) -> str:
    with place.path.open("rb") as file:
        found = []
        for start in (place.start, max(place.stop - EDGE, place.start)):
            file.seek(start)
            found.append(file.read(min(EDGE, place.stop - start)))
    return hashlib.sha256(b"".join(found)).hexdigest()


def hash_of_all(place: TensorBytes) -> str:
    with place.path.open("rb") as file:
        file.seek(place.start)
        content = file.read(place.stop - place.start)
    return hash_of(content) or ""


def hash_of(content: bytes) -> str | None:
    """Return the SHA-256 of the bytes of a tensor; None where all are the same number."""
    constant = content == content[:8] * (len(content) // 8) + content[: len(content) % 8]
    return None if constant else hashlib.sha256(content).hexdigest()


def bits_of(dtype: str) -> int:
    """Return the bits of a number of a type, which most names of types end in."""
    digits = re.search(r"\d+$", dtype)
    return BITS.get(dtype, int(digits[0]) if digits else 0)


def size_of(shape: Iterable[int], dtype: str) -> int:
    """Return the bytes of an array."""
    return prod(shape) * bits_of(dtype) // 8


def read_entry(archive: ZipFile, name: str) -> bytes:
    """Return an entry of an archive that is a text, and so never endless."""
    if (size := archive.getinfo(name).file_size) > MOST_TEXT:
        raise ValueError(f"{name} has {size} bytes")
    return archive.read(name)


def short_text(value: str) -> str:
    """Return a value, of a long one its beginning and a part of its SHA-256."""
    digest = hashlib.sha256(value.encode()).hexdigest()[:8]
    return value if len(value) <= 60 else f"{value[:40]}… (SHA-256 {digest})"


def shape_text(shape: Iterable[int | str]) -> str:
    return " × ".join(map(str, shape)) or "1"


def numpy_name(code: str) -> str:
    """Return the name of a dtype of numpy: `<f8` is float64."""
    found = re.fullmatch(r"[<>|=]?([fiu])(\d+)", code)
    kinds = {"f": "float", "i": "int", "u": "uint"}
    return f"{kinds[found[1]]}{8 * int(found[2])}" if found else {"|b1": "bool"}.get(code, code)
