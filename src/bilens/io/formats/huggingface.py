"""Folders of Hugging Face, read layer by layer: no module is built and no code in them is run."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bilens.algebra.approximation.activation import CLAMPED, GATE_LIMIT, GATE_SLOPE
from bilens.algebra.approximation.layer_weights import in_float64
from bilens.base.checks import as_integer
from bilens.base.errors import CheckpointError, MemoryLimitError, NoLayersError, Retry
from bilens.base.files import file_sha256, read_json
from bilens.io.formats.ends import ends_of
from bilens.io.formats.families import (
    AFTER,
    FAMILIES,
    ITSELF,
    SEPARATE,
    SPELLINGS,
    T5,
    T5_ORDINARY,
    WITH_IMAGES,
    ExpertLayout,
    Family,
    Home,
    NamedActivation,
    activation_named,
    refuse_config,
    unknown_model,
)
from bilens.io.formats.known_classes import told_with_class
from bilens.io.formats.llama import (
    LayersAloneError,
    comparison_of_llama,
    read_llama,
    views_of_llama,
)
from bilens.io.formats.pickled import NOT_OPENED, open_pickles, pickles_in
from bilens.io.formats.quantised import (
    Packed,
    check_numbers,
    dequantised,
    packed_weights,
    quantisation_of,
)
from bilens.io.formats.safetensors_folder import folder_sha256, further_modules, open_folder, shards
from bilens.io.formats.source import Module, all_of, compare_with_source
from bilens.io.loaded_model import (
    CONFIG_NAME,
    NOTHING_SAID,
    Format,
    LoadedModel,
    ReadOptions,
    foreign_keys,
)
from bilens.io.stored_mlp import MLPLocation, Store, StoredMLP, headers_of
from bilens.io.tensors import MixedDtypesError, check_names
from bilens.nn.agreement import Agreement

MAX_EXPERTS = 10_000
Located = tuple[MLPLocation, list[Module]]  # an MLP, and where it runs


def read_huggingface(folder: Path, options: ReadOptions) -> LoadedModel:
    """Return a Llama as a whole where a transformer of ours can be one, and MLPs otherwise."""
    options.refuse_residual(folder, "is a language model, which always has residual paths")
    content = read_json(folder / CONFIG_NAME)
    refuse_config(folder / CONFIG_NAME, content)
    if files := pickles_in(folder):
        if not options.allow_pickle:
            raise NoLayersError(
                f"{folder}: holds its weights in {files[0].name}. It {NOT_OPENED['allow_pickle']}.",
                [Retry(str(folder), {"allow_pickle": True})],
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
        ends=ends_of(content),
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
    path, in_place = folder / CONFIG_NAME, options.in_place(folder) and pickled is None
    content = read_json(path)
    packed = quantisation_of(content)
    content, family = text_model(path, content)
    activation, family = activation_of(path, content, family)
    about = {"format": f"Hugging Face {content['model_type']}"}
    found, files, made = tensors_of(folder, content, family, packed, pickled, options, about)
    headers = headers_of(files) if in_place else {}
    whole = changed(made)
    store = {name: tensor for name, tensor in whole.items() if in_an_mlp(family, name)}
    width = content.get("d_model" if family.is_t5 else family.sizes[1])
    layers: dict[str, StoredMLP] = {}
    for location, _ in found:
        layer = StoredMLP.at_location(store, location, activation.phi, activation.scale)
        if {layer.sizes.d_in, layer.sizes.d_out} != {width}:
            first = layer.sizes.d_in != width or "down" not in layer.parts
            wrong = layer.first if first else layer.parts["down"]
            raise wrong.wrong_shape(f"the width {width!r} that {CONFIG_NAME} says")
        layers[layer.name] = layer
    branches = "ordinary" if found[0][0].gate is None else "gated"
    about["read"] = f"the {branches} MLPs alone" + (f": {why}" if why else "")
    about["mlp_input"] = input_of(family, content)
    if activation.scale != 1:
        about["activation"] = str(activation)

    def measure() -> Agreement | None:
        ends = {location.name: (location, modules) for location, modules in (found[0], found[-1])}
        return all_of(
            compare_with_source(store, one, content, modules, in_float64(layers[name].read_layer()))
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
        ends=ends_of(content),
    )


def input_of(family: Family, content: Mapping[str, Any]) -> str:
    """Describe in words the vectors that the MLPs of a model receive."""
    behind = family.norm_first is not None and content.get(family.norm_first) is False
    return ITSELF + AFTER if behind else family.about_input


def said_input(content: Mapping[str, Any], tensors: Iterable[str]) -> str:
    """Describe the input of an MLP of a known family in words; empty for any other layer."""
    family = FAMILIES.get(str(content.get("model_type")))
    known = family is not None and all(in_an_mlp(family, name) for name in tensors)
    return input_of(family, content) if family is not None and known else ""


def text_model(path: Path, content: dict[str, Any]) -> tuple[dict[str, Any], Family]:
    """Return the configuration of the language model, which may be a part, and its family."""
    kind = content.get("model_type")
    if isinstance(kind, str) and kind in WITH_IMAGES:
        inner = content.get("text_config")
        if not isinstance(inner, dict):
            raise CheckpointError(f"{path}: lacks text_config, an object: restore the file.")
        kind = WITH_IMAGES[kind]
        content = {**inner, "model_type": kind}
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        error = unknown_model(path.parent, {**content, "model_type": kind})
        raise told_with_class(error, path.parent, {}, NOTHING_SAID, False)
    return content, family


def tensors_of(
    folder: Path,
    content: Mapping[str, Any],
    family: Family,
    packed: Mapping[str, Any] | None,
    pickled: Store | None,
    options: ReadOptions,
    about: dict[str, str],
) -> tuple[list[Located], Store, Store]:
    """Return the wanted MLPs, the tensors in files that were opened, and those with their numbers.

    How these are stored, if that needs saying, is added to what is said of the model.
    """
    path, wanted = folder / CONFIG_NAME, options.wanted

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
    made: Store = {name: whole[name] for name in plain}
    if packed is not None:
        made = {**made, **dequantised(path, packed, whole, weights)}
        check_numbers([made[name] for name in names & {*made}], packed.get("quant_method"))
    if weights:
        about["stored_as"] = ", ".join(sorted({scheme.about for scheme, _ in weights.values()}))
    return found, whole, made


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
        raise NoLayersError(
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
) -> tuple[list[Located], list[str]]:
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
    located: list[Located] = []
    beside: list[str] = []
    mixture, mixed = family.experts, {name.partition("experts.")[0] for name in names}
    for index in range(count(path, content, (family.sizes[0],), len(names))):
        prefix, name = f"{root}{home.stack}.{index}.", home.name(index)
        asked = () if mixture is None else (f"{prefix}{mixture.module}.", f"{prefix}mlp.")
        experts = next((one for one in asked if one in mixed), None)
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


def locations_of_experts(
    name: str, home: str, experts: ExpertLayout, number: int, names: Collection[str]
) -> Iterator[MLPLocation]:
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
) -> Iterator[Located]:
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
