"""Models that are not read are refused with the reason, by their type and by their tensors."""

from pathlib import Path
from typing import Any

import pytest

from bilens.base.errors import CheckpointError
from bilens.io.formats.families import FAMILIES, MARKS, REFUSED
from bilens.io.load import load
from models import edit_config
from tiny_language_models import BASE

transformers = pytest.importorskip("transformers")
ROTARY = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
MODELS: dict[str, dict[str, Any]] = {
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 4, **ROTARY}
}
REASONS = {"gpt_oss": r"clamp both branches and compute \(up \+ 1\)"}


def test_every_refusal_is_tested() -> None:
    assert {*MODELS} == {*REFUSED} == {*MARKS}
    assert not {*FAMILIES} & {*REFUSED}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_is_not_read_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    config = transformers.AutoConfig.for_model(kind, **{**BASE, **MODELS[kind]})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"of the type '{kind}', and its .*{REASONS[kind]}"):
        load(tmp_path)
    edit_config(tmp_path, lambda content: content.update(model_type="wonder"))
    with pytest.raises(
        CheckpointError, match=rf"by the names of its tensors its .*{REASONS[kind]}"
    ) as caught:
        load(tmp_path)
    assert "MLPs are read of the types bert, cohere, deepseek_v3, deit" in str(caught.value)


def test_names_of_a_gated_mlp_are_not_enough(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model("mistral", **BASE)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    edit_config(tmp_path, lambda content: content.update(model_type="wonder"))
    with pytest.raises(CheckpointError, match=r"names alone do not say.*'up': 'TENSOR'"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["phi", "nemotron"])
def test_other_tensors_under_the_type_of_a_gated_model_are_refused(
    tmp_path: Path, kind: str
) -> None:
    config = transformers.AutoConfig.for_model(kind, **BASE)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    edit_config(tmp_path, lambda c: c.update(model_type="mistral", hidden_act="silu"))
    with pytest.raises(CheckpointError, match=r"missing '.*model.layers.0.mlp.gate_proj.weight'"):
        load(tmp_path)
