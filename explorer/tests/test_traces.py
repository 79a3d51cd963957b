"""A trace in the explorer: its model is found by weights, its graphs carry people's labels.

Broken once: with a model taken by its name alone, with the same subject for latents of other
autoencoders, with the first label of a subject in place of the last word on it, with the places
that a trace names cut before its model was looked for.
"""

import html
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import bilens as bl
from bilens.records.mlp_trace import Trace
from bilens.report.circuit_graph import latent_subject
from bilens.report.reports import TraceReport
from bilens.report.text import load_catalogue
from bilens_explorer.app import build_app
from bilens_explorer.folder import ServedFolder, id_of
from trace_documents import make_trace
from traced_folder import write_traced

KEY, WEIGHTS = id_of("trace.json"), id_of("readings.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("folder") / "runs"
    write_traced(found)
    return found


@pytest.fixture
def client(folder: Path) -> TestClient:
    app = build_app(ServedFolder(folder), ["testserver"])
    return TestClient(app, base_url="http://testserver")


def record(folder: Path) -> Trace:
    found: Trace = TraceReport(json.loads((folder / "trace.json").read_text())).record
    return found


def asked(client: TestClient, address: str) -> Any:
    answer = client.get(f"/api/v1{address}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_trace_comes_with_the_model_of_its_weights(client: TestClient, folder: Path) -> None:
    page = asked(client, f"/reports/{KEY}/circuits")
    assert (page["report"], page["name"], page["model"]) == (KEY, "trace.json", id_of("model"))
    circuits = json.loads((folder / "trace.json").read_text())["circuits"]
    assert page["trace"]["circuits"] == circuits
    text = client.get(f"/reports/{KEY}/circuits").text
    assert f'href="/models/{id_of("model")}' in text
    # as the page of the whole report says
    told = load_catalogue("en")(f"explorer.paper.{page['paper']['state']}", number=0)
    assert told in html.unescape(text)
    assert told in html.unescape(client.get(f"/reports/{KEY}").text)
    home = client.get("/").text
    assert f'href="/reports/{KEY}/circuits' in home


def test_a_model_of_that_name_with_other_weights_is_not_its_model(
    client: TestClient, folder: Path
) -> None:
    document = json.loads((folder / "trace.json").read_text())
    document["source"]["weights_sha256"] = "0" * 64
    other = folder / "other.json"
    other.write_text(json.dumps(document))
    assert asked(client, f"/reports/{id_of('other.json')}/circuits")["model"] is None
    other.unlink()


def test_of_models_of_one_name_that_of_its_place_is_found(folder: Path, tmp_path: Path) -> None:
    for name in "ab":
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "a" / "trace.json").unlink()
    document = json.loads((folder / "trace.json").read_text())
    document["source"]["path"] = "/home/ada/other/b/model"
    (tmp_path / "b" / "trace.json").write_text(json.dumps(document))
    key, client = (
        id_of("b/trace.json"),
        TestClient(build_app(ServedFolder(tmp_path), ["testserver"])),
    )
    found = asked(client, f"/reports/{key}/circuits")
    assert found["model"] == id_of("b/model")
    assert found["trace"]["source"]["path"] == "model"
    assert str(folder) not in json.dumps(found)
    assert "/home/ada" not in client.get(f"/reports/{key}").text


def test_a_trace_without_its_model_is_drawn_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text(json.dumps(make_trace()))
    client = TestClient(build_app(ServedFolder(tmp_path), ["testserver"]))
    assert asked(client, f"/reports/{KEY}/circuits")["model"] is None
    assert len(asked(client, f"/reports/{KEY}/circuits/2")["nodes"]) > 3


@pytest.mark.parametrize("number", ["0", "4", "99999999999999999999", "x"])
def test_a_circuit_that_is_not_there_is_not_found(client: TestClient, number: str) -> None:
    assert client.get(f"/api/v1/reports/{KEY}/circuits/{number}").status_code in (400, 404)
    assert client.get(f"/api/v1/reports/{WEIGHTS}/circuits/1").status_code == 404
    assert client.get(f"/api/v1/reports/{id_of('nothing')}/circuits").status_code == 404


def test_graphs_are_those_of_the_command_and_labels(client: TestClient, folder: Path) -> None:
    files = TraceReport(json.loads((folder / "trace.json").read_text())).to_graphs(folder / "g")
    for number, file in enumerate(files, start=1):
        found = asked(client, f"/reports/{KEY}/circuits/{number}")
        assert f"{json.dumps(found)}\n" == file.read_text()
    history, trace = bl.History(folder), record(folder)
    circuit = trace.circuits[0]
    first, second = circuit.features[:2]
    of_output = latent_subject(trace, circuit.latent, output=True)
    sae = trace.saes[1]
    assert of_output == f"latent:{sae.hook}:{sae.weights_sha256[:8]}:{circuit.latent}"
    history.say("label", "model", of_output, "the end", "Ada")
    history.say("label", "model", latent_subject(trace, first, output=False), "<b>verbs</b>", "Kei")
    history.say("label", "model", latent_subject(trace, second, output=False), "wrong", "Kei")
    history.say("withdraw", "model", latent_subject(trace, second, output=False), "", "Kei")
    history.say("label", "model", f"latent:{trace.saes[0].hook}:00000000:{second}", "x", "Kei")
    plain = json.loads(files[0].read_text())
    plain["nodes"][0]["clerp"] = "<b>verbs</b>"
    plain["nodes"][len(circuit.features)]["clerp"] = "the end"
    assert asked(client, f"/reports/{KEY}/circuits/1") == plain
