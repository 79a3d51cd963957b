"""Opens any model for an audit: where no layer of it is read, its tensors alone."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bilens.base.errors import BilensError, CheckpointError, NoLayersError, UsageError
from bilens.base.memory import check_memory
from bilens.io.byte_ranges import Block, Region, opened
from bilens.io.contents import Contents, Tensor as Listed, UnknownKindError
from bilens.io.file_kinds import find_model, folder_around, kind_of, mark_files
from bilens.io.formats.gguf import parts_of, stored_tensors as tensors_of_gguf
from bilens.io.formats.keras import read_hdf5
from bilens.io.formats.named_roles import open_tensors
from bilens.io.formats.onnx_tensors import read_tensors as tensors_of_onnx
from bilens.io.inventory import contents_at, not_readable
from bilens.io.load import PEFT, load_with
from bilens.io.loaded_model import LoadedModel, ReadOptions
from bilens.io.remote import RemotePath, located
from bilens.io.stored_mlp import Store, StoredTensor, stored_array, stored_codes
from bilens.nn.sparse_autoencoder import SparseAutoencoder

COPIES = 3  # of the bytes of an archive of arrays


def open_any(path: Path, options: ReadOptions, compared: bool = False) -> LoadedModel:
    """Read a model for an audit; one of which no layer is read comes with its tensors alone.

    `compared` with another one, it does whatever the reason is; else for a kind of file of which
    no layer is read, and not for one that is damaged.
    """
    path = located(path)
    try:
        model = load_with(path, options)
    except (CheckpointError, UsageError) as error:
        named = options.name_roles or PEFT.matches(path)
        # an MLP whose activation nobody said is a file like others, until somebody does
        asked = isinstance(error, UsageError) and error.retries and options.activation is None
        if named or not (compared or asked or isinstance(error, NoLayersError)):
            raise
        return without_layers(path, options, error)
    if isinstance(model.module, SparseAutoencoder):
        about = {**model.provenance, "read": "no layers: a sparse autoencoder has none of its own"}
        store = model.tensors
        return replace(model, module=None, module_sha256="", stored=store, provenance=about)
    return model


def open_pair(model: Any, baseline: Any, options: ReadOptions) -> tuple[Any, ...]:
    """Open a model and the one that it was made from, to which an adapter is added, from paths."""
    added = isinstance(model, Path) and isinstance(baseline, Path) and PEFT.matches(model)
    own = replace(options, base=baseline if added else None)
    return tuple(
        open_any(one, how, baseline is not None) if isinstance(one, Path) else one
        for one, how in ((model, own), (baseline, options))
    )


def without_layers(given: Path, options: ReadOptions, error: BilensError) -> LoadedModel:
    """Return the tensors of a model of which no layer is read, and why; raise where it is none."""
    try:
        path = find_model(given, any_kind=True)
        folder = folder_around(given, path)
        marks = mark_files(folder or path)
        held = None if isinstance(path, RemotePath) else contents_at(path)
    except CheckpointError as why:
        known = isinstance(error, NoLayersError) and not isinstance(why, UnknownKindError)
        raise (why if known else error) from None  # of a kind that is known, but damaged
    said = error.sentence.removeprefix(f"{given}: ").removeprefix(f"{path}: ")
    ways = [one.line() for one in error.retries]
    said += f" Or audit it with {', or '.join(ways)}." if ways else ""
    about, store, sha256 = {"read": f"no layers: {said}"}, dict[str, StoredTensor](), ""
    with suppress(CheckpointError, OSError):
        found = open_tensors(path, options.allow_pickle, must=False)
        store, sha256 = {**found.beside, **found.store}, found.sha256
    if held is None and not store:
        raise error from None
    if held is not None:
        about, sha256 = {"format": held.format, **about}, sha256 or held.sha256
        if not store and path.is_file() and (kind := kind_of(path)) in OPENERS:
            try:
                store = dict(OPENERS[kind](path))
            except BilensError:  # names and shapes alone are told
                pass
            except Exception as why:  # damaged bytes lead anywhere
                raise not_readable(path, kind, why) from why
        store = {**store, **tensors_beside(store, held, error)}
    files = () if held is None else tuple(held.files)
    model = LoadedModel(None, str(path), sha256, provenance=about, stored=store, files=files)
    return replace(model, marks=marks, folder=str(folder or ""))


# ---- tensors of files of which no layer is read


def tensors_of_parts(path: Path) -> Store:
    return {name: one for part in parts_of(path) for name, one in tensors_of_gguf(*part).items()}


def tensors_of_keras(path: Path) -> Store:
    with zipfile.ZipFile(path) as archive:
        return read_hdf5(path, archive.read("model.weights.h5"))


def tensors_of_arrays(path: Path) -> Store:
    """Return the arrays of an .npz or .npy file; those of objects are not opened."""
    check_memory(COPIES * path.stat().st_size, f"{path}", "load a smaller file")
    store = dict[str, StoredTensor]()
    many = np.load(path, allow_pickle=False) if zipfile.is_zipfile(path) else None
    for name in [path.stem] if many is None else many.files:
        try:
            one = np.load(path, allow_pickle=False) if many is None else many[name]
        except ValueError as error:
            if "allow_pickle" in str(error):  # of objects
                continue
            raise
        store[name] = stored_array(path, name, one)
    return store


OPENERS: Mapping[str, Callable[[Path], Store]] = {
    "onnx": tensors_of_onnx,
    "gguf": tensors_of_parts,
    "keras": tensors_of_keras,
    "hdf5": partial(read_hdf5, any_kind=True),
    "arrays": tensors_of_arrays,
}


# ---- whatever else lies in a file


def header_of(model: LoadedModel) -> Contents | None:
    """List the tensors that the headers of a model's file name; None for adapters and modules."""
    path = Path(model.source)
    with suppress(BilensError, OSError):
        if model.source and model.original is None and path.exists() and not model.below:
            return contents_at(path)
    return None


def all_tensors(model: LoadedModel, held: Contents | None) -> Store:
    """Return the tensors of a model as its reader gives them, and what else its headers name."""
    store, path = model.tensors, model.source
    error = CheckpointError(f"{path}: holds tensors whose numbers are not read.")
    return store if held is None else {**store, **tensors_beside(store, held, error)}


def tensors_beside(store: Store, held: Contents, error: BilensError) -> Store:
    """Return the tensors that headers name and a store lacks; without a place they end in an error.

    A store may name those of a graph inside a node by that node, too. One that shares no name was
    made of tensors of these shapes.
    """
    names = {one.name for one in held.tensors}
    others = [name for name in store if name not in names]
    there = Counter(name for name in store if name in names)
    held_in = {name for one in store.values() for name in (*one.made_of, one.called)}
    there += Counter(name for name in held_in if name and name not in store)
    shapes = Counter(sides_of(store[name].shape) for name in others if not there)
    counted, found = {one.name for one in held.weights()}, dict[str, StoredTensor]()
    for one in held.tensors:
        for known, key in ((there, one.name), (shapes, sides_of(one.shape))):
            if known[key] > 0:  # type: ignore[index]
                known[key] -= 1  # type: ignore[index]
                break
        else:
            name = one.name
            while name in store or name in found:
                name += "'"
            raw = raw_tensor(one._replace(name=name), held, error)
            found[name] = replace(raw, is_weight=one.name in counted)
    return found


def sides_of(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(side for side in shape if side != 1))


def raw_tensor(one: Listed, held: Contents, error: BilensError) -> StoredTensor:
    """Return a tensor by its place in a file, of a type of another name by the bits in it."""

    def refuse(_: Block) -> Tensor:
        raise error

    dtype, size = getattr(torch, one.dtype, None), 0
    plain = dtype if isinstance(dtype, torch.dtype) else torch.float32
    if one.place is not None:
        size = one.place.stop - one.place.start
        file, start = opened(one.place.path), one.place.start
        if plain is dtype and size == prod(one.shape) * plain.itemsize:
            fetch = Region(file, start, one.shape, plain).fetch
            codes = one.dtype if one.quantised and not plain.is_floating_point else ""
            return StoredTensor(file.path, one.name, one.shape, plain, fetch, quantised_as=codes)
        if size:
            return stored_codes(
                one.name, one.shape, one.dtype, Region(file, start, (size,), torch.uint8)
            )
    codes, never = "" if plain is dtype else one.dtype, cast(Callable[[Block], Tensor], refuse)
    found = StoredTensor(held.files[0], one.name, one.shape, plain, never, quantised_as=codes)
    return replace(found, readable=False)
