"""The tensors of a folder of safetensors files, one file or several shards, left where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bilens.base.errors import CheckpointError
from bilens.io.huggingface_llama import INDEX_NAME, WEIGHTS_NAME, read_index
from bilens.io.stored.tensor import Place, Store, StoredTensor, Unchanged
from bilens.io.tensors import DTYPES, MAX_TENSORS, check_is_file, check_names, file_sha256

PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def open_folder(folder: Path, wanted: Callable[[str], bool]) -> Store:
    """Return the wanted tensors of a folder by name; headers alone are read.

    Args:
        folder: with `model.safetensors`, or shards and their index.
        wanted: which names; the others may be of any kind.

    Raises:
        CheckpointError: If a file is missing, damaged or not where it belongs, or a wanted tensor
            is not in floating point.
    """
    placed = shards(folder)
    store: dict[str, StoredTensor] = {}
    for file in files_of(folder, placed):
        names = header(file, wanted, store)
        if placed is not None:
            check_names(file, names, [name for name, shard in placed.items() if shard == file.name])
    return store


def names_in(folder: Path) -> list[str]:
    """Return the names of all tensors of a folder.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    files = files_of(folder, shards(folder))
    return [name for file in files for name in header(file, lambda _: False, {})]


def folder_sha256(folder: Path) -> str:
    """Return the SHA-256 of the weights file of a folder, or of the SHA-256 of its shards."""
    placed = shards(folder)
    hashes = [file_sha256(file) for file in files_of(folder, placed)]
    return hashes[0] if placed is None else hashlib.sha256("".join(hashes).encode()).hexdigest()


def shards(folder: Path) -> dict[str, str] | None:
    """Return tensor → file where the weights are in shards; None where one file holds them."""
    whole, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    return read_index(index) if index.exists() and not whole.exists() else None


def files_of(folder: Path, placed: dict[str, str] | None) -> list[Path]:
    """Return the files of the weights, in order."""
    names = [WEIGHTS_NAME] if placed is None else sorted({*placed.values()})
    return [folder / name for name in names]


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder whose weights are pickled, saying so instead of that a file is missing."""
    if (folder / WEIGHTS_NAME).exists() or (folder / INDEX_NAME).exists():
        return
    found = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if found:
        raise CheckpointError(
            f"{folder}: holds its weights as a pickle ({found[0]}), which can run code when it is "
            "opened: save the model as safetensors (save_pretrained of transformers does)."
        )


def header(file: Path, wanted: Callable[[str], bool], store: dict[str, StoredTensor]) -> list[str]:
    """Put the wanted tensors of a file into a store; return the names of all.

    Raises:
        CheckpointError: If the file is missing or damaged, or a wanted tensor is of another kind
            than floating point.
    """
    check_is_file(file)
    unchanged = Unchanged.now(file)
    try:
        with safe_open(str(file), framework="pt") as opened:
            names = list(opened.keys())
            if len(names) > MAX_TENSORS:
                raise CheckpointError(
                    f"{file}: holds {len(names)} tensors; at most {MAX_TENSORS} are read."
                )
            for name in filter(wanted, names):
                part = opened.get_slice(name)
                dtype = checked_dtype(file, name, part.get_dtype())
                fetch = partial(fetch_block, unchanged, name)
                store[name] = StoredTensor(file, name, tuple(part.get_shape()), dtype, fetch)
    except (SafetensorError, OSError) as error:
        raise unreadable(file, error) from error
    return names


def checked_dtype(file: Path, name: str, kind: str) -> torch.dtype:
    """Return the dtype of a header.

    Raises:
        CheckpointError: If it is not in floating point of 16 bits or more.
    """
    if kind in DTYPES:
        return DTYPES[kind]
    what = "8-bit floats, which mean nothing without their scales" if "F8" in kind else kind
    raise CheckpointError(
        f"{file}: tensor {name!r} is of {what}; expected one of {', '.join(DTYPES)}: convert the "
        "weights to 16-bit or 32-bit floating point."
    )


def fetch_block(unchanged: Unchanged, name: str, place: Place) -> Tensor:
    """Return a block of a tensor."""
    unchanged.check()
    try:
        with safe_open(str(unchanged.path), framework="pt") as opened:
            block: Tensor = opened.get_slice(name)[place] if place else opened.get_tensor(name)
            return block.clone()  # not a map of the file, which may be replaced while it is used
    except (SafetensorError, OSError) as error:
        raise unreadable(unchanged.path, error) from error


def unreadable(file: Path, error: Exception) -> CheckpointError:
    """Return what is said of a file that is damaged."""
    return CheckpointError(
        f"{file}: is not a readable safetensors file ({error}): check that the download is "
        "complete and that the file is what its name says."
    )
