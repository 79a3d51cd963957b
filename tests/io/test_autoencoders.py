"""An autoencoder stands only where it belongs: width, hook point and model."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_runs
from bilens.base.errors import UsageError
from bilens.io.autoencoders import sae_for_hook
from bilens.io.load import LoadedModel, load
from bilens.io.model_folder import save
from bilens.nn import BilinearMLP, TopKSAE

HOOK = "blocks.1.mlp_out"


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    return load(save(sae_runs.transformer(), tmp_path / "model"))


def loaded(folder: Path, model: LoadedModel, width: int = 8, **changes: str) -> LoadedModel:
    sae = TopKSAE(width, 20, 3)
    sae.scale.fill_(2.0)
    said = {"hook": HOOK, "model": "there", "model_sha256": model.weights_sha256}
    return load(save(sae, folder, provenance=said | changes, overwrite=True))


def test_where_it_belongs_it_comes_in_the_units_of_the_layer(
    tmp_path: Path, model: LoadedModel
) -> None:
    found = loaded(tmp_path / "sae", model)
    sae = sae_for_hook(found, model, HOOK)
    assert float(sae.scale) == 1
    x = torch.randn(5, 8)
    torch.testing.assert_close(sae(x), found.module(x))


def test_what_a_file_does_not_say_is_not_held_against_it(
    tmp_path: Path, model: LoadedModel
) -> None:
    silent = dataclasses.replace(loaded(tmp_path / "sae", model), provenance={})
    assert sae_for_hook(silent, model, "blocks.0.mlp_in").d_in == 8


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another width": ({"width": 9}, r"has width 9, and blocks\.1\.mlp_out of .* has width 8: pass"),
    "another hook point": ({"hook": "blocks.1.mlp_in"}, r"was trained at blocks\.1\.mlp_in; block"),
    "another model": ({"model_sha256": "0"}, r"trained on another model \(there, with other wei"),
}


@pytest.mark.parametrize("name", BAD)
def test_where_it_does_not_belong_it_is_refused(
    tmp_path: Path, model: LoadedModel, name: str
) -> None:
    changes, message = BAD[name]
    with pytest.raises(UsageError, match=message):
        sae_for_hook(loaded(tmp_path / "sae", model, **changes), model, HOOK)


def test_other_things_are_refused(tmp_path: Path, model: LoadedModel) -> None:
    sae = loaded(tmp_path / "sae", model)
    mlp = load(save(BilinearMLP(8, 4), tmp_path / "mlp"))
    with pytest.raises(UsageError, match="holds a BilinearTransformer; expected a sparse autoenc"):
        sae_for_hook(model, model, HOOK)
    with pytest.raises(UsageError, match="holds a BilinearMLP; expected a language model"):
        sae_for_hook(sae, mlp, HOOK)
    with pytest.raises(UsageError, match=r"'blocks\.4\.mlp_out' is no hook point"):
        sae_for_hook(sae, model, "blocks.4.mlp_out")
