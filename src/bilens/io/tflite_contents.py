"""Reads models of TensorFlow Lite: tables of flatbuffers, place by place; nothing is run."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bilens.io.contents import (
    CODES,
    Contents,
    Name,
    Operation,
    Program,
    Tensor,
    TensorBytes,
    WeightPlace,
    read_entry,
    shape_text,
)
from bilens.records.inventory import Port

TYPE_NAMES = (
    "float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 "
    "resource variant uint32 uint16 int4 bfloat16"
)
OPERATION_NAMES = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE "
    "EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D "
    "LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 "
    "RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS "
    "SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER "
    "BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE "
    "UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT "
    "LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG "
    "PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE "
    "EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD "
    "REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV "
    "REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU "
    "SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE "
    "RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE "
    "NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM "
    "BATCH_MATMUL PLACEHOLDER CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS "
    "HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE "
    "VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE "
    "RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE"
)

TFLITE_TYPES, TFLITE_OPERATIONS = TYPE_NAMES.split(), OPERATION_NAMES.split()


class Table:
    """A table of a flatbuffer: fields by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.fields = at - struct.unpack_from("<i", data, at)[0]

    def place(self, number: int) -> int:
        """Return where a field is; 0 where it has its default."""
        (size,) = struct.unpack_from("<H", self.data, self.fields)
        if 4 + 2 * number >= size:
            return 0
        (offset,) = struct.unpack_from("<H", self.data, self.fields + 4 + 2 * number)
        return self.at + offset if offset else 0

    def scalar(self, number: int, code: str) -> int:
        at = self.place(number)
        return int(struct.unpack_from(f"<{code}", self.data, at)[0]) if at else 0

    def vector(self, number: int) -> tuple[int, int]:
        """Return the place of the first element of a vector, and how many there are."""
        if not (at := self.place(number)):
            return 0, 0
        at += struct.unpack_from("<I", self.data, at)[0]
        (count,) = struct.unpack_from("<I", self.data, at)
        if at + 4 + count > len(self.data):
            raise ValueError("a vector behind the end")
        return at + 4, int(count)

    def integers(self, number: int) -> list[int]:
        at, count = self.vector(number)
        return [*struct.unpack_from(f"<{count}i", self.data, at)] if count else []

    def text(self, number: int) -> str:
        at, count = self.vector(number)
        return self.data[at : at + count].decode("utf-8", "replace")

    def table(self, number: int) -> list[Table]:
        """Return the table of a field; none where there is none."""
        at = self.place(number)
        return [Table(self.data, at + struct.unpack_from("<I", self.data, at)[0])] if at else []

    def tables(self, number: int) -> list[Table]:
        first, count = self.vector(number)
        places = range(first, first + 4 * count, 4)
        return [Table(self.data, at + struct.unpack_from("<I", self.data, at)[0]) for at in places]


def read_tflite(path: Path) -> Contents:
    data = path.read_bytes()
    model = Table(data, struct.unpack_from("<I", data)[0])
    found = Contents("TensorFlow Lite", [path], is_graph=True)
    names = [operation_name(code) for code in model.tables(1)]
    buffers = [table.vector(0) for table in model.tables(4)]
    for number, graph in enumerate(model.tables(2)):
        tensors = graph.tables(0)
        for one in graph.tables(3):
            found.operations[names[one.scalar(0, "I")]] += 1
        for tensor in tensors:
            at, size = buffers[tensor.scalar(2, "I")]
            name, shape, dtype = tensor.text(3), tuple(tensor.integers(0)), tflite_dtype(tensor)
            scales = [table for table in tensor.table(4) if table.vector(2)[1]]  # of a bias, too
            if size:
                quantised = dtype in CODES or (dtype == "int32" and bool(scales))
                place = TensorBytes(path, at, at + size)
                found.tensors.append(Tensor(name, shape, dtype, size, place, None, quantised))
        for side, ends in (("input", 1), ("output", 2)):
            for one in (tensors[at] for at in graph.integers(ends) if number == 0):
                shape = tuple(one.integers(0))
                found.ports.append(Port(side, one.text(3), shape_text(shape), tflite_dtype(one)))  # type: ignore[arg-type]
    if text := model.text(3):
        found.said["description"] = text
    found.program = lambda: [
        tflite_program(model),
        Operation("metadata", words_beside(path, model)),
    ]
    return found


OF_CONVERTER = ("min_runtime_version", "CONVERSION_METADATA")


def words_beside(path: Path, model: Table) -> dict[str, bytes]:
    """Return the metadata of a model by name, and the files that are zipped behind it."""
    buffers, found = model.tables(4), dict[str, bytes]()
    for one in model.tables(6):
        if (name := one.text(0)) not in OF_CONVERTER:
            at, size = buffers[one.scalar(1, "I")].vector(0)
            found[name] = model.data[at : at + size]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found |= {name: read_entry(archive, name) for name in archive.namelist()}
    return found


# Table → number of a field → its name and what it is: a table or tables of a name, a vector of
# numbers of some bytes, or, as all others, a number. What is left out says nothing of an answer:
# names, a description, and files that stand in it beside the model.
MODEL = "0 version,1 operator_codes *code,2 subgraphs *graph,3 -,4 buffers *buffer,5 -,6 -"
LAYOUTS = {
    "model": f"{MODEL},7 signatures *signature",
    "code": "0 kind,1 custom 1,2 version,3 builtin",
    "graph": "0 tensors *tensor,1 inputs 4,2 outputs 4,3 operators *operator,4 -,5 -",
    "tensor": "0 shape 4,1 type,2 buffer,3 -,4 quantisation quantisation,5 sparsity sparsity"
    ",6 is variable,7 signature 4,8 has rank,9 variants *variant",
    "quantisation": "0 min 4,1 max 4,2 scale 4,3 zero point 8,4 kind,5 details details,6 axis",
    "details": "0 custom 1",
    "variant": "0 shape 4,1 type,2 has rank",
    "sparsity": "0 order 4,1 blocks 4,2 sides *side",
    "side": "0 format,1 size,2 segments kind,3 segments places,4 indices kind,5 indices places",
    "operator": "0 operation,1 inputs 4,2 outputs 4,3 kind,4 options options,5 custom options 1"
    ",6 custom format,7 mutating 1,8 intermediates 4,9 offset,10 size,11 kind 2,12 options 2 plain"
    ",13 -",
    "buffer": "0 data 1,1 offset,2 size",
    "signature": "0 inputs *port,1 outputs *port,2 key 1,4 graph",
    "port": "0 name 1,1 tensor",
    "plain": "",
}
# How many fields the options of each kind have, from the first on, as the format numbers them.
OPTION_FIELDS = (
    "77316325122145411311102000121136001020010000000051000010142101002000064600021010"
    "1100000200002210000003210083000200211000000000"
)
# Options in which more than numbers stand → their fields; what stands in no other way than numbers.
OPTIONS = {3: {1: 4, 2: 4}, 17: {0: 4}, 30: {0: 4}, 111: {0: 1, 1: 1}, 115: {0: 4}}
PLAIN_OPTIONS = (1, 8, 11, 14, 15, 18, 19, 20)


def tflite_table(table: Table, kind: str, known: Mapping[int, int] | None = None) -> Program:
    """Return every field of a table by name; raise for one that is not known.

    Numbers are bytes without zeros at their end: how wide each is, only the format says.
    """
    layout = dict[int, tuple[str, str]]()
    for said in filter(None, LAYOUTS.get(kind, "").split(",")):
        place, _, rest = said.partition(" ")
        name, _, form = rest.rpartition(" ")
        is_form = form[:1] == "*" or form.isdigit() or form in LAYOUTS or form == "options"
        layout[int(place)] = (name, form) if name and is_form else (rest, "")
    layout |= {number: (f"option {number}", str(width)) for number, width in (known or {}).items()}
    size, whole = struct.unpack_from("<2H", table.data, table.fields)
    places = {n: table.place(n) for n in range((size - 4) // 2) if table.place(n)}
    if kind == "side" and places:
        raise ValueError("tensors of which most numbers are zero are not compared")
    ends, found = sorted({*places.values(), table.at + whole}), dict[str, Program]()
    for number, at in places.items():
        name, form = layout.get(number, (f"field {number}", "" if kind == "plain" else "?"))
        if form == "?":
            raise ValueError(f"a field {number} of a table ({kind}) that is not known")
        if name == "-":
            continue
        if form == "options":
            option = table.scalar(number - 1, "B")
            found[name] = tflite_table(table.table(number)[0], "plain", OPTIONS.get(option, {}))
            if len(found[name]) > int(OPTION_FIELDS[option - 1]):
                raise ValueError(f"options of the kind {option} with a field that is not known")
        elif form[:1] == "*":
            found[name] = [tflite_table(one, form[1:]) for one in table.tables(number)]
        elif form.isdigit():
            first, count = table.vector(number)
            found[name] = table.data[first : first + count * int(form)]
        elif form:
            found[name] = tflite_table(table.table(number)[0], form)
        else:
            found[name] = table.data[at : min(x for x in ends if x > at)].rstrip(b"\0")
    if kind == "operator" and "options 2" in found and found["kind 2"][0] not in PLAIN_OPTIONS:
        raise ValueError("options of StableHLO are not compared")
    return found


def tflite_program(model: Table) -> Program:
    """Return all fields of a model, with tensors and codes in the place of their numbers."""
    whole, seen = tflite_table(model, "model"), Counter[str]()
    buffers, codes = whole.pop("buffers", []), whole.pop("operator_codes", [])
    names = [operation_name(code) for code in model.tables(1)]
    for at, (graph, table) in enumerate(zip(whole["subgraphs"], model.tables(2), strict=True)):
        values = list[Program]()
        for said, one in zip(graph.pop("tensors", []), table.tables(0), strict=True):
            held = buffers[int.from_bytes(said.pop("buffer", b""), "little")]
            data, name = held.get("data", b""), one.text(3)
            if held.get("offset"):
                raise ValueError("tensors behind the end of the tables are not compared")
            if data:
                label = name + "'" * seen[name]
                seen[name] += 1
                values.append([said, WeightPlace(label, len(data), partial(bytes, data))])
            else:
                values.append([said, Name(name, (at, len(values)))])

        def chosen(numbers: bytes, values: list[Program] = values) -> list[Program]:
            places = struct.unpack(f"<{len(numbers) // 4}i", numbers)
            return ["" if place < 0 else values[place] for place in places]

        for side in ("inputs", "outputs"):
            graph[side] = chosen(graph.get(side, b""))
        operators = list[Program]()
        for number, said in enumerate(graph.get("operators", [])):
            code = int.from_bytes(said.get("operation", b""), "little")
            said["operation"] = codes[code]
            for side in ("inputs", "outputs", "intermediates"):
                said[side] = chosen(said.get(side, b""))
            operators.append(Operation(f"{names[code]} {number}", said))
        graph["operators"] = operators
    return whole


def operation_name(code: Table) -> str:
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    if number == TFLITE_OPERATIONS.index("CUSTOM"):
        return f"CUSTOM {code.text(1)}".strip()
    return TFLITE_OPERATIONS[number] if number < len(TFLITE_OPERATIONS) else f"operation {number}"


def tflite_dtype(tensor: Table) -> str:
    number = tensor.scalar(1, "b")
    return TFLITE_TYPES[number] if number < len(TFLITE_TYPES) else f"type {number}"
