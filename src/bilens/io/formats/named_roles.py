"""MLPs in any file of tensors: which tensor is what is said, or guessed and shown."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from bilens.base.errors import CheckpointError, NoLayersError, Retry, UsageError
from bilens.base.files import shortened
from bilens.io.file_kinds import kind_of
from bilens.io.formats.families import (
    UNKNOWN,
    NamedActivation,
    activation_in,
    activation_named,
)
from bilens.io.formats.guessed_roles import (
    GRAMMAR,
    MATRIX,
    Shapes,
    guess_roles,
    is_network,
    is_vector,
    misfit,
    refuse_masks,
    refuse_two_branches,
)
from bilens.io.formats.keras import WEIGHTS_ALONE, read_hdf5
from bilens.io.formats.known_classes import config_beside, told_with_class
from bilens.io.formats.pickled import open_pickled
from bilens.io.formats.safetensors_folder import WeightsFile, header, open_folder
from bilens.io.load_report import LoadReport
from bilens.io.loaded_model import CONFIG_NAME, Activations, LoadedModel, ReadOptions
from bilens.io.stored_mlp import MLPLocation, Store, StoredMLP
from bilens.io.tensors import DTYPES, check_one_dtype
from bilens.nn.layer_view import Gives, Reads

ROLE = re.compile(r"(up|gate|down|gate_up|up_gate)(_bias)?(?:\.(\d{1,4}))?", re.ASCII)
BOTH = ("gate_up", "up_gate")  # of one tensor with two branches


def read_named_roles(path: Path, options: ReadOptions) -> LoadedModel:
    options.refuse_residual(path, "is read by the names of its tensors, which add no inputs")
    return read_roles(path, open_tensors(path), options)


def open_tensors(path: Path, allow_pickle: bool = False, must: bool = True) -> WeightsFile:
    """Return the tensors of a file or of a folder of shards; `must` as in `open_pickled`."""
    if path.is_dir():
        return WeightsFile(path, open_folder(path, lambda _: False))
    if path.suffix in WEIGHTS_ALONE:
        return WeightsFile(path, read_hdf5(path))
    if path.suffix == ".safetensors":
        return WeightsFile(path, header(path, lambda _: False))
    if allow_pickle and kind_of(path) == "torch":
        return open_pickled(path, allowed=True, must=must)
    raise CheckpointError(
        f"{path}: is no file of tensors under names, of which roles are said: leave them out."
    )


def read_roles(path: Path, file: WeightsFile, options: ReadOptions) -> LoadedModel:
    """Return the MLPs among tensors, or ask at once for all that is not said."""
    asks, shapes = dict(file.asks), {name: stored.shape for name, stored in file.store.items()}
    if options.activation is None:
        known = activation_in(config_beside(path))
        asks["activation"] = (
            f"does not say its activation: in the place of {UNKNOWN} name the one that it was "
            "trained with (relu, gelu, silu and so on), or identity for a product without one"
            if known == UNKNOWN
            else f"does not say its activation, and {CONFIG_NAME} beside it says {known}"
        )
    layers = located_layers(path, file.store, shapes, options, asks)
    biases = {name for one in layers for role, name in one.named() if role.endswith("_bias")}
    store = {n: one.as_vector() if n in biases else one for n, one in file.store.items()}
    shapes |= {name: store[name].shape for name in biases}
    transposed = orientation(path, layers, shapes, options.transposed)
    if transposed is None:
        first = layers[0].up
        asks["transposed"] = (
            f"may have {first!r} with shape {shapes[first]} as (out, in), as PyTorch has it, or as "
            "(in, out), and nothing in the shapes decides it"
        )
    if asks or options.activation is None:
        free = "transposed" in asks
        found = "; ".join(f"layer {index}: {roles}" for index, roles in enumerate(layers[:4]))
        more = f"; and {len(layers) - 4} more" if len(layers) > 4 else ""
        error = (NoLayersError if "allow_pickle" in asks else UsageError)(
            f"{path}: looks like an MLP ({found}{more}). It {'; '.join(asks.values())}.",
            [
                Retry(str(path), {**answered(path, options, asks), **way})
                for way in ([{"transposed": False}, {"transposed": True}] if free else [{}])
            ],
        )
        raise told_with_class(error, path, shapes, options, "allow_pickle" in asks)
    activations, views, said = said_activations(path, layers, options.activation), {}, {}
    network, way = is_network(layers), "(in, out)" if transposed else "(out, in)"
    for index, (layer, activation) in enumerate(zip(layers, activations, strict=True)):
        name = "layer" if len(layers) == 1 else f"layers.{index}"
        location = replace(layer, name=name, transposed=bool(transposed))
        stored = StoredMLP.at_location(store, location, activation.phi, activation.scale)
        stored.read_layer()  # NaN is refused here
        reads: Reads = "activations" if not network else "neurons" if index else "inputs"
        gives: Gives = "neurons" if network and index < len(layers) - 1 else "outputs"
        views[name] = stored.view(reads=reads, gives=gives)
        said[name] = f"{layer}; {activation}; matrices are {way}"
    used = {name for layer in layers for name in layer.tensors()}
    left_out = (
        *normalisations(shapes, {size for view in views.values() for size in view.sizes[1:]}),
        *(f"tensor {name}" for name in file.store if name not in used),
        *file.left_out,
    )
    return LoadedModel(
        None,
        str(path),
        file.sha256,
        provenance={"format": f"{file.kind} with named roles"},
        views=views,
        load_report=LoadReport(said, options.roles is None, {}, left_out),
        stored={**file.beside, **file.store},
    )


def located_layers(
    path: Path, store: Store, shapes: Shapes, options: ReadOptions, asks: Collection[str]
) -> list[MLPLocation]:
    """Return which tensors the layers are, as they are said or guessed; their shapes fit."""
    try:
        if options.roles is None:
            layers = guess_roles(path, shapes_of_weights(store))
            refuse_masks(path, layers, shapes)
            refuse_bias_of_product(path, store, layers)
        else:
            layers = parse_roles(path, with_numbers(path, options.roles, store), store)
        check_axes(path, layers, shapes)
        if options.transposed is None:
            refuse_two_branches(path, layers, shapes)
    except (CheckpointError, UsageError) as error:
        told = answered(path, options, asks)
        retries = [replace(retry, said={**told, **retry.said}) for retry in error.retries]
        asked = type(error)(error.sentence, retries)
        raise told_with_class(asked, path, shapes, options, "allow_pickle" in asks) from error
    used = [store[name] for layer in layers for name in layer.tensors()]
    check_one_dtype(path, [one.added_to or one.dtype for one in used])
    return layers


def shapes_of_weights(store: Store) -> Shapes:
    """Return the shapes of tensors that a layer may be made of.

    Whole numbers, codes and tensors without numbers are none, unless a name says otherwise.
    """
    shapes = {name: one.shape for name, one in store.items()}
    plain = {n for n, one in store.items() if one.dtype in DTYPES.values() and 0 not in one.shape}
    if not any(len(shapes[name]) == 2 for name in plain):
        return shapes
    named = {name: re.sub(r"\d+", "*", name) for name in shapes}
    like = {named[name] for name in plain}
    return {
        name: shape
        for name, shape in shapes.items()
        if name in plain or named[name] in like or named[name].endswith(MATRIX)
    }


def answered(path: Path, options: ReadOptions, asks: Collection[str]) -> dict[str, object]:
    """Return the options of the caller, with an example of an answer to all that is asked for."""
    answers = {
        "allow_pickle": True,
        "activation": activation_in(config_beside(path)),
        "transposed": False,
    }
    return {**options.given_options(), **{name: answers[name] for name in asks}}


def normalisations(shapes: Shapes, widths: Collection[int]) -> list[str]:
    """Say which batch normalisations may belong to layers that are read without them."""
    alike = {(width,) for width in widths}
    near = [
        name.removesuffix(".running_mean")
        for name, shape in shapes.items()
        if name.endswith(".running_mean") and shape in alike
        if shapes.get(name.removesuffix("mean") + "var") == shape
    ]
    return [
        f"the batch normalisation {shortened(near)}, as wide as a layer: all numbers hold for the "
        "layers without it, and the module (bl.from_module) or its ONNX file is read with it"
    ] * bool(near)


def refuse_bias_of_product(path: Path, store: Store, layers: list[MLPLocation]) -> None:
    """Refuse gated layers of TransformerLens whose b_in, added behind the product, is not zero."""
    for layer in layers:
        of_lens = layer.gate is not None and layer.gate.endswith("W_gate")
        if of_lens and layer.up_bias is not None and bool(store[layer.up_bias].read_tensor().any()):
            raise CheckpointError(
                f"{path}: {layer.up_bias} is not zero, and TransformerLens adds it behind the "
                "product: save b_out + b_in @ W_out as b_out, and b_in as zeros."
            )


# ---- what the caller says


def parse_roles(path: Path, roles: Mapping[str, str], names: Collection[str]) -> list[MLPLocation]:
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
        needed = [] if {"up", *BOTH} & {*part} else ["up"]
        roles_with = ("gate", "down", *BOTH)
        needed += [role for role in roles_with if f"{role}_bias" in part and role not in part]
        missing += [f"{role}.{index}" for role in needed]
    if missing:
        raise UsageError(
            f"{path}: the roles lack {', '.join(missing[:8])}: every layer needs `up`, a bias "
            "needs its matrix, and layers are counted from 0."
        )
    check_tensors(path, [*roles.values()], names)
    return [location_of(path, layers[index]) for index in range(len(layers))]


def location_of(path: Path, part: Mapping[str, str]) -> MLPLocation:
    """Return the layer that role → tensor describes."""
    both = next((role for role in BOTH if role in part), None)
    if both is None:
        return MLPLocation(**part)  # type: ignore[arg-type]
    down = {role: name for role, name in part.items() if role.startswith("down")}
    if not {*part} <= {both, f"{both}_bias", *down}:
        raise UsageError(f"{path}: {both} is up and gate in one tensor: give it without these.")
    name, bias = part[both], part.get(f"{both}_bias")
    branches = {"up": name, "gate": name, "up_bias": bias, "gate_bias": bias}
    return MLPLocation(**branches, **down, gate_last=both == "up_gate")  # type: ignore[arg-type]


def with_numbers(path: Path, roles: Mapping[str, str], names: Collection[str]) -> Mapping[str, str]:
    """Return roles in which a * stands for the numbers of layers, one role for each of them."""
    found: dict[str, str] = {}
    first: tuple[str, list[int]] | None = None
    for role, tensor in roles.items():
        pattern = re.escape(str(tensor)).replace(r"\*", r"(\d{1,9})", 1)
        matches = [re.fullmatch(pattern, name, re.ASCII) for name in names]
        numbers = sorted({int(one[1]) for one in matches if one and one.lastindex})
        found |= {f"{role}.{k}": tensor.replace("*", str(n), 1) for k, n in enumerate(numbers)}
        if not numbers:
            found[role] = tensor
            continue
        first = other, expected = first or (role, numbers)
        if numbers != expected:  # a role that a layer lacks would slide to another layer
            odd = shortened([*map(str, sorted({*numbers} ^ {*expected}))])
            raise UsageError(
                f"{path}: the * of {other} and that of {role} stand for different numbers, {odd} "
                "in one of them only: name the tensors one by one, as up.0, up.1 and so on."
            )
    return found


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
    path: Path, layers: list[MLPLocation], said: Activations
) -> list[NamedActivation]:
    """Return the activation of each layer."""
    parts = said.split(",") if isinstance(said, str) else said
    named = [activation_named(part) for part in (parts if isinstance(parts, list) else [parts])]
    if len(named) not in (1, len(layers)):
        raise UsageError(
            f"{path}: {len(named)} activations are named for {len(layers)} layer(s); expected one, "
            "or one for each."
        )
    return named if len(named) == len(layers) else named * len(layers)


# ---- what the shapes say


def check_axes(path: Path, layers: list[MLPLocation], shapes: Shapes) -> None:
    for layer in layers:
        for role, name in layer.named():
            axes = 1 if role.endswith("_bias") else 2
            fits = is_vector(shapes[name]) if axes == 1 else len(shapes[name]) == axes
            if not fits or 0 in shapes[name]:
                raise CheckpointError(
                    f"{path}: tensor {name!r} has shape {shapes[name]}; expected {axes} axes with "
                    f"entries for the role {role}."
                )


def orientation(
    path: Path, layers: list[MLPLocation], shapes: Shapes, said: bool | None
) -> bool | None:
    """Return whether the matrices are (in, out), as of Conv1D or JAX; None where it is open."""
    said = True if said is None and layers[0].transposed else said
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
    return fits[0] if len(fits) == 1 else None
