"""MLPs in any safetensors file: which tensor is what is said, or guessed and shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import permutations
from pathlib import Path

from bilens.algebra.approximation.layer_weights import in_float64
from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import file_sha256
from bilens.io.formats.activations import NamedActivation, activation_named
from bilens.io.formats.keras import WEIGHTS_ALONE, read_hdf5
from bilens.io.formats.safetensors_folder import (
    INDEX_NAME,
    folder_sha256,
    header,
    open_folder,
)
from bilens.io.formats.source import by_the_formula, raw_tensors
from bilens.io.loaded_model import Activations, LoadedModel, LoadReport, ReadOptions
from bilens.io.stored_mlp import LayerLocation, Store, StoredMLP
from bilens.io.tensors import check_one_dtype
from bilens.nn.agreement import agreement, normal_inputs
from bilens.nn.layer_view import Gives, Reads

Shapes = Mapping[str, tuple[int, ...]]
GRAMMAR = (
    "up, gate and down, each with _bias, and .0, .1, … where there are several layers "
    "(for example up.0, up_bias.0, down.0)"
)
ROLE = re.compile(r"(up|gate|down)(_bias)?(?:\.(\d{1,4}))?", re.ASCII)
SOURCE = "torch.nn.functional on the tensors as they lie in the file"


def read_named_roles(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the MLPs of a file of named tensors, or of a folder with one or with shards."""
    roles = options.roles
    named = None if roles is None else {*roles.values()}
    whole, sha256 = open_tensors(path, lambda name: named is None or name in named)
    store = {name: tensor for name, tensor in whole.items() if named is None or name in named}
    shapes = {name: stored.shape for name, stored in store.items()}
    layers = guess_roles(path, shapes) if roles is None else parse_roles(path, roles, whole)
    check_axes(path, layers, shapes)
    check_one_dtype(path, (store[name].dtype for layer in layers for name in layer.tensors()))
    activations = said_activations(path, layers, options.activation)
    transposed = orientation(path, layers, shapes, options.transposed)
    network = is_network(layers)
    views, said = {}, {}
    for index, (layer, activation) in enumerate(zip(layers, activations, strict=True)):
        name = "layer" if len(layers) == 1 else f"layers.{index}"
        location = replace(layer, name=name, transposed=transposed)
        stored = StoredMLP.of(store, location, activation.phi, activation.scale)
        x = normal_inputs(stored.sizes.d_in)
        expected = by_the_formula(location, raw_tensors(store, location), activation.function)(x)
        # of our arithmetic alone: roles and activation are the same on both sides
        agreement(name, SOURCE, expected, in_float64(stored.read())(x)).required()
        reads: Reads = "activations" if not network else "neurons" if index else "inputs"
        gives: Gives = "neurons" if network and index < len(layers) - 1 else "outputs"
        views[name] = stored.view(reads=reads, gives=gives)
        way = "matrices are (in, out)" if transposed else "matrices are (out, in)"
        said[name] = f"{layer}; {activation}; {way}"
    used = {tensor for layer in layers for tensor in layer.tensors()}
    left_out = tuple(f"tensor {name}" for name in whole if name not in used)
    return LoadedModel(
        None,
        str(path),
        sha256,
        provenance={"format": "safetensors file with named roles"},
        views=views,
        load_report=LoadReport(said, roles is None, {}, left_out),
        stored=whole,
    )


def open_tensors(path: Path, wanted: Callable[[str], bool]) -> tuple[Store, str]:
    """Return the tensors of a file or folder, of which some are wanted, and the SHA-256."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if len(files) == 1 and files[0].suffix == ".safetensors":
        return header(files[0], wanted), file_sha256(files[0])
    if path.suffix in WEIGHTS_ALONE:
        return read_hdf5(path), file_sha256(path)
    if path.is_dir() and (path / INDEX_NAME).exists():
        return open_folder(path, wanted), folder_sha256(path)
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
        part, name = layers.setdefault(int(match[3] or 0), {}), f"{match[1]}{match[2] or ''}"
        if name in part:
            raise UsageError(f"{path}: the role {role} is given twice: give each once.")
        part[name] = tensor
    if unknown:
        raise UsageError(f"{path}: {', '.join(unknown)} is no role; expected {GRAMMAR}.")
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
    check_tensors(path, [*roles.values()], names)
    return [LayerLocation(**layers[index]) for index in range(len(layers))]  # type: ignore[arg-type]


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
    return named if len(named) == len(layers) else named * len(layers)


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


def is_network(layers: list[LayerLocation]) -> bool:
    """Tell whether layers are one behind the other: only the last has an output map of its own."""
    return all(layer.down is None for layer in layers[:-1])


def misfit(layers: list[LayerLocation], shapes: Shapes, transposed: bool) -> str | None:
    """Return what does not fit where matrices are read one way round; None if everything does."""
    way = -1 if transposed else 1
    given: int | None = None
    for layer in layers:
        d_hidden, d_in = shapes[layer.up][::way]
        if given is not None and given != d_in:
            return f"{layer.up!r} reads {d_in} values and the layer before gives {given}"
        expected: dict[str | None, tuple[int, ...]] = {layer.gate: (d_hidden, d_in)}
        expected |= {layer.up_bias: (d_hidden,), layer.gate_bias: (d_hidden,)}
        d_out = d_hidden
        if layer.down is not None:
            d_out, reads = shapes[layer.down][::way]
            if reads != d_hidden:
                return f"{layer.down!r} reads {reads} values and {layer.up!r} gives {d_hidden}"
            expected[layer.down_bias] = (d_out,)
        for name, shape in expected.items():
            if name is not None and (found := shapes[name][::way]) != shape:
                return f"{name!r} has shape {found} where {layer.up!r} asks for {shape}"
        given = d_out if is_network(layers) else None
    return None


# ---- guessing: several readings are no guess

# Names of the parts of one MLP, as far as they are in wide use: (gate, up, down).
GATED = (
    ("gate", "up", "down"),
    ("gate_proj", "up_proj", "down_proj"),
    ("w1", "w3", "w2"),
    ("wi_0", "wi_1", "wo"),
    ("left", "right", "down"),
)
ORDINARY = (
    ("fc1", "fc2"),
    ("fc_1", "fc_2"),
    ("linear1", "linear2"),
    ("lin1", "lin2"),
    ("c_fc", "c_proj"),
    ("up_proj", "down_proj"),
    ("up", "down"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("wi", "wo"),
    ("w1", "w2"),
    ("W1", "W2"),
    ("W_in", "W_out"),
)
MOST_PERMUTED = 6  # matrices whose orders are all tried
WEIGHT, BIAS = ("", ".weight", ".kernel"), (".bias", "_bias")
BIASES = {"fc1": "b1", "W1": "b1", "W2": "b2", "w1": "b1", "w2": "b2"}
BIASES |= {"W_in": "b_in", "W_out": "b_out"}


def guess_roles(path: Path, shapes: Shapes) -> list[LayerLocation]:
    """Return the layers of a file that says nothing but names and shapes."""
    # MLPs with names in wide use are what their names say. Where there are none, or an ordinary one
    # and more (fc1, fc2, fc3), and every tensor is a matrix that reads what the one before gives or
    # the bias of one, they are a network: in the order of their names, or else in the only order in
    # which the shapes fit.
    blocks = blocks_by_name(shapes)
    plain = len(blocks) == 1 and blocks[0].gate is None
    whole = {name for layer in blocks for _, name in layer.named()} == {*shapes}
    layers = chain(path, shapes) if not blocks or (plain and not whole) else blocks
    layers = layers or blocks
    if not layers:
        matrices = [f"{name} {shape}" for name, shape in shapes.items() if len(shape) == 2]
        more = f" and {len(matrices) - 8} more" if len(matrices) > 8 else ""
        raise CheckpointError(
            f"{path}: holds no MLP that names and shapes give away. Its matrices: "
            f"{', '.join(matrices[:8]) or 'none'}{more}. Say which is what: roles= (--map), with "
            f"{GRAMMAR}."
        )
    return layers


def blocks_by_name(shapes: Shapes) -> list[LayerLocation]:
    """Return the MLPs with names in wide use, each under a prefix of its own."""
    found: dict[str, LayerLocation] = {}
    for kinds in (GATED, ORDINARY):
        for kind in kinds:
            for prefix in prefixes(shapes, kind[-1]):
                names = [matrix_at(shapes, prefix + part) for part in kind]
                if prefix in found or None in names:
                    continue
                biases = [bias_at(shapes, prefix, part) for part in kind]
                roles = ("gate", "up", "down")[-len(kind) :]
                parts = dict(zip(roles, names, strict=True))
                parts |= {f"{r}_bias": bias for r, bias in zip(roles, biases, strict=True)}
                found[prefix] = LayerLocation(**parts)  # type: ignore[arg-type]
    return [found[prefix] for prefix in sorted(found, key=natural)]


def prefixes(shapes: Shapes, part: str) -> Iterator[str]:
    """Yield what stands before a part, wherever it is a matrix."""
    for name, shape in shapes.items():
        for end in WEIGHT:
            before, found, after = name.rpartition(f"{part}{end}")
            if found and not after and len(shape) == 2 and (not before or before[-1] in "._/"):
                yield before


def matrix_at(shapes: Shapes, name: str) -> str | None:
    names = (f"{name}{end}" for end in WEIGHT)
    return next((one for one in names if len(shapes.get(one, ())) == 2), None)


def bias_at(shapes: Shapes, prefix: str, part: str) -> str | None:
    names = [f"{prefix}{part}{end}" for end in BIAS]
    names += [f"{prefix}{BIASES[part]}"] if part in BIASES else []
    return next((one for one in names if len(shapes.get(one, ())) == 1), None)


def chain(path: Path, shapes: Shapes) -> list[LayerLocation]:
    """Return all tensors as a network; empty where they are none."""
    matrices = sorted((name for name, shape in shapes.items() if len(shape) == 2), key=natural)
    read = {*matrices, *(bias_beside(shapes, name) for name in matrices)} - {None}
    if len(matrices) < 2 or read != {*shapes}:
        return []
    if fits(shapes, matrices):
        return in_order(shapes, matrices)
    if len(matrices) > MOST_PERMUTED:
        return []
    found = [order for order in permutations(matrices) if fits(shapes, order)]
    if len(found) > 1:
        raise UsageError(
            f"{path}: {len(found)} orders of its matrices fit, for example "
            f"{' → '.join(found[0])} and {' → '.join(found[1])}: say which is what: roles= "
            f"(--map), with {GRAMMAR}."
        )
    return in_order(shapes, found[0]) if found else []


def in_order(shapes: Shapes, matrices: Sequence[str]) -> list[LayerLocation]:
    """Return matrices one behind the other, an activation between any two."""
    *ups, down = matrices
    layers = [LayerLocation(up, up_bias=bias_beside(shapes, up)) for up in ups]
    layers[-1] = replace(layers[-1], down=down, down_bias=bias_beside(shapes, down))
    return layers


def fits(shapes: Shapes, matrices: Sequence[str]) -> bool:
    layers = in_order(shapes, matrices)
    return any(misfit(layers, shapes, way) is None for way in (False, True))


def bias_beside(shapes: Shapes, name: str) -> str | None:
    """Return the bias of a matrix that is named like it."""
    stem = re.sub(r"(\.weight|\.kernel)$", "", name)
    swapped = re.sub(
        r"(?i)w(eight)?(?=[^a-z]*$)", lambda m: {"w": "b", "W": "b"}.get(m[0], "bias"), name
    )
    names = [*(f"{stem}{end}" for end in BIAS), swapped]
    names.append(re.sub(r"vars/0$", "vars/1", name))  # of Keras
    return next((one for one in names if len(shapes.get(one, ())) == 1), None)


def natural(name: str) -> list[tuple[bool, int | str]]:
    """Return a key that sorts layers.10 behind layers.9."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in parts if part]
