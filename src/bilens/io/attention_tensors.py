"""The attention of one block, from the tensors of a language model and its configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bilens.algebra.shapes import check_index
from bilens.base.errors import CheckpointError, NotQuadraticError
from bilens.io.vocabulary import Norm, Vocabulary
from bilens.polynomial.attention_head import AttentionHead, TokenStream
from bilens.polynomial.rotary import rotary_frequencies
from bilens.polynomial.score_form import ScoreForm


@dataclass(frozen=True)
class AttentionLayout:
    """Where a family keeps its attention below a block, and what no configuration says of it."""

    inner: str = "self_attn"
    maps: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")  # or one that holds all three
    out: str = "o_proj"
    norm: str = "input_layernorm"
    by_head: bool = False  # whether one map holds query, key and value of a head, head after head
    rotary: float | None = 1.0  # share of a head that is turned where nothing says it; None: none
    positions: tuple[str, int] | None = None  # absolute ones: their table, and its first row
    windowed: bool = False  # whether `sliding_window` is of every block
    scaled: bool = True  # whether scores are divided by √d_head


LLAMA = AttentionLayout()
GPT = AttentionLayout("attn", ("c_attn",), "c_proj", "ln_1", rotary=None, positions=("wpe", 0))
OURS = AttentionLayout("attention", ("qkv",), "out", "attention_norm")
LAYOUTS = {  # compared with transformers 5.24, on a small model of each in the tests
    **dict.fromkeys(("llama", "qwen2", "qwen2_moe", "qwen3", "smollm3", "gemma"), LLAMA),
    **dict.fromkeys(("mistral", "mixtral", "starcoder2"), replace(LLAMA, windowed=True)),
    "phi3": replace(LLAMA, maps=("qkv_proj",), windowed=True),
    "nemotron": replace(LLAMA, rotary=0.5),
    "stablelm": replace(LLAMA, rotary=0.25),
    "phi": replace(LLAMA, out="dense", rotary=0.5),
    "gpt2": GPT,
    "gpt_neo": replace(GPT, inner="attn.attention", maps=LLAMA.maps, out="out_proj", scaled=False),
    "gpt_neox": AttentionLayout(
        "attention", ("query_key_value",), "dense", by_head=True, rotary=0.25
    ),
    "opt": replace(
        LLAMA,
        out="out_proj",
        norm="self_attn_layer_norm",
        rotary=None,
        positions=("decoder.embed_positions", 2),
    ),
}
ALIBI = ("falcon", "bloom", "mpt")
EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
HEADS = ("num_attention_heads", "n_head", "num_heads")
CONTEXTS = ("max_position_embeddings", "n_positions", "n_ctx")
STATIC = ("default", "linear", "llama3", "yarn")  # rotary angles that no text changes


@dataclass(frozen=True, eq=False)
class BlockAttention:
    """All heads of one block as weights, and where its parts run in a module."""

    heads: tuple[AttentionHead, ...]
    out: Tensor  # (d_model, heads · d_head)
    out_bias: Tensor | None
    norm: Norm  # before it; gain and bias are in the weights of the heads
    epsilon: float  # of that norm
    paths: tuple[str, str, str]  # of that norm, of the attention, of its map into the stream


def read_block(
    vocabulary: Vocabulary,
    content: Mapping[str, Any],
    layout: AttentionLayout,
    layer: int,
    turns: tuple[Tensor, float] | None = None,
) -> BlockAttention:
    """Read the attention of a block in float64; `turns` are angles and scale of a running module.

    Raises: UsageError if there is no such block; CheckpointError if a tensor is missing or angles
        need a module; NotQuadraticError if queries or keys are normed.
    """
    prefix = find_attention(
        vocabulary, layout, check_index("layer", layer, count_of(content, LAYERS))
    )
    heads, maps = count_of(content, HEADS), [f"{prefix}{name}" for name in layout.maps]
    norm = vocabulary.norm_beside(f"{maps[0]}.weight", behind=False)
    if norm is None:
        raise CheckpointError(f"{maps[0]}: the norm before it is missing.")
    whole = torch.cat([read_tensor(vocabulary, f"{name}.weight") for name in maps])
    bias, out_bias = whole.new_zeros(len(whole)), None
    if f"{maps[0]}.bias" in vocabulary.names:
        bias = torch.cat([read_tensor(vocabulary, f"{name}.bias") for name in maps])
    if f"{prefix}{layout.out}.bias" in vocabulary.names:
        out_bias = read_tensor(vocabulary, f"{prefix}{layout.out}.bias")
    out = read_tensor(vocabulary, f"{prefix}{layout.out}.weight").clone()
    if norm.bias is not None:
        bias = bias + whole @ norm.bias.double()
    whole, width = norm.times_gain(whole), out.shape[1] // heads
    frequencies, size = turns_of(content, layout, layer, width, turns)
    scales = whole.new_full((width,), scale_of(content, layout, layer, width))
    scales[: 0 if frequencies is None else 2 * len(frequencies)] *= size**2
    epsilon = next((float(content[key]) for key in EPSILONS if key in content), 1e-5)
    tokens = tokens_of(vocabulary, layout, norm, epsilon) if vocabulary.is_whole else None

    def read_head(number: int) -> AttentionHead:
        query, key, value = rows_of_head(len(whole), layout, heads, width, number)
        return AttentionHead(
            layer,
            number,
            (
                ScoreForm(
                    whole[query] * scales[:, None], whole[key], bias[query] * scales, bias[key]
                ),
            ),
            whole[value],
            bias[value],
            out[:, number * width : (number + 1) * width],
            frequencies,
            window=window_of(content, layout, layer),
            n_ctx=next((int(content[key]) for key in CONTEXTS if content.get(key)), None),
            tokens=tokens,
            reads=words_of(norm),
        )

    last = f".{layout.out}.weight"
    runs = vocabulary.names[f"{prefix}{layout.out}.weight"].removesuffix(last)
    before = f"{runs.removesuffix(f'.{layout.inner}')}.{layout.norm}"
    paths = (before, runs, f"{runs}.{layout.out}")
    return BlockAttention(tuple(map(read_head, range(heads))), out, out_bias, norm, epsilon, paths)


def find_attention(vocabulary: Vocabulary, layout: AttentionLayout, layer: int) -> str:
    """Find the prefix of the tensor names of an attention; refuse norms among them."""
    block = vocabulary.ends.block.replace(r"\b", "").replace(r"\d+", str(layer)).replace("\\", "")
    inner = f"{block}{layout.inner}."
    names = [name for name in vocabulary.names if f".{inner}" in f".{name}"]
    if not names:
        raise CheckpointError(f"{inner}: there are no tensors of this attention.")
    prefix = names[0][: names[0].index(inner)] + inner
    for name in names:
        if "norm" in name.removeprefix(prefix):
            raise NotQuadraticError(
                f"{name} norms queries or keys before they meet, which is not linear: their scores "
                "are no bilinear form of the stream, and are not read."
            )
    return prefix


def read_tensor(vocabulary: Vocabulary, name: str) -> Tensor:
    """Return a tensor in float64, matrices as (out, in)."""
    tensor = vocabulary.tensor(name)
    if tensor is None:
        raise CheckpointError(f"there is no tensor {name!r}, of which the attention is made.")
    return (tensor.T if vocabulary.ends.transposed and tensor.ndim == 2 else tensor).double()


def count_of(content: Mapping[str, Any], keys: Sequence[str]) -> int:
    """Return the number that a configuration says under the first of some keys that it has."""
    said = [content[key] for key in keys if content.get(key) is not None]
    if not said:
        raise CheckpointError(f"the configuration says none of {', '.join(keys)}.")
    return int(said[0])


def rows_of_head(
    total: int, layout: AttentionLayout, heads: int, width: int, head: int
) -> tuple[slice, slice, slice]:
    """Return the rows of a head's query, key and value among those of all maps."""
    if layout.by_head:
        starts = [(3 * head + which) * width for which in range(3)]
    else:
        groups = (total // width - heads) // 2  # of keys and values, which heads may share
        shared = heads + head * groups // heads
        starts = [at * width for at in (head, shared, shared + groups)]
    query, key, value = (slice(start, start + width) for start in starts)
    return query, key, value


def scale_of(content: Mapping[str, Any], layout: AttentionLayout, layer: int, width: int) -> float:
    """Return the number that scores are multiplied by, 1/√d_head of most."""
    scale = width**-0.5 if layout.scaled and content.get("scale_attn_weights", True) else 1.0
    return scale / (layer + 1) if content.get("scale_attn_by_inverse_layer_idx") else scale


def layout_of(content: Mapping[str, Any]) -> AttentionLayout:
    """Return where the model of a configuration keeps its attention; refuse unknown types."""
    kind = content.get("model_type")
    if kind in LAYOUTS:
        return LAYOUTS[kind]
    why = "its names alone do not say how queries, keys and positions meet"
    if kind in ALIBI:
        why = "its positions are a mask that is added to the scores (ALiBi), or may be"
    raise CheckpointError(
        f"the attention of a model of the type {kind!r} is not read: {why}. It is read of the "
        f"types {', '.join(sorted(LAYOUTS))}, and of modules of bilens."
    )


def turns_of(
    content: Mapping[str, Any],
    layout: AttentionLayout,
    layer: int,
    width: int,
    running: tuple[Tensor, float] | None,
) -> tuple[Tensor | None, float]:
    """Return the angles of rotary positions in radians per token, and the scale of what turns."""
    if content.get("model_type") == "smollm3":
        stated(content, "no_rope_layers")
    without = content.get("no_rope_layers")
    if layout.rotary is None or (without and not without[layer]):
        return None, 1.0
    said = {
        **content,
        **(content.get("rope_scaling") or {}),
        **(content.get("rope_parameters") or {}),
    }
    kind = said.get("rope_type", said.get("type", "default"))
    if kind not in STATIC or (kind != "default" and running is None):
        raise CheckpointError(
            f"its rotary positions are of the type {kind!r}, whose angles "
            f"{'the module that runs knows' if kind in STATIC else 'may depend on the text'}: "
            f"expected {', '.join(STATIC)}, all but the first of a module in memory."
        )
    if kind != "default" and running is not None:
        return running[0].double().cpu(), running[1]
    share = said.get("partial_rotary_factor", said.get("rotary_pct", layout.rotary))
    base = stated(said, "rope_theta", "rotary_emb_base")
    return rotary_frequencies(int(width * share), base).double(), 1.0


def stated(content: Mapping[str, Any], *keys: str) -> Any:
    """Look up the first of some keys in a configuration; refuse one that has none of them.

    What is left out is the default of its family, which other versions may have otherwise.
    """
    for key in keys:
        if key in content:
            return content[key]
    raise CheckpointError(
        f"the configuration does not say {keys[0]}: add the value that the model was trained with, "
        "or pass the module in memory."
    )


def window_of(content: Mapping[str, Any], layout: AttentionLayout, layer: int) -> int | None:
    """Return how many positions a query sees; None for all before it."""
    if content.get("model_type") == "gpt_neo":
        stated(content, "attention_layers")
    if layout.windowed and not content.get("layer_types"):
        stated(content, "sliding_window")
    kinds = content.get("layer_types") or content.get("attention_layers") or ()
    if layer < len(kinds) and kinds[layer] == "local":
        return int(content.get("window_size", 256))
    sliding = layer < len(kinds) and kinds[layer] == "sliding_attention"
    if not kinds and content.get("use_sliding_window"):  # as older files of Qwen say it
        sliding = layer >= content.get("max_window_layers", 0)
    size = content.get("sliding_window") if sliding or (layout.windowed and not kinds) else None
    return None if size is None else int(size)


def tokens_of(
    vocabulary: Vocabulary, layout: AttentionLayout, norm: Norm, epsilon: float
) -> TokenStream:
    name, first = layout.positions or ("", 0)
    table = vocabulary.tensor(f"{name}.weight") if name else None
    return TokenStream(
        vocabulary.embedding.clone(),  # what is read stays as it was compared
        None if table is None else table[first:].clone(),
        vocabulary.unembedding,
        norm.divides,
        norm.centred,
        epsilon,
    )


def words_of(norm: Norm) -> str:
    if not norm.divides:
        return "the residual stream itself"
    kind = "a LayerNorm, less its mean and" if norm.centred else "an RMSNorm,"
    return f"the residual stream behind {kind} divided to 1; its gain and bias are in the weights"
