"""Traces through autoencoders with thresholds and transcoders, against the model itself."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import bilens as bl
import language_runs
import traced_models
from bilens.api.conversion_job import convert_to_bilinear
from bilens.api.trace_latents import active
from bilens.api.tracing import trace
from bilens.base.errors import UsageError
from bilens.data.tokenizer import load_tokenizer, pack_documents
from bilens.interp.trace_options import TraceOptions
from bilens.interp.traced_layer import TracedText, open_layer, open_sae, read_text
from bilens.nn import BilinearTransformer, ThresholdSAE
from bilens.report.reports import TraceReport
from bilens.train.activations import measure_sae
from bilens.train.corpus import CorpusOptions
from bilens.train.layer_fit import ConversionRecipe

QUICK: dict[str, Any] = {
    "outputs": 2, "pairs": 4, "features": 3, "top": 4, "tokens": 400, "dictionaries": 2,
}  # fmt: skip
READS, WRITES = "blocks.0.mlp_in", "blocks.0.mlp_out"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    place = tmp_path_factory.mktemp("traced")
    points = ("mlp_in", "mlp_out", "resid_pre")
    found = {one: traced_models.write_threshold(place / one, one) for one in points}
    found["plain"] = traced_models.write_threshold(place / "plain", "mlp")
    found["skip"] = traced_models.write_threshold(place / "skip", "mlp", skip=True)
    return {**found, "model": traced_models.write_model(place / "model")}


def run(folders: Mapping[str, Path], behind: str, **options: Any) -> TraceReport:
    given = {"input_sae": folders["mlp_in"], "output_sae": folders[behind]}
    return trace(folders["model"], 0, **{**QUICK, **given, **options})


def texts(folders: Mapping[str, Path]) -> Tensor:
    held_out = traced_models.CORPUS.load().held_out
    found = pack_documents(load_tokenizer(folders["model"]), held_out, traced_models.N_CTX)
    return found.tokens[: 400 // traced_models.N_CTX]


@torch.no_grad()
@pytest.mark.parametrize("behind", ["mlp_out", "plain", "skip"])
def test_numbers_are_those_of_model_and_autoencoder(
    folders: Mapping[str, Path], behind: str
) -> None:
    """What is read: the pre-activation; of a transcoder, what goes along its decoder's row."""
    tokens = texts(folders)
    document = run(folders, behind, corpus=tokens).to_dict()
    model: Any = bl.load(folders["model"]).module
    sae: Any = bl.load(folders[behind]).module
    found = model.activations(tokens, (READS, WRITES))
    inputs, outputs = (found[hook][:, 1:].flatten(0, 1) for hook in (READS, WRITES))
    z = sae.encode(outputs if behind == "mlp_out" else inputs) / sae.scale
    read = outputs @ sae.decoder.T
    if behind == "mlp_out":
        read = sae.pre_activations(outputs) / sae.scale
    for row in document["ranking"]:
        assert row["density"] == pytest.approx(float((z[:, row["latent"]] > 0).double().mean()))
    for circuit in document["circuits"]:
        latent, truth = circuit["latent"], torch.tensor(circuit["points"]["truth"])
        nearest = (read[:, latent][None] - truth[:, None]).abs().min(dim=1).values
        assert float(nearest.max()) < 1e-4 * float(read[:, latent].abs().max())
        assert circuit["output"]["largest"] == pytest.approx(float(z[:, latent].max()), rel=1e-4)
    said = document["saes"][1]
    assert (said["k"], said["sign"], said["hook"]) == (None, "threshold", WRITES)
    assert said["reads"] == (None if behind == "mlp_out" else READS)


@torch.no_grad()
@pytest.mark.parametrize("behind", ["mlp_out", "plain", "skip"])
def test_metrics_are_their_definitions(folders: Mapping[str, Path], behind: str) -> None:
    tokens = texts(folders)
    model: Any = bl.load(folders["model"]).module
    sae: Any = bl.load(folders[behind]).module
    reads = None if behind == "mlp_out" else READS
    metrics = measure_sae(model, sae, WRITES, tokens, reads)
    found = model.activations(tokens, (READS, WRITES))
    y, made = found[WRITES], sae(found[reads or WRITES])
    left, kept = (y - made)[:, 1:], y[:, 1:]
    variance = float((kept - kept.mean(dim=(0, 1))).square().sum())
    assert metrics.fvu == pytest.approx(float(left.square().sum()) / variance, rel=1e-4)
    assert metrics.nmse == pytest.approx(float(left.square().sum() / kept.square().sum()), rel=1e-4)
    patched = torch.cat([y[:, :1], made[:, 1:]], dim=1)
    logits, _ = model.run(tokens, replace={WRITES: lambda _: patched})
    loss = functional.cross_entropy(logits[:, 1:-1].flatten(0, 1), tokens[:, 2:].flatten())
    assert metrics.loss_patched == pytest.approx(float(loss), rel=1e-5)


def test_the_page_says_what_a_transcoder_is(folders: Mapping[str, Path]) -> None:
    report = run(folders, "skip", corpus=texts(folders))
    unexplained = f"{report.record.saes[1].metrics.fvu:.3f}"
    for lang, words in (("en", "stands a transcoder"), ("ja", "トランスコーダです")):
        page = report.to_html(lang=lang)
        assert words in page
        assert unexplained in page
    plain = run(folders, "mlp_out", corpus=texts(folders))
    assert "transcoder" not in plain.to_html()
    assert "above a threshold of each latent" in plain.to_html()


def test_a_transcoder_stands_behind_the_mlp_alone(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    refused = "is a transcoder, which makes another .* take apart blocks.0.mlp_in: pass it as the"
    with pytest.raises(UsageError, match=refused):
        run(folders, "mlp_out", input_sae=folders["plain"])
    attended = traced_models.write_threshold(tmp_path / "a", "mlp", hook="blocks.0.resid_pre")
    with pytest.raises(UsageError, match=r"does not take apart blocks\.0\.resid_pre"):
        run(folders, "mlp_out", attention_sae=attended)
    for name, about, trained in (
        ("reads", {"hook": "blocks.0.resid_mid"}, "trained at blocks.0.resid_mid; blocks.0.mlp_in"),
        ("writes", {"hook_out": WRITES.replace("0", "1")}, "blocks.1.mlp_out; blocks.0.mlp_out"),
    ):
        other = traced_models.write_threshold(tmp_path / name, "mlp", **about)
        with pytest.raises(UsageError, match=trained):
            run(folders, "mlp_out", output_sae=other)


def test_attention_is_read_through_thresholds(folders: Mapping[str, Path]) -> None:
    report = run(folders, "skip", attention_sae=folders["resid_pre"], corpus=texts(folders))
    assert report.record.attention_edges is not None
    assert report.record.attention_edges.num_features == traced_models.LATENTS


@torch.no_grad()
@pytest.mark.parametrize("behind", ["mlp_out", "plain", "skip"])
def test_activations_are_found_again_at_what_the_mlp_reads(
    folders: Mapping[str, Path], behind: str
) -> None:
    layer = open_layer(folders["model"], 0)
    sides = (
        open_sae(folders[one], layer, at) for one, at in (("mlp_in", "mlp_in"), (behind, "mlp_out"))
    )
    text = TracedText(texts(folders), "", "", "")
    reader = read_text(layer, *sides, text, TraceOptions())
    turned = reader.turned(reader.generator)
    assert not turned.transcodes
    counts = [(one.activations > 0).sum(dim=0) for one in (reader, turned)]
    assert counts[0].tolist() == counts[1].tolist()
    for one in (reader, turned):
        pairs = [(first, first + 1) for first in range(traced_models.LATENTS - 1)]
        found = [active(one, pair, reader.inputs) for pair in pairs]
        expected = [(one.activations[:, list(pair)] > 0).any(dim=1) for pair in pairs]
        assert torch.equal(torch.stack(found), torch.stack(expected))


def test_latents_of_a_converted_layer_are_read(tmp_path: Path) -> None:
    """A gated model becomes a bilinear one, and a transcoder of its own input stands behind it."""
    language_runs.go(tmp_path / "gated", dataclasses.replace(language_runs.RECIPE, gate="silu"))
    recipe = ConversionRecipe(
        n_ctx=12, tokens=1536, layer_tokens=768, layer_steps=6, batch_size=4, measured_tokens=480
    )
    text = CorpusOptions("grammar", limit=300, held_out=0.2)
    convert_to_bilinear(tmp_path / "gated", [text], tmp_path / "model", recipe)
    found = {"model": tmp_path / "model"}
    for point in ("mlp_in", "mlp"):
        found[point] = traced_models.write_threshold(tmp_path / point, point)
    document = run(found, "mlp", corpus=text).to_dict()
    model, sae = bl.load(found["model"]).module, bl.load(found["mlp"]).module
    assert isinstance(model, BilinearTransformer)
    assert isinstance(sae, ThresholdSAE)
    forms = sae.decoder.detach().double()
    f = model.double().requires_grad_(False).layer_map(0)
    for circuit in document["circuits"]:
        norm = float(torch.linalg.matrix_norm(f.form(forms[circuit["latent"]]).dense()))
        assert circuit["spectrum"]["norm"] == pytest.approx(norm, rel=1e-6)
