"""The transformer: its logits from the definitions, padding, hook points, maps, loss, refusals."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import NotQuadraticError, ShapeError, UsageError
from bilens.nn import BilinearMLP, BilinearTransformer, tokens as tokens_module
from transformers_by_hand import KINDS, SIZES, logits_by_hand, make, some_tokens

POINTS = ["resid_pre", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post"]
TOKENS = some_tokens(3, 7)


@torch.no_grad()
def by_hand(model: BilinearTransformer, tokens: Tensor) -> Tensor:
    """The logits from the definitions, text after text."""
    config = model.config
    return torch.stack(
        [
            logits_by_hand(
                model.state_dict(),
                text,
                config.n_head,
                config.gate,
                config.mlp_type == "ordinary",
                config.rotary_base,
                config.norm_epsilon,
            )
            for text in tokens
        ]
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_definition(kind: str, training: bool) -> None:
    model = make(**KINDS[kind]).train(training)
    tokens = TOKENS[:1]
    torch.testing.assert_close(model(tokens), by_hand(model, tokens), rtol=0, atol=1e-12)


def test_a_text_does_not_see_what_follows() -> None:
    model, changed = make(), TOKENS.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 11
    before, after = model(TOKENS), model(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=0, atol=1e-14)
    assert not torch.isclose(before[:, 4:], after[:, 4:], rtol=1e-6).any()


MASKS = {
    "left": [0, 0, 1, 1, 1, 1],
    "right": [1, 1, 1, 1, 0, 0],
    "both ends": [0, 1, 1, 1, 1, 0],
    "in between": [1, 0, 1, 0, 1, 1],
    "all but one": [0, 0, 0, 1, 0, 0],
    "none": [1, 1, 1, 1, 1, 1],
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("place", MASKS)
def test_padding_changes_no_logit_of_a_real_token(place: str, training: bool) -> None:
    model = make().train(training)
    mask = torch.tensor([MASKS[place], [1] * 6], dtype=torch.bool)
    tokens = some_tokens(2, 6)
    logits = model(tokens, mask)
    assert bool(logits.isfinite().all())
    for text, real, found in zip(tokens, mask, logits, strict=True):
        torch.testing.assert_close(found[real], model(text[None, real])[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("place", MASKS)
def test_gradients_of_a_padded_batch_are_those_of_the_texts(place: str) -> None:
    model, mask = make(), torch.tensor([MASKS[place]], dtype=torch.bool)
    tokens = some_tokens(1, 6)
    padded = torch.autograd.grad(model(tokens, mask)[mask].sin().sum(), [*model.parameters()])
    alone = torch.autograd.grad(model(tokens[mask][None]).sin().sum(), [*model.parameters()])
    for mine, true in zip(padded, alone, strict=True):
        torch.testing.assert_close(mine, true)


@pytest.mark.parametrize("training", [True, False])
def test_every_point_can_be_captured_and_the_stream_adds_up(training: bool) -> None:
    model = make().train(training)
    names = [f"blocks.{layer}.{point}" for layer in (0, 1) for point in POINTS]
    logits, found = model.run(TOKENS, capture=names)
    assert torch.equal(logits, model(TOKENS))
    assert sorted(found) == sorted(names)
    assert {tuple(value.shape) for value in found.values()} == {(3, 7, 8)}
    assert torch.equal(found["blocks.0.resid_pre"], model.embed(TOKENS))
    assert torch.equal(found["blocks.1.resid_pre"], found["blocks.0.resid_post"])
    for block in ("blocks.0.", "blocks.1."):
        pre, added, mid, read, wrote, post = (found[block + point] for point in POINTS)
        torch.testing.assert_close(mid, pre + added)
        torch.testing.assert_close(post, mid + wrote)
        torch.testing.assert_close(read, mid / (mid.square().mean(-1, True) + 1e-5).sqrt())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("point", POINTS)
def test_what_is_replaced_takes_the_place_of_what_was_there(point: str, training: bool) -> None:
    """Replacing by a copy changes nothing; by zeros, what is downstream; a capture is after it."""
    model, name = make().train(training), f"blocks.0.{point}"
    same, _ = model.run(TOKENS, replace={name: torch.clone})
    assert torch.equal(same, model(TOKENS))
    names = [f"blocks.0.{other}" for other in POINTS]
    logits, found = model.run(TOKENS, capture=names, replace={name: torch.zeros_like})
    _, before = model.run(TOKENS, capture=names)
    assert float(found[name].abs().max()) == 0
    assert not torch.allclose(logits, model(TOKENS), atol=1e-3)
    for other in POINTS[: POINTS.index(point)]:
        assert torch.equal(found[other_name := f"blocks.0.{other}"], before[other_name])


def test_captured_activations_carry_gradients() -> None:
    model = make()
    logits, found = model.run(TOKENS, capture=["blocks.1.mlp_out"])
    (gradient,) = torch.autograd.grad(logits.sum(), found["blocks.1.mlp_out"])
    assert float(gradient.abs().max()) > 0


def test_activations_end_at_the_last_block_that_is_asked_for() -> None:
    model, calls = make(n_layer=3), []
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, index=index: calls.append(index))
    found = model.activations(TOKENS, ["blocks.1.mlp_in", "blocks.0.attn_out"])
    assert calls == [0, 1]
    _, all_found = model.run(TOKENS, capture=list(found))
    assert all(torch.equal(found[name], all_found[name]) for name in all_found)
    assert model.activations(TOKENS, []) == {}


@pytest.mark.parametrize("name", ["blocks.2.mlp_in", "blocks.00.mlp_in", "mlp_in", "blocks.0.", 3])
def test_a_point_that_does_not_exist_is_refused(name: Any) -> None:
    message = re.escape(
        f"{name!r} is no hook point: expected blocks.{{i}}.{{point}} with i below 2"
    )
    for run in (
        lambda: make().run(TOKENS, capture=[name]),
        lambda: make().run(TOKENS, replace={name: torch.clone}),
        lambda: make().activations(TOKENS, [name]),
    ):
        with pytest.raises(UsageError, match=message):
            run()


def test_a_text_is_not_taken_for_names() -> None:
    with pytest.raises(UsageError, match=r"capture is the text 'blocks.0.mlp_in'; expected names"):
        make().run(TOKENS, capture="blocks.0.mlp_in")


@pytest.mark.parametrize(
    ("edit", "came"), [(lambda x: x[:, :1], r"\(3, 1, 8\)"), (lambda _: None, "NoneType")]
)
def test_a_replacement_of_another_shape_is_refused(edit: Any, came: str) -> None:
    with pytest.raises(ShapeError, match=rf"mlp_out returned {came}; expected .* \(3, 7, 8\)"):
        make().run(TOKENS, replace={"blocks.0.mlp_out": edit})


@pytest.mark.parametrize("kind", ["bilinear", "biases", "tied"])
def test_the_map_of_a_layer_is_what_its_mlp_computes(kind: str) -> None:
    model = make(**KINDS[kind])
    for layer in (0, 1):
        names = [f"blocks.{layer}.mlp_in", f"blocks.{layer}.mlp_out"]
        _, found = model.run(TOKENS, capture=names)
        read, wrote = (found[name] for name in names)
        torch.testing.assert_close(model.layer_map(layer)(read), wrote, rtol=0, atol=1e-13)


def test_a_gated_or_ordinary_mlp_has_no_map() -> None:
    with pytest.raises(NotQuadraticError, match="has the gate 'silu'"):
        make(gate="silu").layer_map(0)
    with pytest.raises(NotQuadraticError, match=r"ordinary MLP with GELU .* mlp_type=\"gated\""):
        make(mlp_type="ordinary").layer_map(1)


@pytest.mark.parametrize("index", [-1, 2, "0", True, None])
def test_a_block_that_does_not_exist_is_refused(index: Any) -> None:
    with pytest.raises(UsageError, match=r"does not exist: there are 2, counted from 0"):
        make().layer_map(index)


def reference_loss(model: BilinearTransformer, texts: Tensor) -> Tensor:
    """Cross-entropy of the logits."""
    logits = model(texts[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_the_loss_and_its_gradients_are_those_of_the_logits(
    monkeypatch: pytest.MonkeyPatch, rows: int, dtype: torch.dtype, tied: bool
) -> None:
    monkeypatch.setattr(tokens_module, "CACHED_LOGITS", 0)
    monkeypatch.setattr(tokens_module, "FEWEST_ROWS", rows)
    model, texts = make(tied=tied, dtype=dtype), some_tokens(3, 8)
    ours, theirs = model.next_token_loss(texts), reference_loss(model, texts)
    assert ours.dtype is dtype
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(model.next_token_loss(texts), theirs)
    for mine, true in zip(
        torch.autograd.grad(3 * ours, [*model.parameters()]),
        torch.autograd.grad(3 * theirs, [*model.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(mine, true)


def test_the_loss_takes_the_precision_of_autocast() -> None:
    model, texts = make(dtype=torch.float32), some_tokens(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = model.next_token_loss(texts), reference_loss(model, texts)
    assert ours.dtype is torch.float32
    assert float((ours - theirs).detach().abs()) < 1e-4
    assert float((ours - reference_loss(model, texts)).detach().abs()) > 1e-6  # it was no float32
    ours.backward()
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in model.parameters())


@pytest.mark.parametrize("place", MASKS)
def test_padding_is_neither_read_nor_predicted(place: str) -> None:
    """Pairs of neighbours count: a token behind a gap has nobody beside it to predict it."""
    model, mask = make(), torch.tensor([MASKS[place], [1] * 6], dtype=torch.bool)
    texts = some_tokens(2, 6)
    known = mask[:, :-1] & mask[:, 1:]
    logits = model(texts[:, :-1], mask[:, :-1])
    expected = functional.cross_entropy(logits[known], texts[:, 1:][known])
    torch.testing.assert_close(model.next_token_loss(texts, mask), expected)


def test_a_loss_without_anything_to_predict_is_refused() -> None:
    with pytest.raises(UsageError, match="no token to predict"):
        make().next_token_loss(some_tokens(2, 1))
    with pytest.raises(UsageError, match="no token to predict"):
        make().next_token_loss(some_tokens(1, 3), torch.tensor([[True, False, True]]))
    with pytest.raises(UsageError, match=r"expected at least one text of 1 to 8 tokens"):
        make().next_token_loss(some_tokens(2, 9))


BAD_TOKENS: dict[str, tuple[Any, type[Exception], str]] = {
    "too long": (some_tokens(1, 8), UsageError, r"shape \(1, 8\); .* 1 to 7 tokens \(n_ctx\)"),
    "empty": (some_tokens(1, 0), UsageError, r"shape \(1, 0\); expected at least one text"),
    "no text": (some_tokens(0, 3), UsageError, r"shape \(0, 3\); expected at least one text"),
    "one text alone": (some_tokens(3), ShapeError, r"shape \(3,\); expected int64 or int32 of sh"),
    "floats": (torch.zeros(1, 3), ShapeError, "tokens are a tensor of dtype torch.float32"),
    "truths": (torch.zeros(1, 3, dtype=torch.bool), ShapeError, "dtype torch.bool"),
    "a list": ([[1, 2]], ShapeError, "tokens are a list; expected int64"),
    "a token too large": (torch.tensor([[3, 11]]), UsageError, "range from 3 to 11; .* 0 to 10"),
    "a negative token": (torch.tensor([[-1, 2]]), UsageError, "range from -1 to 2"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_what_are_no_tokens_is_refused(name: str) -> None:
    tokens, error, message = BAD_TOKENS[name]
    model = make()
    for use in (model, lambda t: model.activations(t, []), lambda t: model.generate(t, 1)):
        with pytest.raises(error, match=message):
            use(tokens)


@pytest.mark.parametrize(
    "mask", [torch.ones(3, 7), torch.ones(3, 6, dtype=torch.bool), [[True] * 7] * 3], ids=str
)
def test_a_mask_that_does_not_fit_is_refused(mask: Any) -> None:
    with pytest.raises(
        ShapeError, match=r"padding_mask must be a tensor of bool and shape \(3, 7\)"
    ):
        make()(TOKENS, mask)


def test_tokens_of_32_bits_are_tokens_too() -> None:
    assert torch.equal(make()(TOKENS.int()), make()(TOKENS))
    assert torch.equal(make().next_token_loss(TOKENS.int()), make().next_token_loss(TOKENS))


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"{name} = {size!r}": ({name: size}, f"{name} must be an integer of at least 1")
        for name in SIZES
        for size in (0, -1, 2.0, True, None)
    },
    "odd heads": ({"n_head": 8}, "d_model is 8 and n_head is 8: each head needs an even width"),
    "heads that do not divide": ({"n_head": 3}, "d_model must be a multiple of 6"),
    "an unknown gate": ({"gate": "tanh"}, "gate='tanh' is not known: use None .* relu, gelu, silu"),
    "an unknown MLP": ({"mlp_type": "MoE"}, "mlp_type='MoE' is not known"),
    "an ordinary MLP with a gate": (
        {"mlp_type": "ordinary", "gate": "relu"},
        "gate='relu' and d_hidden=6 do not fit an ordinary MLP",
    ),
    "an ordinary MLP of half a neuron": (
        {"mlp_type": "ordinary", "d_hidden": 5},
        "d_hidden=5 do not fit an ordinary MLP",
    ),
    "a base of zero": ({"rotary_base": 0}, "rotary_base must be a positive number, got 0"),
    "a base that is a text": ({"rotary_base": "1"}, "rotary_base must be a positive number"),
    "an epsilon below zero": ({"norm_epsilon": -1e-5}, "norm_epsilon must be a positive number"),
    "an epsilon of NaN": ({"norm_epsilon": float("nan")}, "norm_epsilon must be a positive number"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_sizes_that_fit_nothing_are_refused(name: str) -> None:
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(UsageError, match=message):
        BilinearTransformer(**{**SIZES, **arguments})


def test_an_ordinary_model_has_as_many_weights() -> None:
    counts = {
        kind: sum(p.numel() for p in make(mlp_type=kind).parameters())
        for kind in ("gated", "ordinary")
    }
    assert counts["gated"] == counts["ordinary"]


def test_weights_at_the_start() -> None:
    """Normal with deviation 0.02, what adds to the stream smaller by √(2 n_layer), biases zero."""
    torch.manual_seed(0)
    model = BilinearTransformer(500, 64, 128, 4, 4, 8, bias=True)
    for name, parameter in model.requires_grad_(False).named_parameters():
        if name.endswith("bias"):
            assert float(parameter.abs().max()) == 0
            continue
        adds = name.endswith(("attention.out.weight", "mlp.down.weight"))
        expected = 0.02 / 8**0.5 if adds else 0.02
        assert float(parameter.std()) == pytest.approx(expected, rel=0.05), name
        assert float(parameter.mean().abs()) < expected / 10, name


def test_a_tied_head_is_the_embedding_wherever_the_model_goes() -> None:
    model = make(tied=True)
    assert "unembed.weight" not in model.state_dict()
    for twin in (model, copy.deepcopy(model), make(tied=True).float()):
        assert twin.unembed.weight is twin.embed.weight
    assert copy.deepcopy(model).embed.weight is not model.embed.weight
    model(TOKENS).sum().backward()
    assert model.embed.weight.grad is not None


def test_a_run_without_gradients_leaves_nothing_behind_that_training_trips_over() -> None:
    model = make(n_ctx=7, rotary_base=77.0)
    with torch.inference_mode():
        model(TOKENS)
    model(TOKENS).sum().backward()


def test_an_mlp_of_others_in_its_place_is_found() -> None:
    model = make()
    model.blocks[0].mlp = BilinearMLP(8, 3).double()
    assert [mlp.left.out_features for mlp in model.mlps] == [3, 6]


def test_saved_names_are_a_promise() -> None:
    """A file written today loads in every later release."""
    block = ["attention.out.weight", "attention.qkv.weight"]
    mlp = ["mlp.down.weight", "mlp.left.weight", "mlp.right.weight"]
    blocks = [f"blocks.{i}.{name}" for i in (0, 1) for name in block + mlp]
    assert sorted(make().state_dict()) == sorted([*blocks, "embed.weight", "unembed.weight"])
    assert sorted(make(mlp_type="ordinary", tied=True, bias=True, n_layer=1).state_dict()) == [
        "blocks.0.attention.out.weight",
        "blocks.0.attention.qkv.weight",
        "blocks.0.mlp.down.bias",
        "blocks.0.mlp.down.weight",
        "blocks.0.mlp.up.bias",
        "blocks.0.mlp.up.weight",
        "embed.weight",
    ]
