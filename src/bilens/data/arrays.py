"""Arrays in files that hold no code: .npy, .npz and safetensors, checked before they are read."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors import safe_open

from bilens.base.errors import BilensError, DataError
from bilens.base.files import check_regular_file
from bilens.base.memory import check_memory

Array: TypeAlias = NDArray[Any]
KINDS = (".npy", ".npz", ".safetensors")
COPIES = 3  # of the bytes of an array: as stored, in float64, and what is made of them


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of a file by name; that of an .npy file has none."""
    size = check_regular_file(path, "expected arrays", DataError).st_size
    check_memory(COPIES * size, f"{path}", "pass fewer rows")
    try:
        if path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt") as file:
                parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            real = {n: part for n, part in parts.items() if part.is_floating_point()}
            halves = {n: part.float() for n, part in real.items() if part.itemsize < 4}
            return {name: part.numpy() for name, part in (parts | halves).items()}
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                inside = archive.infolist()
                declared = COPIES * sum(item.file_size for item in inside)
                check_memory(declared, f"{path}, unpacked,", "pass fewer rows")
                return {
                    item.filename.removesuffix(".npy"): read_npy(
                        f"{path}, {item.filename}", archive.open(item), item.file_size
                    )
                    for item in inside
                }
        with path.open("rb") as content:
            return {"": read_npy(f"{path}", content, size)}
    except BilensError:
        raise
    except Exception as error:  # whatever the readers make of a damaged file
        raise DataError(f"{path}: is not a file of arrays, or is damaged ({error}).") from error


def read_npy(name: str, file: IO[bytes], size: int) -> Array:
    """Return the array of an .npy file of so many bytes; objects are never unpickled."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise DataError(
            f"{name}: holds pickled objects, which can run code: save array.astype(float), or str."
        )
    expected, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or expected > held:
        raise DataError(
            f"{name}: declares the shape {shape}, {expected:,} bytes, and holds {held:,}: the file "
            "is damaged, save it again."
        )
    array = np.frombuffer(file.read(expected), dtype)
    return array.reshape(shape, order="F" if fortran else "C")
