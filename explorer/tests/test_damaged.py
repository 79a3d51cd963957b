"""Nothing that a document or a row says breaks a page: that model says so, the others go on.

Broken once: with documents unpacked whole, with kinds that are no texts looked up, with rows of a
later release refused with all others.
"""

import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import bilens as bl
import tiny
from bilens.api.history_file import LARGEST
from bilens.api.watch import lies_in
from bilens_explorer.export import export
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.models import id_of
from commands import model_folder
from explorer_server import client_of
from report_documents import audit_of, failed, make_document

DEEP = b'{"a":' * 900 + b"1" + b"}" * 900
ROWS = (
    "answer = 'approved_by_law'",
    "kind = 'thoughts'",
    "kind = x'00'",
    "failed = '{'",
    "files = '[[1, 2]]'",
    "identity = '[]'",
    "date = x'', version = x''",
    "command = CAST(zeroblob(1100000) AS TEXT)",
    "number = 4611686018427387904",
)


def documents() -> dict[str, bytes]:
    """What may stand in place of a document: odd kinds, words of later, depths, bombs."""
    known = make_document()
    odd: list[Any] = [[], 7, None, {}, {"kind": []}, {"kind": {}, "read_as": [1]}, {"read_as": "x"}]
    odd += [known | {"read_as": one} for one in (None, [], "later")]
    odd += [known | {"kind": "later"}, known | {"schema_version": 9}, known | {"verdict": [{}]}]
    odd += [known | {"verdict": [known["verdict"][0] | {"outcome": "maybe"}]}]
    odd += [known | {"source": known["source"] | {"provenance": {"a": "b" * 100_000}}}]
    odd += [{name: one for name, one in known.items() if name != "kind"}]
    texts = {f"odd {place}": json.dumps(one).encode() for place, one in enumerate(odd)}
    texts |= {"deep": DEEP, "deeper": 100_000 * b"[", "empty": b"", "no text": b"\xff\xfe"}
    texts |= {"wide": b'{"a":[' + 1_200_000 * b"{}," + b"1]}", "nan": b'{"kind":"audit","a":NaN}'}
    return texts | {"zeros": bytes(40_000_000)}


def change(folder: Path, line: str, **values: Any) -> None:
    with closing(sqlite3.connect(folder / "bilens.db")) as database, database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            database.execute(f"DROP TRIGGER {name}")
        database.execute(line, values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for name in ("a", "b"):
        model_folder(root / name, tiny.classifier())
    history = bl.History(root)
    for name in ("a", "b"):
        weights = bl.load(root / name).weights_sha256
        history.add(audit_of(root / name, failed(), weights_sha256=weights).record)
        history.say("accept", name, "rule:exact", "known", "Ada")
    return root


def assert_others_go_on(client: TestClient) -> None:
    for lang in ("en", "ja"):
        assert client.get(f"/?lang={lang}").status_code == 200
        for name in ("a", "b"):
            assert client.get(f"/models/{id_of(name)}?lang={lang}").status_code == 200
    rows = {one["name"]: one for one in client.get("/api/v1/overview").json()["models"]}
    assert {"a", "b"} <= {*rows}
    assert "exact" in rows["b"]["last"]["failed"]
    assert client.get("/audits/2").status_code == 200
    assert client.get(f"/models/{id_of('b')}/summary").status_code == 200
    for address in ("/audits/1", f"/models/{id_of('a')}/summary", "/api/v1/audits/1"):
        assert client.get(address).status_code in (200, 400, 404, 503), address


def audits_table(client: TestClient) -> str:
    return client.get(f"/models/{id_of('a')}?lang=en").text.partition('id="audits"')[2]


@pytest.mark.parametrize("damage", ROWS)
def test_a_row_that_cannot_be_read(folder: Path, damage: str) -> None:
    change(folder, f"UPDATE audits SET {damage} WHERE number = 1")  # noqa: S608
    with client_of(folder) as client:
        assert_others_go_on(client)
        row = client.get(f"/api/v1/models/{id_of('a')}").json()
        assert row["audits"][0]["unread"]
        assert "This row of the history cannot be read" in audits_table(client)
        assert "Cannot be judged" not in audits_table(client)
        if "number" not in damage:
            assert row["model"]["state"] == "unread"
            assert "row 1 of the history" in client.get(f"/models/{id_of('a')}?lang=en").text
            assert row["model"]["differences"] == []  # nothing is known to have changed
            assert "Not known: the last audit cannot be read" in client.get("/?lang=en").text
            assert client.get("/audits/1").status_code == 503
            run = client.get(f"/api/v1/models/{id_of('a')}/audit").json()
            assert (run["state"], run["why"]) == ("refused", "none")  # no command is blamed


@pytest.mark.parametrize(
    "damage", ["action = 'later'", "text = x'00'", "value = 9e999", "author = 'Eve'"]
)
def test_an_entry_that_cannot_be_read(folder: Path, damage: str) -> None:
    change(folder, f"UPDATE entries SET {damage} WHERE number = 1")  # noqa: S608
    with client_of(folder) as client:
        assert_others_go_on(client)
        found = client.get(f"/api/v1/models/{id_of('a')}").json()
        assert found["entries"][0]["unread"]
        assert found["model"]["approvals"] == []
        assert "cannot be read" in client.get(f"/models/{id_of('a')}?lang=en").text


@pytest.mark.parametrize("damage", ["'a', 'every:rule'", "'a', x'00'", "x'ff', 'rule:exact'"])
def test_a_later_entry_that_cannot_be_read(folder: Path, damage: str) -> None:
    """Seen red: approved still, beside the sentence that nothing that was judged holds."""
    values = f"9, '2027-03-01T10:00:00Z', 'Bob', 'suspend', '', 'no', {damage}"
    columns = "number, date, author, action, weights_sha256, text, model, subject"
    change(folder, f"INSERT INTO entries ({columns}) VALUES ({values})")  # noqa: S608
    with client_of(folder) as client:
        found = client.get(f"/api/v1/models/{id_of('a')}").json()
        assert found["entries"][0]["unread"]
        assert found["model"]["approvals"] == []
        page = client.get(f"/models/{id_of('a')}?lang=en").text
        assert "Entry 9 of the history cannot be read" in page


@pytest.mark.parametrize("until", ["[]", "Inf", "20990101", "9999-99-99"])
def test_an_acceptance_until_what_is_no_day(folder: Path, until: str) -> None:
    """Seen red: approved for ever."""
    change(folder, "UPDATE entries SET until = :until WHERE number = 1", until=until)
    with client_of(folder) as client:
        assert_others_go_on(client)
        assert client.get(f"/api/v1/models/{id_of('a')}").json()["model"]["approvals"] == []


def test_a_name_that_no_file_can_have(folder: Path) -> None:
    """Seen red: no model that was never audited was listed, and no report."""
    model_folder(folder / "never", tiny.classifier(seed=2))
    change(folder, "UPDATE audits SET model = :name WHERE number = 1", name="x" * 300)
    with client_of(folder) as client:
        states = {
            one["name"]: one["state"] for one in client.get("/api/v1/overview").json()["models"]
        }
    assert states["never"] == "never"
    assert states["x" * 300] in ("gone", "unread")
    assert lies_in(folder / ("x" * 300), [folder.resolve()])  # which a watch asks first


def test_a_number_of_a_rule_that_cannot_be_read(folder: Path) -> None:
    change(folder, "UPDATE measured SET outcome = 'later', value = 9e999 WHERE audit = 1")
    with client_of(folder) as client:
        assert_others_go_on(client)


@pytest.mark.parametrize("what", documents())
def test_a_document_that_cannot_be_read(folder: Path, what: str) -> None:
    text = documents()[what]
    change(folder, "UPDATE audits SET document = :one WHERE number = 1", one=zlib.compress(text))
    if len(text) < 1 << 24:
        (folder / "a" / "report.json").write_bytes(text)
        (folder / "lies.json").write_bytes(b'{"read_as": "classes",' + text[1:])
    with client_of(folder) as client:
        assert_others_go_on(client)
        if what == "zeros":  # of which no more is unpacked than a document may have
            assert f"more than {LARGEST:,} bytes" in client.get("/api/v1/audits/1").text
        for report in client.get("/api/v1/overview").json()["reports"]:
            for start in ("/reports", "/api/v1/reports"):
                assert client.get(f"{start}/{report['id']}").status_code in (200, 400, 503)


def test_the_export_goes_on(folder: Path) -> None:
    change(folder, "UPDATE audits SET document = :one WHERE number = 1", one=zlib.compress(DEEP))
    bl.History(folder).say("note", "a", "model", "x", "Ada")
    change(folder, "UPDATE audits SET answer = 'later' WHERE number = 1")
    change(folder, "UPDATE entries SET action = 'later'")
    html = export(ServedFolder(folder), "en").html
    for name in ("a", "b"):
        assert f'data-path="/models/{id_of(name)}"' in html
    assert "/audits/2" in html
