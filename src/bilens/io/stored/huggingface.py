"""Folders of Hugging Face, read layer by layer: no module is built and no code in them is run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import in_float64
from bilens.base.errors import CheckpointError
from bilens.io.config import read_json
from bilens.io.loaded_model import LoadedModel
from bilens.io.stored.comparison import Run, compare_with_source
from bilens.io.stored.families import ACTIVATIONS, FAMILIES, SEPARATE, WITH_IMAGES, Family
from bilens.io.stored.gated_tensors import GatedTensors, halves, wrong_shape
from bilens.io.stored.places import Place, belongs_to_an_mlp, dropped, places_of
from bilens.io.stored.refusals import unknown_model
from bilens.io.stored.safetensors_folder import folder_sha256, names_in, open_folder
from bilens.io.stored.tensor import Store
from bilens.io.tensors import check_names
from bilens.nn import BilinearTransformer
from bilens.nn.agreement import Agreement, together

CONFIG_NAME = "config.json"


def read_layers(folder: Path, why: str = "") -> LoadedModel:
    """Return the gated MLPs of a language model in a folder.

    Args:
        folder: with `config.json` and safetensors, one file or shards.
        why: the layers alone are read and not the whole model, if that needs saying.

    Raises:
        CheckpointError: If the model is of a kind that is not read, or a file is missing, damaged
            or does not fit the others.
    """
    path = folder / CONFIG_NAME
    content = read_json(path)
    kind = content.get("model_type")
    if isinstance(kind, str) and kind in WITH_IMAGES:
        content = text_config(path, content, WITH_IMAGES[kind])
        kind = content["model_type"]
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise unknown_model(path, kind, names_in(folder))
    activation = activation_of(path, content, family)
    store = open_folder(folder, belongs_to_an_mlp)
    places, beside = places_of(path, content, family, store)
    expected = [name for place in places for name in place.tensors()]
    check_names(folder, {*store} - dropped(content, store), [*expected, *beside])
    width = content.get("d_model" if family.is_t5 else "hidden_size")
    layers = {}
    for place in places:
        tensors = tensors_of(store, place, activation)
        sizes = tensors.sizes
        if sizes.d_in != width or sizes.d_out != width:
            wrong = tensors.gate if sizes.d_in != width else tensors.down
            raise wrong_shape(wrong, f"the width {width!r} that {CONFIG_NAME} says")
        layers[place.name] = tensors
    about = {
        "format": f"Hugging Face {kind}",
        "read": "the gated MLPs alone" + (f": {why}" if why else ""),
        "mlp_input": family.about_input,
    }

    def measure() -> Agreement:
        return together(
            compare_with_source(
                content,
                store,
                place,
                activation.name,
                partial(in_float64_of, layers[place.name]),
            )
            for place in dict.fromkeys((places[0], places[-1]))
        )

    return LoadedModel(
        None,
        str(folder),
        folder_sha256(folder),
        provenance=about,
        views={name: tensors.view(family.about_input) for name, tensors in layers.items()},
        compare=measure,
    )


def in_float64_of(tensors: GatedTensors) -> Run:
    """Return an MLP, as it is read, as a function."""
    return in_float64(tensors.read())


def text_config(path: Path, content: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the configuration of the language model inside one that reads images as well.

    Raises:
        CheckpointError: If it is missing.
    """
    inner = content.get("text_config")
    if not isinstance(inner, dict):
        raise CheckpointError(f"{path}: lacks text_config, an object: restore the file.")
    return {**inner, "model_type": kind}


def activation_of(path: Path, content: Mapping[str, Any], family: Family) -> Activation:
    """Return the activation of the gate.

    Raises:
        CheckpointError: If it is not known, or a T5 has no gate.
    """
    said = content.get(family.activation_key)
    said = family.activation if said is None else said
    if family.is_t5:
        if not isinstance(said, str) or not said.startswith("gated-"):
            raise CheckpointError(
                f"{path}: the model has feed_forward_proj {said!r}, so its MLPs have one branch; "
                "expected a gated one, as in T5 1.1 ('gated-gelu')."
            )
        said = said.removeprefix("gated-")
        said = "gelu_new" if said == "gelu" else said
    said = family.legacy.get(said, said) if isinstance(said, str) else said
    if not isinstance(said, str) or said not in ACTIVATIONS:
        raise CheckpointError(
            f"{path}: has the activation {said!r} ({family.activation_key}); expected one of "
            f"{', '.join(ACTIVATIONS)}."
        )
    return Activation(ACTIVATIONS[said])


def tensors_of(store: Store, place: Place, activation: Activation) -> GatedTensors:
    """Return the tensors of one MLP in their roles.

    Raises:
        CheckpointError: If their shapes do not fit together.
    """
    if place.expert is None:
        return GatedTensors.of(store, place.prefix, place.layout, activation, place.bias)
    both, down = (store[f"{place.prefix}{name}"] for name in ("gate_up_proj", "down_proj"))
    for stack in (both, down):
        if len(stack.shape) != 3 or stack.shape[0] <= place.expert:
            raise wrong_shape(stack, f"a stack of more than {place.expert} matrices")
    gate, value = halves(both.one(place.expert))
    return GatedTensors(gate, value, down.one(place.expert), activation).checked()


def comparison_of_llama(folder: Path, module: BilinearTransformer) -> Callable[[], Agreement]:
    """Return what compares MLPs of a Llama that was read as a whole with their source."""
    content = read_json(folder / CONFIG_NAME)
    config = module.config

    def compared(index: int) -> Agreement:
        prefix = f"model.layers.{index}."
        place = Place(f"layers.{index}.mlp", f"{prefix}mlp.", SEPARATE, config.bias)
        norm = f"{prefix}post_attention_layernorm.weight"
        store = open_folder(folder, {norm, *place.tensors()}.__contains__)
        gain, activation = store[norm].read().double(), config.gate or "identity"

        def read() -> Run:
            return copy.deepcopy(module.mlps[index]).double()

        return compare_with_source(content, store, place, activation, read, gain)

    return lambda: together(map(compared, sorted({0, config.n_layer - 1})))
