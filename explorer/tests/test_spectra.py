"""Layers, spectra, eigenvectors and interactions of the explorer: the numbers of the algebra.

Broken once: bounds that begin at k = 1, the null of the map instead of the layer behind its
embedding, an audit of other weights taken for these, rows of Q in the order of their numbers.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient

import bilens as bl
import language_runs
import tiny
from bilens.algebra.rotation_null import rotation_null
from bilens.api.layer_reading import layer_map
from bilens.data.tokenizer import load_tokenizer
from bilens.interp.traced_layer import eigenvector_tokens
from bilens.io.load import load
from bilens_explorer import folder as folders, spectra
from bilens_explorer.folder import id_of
from checkpoints import official_state
from commands import model_folder
from explorer_folder import run
from explorer_server import client_of
from report_documents import audit_of, make_document

AXES = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
# 6 x₀² − 4 x₁² + x₂² and nothing: against their mean half of it, and its opposite
PLANTED = [(axis, axis, [value, 0.0]) for axis, value in zip(AXES, (6.0, -4.0, 1.0), strict=True)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "runs"
    names = {"input_names": ("age", "income", "debt"), "output_names": ("yes", "no")}
    model_folder(folder / "planted", tiny.planted(PLANTED, 3), **names)
    model_folder(folder / "random", tiny.classifier())
    model_folder(folder / "deep", tiny.classifier(n_layers=2))
    near = tiny.classifier(gate="gelu")
    near.embed.weight.data *= 0.3  # where a GELU is nearly quadratic
    model_folder(folder / "near", near)
    model_folder(folder / "far", tiny.classifier(gate="relu"))
    language_runs.go(folder / "language")
    return folder


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with client_of(root) as found:
        yield found


def ask(client: TestClient, model: str, what: str, **query: Any) -> httpx.Response:
    layer = {} if what in ("layers", "truncation") else {"layer": "layers.0"}
    return client.get(f"/api/v1/models/{id_of(model)}/{what}", params=layer | query)


def test_the_spectrum_of_a_planted_model(client: TestClient) -> None:
    found = ask(client, "planted", "spectrum", output="0").json()
    values = [pair["eigenvalue"] for pair in found["form"]["pairs"]]
    assert values == pytest.approx([3, -2, 0.5])
    assert found["bounds"] == pytest.approx([3, 2, 0.5, 0], abs=1e-9)
    assert (found["whole"], found["form"]["complete"], found["approximation"]) == (True, True, None)
    assert (found["reading"], found["form"]["name"]) == ("class-centred", "yes")
    raw = ask(client, "planted", "spectrum", output="0~raw").json()
    assert [pair["eigenvalue"] for pair in raw["form"]["pairs"]] == pytest.approx([6, -4, 1])
    assert raw["reading"] == "raw"
    contrast = ask(client, "planted", "spectrum", output="1~0").json()
    values = [pair["eigenvalue"] for pair in contrast["form"]["pairs"]]
    assert values == pytest.approx([-6, 4, -1])
    assert (contrast["reading"], contrast["form"]["name"]) == ("contrast", "no − yes")


def test_bounds_are_those_of_the_certificate(client: TestClient, root: Path) -> None:
    found = ask(client, "random", "spectrum", output="1").json()
    form = spectra_form(root / "random", 1)
    eig = bl.eigendecompose(form)
    for k in (0, 1, 5):
        proven = float(bl.certify.truncation_error(eig, k, 2.0).bound)
        assert 4 * found["bounds"][k] == pytest.approx(proven)


def spectra_form(folder: Path, output: int) -> bl.QuadraticForm:
    f = layer_map(load(folder), "layers.0", "input").f
    return f.form(torch.eye(f.sizes.d_out, dtype=torch.float64)[output] - 1 / f.sizes.d_out)


def test_eigenvectors_are_those_of_the_leading_values_of_each_sign(client: TestClient) -> None:
    found = ask(client, "planted", "eigenvectors").json()
    assert [one["rank"] for one in found["vectors"]] == [1, 2, 3]
    assert [one["vector"] for one in found["vectors"]] == AXES
    assert (found["shape"], found["input_names"]) == (None, ["age", "income", "debt"])
    image = ask(client, "random", "eigenvectors", vector=5).json()
    assert (image["shape"], image["shape_assumed"]) == ([6, 6], True)
    assert [one["rank"] for one in image["vectors"]] == [5]
    assert "from 1 to 3" in ask(client, "planted", "eigenvectors", vector=4).json()["error"]


def test_the_null_turns_the_layer_behind_its_embedding(client: TestClient, root: Path) -> None:
    mapped = layer_map(load(root / "random"), "layers.0", "input")
    direction = torch.tensor([[-1 / 3, 2 / 3, -1 / 3]], dtype=torch.float64)
    null = rotation_null(mapped.behind, direction, 0, 99, mapped.embedding)
    found = ask(client, "random", "null", output="1").json()
    assert found["samples"] == 99
    edges = [found["lower"], found["upper"]]
    assert edges == pytest.approx([float(edge) for edge in null.edges(0.95)])


def test_a_null_that_takes_too_long_is_not_sampled(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectra, "WORK", 1)
    found = ask(client, "planted", "null").json()
    assert (found["samples"], found["upper"]) == (0, None)


def test_an_approximation_says_its_r2_or_is_refused(client: TestClient) -> None:
    near = ask(client, "near", "spectrum").json()
    assert near["approximation"]["r_squared"] >= near["approximation"]["threshold"]
    far = ask(client, "far", "spectrum")
    assert far.status_code == 400
    assert "is not a quadratic form of its input" in far.json()["error"]


@pytest.mark.parametrize(
    ("what", "query", "told"),
    [
        ("spectrum", {"layer": "nothing"}, "'nothing' is no layer of planted"),
        ("spectrum", {"output": "2"}, "2 is no output of layers.0"),
        ("spectrum", {"output": "-1"}, "expected a text like"),
        ("spectrum", {"output": "0~rawer"}, "expected a text like"),
        ("spectrum", {"output": "0~0"}, "two different outputs"),
        ("eigenvectors", {"vector": "-1"}, "vector is '-1'"),
        ("interactions", {"count": "0"}, "count is '0'"),
        ("interactions", {"inputs": "age,height"}, "'height' names no input"),
        ("interactions", {"inputs": "3"}, "'3' names no input: expected one from 0 to 2"),
    ],
)
def test_a_bad_query_is_refused_with_a_sentence(
    client: TestClient, what: str, query: dict[str, str], told: str
) -> None:
    answer = ask(client, "planted", what, **query)
    assert answer.status_code == 400
    assert told in answer.json()["error"]


def test_no_contrast_of_neurons_and_no_layer_that_is_too_large(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(client, "deep", "spectrum").json()["reading"] == "raw"
    assert "neurons" in ask(client, "deep", "spectrum", output="0~1").json()["error"]
    monkeypatch.setattr(spectra, "LARGEST", 8)
    assert "too large for a page" in ask(client, "deep", "spectrum").json()["error"]
    assert ask(client, "nowhere", "spectrum").status_code == 404


def test_interactions_are_rows_of_q(client: TestClient, root: Path) -> None:
    found = ask(client, "random", "interactions", output="2", count=5).json()
    matrix = spectra_form(root / "random", 2).dense()
    rows = matrix.norm(dim=1).argsort(descending=True)[:5]
    assert found["inputs"] == rows.tolist()
    expected = matrix[rows][:, rows]
    assert torch.allclose(torch.tensor(found["matrix"]).double(), expected, rtol=1e-5)
    share = float(expected.square().sum() / matrix.square().sum())
    assert found["share"] == pytest.approx(share)


def test_inputs_are_named(client: TestClient) -> None:
    found = ask(client, "planted", "interactions", inputs=" debt, 0,age").json()
    assert (found["inputs"], found["names"]) == ([2, 0], ["debt", "age"])
    assert found["matrix"] == [[0.5, 0], [0, 3]]


def test_a_direction_of_a_language_model_is_read_as_tokens(client: TestClient, root: Path) -> None:
    layer = "blocks.1.mlp"
    found = ask(client, "language", "eigenvectors", layer=layer, output="3", vector=1).json()
    model = load(root / "language")
    f = layer_map(model, layer, "input").f
    eig = bl.eigendecompose(f.form(torch.eye(f.sizes.d_out, dtype=torch.float64)[3]), k=1)
    embed = model.module.embed.weight  # type: ignore[union-attr]
    (expected,) = eigenvector_tokens(eig, embed, 8)
    high = found["vectors"][0]["tokens"]["high"]
    assert [one["id"] for one in high] == [one.token for one in expected.high]
    name = load_tokenizer(root / "language").token
    assert high[0]["text"] == name(high[0]["id"])


def test_measurements_are_of_these_weights_alone(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    model = load(model_folder(root / "mnist", tiny.classifier()))
    history = bl.History(root)

    def audited(sha256: str) -> None:
        history.add(audit_of(root / "mnist", weights_sha256=sha256).record)

    with client_of(root) as client:
        audited("0" * 64)
        assert ask(client, "mnist", "truncation").json()["audit"] is None
        assert ask(client, "mnist", "layers").json()["audit"] is None
        audited(model.weights_sha256)
        assert ask(client, "mnist", "layers").json()["audit"] is None  # it read classes
        found = ask(client, "mnist", "truncation").json()
        points = make_document()["classes"]["truncation"]
        assert (found["audit"], found["points"]) == (2, points)


def test_measurements_are_of_the_reading_that_is_drawn_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red: with the accuracy of a model without its residual connections."""
    root, images = tmp_path / "runs", tiny.images(name="mnist")
    root.mkdir()
    model = root / "w.safetensors"
    save_file(official_state(1, sizes=(tiny.SIDE**2, 8, 3), seed=7), model)
    data = "--data", tiny.write_idx(root / "idx", images), "--dataset", "mnist"

    def measured(reading: str, *data: object) -> tuple[int | None, float | None]:
        """Return of which audit the curve is, and its last accuracy, once one more was made."""
        rotations = "--null-samples", str(tiny.ROTATIONS)
        words = ["audit", str(model), "--history", str(root), reading, *map(str, data), *rotations]
        monkeypatch.setattr("sys.argv", ["bilens", *words])  # which the audit says of itself
        run(*words)
        with client_of(root) as client:
            found = ask(client, "w.safetensors", "truncation").json()
        return found["audit"], found["points"][-1]["accuracy"] if found["points"] else None

    def accuracy(*, residual: bool) -> float:
        answers = load(model, residual=residual).module(images.test_images.flatten(1).float())
        return float((answers.argmax(1) == images.test_labels).double().mean())

    without, within = accuracy(residual=False), accuracy(residual=True)
    assert abs(without - within) > 0.01, "else nothing is shown"
    assert measured("--no-residual", *data) == (1, pytest.approx(without))
    assert measured("--residual") == (None, None)
    assert measured("--residual", *data) == (3, pytest.approx(within))
    assert measured("--no-residual") == (1, pytest.approx(without))


def test_layers_say_what_their_last_audit_says(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    near = tiny.classifier(gate="gelu", n_layers=2)
    model = load(model_folder(root / "near", near))
    report = bl.audit(model, null_samples=tiny.ROTATIONS)
    bl.History(root).add(report.record)
    with client_of(root) as client:
        found = ask(client, "near", "layers").json()
    assert [row["name"] for row in found["layers"]] == ["layers.0", "layers.1"]
    for row, said in zip(found["layers"], report.record.layers.readings, strict=True):
        assert (row["r_squared"], row["usable"]) == (said.fit.quadratic, said.fit.usable)
        assert (row["norm"], row["dead"]) == (said.quadratic_norm, said.units.dead)


def test_a_model_that_changes_and_goes_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    model_folder(root / "mnist", tiny.planted(PLANTED, 3))
    with client_of(root) as client:
        assert ask(client, "mnist", "spectrum").json()["bounds"][0] == pytest.approx(3)
        shutil.rmtree(root / "mnist")
        half = [(left, right, [column[0] / 2, 0.0]) for left, right, column in PLANTED]
        model_folder(root / "mnist", tiny.planted(half, 3))
        assert ask(client, "mnist", "spectrum").json()["bounds"][0] == pytest.approx(1.5)
        weights = next((root / "mnist").glob("*.safetensors"))
        weights.write_bytes(b"nothing")
        broken = ask(client, "mnist", "spectrum")
        assert broken.status_code == 503
        assert str(root) not in broken.json()["error"]
        shutil.rmtree(root / "mnist")
        assert ask(client, "mnist", "spectrum").status_code in (404, 503)
        monkeypatch.setattr(folders, "FRESH", 0.0)
        assert ask(client, "mnist", "spectrum").status_code == 404
