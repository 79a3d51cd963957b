"""Guards against numbers of two residual streams laid beside each other as if they were of one.

Nothing in an MLP says in which coordinates it reads. The same language model in a turned stream was
0.01 alike to itself, and so were its eigenvectors, without a word.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import UsageError
from contract.table import cell
from contract.test_compare import turned
from contract.test_compare_wiring import Layer


def language(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return bl.nn.BilinearTransformer(40, 8, 12, 2, 2, 16).double()


def layer_of(model: Any, at: int = 1) -> QuadraticMap:
    """The map of a layer of a module, of what was read of one, or of a folder."""
    model = bl.load(model) if isinstance(model, Path) else model
    model = model if hasattr(model, "layers") else bl.from_module(model)
    found: QuadraticMap = [*model.layers.values()][at].quadratic_map
    return found.to(torch.float64)


def eigenvectors(f: QuadraticMap) -> Any:
    return bl.eigendecompose(f.form(0), 3)


def loaded(model: Any, folder: Path) -> Any:
    return bl.load(bl.save(model, folder))


@cell("compare", "same function", "other function")
@pytest.mark.parametrize("other", ["turned", "another training"])
def test_layers_of_other_streams_are_refused(other: str, tmp_path: Path) -> None:
    stranger = turned(language(), 1) if other == "turned" else language(1)
    f, g = (
        layer_of(loaded(one, tmp_path / name)) for name, one in (("a", language()), ("b", stranger))
    )
    with pytest.raises(UsageError, match=r"residual stream .*bl\.audit\(model, baseline=") as said:
        bl.similarity(f, g)
    assert "replace(g, basis=f.basis)" in str(said.value)
    with pytest.raises(UsageError, match=r"residual stream .*bl\.audit\(model, baseline="):
        bl.match_eigenvectors(eigenvectors(f), eigenvectors(g))
    with pytest.raises(UsageError, match="cannot be added"):
        f + g
    assert -1 <= float(bl.similarity(f, replace(g, basis=f.basis))) <= 1


@cell("compare", "other function", "saved", "other dtype")
def test_layers_of_one_stream_are_compared(tmp_path: Path) -> None:
    """Of a model and what was made of it: embeddings that were left alone are its coordinates."""
    model = language()
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.blocks[1].mlp.down.weight.mul_(1.5)
        changed.blocks[1].mlp.left.weight.add_(0.1)
    f = layer_of(loaded(model, tmp_path / "a"))
    for name, dtype in (("b", torch.float64), ("c", torch.float32), ("d", torch.bfloat16)):
        g = layer_of(loaded(copy.deepcopy(changed).to(dtype), tmp_path / name))
        assert 0.1 < float(bl.similarity(f, g)) < 0.999
        assert bl.match_eigenvectors(eigenvectors(f), eigenvectors(g)).score < 1
    both = layer_of(model, 0) + layer_of(model, 1)  # of one model
    assert both.basis == f.basis


@cell("load module", "same function", "own object")
def test_a_module_and_its_folder_are_of_one_stream(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM  # slow to import

    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 12}
        heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
        model = LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval()
        model.save_pretrained(tmp_path / str(seed))
        whole = bl.load(tmp_path / str(seed))
        ways = (whole, whole.alone() if whole.alone else whole, bl.from_module(model))
        names = {[*way.layers.values()][1].basis for way in ways}
        assert len(names) == 1
        found += names
    assert found[0] != found[1]


class Blocks(nn.Module):
    """Two blocks that add to what comes in, without tokens."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.blocks = nn.Linear(3, 4), nn.ModuleList([Layer(), Layer()])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(torch.nn.functional.layer_norm(x, (4,)))
        return x


@cell("load module", "other function")
def test_without_tokens_the_streams_of_two_models_are_two() -> None:
    one, same, other = (Blocks(seed).double().eval() for seed in (0, 0, 1))
    f, g, h = (layer_of(each) for each in (one, same, other))
    assert float(bl.similarity(f, g)) == pytest.approx(1)
    with pytest.raises(UsageError, match=r"bl\.audit\(model, baseline="):
        bl.similarity(f, h)
