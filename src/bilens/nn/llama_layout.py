"""A transformer of ours in the words of Hugging Face's Llama: names of tensors, configuration.

Llama's MLP is down(act(gate x) ∘ (up x)), so with the activation "linear" it is the bilinear one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bilens.base.errors import UsageError
from bilens.nn.transformer_config import TransformerConfig

EMBED, UNEMBED = "model.embed_tokens.weight", "lm_head.weight"
FINAL_NORM = "model.norm.weight"
BRANCHES = {"left": "gate_proj", "right": "up_proj", "down": "down_proj"}
NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")


def layer_prefix(index: int) -> str:
    return f"model.layers.{index}."


def llama_config(config: TransformerConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Return the content of config.json, in the keys of transformers 4 and 5."""
    if config.mlp_type != "gated":
        raise UsageError(
            "a model with ordinary MLPs is no Llama, whose MLPs have two branches: save it as a "
            "model folder, with bl.save."
        )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": config.gate or "linear",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_hidden,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_head,
        "head_dim": config.d_head,
        "max_position_embeddings": config.n_ctx,
        "rms_norm_eps": config.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "rope_theta": config.rotary_base,  # what transformers 4 reads
        "tie_word_embeddings": config.tied,
        "attention_bias": False,
        "mlp_bias": config.bias,
        "dtype": str(dtype).removeprefix("torch."),
    }


def llama_shapes(config: TransformerConfig, n_kv_head: int) -> dict[str, tuple[int, ...]]:
    d, h, kv = config.d_model, config.d_hidden, n_kv_head * config.d_head
    shapes: dict[str, tuple[int, ...]] = {EMBED: (config.vocab_size, d), FINAL_NORM: (d,)}
    if not config.tied:
        shapes[UNEMBED] = (config.vocab_size, d)
    attention = {"q": (d, d), "k": (kv, d), "v": (kv, d), "o": (d, d)}
    mlp = {"left": (h, d), "right": (h, d), "down": (d, h)}
    for index in range(config.n_layer):
        layer = layer_prefix(index)
        shapes |= {layer + norm: (d,) for norm in NORMS}
        shapes |= {f"{layer}self_attn.{x}_proj.weight": shape for x, shape in attention.items()}
        for branch, shape in mlp.items():
            shapes[f"{layer}mlp.{BRANCHES[branch]}.weight"] = shape
            if config.bias:
                shapes[f"{layer}mlp.{BRANCHES[branch]}.bias"] = shape[:1]
    return shapes


def llama_tensors(config: TransformerConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under Llama's names; the norms, which have no gain, get ones."""
    ones = torch.ones(config.d_model, dtype=ours["embed.weight"].dtype)
    theirs = {EMBED: ours["embed.weight"], FINAL_NORM: ones}
    if not config.tied:
        theirs[UNEMBED] = ours["unembed.weight"]
    for index in range(config.n_layer):
        block, layer = f"blocks.{index}.", layer_prefix(index)
        qkv = ours[f"{block}attention.qkv.weight"].chunk(3, dim=0)
        for letter, rows in zip("qkv", qkv, strict=True):
            theirs[f"{layer}self_attn.{letter}_proj.weight"] = rows
        theirs[f"{layer}self_attn.o_proj.weight"] = ours[f"{block}attention.out.weight"]
        for branch, projection in BRANCHES.items():
            for kind in ("weight", "bias") if config.bias else ("weight",):
                theirs[f"{layer}mlp.{projection}.{kind}"] = ours[f"{block}mlp.{branch}.{kind}"]
        theirs |= {layer + norm: ones for norm in NORMS}
    return {  # a file holds no views: each tensor is a copy of its own
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in theirs.items()
    }


def from_llama_tensors(
    tensors: Mapping[str, Tensor], config: TransformerConfig, n_kv_head: int
) -> dict[str, Tensor]:
    """Return the weights under our names, of the same function."""
    ours = {"embed.weight": tensors[EMBED]}
    gain = tensors[FINAL_NORM]
    if UNEMBED in tensors or not bool((gain == 1).all()):
        ours["unembed.weight"] = with_gain(tensors.get(UNEMBED, tensors[EMBED]), gain)
    for index in range(config.n_layer):
        block, layer = f"blocks.{index}.", layer_prefix(index)
        attention_gain, mlp_gain = (tensors[layer + norm] for norm in NORMS)
        q, k, v = (tensors[f"{layer}self_attn.{letter}_proj.weight"] for letter in "qkv")
        k, v = (repeated(rows, n_kv_head, config.n_head // n_kv_head) for rows in (k, v))
        ours[f"{block}attention.qkv.weight"] = with_gain(torch.cat([q, k, v]), attention_gain)
        ours[f"{block}attention.out.weight"] = tensors[f"{layer}self_attn.o_proj.weight"]
        for branch, projection in BRANCHES.items():
            weight = tensors[f"{layer}mlp.{projection}.weight"]
            ours[f"{block}mlp.{branch}.weight"] = (
                weight if branch == "down" else with_gain(weight, mlp_gain)
            )
            if config.bias:
                ours[f"{block}mlp.{branch}.bias"] = tensors[f"{layer}mlp.{projection}.bias"]
    return ours


def with_gain(weight: Tensor, gain: Tensor) -> Tensor:
    return (weight.double() * gain.double()).to(weight.dtype)


def repeated(rows: Tensor, num_heads: int, times: int) -> Tensor:
    """Return the rows of each head so many times in a row."""
    heads = rows.view(num_heads, -1, rows.shape[1])
    return heads.repeat_interleave(times, dim=0).flatten(0, 1)
