"""Transformers in model folders: what is saved comes back bit for bit, the tie and the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from bilens.base.errors import CheckpointError, UsageError
from bilens.io.load import load
from bilens.io.model_folder import save
from bilens.nn import BilinearMLP, BilinearTransformer
from models import edit_config, same_weights
from transformers_by_hand import KINDS, make, some_tokens

TOKENS = some_tokens(2, 7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_transformer_comes_back_bit_for_bit(
    tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    model = make(**KINDS[kind], dtype=dtype)
    back = load(save(model, tmp_path)).module
    assert isinstance(back, BilinearTransformer)
    assert same_weights(model, back)
    assert back.config == model.config
    assert not back.training
    assert torch.equal(back(TOKENS), model(TOKENS))


def test_config_json_is_a_promise(tmp_path: Path) -> None:
    """A folder written today loads in every later release."""
    save(make(), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content == {
        "format": "bilens-model",
        "format_version": 1,
        "class": "BilinearTransformer",
        "arguments": {
            "vocab_size": 11,
            "d_model": 8,
            "d_hidden": 6,
            "n_layer": 2,
            "n_head": 2,
            "n_ctx": 7,
            "gate": None,
            "tied": False,
            "bias": False,
            "rotary_base": 10000.0,
            "norm_epsilon": 1e-05,
            "mlp_type": "gated",
        },
    }


def test_layers_are_its_mlps(tmp_path: Path) -> None:
    model = make()
    loaded = load(save(model, tmp_path))
    assert [*loaded.layers] == ["blocks.0.mlp", "blocks.1.mlp"]
    names = ("blocks.1.mlp_in", "blocks.1.mlp_out")
    _, found = model.run(TOKENS, capture=names)
    view = loaded.layers["blocks.1.mlp"]
    assert view.exact
    torch.testing.assert_close(view.quadratic_map(found[names[0]]), found[names[1]])
    assert not view.quadratic_map.tensor.left.requires_grad


@pytest.mark.parametrize("kind", ["relu", "ordinary"])
def test_layers_that_are_not_exact_have_the_closest_map(tmp_path: Path, kind: str) -> None:
    model = make(**KINDS[kind])
    view = load(save(model, tmp_path)).layers["blocks.0.mlp"]
    assert not view.exact
    assert view.gated is (kind == "relu")
    assert view.quadratic_map.sizes == view.sizes
    x = torch.randn(5, view.sizes.d_in, dtype=torch.float64)
    torch.testing.assert_close(view.weights(torch.float64)(x), model.mlps[0].double()(x))


def test_names_belong_to_tokens_and_there_is_no_shape_of_an_input(tmp_path: Path) -> None:
    names = [f"token {number}" for number in range(11)]
    assert load(save(make(), tmp_path, output_names=names)).output_names == tuple(names)
    with pytest.raises(UsageError, match=r"output_names has 2 names; .* has 11 outputs"):
        save(make(), tmp_path, output_names=["a", "b"], overwrite=True)
    with pytest.raises(UsageError, match=r"input_shape is \(8,\); .* reads tokens: leave it out"):
        save(make(), tmp_path, input_shape=[8], overwrite=True)


def test_an_altered_model_is_not_saved(tmp_path: Path) -> None:
    model = make()
    model.blocks[0].mlp = BilinearMLP(8, 6, gate="relu").double()
    with pytest.raises(UsageError, match="the layers differ in gate or bias"):
        save(model, tmp_path)
    model = make()
    model.blocks[0].mlp = BilinearMLP(8, 5).double()
    with pytest.raises(UsageError, match=r"could not be loaded again: .* has shape \(5, 8\)"):
        save(model, tmp_path)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another gate": ({"gate": "relu"}, "were not saved together"),
    "another base": ({"rotary_base": 500.0}, "were not saved together"),
    "another context": ({"n_ctx": 8}, "were not saved together"),
    "a tie": ({"tied": True}, "unexpected 'unembed.weight'"),
    "more layers": ({"n_layer": 3}, "missing 'blocks.2.attention.out.weight'"),
    "a billion layers": ({"n_layer": 10**9}, "config.json says 1000000000 layers"),
    "odd heads": ({"n_head": 8}, "do not fit BilinearTransformer"),
    "another MLP": ({"mlp_type": "ordinary"}, "missing 'blocks.0.mlp.up.weight'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_configuration_of_another_model_is_refused(tmp_path: Path, name: str) -> None:
    change, message = BAD[name]
    save(make(), tmp_path)
    edit_config(tmp_path, lambda content: content["arguments"].update(change))
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


def test_a_tied_matrix_is_in_the_file_once(tmp_path: Path) -> None:
    save(make(tied=True), tmp_path)
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as file:
        assert "unembed.weight" not in file.keys()  # noqa: SIM118 - safe_open is no mapping
