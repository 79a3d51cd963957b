"""Reads tensor names: kind, layer, and which tensor of another file is the same one."""

import re
from collections import Counter
from collections.abc import Collection, Iterable

ENDING = re.compile(r"\.(?:weight|bias)$")
# The number behind a word for a block, or else, where no such word is, the first one between dots:
# in onnx::MatMul_282, val_12 and conv2d_251.w_0 an exporter counts.
IN_BLOCK = r"(?:^|[._])(?:layers?|blocks?|blk|h)[._]"
LAYER = re.compile(rf"(?:{IN_BLOCK}|^(?!.*{IN_BLOCK}\d+(?:\.|$))(?:.*?\.)?)(\d+)(?=\.)")
KINDS = {  # the first one that is found in a name counts
    "norm": r"norm|(?:^|[._])(?:ln|bn)_?\d*(?:_?f|$|\.)",
    "o": r"\bo_proj|out_proj|attn_output|att(?:entio)?n\.(?:output\.)?dense|attn\.c_proj"
    r"|W_O$|attention\.(?:out|wo|out_lin)$|Attention\.o$",
    "qkv": r"qkv|c_attn|query_key_value|in_proj",
    "q": r"\bq_(?:[ab]_)?proj|attn_q$|query$|(?:^|\.)q$|W_Q$|\.wq$|q_lin$",
    "k": r"\bkv?_(?:[ab]_)?proj|attn_k$|key$|(?:^|\.)k$|W_K$|\.wk$|k_lin$",
    "v": r"\bv_proj|attn_v$|value$|(?:^|\.)v$|W_V$|\.wv$|v_lin$",
    "gate_up": r"gate_up|mlp\.Wi$",
    "gate": r"gate|router|\.w1$|wi_0$|\.left$",
    "down": r"down|fc_?2|c_proj|4h_to_h|output\.dense|\.wo$|\.w2$|lin(?:ear)?2|fc_out|W_out",
    "up": r"(?:^|[._])up(?:[._]|$)|fc_?1|c_fc|h_to_4h|intermediate|\.w3$|\.wi(?:_1)?$"
    r"|lin(?:ear)?1|fc_in|W_in|\.right$",
    "head": r"unembed|W_U|lm_head|embed_out"
    r"|(?:^|\.)(?:output|score|classifier|head|fc|cls)\d?(?:\.|$)",
    "embedding": r"embed|embd|wte$|wpe$|W_E$|W_pos",
}
ROOTS = re.compile(  # what a model with a head, or around another one, puts before names
    r"^(?:(?:module|_orig_mod|base_model\.model|model|transformer|language_model|gpt_neox|bert"
    r"|roberta|electra|distilbert|vit|deit)\.)+"
)
GGUF = re.compile(r"(?:blk\.(\d+)\.)?([^.]+)(.*)")
GGUF_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.gate",
    **{f"attn_{letter}": f"self_attn.{letter}_proj" for letter in ("q", "k", "v", "qkv")},
    **{f"attn_{letter}_norm": f"self_attn.{letter}_norm" for letter in "qk"},
    **{f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
    **{f"ffn_{part}_shexp": f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")},
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "exp_probs_b": "mlp.gate.e_score_correction",
}
IN_MIXTRAL = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
# Numbers that follow from a configuration or from data: stored with the weights, never trained.
BUFFERS = re.compile(
    r"(^|\.)(inv_freq|masked_bias|causal_mask|position_ids|running_mean|running_var"
    r"|num_batches_tracked|(weight_)?g_idx)$"
)
MASK = re.compile(r"(^|\.)att(entio)?n\.bias$")  # (1, 1, positions, positions)
# codes of weights, one or several in each; 64 bits are of places
PACKED = ("int8", "uint8", "int16", "uint16", "int32", "uint32")
# types of numpy: objects, text, dates, records; V2 is how bfloat16 is written
NO_NUMBERS = re.compile(r"\[.*|[<>|=]?([OUSMm]|V(?!2$))\d*")
NUMBER = re.compile(r"(?<![^._\[/-])\d+(?![^._\]/-])")
FEWEST = 3  # tensors that are told as one
# Words of names of what comes first in a network, and last.
FIRST = {"encoder", "enc", "encode", "input", "in", "inp", "embed", "embedding", "first", "stem"}
LAST = {"decoder", "dec", "decode", "output", "out", "head", "classifier", "last", "final"}
LAST |= {"logits", "predictions"}


def kind_of(name: str, shape: tuple[int, ...]) -> str:
    """Return the kind of a tensor, such as "q"; "other" where its name does not say it."""
    stem = ENDING.sub("", name)
    found = next((kind for kind, pattern in KINDS.items() if re.search(pattern, stem)), "other")
    is_kernel = len(shape) > 2 and not is_stack(name, shape) and found in ("other", "down", "up")
    return "conv" if is_kernel else found


def is_stack(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether a tensor holds the matrices of several experts."""
    return len(shape) == 3 and ("experts" in name or "_exps" in name)


def canonical(name: str) -> str:
    """Return a name as Hugging Face has it, without roots."""
    found = GGUF.fullmatch(name)
    if found is not None and found[2] in GGUF_NAMES:
        layer = f"layers.{found[1]}." if found[1] else ""
        name = f"{layer}{GGUF_NAMES[found[2]]}{found[3]}"
    name = name.replace("e_score_correction_bias", "e_score_correction.bias")
    name = name.replace("embed_out", "lm_head")  # of GPT-NeoX on the disk
    name = name.replace("shared_experts", "shared_expert").replace("block_sparse_moe", "mlp")
    name = re.sub(r"(?<=\d\.)w[123](?=\.weight)", lambda m: IN_MIXTRAL[m[0]], name)
    return ROOTS.sub("", name)


def paired(model: Collection[str], baseline: Collection[str]) -> dict[str, str]:
    """Return name in the model → name in the baseline, of tensors that are called the same."""
    counts = [Counter(map(canonical, names)) for names in (model, baseline)]
    by_key, pairs = {canonical(name): name for name in baseline}, dict[str, str]()
    for name in model:
        key = canonical(name)
        if name in baseline:
            pairs[name] = name
        elif all(count[key] == 1 for count in counts):
            pairs[name] = by_key[key]
    return pairs


def holds_weights(name: str, axes: int, dtype: str) -> bool:
    """Tell whether a tensor holds weights, or their codes; GPT-2 calls its masks `attn.bias`."""
    mask = axes == 4 and MASK.search(name) is not None
    whole = dtype.startswith(("int", "uint", "bool", "complex")) or dtype in ("", "str", "string")
    kept = dtype in PACKED or not (whole or NO_NUMBERS.fullmatch(dtype))
    return kept and not mask and BUFFERS.search(name) is None


def fold_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Return pattern → names that differ in their numbers alone, where they are several."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(NUMBER.sub("*", name), []).append(name)
    found: dict[str, list[str]] = {}
    for pattern, members in alike.items():
        if len(members) < FEWEST:
            found |= {name: [name] for name in members}
        else:
            found[pattern] = members
    return found


def natural(name: str) -> list[tuple[bool, int | str]]:
    """Return a key that sorts layers.10 behind layers.9."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in parts if part]


def stage(name: str) -> int:
    """Return −1 for a name of what comes first in a network, 1 for the last, 0 for neither."""
    words = {*re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())}
    return bool(words & LAST) - bool(words & FIRST)
