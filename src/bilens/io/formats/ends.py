"""Where tokens enter a language model and leave it, by family: the second table beside its MLPs.

Names and factors were compared with transformers 5.24, on a small model of each in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bilens.io.formats.families import FAMILIES, WITH_IMAGES


@dataclass(frozen=True)
class Ends:
    """Where tokens enter the residual stream of a language model, and how it becomes logits.

    The names of embedding, last norm and head are without the root of the model, those of the norms
    of a block below the block. Of several norms the first that a model has is meant; an empty
    name is a norm without a gain, and no name at all is no norm.
    """

    embedding: str = "embed_tokens"
    norm: str = "norm"
    head: str = "lm_head"
    # whether the embedding is the head; None where it is without another one
    tied: bool | None = False
    centred: bool = False  # whether norms take the mean away, as a LayerNorm does
    less_one: bool = False  # whether gains are stored less one
    before_attention: tuple[str, ...] = ("input_layernorm",)
    before_mlp: tuple[str, ...] = ("post_attention_layernorm", "input_layernorm")
    behind_attention: tuple[str, ...] = ()  # on the way of what is written into the stream
    behind_mlp: tuple[str, ...] = ()
    block: str = r"\blayers\.\d+\."  # how names in a block begin, up to there
    transposed: bool = False  # whether the matrices of a block are (in, out)
    unheard: str = "$^"  # names of tensors that write into a stream without a head
    unread: str = "$^"  # names of tensors that read something else than this stream
    embedding_scale: float = 1.0  # of an embedding on its way into the stream
    residual_scale: float = 1.0  # of what attention and MLPs write
    logit_scale: float = 1.0  # before any soft cap


CENTRED, TIED = Ends(centred=True), Ends(tied=True)
BEHIND = Ends(
    behind_attention=("post_attention_layernorm",), behind_mlp=("post_feedforward_layernorm",)
)
GEMMA = replace(BEHIND, tied=True, less_one=True, before_mlp=("pre_feedforward_layernorm",))
GPT = replace(
    CENTRED,
    embedding="wte",
    norm="ln_f",
    tied=True,
    before_attention=("ln_1",),
    before_mlp=("ln_2",),
    block=r"\bh\.\d+\.",
)
T5 = Ends(
    "shared",
    "decoder.final_layer_norm",
    tied=True,
    before_attention=("layer_norm",),
    before_mlp=("layer_norm",),
    block=r"\bblock\.\d+\.layer\.\d+\.",
    unheard=r"^encoder\.",
    unread=r"EncDecAttention\.[kv]\.",
)
ENDS = {  # encoders and models of images have none: no linear map makes tokens of their stream
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "granite", "phi3", "glm"), Ends()),
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"), Ends()),
    **dict.fromkeys(("t5", "mt5", "umt5"), T5),
    **dict.fromkeys(("gpt_bigcode", "gpt_neo"), GPT),
    **dict.fromkeys(("gemma2", "gemma3_text"), GEMMA),
    "gemma": replace(TIED, less_one=True),
    "smollm3": TIED,
    "olmo": Ends(norm="", centred=True, before_attention=("",), before_mlp=("",)),
    "olmo2": replace(BEHIND, before_attention=(), before_mlp=()),
    "cohere": replace(CENTRED, tied=True),
    "stablelm": CENTRED,
    "glm4": Ends(
        behind_attention=("post_self_attn_layernorm",), behind_mlp=("post_mlp_layernorm",)
    ),
    "deepseek_v3": Ends(unread=r"_b_proj\."),
    "gpt2": replace(GPT, transposed=True),
    "gptj": replace(GPT, tied=False, before_mlp=("ln_1",)),
    "gpt_neox": replace(CENTRED, embedding="embed_in", norm="final_layer_norm"),
    "falcon": replace(
        GPT,
        embedding="word_embeddings",
        before_attention=("ln_attn", "input_layernorm"),
        before_mlp=("ln_mlp", "post_attention_layernorm", "input_layernorm"),
    ),
    "phi": replace(CENTRED, norm="final_layernorm"),
    "starcoder2": replace(CENTRED, tied=True),
    "nemotron": replace(CENTRED, less_one=True),
    "opt": Ends(
        "decoder.embed_tokens",
        "decoder.final_layer_norm",
        tied=True,
        centred=True,
        before_attention=("self_attn_layer_norm",),
        before_mlp=("final_layer_norm",),
    ),
}


def ends_of(content: Mapping[str, Any]) -> Ends | None:
    """Return where the tokens of a configuration's model are; None where there are none."""
    kind = str(content.get("model_type"))
    if kind in WITH_IMAGES:
        kind, content = WITH_IMAGES[kind], content["text_config"]
    # with the norms behind, as an OPT may have them, there is no last one
    if kind not in ENDS or content.get(FAMILIES[kind].norm_first or "") is False:
        return None
    found, width = ENDS[kind], "d_model" if FAMILIES[kind].is_t5 else "hidden_size"
    found = replace(found, tied=bool(content.get("tie_word_embeddings", found.tied)))
    if kind.startswith("gemma"):
        return replace(found, embedding_scale=content[width] ** 0.5)
    if kind == "cohere":
        return replace(found, logit_scale=content.get("logit_scale", 0.0625))
    if kind in ("t5", "umt5") and content.get("scale_decoder_outputs", found.tied):
        return replace(found, logit_scale=content[width] ** -0.5)
    entering, residual, logits = (
        content.get(key, 1.0)
        for key in ("embedding_multiplier", "residual_multiplier", "logits_scaling")
    )
    scales = {"embedding_scale": entering, "residual_scale": residual, "logit_scale": 1 / logits}
    return replace(found, **scales) if kind == "granite" else found
