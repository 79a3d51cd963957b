"""The tensors that roles can be said of: of one safetensors file, or of the shards of a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bilens.base.errors import CheckpointError
from bilens.io.huggingface_llama import INDEX_NAME
from bilens.io.stored.safetensors_folder import folder_sha256, header, names_in, open_folder
from bilens.io.stored.tensor import Store, StoredTensor
from bilens.io.tensors import file_sha256


@dataclass(frozen=True, eq=False)
class OpenedTensors:
    """Tensors left where they lie.

    Attributes:
        store: those that were wanted, by name.
        names: of all.
        sha256: of the file, or of the hashes of the shards.
    """

    store: Store
    names: list[str]
    sha256: str


def open_tensors(path: Path, wanted: Callable[[str], bool]) -> OpenedTensors:
    """Return the tensors of a file or folder; headers alone are read.

    Args:
        path: a .safetensors file, a folder with one such file, or one with shards and their index.
        wanted: which names; the others may be of any kind.

    Raises:
        CheckpointError: If there is no such file, it is damaged, or a wanted tensor is not in
            floating point.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if len(files) == 1 and files[0].suffix == ".safetensors":
        store: dict[str, StoredTensor] = {}
        names = header(files[0], wanted, store)
        return OpenedTensors(store, names, file_sha256(files[0]))
    if path.is_dir() and (path / INDEX_NAME).exists():
        return OpenedTensors(open_folder(path, wanted), names_in(path), folder_sha256(path))
    found = f"{len(files)} in this folder" if path.is_dir() else f"this one is {path.suffix!r}"
    raise CheckpointError(
        f"{path}: roles, activation and orientation are said of one .safetensors file, and "
        f"{found}: name the file, or save the tensors as safetensors."
    )
