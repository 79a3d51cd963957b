"""`bl.trace`: every number of the document against the model itself, and each mistake refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import bilens as bl
import traced_models
from bilens.api.tracing import trace
from bilens.base.errors import CheckpointError, DataError, NotQuadraticError, UsageError
from bilens.data.tokenizer import load_tokenizer, train_tokenizer
from bilens.interp.traced_layer import open_layer
from bilens.nn import BilinearTransformer, TopKSAE
from bilens.report.reports import TraceReport
from bilens.train.randomness import drawn_rows

Folders = tuple[Path, Path, Path]
QUICK: dict[str, Any] = {"outputs": 2, "pairs": 4, "features": 3, "top": 4, "tokens": 400}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return traced_models.write_all(tmp_path_factory.mktemp("traced"))


@pytest.fixture(scope="module")
def report(folders: Folders) -> TraceReport:
    return run(folders)


def run(folders: Folders, **options: Any) -> TraceReport:
    given = {"input_sae": folders[1], "output_sae": folders[2], "command": "here"}
    said = {**QUICK, **given, **options}
    if "latents" in options:  # which are how many outputs there are
        del said["outputs"]
    return trace(folders[0], 0, **said)


def blocks(folders: Folders, document: dict[str, Any]) -> torch.Tensor:
    """The tokens that were read."""
    from bilens.data.tokenizer import pack_documents

    tokenizer = load_tokenizer(folders[0])
    held_out = traced_models.CORPUS.load().held_out
    found = pack_documents(tokenizer, held_out, traced_models.N_CTX).tokens
    return found[drawn_rows(len(found), document["data"]["num_tokens"] // traced_models.N_CTX)]


def test_autoencoders_of_another_library_are_said_to_be_unverified(
    folders: Folders, tmp_path: Path
) -> None:
    other = []
    for folder in folders[1:]:
        known = bl.load(folder)
        bl.export_sae(known.module, tmp_path / folder.name, provenance=known.provenance)
        other.append(tmp_path / folder.name)
    said: list[str] = []
    run(folders, dictionaries=1, say=said.append)
    assert not any("Unverified" in line for line in said)
    run((folders[0], *other), dictionaries=1, say=said.append)
    assert sum(line.startswith("Unverified: the autoencoder") for line in said) == 2


def test_latents_and_contexts_are_those_of_model_and_autoencoder(
    folders: Folders, report: TraceReport
) -> None:
    document = report.to_dict()
    tokens, tokenizer = blocks(folders, document), load_tokenizer(folders[0])
    model, sae = bl.load(folders[0]).module, bl.load(folders[2]).module
    assert isinstance(model, BilinearTransformer)
    assert isinstance(sae, TopKSAE)
    wrote = model.activations(tokens, ("blocks.0.mlp_out",))["blocks.0.mlp_out"]
    with torch.no_grad():
        active = sae.encode(wrote) / sae.scale
    assert len(document["circuits"]) == 2
    for circuit in document["circuits"]:
        output, latent = circuit["output"], circuit["latent"]
        assert output["density"] == pytest.approx(
            float((active[:, 1:, latent] > 0).double().mean())
        )
        assert output["largest"] == pytest.approx(float(active[:, 1:, latent].max()), rel=1e-4)
        for context in output["contexts"]:
            start, length = context["start"] + 1, len(context["tokens"])
            row = tokens[context["sequence"], start : start + length]
            assert context["tokens"] == [tokenizer.token(int(token)) for token in row]
            values = active[context["sequence"], start : start + length, latent]
            assert context["activations"] == pytest.approx(values.tolist(), rel=1e-4, abs=1e-5)


def test_truth_and_example_are_what_the_mlp_computes(folders: Folders, report: TraceReport) -> None:
    document = report.to_dict()
    tokens = blocks(folders, document)
    model, before = bl.load(folders[0]).module, bl.load(folders[1]).module
    after = bl.load(folders[2]).module
    assert isinstance(model, BilinearTransformer)
    assert isinstance(before, TopKSAE)
    assert isinstance(after, TopKSAE)
    names = ("blocks.0.mlp_in", "blocks.0.mlp_out")
    found = model.activations(tokens, names)
    with torch.no_grad():
        pre = (after.pre_activations(found[names[1]]) / after.scale)[:, 1:]
        z = (before.encode(found[names[0]]) / before.scale)[:, 1:]
    for circuit in document["circuits"]:
        latent, truth = circuit["latent"], torch.tensor(circuit["points"]["truth"])
        values = pre[..., latent].flatten()
        nearest = (values[None] - truth[:, None]).abs().min(dim=1).values
        assert float(nearest.max()) < 1e-4 * float(values.abs().max())
        context = circuit["output"]["contexts"][0]
        place = z[context["sequence"], context["start"] + context["peak"], circuit["features"]]
        assert circuit["example"] == pytest.approx(place.tolist(), rel=1e-4, abs=1e-5)


def test_circuits_are_interactions_of_the_folded_autoencoders(
    folders: Folders, report: TraceReport
) -> None:
    model, before, after = (bl.load(folder).module for folder in folders)
    assert isinstance(model, BilinearTransformer)
    assert isinstance(before, TopKSAE)
    assert isinstance(after, TopKSAE)
    f = model.double().layer_map(0)
    decoder = before.decoder.double().detach()
    for circuit in report.to_dict()["circuits"]:
        form = f.form(after.encoder[circuit["latent"]].double().detach())
        columns = decoder[circuit["features"]]
        dense = columns @ form.dense() @ columns.T
        assert torch.allclose(torch.tensor(circuit["matrix"]).double(), dense, atol=1e-9)


def test_the_document_says_what_was_read(folders: Folders, report: TraceReport) -> None:
    document = report.to_dict()
    assert [sae["hook"] for sae in document["saes"]] == ["blocks.0.mlp_in", "blocks.0.mlp_out"]
    assert document["exactness"]["largest_error"] < 1e-5
    assert document["data"]["num_tokens"] == 400
    assert document["data"]["name"] == "grammar"
    assert len(document["ranking"]) == traced_models.LATENTS
    assert document["source"]["path"] == str(folders[0])
    assert not document["tokens_carry_spaces"]
    places = [circuit["position"] for circuit in document["circuits"]]
    assert places == sorted(places)
    ranks = [rank["rank"] for rank in document["correlations"]["ranks"]]
    assert ranks == [1, 2, 4]
    full = run(folders, pairs=traced_models.WIDTH, latents=[0]).to_dict()
    last = full["correlations"]["ranks"][-1]
    assert min(last["all"]["values"]) == pytest.approx(1.0)  # all eigenpairs are the latent itself


def test_named_latents_are_drawn_in_their_order(folders: Folders) -> None:
    document = run(folders, latents=[5, 1, 5]).to_dict()
    assert [circuit["latent"] for circuit in document["circuits"]] == [5, 1]


def test_pages_and_graphs_are_drawn(folders: Folders, report: TraceReport, tmp_path: Path) -> None:
    for lang in ("en", "ja"):
        assert "blocks.0.mlp" in report.to_html(lang=lang)
    files = report.to_graphs(tmp_path)
    assert len(files) == len(report.to_dict()["circuits"])
    again = run(folders).to_dict()
    assert again == report.to_dict()


def test_tokens_and_loaded_models_are_taken_as_well(folders: Folders) -> None:
    tokens = torch.randint(
        20, (12, traced_models.N_CTX), generator=torch.Generator().manual_seed(1)
    )
    document = run(
        (bl.load(folders[0]), bl.load(folders[1]), bl.load(folders[2])),  # type: ignore[arg-type]
        corpus=tokens,
    ).to_dict()
    assert document["data"] == {
        "name": "",
        "source": "tokens passed by the caller",
        "num_tokens": tokens.numel(),
        "sha256": "",
    }


def test_without_autoencoders_weights_are_read_as_tokens(folders: Folders) -> None:
    document = trace(folders[0], 0, outputs=3, pairs=4).to_dict()
    values = [reading["singular_value"] for reading in document["readings"]]
    assert values == sorted(values, reverse=True)
    assert all(len(reading["spectrum"]["eigenvalues"]) == 4 for reading in document["readings"])
    named = trace(folders[0], 0, toward=["happy", "sad"]).to_dict()
    assert [reading["name"] for reading in named["readings"]] == ["happy", "sad"]
    model = bl.load(folders[0]).module
    assert isinstance(model, BilinearTransformer)
    happy = load_tokenizer(folders[0]).encode("happy")[0]
    direction = model.unembed.weight.double()
    direction = direction[happy] - direction.mean(dim=0)
    direction = (direction / direction.norm()).detach()
    form = model.double().layer_map(0).form(direction)
    found = torch.linalg.eigvalsh(form.dense().detach())
    largest = found[found.abs().argmax()]
    assert named["readings"][0]["spectrum"]["eigenvalues"][0] == pytest.approx(float(largest))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"latents": [traced_models.LATENTS]}, UsageError, "latent 12 does not exist"),
        ({"latents": [-1]}, UsageError, "latent -1 does not exist"),
        ({"latents": []}, UsageError, "latents is empty"),
        ({"outputs": 0}, UsageError, "outputs"),
        ({"tokens": 0}, UsageError, "tokens"),
        ({"output_sae": None}, UsageError, "only the input autoencoder was given"),
        ({"toward": ["sad"]}, UsageError, "only without autoencoders"),
        ({"corpus": "nowhere.txt"}, DataError, "does not exist"),
        ({"corpus": torch.zeros(4, 2, dtype=torch.int64)}, UsageError, "texts of 2 tokens"),
        ({"input_sae": Path("nowhere")}, CheckpointError, "no such file or folder"),
    ],
)
def test_each_mistake_is_refused(
    folders: Folders, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(folders, **options)


def test_autoencoders_that_do_not_fit_are_refused(folders: Folders, tmp_path: Path) -> None:
    wide = traced_models.write_sae(tmp_path / "wide", "mlp_in", width=6)
    with pytest.raises(UsageError, match="has width 6"):
        run(folders, input_sae=wide)
    with pytest.raises(UsageError, match=r"was trained at blocks\.0\.mlp_out"):
        run(folders, input_sae=folders[2])
    other = traced_models.write_sae(tmp_path / "other", "mlp_in", model_sha256="f" * 64)
    with pytest.raises(UsageError, match="was trained on another model"):
        run(folders, input_sae=other)
    with pytest.raises(UsageError, match="expected a sparse"):
        run(folders, input_sae=folders[0])


def test_layers_and_models_that_cannot_be_read_are_refused(
    folders: Folders, tmp_path: Path
) -> None:
    for layer in (1, -1):
        with pytest.raises(UsageError, match="does not exist"):
            trace(folders[0], layer)
    with pytest.raises(UsageError, match="expected a language model"):
        trace(folders[1], 0)
    gated = traced_models.write_model(tmp_path / "gated", gate="silu")
    with pytest.raises(NotQuadraticError, match="silu"):
        trace(gated, 0)


def test_a_tokenizer_or_text_that_does_not_fit_is_refused(folders: Folders, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders[0], tmp_path / "copy"))
    train_tokenizer(["a b c a b c"], None, "word").save(copy / "tokenizer.json")
    with pytest.raises(UsageError, match="they do not belong together"):
        run((copy, *folders[1:]))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="no such file"):
        run((copy, *folders[1:]))
    known = load_tokenizer(folders[0]).sha256
    assert open_layer(copy, 0, str(folders[0])).tokenizer.sha256 == known  # a text is a path
    shutil.copy(folders[0] / "tokenizer.json", copy)
    (copy / "corpus.json").unlink()
    with pytest.raises(UsageError, match="give one with --corpus"):
        run((copy, *folders[1:]))
    (tmp_path / "short.txt").write_text("Anna was sad.\n\nTom was happy.\n")
    with pytest.raises(DataError, match="held-out part of short is too short"):
        run(folders, corpus=tmp_path / "short.txt")


@pytest.mark.parametrize("text", ["sad cake", "xyzzy", ""])
def test_what_is_not_one_token_is_refused(folders: Folders, text: str) -> None:
    with pytest.raises(UsageError, match="is not one token of the model"):
        trace(folders[0], 0, toward=[text])
