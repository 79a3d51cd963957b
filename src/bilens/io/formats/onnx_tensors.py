"""The tensors of an ONNX file: of its graph, of the graphs inside nodes, and of functions."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from bilens.base.errors import CheckpointError, optional_package
from bilens.base.memory import check_memory
from bilens.io.formats.graph_model import reading
from bilens.io.formats.onnx_bodies import fill_sparse, tensors_below, without_bodies
from bilens.io.formats.safetensors_folder import inside
from bilens.io.stored_mlp import StoredTensor, stored_array

COPIES = 4  # of the files: their bytes, and the tensors in float64
# onnx's number of a type → ours
DTYPES = {1: torch.float32, 10: torch.float16, 11: torch.float64}
NARROW = {16: torch.bfloat16, 17: torch.float8_e4m3fn, 18: torch.float8_e4m3fnuz}
NARROW |= {19: torch.float8_e5m2, 20: torch.float8_e5m2fnuz}
PACKED = {21: "uint4", 22: "int4", 23: "float4e2m1"}  # codes of weights, two in a byte
DOUBLE = 11
# Text, whole numbers, truth values: compared with another file's, and no weights.
NO_WEIGHTS = (6, 7, 8, 9, 12, 13)


def package() -> Any:
    return optional_package("onnx", "onnx", "reading an ONNX file", "onnx.reference")


def open_graph(path: Path) -> tuple[Any, dict[str, str], list[Path]]:
    """Return a model as one graph, when each body of its nodes is run, and all its files."""
    onnx = package()
    with reading(path, "ONNX file"):
        check_memory(COPIES * path.stat().st_size, f"{path}", "load a smaller file")
        model = onnx.load(str(path), load_external_data=False)
        fill_sparse(model, str(path.parent))
        model, bodies = without_bodies(model)
        files = [path, *files_beside(path, model)]
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        return model, bodies, files


def tensors_in(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and message of every tensor of a graph and its nodes."""
    yield from tensors_below(graph, "")
    for node in graph.node:
        for part in node.attribute:
            if len(part.floats) > 1:  # the trees and linear models of scikit-learn
                name = node.output[0] + ("" if node.op_type == "Constant" else f".{part.name}")
                yield name, package().numpy_helper.from_array(np.array(part.floats, "f4"))


def files_beside(path: Path, model: Any) -> list[Path]:
    """Return the files that tensors lie in; all of them lie beside the ONNX file."""
    said = [entry for _, proto in tensors_in(model.graph) for entry in proto.external_data]
    names = dict.fromkeys(entry.value for entry in said if entry.key == "location")
    for name in names:
        if PurePath(name).name != name:
            raise CheckpointError(
                f"{path}: keeps tensors in {name!r}, outside of its folder: put them beside it."
            )
    files = [inside(path.parent, path.parent / name) for name in names]
    sizes = sum(file.stat().st_size for file in files)
    check_memory(COPIES * sizes, f"{path}", "load a smaller file")
    return files


def stored_tensors(path: Path, graph: Any) -> Iterator[tuple[str, StoredTensor]]:
    """Yield every tensor by name, and widen weights in the message to float64.

    As in an inventory, single numbers and places are no weights.
    """
    numpy_helper, stands_as = package().numpy_helper, names_by_bias(graph)
    for name, proto in tensors_in(graph):
        kind, array, called = proto.data_type, numpy_helper.to_array(proto), proto.doc_string
        is_weight = bool(array.ndim) and kind not in NO_WEIGHTS
        if kind in DTYPES:
            proto.CopyFrom(numpy_helper.from_array(array.astype(np.float64), proto.name))
        if kind in (*PACKED, *NARROW):  # of which numpy has none
            array = array.astype(np.int8 if kind in (21, 22) else np.float32)
        found = stored_array(path, name, array)
        found = replace(found, is_weight=is_weight, stands_as=stands_as.get(name, ""))
        found = replace(found, called="" if called == name else called)
        if kind in NARROW:
            data = found.fetch(()).to(NARROW[kind])
            found = replace(found, dtype=data.dtype, fetch=data.__getitem__)
        yield name, replace(found, quantised_as=PACKED.get(kind, found.quantised_as))


def names_by_bias(graph: Any) -> dict[str, str]:
    """Return tensor → name of a weight, of matrices with a product that only a bias is added to.

    An exporter that turns a matrix takes its name away, and its bias keeps one.
    """
    users = Counter(name for node in graph.node for name in node.input)
    plain = [node for node in graph.node if node.domain in ("", "ai.onnx")]
    products = {node.output[0]: node.input[1] for node in plain if node.op_type == "MatMul"}
    held, found = {one.name for one in graph.initializer}, dict[str, str]()
    for node in plain:
        for product, bias in permutations(node.input) if node.op_type == "Add" else ():
            names = {weight := products.get(product, ""), bias}
            alone = all(users[name] == 1 for name in (product, *names))
            if alone and names <= held and bias.endswith(".bias"):
                found[weight] = f"{bias.removesuffix('bias')}weight"
    return found


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return every tensor, of a file in which no MLP is found."""
    return dict(stored_tensors(path, open_graph(path)[0].graph))
