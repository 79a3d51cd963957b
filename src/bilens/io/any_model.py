"""Opens any model for an audit: where no layer of it is read, its tensors alone."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bilens.base.errors import BilensError, CheckpointError, UsageError
from bilens.base.memory import check_memory
from bilens.io.byte_ranges import Block, Region, opened
from bilens.io.contents import Contents
from bilens.io.file_kinds import find_model, kind_of
from bilens.io.formats.gguf import parts_of, stored_tensors as tensors_of_gguf
from bilens.io.formats.keras import read_hdf5
from bilens.io.formats.named_roles import open_tensors
from bilens.io.formats.onnx_tensors import read_tensors as tensors_of_onnx
from bilens.io.inventory import contents_at
from bilens.io.load import PEFT, load_with
from bilens.io.loaded_model import LoadedModel, ReadOptions
from bilens.io.remote import RemotePath, located
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.nn import TopKSAE

COPIES = 3  # of the bytes of an archive of arrays


def open_any(path: Path, options: ReadOptions, compared: bool = False) -> LoadedModel:
    """Read a model for an audit; one of which no layer is read comes with its tensors alone.

    So ends whatever an inventory can be taken of, unless what was asked of its layers is wrong.
    """
    path = located(path)
    try:
        model = load_with(path, options)
    except (CheckpointError, UsageError) as error:
        named = options.name_roles or PEFT.matches(path)
        # an MLP whose activation nobody said is a file like others, until somebody does
        asked = isinstance(error, UsageError) and error.retries and options.activation is None
        wrong = isinstance(error, UsageError) and not (asked or compared)
        if named or wrong:
            raise
        return without_layers(path, options, error)
    if isinstance(model.module, TopKSAE):
        about = {**model.provenance, "read": "no layers: a sparse autoencoder has none of its own"}
        store = model.tensors
        return replace(model, module=None, module_sha256="", stored=store, provenance=about)
    return model


def without_layers(given: Path, options: ReadOptions, error: BilensError) -> LoadedModel:
    """Return the tensors of a model of which no layer is read, and why; raise where it is none."""
    try:
        path = find_model(given, any_kind=True)
        held = None if isinstance(path, RemotePath) else contents_at(path)
    except CheckpointError:
        raise error from None
    said = error.sentence.removeprefix(f"{given}: ").removeprefix(f"{path}: ")
    ways = (" ".join(chain(*one.options())) for one in error.retries)
    said += f" Or audit it with {', or '.join(ways)}." if error.retries else ""
    about, store, sha256 = {"read": f"no layers: {said}"}, dict[str, StoredTensor](), ""
    with suppress(CheckpointError, OSError):
        found = open_tensors(path, options.allow_pickle, must=False)
        store, sha256 = {**found.beside, **found.store}, found.sha256
    if held is None and not store:
        raise error from None
    if held is not None:
        about, sha256 = {"format": held.format, **about}, sha256 or held.sha256
        store = store or dict(tensors_at(path, held, error))
    files = tuple(held.files) if held is not None and path.is_dir() else ()
    return LoadedModel(None, str(path), sha256, provenance=about, stored=store, files=files)


# ---- tensors of files of which no layer is read


def tensors_of_parts(path: Path) -> Store:
    return {name: one for part in parts_of(path) for name, one in tensors_of_gguf(*part).items()}


def tensors_of_keras(path: Path) -> Store:
    with zipfile.ZipFile(path) as archive:
        return read_hdf5(path, archive.read("model.weights.h5"))


def tensors_of_arrays(path: Path) -> Store:
    """Return the arrays of numbers of an .npz or .npy file; objects in it are not opened."""
    check_memory(COPIES * path.stat().st_size, f"{path}", "load a smaller file")
    found = np.load(path, allow_pickle=False)
    arrays = {path.stem: found} if isinstance(found, np.ndarray) else dict(found)
    store = {}
    for name, one in arrays.items():
        if one.dtype.kind in "fiu" and one.dtype.name not in ("uint32", "uint64", "uint16"):
            data = torch.from_numpy(np.ascontiguousarray(one))
            store[name] = StoredTensor(path, name, one.shape, data.dtype, data.__getitem__)
    return store


OPENERS: Mapping[str, Callable[[Path], Store]] = {
    "onnx": tensors_of_onnx,
    "gguf": tensors_of_parts,
    "keras": tensors_of_keras,
    "hdf5": partial(read_hdf5, any_kind=True),
    "arrays": tensors_of_arrays,
}


def tensors_at(path: Path, held: Contents, error: BilensError) -> Store:
    """Return the tensors of a file; where their numbers are not read, reading ends in the error."""
    if path.is_file() and (kind := kind_of(path)) in OPENERS:
        with suppress(BilensError):
            return OPENERS[kind](path)

    def refuse(_: Block) -> Tensor:
        raise error

    store: dict[str, StoredTensor] = {}
    for one in held.weights():
        dtype, fetch = getattr(torch, one.dtype, None), cast(Callable[[Block], Tensor], refuse)
        plain = dtype if isinstance(dtype, torch.dtype) else torch.float32
        codes = "" if plain is dtype else one.dtype
        known = one.place is not None and plain is dtype and not one.quantised
        if one.place is not None and known:
            fetch = Region(opened(one.place.path), one.place.start, one.shape, plain).fetch
        found = StoredTensor(path, one.name, one.shape, plain, fetch, quantised_as=codes)
        store[one.name] = replace(found, readable=known)
    return store
