"""PyTorch's own files: state dicts, checkpoints, TorchScript; no code of theirs is run."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError, NoLayersError
from bilens.base.memory import check_memory
from bilens.io.byte_ranges import Block, Unchanged
from bilens.io.formats.safetensors_folder import INDEX_NAME, WeightsFile, inside
from bilens.io.loaded_model import WEIGHTS_NAME
from bilens.io.pickle_contents import (
    Made,
    TensorAt,
    TorchFile,
    damaged,
    flattened,
    read_torch_file,
    tensors_beside,
    weights_of,
)
from bilens.io.stored_mlp import Store, StoredTensor

OF_OPTIMIZER = re.compile(r"^(optimizer\.)?(state\.\d+\.\w+|param_groups\.\d+\.\w+)$")


SCRIPT = "TorchScript file, its code not run"
NOT_OPENED = {
    "allow_pickle": "is a pickle, which can hold code (none of it is run), and is opened when you "
    "allow it"
}


def open_pickled(path: Path, allowed: bool, must: bool = True) -> WeightsFile:
    """Return the weights in a file of PyTorch, as its pickle names them, left where they lie.

    Numbers that are not dense are refused, at once where they `must` be read.
    """
    unchanged, file = Unchanged.now(path), read_torch_file(path, allowed)
    content = file.content if isinstance(file.content, Made) else Made()
    refuse_modules(path, content)
    weights, left_out = (content, {}) if file.is_script else weights_of(content)
    tensors = flattened(weights)
    if not tensors or "" in tensors or all(map(OF_OPTIMIZER.search, tensors)):
        raise NoLayersError(
            f"{path}: holds no tensors of a model under names (an optimizer's are none); expected "
            "a state dict, as "
            "torch.save(model.state_dict(), path) writes it."
        )
    opened = partial(stored_tensor, unchanged, file)
    store = {name: opened(name, one, must=must) for name, one in tensors.items()}
    beside = {
        name: replace(opened(name, one, must=False), is_weight=False)
        for name, one in tensors_beside(left_out).items()
    }
    config = content.children().get("config")
    said = config.children().get("residual") if isinstance(config, Made) else None
    return WeightsFile(
        path,
        store,
        SCRIPT if file.is_script else "state dict of PyTorch",
        [*left_out],
        said if isinstance(said, bool) else None,
        {} if allowed else NOT_OPENED,
        beside,
    )


def stored_tensor(
    unchanged: Unchanged, file: TorchFile, name: str, one: TensorAt | None, *, must: bool = True
) -> StoredTensor:
    """Return a tensor; one whose numbers are not read is refused, at once where it must be."""
    known = getattr(torch, one.dtype, None) if one else None
    dtype = known if isinstance(known, torch.dtype) else torch.uint8
    if one is None or not one.key or dtype.itemsize * one.end() > file.sizes.get(one.key, -1):
        error = NoLayersError(
            f"{unchanged.path}: tensor {name!r} is not of dense numbers inside its storage (but "
            "sparse, quantised, expanded, or of 8-bit floats): save the weights again, dense."
        )
        if must:
            raise error
        fetch, shape = partial(refuse, error), one.shape if one else ()
        return StoredTensor(unchanged.path, name, shape, dtype, fetch, readable=False)
    fetch = partial(fetch_block, unchanged, file, dtype, one)
    return StoredTensor(unchanged.path, name, one.shape, dtype, fetch)


def refuse(error: NoLayersError, _: Block) -> Tensor:
    raise error


def refuse_modules(path: Path, content: Made) -> None:
    """Refuse modules that were pickled whole: what they compute is not in the file."""
    for one in (content, *content.children().values(), *getattr(content, "arguments", ())):
        if isinstance(one, Made) and {"_parameters", "_modules"} <= {*one.children()}:
            name = content.name if one.name == Made.name else one.name
            raise NoLayersError(
                f"{path}: holds a whole module ({name}), whose code would have to be run: "
                "where its class is at hand, read it with bl.from_module(torch.load(path, "
                "weights_only=False)), or save its weights with torch.save(model.state_dict(), "
                "path) and name that file."
            )


def fetch_block(
    unchanged: Unchanged, file: TorchFile, dtype: torch.dtype, tensor: TensorAt, block: Block
) -> Tensor:
    """Return a block of a tensor; of the file no more than its storage is read."""
    unchanged.check()
    size = file.sizes[tensor.key]
    check_memory(2 * size, f"{unchanged.path}: a storage", "load a smaller file")
    try:
        raw = bytearray(file.read(tensor.key)) or bytearray(8)  # of what has no numbers
        flat = torch.frombuffer(raw, dtype=dtype)
    except Exception as error:  # damaged where only reading it shows it
        raise damaged(unchanged.path, error) from error
    return flat.as_strided(tensor.shape, tensor.stride, tensor.offset)[block].clone()


def pickles_in(folder: Path) -> list[Path]:
    """Return the pickled weights of a folder of Hugging Face that has no others."""
    if (folder / WEIGHTS_NAME).exists() or (folder / INDEX_NAME).exists():
        return []
    return [inside(folder, path) for path in sorted(folder.glob("pytorch_model*.bin"))]


def open_pickles(files: list[Path]) -> Store:
    """Return the tensors of shards together."""
    store: dict[str, StoredTensor] = {}
    for path in files:
        found = open_pickled(path, allowed=True).store
        if {*store} & {*found}:
            raise CheckpointError(f"{path}: holds tensors that another shard holds, too.")
        store |= found
    return store
