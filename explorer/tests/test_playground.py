"""What the playground is sent: the model itself, proven bounds, exact radii; or why it is not.

Broken once: with left sent for right, with the lowest bound sent for the highest, with all prepared
spectra kept, with images of other labels, with bodies of half the length let through.
"""

from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from starlette.testclient import TestClient

import bilens as bl
import tiny
from bilens.algebra.directions import centred_directions
from bilens.base.errors import DataError
from bilens.data.images import embedded_digits, test_images_at_hand as at_hand
from bilens.report.reports import AuditReport
from bilens_explorer import open_models, playground
from bilens_explorer.folder import id_of
from bilens_explorer.guard import HEADER, LARGEST
from bilens_explorer.open_models import Results, bytes_of
from commands import Shell, model_folder
from explorer_server import HERE
from report_documents import make_document


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tiny.classifier(bias=True, dtype=torch.float32)
    model_folder(tmp_path / "runs" / "one", model, provenance={"data_name": "mnist"})
    return tmp_path / "runs"


def asked(client: TestClient, name: str = "one", rest: str = "playground") -> dict[str, Any]:
    answer = client.get(f"/api/v1/models/{id_of(name)}/{rest}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def radius_of(client: TestClient, inputs: list[float], name: str = "one") -> Any:
    headers = {"origin": HERE, HEADER: client.app.secret}  # type: ignore[attr-defined]
    body = {"inputs": inputs}
    return client.post(f"/api/v1/models/{id_of(name)}/radius", json=body, headers=headers)


def unpacked(packed: dict[str, Any]) -> torch.Tensor:
    array = np.frombuffer(b64decode(packed["base64"]), np.dtype(packed["dtype"]).newbyteorder("<"))
    return torch.tensor(array.astype(np.float64)).reshape(packed["shape"])


def sent_map(found: dict[str, Any]) -> bl.QuadraticMap:
    parts = {name: None if part is None else unpacked(part) for name, part in found["map"].items()}
    tensor = bl.BilinearTensor(parts["down"], parts["left"], parts["right"])  # type: ignore[arg-type]
    return bl.QuadraticMap(tensor, parts["linear"], parts["constant"])


def own_map(root: Path, name: str = "one") -> bl.QuadraticMap:
    module = bl.load(root / name).module
    assert isinstance(module, bl.nn.BilinearClassifier)
    return module.double().quadratic_map().detach()


def test_the_numbers_that_are_sent_are_the_model(client: TestClient, root: Path) -> None:
    f, mine, x = own_map(root), sent_map(asked(client)), torch.rand(20, tiny.PIXELS).double()
    assert asked(client)["map"]["left"]["dtype"] == "float32"
    torch.testing.assert_close(mine(x), f(x), rtol=1e-5, atol=1e-5)


def test_pairs_are_those_of_the_centred_classes_and_bounds_hold(client: TestClient) -> None:
    found = asked(client)
    f = sent_map(found)
    for direction, one in zip(centred_directions(tiny.CLASSES), found["spectra"], strict=True):
        matrix = f.form(direction).dense()
        values = torch.linalg.eigvalsh(matrix)
        assert one["low"] <= values[0]
        assert one["high"] >= values[-1]
        assert max(values[0] - one["low"], one["high"] - values[-1]) < 1e-9
        vectors = unpacked(one["vectors"])
        pairs = torch.tensor(one["values"], dtype=torch.float64)
        torch.testing.assert_close(vectors @ matrix, pairs[:, None] * vectors, rtol=0, atol=1e-6)
        order = values[values.abs().argsort(descending=True)][: one["leading"]]
        torch.testing.assert_close(pairs[: one["leading"]], order)
        assert min((pairs > 0).sum(), (pairs < 0).sum()) >= playground.OF_SIGN
    pair = asked(client, rest="playground/pair?first=2&second=0")["pairs"]
    direction = torch.tensor([-1.0, 0, 1]).double()
    values = torch.linalg.eigvalsh(f.form(direction).dense())
    assert pair["values"][0] == pytest.approx(float(values[values.abs().argmax()]))
    assert client.get(f"/api/v1/models/{id_of('one')}/playground/pair?first=1").status_code == 400


def test_the_radius_is_the_exact_one(client: TestClient, root: Path) -> None:
    f, x = own_map(root), tiny.images().test_images[:4].double()
    expected = bl.certify.l2_radius(f, x, f(x).argmax(dim=1))
    for row, inputs in enumerate(x.tolist()):
        found = radius_of(client, inputs).json()
        assert found["status"] == "certified"
        assert found["radius"] == pytest.approx(float(expected.radius[row]))
        assert (found["label"], found["rival"]) == (int(f(x[row]).argmax()), expected.rival[row])
        assert (
            int(f(torch.tensor(found["example"], dtype=torch.float64)).argmax()) != found["label"]
        )
        assert found["weights_sha256"] == bl.load(root / "one").weights_sha256


@pytest.mark.parametrize("inputs", [[0.5] * 7, [], [1e300] * tiny.PIXELS, ["a"] * tiny.PIXELS])
def test_a_wrong_input_is_refused_in_a_sentence(client: TestClient, inputs: list[Any]) -> None:
    answer = radius_of(client, inputs)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_the_largest_image_that_is_drawn_is_let_through() -> None:
    width = playground.MOST // (2 + 2 * playground.LEADING)  # one unit, two outputs
    pixel = len("-1.1234567890123456e-100,")  # no float64 of an image is longer
    assert len('{"inputs":[]}') + width * pixel <= LARGEST


def test_results_are_kept_as_many_as_fit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Results()
    f = own_map(root)
    spectra = bl.certify.prepare(f)
    size = bytes_of(spectra)
    vectors = sum(one.vectors.nbytes for one in spectra.contrasts.values())
    assert vectors <= size <= 2 * vectors + 10_000
    monkeypatch.setattr(open_models, "RESULTS", size)
    for name in "abc":
        kept.keep(name, spectra)
    assert [len(kept.find(name)) for name in "abc"] == [0, 1, 1]


@pytest.mark.parametrize(
    ("options", "why"),
    [({"n_layers": 2}, "layers"), ({"gate": "gelu"}, "activation"), ({"d_hidden": 40}, "large")],
)
def test_what_is_no_single_quadratic_map_says_why(
    client: TestClient,
    root: Path,
    options: dict[str, Any],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(playground, "MOST", 36 * (2 * 39 + 3 * playground.LEADING))
    model_folder(root / "other", tiny.classifier(**options))
    found = asked(client, "other")
    assert (found["kind"], found["why"]) == ("no_playground", why)
    assert "one quadratic map" in radius_of(client, [0.0] * 36, "other").json()["error"]


def test_it_begins_with_images_of_the_last_audit_and_of_the_data(
    client: TestClient, root: Path
) -> None:
    assert asked(client)["tests"] == []
    data = tiny.images(name="mnist")
    tiny.write_idx(root.parent / "cache" / "bilens" / "mnist", data)
    record = AuditReport(make_document()).record
    source = structs.replace(record.source, path=str(root / "one"))
    bl.History(root).add(structs.replace(record, source=source))
    found = asked(client)["tests"]
    assert {one["origin"] for one in found} == {"audit", "data"}
    drawn = [one for one in found if one["origin"] == "data"]
    assert [one["label"] for one in drawn] == [0, 0, 1, 1, 2, 2]
    for one in drawn:
        assert data.test_labels[one["index"]] == one["label"]
        assert one["pixels"] == pytest.approx(data.test_images[one["index"]].tolist(), abs=1e-5)


def test_digits_that_a_model_may_have_been_trained_on_are_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digits = embedded_digits()
    images, labels = at_hand("mnist", digits.fingerprint)
    assert (len(images), len(labels)) == (1000, 1000)
    for name, trained_on in (("mnist", "other"), ("mnist", None), ("../mnist", None)):
        with pytest.raises(DataError, match="no test images"):
            at_hand(name, trained_on)


def test_columns_and_rows_of_a_table_are_those_of_its_training(
    client: TestClient,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = ["size,city,since,price"]
    for row in range(60):
        city = ("<b>Ōsaka</b>", "Tokyo")[row % 2]
        size = "" if row % 9 == 0 else f"{row % 7}"
        lines.append(f"{size},{city},2024-0{1 + row % 3}-1{row % 8},{row % 7 + 3 * (row % 2)}.5")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    shell = Shell(capsys, monkeypatch)
    shell("train", "table", tmp_path / "t.csv", "--target=price", f"--out={root / 'table'}")
    found = asked(client, "table")
    kinds = {one["name"]: one for one in found["columns"]}
    assert {name: one["kind"] for name, one in kinds.items()} == {
        "size": "number",
        "city": "category",
        "since": "date",
    }
    assert kinds["size"]["parts"] == ["value", "(missing)"]
    assert kinds["size"]["whole"]
    assert (kinds["size"]["low"], kinds["size"]["high"]) == (0.0, 6.0)
    assert kinds["city"]["parts"] == ["<b>Ōsaka</b>", "Tokyo"]
    assert {"month", "weekday", "days"} <= {*kinds["since"]["parts"]}
    rows = unpacked(found["rows"])
    model = bl.load(root / "table")
    assert rows.shape == (12, len(model.input_names or ()))
    mean, scale = (
        torch.tensor(found[name], dtype=torch.float64) for name in ("input_mean", "input_scale")
    )
    torch.testing.assert_close(
        sent_map(found)((rows - mean) / scale), own_map(root, "table")(rows), rtol=1e-9, atol=1e-9
    )
    assert len(found["row_numbers"]) == 12
    (root / "table" / "test.csv").write_text("nothing")
    found = asked(client, "table")  # then ranges are those of three deviations
    assert found["rows"] is None
    assert found["columns"][0]["high"] == pytest.approx(float(mean[0] + 3 * scale[0]))
