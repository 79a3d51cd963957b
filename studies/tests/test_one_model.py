"""The studies of one model's layers: documents, pages, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bilens import load
from bilens.base.errors import NotQuadraticError, NumericalError, UsageError
from bilens.interp.traced_layer import held_out_text
from bilens.nn import BilinearMLP, TopKSAE
from bilens_studies import autoencoders, study as study_module
from bilens_studies.autoencoders import (
    BY_RANK_NAME,
    OVER_TIME_NAME,
    PUBLISHED,
    LayerStudy,
    SAETrainingStudy,
    lengths_of,
    upper_layer,
)
from bilens_studies.study import StudyOptions
from bilens_studies.study_folder import run_study
from bilens_studies.study_list import all_studies, find_studies
from tests import traced_models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return traced_models.write_model(tmp_path_factory.mktemp("model"), n_layer=2)


def asked(model: Path, steps: int) -> StudyOptions:
    return StudyOptions(models=(str(model),), steps=steps)


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("sae-training") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "BATCH", 128)
        patch.setattr(autoencoders, "FIT_TOKENS", 512)
        return out, run_study(SAETrainingStudy(), out, asked(model, 16))["result"]


def test_each_training_is_twice_as_long(trained: tuple[Path, dict[str, Any]]) -> None:
    rows = trained[1]["rows"]
    assert [row["steps"] for row in rows] == [1, 2, 4, 8, 16]
    assert [row["tokens"] for row in rows] == [128 * steps for steps in (1, 2, 4, 8, 16)]
    assert {row["layer"] for row in rows} == {1}
    for place in ("in", "out"):
        nmse = [row["metrics"][place]["nmse"] for row in rows]
        assert nmse == sorted(nmse, reverse=True)
        assert rows[0]["metrics"][place]["hook"] == f"blocks.1.mlp_{place}"
    assert lengths_of(StudyOptions()) == [64, 128, 256, 512, 1024]


def test_all_eigenvectors_predict_every_latent_and_one_does_not(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    for row in trained[1]["rows"]:
        fit = row["fit"]
        assert fit["ranks"] == [1, 2, 4, 8]
        assert fit["correlation"][-1] == pytest.approx(1.0, abs=1e-6)
        assert fit["correlation"] == sorted(fit["correlation"])
        assert fit["correlation"][0] < 0.9
        assert all(abs(null) < 0.3 for null in fit["null"])


def test_the_correlation_is_that_of_the_activations(
    trained: tuple[Path, dict[str, Any]], model: Path
) -> None:
    """Once again by hand, in the form's own matrix, with one eigenvector of each."""
    layer = upper_layer(model)
    sae = load(trained[0] / "work" / "steps-16" / "blocks.1.mlp_out").module
    assert isinstance(sae, TopKSAE)
    sae.double()
    text = held_out_text(layer, None, 512, lambda _text: None)
    read = layer.module.activations(text.blocks, ("blocks.1.mlp_in", "blocks.1.mlp_out"))
    x, y = (value[:, 1:].flatten(0, 1).double().detach() for value in read.values())
    mlp = layer.module.mlps[1]
    assert isinstance(mlp, BilinearMLP)
    found = []
    with torch.no_grad():
        z = sae.encode(y)
        encoder = sae.encoder * sae.scale
        left, right, down = (part.weight.double() for part in (mlp.left, mlp.right, mlp.down))
        for latent in range(sae.num_latents):
            on = z[:, latent] > 0
            if on.sum() < 10:
                continue
            product = torch.einsum("h,hi,hj->ij", encoder[latent] @ down, left, right)
            values, vectors = torch.linalg.eigh((product + product.T) / 2)
            best = values.abs().argmax()
            one = values[best] * (x[on] @ vectors[:, best]).square()
            found.append(torch.corrcoef(torch.stack([one, z[on, latent]]))[0, 1])
    row = trained[1]["rows"][-1]
    assert row["fit"]["num_latents"] == len(found)
    assert row["fit"]["correlation"][0] == pytest.approx(float(torch.stack(found).mean()), abs=1e-4)


def test_the_page_sets_measured_numbers_beside_published_ones(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    out, result = trained
    page = (out / "study.md").read_text()
    last = result["rows"][-1]
    assert f"| 16 | 2,048 | {last['metrics']['in']['nmse']:.3f} |" in page
    assert f"| 16 | {last['fit']['correlation'][0]:.2f} ({last['fit']['null'][0]:.2f}) |" in page
    assert "| 131,072 | 0.15 | 0.66 | 0.59 |" in page
    assert "Published for another, larger model" in page
    for name in (BY_RANK_NAME, OVER_TIME_NAME):
        assert f"]({name})" in page
        assert (out / name).read_text().startswith("<svg")
    assert "published, other model" in (out / OVER_TIME_NAME).read_text()
    assert result["published"] == PUBLISHED


def test_latents_that_are_never_active_leave_nothing_to_compare(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "BATCH", 128)
    monkeypatch.setattr(autoencoders, "LEAST_ACTIVE", 10**6)
    with pytest.raises(NumericalError, match="nothing to compare"):
        run_study(SAETrainingStudy(), tmp_path / "study", asked(model, 16))


def test_every_layer_has_a_row_at_both_hook_points(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "BATCH", 128)
    result = run_study(LayerStudy(), tmp_path / "study", asked(model, 2))["result"]
    assert {point: [row["hook"] for row in rows] for point, rows in result["points"].items()} == {
        "mlp_out": ["blocks.0.mlp_out", "blocks.1.mlp_out"],
        "resid_mid": ["blocks.0.resid_mid", "blocks.1.resid_mid"],
    }
    assert (result["steps"], result["tokens"], result["num_layers"]) == (2, 256, 2)
    assert len({row["loss"] for rows in result["points"].values() for row in rows}) == 1
    page = (tmp_path / "study" / "study.md").read_text()
    row = result["points"]["resid_mid"][1]
    assert f"| 2 | blocks.1.resid_mid | {row['loss_added']:.4f} | {row['fvu']:.3f} |" in page
    assert "| 6 | 0.0868 | 0.2861 |" in page
    svg = (tmp_path / "study" / "layers.svg").read_text()
    assert svg.count("<polyline") == 8  # four curves, each in the legend too
    assert "resid_mid, published" in svg


def test_a_gated_model_has_no_eigenvectors(tmp_path: Path) -> None:
    gated = traced_models.write_model(tmp_path / "gated", gate="silu")
    with pytest.raises(NotQuadraticError, match="silu"):
        run_study(SAETrainingStudy(), tmp_path / "study", asked(gated, 16))
    assert not (tmp_path / "study" / "work").exists()


def test_options_that_make_no_sense_are_refused() -> None:
    for name in ("language/sae-training", "language/layers"):
        study = find_studies(name)[0]
        assert study is all_studies()[name]
        with pytest.raises(UsageError, match="needs --model:"):
            study.check(StudyOptions(steps=20))
        with pytest.raises(UsageError, match=r"--model was given 2 times; expected one"):
            study.check(StudyOptions(models=("a", "b")))
        with pytest.raises(UsageError, match="does not use --corpus"):
            study.check(StudyOptions(models=("a",), corpus="grammar"))
    with pytest.raises(UsageError, match=r"--steps 15: .* expected at least 16"):
        find_studies("language/sae-training")[0].check(StudyOptions(models=("a",), steps=15))
