"""Transformers of the official repository: the same function, the scale of attention folded in.

The file is built here by the names and shapes of that repository, and what it computes is written
from its definition."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bilens.base.errors import CheckpointError, UsageError
from bilens.io.load import load
from bilens.nn import BilinearTransformer
from models import edit_config
from transformers_by_hand import attention, mlp, normalised, some_tokens

V, D, H, LAYERS, HEADS, CONTEXT = 11, 8, 6, 3, 2, 7
CONFIG = {
    "n_head": HEADS,
    "n_layer": LAYERS,
    "n_ctx": CONTEXT,
    "d_model": D,
    "d_hidden": H,
    "bilinear": True,
    "gate": None,
    "bias": False,
    "normalization": True,
    "tokenizer": "ts-4096",
    "repo": None,
    "architectures": ["Transformer"],
    "torch_dtype": "float32",
    "transformers_version": "4.47.0",
}


def official(bias: bool = False, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the official repository."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (noise / math.sqrt(shape[-1])).to(dtype)

    tensors = {"transformer.wte.weight": normal(V, D), "lm_head.weight": normal(V, D)}
    for index in range(LAYERS):
        block = f"transformer.h.{index}."
        tensors[f"{block}attn.qkv.weight"] = normal(3 * D, D)
        tensors[f"{block}attn.o.weight"] = normal(D, D)
        tensors[f"{block}attn.rotary.inv_freq"] = torch.tensor([1.0, 0.01])  # base 10000, width 4
        tensors[f"{block}mlp.w.weight"] = normal(2 * H, D)
        tensors[f"{block}mlp.p.weight"] = normal(D, H)
        if bias:
            tensors[f"{block}mlp.w.bias"] = normal(2 * H)
            tensors[f"{block}mlp.p.bias"] = normal(D)
    return tensors


def write(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    """A folder with these weights."""
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    save_file(tensors, folder / "model.safetensors")
    return folder


def by_hand(tensors: dict[str, Tensor], tokens: Tensor, gate: str | None) -> Tensor:
    """x ← x + attention(n x) / √(2 layers), x ← x + p(gate(w x)₁ ∘ (w x)₂), logits = head(n x)."""
    x = tensors["transformer.wte.weight"][tokens]
    for index in range(LAYERS):
        theirs = {
            name.removeprefix(f"transformer.h.{index}."): value
            for name, value in tensors.items()
            if name.startswith(f"transformer.h.{index}.")
        }
        weights = {
            "attention.qkv.weight": theirs["attn.qkv.weight"],
            "attention.out.weight": theirs["attn.o.weight"],
            "mlp.down.weight": theirs["mlp.p.weight"],
            "mlp.left.weight": theirs["mlp.w.weight"][:H],
            "mlp.right.weight": theirs["mlp.w.weight"][H:],
        }
        if "mlp.w.bias" in theirs:
            weights["mlp.down.bias"] = theirs["mlp.p.bias"]
            weights["mlp.left.bias"] = theirs["mlp.w.bias"][:H]
            weights["mlp.right.bias"] = theirs["mlp.w.bias"][H:]
        added = attention(normalised(x, 1e-8), weights, HEADS, 10000.0)
        x = x + added / math.sqrt(2 * LAYERS)
        x = x + mlp(normalised(x, 1e-8), weights, gate, ordinary=False)
    return normalised(x, 1e-8) @ tensors["lm_head.weight"].T


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gate", [None, "silu", "gelu", "relu"])
def test_it_comes_in_as_the_same_function(tmp_path: Path, gate: str | None, bias: bool) -> None:
    tensors = official(bias)
    model = load(write(tmp_path, tensors, gate=gate, bias=bias)).module
    assert isinstance(model, BilinearTransformer)
    assert (model.config.n_ctx, model.config.norm_epsilon, model.config.tied) == (7, 1e-8, False)
    tokens = some_tokens(2, 7)
    expected = torch.stack([by_hand(tensors, text, gate) for text in tokens])
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-12)


def test_half_precision_is_widened_for_the_scale(tmp_path: Path) -> None:
    tensors = official(dtype=torch.bfloat16)
    frequencies = [name for name in tensors if name.endswith("inv_freq")]
    tensors |= {name: tensors[name].bfloat16() for name in frequencies}
    model = load(write(tmp_path, tensors)).module
    assert model.embed.weight.dtype is torch.float32
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    tokens = some_tokens(1, 7)
    torch.testing.assert_close(
        model(tokens)[0].double(), by_hand(wide, tokens[0], None), rtol=0, atol=1e-5
    )


def test_it_says_what_it_was_and_its_layers_are_read(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, official()))
    assert dict(loaded.provenance) == {"format": "transformer of the paper's official repository"}
    assert [*loaded.layers] == ["blocks.0.mlp", "blocks.1.mlp", "blocks.2.mlp"]
    assert loaded.layers["blocks.2.mlp"].quadratic_map.sizes == (D, H, D)


BAD_CONFIG: dict[str, tuple[dict[str, Any], str]] = {
    "one branch": ({"bilinear": False}, r"is not bilinear \(bilinear=false\)"),
    "no norms": ({"normalization": False}, "has normalization=False; expected true"),
    "a list of norms": ({"normalization": [True, True, False]}, r"has normalization=\[True, True"),
    "an annealed gate": ({"gate": "anneal"}, "has the gate 'anneal'; .* annealed is not stored"),
    "a bias that is a text": ({"bias": "yes"}, "has bias='yes'; expected true or false"),
    "a width that is a text": ({"d_model": "8"}, "d_model must be an integer"),
    "heads that do not divide": ({"n_head": 3}, "d_model must be a multiple of 6"),
    "more layers": ({"n_layer": 4}, "missing 'transformer.h.3.attn.o.weight'"),
    "a billion layers": ({"n_layer": 10**9}, "config.json says 1000000000 layers"),
    "fewer layers": ({"n_layer": 2}, "unexpected 'transformer.h.2"),
    "another width": ({"d_hidden": 5}, r"mlp.p.weight' has shape \(8, 6\); .* \(8, 5\)"),
    "biases that are not there": ({"bias": True}, "missing 'transformer.h.0.mlp.p.bias'"),
    "other heads": ({"n_head": 1}, "rotary.inv_freq' does not hold the frequencies of .* width 8"),
}


@pytest.mark.parametrize("name", BAD_CONFIG)
def test_what_cannot_be_written_as_ours_is_refused(tmp_path: Path, name: str) -> None:
    changes, message = BAD_CONFIG[name]
    with pytest.raises(CheckpointError, match=message) as caught:
        load(write(tmp_path, official(), **changes))
    assert str(caught.value).startswith(str(tmp_path))


BAD_TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "the scale of a gate": (
        lambda t: t.update({"transformer.h.0.mlp.w.gate.c": torch.ones(H).double()}),
        "'transformer.h.0.mlp.w.gate.c' belongs to a gate that was annealed.*alpha is not stored",
    ),
    "a norm that was mixed": (
        lambda t: t.update({"transformer.h.0.n2.linear.weight": torch.eye(8).double()}),
        "'transformer.h.0.n2.linear.weight' belongs to a norm or gate that is mixed",
    ),
    "another base": (
        lambda t: t.update({"transformer.h.1.attn.rotary.inv_freq": torch.tensor([1.0, 0.002])}),
        "'transformer.h.1.attn.rotary.inv_freq' does not hold .* base 10000",
    ),
    "no embedding": (lambda t: t.pop("transformer.wte.weight"), "no tensor 'transformer.wte.weig"),
    "no head": (lambda t: t.pop("lm_head.weight"), "missing 'lm_head.weight'"),
    "one block in float32": (
        lambda t: t.update({"lm_head.weight": t["lm_head.weight"].float()}),
        "mixes the dtypes",
    ),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_tensors_that_are_others_are_refused(tmp_path: Path, name: str) -> None:
    change, message = BAD_TENSORS[name]
    tensors = official()
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        load(write(tmp_path, tensors))


def test_files_of_buffers_that_were_not_saved_are_read_too(tmp_path: Path) -> None:
    tensors = {name: t for name, t in official().items() if not name.endswith("inv_freq")}
    load(write(tmp_path, tensors))


def test_a_residual_path_is_no_question(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="language model, which always has residual paths"):
        load(write(tmp_path, official()), residual=False)


def test_a_missing_key_leaves_another_kind_of_folder(tmp_path: Path) -> None:
    """Without n_head it is taken for an image model, whose tensors it has not."""
    folder = write(tmp_path, official())
    edit_config(folder, lambda content: [content.pop("n_head"), content.pop("architectures")])
    with pytest.raises(CheckpointError, match="not those of a model that bilens knows"):
        load(folder)
