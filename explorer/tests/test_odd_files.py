"""Models of several files, files of odd names: views, pages and exports follow what lies there.

Seen red: a name that is no text broke every page, a view of an ONNX file drew numbers that had been
replaced, a changed configuration was told as "identical".
"""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

import bilens as bl
import tiny
from bilens_explorer import folder as folders
from bilens_explorer.app import build_app
from bilens_explorer.export import export
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.models import id_of
from commands import model_folder
from explorer_server import HERE
from onnx_files import matrices, write as write_onnx

CHAIN = [("MatMul", "x w0", "a"), ("Relu", "a", "b"), ("MatMul", "b w1", "y")]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folders, "FRESH", -1.0)  # each look walks
    return tmp_path


def audit(root: Path, name: str) -> None:
    """Record a real audit of what lies there."""
    bl.History(root).add(bl.audit(bl.load(root / name), null_samples=39).record)


def state(root: Path, name: str) -> str:
    (row,) = [one for one in ServedFolder(root).overview().models if one.name == name]
    return row.state


def answers(root: Path, *paths: str) -> set[int]:
    app = build_app(ServedFolder(root), [HERE.removeprefix("http://")])
    with TestClient(app, base_url=HERE) as client:
        return {client.get(path).status_code for path in ("/", *paths)}


def test_a_file_whose_name_is_no_text_breaks_nothing(root: Path) -> None:
    model_folder(root / "m", tiny.classifier())
    audit(root, "m")
    path = os.fsencode(root / "m") + b"/w\xff.bin"
    Path(os.fsdecode(path)).write_bytes(b"abc")
    key = id_of("m")
    pages = f"/models/{key}", "/api/v1/overview", "/api/v1/state", f"/api/v1/models/{key}"
    assert state(root, "m") == "changed"
    assert answers(root, *pages) == {200}
    audit(root, "m")
    assert state(root, "m") == "audited"
    assert answers(root, *pages) == {200}
    export(ServedFolder(root, exporting=True), "en")
    Path(os.fsdecode(path)).write_bytes(b"abd")
    assert state(root, "m") == "changed"


def test_a_row_that_is_no_text_is_of_its_model_alone(root: Path) -> None:
    for name in ("m", "n"):
        model_folder(root / name, tiny.classifier())
        audit(root, name)
    with closing(sqlite3.connect(root / "bilens.db")) as database, database:
        database.execute("DROP TRIGGER audits_stay")
        odd = json.dumps(["\ud800"])
        database.execute("UPDATE audits SET failed = ? WHERE model = 'm'", [odd])
    pages = (f"/models/{id_of(name)}" for name in ("m", "n"))
    assert answers(root, "/api/v1/overview", *pages) == {200}
    assert bl.History(root).audits("m")[0].unread
    assert not bl.History(root).audits("n")[0].unread


def test_a_view_follows_numbers_that_lie_beside_their_file(root: Path) -> None:
    (root / "m").mkdir()
    beside = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    write_onnx(root / "m" / "m.onnx", CHAIN, matrices(4, 6, 3), **beside)
    served, key, x = ServedFolder(root), id_of("m/m.onnx"), torch.ones(2, 4, dtype=torch.float64)

    def drawn() -> torch.Tensor:
        opened = served.opened(key)
        (view,) = opened.model.layers.values()
        return opened.once("a view", lambda: bl.quadratic_fit(view).quadratic_map(x))

    before = drawn()
    assert torch.equal(drawn(), before)
    numbers = np.fromfile(root / "m" / "w.bin", "f4")
    (2 * numbers).tofile(root / "m" / "w.bin")
    assert not torch.equal(drawn(), before)


def test_what_was_audited_does_not_lie_where_only_its_weights_do(root: Path) -> None:
    for name in ("m", "copy", "n"):
        model_folder(root / name, tiny.classifier())
        audit(root, name)
    for name in ("m", "n"):
        config = root / name / "config.json"
        config.write_text(config.read_text().replace("{", "{ ", 1))
    served = ServedFolder(root)
    served.overview()
    assert served.model(id_of("m")).before == id_of("copy")
    (root / "copy" / "more.json").write_text("{}")
    served.overview()
    assert served.model(id_of("m")).before == ""  # neither itself, nor another with its weights
