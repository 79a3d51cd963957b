"""Llama folders of Hugging Face that a transformer of ours holds as a whole; nothing is run."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from bilens.base.checks import check_count
from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import read_json
from bilens.base.memory import check_memory
from bilens.io.formats.families import Home
from bilens.io.formats.safetensors_folder import folder_sha256, open_folder
from bilens.io.formats.source import all_of, compare_with_source
from bilens.io.loaded_model import CONFIG_NAME
from bilens.io.tensors import check_layer_count, check_names, check_shapes
from bilens.nn import BilinearTransformer
from bilens.nn.agreement import Agreement
from bilens.nn.block import TransformerConfig
from bilens.nn.huggingface import BRANCHES, SIZES, UNEMBED, from_llama_tensors, llama_shapes
from bilens.nn.layer_view import LayerView
from bilens.nn.mlp import Gate
from bilens.nn.module_layers import layer_views

GATES: dict[object, Gate | None] = {
    "linear": None,
    **{gate: gate for gate in get_args(Gate)},
    "swish": "silu",
}
OLD_BUFFER = ".rotary_emb.inv_freq"  # in older files; it follows from the configuration


class LayersAloneError(CheckpointError):
    """A Llama that no transformer of ours holds as a whole; its MLPs can still be read."""


def read_llama(folder: Path) -> tuple[BilinearTransformer, str]:
    """Return the model in a folder, and the SHA-256 of its weights."""
    config, n_kv_head = parse_llama_config(folder / CONFIG_NAME, read_json(folder / CONFIG_NAME))
    tensors = read_weights(folder)
    check_llama_tensors(folder, tensors, config, n_kv_head)
    gains = [tensors[name] for name in tensors if name.endswith("norm.weight")]
    if any(not bool((gain == 1).all()) for gain in gains):
        wide = torch.promote_types(gains[0].dtype, torch.float32)
        tensors = {name: tensor.to(wide) for name, tensor in tensors.items()}
    state = from_llama_tensors(tensors, config, n_kv_head)
    return build_transformer(config, state), folder_sha256(folder)


def build_transformer(
    config: TransformerConfig, state: Mapping[str, Tensor]
) -> BilinearTransformer:
    """Return the model in evaluation mode; it is tied where there is no `unembed.weight`."""
    arguments = {**asdict(config), "tied": "unembed.weight" not in state}
    with torch.device("meta"):
        model = BilinearTransformer(**arguments)
    model = model.to(state["embed.weight"].dtype).to_empty(device="cpu")
    model.load_state_dict(dict(state), strict=True)
    return model.eval()


def parse_llama_config(path: Path, content: Mapping[str, Any]) -> tuple[TransformerConfig, int]:
    """Read the `config.json` of a plain Llama; return it with the number of key-value heads."""
    activation = content.get("hidden_act", "silu")
    if not isinstance(activation, str) or activation not in GATES:
        raise LayersAloneError(f"it has the activation {activation!r}")
    if content.get("attention_bias"):
        raise LayersAloneError("it has biases in its attention (attention_bias)")
    missing = [name for name in SIZES.values() if name not in content]
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}: restore the file.")
    n_head = content["num_attention_heads"]
    try:
        ours = TransformerConfig(
            **{ours: content[theirs] for ours, theirs in SIZES.items()},
            n_ctx=content.get("max_position_embeddings", 2048),
            gate=GATES[activation],
            tied=bool(content.get("tie_word_embeddings", False)),
            bias=bool(content.get("mlp_bias", False)),
            rotary_base=rotary_base(content),
            norm_epsilon=content.get("rms_norm_eps", 1e-6),
            mlp_type="gated",
        )
        shared = content.get("num_key_value_heads")
        n_kv_head = check_count("num_key_value_heads", n_head if shared is None else shared, 1)
    except UsageError as error:
        raise CheckpointError(f"{path}: does not describe a Llama of ours: {error}") from error
    if n_head % n_kv_head != 0:
        raise CheckpointError(
            f"{path}: has num_key_value_heads {n_kv_head} at {n_head} heads; expected a divisor of "
            "the heads: restore the file."
        )
    if content.get("head_dim") not in (None, ours.d_head):
        raise LayersAloneError(
            f"it has head_dim {content['head_dim']}, and hidden_size / heads is {ours.d_head}"
        )
    return ours, n_kv_head


def rotary_base(content: Mapping[str, Any]) -> float:
    """Return the base of the rotary angles; `rope_parameters` wins over `rope_theta`."""
    rope = content.get("rope_parameters") or content.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
    partial = rope.get("partial_rotary_factor", 1.0) if isinstance(rope, dict) else 1.0
    if kind != "default" or partial != 1.0:
        raise LayersAloneError(
            f"it has rotary positions of the type {kind!r} with the factor {partial!r}, not of the "
            "type 'default' over whole heads"
        )
    base: float = rope.get("rope_theta", content.get("rope_theta", 10000.0))
    return base


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder, if they fit into memory twice: as read and as converted."""
    store = open_folder(folder, lambda _: True)
    size = sum(prod(one.shape) * one.dtype.itemsize for one in store.values())
    check_memory(2 * size, f"{folder}: reading and converting it", "load a smaller model")
    return {name: one.read_tensor() for name, one in store.items()}


def check_llama_tensors(
    folder: Path, tensors: dict[str, Tensor], ours: TransformerConfig, n_kv_head: int
) -> None:
    """Refuse tensors that are not exactly those of the configuration."""
    check_layer_count(folder, ours.n_layer, tensors)
    for name in [name for name in tensors if name.endswith(OLD_BUFFER)]:
        del tensors[name]
    if ours.tied:
        tensors.pop(UNEMBED, None)
    shapes = llama_shapes(ours, n_kv_head)
    check_names(folder, tensors, shapes)
    check_shapes(folder, tensors, shapes)


def views_of_llama(module: BilinearTransformer) -> dict[str, LayerView]:
    """Return its layers with the names that their tensors have in the file."""
    views = {}
    for index, (name, view) in enumerate(layer_views(module).items()):
        read = {norm_before(index): module.config.d_model}
        for ours, count in view.tensors.items():
            branch, kind = ours.split(".")[-2:]
            read[f"model.layers.{index}.mlp.{BRANCHES[branch]}.{kind}"] = count
        views[name] = replace(view, tensors=read)
    return views


def norm_before(index: int) -> str:
    return f"model.layers.{index}.post_attention_layernorm.weight"


def comparison_of_llama(
    folder: Path, module: BilinearTransformer
) -> Callable[[], Agreement | None]:
    """Return a function that compares MLPs of a Llama that was read whole with their source."""
    content = read_json(folder / CONFIG_NAME)
    config, home = module.config, Home()

    def compared(index: int) -> Agreement | None:
        location = home.location("model.", index, config.bias)
        norm = norm_before(index)
        store = open_folder(folder, {norm, *location.tensors()}.__contains__)
        modules = [(home.name(index), home.layout, home.modules)]
        read, gain = copy.deepcopy(module.mlps[index]).double(), store[norm].read_tensor().double()
        return compare_with_source(store, location, content, modules, read, gain)

    return lambda: all_of(map(compared, sorted({0, config.n_layer - 1})))
