"""Models that are not read are refused with the reason: names of tensors are not enough."""

from pathlib import Path

import pytest

from bilens.base.errors import CheckpointError
from bilens.io.load import load
from models import edit_config
from tiny_language_models import BASE

transformers = pytest.importorskip("transformers")


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
