"""Folders of Hugging Face, read layer by layer: no module is built and no code in them is run."""

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bilens.algebra.approximation.activation import CLAMPED, GATE_LIMIT, GATE_SLOPE
from bilens.algebra.approximation.layer_weights import in_float64
from bilens.base.checks import as_integer
from bilens.base.errors import CheckpointError, MemoryLimitError, Retry
from bilens.base.files import file_sha256, read_json
from bilens.io.formats.activations import SPELLINGS, NamedActivation, activation_named
from bilens.io.formats.families import (
    AFTER,
    FAMILIES,
    ITSELF,
    SEPARATE,
    T5,
    T5_ORDINARY,
    WITH_IMAGES,
    Experts,
    Family,
    Home,
    refuse_config,
    unknown_model,
)
from bilens.io.formats.llama import LayersAloneError, read_llama
from bilens.io.formats.named_roles import NOT_OPENED
from bilens.io.formats.pickled import open_pickles, pickles_in
from bilens.io.formats.quantised import (
    Packed,
    check_numbers,
    dequantised,
    packed_weights,
    quantisation_of,
)
from bilens.io.formats.safetensors_folder import (
    folder_sha256,
    further_modules,
    open_folder,
    shards,
)
from bilens.io.formats.source import Module, compare_with_source
from bilens.io.loaded_model import CONFIG_NAME, Format, LoadedModel, ReadOptions, foreign_keys
from bilens.io.stored_mlp import LayerLocation, Store, StoredMLP, headers_of
from bilens.io.tensors import MixedDtypesError, check_names
from bilens.nn import BilinearTransformer
from bilens.nn.agreement import Agreement, together
from bilens.nn.layer_view import LayerView
from bilens.nn.module_layers import layer_views

MAX_EXPERTS = 10_000
NOTHING_SAID = ReadOptions()


def read_huggingface(folder: Path, options: ReadOptions) -> LoadedModel:
    """Return a Llama as a whole where a transformer of ours can be one, and MLPs otherwise."""
    options.refuse_residual(folder, "is a language model, which always has residual paths")
    content = read_json(folder / CONFIG_NAME)
    refuse_config(folder / CONFIG_NAME, content)
    if files := pickles_in(folder):
        if not options.allow_pickle:
            raise CheckpointError(
                f"{folder}: holds its weights in {files[0].name}. It {NOT_OPENED['allow_pickle']}.",
                Retry(str(folder), {"allow_pickle": True}),
            )
        why, store = "its weights are a pickle", open_pickles(files)
        return read_layers(folder, why, pickled=store, sha256=file_sha256(*files))
    if content.get("model_type") != "llama":
        return read_layers(folder, options=options)
    if quantisation_of(content) is not None:
        return read_layers(folder, "its weights are quantised", options=options)
    if options.in_place(folder):
        return read_layers(folder, "its files are read in place", options=options)
    try:
        module, sha256 = read_llama(folder)
    except LayersAloneError as error:
        return read_layers(folder, str(error))
    except MixedDtypesError:
        return read_layers(folder, "its tensors are of several dtypes")
    except MemoryLimitError as error:
        return read_layers(folder, f"it does not fit into memory as a whole ({error})")
    about, measure = {"format": "Hugging Face Llama"}, comparison_of_llama(folder, module)
    return LoadedModel(
        module,
        str(folder),
        sha256,
        provenance=about,
        views=views_of_llama(module),
        compare=measure,
        stored=open_folder(folder, lambda _: False),
        alone=partial(read_layers, folder),
    )


HUGGINGFACE = Format(  # whatever the model
    "Hugging Face",
    lambda path: bool(foreign_keys(path) & {"model_type", "architectures"}),
    read_huggingface,
)


def read_layers(
    folder: Path,
    why: str = "",
    changed: Callable[[Store], Store] = lambda store: store,
    pickled: Store | None = None,
    sha256: str = "",
    options: ReadOptions = NOTHING_SAID,
) -> LoadedModel:
    """Return the MLPs of a model in a folder; `why` they alone are read, if that needs saying.

    `changed` returns its tensors as an adapter changes them; `pickled` are those of a pickle.
    """
    wanted, in_place = options.wanted, options.in_place(folder) and pickled is None
    path = folder / CONFIG_NAME
    content = read_json(path)
    kind, packed = content.get("model_type"), quantisation_of(content)
    if isinstance(kind, str) and kind in WITH_IMAGES:
        inner = content.get("text_config")
        if not isinstance(inner, dict):
            raise CheckpointError(f"{path}: lacks text_config, an object: restore the file.")
        kind = WITH_IMAGES[kind]
        content = {**inner, "model_type": kind}
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise unknown_model(folder, kind)
    activation, family = activation_of(path, content, family)

    def checked(name: str) -> bool:
        return packed is None and in_an_mlp(family, name) is not None

    # shards are opened where they hold what is wanted
    placed = None if wanted is None or pickled else shards(folder)
    whole: Store = pickled or ({} if placed else open_folder(folder, checked))
    weights, plain = dict[str, Packed](), [*(placed or whole)]
    if packed is not None:
        weights, plain = packed_weights(path, packed, plain)
    names = {name for name in (*plain, *weights) if in_an_mlp(family, name) is not None}
    found, beside = locations_of(path, content, family, names)
    expected = [name for location, _ in found for name in location.tensors()]
    check_names(folder, names - dropped(content, family, names), [*expected, *beside])
    if wanted is not None:
        found = [one for one in found if wanted(one[0].name)]
        if not found:
            raise options.nothing_wanted(folder)
        needed = {name for location, _ in found for name in location.tensors()}
        weights = {name: one for name, one in weights.items() if name in needed}
        plain = [name for name in plain if name in needed]
        if placed:
            parts = (part for _, found_parts in weights.values() for part in found_parts.values())
            files = {placed[name] for name in (*plain, *parts)}
            whole = open_folder(folder, checked, {n: f for n, f in placed.items() if f in files})
    headers = headers_of(whole) if in_place else {}
    made = {} if packed is None else dequantised(path, packed, whole, weights)
    stored_as = ", ".join(sorted({scheme.about for scheme, _ in weights.values()}))
    whole = changed({**{name: whole[name] for name in plain}, **made})
    store = {name: tensor for name, tensor in whole.items() if name in names}
    if packed is not None:
        check_numbers(store, packed.get("quant_method"))
    width = content.get("d_model" if family.is_t5 else family.sizes[1])
    layers: dict[str, StoredMLP] = {}
    for location, _ in found:
        layer = StoredMLP.of(store, location, activation.phi, activation.scale)
        if layer.sizes.d_in != width or layer.sizes.d_out != width:
            wrong = layer.parts.get("down", layer.first)
            if layer.sizes.d_in != width:
                wrong = layer.first
            raise wrong.wrong_shape(f"the width {width!r} that {CONFIG_NAME} says")
        layers[layer.name] = layer
    behind = family.norm_first is not None and content.get(family.norm_first) is False
    about_input = ITSELF + AFTER if behind else family.about_input
    branches = "ordinary" if found[0][0].gate is None else "gated"
    about = {
        "format": f"Hugging Face {kind}",
        "read": f"the {branches} MLPs alone" + (f": {why}" if why else ""),
        "mlp_input": about_input,
    }
    if stored_as:
        about["stored_as"] = stored_as
    if activation.scale != 1:
        about["activation"] = str(activation)

    def measure() -> Agreement:
        ends = {location.name: (location, modules) for location, modules in (found[0], found[-1])}
        phi = activation.function
        return together(
            compare_with_source(store, one, phi, content, modules, in_float64(layers[name].read()))
            for name, (one, modules) in ends.items()
        )

    return LoadedModel(
        None,
        str(folder),
        sha256 or ("" if in_place else folder_sha256(folder)),
        provenance=about,
        views={name: layer.view(about["mlp_input"]) for name, layer in layers.items()},
        compare=measure,
        stored={**whole, **further_modules(folder)},
        headers=headers,
    )


def activation_of(
    path: Path, content: Mapping[str, Any], family: Family
) -> tuple[NamedActivation, Family]:
    """Return the activation, and the family with the branches that a T5 has."""
    said = content.get(family.activation_key)
    said = family.activation if said is None else said
    if family.is_t5 and isinstance(said, str):
        is_gated = said.startswith("gated-")
        family = replace(family, homes=(Home(T5 if is_gated else T5_ORDINARY),))
        said = said.removeprefix("gated-")
        said = "gelu_new" if said == "gelu" and is_gated else said
    said = family.legacy.get(said, said) if isinstance(said, str) else said
    if not isinstance(said, str) or said not in SPELLINGS:
        raise CheckpointError(
            f"{path}: has the activation {said!r} ({family.activation_key}); expected one of "
            f"{', '.join(SPELLINGS)}."
        )
    for key, known in (("swiglu_limit", GATE_LIMIT), ("swiglu_alpha", GATE_SLOPE)):
        if said == CLAMPED and content.get(key, known) != known:
            raise CheckpointError(
                f"{path}: has {key} {content[key]!r}; the gate is read of {known}."
            )
    return activation_named(said), family


def in_an_mlp(family: Family, name: str) -> re.Match[str] | None:
    """Return the root, layer and rest of the name of a tensor in an MLP; None for any other."""
    return next(filter(None, (pattern.match(name) for pattern in family.patterns)), None)


def locations_of(
    path: Path, content: Mapping[str, Any], family: Family, names: Collection[str]
) -> tuple[list[tuple[LayerLocation, list[Module]]], list[str]]:
    """Return the MLPs of a configuration with their modules, and the tensors beside them."""
    if family.is_t5:
        return list(locations_in_t5(path, content, family, names)), []
    found = (in_an_mlp(family, name) for name in sorted(names))
    root = next((match[1] for match in found if match), "")
    bias = family.bias
    if family.bias_key is not None:
        bias = bool(content.get(family.bias_key, bias))
    homes = (h for h in family.homes if any(n.startswith(f"{root}{h.stack}.") for n in names))
    home = next(homes, family.homes[0])  # the first one where the files have names of none
    located: list[tuple[LayerLocation, list[Module]]] = []
    beside: list[str] = []
    mixture, mixed = family.experts, {name.partition("experts.")[0] for name in names}
    for index in range(count(path, content, (family.sizes[0],), len(names))):
        prefix, name = f"{root}{home.stack}.{index}.", home.name(index)
        experts = home_of_experts(prefix, mixture, mixed) if mixture is not None else None
        if experts is None or mixture is None:
            modules = [(one.name(index), one.layout, one.modules) for one in family.homes]
            located.append((home.location(root, index, bias), modules))
            continue
        number = count(path, content, mixture.counts, MAX_EXPERTS)
        located += [
            (location, [(location.name, home.layout, ("",))])
            for location in locations_of_experts(name, experts, mixture, number, names)
        ]
        beside += [f"{experts}{other}" for other in mixture.others]
    return located, beside


def home_of_experts(prefix: str, experts: Experts, homes: Collection[str]) -> str | None:
    """Return the prefix of what holds the experts of a layer; None where the layer has none."""
    asked = (f"{prefix}{module}." for module in (experts.module, "mlp"))
    return next((home for home in asked if home in homes), None)


def locations_of_experts(
    name: str, home: str, experts: Experts, number: int, names: Collection[str]
) -> Iterator[LayerLocation]:
    """Yield each expert, in a stack of all or with tensors of its own, and the shared one."""
    stacked = f"{home}experts.gate_up_proj" in names
    for expert in range(number):
        title = f"{name}.experts.{expert}"
        if stacked:
            stack = experts.stacked
            yield stack.at(title, f"{home}experts.", experts.bias, weight="", index=expert)
        else:
            yield experts.each.at(title, f"{home}experts.{expert}.")
    if experts.shared is not None:
        yield SEPARATE.at(f"{name}.{experts.shared}", f"{home}{experts.shared}.")


def locations_in_t5(
    path: Path, content: Mapping[str, Any], family: Family, names: Collection[str]
) -> Iterator[tuple[LayerLocation, list[Module]]]:
    """Yield the MLPs of the encoder and, where there is one, of the decoder."""
    layout = family.homes[0].layout
    before = count(path, content, ("num_layers",), len(names))
    behind = count(path, content, ("num_decoder_layers", "num_layers"), len(names))
    for side, inner, blocks in (("encoder", 1, before), ("decoder", 2, behind)):
        if side == "decoder" and not any(name.startswith("decoder.") for name in names):
            return  # the encoder alone was saved
        for index in range(blocks):
            name = f"{side}.block.{index}.layer.{inner}.DenseReluDense"
            yield layout.at(name, f"{name}."), [(name, layout, ("",))]


def dropped(content: Mapping[str, Any], family: Family, names: Collection[str]) -> set[str]:
    """Return the names of layers that predict further tokens, which transformers does not run."""
    more = as_integer(content.get("num_nextn_predict_layers")) or 0
    if family.is_t5 or more == 0:
        return set()
    last = as_integer(content.get("num_hidden_layers")) or 0
    found = {name: in_an_mlp(family, name) for name in names}
    return {name for name, match in found.items() if match and last <= int(match[2]) < last + more}


def count(path: Path, content: Mapping[str, Any], keys: tuple[str, ...], most: int) -> int:
    """Return a number of a configuration, from 1 to what there can be."""
    present = [key for key in keys if content.get(key) is not None]
    number = as_integer(content[present[0]]) if present else None
    if number is None or number < 1:
        found = f"has {present[0]} {content[present[0]]!r}" if present else f"lacks {keys[0]}"
        raise CheckpointError(f"{path}: {found}; expected a positive integer: restore the file.")
    if number > most:
        raise CheckpointError(
            f"{path}: has {present[0]} {number}, and the files hold {most} tensors of MLPs at "
            "most: use the files that were saved together."
        )
    return number


def views_of_llama(module: BilinearTransformer) -> dict[str, LayerView]:
    """Return its layers with the names that their tensors have in the file."""
    views = {}
    for index, (name, view) in enumerate(layer_views(module).items()):
        maps = {"left": "gate_proj", "right": "up_proj", "down": "down_proj"}
        read = {norm_before(index): module.config.d_model}
        for ours, count in view.tensors.items():
            branch, kind = ours.split(".")[-2:]
            read[f"model.layers.{index}.mlp.{maps[branch]}.{kind}"] = count
        views[name] = replace(view, tensors=read)
    return views


def norm_before(index: int) -> str:
    return f"model.layers.{index}.post_attention_layernorm.weight"


def comparison_of_llama(folder: Path, module: BilinearTransformer) -> Callable[[], Agreement]:
    """Return what compares MLPs of a Llama that was read as a whole with their source."""
    content = read_json(folder / CONFIG_NAME)
    config, home = module.config, Home()
    function = activation_named(config.gate or "identity").function

    def compared(index: int) -> Agreement:
        location = home.location("model.", index, config.bias)
        norm = norm_before(index)
        store = open_folder(folder, {norm, *location.tensors()}.__contains__)
        modules = [(home.name(index), home.layout, home.modules)]
        read, gain = copy.deepcopy(module.mlps[index]).double(), store[norm].read().double()
        return compare_with_source(store, location, function, content, modules, read, gain)

    return lambda: together(map(compared, sorted({0, config.n_layer - 1})))
