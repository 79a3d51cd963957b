"""The explorer: what is in a folder is shown, and nothing gets through that should not.

Broken once: with any Host let through, with the secret not compared, with links followed out of
the folder, with names written unescaped.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from starlette.testclient import TestClient

import bilens as bl
import tiny
from bilens.base.errors import UsageError
from bilens.cli.commands.serve import Address
from bilens.report.reports import AuditReport
from bilens.serve.app import build_app
from bilens.serve.folder import ServedFolder, id_of
from bilens.serve.guard import HEADER, LARGEST
from commands import model_folder
from report_documents import failed, make_document

HERE = "http://127.0.0.1:8737"
TOKEN = "a-token"  # noqa: S105 - of a test
HOSTILE = '<img src=x onerror="alert(1)">'


def audited(history: bl.History, name: str, document: dict[str, Any]) -> None:
    record = AuditReport(document).record
    path = str(history.folder / name)
    history.add(structs.replace(record, source=structs.replace(record.source, path=path)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for name in ("mnist", "prod/second", HOSTILE):
        model_folder(root / name, tiny.classifier())
    history = bl.History(root)
    audited(history, "mnist", make_document())
    audited(history, "mnist", failed())
    AuditReport(make_document()).to_json(root / "report.json")
    (root / "other.json").write_text('{"kind": "shopping list"}')
    return root


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(build_app(ServedFolder(folder), ["127.0.0.1:8737"]), base_url=HERE) as found:
        yield found


def said(client: TestClient, key: str, **changes: Any) -> Any:
    secret = client.app.secret  # type: ignore[attr-defined]
    headers = {"origin": HERE, HEADER: secret, **changes.pop("headers", {})}
    body = {"action": "accept", "subject": "rule:exact", "text": "known", "author": "Ada"} | changes
    return client.post(f"/api/v1/models/{key}/entries", json=body, headers=headers)


def test_models_and_reports_of_a_folder_are_listed(client: TestClient) -> None:
    found = client.get("/api/v1/overview").json()
    names = [row["name"] for row in found["models"]]
    assert names[0] == "mnist"  # audited, and it fails
    assert set(names) == {"mnist", "prod/second", HOSTILE}
    assert found["models"][0]["new"] == sorted(found["models"][0]["last"]["failed"])
    assert found["models"][0]["failures"] == [0, len(found["models"][0]["last"]["failed"])]
    assert [(row["name"], row["kind"]) for row in found["reports"]] == [("report.json", "audit")]


def test_a_model_that_is_gone_keeps_its_history(client: TestClient, folder: Path) -> None:
    (folder / "mnist").rename(folder.parent / "away")
    row = client.get(f"/api/v1/models/{id_of('mnist')}").json()["model"]
    assert (row["there"], row["audits"]) == (False, 2)


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_page_is_there_in_both_languages(client: TestClient, lang: str) -> None:
    key, report = id_of("mnist"), id_of("report.json")
    for address in ("/", f"/models/{key}", f"/reports/{report}", "/audits/1", "/audits/2"):
        answer = client.get(f"{address}?lang={lang}")
        assert answer.status_code == 200
        assert f'<html lang="{lang}">' in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-eval" not in policy


def test_the_language_of_the_browser_is_taken(client: TestClient) -> None:
    page = client.get("/", headers={"accept-language": "ja-JP,en;q=0.8"}).text
    assert '<html lang="ja">' in page


def test_the_same_document_is_page_and_json(client: TestClient, folder: Path) -> None:
    document = client.get("/api/v1/audits/2").json()
    assert document == bl.History(folder).document(2)


def test_what_is_said_is_kept_and_shown(client: TestClient, folder: Path) -> None:
    key = id_of("mnist")
    answer = said(client, key, author=HOSTILE, text=HOSTILE, until="2999-01-01")
    assert answer.status_code == 201
    (entry,) = bl.History(folder).entries("mnist")
    assert (entry.author, entry.until) == (HOSTILE, "2999-01-01")
    assert client.get(f"/api/v1/models/{key}").json()["model"]["accepted"] == ["exact"]
    for address in ("/", f"/models/{key}"):
        assert HOSTILE not in client.get(address).text


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {"origin": "http://evil.example"}}, 403),
        ({"headers": {"origin": "null"}}, 403),
        ({"headers": {"sec-fetch-site": "cross-site"}}, 403),
        ({"headers": {HEADER: "guessed"}}, 403),
        ({"headers": {"content-type": "text/plain"}}, 415),
        ({"text": "x" * LARGEST}, 413),
        ({"action": "delete"}, 400),
        ({"until": "soon"}, 400),
        ({"more": 1}, 400),
        ({"author": ""}, 400),
    ],
)
def test_a_change_comes_from_the_explorers_own_page(
    client: TestClient, folder: Path, changes: dict[str, Any], status: int
) -> None:
    answer = said(client, id_of("mnist"), **changes)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert bl.History(folder).entries() == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_no_method_passes_from_elsewhere(client: TestClient, method: str) -> None:
    for address in ("/", "/api/v1/overview", f"/api/v1/models/{id_of('mnist')}/entries"):
        answer = client.request(method, address, headers={"origin": "http://evil.example"})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8737", "127.0.0.1", "127.0.0.1:80", "localhost:8738", ""),
        *("127.0.0.1:8737.evil.example", "evil.example@127.0.0.1:8737", "0.0.0.0:8737"),
        *("127.1:8737", "[::ffff:127.0.0.1]:8737", "127.0.0.1:8737,evil.example"),
    ],
)
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 421


def test_no_text_of_a_request_is_a_path(client: TestClient, folder: Path) -> None:
    secret = folder.parent / "secret.json"
    secret.write_text(json.dumps({"kind": "audit", "private": 1}))
    up = ("..", "%2e%2e", "%252e%252e", "..%2f..", "..\\..", "%00", "....//")
    tails = ("secret.json", "%2fetc%2fpasswd", "/etc/passwd", f"{secret}", "report.json")
    for start in ("/static", "/reports", "/models", "/api/v1/reports"):
        for step in up:
            for tail in tails:
                answer = client.get(f"{start}/{step}/{tail}")
                assert answer.status_code in (404, 307, 400)
                assert "private" not in answer.text
                assert "root:" not in answer.text


def test_links_that_lead_out_are_not_followed(folder: Path) -> None:
    away = model_folder(folder.parent / "away", tiny.classifier())
    (folder / "link").symlink_to(away)
    (folder / "link.json").symlink_to(folder.parent / "secret.json")
    (folder.parent / "secret.json").write_text(json.dumps({"kind": "audit"}))
    found = ServedFolder(folder).found()
    assert id_of("link") not in found.models
    assert id_of("link.json") not in found.reports


def test_a_damaged_report_is_a_sentence_without_a_path(client: TestClient, folder: Path) -> None:
    (folder / "report.json").write_text('{"schema_version": 1, "kind": "audit", "passed": 3}')
    answer = client.get(f"/reports/{id_of('report.json')}")
    assert answer.status_code == 404
    assert "report.json" in answer.text
    assert str(folder.parent) not in answer.text


def test_beyond_this_machine_every_request_needs_the_token(folder: Path) -> None:
    app = build_app(ServedFolder(folder), ["10.0.0.5:8737"], token=TOKEN)
    with TestClient(app, base_url="http://10.0.0.5:8737") as client:
        assert client.get("/").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get(f"/?token={TOKEN}").status_code == 200  # and goes on with a cookie
        assert client.get("/api/v1/overview").status_code == 200


def test_a_web_socket_is_closed(client: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass


def test_an_empty_folder_says_what_to_do_first(tmp_path: Path) -> None:
    app = build_app(ServedFolder(tmp_path), ["127.0.0.1:8737"])
    with TestClient(app, base_url=HERE) as client:
        assert "bilens demo --out runs/demo" in client.get("/").text


def test_a_port_that_is_taken_is_told() -> None:
    with Address(port=0).bound() as taken:
        taken.listen()
        second = Address(port=taken.getsockname()[1])
        with pytest.raises(UsageError, match="Choose another with --port"):
            second.bound()


def test_every_address_for_scripts_is_described(client: TestClient) -> None:
    document = client.get("/api/v1/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"Overview", "ModelPage", "Entry", "NewEntry", "Audit", "Failure"} <= set(schemas)
    number, key = "1", id_of("mnist")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"]
            assert "4XX" in operation["responses"]
            if method == "get":
                there = {"reports": id_of("report.json")}.get(path.split("/")[3], key)
                address = path.replace("{number}", number).replace("{key}", there)
                assert client.get(address).status_code == 200
    told = json.dumps(document)
    references = {part.split('"')[0] for part in told.split("#/components/schemas/")[1:]}
    assert references <= set(schemas)
