"""`config.json` of a Llama folder of Hugging Face: which transformer of ours it describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilens.base.checks import check_count
from bilens.base.errors import CheckpointError, UsageError
from bilens.nn.mlp import Gate
from bilens.nn.transformer_config import TransformerConfig

GATES: dict[object, Gate | None] = {
    "linear": None,
    "relu": "relu",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


class LayersAloneError(CheckpointError):
    """A Llama that no transformer of ours holds as a whole; its MLPs can still be read."""


@dataclass(frozen=True)
class LlamaConfig:
    """What `config.json` says.

    Attributes:
        ours: as a transformer of ours.
        n_kv_head: heads of keys and values, each shared by several heads of queries.
    """

    ours: TransformerConfig
    n_kv_head: int


def is_huggingface(content: Mapping[str, Any]) -> bool:
    """Tell whether a `config.json` is one of Hugging Face's, of whatever model."""
    return "format" not in content and bool({"model_type", "architectures"} & {*content})


def parse_llama_config(path: Path, content: Mapping[str, Any]) -> LlamaConfig:
    """Return what a `config.json` says.

    Raises:
        CheckpointError: If it describes anything that is not a plain Llama.
        LayersAloneError: If it is a Llama, but not one that a transformer of ours can be.
    """
    check_is_ours(content)
    missing = [name for name in SIZES if name not in content]
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}: restore the file.")
    n_head = content["num_attention_heads"]
    try:
        ours = TransformerConfig(
            vocab_size=content["vocab_size"],
            d_model=content["hidden_size"],
            d_hidden=content["intermediate_size"],
            n_layer=content["num_hidden_layers"],
            n_head=n_head,
            n_ctx=content.get("max_position_embeddings", 2048),
            gate=GATES[content.get("hidden_act", "silu")],
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
    return LlamaConfig(ours, n_kv_head)


def check_is_ours(content: Mapping[str, Any]) -> None:
    """Refuse a Llama with an activation or biases that a transformer of ours does not have.

    Raises:
        LayersAloneError: If its MLPs alone can be read.
    """
    activation = content.get("hidden_act", "silu")
    if not isinstance(activation, str) or activation not in GATES:
        raise LayersAloneError(f"it has the activation {activation!r}")
    if content.get("attention_bias"):
        raise LayersAloneError("it has biases in its attention (attention_bias)")


def rotary_base(content: Mapping[str, Any]) -> float:
    """Return the base of the rotary angles; `rope_parameters` wins over `rope_theta`.

    Raises:
        LayersAloneError: If the angles are scaled for long texts, or turn a part of each head.
    """
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
