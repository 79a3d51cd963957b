"""The tensors of safetensors files, one file or several shards, left where they lie."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from bilens.base.errors import CheckpointError
from bilens.base.files import file_sha256, read_json
from bilens.io.byte_ranges import Region, read_header
from bilens.io.loaded_model import WEIGHTS_NAME
from bilens.io.model_config import is_list_of
from bilens.io.remote import at_once
from bilens.io.stored_mlp import Store, StoredTensor, stored_codes
from bilens.io.tensors import DTYPES, OTHER_DTYPES, check_names, checked_dtype

INDEX_NAME = "model.safetensors.index.json"
SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors", re.ASCII)  # no path, no ".."
MAX_INDEX_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """A file, or a folder of shards, of tensors under names that say nothing of a layer."""

    path: Path
    store: Store
    kind: str = "safetensors file"
    left_out: Sequence[str] = ()  # what else it holds, in words
    residual: bool | None = None  # what a configuration in it says
    # what the caller has to say before it is read: the option, and why
    asks: Mapping[str, str] = field(default_factory=dict)
    beside: Store = field(default_factory=dict)  # of `left_out`, which is compared all the same

    @cached_property
    def sha256(self) -> str:
        return folder_sha256(self.path) if self.path.is_dir() else file_sha256(self.path)


def open_folder(
    folder: Path, wanted: Callable[[str], bool], placed: dict[str, str] | None = None
) -> Store:
    """Return the tensors of a folder by name, the wanted ones checked; headers alone are read.

    A shard that holds others than its index says is refused. `placed` is tensor → file of the
    shards that are opened; None for all files.
    """
    placed = placed or shards(folder)
    files = files_of(folder, placed)
    held: dict[str, list[str]] = {}
    for name, shard in (placed or {}).items():
        held.setdefault(shard, []).append(name)
    together: dict[str, StoredTensor] = {}
    for file, found in zip(files, at_once(partial(header, wanted=wanted), files), strict=True):
        if placed is not None:
            check_names(file, found, held[file.name])
        together |= found
    return together


def folder_sha256(folder: Path) -> str:
    """Return the SHA-256 of the weights file of a folder, or of the SHA-256 of its shards."""
    return file_sha256(*files_of(folder, shards(folder)))


def further_modules(folder: Path) -> Store:
    """Return the tensors of the modules behind a model of sentence-transformers."""
    store: dict[str, StoredTensor] = {}
    places = sorted(folder.glob("[0-9]*_*/*")) if (folder / "modules.json").exists() else []
    for file in places:
        if file.parent.is_symlink():
            raise CheckpointError(
                f"{file.parent}: is a link, and a part of the model: put the folder itself there."
            )
        if file.suffix in (".bin", ".pt"):
            raise CheckpointError(f"{file}: is a part of the model, and a pickle: save it again.")
        if file.name == WEIGHTS_NAME:
            for name, one in header(inside(folder, file), lambda _: False).items():
                full = f"{file.parent.name}.{name}"
                store[full] = replace(one, name=full)
    return store


def shards(folder: Path) -> dict[str, str] | None:
    """Return tensor → file where the weights are in shards; None where one file holds them."""
    whole, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    return read_index(index) if index.exists() and not whole.exists() else None


def read_index(path: Path) -> dict[str, str]:
    """Return tensor → file from the index of the shards; the files are plain names."""
    placed = read_json(path, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(placed, dict) or not placed or not is_list_of(str, [*placed.values()]):
        raise CheckpointError(
            f"{path}: has no weight_map of tensors to file names: restore the file."
        )
    odd = sorted({name for name in placed.values() if not SHARD.fullmatch(name)})
    if odd:
        raise CheckpointError(
            f"{path}: names the file {odd[0]!r}; expected plain names of .safetensors files "
            "beside it: restore the file."
        )
    return placed


def files_of(folder: Path, placed: dict[str, str] | None) -> list[Path]:
    """Return the files of the weights, in order."""
    names = [WEIGHTS_NAME] if placed is None else sorted({*placed.values()})
    return [inside(folder, folder / name) for name in names]


def inside(folder: Path, file: Path) -> Path:
    """Return a file of a folder that does not lead out of it."""
    home, real = folder.resolve(), file.resolve()
    allowed = [home]
    # in the cache of the Hugging Face hub the files of a revision, below it too, are such links
    allowed += [up.parent / "blobs" for up in home.parents if up.name == "snapshots"]
    if file.is_symlink() and real.parent not in allowed:
        raise CheckpointError(
            f"{file}: is a link to {real}, outside of its folder: put the file itself there."
        )
    return file


def header(file: Path, wanted: Callable[[str], bool]) -> dict[str, StoredTensor]:
    """Return all tensors of a file; the wanted ones are of a dtype that layers have."""
    found, store = read_header(file), {}
    for name, entry in found.entries.items():
        dtype = DTYPES.get(entry.dtype) or OTHER_DTYPES.get(entry.dtype)
        if wanted(name):
            dtype = checked_dtype(file, name, entry.dtype)
        if dtype is None:
            start, stop = (found.stop + end for end in entry.data_offsets)
            place = Region(found.file, start, (stop - start,), torch.uint8)
            store[name] = stored_codes(name, entry.shape, entry.dtype, place)
            continue
        place = found.region(name, dtype)
        store[name] = StoredTensor(file, name, place.shape, dtype, place.fetch, locate=place.spans)
    return store
