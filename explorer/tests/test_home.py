"""The first page and the watch of the folder: what is shown is of today, and cheap to ask for.

Broken once: with the overview built for a model's page, with the history read for each model, with
a replaced history read on from the old numbers, with a digest without the entries, and of
the short texts that records are shown by.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec import structs
from starlette.testclient import TestClient

import bilens as bl
import explorer_documents
import tiny
from bilens.base.errors import CheckpointError, FileError
from bilens.records import FileDifference
from bilens.report.sections.overview import rule_number, title_of
from bilens.report.text import load_catalogue
from bilens_explorer import folder as folders
from bilens_explorer.app import build_app
from bilens_explorer.folder import ServedFolder
from bilens_explorer.home import DRAWN
from bilens_explorer.overview import digest
from bilens_explorer.pages import model_page, overview_page
from bilens_explorer.people import findings
from bilens_explorer.records.models import id_of
from bilens_explorer.standing import spark
from bilens_explorer.walk import walk
from commands import FILE, Shell, model_folder
from explorer_server import HERE
from report_documents import audit_of, failed, make_document


def audited(
    history: bl.History, name: str, document: Any = None, *, weights: str = "", **values: float
) -> None:
    record = audit_of(history.folder / name, document).record
    if weights:
        source = structs.replace(record.source, weights_sha256=weights)
        record = structs.replace(record, source=source)
    verdict = tuple(
        structs.replace(one, values=one.values | {"value": values[one.rule]})
        if one.rule in values
        else one
        for one in record.verdict
    )
    history.add(structs.replace(record, verdict=verdict))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for name in ("mnist", "prod/second", "new"):
        model_folder(root / name, tiny.classifier())
    history = bl.History(root)
    audited(history, "mnist", weights=64 * "0", accuracy=0.9)
    audited(history, "mnist", failed(), accuracy=0.8)
    audited(history, "prod/second", accuracy=0.7)
    return root


@pytest.fixture
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ServedFolder:
    monkeypatch.setattr(folders, "FRESH", -1.0)  # each look walks
    return ServedFolder(folder)


def test_each_field_of_a_record_counts_for_whether_the_folder_is_what_it_was() -> None:
    files = [FileDifference(name, "missing") for name in "abcdefgh"]
    changed = [*files[:-1], structs.replace(files[-1], state="new")]
    long = [FileDifference(400 * "x" + end, "missing") for end in "ab"]
    assert len({digest(one) for one in (files, changed, *long)}) == 4
    assert digest(files, {"m": tuple(long)}) == digest([*files], {"m": (*long,)})


def test_a_row_says_what_changed_since_the_audit_before(served: ServedFolder) -> None:
    found = {row.name: row for row in served.overview().models}
    assert {"exact", "complete", "accuracy"} <= {
        one.rule for one in found["mnist"].changes if one.direction == "worse"
    }
    assert found["prod/second"].changes == ()


def test_a_page_of_a_model_reads_nothing_of_others(
    served: ServedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3,
        "connect",
        lambda *given, **more: (opened.append(given[0]), connect(*given, **more))[1],
    )
    served.overview()
    # whether anything was added, for walk and page, what, and the day: of however many models
    assert len(opened) == 6
    monkeypatch.setattr(folders, "overview_of", None)
    assert served.model(id_of("mnist")) is not None  # which reads the last document
    first = len(opened)
    page = served.model(id_of("mnist"))
    assert [audit.number for audit in page.audits] == [2, 1]
    assert {one.audit for one in page.measured} == {1, 2}
    # whether anything was added: for each look at the folder, the page and its command
    assert len(opened) <= first + 6


def test_a_history_in_its_place_is_read_anew(served: ServedFolder) -> None:
    assert len(served.past().audits["mnist"]) == 2
    audited(served.history, "mnist")
    assert [one.number for one in served.past().audits["mnist"]] == [4, 2, 1]
    other = served.folder.parent / "other"
    other.mkdir()
    history = bl.History(other)
    for _ in range(5):
        audited(history, "else")
    for path in served.folder.glob("bilens.db*"):
        path.unlink()
    with sqlite3.connect(history.path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    history.path.rename(served.history.path)
    assert set(served.past().audits) == {"else"}


def test_verdicts_are_those_of_the_history_that_lies_there(
    served: ServedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = id_of("mnist")
    page = served.model(key)
    assert page.findings
    later = Mock(side_effect=CheckpointError("a document of a later version"))
    with monkeypatch.context() as closed:
        closed.setattr(served, "audit", later)
        closed.setattr(served, "_verdicts", {})
        unread = served.model(key)
    t = load_catalogue("en")
    assert t("explorer.document_unread") in findings(t, unread)
    assert served.model(key).findings == page.findings  # nothing of that was kept
    for path in served.folder.glob("bilens.db*"):
        path.unlink()
    for document in (None, make_document()):
        audited(bl.History(served.folder), "mnist", document)
    again = served.model(key)
    assert again.findings != page.findings
    assert t("explorer.no_finding") in findings(t, again)


def test_a_page_knows_whether_it_is_of_today(served: ServedFolder, folder: Path) -> None:
    key, other = id_of("mnist"), id_of("prod/second")

    def digests() -> dict[str, str]:
        models = {name: served.model_state(name).digest for name in (key, other)}
        return {"": served.state().digest, **models}

    seen = [digests()]

    def changed() -> set[str]:
        seen.append(digests())
        return {name for name in seen[-1] if seen[-1][name] != seen[-2][name]}

    assert changed() == set()
    audited(served.history, "mnist")
    assert changed() == {"", key}
    served.history.say("note", "mnist", "rule:exact", "why", "Ada")
    assert changed() == {"", key}
    file = folder / "prod/second/model.safetensors"
    os.utime(file, ns=(1, 1))
    assert changed() == {other}
    (folder / "prod").rename(folder.parent / "away")
    assert changed() == {"", other}
    assert not served.model_state(other).there
    assert not served.model_state("0" * 16).there
    page = served.model(key)
    assert page.digest == seen[-1][key]
    assert served.overview().digest == seen[-1][""]


def test_who_asks_during_a_long_walk_does_not_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "FRESH", -1.0)
    served, ended = ServedFolder(folder, patience=0.0), Event()
    before = served.last_walk()
    with monkeypatch.context() as slow:
        slow.setattr(folders, "walk", lambda *given: ended.wait(60) and walk(*given))
        (folder / "new").rename(folder / "renamed")
        assert served.last_walk() is before
        ended.set()
        served._walker.join()
    assert id_of("renamed") in served._found.models


@pytest.fixture
def closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The explorer of a folder that is read-only."""
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    app = build_app(ServedFolder(folder), ["127.0.0.1:8737"])
    with TestClient(app, base_url=HERE) as client:
        yield client


def test_a_folder_that_is_read_only_is_shown(closed: TestClient) -> None:
    for address in ("/", f"/models/{id_of('mnist')}"):
        page = closed.get(address)
        assert page.status_code == 200
        assert "may only be read" in page.text
        assert 'data-view="people"' not in page.text
    assert closed.get("/api/v1/overview").json()["models"][0]["audits"] == 2


def test_a_folder_without_rights_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.R_OK)
    with pytest.raises(FileError, match="may not be read"):
        ServedFolder(folder)


@pytest.mark.parametrize("fault", ["broken", "foreign", "later", "none"])
def test_what_is_no_history_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fault: str,
) -> None:
    shell = Shell(capsys, monkeypatch)
    path = tmp_path / "bilens.db"
    if fault == "broken":
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    elif fault == "foreign":
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE notes (text)")
    elif fault == "later":
        bl.History(tmp_path)
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 99")
    result = shell("serve", tmp_path / "nothing" if fault == "none" else tmp_path)
    assert result.code == FILE
    words = {"later": "version 99", "none": "no folder"}.get(fault, "no history of bilens")
    assert words in result.error()


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_rules_have_their_names(lang: str, folder: Path) -> None:
    served, t = ServedFolder(folder), load_catalogue(lang)
    page = overview_page(served.overview(), lang, "")
    assert title_of(t, "exact") in page
    found = served.model(id_of("mnist"))
    assert title_of(t, "overfitting") in model_page(found, lang, "")
    assert title_of(t, "of_later") == "of_later"
    assert rule_number(t, "accuracy", "classes", 0.875) == "87.5%"
    assert rule_number(t, "of_later", "classes", 0.875) == "—"


def test_a_line_has_gaps() -> None:
    assert spark("a", "b", [1.0, None]) == ""
    drawn = str(spark("a", "b", [1.0, None, 2.0, 3.0]))
    assert drawn.count("<polyline") == 2
    assert 'points="2,17 2,17"' in drawn  # a number alone is a dot
    assert drawn.endswith('points="55.3,10 82,3" class="trend"/></svg>')


def test_rows_behind_the_first_ones_are_on_a_page_of_their_own() -> None:
    rows = tuple(
        structs.replace(explorer_documents.STEADY, id=f"{n}", name=f"m-{n}") for n in range(150)
    )
    found = structs.replace(explorer_documents.OVERVIEW, models=rows)
    body = overview_page(found, "en", "").split("<tbody")[1]
    assert body.count("data-answer") == DRAWN
    assert "<noscript>" in body
    assert 'href="/?every=' in body
    every = overview_page(found, "en", "", every=True)
    assert every.count("data-answer") == 150
    assert "/?every=" not in every
