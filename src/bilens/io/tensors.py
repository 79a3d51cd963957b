"""Reading tensors from files without running code, and without trusting what they declare."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from bilens.base.checks import check_finite
from bilens.base.errors import CheckpointError, NonFiniteError
from bilens.base.files import shortened, with_metadata
from bilens.base.memory import check_memory
from bilens.io.byte_ranges import Block, Region, read_header

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Of tensors that no layer is made of, such as masks, positions and packed numbers.
OTHER_DTYPES = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "C64": torch.complex64,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}


def tensor_of(array: np.ndarray[Any, Any]) -> tuple[Tensor, str]:
    """Return numbers as they are, in any order of bytes; of others the bytes, and what they are."""
    array, kind = np.asarray(array), ""
    if array.dtype.kind not in "biufc" or array.dtype.char in "gG":  # text; of 80 bits or more
        kind = f"{array.dtype.name} {array.shape}"
        said = repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()
        array = np.frombuffer(said, np.uint8)
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C")), kind


def read_codes(place: Region, shape: tuple[int, ...], width: int, block: Block) -> Tensor:
    """Return numbers of so many bits each, side by side in a file, as whole numbers."""
    bits = np.unpackbits(place.fetch(()).numpy(), bitorder="little").reshape(-1, max(width, 1))
    kind = np.uint8 if width <= 8 else np.int64
    codes = bits.astype(kind) @ np.left_shift(1, np.arange(width)).astype(kind)
    return torch.from_numpy(codes).reshape(shape)[block]


class MixedDtypesError(CheckpointError):
    """A model whose tensors are not all of one dtype, as those of one module of ours are."""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file, all of them finite."""
    found = read_header(path)
    check_memory(found.file.size, f"{path}", "load a smaller file")
    places = [
        (name, found.region(name, checked_dtype(path, name, entry.dtype)))
        for name, entry in found.entries.items()
    ]
    tensors = {name: place.fetch(()) for name, place in places}
    check_all_finite(path, tensors)
    return tensors, found.metadata


def checked_dtype(file: Path, name: str, kind: str) -> torch.dtype:
    """Return the dtype of a header, in floating point of 16 bits or more."""
    if kind in DTYPES:
        return DTYPES[kind]
    what = "8-bit floats, which mean nothing without their scales" if "F8" in kind else kind
    raise CheckpointError(
        f"{file}: tensor {name!r} is of {what}; expected one of {', '.join(DTYPES)}: convert the "
        "weights to 16-bit or 32-bit floating point."
    )


def tensors_sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 of the names, kinds and bytes of tensors in memory."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def sha256_of_module(module: nn.Module) -> str:
    """Return the SHA-256 of parameters and buffers; empty for a module on the meta device."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return "" if any(tensor.is_meta for _, tensor in tensors) else tensors_sha256(tensors)


def check_kinds(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not dense floating point, or that declare more than memory holds."""
    for name, tensor in tensors.items():
        dense = tensor.layout is torch.strided and not tensor.is_meta
        if not dense or tensor.dtype not in DTYPES.values():
            raise CheckpointError(
                f"{path}: tensor {name!r} has dtype {tensor.dtype}, layout {tensor.layout}, device "
                f"{tensor.device}; expected a dense tensor with one of the dtypes "
                f"{', '.join(DTYPES)}: convert the weights."
            )
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    check_memory(total, f"{path}", "load a smaller file")


def check_all_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights with NaN or infinity, naming the file and the tensor."""
    for name, tensor in tensors.items():
        try:
            check_finite(f"tensor {name!r}", tensor)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"{path}: {error} The model is broken: load an earlier checkpoint, or train again."
            ) from None


def check_names(
    path: Path,
    found: Collection[str],
    required: Collection[str],
    optional: Collection[str] = (),
    advice: str = ". The tensors must be exactly those of the model that config.json describes: "
    "use the two files that were saved together.",
) -> None:
    """Refuse a file that lacks a name or has one of its own; nothing is skipped in silence."""
    missing = sorted({*required} - {*found})
    unexpected = sorted({*found} - {*required, *optional})
    if missing or unexpected:
        parts = [f"missing {shortened(missing)}"] * bool(missing)
        parts += [f"unexpected {shortened(unexpected)}"] * bool(unexpected)
        raise CheckpointError(f"{path}: {', '.join(parts)}{advice}")


def check_layer_count(path: Path, n_layers: int, tensors: Collection[str]) -> None:
    """Refuse absurd numbers of layers before a module or its shapes are made."""
    if n_layers > len(tensors):
        raise CheckpointError(
            f"{path}: holds {len(tensors)} tensors; config.json says {n_layers} layers: use the "
            "files that were saved together."
        )


def check_matrices(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or 0 in tensor.shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}; expected two axes with "
                "entries."
            )


def check_shapes(
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    said: str = "config.json says",
) -> None:
    """Refuse tensors of other shapes than the model's, or of mixed dtypes."""
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}; {said} "
                f"{expected[name]}: use the files that were saved together."
            )
    check_one_dtype(path, (tensor.dtype for tensor in tensors.values()))


def check_one_dtype(path: Path, dtypes: Iterable[torch.dtype]) -> None:
    found = sorted({str(dtype) for dtype in dtypes})
    if not {*found} <= {*map(str, DTYPES.values())}:
        raise CheckpointError(
            f"{path}: has weights of {', '.join(found)}; expected one of {', '.join(DTYPES)}."
        )
    if len(found) > 1:
        raise MixedDtypesError(
            f"{path}: mixes the dtypes {', '.join(found)}; one was expected: convert the weights."
        )


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a file of safetensors: the same bytes each time."""
    return with_metadata(save(dict(tensors)), metadata)
