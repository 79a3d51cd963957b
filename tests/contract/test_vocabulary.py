"""Guards against tokens that a language model would not give: gains, centring, heads, norms.

The oracle is transformers' own model, run by hand: norms and head called as modules, on the
residual stream alone. Names of norms are written down here again, and not taken from the table.
"""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny_language_models as tiny
from bilens.api.alignment import align_models
from bilens.api.comparison import vocabulary_of_model, whole_difference
from bilens.base import silent
from bilens.io.load import from_module, load
from bilens.io.vocabulary import Vocabulary, vocabulary_of
from bilens.records.tensor_changes import UpdateDirection
from contract.table import cell

pytest.importorskip("transformers")
WITHOUT = ("modernbert", *tiny.ENCODERS, "vit", "deit")  # no linear map from stream to tokens
KINDS = [kind for kind in tiny.FAMILIES if kind not in WITHOUT]
FINAL = {  # the last norm, below the base model
    **dict.fromkeys(("t5", "mt5", "umt5"), "decoder.final_layer_norm"),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt_neo", "gptj", "falcon"), "ln_f"),
    "gpt_neox": "final_layer_norm",
    "phi": "final_layernorm",
    "opt": "decoder.final_layer_norm",
}
# attention: what writes, what reads, the norm before it; MLP: the same; norms behind both
LLAMA = ("self_attn.o_proj", "self_attn.q_proj", "input_layernorm", "mlp.down_proj", "mlp.up_proj")
GEMMA = (*LLAMA, "pre_feedforward_layernorm", "post_attention_layernorm")
GPT = ("attn.attention.out_proj", "attn.attention.q_proj", "ln_1", "mlp.c_proj", "mlp.c_fc", "ln_2")
PARTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(KINDS, (*LLAMA, "post_attention_layernorm")),
    **dict.fromkeys(("gemma2", "gemma3_text"), (*GEMMA, "post_feedforward_layernorm")),
    "olmo2": (
        *("self_attn.o_proj", "self_attn.q_proj", "", "mlp.down_proj", "mlp.up_proj", ""),
        *("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
    "phi3": (
        *("self_attn.o_proj", "self_attn.qkv_proj", "input_layernorm"),
        *("mlp.down_proj", "mlp.gate_up_proj", "post_attention_layernorm"),
    ),
    "glm": (*LLAMA[:4], "mlp.gate_up_proj", "post_attention_layernorm"),
    "glm4": (
        *(*LLAMA[:4], "mlp.gate_up_proj", "post_attention_layernorm"),
        *("post_self_attn_layernorm", "post_mlp_layernorm"),
    ),
    "cohere": (*LLAMA, "input_layernorm"),
    "deepseek_v3": (
        *("self_attn.o_proj", "self_attn.q_a_proj", "input_layernorm"),
        *("mlp.down_proj", "mlp.up_proj", "post_attention_layernorm"),
    ),
    "gpt2": ("attn.c_proj", "attn.c_attn", "ln_1", "mlp.c_proj", "mlp.c_fc", "ln_2"),
    "gpt_bigcode": ("attn.c_proj", "attn.c_attn", "ln_1", "mlp.c_proj", "mlp.c_fc", "ln_2"),
    "gpt_neo": GPT,
    "gptj": ("attn.out_proj", "attn.q_proj", "ln_1", "mlp.fc_out", "mlp.fc_in", "ln_1"),
    "gpt_neox": (
        *("attention.dense", "attention.query_key_value", "input_layernorm"),
        *("mlp.dense_4h_to_h", "mlp.dense_h_to_4h", "post_attention_layernorm"),
    ),
    "falcon": (
        *("self_attention.dense", "self_attention.query_key_value", "input_layernorm"),
        *("mlp.dense_4h_to_h", "mlp.dense_h_to_4h", "input_layernorm"),
    ),
    "phi": (
        *("self_attn.dense", "self_attn.q_proj", "input_layernorm"),
        *("mlp.fc2", "mlp.fc1", "input_layernorm"),
    ),
    "starcoder2": (*LLAMA[:3], "mlp.c_proj", "mlp.c_fc", "post_attention_layernorm"),
    "opt": (
        *("self_attn.out_proj", "self_attn.q_proj", "self_attn_layer_norm"),
        *("fc2", "fc1", "final_layer_norm"),
    ),
    **dict.fromkeys(
        ("t5", "mt5", "umt5"),
        (
            *("layer.0.SelfAttention.o", "layer.0.SelfAttention.q", "layer.0.layer_norm"),
            *("layer.2.DenseReluDense.wo", "layer.2.DenseReluDense.wi_1", "layer.2.layer_norm"),
        ),
    ),
}
# a mixture writes through experts of several files or stacks, so that its attention alone is read
MIXTURES = ("mixtral", "olmoe", "gpt_oss")
SPARSE = (*MIXTURES, "qwen2_moe", "qwen3_moe", "deepseek_v3")
BLOCK = {"gpt_neox": "layers.", "opt": "decoder.layers.", "t5": "decoder.block."}
BLOCK |= {"mt5": "decoder.block.", "umt5": "decoder.block."}
OPTIONS: dict[str, dict[str, Any]] = {
    "granite": {"embedding_multiplier": 3.0, "logits_scaling": 4.0, "residual_multiplier": 0.5},
    "cohere": {"logit_scale": 0.3},
}


def made(kind: str) -> Any:
    return tiny.make(kind, **OPTIONS.get(kind, {}))


def block_of(model: Any, kind: str) -> nn.Module:
    """The last block; of a mixture whose first layer is dense, and of T5's one, the first."""
    stack = BLOCK.get(kind, "h." if hasattr(model.base_model, "h") else "layers.")
    first = "t5" in kind or kind in ("qwen2_moe", "qwen3_moe", "deepseek_v3")
    found: nn.Module = model.base_model.get_submodule(f"{stack}{0 if first else 1}")
    return found


def final_norm(model: Any, kind: str) -> Any:
    return model.base_model.get_submodule(FINAL.get(kind, "norm"))


@torch.no_grad()
def logits_by_hand(model: Any, kind: str, stream: Tensor) -> Tensor:
    """What the model's last norm and head make of a stream, before any soft cap."""
    x = final_norm(model, kind)(stream)
    if kind in ("t5", "umt5") and model.config.scale_decoder_outputs:
        x = x * model.config.d_model**-0.5
    y: Tensor = model.get_output_embeddings()(x)
    if kind == "granite":
        y = y / model.config.logits_scaling
    return y * model.config.logit_scale if kind == "cohere" else y


@torch.no_grad()
def logits_of_the_model(model: Any, kind: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Run the model itself: what enters its last norm, and its logits."""
    seen: list[Tensor] = []
    handle = final_norm(model, kind).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    extra = {"decoder_input_ids": tokens} if "t5" in kind else {}
    found: Tensor = model(input_ids=tokens, **extra).logits
    handle.remove()
    return seen[0], found


def stored(model: Any, folder: Path) -> Vocabulary:
    model.save_pretrained(folder)
    found = vocabulary_of_model(load(folder))
    assert found is not None
    return found


def logits(vocabulary: Vocabulary, x: Tensor) -> Tensor:
    """The formula of the docstring, in words of its own."""
    if vocabulary.ends.centred:
        x = x - x.mean(dim=-1, keepdim=True)
    x = x / x.square().mean(dim=-1, keepdim=True).sqrt()
    y = x @ vocabulary.unembedding.T.to(x)
    return y if vocabulary.bias is None else y + vocabulary.bias.to(x)


@cell("load file", "own object")
@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_gives_the_logits_of_the_model(kind: str, tmp_path: Path) -> None:
    """Of a folder, of the module in memory, and of a host that runs it."""
    model = made(kind)
    if kind in SPARSE:
        model.set_experts_implementation("eager")
    tokens = torch.tensor([[3, 7, 1, 12, 5]])
    stream, expected = logits_of_the_model(model, kind, tokens)
    if (cap := getattr(model.config, "final_logit_softcapping", None)) is not None:
        expected = cap * torch.atanh(expected / cap)
    in_memory = vocabulary_of(model)
    assert in_memory is not None
    for vocabulary in (stored(model, tmp_path), in_memory):
        assert torch.allclose(logits(vocabulary, stream), expected, atol=1e-4, rtol=1e-4)


@cell("load file", "own object")
@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_is_what_the_model_puts_into_its_stream(kind: str, tmp_path: Path) -> None:
    model = made(kind)
    embed: Any = model.get_input_embeddings()
    expected = embed(torch.arange(16)) * getattr(model.config, "embedding_multiplier", 1.0)
    found = stored(model, tmp_path).embedding
    assert torch.allclose(found.to(expected), expected, atol=1e-6)


@pytest.mark.parametrize("kind", WITHOUT)
def test_an_encoder_has_no_linear_map_to_tokens(kind: str, tmp_path: Path) -> None:
    tiny.write(tmp_path, kind)
    assert vocabulary_of_model(load(tmp_path)) is None


def standard(raw: Tensor) -> Tensor:
    scores = (raw - raw.mean()) / raw.std()
    return scores if scores.max() >= -scores.min() else -scores


def expected_tokens(raw: Tensor) -> list[tuple[str, float]]:
    best = standard(raw.double()).topk(5)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(f"#{token}", score) for token, score in pairs]


def listed(found: UpdateDirection) -> list[tuple[str, float]]:
    return [(one.token, one.score) for one in found.tokens]


def agree(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> bool:
    tokens = [token for token, _ in found] == [token for token, _ in expected]
    return tokens and all(
        math.isclose(a, b, abs_tol=2e-3) for (_, a), (_, b) in zip(found, expected, strict=True)
    )


@torch.no_grad()
def written_by_hand(model: Any, kind: str, direction: Tensor, behind: str) -> Tensor:
    """What a direction adds to the logits where nothing else is in the stream."""
    block = block_of(model, kind)
    direction = block.get_submodule(behind)(direction[None])[0] if behind else direction
    at = logits_by_hand(model, kind, torch.stack([1e4 * direction, 0 * direction]))
    return at[0] - at[1]


@torch.no_grad()
def read_by_hand(model: Any, kind: str, direction: Tensor, before: str) -> Tensor:
    """What a direction of a matrix's input gives for the embedding of each token."""
    rows = model.get_input_embeddings()(torch.arange(16))
    rows = rows * getattr(model.config, "embedding_multiplier", 1.0)
    if before:
        rows = block_of(model, kind).get_submodule(before)(rows)
    return rows @ direction.to(rows)


@cell("audit", "own object")
@cell("compare", "own object")
@pytest.mark.parametrize("kind", KINDS)
def test_planted_directions_are_the_tokens_of_the_model(kind: str, tmp_path: Path) -> None:
    """Rank 1 is added to four matrices: what writes and reads, of an attention and of an MLP."""
    base = made(kind)
    model, generator = copy.deepcopy(base), torch.Generator().manual_seed(len(kind))
    block = block_of(model, kind)
    parts = PARTS[kind]
    behind = parts[6:] or ("", "")
    expected: dict[str, Tensor] = {}
    for at, (writes, reads, before) in enumerate((parts[:3], parts[3:6])):
        if at and kind in MIXTURES:
            continue
        for path, is_writer in ((writes, True), (reads, False)):
            matrix: Any = block.get_submodule(path)
            turned = type(matrix).__name__ == "Conv1D"
            weight = matrix.weight.data.T if turned else matrix.weight.data
            u, v = (torch.randn(n, generator=generator).to(weight) for n in weight.shape)
            weight += torch.outer(u, v) / (u.norm() * v.norm())
            if is_writer:
                expected[path] = written_by_hand(model, kind, u, behind[at])
            else:
                expected[path] = read_by_hand(model, kind, v, before)
    for name, one in (("base", base), ("tuned", model)):
        one.save_pretrained(tmp_path / name)
    pair = align_models(load(tmp_path / "tuned"), load(tmp_path / "base"))
    found = whole_difference(pair, (), None, silent).whole
    assert found is not None
    directions = {one.name.removesuffix(".weight"): one for one in found.directions}
    assert len(directions) == len(expected)
    for path, raw in expected.items():
        (one,) = (d for name, d in directions.items() if name.endswith(f".{path}"))
        assert agree(listed(one), expected_tokens(raw)), (path, listed(one), expected_tokens(raw))


@cell("compare", "same function")
@pytest.mark.parametrize("kind", ["gemma2", "gpt_neox", "phi", "cohere", "gpt2"])
def test_modules_in_memory_say_what_their_folders_say(kind: str, tmp_path: Path) -> None:
    base = made(kind)
    model = copy.deepcopy(base)
    weight: Any = block_of(model, kind).get_submodule(PARTS[kind][3]).weight
    draw = torch.Generator().manual_seed(0)
    u, v = (torch.randn(n, generator=draw).to(weight) for n in weight.shape)
    weight.data += torch.outer(u, v)
    found = []
    for one in (model, base):
        one.save_pretrained(tmp_path / str(len(found)))
        found.append((from_module(one), load(tmp_path / str(len(found)))))
    whole = [
        whole_difference(align_models(*pair), (), None, silent).whole
        for pair in zip(*found, strict=True)
    ]
    assert whole[0] is not None
    assert whole[1] is not None
    (one,), (other,) = (each.directions for each in whole)
    assert agree(listed(one), listed(other))


GGUF = {  # our kind, llama.cpp's name, whether its gain is stored as it acts
    "llama": ("llama", 0.0),
    "gemma": ("gemma", 1.0),
    "gemma2": ("gemma2", 1.0),
    "granite": ("granite", 0.0),
    "cohere": ("command-r", 0.0),
    "olmo2": ("olmo2", 0.0),
}


@cell("load file", "own object")
@pytest.mark.parametrize("kind", GGUF)
def test_a_file_of_llama_cpp_has_the_vocabulary_of_its_model(kind: str, tmp_path: Path) -> None:
    """The converters of llama.cpp add 1 to the gains of gemma, and store no factor of its width."""
    gguf = pytest.importorskip("gguf")
    model, (name, more) = made(kind).float(), GGUF[kind]
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", name)
    writer.add_block_count(1)
    if kind == "granite":
        writer.add_embedding_scale(model.config.embedding_multiplier)
        writer.add_residual_scale(model.config.residual_multiplier)
    if kind in ("granite", "cohere"):
        scale = getattr(model.config, "logits_scaling", None) or model.config.logit_scale
        writer.add_logit_scale(scale)
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor(
        "output_norm.weight",
        state["model.norm.weight"] + state["model.norm.weight"].dtype.type(more),
    )
    if not model.config.tie_word_embeddings:
        writer.add_tensor("output.weight", state["lm_head.weight"])
    for part in ("gate", "up", "down"):
        writer.add_tensor(
            f"blk.0.ffn_{part}.weight", state[f"model.layers.0.mlp.{part}_proj.weight"]
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    vocabulary = vocabulary_of_model(load(tmp_path / "m.gguf"))
    assert vocabulary is not None
    stream = torch.randn(7, tiny.D, generator=torch.Generator().manual_seed(2))
    expected = logits_by_hand(model, kind, stream)
    assert torch.allclose(logits(vocabulary, stream), expected, atol=1e-4, rtol=1e-4)
    embedded: Any = model.get_input_embeddings()
    rows = embedded(torch.arange(16)) * getattr(model.config, "embedding_multiplier", 1.0)
    assert torch.allclose(vocabulary.embedding, rows, atol=1e-5)


@cell("load file", "own object")
@pytest.mark.parametrize("kind", ["gemma2", "gpt2", "phi"])
def test_an_adapter_has_the_vocabulary_of_the_merged_model(kind: str, tmp_path: Path) -> None:
    """Of a head that is not the embedding; PEFT's two models differ where it is."""
    peft = pytest.importorskip("peft")
    base = tiny.make(kind, **{**OPTIONS.get(kind, {}), "tie_word_embeddings": False}).float()
    base.save_pretrained(tmp_path / "base")
    table = {"gpt2": "wte"}.get(kind, "embed_tokens")
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=8, target_modules=[table]))
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=draw))
    model.save_pretrained(tmp_path / "adapter")
    merged = model.merge_and_unload()
    vocabulary = vocabulary_of_model(load(tmp_path / "adapter", base=tmp_path / "base"))
    assert vocabulary is not None
    stream = torch.randn(7, tiny.D, generator=torch.Generator().manual_seed(2))
    expected = logits_by_hand(merged, kind, stream)
    assert torch.allclose(logits(vocabulary, stream).float(), expected, atol=1e-4, rtol=1e-4)


SAID = {  # what a layer of each family has before it, in words that its own code says
    kind: ("LayerNorm" if FINAL.get(kind, "norm") != "norm" and "t5" not in kind else "RMSNorm")
    for kind in KINDS
}
SAID |= dict.fromkeys(("olmo", "stablelm", "cohere", "starcoder2", "nemotron"), "LayerNorm")
UNTRACED = ("mixtral", "olmoe", "gpt_oss", "opt")  # no MLP is found in the module without a run


@cell("load module", "own object")
@cell("load file", "own object")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "olmo2"])
def test_the_norm_before_a_layer_and_its_gain_are_said(kind: str, tmp_path: Path) -> None:
    """A gain of the norm scales what the layer reads, wherever it is stored."""
    model = made(kind)
    model.save_pretrained(tmp_path)
    found = [load(tmp_path)] if kind in UNTRACED else [load(tmp_path), from_module(model)]
    for one in found:
        for view in one.layers.values():
            assert SAID[kind] in view.about_input
            assert "gain" in view.about_input
            assert ("less one" in view.about_input) == ("gemma" in kind or kind == "nemotron")


@cell("load module", "own object")
def test_a_norm_of_any_module_is_said_where_the_layer_begins_behind_it() -> None:
    chain = nn.Sequential(nn.RMSNorm(6), nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))
    (view,) = from_module(chain).layers.values()
    assert view.about_input == "what 0 (RMSNorm) gives, its weights included"
    (bare,) = from_module(chain[1:]).layers.values()
    assert bare.about_input == ""
