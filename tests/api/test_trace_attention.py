"""Edges of a trace through attention, against all pairs of features in dense arrays."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bilens as bl
import traced_models
from bilens.api.tracing import trace
from bilens.base.errors import UsageError
from bilens.interp.random_dictionaries import random_turn
from bilens.nn import BilinearTransformer, TopKSAE
from bilens.report.terminal_readings import trace_tables

Folders = tuple[Path, ...]
QUICK: dict[str, Any] = {"outputs": 2, "pairs": 4, "features": 3, "top": 5, "tokens": 400}
DICTIONARIES = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folder = tmp_path_factory.mktemp("traced")
    return (*traced_models.write_all(folder), traced_models.write_sae(folder / "sae", "resid_pre"))


def run(folders: Folders, **options: Any) -> dict[str, Any]:
    given = {"input_sae": folders[1], "output_sae": folders[2], "attention_sae": folders[3]}
    said = {**QUICK, **given, "dictionaries": DICTIONARIES, **options}
    return trace(folders[0], 0, **said).to_dict()


def parts(folders: Folders) -> tuple[BilinearTransformer, TopKSAE, Tensor]:
    """The model, the features, and what the input latents read, in the units of the layer."""
    model, before, found = (bl.load(folders[at]).module for at in (0, 1, 3))
    assert isinstance(model, BilinearTransformer)
    assert isinstance(before, TopKSAE)
    assert isinstance(found, TopKSAE)
    return model.double(), found.folded().double(), before.folded().encoder.detach().double()


def dense(model: BilinearTransformer, head: int, distance: int) -> tuple[Tensor, Tensor]:
    """M and W_O W_V of a head of the first block, (d_model, d_model), by their definition."""
    width = traced_models.WIDTH // 2
    attention: Any = model.blocks[0].attention  # type: ignore[union-attr]
    query, key, value = (
        part[head * width : (head + 1) * width] for part in attention.qkv.weight.chunk(3)
    )
    turn = torch.zeros(width, width).double()
    for pair in range(width // 2):
        angle = torch.tensor(distance * 10000 ** (-2 * pair / width))
        one, other = pair, pair + width // 2
        turn[one, one] = turn[other, other] = angle.cos()
        turn[one, other], turn[other, one] = -angle.sin(), angle.sin()
    out = attention.out.weight[:, head * width : (head + 1) * width]
    return query.T @ turn.T @ key / width**0.5, out @ value


@pytest.mark.parametrize("distance", [0, 1, 6])
@torch.no_grad()
def test_edges_are_the_largest_of_all_pairs(folders: Folders, distance: int) -> None:
    document = run(folders, distance=distance)
    found = document["attention_edges"]
    model, sae, encoder = parts(folders)
    heads = [dense(model, head, distance) for head in range(2)]
    scores = torch.stack([sae.decoder @ form @ sae.decoder.T for form, _ in heads])
    assert found["distance"] == distance
    assert found["checked_against"] == "the module itself, as it runs"
    top = scores.flatten().abs().topk(QUICK["top"]).values.tolist()
    assert [abs(edge["score"]) for edge in found["scores"]] == pytest.approx(top, rel=1e-4)
    for edge in found["scores"]:
        place = edge["head"], edge["query"], edge["key"]
        assert edge["score"] == pytest.approx(float(scores[place]), rel=1e-4)
    listed = [latent["latent"] for latent in document["input_latents"]]
    writes = torch.stack([encoder[listed] @ write @ sae.decoder.T for _, write in heads])
    top = writes.flatten().abs().topk(QUICK["top"]).values.tolist()
    assert [abs(edge["weight"]) for edge in found["writes"]] == pytest.approx(top, rel=1e-4)
    for edge in found["writes"]:
        place = edge["head"], listed.index(edge["latent"]), edge["key"]
        assert edge["weight"] == pytest.approx(float(writes[place]), rel=1e-4)
        column = scores[edge["head"], :, edge["key"]]
        assert (edge["query"], edge["score"]) == (
            int(column.argmax()),
            pytest.approx(float(column.max()), rel=1e-4),
        )


@torch.no_grad()
def test_chance_is_that_of_features_turned_together(folders: Folders) -> None:
    """p counts the random dictionaries whose largest edge of any head is as large."""
    tokens = torch.randint(
        20, (12, traced_models.N_CTX), generator=torch.Generator().manual_seed(1)
    )
    document = run(folders, corpus=tokens, seed=3)
    model, sae, _ = parts(folders)
    x = model.activations(tokens, ("blocks.0.resid_pre",))["blocks.0.resid_pre"]
    x, generator = x[:, 1:].flatten(0, 1).float().double(), torch.Generator().manual_seed(3)
    best = []
    for _ in range(DICTIONARIES):
        turned = sae.decoder @ random_turn(x, generator)[1].T
        turned *= (sae.decoder.norm(dim=1) / turned.norm(dim=1))[:, None]
        forms = [dense(model, head, 1)[0] for head in range(2)]
        best.append(max(float((turned @ form @ turned.T).abs().max()) for form in forms))
    for edge in document["attention_edges"]["scores"]:
        reached = sum(one >= abs(edge["score"]) for one in best)
        assert edge["p_value"] == pytest.approx((1 + reached) / (1 + DICTIONARIES))
    assert {edge["p_value"] for edge in document["attention_edges"]["scores"]} != {1.0}


def test_pages_and_terminal_show_the_edges(folders: Folders) -> None:
    given = {"input_sae": folders[1], "output_sae": folders[2], "dictionaries": 1}
    report = trace(folders[0], 0, **QUICK, **given, attention_sae=folders[3])
    without = trace(folders[0], 0, **QUICK, **given)
    for lang, words in (("en", "Edges through the attention"), ("ja", "アテンションを通る辺")):
        assert words in report.to_html(lang=lang)  # type: ignore[arg-type]
        assert words not in without.to_html(lang=lang)  # type: ignore[arg-type]
        assert len([*trace_tables(report.record, lang)]) == 4
    assert without.to_dict()["attention_edges"] is None


def test_features_of_another_place_are_refused(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"trained at blocks\.0\.mlp_in, which is not written"):
        run(folders, attention_sae=folders[1])
    wide = traced_models.write_sae(tmp_path / "wide", "resid_pre", width=6)
    with pytest.raises(UsageError, match="has width 6"):
        run(folders, attention_sae=wide)
    with pytest.raises(UsageError, match=r"distance \(--distance\): only with an autoencoder"):
        run(folders, attention_sae=None, distance=3)
    with pytest.raises(UsageError, match=r"attention_sae \(--attention-sae\): only with auto"):
        trace(folders[0], 0, attention_sae=folders[3])
    with pytest.raises(UsageError, match="distance"):
        run(folders, distance=-1)
    seen = list[str]()
    with pytest.raises(UsageError, match="sees keys up to"):
        run(folders, distance=4096, progress=lambda stage, *_: seen.append(stage))
    assert "interactions" not in seen  # refused before the work


def test_features_that_an_earlier_block_writes_are_taken(tmp_path: Path) -> None:
    model = traced_models.write_model(tmp_path / "model", n_layer=2)
    saes = [
        traced_models.write_sae(tmp_path / f"sae_{at}", at, hook=f"blocks.1.{at}")
        for at in ("mlp_in", "mlp_out")
    ]
    earlier = traced_models.write_sae(tmp_path / "earlier", "mlp_out")
    given = {"input_sae": saes[0], "output_sae": saes[1], "attention_sae": earlier}
    found = trace(model, 1, **QUICK, **given, dictionaries=1).to_dict()["attention_edges"]
    assert found["hook"] == "blocks.0.mlp_out"
    assert found["num_features"] == traced_models.LATENTS
    with pytest.raises(UsageError, match=r"trained at blocks\.1\.mlp_out, which is not written"):
        trace(model, 1, **QUICK, **{**given, "attention_sae": saes[1]}, dictionaries=1)
