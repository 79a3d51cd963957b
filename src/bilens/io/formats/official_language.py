"""Transformers of the paper's official repository: `config.json` beside safetensors.

Their attention is scaled by 1/√(2 n_layer) where it joins the residual stream; here the scale is
part of the weights of `attention.out`. Their norms have no gain and add 1e-8.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import file_sha256, read_json
from bilens.io.formats.format import CONFIG_NAME, WEIGHTS_NAME, Format, ReadOptions, config_in
from bilens.io.formats.llama import build_transformer
from bilens.io.loaded_model import LoadedModel
from bilens.io.tensors import check_names, check_shapes, read_safetensors
from bilens.nn import BilinearTransformer
from bilens.nn.block import rotary_frequencies
from bilens.nn.mlp import Gate
from bilens.nn.transformer_config import TransformerConfig

KEYS = {"n_head", "n_layer", "n_ctx", "d_model", "d_hidden"}
FREQUENCIES = re.compile(r"transformer\.h\.\d+\.attn\.rotary\.inv_freq", re.ASCII)
ANNEALED = re.compile(r"\.gate\.c$")
INTERPOLATED = re.compile(r"(^|\.)(n1|n2|n_f|gate)\.(.*\.)?linear\.weight$")
ROTARY_BASE, NORM_EPSILON = 10000.0, 1e-8
EMBED, UNEMBED = "transformer.wte.weight", "lm_head.weight"


def is_language_folder(path: Path) -> bool:
    """Tell whether a `config.json` is that of a transformer of the official repository."""
    content = config_in(path)
    return "format" not in content and {*content} >= KEYS


def read_language_folder(folder: Path, options: ReadOptions) -> LoadedModel:
    options.refuse_residual(folder, "is a language model, which always has residual paths")
    tensors, _ = read_safetensors(folder / WEIGHTS_NAME)
    module = build_official_language(folder, read_json(folder / CONFIG_NAME), tensors)
    about = {"format": "transformer of the paper's official repository"}
    return LoadedModel(module, str(folder), file_sha256(folder / WEIGHTS_NAME), provenance=about)


LANGUAGE_FOLDER = Format("the paper's transformer", is_language_folder, read_language_folder)


def build_official_language(
    folder: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> BilinearTransformer:
    """Return the transformer of an official folder."""
    config = parse_official_config(folder / "config.json", content, tensors)
    if config.n_layer > len(tensors):
        raise CheckpointError(
            f"{folder}: holds {len(tensors)} tensors; config.json says {config.n_layer} layers: "
            "use the two files that were saved together."
        )
    refuse_fine_tunes(folder, tensors)
    frequencies = {name: t for name, t in tensors.items() if FREQUENCIES.fullmatch(name)}
    weights = {name: t for name, t in tensors.items() if name not in frequencies}
    shapes = official_shapes(config)
    check_names(folder, weights, shapes)
    check_shapes(folder, weights, shapes)
    check_frequencies(folder, frequencies, config.d_head)
    wide = torch.promote_types(weights[EMBED].dtype, torch.float32)  # for the scaled weights
    weights = {name: tensor.to(wide) for name, tensor in weights.items()}
    return build_transformer(config, converted(weights, config))


def refuse_fine_tunes(folder: Path, names: Mapping[str, Any]) -> None:
    """Refuse models whose gate or norms were changed in steps: the last step is not stored."""
    for name in names:
        if ANNEALED.search(name):
            raise CheckpointError(
                f"{folder}: tensor {name!r} belongs to a gate that was annealed, c·x·sigmoid((1 − "
                "alpha)·x). alpha is not stored, and only at alpha = 1 is the model bilinear: "
                "train it to the end, multiply c/2 into the left branch and save it without gate."
            )
        if INTERPOLATED.search(name):
            raise CheckpointError(
                f"{folder}: tensor {name!r} belongs to a norm or gate that is mixed with a linear "
                "map. How much of each is not stored: save the model with the linear map alone, "
                "multiplied into the weights behind it."
            )


def parse_official_config(
    path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> TransformerConfig:
    """Return what an official `config.json` says; the tokenizer decides the number of tokens."""
    gate, bias = content.get("gate"), content.get("bias", False)
    reasons = {
        "is not bilinear (bilinear=false): its MLPs have one branch": (
            content.get("bilinear", True) is not True
        ),
        f"has normalization={content.get('normalization')!r}; expected true, an RMSNorm "
        "everywhere": content.get("normalization", True) is not True,
        f"has the gate {gate!r}; expected null, {', '.join(get_args(Gate))}: a gate that was "
        "annealed is not stored in full": gate is not None and gate not in get_args(Gate),
        f"has bias={bias!r}; expected true or false": not isinstance(bias, bool),
        f"holds no tensor {EMBED!r} of two axes": (
            EMBED not in tensors or tensors[EMBED].ndim != 2
        ),
    }
    for reason, applies in reasons.items():
        if applies:
            raise CheckpointError(f"{path}: the model {reason}.")
    try:
        return TransformerConfig(
            vocab_size=tensors[EMBED].shape[0],
            d_model=content["d_model"],
            d_hidden=content["d_hidden"],
            n_layer=content["n_layer"],
            n_head=content["n_head"],
            n_ctx=content["n_ctx"],
            gate=gate,
            tied=False,
            bias=bias,
            rotary_base=ROTARY_BASE,
            norm_epsilon=NORM_EPSILON,
            mlp_type="gated",
        )
    except UsageError as error:
        raise CheckpointError(f"{path}: does not describe a transformer: {error}") from error


def official_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    d, h, v = config.d_model, config.d_hidden, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {EMBED: (v, d), UNEMBED: (v, d)}
    for index in range(config.n_layer):
        block = f"transformer.h.{index}."
        shapes[f"{block}attn.qkv.weight"] = (3 * d, d)
        shapes[f"{block}attn.o.weight"] = (d, d)
        for kind in ("weight", "bias") if config.bias else ("weight",):
            shapes[f"{block}mlp.w.{kind}"] = (2 * h, d)[: 2 if kind == "weight" else 1]
            shapes[f"{block}mlp.p.{kind}"] = (d, h)[: 2 if kind == "weight" else 1]
    return shapes


def check_frequencies(folder: Path, tensors: Mapping[str, Tensor], d_head: int) -> None:
    """Refuse a file whose rotary frequencies are not those of the base 10000."""
    expected = rotary_frequencies(d_head, ROTARY_BASE)
    for name, tensor in tensors.items():
        close = tensor.shape == expected.shape and torch.allclose(
            tensor.float(), expected, rtol=1e-2 if tensor.dtype is torch.bfloat16 else 1e-3, atol=0
        )
        if not close:
            raise CheckpointError(
                f"{folder}: tensor {name!r} does not hold the frequencies of rotary positions with "
                f"base {ROTARY_BASE:g} and heads of width {d_head}: the model is another one than "
                "config.json says."
            )


def converted(weights: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """Return the weights under our names; `w` holds the left half first, as the gate's."""
    state = {"embed.weight": weights[EMBED], "unembed.weight": weights[UNEMBED]}
    scale = 1 / math.sqrt(2 * config.n_layer)
    for index in range(config.n_layer):
        theirs, ours = f"transformer.h.{index}.", f"blocks.{index}."
        out = weights[f"{theirs}attn.o.weight"]
        state[f"{ours}attention.qkv.weight"] = weights[f"{theirs}attn.qkv.weight"]
        state[f"{ours}attention.out.weight"] = (scale * out.double()).to(out.dtype)
        for kind in ("weight", "bias") if config.bias else ("weight",):
            left, right = weights[f"{theirs}mlp.w.{kind}"].chunk(2, dim=0)
            state[f"{ours}mlp.left.{kind}"] = left
            state[f"{ours}mlp.right.{kind}"] = right
            state[f"{ours}mlp.down.{kind}"] = weights[f"{theirs}mlp.p.{kind}"]
    return state
