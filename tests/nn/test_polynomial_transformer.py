"""Guards polynomial transformers that are saved, loaded, started, or that write.

Damage that was seen red: a table of angles for all of n_ctx; a start at which depth overflows.
"""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bilens as bl
from bilens.base.errors import CheckpointError, UsageError
from bilens.nn import PolynomialTransformer
from models import edit_config, same_weights
from polynomial.test_reading import transformer

TOKENS = torch.randint(7, (3, 10), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("pairs", "decay"), [(1, True), (2, False)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_saved_one_comes_back_bit_for_bit(
    pairs: int, decay: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    module = PolynomialTransformer(7, 8, 6, 2, 2, 10, pairs=pairs, d_head=6, decay=decay)
    module = module.to(dtype)
    loaded = bl.load(bl.save(module, tmp_path / "m", provenance={"seed": "3"}))
    assert isinstance(loaded.module, PolynomialTransformer)
    assert loaded.module.config == module.config
    assert same_weights(module, loaded.module)
    assert loaded.provenance == {"seed": "3"}
    assert torch.equal(loaded.module(TOKENS), module(TOKENS))


def test_a_folder_is_read_as_the_module_is(tmp_path: Path) -> None:
    module = transformer()
    loaded = bl.load(bl.save(module, tmp_path))
    network, expected = bl.polynomial_network(loaded), bl.polynomial_network(module)
    assert network.checked_against == "the module itself, as it runs"
    assert torch.equal(network(TOKENS), expected(TOKENS))
    assert [*loaded.layers] == ["blocks.0.mlp", "blocks.1.mlp"]
    assert loaded.exactness is not None
    view, block = loaded.layers["blocks.1.mlp"], module.blocks[1]
    x = torch.randn(5, 8)
    torch.testing.assert_close(view.quadratic_map(x).detach(), block.mlp(x).detach())  # type: ignore[union-attr, operator]
    with pytest.raises(UsageError, match=r"pass bl\.load\(path\)"):
        bl.polynomial_network(tmp_path)


def test_config_json_is_a_promise(tmp_path: Path) -> None:
    """A folder written today loads in every later release."""
    bl.save(PolynomialTransformer(7, 8, 6, 2, 2, 10), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    arguments = {"vocab_size": 7, "d_model": 8, "d_hidden": 6, "n_layer": 2, "n_head": 2}
    arguments |= {"n_ctx": 10, "pairs": 2, "d_head": 4, "rotary_base": 10000.0, "decay": False}
    assert content["class"] == "PolynomialTransformer"
    assert content["arguments"] == arguments


def test_what_a_file_cannot_hold_is_not_saved(tmp_path: Path) -> None:
    module = transformer()
    module.blocks[0].attention.value = nn.Sequential(nn.Linear(8, 8, bias=False))  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="could not be loaded again"):
        bl.save(module, tmp_path)
    hooked = transformer()
    hooked.embed.register_forward_hook(lambda _m, _i, out: 2 * out)
    with pytest.raises(UsageError, match="embed has forward hooks"):
        bl.save(hooked, tmp_path)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an odd head": ({"d_model": 10, "d_head": 5}, "do not fit PolynomialTransformer"),
    "no size": ({"n_ctx": 0}, "n_ctx must be an integer of at least 1"),
    "three pairs": ({"pairs": 3}, "expected 1 or 2 pairs"),
    "a decay": ({"decay": True}, "were not saved together"),
    "no kind of decay": ({"decay": 0.3}, "expected True or False"),
    "another base": ({"rotary_base": 500.0}, "were not saved together"),
    "a billion layers": ({"n_layer": 10**9}, "config.json says 1000000000 layers"),
    "a trillion tokens": ({"vocab_size": 10**12}, "has shape"),
    "a width of 10^30": ({"d_model": 10**30}, "do not fit PolynomialTransformer"),
    "a context of 10^400": ({"n_ctx": 10**400}, "do not fit|were not saved"),
    "an argument of others": ({"tied": True}, "do not fit PolynomialTransformer"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_configuration_of_another_model_is_refused(tmp_path: Path, name: str) -> None:
    change, words = BAD[name]
    bl.save(transformer(), tmp_path)
    edit_config(tmp_path, lambda content: content["arguments"].update(change))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=words):
        bl.load(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_context_that_no_weight_bounds_costs_nothing() -> None:
    module = PolynomialTransformer(7, 8, 6, 1, 2, 10**12)
    assert module(TOKENS).shape == (3, 10, 7)


@torch.no_grad()
@pytest.mark.parametrize("n_layer", [1, 8])
@pytest.mark.parametrize(("pairs", "decay"), [(1, True), (2, False), (2, True)])
def test_at_the_start_every_part_counts_and_none_overflows(
    n_layer: int, pairs: int, decay: bool
) -> None:
    torch.manual_seed(0)
    module = PolynomialTransformer(50, 32, 48, n_layer, 2, 64, pairs=pairs, decay=decay)
    tokens = torch.randint(50, (4, 64))
    tokens[0] = tokens[0, 0]  # one token all along
    logits = module(tokens)
    assert bool(((logits.std(dim=2) > 0.1) & (logits.std(dim=2) < 5)).all())
    for name, weight in module.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            kept = weight.clone()
            weight.zero_()
            assert float((module(tokens) - logits).abs().max()) > 1e-4, name
            weight.copy_(kept)


def test_it_writes_what_it_predicts() -> None:
    module, begun = transformer(), TOKENS[:, :4]
    written = module.generate(begun, 6, temperature=0)
    assert torch.equal(written[:, :4], begun)
    with torch.no_grad():
        assert torch.equal(written[:, 4:], module(written)[:, 3:-1].argmax(dim=-1))
    with pytest.raises(UsageError, match="more than the context of 10"):
        module.generate(begun, 7)
