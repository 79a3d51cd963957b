"""A transformer of ours as a Llama of Hugging Face: names, configuration, a folder of files.

Llama's MLP is down(act(gate x) ∘ (up x)), so with the activation "linear" it is the bilinear one.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from bilens.base.checks import check_finite
from bilens.base.errors import UsageError
from bilens.base.files import with_metadata
from bilens.base.model_card import card_file
from bilens.nn.block import TransformerConfig
from bilens.version import VERSION

EMBED, UNEMBED = "model.embed_tokens.weight", "lm_head.weight"
FINAL_NORM = "model.norm.weight"
BRANCHES = {"left": "gate_proj", "right": "up_proj", "down": "down_proj"}
SIZES = {  # ours: theirs
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "d_hidden": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
}
NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")


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
        **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
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
        layer = f"model.layers.{index}."
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
        block, layer = f"blocks.{index}.", f"model.layers.{index}."
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
    gain, times = tensors[FINAL_NORM], config.n_head // n_kv_head
    if UNEMBED in tensors or not bool((gain == 1).all()):
        ours["unembed.weight"] = with_gain(tensors.get(UNEMBED, tensors[EMBED]), gain)
    for index in range(config.n_layer):
        block, layer = f"blocks.{index}.", f"model.layers.{index}."
        attention_gain, mlp_gain = (tensors[layer + norm] for norm in NORMS)
        q, *shared = (tensors[f"{layer}self_attn.{letter}_proj.weight"] for letter in "qkv")
        heads = (rows.view(n_kv_head, -1, rows.shape[1]) for rows in shared)  # one for several of q
        k, v = (one.repeat_interleave(times, dim=0).flatten(0, 1) for one in heads)
        ours[f"{block}attention.qkv.weight"] = with_gain(torch.cat([q, k, v]), attention_gain)
        ours[f"{block}attention.out.weight"] = tensors[f"{layer}self_attn.o_proj.weight"]
        for branch, projection in BRANCHES.items():
            weight = tensors[f"{layer}mlp.{projection}.weight"]
            weight = weight if branch == "down" else with_gain(weight, mlp_gain)
            ours[f"{block}mlp.{branch}.weight"] = weight
            if config.bias:
                ours[f"{block}mlp.{branch}.bias"] = tensors[f"{layer}mlp.{projection}.bias"]
    return ours


def with_gain(weight: Tensor, gain: Tensor) -> Tensor:
    return (weight.double() * gain.double()).to(weight.dtype)


# ---- the files that plain `AutoModelForCausalLM` loads


def huggingface_files(
    config: TransformerConfig,
    state: Mapping[str, Tensor],
    tokenizer: Path | None,
    end_of_text: str,
    provenance: Mapping[str, str],
) -> dict[str, bytes]:
    for name, tensor in state.items():
        check_finite(f"tensor {name!r}", tensor)
    written = llama_config(config, state["embed.weight"].dtype)
    found: dict[str, bytes] = {}
    if tokenizer is not None:
        content = read_tokenizer(tokenizer)
        written["eos_token_id"] = end_token(tokenizer, content, end_of_text, config.vocab_size)
        found["tokenizer.json"] = json.dumps(content, ensure_ascii=False, indent=2).encode()
        found["tokenizer_config.json"] = as_json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": end_of_text,
                "model_max_length": config.n_ctx,
                "clean_up_tokenization_spaces": False,
            }
        )
    metadata = {"format": "pt", "made_by": f"bilens {VERSION}"}
    metadata["provenance"] = json.dumps(dict(provenance), ensure_ascii=False, sort_keys=True)
    tensors = llama_tensors(config, state)
    if {name: tuple(t.shape) for name, t in tensors.items()} != llama_shapes(config, config.n_head):
        raise UsageError(
            "the weights do not have the shapes that the model was built with: build it with the "
            "sizes that it has."
        )
    found["model.safetensors"] = with_metadata(to_safetensors(tensors), metadata)
    found["config.json"] = as_json(written)
    return found


def as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def read_tokenizer(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a tokenizer.json ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UsageError(f"{path}: is no tokenizer.json of the `tokenizers` library.")
    return content


def end_token(path: Path, tokenizer: Mapping[str, Any], end_of_text: str, vocab_size: int) -> int:
    """Return the number of the token that ends a text."""
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
    vocab = tokenizer["model"].get("vocab", {})
    numbers = [*(vocab.values() if isinstance(vocab, dict) else range(len(vocab))), *added.values()]
    if max(numbers, default=-1) >= vocab_size:
        raise UsageError(
            f"{path}: has tokens up to {max(numbers)}; the model knows 0 to {vocab_size - 1}: use "
            "the tokenizer that it was trained with."
        )
    if end_of_text not in added:
        raise UsageError(
            f"{path}: has no special token {end_of_text!r}; expected one of "
            f"{', '.join(map(repr, added)) or 'none that it has'}: pass it as end_of_text."
        )
    number: int = added[end_of_text]
    return number


def llama_card(
    folder: Path, config: TransformerConfig, weights: bytes, provenance: Mapping[str, str]
) -> dict[str, bytes]:
    """Return the card of such a folder; none where people wrote one."""
    names = ("n_layer", "d_model", "d_hidden", "n_head", "vocab_size", "n_ctx")
    sizes = {name: getattr(config, name) for name in names}
    sha256, kind = hashlib.sha256(weights).hexdigest(), "gated" if config.gate else "bilinear"
    return card_file(folder, kind, sha256, sizes, provenance, {"activation": config.gate})
