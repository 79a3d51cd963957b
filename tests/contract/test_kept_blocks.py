"""Guards against the wrong blocks of a language model that a conversion leaves as they are.

Damage that it notices: the blocks kept whose replacement costs least.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import bilens as bl
import language_runs
from bilens.api.conversion_job import convert_to_bilinear
from bilens.train.corpus import CorpusOptions
from bilens.train.layer_fit import ConversionRecipe
from builders import usual_where_idle
from contract.table import cell

SHORT = ConversionRecipe(
    n_ctx=12, tokens=1536, layer_tokens=768, layer_steps=6, batch_size=4, measured_tokens=480
)
TEXT = [CorpusOptions("grammar", limit=300, held_out=0.2)]


@cell("convert", "own object", "other function")
@pytest.mark.parametrize("idle", [0, 1])
def test_the_block_that_costs_most_to_replace_is_kept(idle: int, tmp_path: Path) -> None:
    """By construction: of two blocks one adds nothing to the stream, and costs nothing."""
    language_runs.go(tmp_path / "run", replace(language_runs.RECIPE, gate="relu"))
    model = bl.load(tmp_path / "run")
    module = model.module
    assert isinstance(module, bl.nn.BilinearTransformer)
    with torch.no_grad():
        for at, mlp in enumerate(module.mlps):
            assert isinstance(mlp.down, nn.Linear)
            mlp.down.weight.mul_(0.0 if at == idle else 5.0)
    source = tmp_path / "llama"
    module.save_huggingface(source, tokenizer=tmp_path / "run" / "tokenizer.json")
    changes = {"keep_worst": 1, "skip": ("training",)}
    recipe = replace(SHORT, **usual_where_idle(ConversionRecipe(), changes), **changes)
    found = convert_to_bilinear(source, TEXT, tmp_path / "out", recipe)
    assert len(module.mlps) == 2
    assert found["kept"] == [f"layers.{1 - idle}.mlp"]
