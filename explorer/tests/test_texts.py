"""A text as a language model reads it: the page's numbers are those of model and autoencoders.

Broken once: with the first token not left out, with latents in units of the autoencoder, with the
circuit's linear part dropped, with the last token read whatever `position` says.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

import bilens as bl
import tiny
from bilens.data.tokenizer import load_tokenizer
from bilens.io.autoencoders import sae_for_hook
from bilens_explorer import texts
from bilens_explorer.app import build_app
from bilens_explorer.folder import ServedFolder, id_of
from commands import model_folder
from traced_folder import write_traced

KEY, TRACE = id_of("model"), id_of("trace.json")
TEXT = "Anna was not happy . The cake was good ."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("folder") / "runs"
    write_traced(found)
    model_folder(found / "digits", tiny.classifier())
    return found


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    app = build_app(ServedFolder(folder), ["testserver"])
    with TestClient(app, base_url="http://testserver") as found:
        secret = found.get(f"/models/{KEY}/text").text.split('"secret": "')[1].split('"')[0]
        found.headers |= {"X-Bilens-Secret": secret, "Origin": "http://testserver"}
        yield found


def read(client: TestClient, status: int = 200, key: str = KEY, **body: Any) -> Any:
    answer = client.post(f"/api/v1/models/{key}/text", json={"text": TEXT, **body})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_tokens_and_next_tokens_are_the_model_s(client: TestClient, folder: Path) -> None:
    tokenizer, module = load_tokenizer(folder / "model"), bl.load(folder / "model").module
    ids = tokenizer.encode(TEXT)
    with torch.no_grad():
        logits = module(torch.tensor([ids]))[0].double()  # type: ignore[misc]
    found = read(client)
    assert [one["id"] for one in found["tokens"]] == ids
    assert [one["text"] for one in found["tokens"]] == [tokenizer.token(one) for one in ids]
    chances = logits.softmax(dim=-1)
    expected = [float(chances[at, token]) for at, token in enumerate(ids[1:])]
    assert [one["probability"] for one in found["tokens"]] == [None, *map(pytest.approx, expected)]
    for position in (0, 3, len(ids) - 1):
        nexts = read(client, position=position)["next"]
        best = chances[position].topk(len(nexts))
        assert [one["id"] for one in nexts] == best.indices.tolist()
        assert [one["probability"] for one in nexts] == pytest.approx(best.values.tolist())
        assert [one["logit"] for one in nexts] == pytest.approx(
            logits[position, best.indices].tolist(), rel=1e-5
        )


def test_layers_are_what_each_mlp_writes(client: TestClient, folder: Path) -> None:
    tokenizer, module = load_tokenizer(folder / "model"), bl.load(folder / "model").module
    assert module is not None
    tokens = torch.tensor([tokenizer.encode(TEXT)])
    written = module.activations(tokens, ("blocks.0.mlp_out",))["blocks.0.mlp_out"][0, 2]  # type: ignore[operator]
    effects = (module.unembed.weight @ written).detach().double()  # type: ignore[operator,union-attr]
    effects = effects - effects.mean()
    (layer,) = read(client, position=2)["layers"]
    assert layer["name"] == "blocks.0.mlp"
    high = layer["tokens"]["high"]
    assert [one["id"] for one in high] == effects.topk(len(high)).indices.tolist()
    assert high[0]["value"] == pytest.approx(float(effects.max()), rel=1e-3)


def test_latents_and_circuits_are_those_of_the_trace(client: TestClient, folder: Path) -> None:
    model = bl.load(folder / "model")
    document = json.loads((folder / "trace.json").read_text())
    tokens = torch.tensor([load_tokenizer(folder / "model").encode(TEXT)])
    sides = {}
    for name, hook in (("sae_in", "blocks.0.mlp_in"), ("sae_out", "blocks.0.mlp_out")):
        sae = sae_for_hook(bl.load(folder / name), model, hook).double()
        with torch.no_grad():
            x = model.module.activations(tokens, (hook,))[hook]  # type: ignore[operator,union-attr]
            sides[name] = sae.encode(x[0, 1:].double())
    found = read(client, trace=TRACE)["latents"]
    for name, key in (("sae_in", "inputs"), ("sae_out", "outputs")):
        active = (sides[name] > 0).any(dim=0).nonzero()[:, 0].tolist()
        assert sorted(one["latent"] for one in found[key]["latents"]) == active
        assert found[key]["count"] == len(active)
        for one in found[key]["latents"]:
            assert one["activations"] == pytest.approx(sides[name][:, one["latent"]].tolist())
    assert [one["latent"] for one in found["circuits"]] == [
        one["latent"] for one in document["circuits"]
    ]
    for one, circuit in zip(found["circuits"], document["circuits"], strict=True):
        assert one["activations"] == pytest.approx(sides["sae_out"][:, one["latent"]].tolist())
        z = sides["sae_in"][:, circuit["features"]]
        linear, matrix = (torch.tensor(circuit[key]).double() for key in ("linear", "matrix"))
        expected = circuit["constant"] + z @ linear + torch.einsum("tm,mn,tn->t", z, matrix, z)
        assert one["values"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_page_knows_the_traces_of_the_model(client: TestClient, folder: Path) -> None:
    found = client.get(f"/api/v1/models/{KEY}/text").json()
    assert found["most"] == 16
    assert {one["name"]: one["readable"] for one in found["traces"]} == {
        "trace.json": True,
        "readings.json": False,
    }
    trace = json.loads((folder / "trace.json").read_text())
    trace["source"]["weights_sha256"] = "0" * 64
    others = [folder / f"a{number}.json" for number in range(texts.MOST_TRACES)]
    for path in others:  # of another model, and before those of this one
        path.write_text(json.dumps(trace))
    with TestClient(build_app(ServedFolder(folder), ["testserver"])) as other:
        other.base_url = "http://testserver"
        assert other.get(f"/api/v1/models/{KEY}/text").json()["traces"] == found["traces"]
    for path in others:
        path.unlink()
    moved = folder.parent / "away"
    (folder / "sae_out").rename(moved)
    with TestClient(build_app(ServedFolder(folder), ["testserver"])) as other:
        other.base_url = "http://testserver"
        found = other.get(f"/api/v1/models/{KEY}/text").json()
        assert not any(one["readable"] for one in found["traces"])
    moved.rename(folder / "sae_out")


def test_a_long_text_is_cut_and_the_page_says_so(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(client, text="cake " * 20)["left_out"] == 4
    monkeypatch.setattr(texts, "MOST_TOKENS", 5)
    found = read(client, text="cake " * 20)
    assert (len(found["tokens"]), found["left_out"], found["position"]) == (5, 15, 4)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"text": ""}, 400, "length >= 1"),
        ({"text": "a" * 4001}, 400, "length <= 4000"),
        ({"text": "  "}, 400, "no token"),
        ({"position": 40}, 400, "position is 40"),
        ({"position": -1}, 400, ">= 0"),
        ({"trace": "../../etc"}, 400, "pattern|regex"),
        ({"trace": "0" * 16}, 404, "nothing at this address"),
        ({"trace": id_of("readings.json")}, 400, "without autoencoders"),
        ({"more": 1}, 400, "unknown field"),
    ],
)
def test_bad_requests_are_one_sentence(
    client: TestClient, body: dict[str, Any], status: int, told: str
) -> None:
    error = read(client, status, **body)["error"]
    assert any(part in error for part in told.split("|"))


def test_what_does_not_fit_is_refused(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilens_explorer.folder.FRESH", -1)
    assert "expected a language model" in read(client, 400, id_of("digits"))["error"]
    assert "expected a language model" in read(client, 400, id_of("sae_in"))["error"]
    document = json.loads((folder / "trace.json").read_text())
    for change, told in (
        ({"source": {**document["source"], "weights_sha256": "0" * 64}}, "other weights"),
        ({"layer": {**document["layer"], "input": "blocks.7.mlp_in"}}, "blocks"),
        ({"saes": [{**one, "path": "x"} for one in document["saes"]]}, "is not in the folder"),
    ):
        (folder / "odd.json").write_text(json.dumps(document | change))
        assert told in read(client, 400, trace=id_of("odd.json"))["error"]
    large = json.loads(json.dumps(document))
    large["circuits"][0]["latent"] = 99
    (folder / "odd.json").write_text(json.dumps(large))
    assert "does not fit" in read(client, 400, trace=id_of("odd.json"))["error"]
    (folder / "odd.json").unlink()


def test_only_a_language_model_has_the_view(client: TestClient) -> None:
    assert "/text?" in client.get(f"/models/{KEY}").text
    assert "/playground?" not in client.get(f"/models/{KEY}").text
    assert "/text?" not in client.get(f"/models/{id_of('digits')}").text
