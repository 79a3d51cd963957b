"""MLPs in any safetensors file: which tensor is what is said, or guessed and shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import file_sha256
from bilens.io.formats.activations import NamedActivation, activation_named
from bilens.io.formats.format import Activations, ReadOptions
from bilens.io.formats.role_guess import GRAMMAR, Shapes, guess_roles, is_network, misfit
from bilens.io.formats.safetensors_folder import (
    INDEX_NAME,
    folder_sha256,
    header,
    names_in,
    open_folder,
)
from bilens.io.formats.source import by_the_formula, raw_tensors, reading_of
from bilens.io.loaded_model import LoadedModel, LoadReport
from bilens.io.stored_mlp import LayerLocation, Store, StoredMLP, StoredTensor
from bilens.nn.agreement import agreement, normal_inputs
from bilens.nn.layer_view import Gives, Reads

ROLE = re.compile(r"(up|gate|down)(_bias)?(?:\.(\d{1,4}))?", re.ASCII)
SOURCE = "torch.nn.functional on the tensors as they lie in the file"


def read_named_roles(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the MLPs of a safetensors file, or of a folder with one or with shards."""
    roles = options.roles
    named = None if roles is None else {*roles.values()}
    opened = open_tensors(path, lambda name: named is None or name in named)
    store, found = opened.store, opened.names
    shapes = {name: stored.shape for name, stored in store.items()}
    layers = guess_roles(path, shapes) if roles is None else parse_roles(path, roles, found)
    check_axes(path, layers, shapes)
    check_one_dtype(path, layers, store)
    activations = said_activations(path, layers, options.activation)
    transposed = orientation(path, layers, shapes, options.transposed)
    network = is_network(layers)
    views, checks, said = {}, {}, {}
    for index, (layer, activation) in enumerate(zip(layers, activations, strict=True)):
        name = "layer" if len(layers) == 1 else f"layers.{index}"
        location = replace(layer, name=name, transposed=transposed)
        stored = StoredMLP.of(store, location, activation.phi, activation.scale)
        x = normal_inputs(stored.sizes.d_in)
        expected = by_the_formula(location, raw_tensors(store, location), activation.function)(x)
        checks[name] = agreement(name, SOURCE, expected, reading_of(stored)()(x)).required()
        reads, gives = reads_and_gives(index, len(layers), network)
        views[name] = stored.view(reads=reads, gives=gives)
        way = "matrices are (in, out)" if transposed else "matrices are (out, in)"
        said[name] = f"{layer}; {activation}; {way}"
    used = {tensor for layer in layers for tensor in layer.tensors()}
    left_out = tuple(f"tensor {name}" for name in found if name not in used)
    return LoadedModel(
        None,
        str(path),
        opened.sha256,
        provenance={"format": "safetensors file with named roles"},
        views=views,
        load_report=LoadReport(said, roles is None, checks, left_out),
    )


def reads_and_gives(index: int, count: int, network: bool) -> tuple[Reads, Gives]:
    """Return what one of so many layers reads and gives."""
    if not network:
        return "activations", "outputs"
    return "neurons" if index else "inputs", "neurons" if index < count - 1 else "outputs"


@dataclass(frozen=True, eq=False)
class OpenedTensors:
    """Tensors left where they lie: those that were wanted, and the names of all."""

    store: Store
    names: list[str]
    sha256: str


def open_tensors(path: Path, wanted: Callable[[str], bool]) -> OpenedTensors:
    """Return the tensors of a file or folder; headers alone are read."""
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


# ---- what the caller says


def parse_roles(
    path: Path, roles: Mapping[str, str], names: Collection[str]
) -> list[LayerLocation]:
    """Return the layers that a mapping of roles to tensors describes."""
    if not roles:
        raise UsageError(f"{path}: roles is empty; expected {GRAMMAR}.")
    layers: dict[int, dict[str, str]] = {}
    unknown = []
    for role, tensor in roles.items():
        match = ROLE.fullmatch(role) if isinstance(role, str) else None
        if match is None or not isinstance(tensor, str):
            unknown.append(f"{role}={tensor}")
            continue
        part = layers.setdefault(int(match[3] or 0), {})
        if f"{match[1]}{match[2] or ''}" in part:
            raise UsageError(f"{path}: the role {role} is given twice: give each once.")
        part[f"{match[1]}{match[2] or ''}"] = tensor
    if unknown:
        raise UsageError(f"{path}: {', '.join(unknown)} is no role; expected {GRAMMAR}.")
    check_complete(path, layers)
    check_tensors(path, [*roles.values()], names)
    return [LayerLocation(**layers[index]) for index in range(len(layers))]  # type: ignore[arg-type]


def check_complete(path: Path, layers: Mapping[int, Mapping[str, str]]) -> None:
    """Refuse layers that lack a part, naming everything that is missing."""
    missing = []
    for index in range(max(layers) + 1):
        part = layers.get(index, {})
        needed = ["up"] if "up" not in part else []
        needed += [role for role in ("gate", "down") if f"{role}_bias" in part and role not in part]
        missing += [f"{role}.{index}" for role in needed]
    if missing:
        raise UsageError(
            f"{path}: the roles lack {', '.join(missing[:8])}: every layer needs `up`, a bias "
            "needs its matrix, and layers are counted from 0."
        )


def check_tensors(path: Path, tensors: list[str], names: Collection[str]) -> None:
    """Refuse tensors that are not in the file, or that are used twice."""
    for tensor in tensors:
        if tensor not in names:
            near = get_close_matches(tensor, names, n=3, cutoff=0.4) or sorted(names)[:4]
            raise CheckpointError(
                f"{path}: has no tensor {tensor!r}; there are {len(names)}, for example "
                f"{', '.join(near) or 'none'}."
            )
    twice = sorted({tensor for tensor in tensors if tensors.count(tensor) > 1})
    if twice:
        raise UsageError(f"{path}: the tensor {twice[0]!r} has two roles: give it one.")


def said_activations(
    path: Path, layers: list[LayerLocation], said: Activations | None
) -> list[NamedActivation]:
    """Return the activation of each layer; a file of tensors never says which."""
    if said is None:
        found = "; ".join(f"layer {index}: {roles}" for index, roles in enumerate(layers[:4]))
        more = f"; and {len(layers) - 4} more" if len(layers) > 4 else ""
        raise UsageError(
            f"{path}: looks like an MLP ({found}{more}), and does not say its activation: pass "
            "activation= (--activation), for example relu, gelu, or identity for a product "
            "without one. Other roles can be said with roles= (--map)."
        )
    parts = said.split(",") if isinstance(said, str) else said
    named = [activation_named(part) for part in (parts if isinstance(parts, list) else [parts])]
    if len(named) not in (1, len(layers)):
        raise UsageError(
            f"{path}: {len(named)} activations are named for {len(layers)} layer(s); expected one, "
            "or one for each."
        )
    return named * len(layers) if len(named) == 1 else named


# ---- what the shapes say


def check_axes(path: Path, layers: list[LayerLocation], shapes: Shapes) -> None:
    for layer in layers:
        for role, name in layer.named():
            axes = 1 if role.endswith("_bias") else 2
            if len(shapes[name]) != axes or 0 in shapes[name]:
                raise CheckpointError(
                    f"{path}: tensor {name!r} has shape {shapes[name]}; expected {axes} axes with "
                    f"entries for the role {role}."
                )


def check_one_dtype(path: Path, layers: list[LayerLocation], store: Store) -> None:
    found = {str(store[name].dtype) for layer in layers for _, name in layer.named()}
    if len(found) > 1:
        raise CheckpointError(
            f"{path}: mixes the dtypes {', '.join(sorted(found))}; one was expected: convert the "
            "weights."
        )


def orientation(path: Path, layers: list[LayerLocation], shapes: Shapes, said: bool | None) -> bool:
    """Return whether the matrices are (in, out), as of Conv1D or JAX, and not (out, in)."""
    problems = {way: misfit(layers, shapes, way) for way in (False, True)}
    if said is not None:
        if (problem := problems[said]) is not None:
            raise CheckpointError(f"{path}: with transposed={said}, {problem}.")
        return said
    fits = [way for way, problem in problems.items() if problem is None]
    if not fits:
        raise CheckpointError(
            f"{path}: the shapes do not fit: {problems[False]}; and with transposed matrices, "
            f"{problems[True]}."
        )
    if len(fits) == 2:
        first = layers[0]
        raise UsageError(
            f"{path}: {first.up!r} with shape {shapes[first.up]} may be (out, in), as PyTorch has "
            "it, or (in, out), and nothing in the shapes decides it: say transposed=False or "
            "transposed=True (--no-transposed, --transposed)."
        )
    return fits[0]
