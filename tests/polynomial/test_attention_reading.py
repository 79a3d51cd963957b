"""Heads read from weights against dense arrays, loops, and the attention that transformers runs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
import tiny_language_models as tiny
from bilens.base.errors import (
    BilensError,
    CheckpointError,
    NotQuadraticError,
    NumericalError,
    ShapeError,
    UsageError,
)
from bilens.io import attention_tensors
from bilens.polynomial import largest_products as products
from bilens.polynomial.attention_head import AttentionHead
from bilens.polynomial.score_form import ScoreForm
from builders import randn

WIDE: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
GPT: dict[str, Any] = {"hidden_size": 32, "n_embd": 32, "num_attention_heads": 4, "n_head": 4}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {**WIDE, "attention_bias": True},
    "mistral": {**WIDE, "sliding_window": 3},
    "mixtral": WIDE,
    "qwen2": WIDE,
    "qwen2_moe": WIDE,
    "smollm3": {**WIDE, "no_rope_layers": [1, 0]},
    "gemma": {**WIDE, "head_dim": 8},
    "starcoder2": WIDE,
    "phi3": WIDE,
    "nemotron": WIDE,
    "stablelm": WIDE,
    "phi": {**WIDE, "num_key_value_heads": 4},
    "gpt2": {**GPT, "scale_attn_by_inverse_layer_idx": True},
    "gpt_neo": {
        **WIDE,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 3,
    },
    "gpt_neox": {**WIDE, "num_key_value_heads": 4},
    "opt": {**WIDE, "word_embed_proj_dim": 32},
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 8,
}


def model_of(kind: str, **more: Any) -> Any:
    found = tiny.make(kind, **{**MODELS[kind], **more})
    found.set_attn_implementation("eager")  # which returns the pattern
    if "moe" in kind or kind == "mixtral":
        found.set_experts_implementation("eager")  # grouped products know no float64
    return found


def transformer(pairs: int = 2, decay: bool = False) -> bl.nn.PolynomialTransformer:
    torch.manual_seed(0)
    found = bl.nn.PolynomialTransformer(9, 16, 8, 2, 2, 12, pairs=pairs, decay=decay).double()
    with torch.no_grad():
        for part in found.parameters():
            part.normal_(0, 0.5)
    return found


def random_form(rank: int, width: int) -> ScoreForm:
    parts = (randn(rank, width, seed=at) for at in range(2))
    return ScoreForm(*parts, randn(rank, seed=2), randn(rank, seed=3))


@pytest.mark.parametrize("kind", MODELS)
def test_patterns_and_outputs_are_those_of_transformers(kind: str) -> None:
    """In both blocks: the weights that eager attention returns, and the sum of all heads."""
    model = model_of(kind)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    for layer in range(2):
        first = bl.read_attention(model, layer, 0)
        norm, attention, out = paths_of(model, layer)
        kept: dict[str, Any] = {}
        model.get_submodule(norm).register_forward_pre_hook(lambda _, x, k=kept: k.update(x=x[0]))
        model.get_submodule(attention).register_forward_hook(lambda *io, k=kept: k.update(y=io[2]))
        model(ids)
        kept = {**kept}  # later runs are of others
        stream = kept["x"][0]
        tokens = first.tokens
        assert tokens is not None
        stream = stream - stream.mean(dim=-1, keepdim=True) if tokens.centred else stream
        x = stream / (stream.square().mean(dim=-1, keepdim=True) + tokens.epsilon).sqrt()
        total = torch.zeros_like(x)
        for head in range(kept["y"][1].shape[1]):
            found = bl.read_attention(model, layer, head)
            assert found.checked_against == "the module itself, as it runs"
            torch.testing.assert_close(
                found.pattern(x), kept["y"][1][0, head], atol=1e-6, rtol=1e-5
            )
            total += found.pattern(x) @ found.write(x)
        bias = getattr(model.get_submodule(out), "bias", None)
        total = total if bias is None else total + bias
        torch.testing.assert_close(total, kept["y"][0][0], atol=1e-5, rtol=1e-5)
        if layer == 0:
            absolute = tokens.positions is not None
            alone = [
                first.stream_of(ids[0, at : at + 1], at if absolute else None)
                for at in range(ids.shape[1])
            ]
            torch.testing.assert_close(torch.cat(alone), x, atol=1e-7, rtol=1e-6)


def paths_of(model: Any, layer: int) -> tuple[str, str, str]:
    layout = attention_tensors.LAYOUTS[model.config.model_type]
    norm = next(n for n, _ in model.named_modules() if n.endswith(f".{layer}.{layout.norm}"))
    block = norm.removesuffix(f".{layout.norm}")
    return norm, f"{block}.{layout.inner}", f"{block}.{layout.inner}.{layout.out}"


def test_scores_are_those_of_a_loop_over_positions() -> None:
    """Of a Llama with biases: turn query and key of each head by hand, pair by pair."""
    model = model_of("llama")
    found, layer = bl.read_attention(model, 1, 3), model.model.layers[1]
    x, gain = randn(6, 32), layer.input_layernorm.weight
    query, key = (
        (x * gain) @ part.weight[rows].T + part.bias[rows]
        for part, rows in (
            (layer.self_attn.q_proj, slice(24, 32)),
            (layer.self_attn.k_proj, slice(8, 16)),  # the second of two groups
        )
    )

    def turned(row: Tensor, place: int) -> Tensor:
        made = row.clone()
        for pair in range(4):
            angle = place * 10000 ** (-pair / 4)
            a, b = row[pair], row[pair + 4]
            made[pair] = a * math.cos(angle) - b * math.sin(angle)
            made[pair + 4] = a * math.sin(angle) + b * math.cos(angle)
        return made

    for at in range(6):
        for before in range(at + 1):
            by_hand = turned(query[at], at) @ turned(key[before], before) / math.sqrt(8)
            form = found.form(at - before)
            score = form(x[at : at + 1], x[before : before + 1])[0, 0]
            torch.testing.assert_close(score, by_hand, atol=1e-6, rtol=1e-6)
            dense = form.query.T @ form.key
            split = x[at] @ dense @ x[before] + form.query_term @ x[at] + form.key_term @ x[before]
            torch.testing.assert_close(split + form.constant, score, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("rank", "width"), [(2, 7), (3, 5), (4, 4)])
def test_both_parts_are_those_of_the_dense_matrix(rank: int, width: int) -> None:
    form = random_form(rank, width)
    dense = form.query.T @ form.key
    symmetric = form.symmetric_part()
    vectors = symmetric.eigenvectors
    rebuilt = vectors.T * symmetric.eigenvalues @ vectors
    torch.testing.assert_close(rebuilt, (dense + dense.T) / 2)
    sizes, u, v = form.antisymmetric_part()
    rebuilt = (u.T * sizes) @ v - (v.T * sizes) @ u
    torch.testing.assert_close(rebuilt, (dense - dense.T) / 2)
    assert bool((sizes.diff() <= 0).all())
    rows = torch.cat([u, v])[torch.cat([sizes, sizes]) > 1e-9]
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)).double())
    largest = (u.square() + v.square()).argmax(dim=1, keepdim=True)
    assert bool((u.gather(1, largest) > 0).all())
    assert float(v.gather(1, largest).abs().max()) < 1e-12


@pytest.mark.parametrize("decay", [False, True])
def test_two_pairs_are_each_a_form_and_multiplied(decay: bool) -> None:
    model = transformer(decay=decay)
    kept: dict[str, Tensor] = {}
    part: Any = model.blocks[1]
    part.attention_scale.register_forward_pre_hook(lambda _, x: kept.update(x=x[0][0]))
    part.attention.register_forward_hook(lambda *io: kept.update(y=io[2][0]))
    heads = [bl.read_attention(model, 1, head) for head in range(2)]
    model(torch.tensor([[3, 1, 4, 1, 5]]))
    total = sum(head.pattern(kept["x"]) @ head.write(kept["x"]) for head in heads)
    torch.testing.assert_close(total, kept["y"], atol=1e-7, rtol=1e-6)
    one, two = (heads[0].form(2, pair)(kept["x"], kept["x"]) for pair in range(2))
    torch.testing.assert_close(heads[0].scores(kept["x"], kept["x"], 2), one * two)
    torch.testing.assert_close(heads[0].pattern(kept["x"])[4, 2], (one * two)[4, 2])
    network = bl.polynomial_network(model)
    same = bl.read_attention(network, 1, 0)
    assert same.checked_against == network.checked_against
    torch.testing.assert_close(same.form(1).query, heads[0].form(1).query)


@pytest.mark.parametrize("kind", ["llama", "polynomial"])
def test_top_pairs_are_the_first_of_all(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "BLOCK", 4)
    model = transformer() if kind == "polynomial" else model_of(kind)
    found = bl.read_attention(model, 1, 1)
    x = found.stream_of(torch.arange(model.config.vocab_size))
    scores = found.scores(x, x, 3)
    if found.softmax:
        scores = scores - scores.mean(dim=1, keepdim=True)  # over the keys of each query
    tokens, values = found.top_token_pairs(7, 3)
    torch.testing.assert_close(values, scores.flatten().topk(7).values)
    torch.testing.assert_close(scores[tuple(tokens.T)], values)


@pytest.mark.parametrize("width", [1, 4])  # of one number, every product reaches its bound
def test_blocks_that_are_left_out_hold_nothing(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows of unlike lengths, and where fewer pairs are there than are asked for."""
    monkeypatch.setattr(products, "BLOCK", 3)
    for seed in range(0, 40, 4):
        first, second = (randn(20, width, seed=seed + at) for at in range(2))
        first = first * 2.0 ** randn(20, 1, seed=seed + 2)
        for absolute in (False, True):
            pairs, values = products.largest_products([first], [second], 9, absolute=absolute)
            dense = first @ second.T
            expected = (dense.abs() if absolute else dense).flatten().topk(9).values
            torch.testing.assert_close(values.abs() if absolute else values, expected)
            torch.testing.assert_close(dense[tuple(pairs.T)], values)
    assert len(products.largest_products([first[:2]], [second[:2]], 9)[1]) == 4


def test_tokens_and_positions_add_up_to_the_scores_that_run() -> None:
    """Of GPT-2's first block: logarithms of its pattern are its scores but for a sum."""
    model = model_of("gpt2")
    ids, found = torch.tensor([3, 1, 4, 1, 5, 9]), bl.read_attention(model, 0, 2)
    pattern = model(ids[None], output_attentions=True).attentions[0][0, 2]
    for key in range(4):
        at, zero = (
            sum(found.split_scores(ids[5:], ids[place : place + 1], 5, place).values())
            for place in (key, 0)
        )
        expected = (pattern[5, key] / pattern[5, 0]).log()
        torch.testing.assert_close((at - zero)[0, 0], expected, atol=1e-6, rtol=1e-6)
    parts = found.split_scores(ids, ids, 5, 3)
    assert [*parts] == [
        *("token–token", "token–position", "position–token", "position–position", "biases")
    ]
    whole = found.form()(found.stream_of(ids, 5), found.stream_of(ids, 3))
    torch.testing.assert_close(sum(parts.values()), whole)
    assert not torch.allclose(parts["token–position"], parts["position–token"])
    near = found.top_token_pairs(3, distance=2, position=5)[1]
    everything = torch.arange(16)
    scores = found.form()(found.stream_of(everything, 5), found.stream_of(everything, 3))
    scores = scores - scores.mean(dim=1, keepdim=True)
    torch.testing.assert_close(near, scores.flatten().topk(3).values)


def test_what_is_written_is_the_map_and_its_logits() -> None:
    model = model_of("llama")
    found = bl.read_attention(model, 0, 1)
    layer, x = model.model.layers[0], found.stream_of(torch.tensor([2, 7]))
    value = (x * layer.input_layernorm.weight) @ layer.self_attn.v_proj.weight[:8].T
    value = value + layer.self_attn.v_proj.bias[:8]
    made = value @ layer.self_attn.o_proj.weight[:, 8:16].T
    torch.testing.assert_close(found.write(x), made)
    logits = made @ (model.lm_head.weight * model.model.norm.weight).T
    logits = logits - logits.mean(dim=1, keepdim=True)
    tokens, values = found.top_written([2, 7], 4)
    torch.testing.assert_close(values, logits.topk(4).values)
    torch.testing.assert_close(logits.gather(1, tokens), values)
    dense = torch.linalg.svdvals(found.out @ found.value)[:8]
    torch.testing.assert_close(found.singular_values, dense)
    assert found.tokens is not None
    unembedding = found.tokens.unembedding
    assert unembedding is not None
    everything = found.stream_of(torch.arange(16))
    whole = (unembedding - unembedding.mean(dim=0)) @ found.out @ found.value @ everything.T
    eigenvalues = torch.linalg.eigvals(whole)  # tokens × tokens, never formed by the head
    score = eigenvalues.real.sum() / eigenvalues.abs().sum()
    assert found.copying_score == pytest.approx(float(score), abs=1e-8)


def test_files_are_read_alike_and_not_verified(tmp_path: Path) -> None:
    translated = {"attention_bias": False}  # into a module of ours, which is not the owner's
    kinds = ("llama", "gpt2", "gpt_neox", "opt", "gpt_neo", "smollm3", "mistral")
    for kind, how in (("llama", translated), *((kind, {}) for kind in kinds)):
        model = model_of(kind, **how)
        folder = tmp_path / f"{kind} {len(how)}"
        model.save_pretrained(folder)
        found, here = (bl.read_attention(bl.load(folder), 1, 2), bl.read_attention(model, 1, 2))
        assert found.checked_against == ""
        assert "Not verified" in found.statement
        assert "softmax" in found.statement
        assert (found.window, found.reads) == (here.window, here.reads)
        for name in ("query", "key", "query_bias", "key_bias"):
            mine, theirs = (getattr(one.form(2), name) for one in (found, here))
            torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(found.write(randn(3, 32)), here.write(randn(3, 32)))


def test_scaled_angles_are_those_of_the_module(tmp_path: Path) -> None:
    model = model_of("llama", rope_parameters=YARN)
    assert bl.read_attention(model, 0, 0).checked_against  # with the scale of what is turned
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="'yarn', whose angles the module that runs knows"):
        bl.read_attention(bl.load(tmp_path), 0, 0)
    with pytest.raises(CheckpointError, match="'dynamic', whose angles may depend on the text"):
        bl.read_attention(model_of("llama", rope_parameters={**YARN, "rope_type": "dynamic"}), 0, 0)


def test_another_function_is_refused_though_its_scores_are_tiny() -> None:
    """Weights of 1e-3 give patterns that are even to 1e-6: inputs are made larger to compare."""
    model = model_of("llama")
    for layer in model.model.layers:
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            part.weight.data *= 1e-3
            part.bias.data *= 1e-3
    bl.read_attention(model, 1, 1)
    model.model.rotary_emb.inv_freq *= 2
    with pytest.raises(NumericalError, match=r"head \d of model\.layers\.1\.self_attn"):
        bl.read_attention(model, 1, 1)


@pytest.mark.parametrize(
    ("kind", "change"), [("gpt_neox", {"by_head": False}), ("llama", {"rotary": 0.5}),
                         ("gpt2", {"scaled": False}), ("mistral", {"windowed": False})]
)  # fmt: skip
def test_a_wrong_row_of_the_table_is_noticed(
    kind: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    row = replace(attention_tensors.LAYOUTS[kind], **change)
    monkeypatch.setitem(attention_tensors.LAYOUTS, kind, row)
    with pytest.raises(NumericalError):
        bl.read_attention(model_of(kind), 1, 0)


def test_hooks_that_act_are_refused_and_others_are_not() -> None:
    model = model_of("llama")
    attention = model.model.layers[0].self_attn
    handle = attention.register_forward_hook(lambda *_: None)
    assert bl.read_attention(model, 0, 0).checked_against
    handle.remove()
    handle = attention.register_forward_hook(lambda *io: (2 * io[2][0], io[2][1]))
    with pytest.raises(UsageError, match="hooks that give another answer"):
        bl.read_attention(model, 0, 0)
    handle.remove()
    attention.o_proj.forward = lambda x: nn.functional.relu(attention.o_proj.weight @ x[..., None])[
        ..., 0
    ]
    with pytest.raises(BilensError):
        bl.read_attention(model, 0, 0)


def test_sixteen_bits_are_not_said_to_be_compared() -> None:
    assert bl.read_attention(model_of("llama").to(torch.bfloat16), 0, 0).checked_against == ""


def test_what_is_read_stays_as_it_was() -> None:
    model = model_of("gpt2")
    found = bl.read_attention(model, 0, 0)
    before = found.top_token_pairs(3)[1], found.write(randn(2, 32))
    with torch.no_grad():
        for part in model.parameters():
            part.zero_()
    torch.testing.assert_close((found.top_token_pairs(3)[1], found.write(randn(2, 32))), before)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (lambda: (tiny.make("qwen3"), 0, 0), NotQuadraticError, "q_norm.* norms queries or keys"),
        (lambda: (tiny.make("falcon"), 0, 0), CheckpointError, "'falcon' is not read.*ALiBi"),
        (lambda: (tiny.make("gptj"), 0, 0), CheckpointError, "'gptj' is not read.*It is read of"),
        (lambda: (nn.Linear(2, 2), 0, 0), UsageError, r"got a Linear: pass bl\.load"),
        (lambda: ("model", 0, 0), UsageError, r"got 'model': pass bl\.load\(path\)"),
        (lambda: (model_of("llama"), 2, 0), UsageError, "layer 2 does not exist: there are 2"),
        (lambda: (model_of("llama"), 0, 4), UsageError, "head 4 does not exist: there are 4"),
        (lambda: (transformer(), -1, 0), UsageError, "layer -1 does not exist"),
        (lambda: (transformer(), 0, True), UsageError, "head True does not exist"),
    ],
)
def test_each_mistake_is_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bl.read_attention(*given())


def test_questions_that_a_head_cannot_answer_are_refused() -> None:
    found = bl.read_attention(model_of("llama"), 0, 0)
    with pytest.raises(UsageError, match="the model adds 0 vectors of positions"):
        found.top_token_pairs(3, position=5)
    with pytest.raises(UsageError, match="one pair of query and key and vectors of positions"):
        found.split_scores(torch.tensor([1]), torch.tensor([1]), 2, 1)
    with pytest.raises(UsageError, match="tokens run from 99 to 99"):
        found.top_written([99])
    with pytest.raises(ShapeError, match="whole numbers"):
        found.stream_of(torch.tensor([0.5]))
    with pytest.raises(UsageError, match="distance"):
        found.form(-1)
    with pytest.raises(UsageError, match="pair 1 does not exist"):
        found.form(1, pair=1)
    form = found.form(0)
    blind = AttentionHead(0, 0, (form,), found.value, found.value_bias, found.out)
    with pytest.raises(UsageError, match="the tokens of the model are not known"):
        blind.top_token_pairs()


MISSING = {
    "mixtral": "rope_parameters",
    "smollm3": "no_rope_layers",
    "mistral": "sliding_window",
    "gpt_neo": "attention_layers",
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_configuration_that_leaves_something_out_is_refused(kind: str, tmp_path: Path) -> None:
    """Seen: another base of the angles, or no window, than transformers takes for it."""
    model_of(kind).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    for key in (MISSING[kind], "layer_types"):
        content.pop(key, None)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="the configuration does not say"):
        bl.read_attention(bl.load(tmp_path), 1, 0)


def test_norms_behind_the_attention_are_refused() -> None:
    with pytest.raises(CheckpointError, match="a opt with these settings is not read"):
        bl.read_attention(model_of("opt", do_layer_norm_before=False), 0, 0)


def test_where_all_positions_hold_the_same_nothing_was_compared() -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[:] = model.model.embed_tokens.weight[0].clone()
    assert bl.read_attention(model, 0, 0).checked_against == ""


@pytest.mark.parametrize("kind", ["mistral", "polynomial"])
def test_distances_at_which_nothing_is_seen_are_refused(kind: str) -> None:
    found = bl.read_attention(transformer() if kind == "polynomial" else model_of(kind), 0, 0)
    limit = 12 if kind == "polynomial" else 3
    found.top_token_pairs(3, distance=limit - 1)
    with pytest.raises(UsageError, match=f"sees keys up to {limit - 1} positions back"):
        found.top_token_pairs(3, distance=limit)


def test_streams_of_any_float_type_are_taken_and_other_widths_refused() -> None:
    found, x = bl.read_attention(model_of("llama"), 0, 0), randn(3, 32)
    torch.testing.assert_close(found.pattern(x.float()), found.pattern(x), rtol=1e-5, atol=1e-6)
    for call in (found.pattern, lambda x: found.scores(x, x)):
        with pytest.raises(ShapeError, match=r"expected \(n, 32\)"):
            call(randn(3, 31))
    with pytest.raises(UsageError, match="k"):
        found.top_written([1], k=-1)


def test_small_products_are_found_too() -> None:
    u, v = randn(4000, 8) * 1e-25, randn(3000, 8, seed=1) * 1e-25
    found, values = products.largest_products([u], [v], 50)
    torch.testing.assert_close(values, (u @ v.T).flatten().topk(50).values, rtol=1e-12, atol=0)
    again = (u[found[:, 0]] * v[found[:, 1]]).sum(dim=1)
    torch.testing.assert_close(again, values, atol=0, rtol=1e-9)
