"""The explorer: what is in a folder is shown, and nothing gets through that should not.

Broken once: with any Host let through, with the secret not compared, with links followed out of
the folder, with names written unescaped, with odd files not caught, with no semaphore.
"""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

import bilens as bl
import layer_audit_documents
import table_documents
import tiny
from bilens.base.errors import FileError, UsageError
from bilens.report.reports import AuditReport
from bilens_explorer import documents, folder as folders, guard as guards, walk as walks
from bilens_explorer.app import ENDPOINTS, build_app
from bilens_explorer.command import SETTINGS, Address, has_screen, server_of
from bilens_explorer.endpoint import API
from bilens_explorer.folder import ServedFolder
from bilens_explorer.guard import AT_ONCE, HEADER, LARGEST, Guard
from bilens_explorer.pages import model_page, overview_page
from bilens_explorer.records.models import id_of
from bilens_explorer.walk import KINDS, walk
from commands import model_folder
from every_document import DOCUMENTS
from explorer_server import HERE, client_of
from report_documents import audit_of, failed, make_document
from trace_documents import make_trace

TOKEN = "a-token"  # noqa: S105 - of a test
HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for name in ("mnist", "prod/second", HOSTILE):
        model_folder(root / name, tiny.classifier())
    history = bl.History(root)
    history.add(audit_of(root / "mnist", weights_sha256=64 * "0").record)  # since then retrained
    history.add(audit_of(root / "mnist", failed()).record)
    AuditReport(make_document()).to_json(root / "report.json")
    (root / "other.json").write_text('{"kind": "shopping list"}')
    return root


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with client_of(folder) as found:
        yield found


def said(client: TestClient, key: str, **changes: Any) -> Any:
    secret = client.app.secret  # type: ignore[attr-defined]
    headers = {"origin": HERE, HEADER: secret, **changes.pop("headers", {})}
    audits = client.get(f"/api/v1/models/{key}").json().get("audits") or [{}]
    read = {"audit": audits[0].get("number"), "identity": audits[0].get("identity")}
    body = {"action": "accept", "subject": "rule:exact", "text": "known", "author": "Ada"}
    body |= read | changes
    return client.post(f"/api/v1/models/{key}/entries", json=body, headers=headers)


def test_models_and_reports_of_a_folder_are_listed(client: TestClient) -> None:
    found = client.get("/api/v1/overview").json()
    names = [row["name"] for row in found["models"]]
    assert names[0] == "mnist"  # audited, and it fails
    assert set(names) == {"mnist", "prod/second", HOSTILE}
    changes = found["models"][0]["changes"]
    worse = {one["rule"] for one in changes if one["direction"] == "worse"}
    assert {*found["models"][0]["last"]["failed"]} <= worse
    assert [(row["name"], row["kind"]) for row in found["reports"]] == [("report.json", "classes")]


def test_audits_of_every_kind_are_kept_and_drawn(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = bl.History(folder)
    table = AuditReport(next(iter(table_documents.variants().values())))
    layers = AuditReport(next(iter(layer_audit_documents.variants().values())))
    for report in (table, layers):
        number = history.add(report.record).number
        assert client.get(f"/audits/{number}").status_code == 200
        assert client.get(f"/api/v1/audits/{number}").json()["read_as"] == report.record.read_as
    each = {one.get("read_as", one["kind"]): one for one in DOCUMENTS.values()}
    assert set(each) == set(KINDS)
    for kind, document in each.items():
        KINDS[kind](document).to_json(folder / f"{kind}.json")
    monkeypatch.setattr(folders, "FRESH", -1.0)
    for kind in each:
        assert client.get(f"/reports/{id_of(f'{kind}.json')}").status_code == 200, kind


def test_a_model_that_is_gone_keeps_its_history(client: TestClient, folder: Path) -> None:
    (folder / "mnist").rename(folder.parent / "away")
    row = client.get(f"/api/v1/models/{id_of('mnist')}").json()["model"]
    assert (row["state"], row["audits"]) == ("gone", 2)


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
    document = bl.History(folder).document(2)
    document["source"]["path"] = "runs/mnist"  # no place of the machine is told
    assert client.get("/api/v1/audits/2").json() == document


def test_what_is_said_is_kept_and_shown(client: TestClient, folder: Path) -> None:
    key = id_of("mnist")
    answer = said(client, key, author=HOSTILE, text=HOSTILE, until="2999-01-01")
    assert answer.status_code == 201
    (entry,) = bl.History(folder).entries("mnist")
    assert (entry.author, entry.until) == (HOSTILE, "2999-01-01")
    (approval,) = client.get(f"/api/v1/models/{key}").json()["model"]["approvals"]
    assert (approval["rule"], approval["author"]) == ("exact", HOSTILE)
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
    found = ServedFolder(folder).last_walk()
    assert id_of("link") not in found.models
    assert id_of("link.json") not in found.reports


def test_a_damaged_report_is_a_sentence_without_a_path(client: TestClient, folder: Path) -> None:
    (folder / "report.json").write_text('{"schema_version": 1, "kind": "audit", "passed": 3}')
    answer = client.get(f"/reports/{id_of('report.json')}")
    assert answer.status_code == 503
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
        assert taken.proto == socket.IPPROTO_TCP  # else each answer waits 40 ms
        taken.listen()
        second = Address(port=taken.getsockname()[1])
        with pytest.raises(UsageError, match="Choose another with --port"):
            second.bound()


def test_every_address_for_scripts_is_described(client: TestClient, folder: Path) -> None:
    (folder / "trace.json").write_text(json.dumps(make_trace()))
    document = client.get("/api/v1/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"Overview", "ModelPage", "Entry", "NewEntry", "Audit", "Failure"} <= set(schemas)
    assert {f"{API}{one.path}" for one in ENDPOINTS} == set(document["paths"])
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert "4XX" in operation["responses"]
    served, key = ServedFolder(folder), id_of("mnist")
    opened = served.opened(key)
    both = {"a": key, "b": key, "layer": opened.model.network[0].name}  # of comparisons
    for one in ENDPOINTS:
        if one.method == "GET":  # as a view asks
            held = next(iter(one.held(served)), None) if one.held else None
            there = "report.json" if "/reports/" in one.path else "mnist"
            held = held or {"key": id_of(there), "number": 1, **both}
            asked = {name: held[name] for name in (each.name for each in one.query) if name in held}
            answer = client.get(f"{API}{one.path.format(**held)}", params=asked)
            assert answer.status_code == 200, one.path
    told = json.dumps(document)
    references = {part.split('"')[0] for part in told.split("#/components/schemas/")[1:]}
    assert references <= set(schemas)


def test_odd_files_take_no_page_down(client: TestClient, folder: Path) -> None:
    odd = model_folder(folder / os.fsdecode(b"caf\xe9"), tiny.classifier()).name
    (folder / "loop").symlink_to("loop")
    (folder / "a.json").symlink_to("b.json")
    (folder / "b.json").symlink_to("a.json")
    os.mkfifo(folder / "pipe.json")
    closed = folder / "closed"
    closed.mkdir()
    closed.chmod(0o600)
    names = [row["name"] for row in client.get("/api/v1/overview").json()["models"]]
    assert {"mnist", "caf\ufffd"} <= set(names)
    for address in ("/", f"/models/{id_of(odd)}", f"/api/v1/models/{id_of(odd)}"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "bilens audit --history . caf" not in answer.text  # no name to type


@pytest.mark.parametrize("swapped", ["link", "pipe", "parent", "large"])
def test_a_report_that_is_swapped_is_not_read(folder: Path, swapped: str, tmp_path: Path) -> None:
    inner = folder / "inner" / "one.json"
    inner.parent.mkdir()
    (folder / "report.json").rename(inner)
    served = ServedFolder(folder)
    key = id_of("inner/one.json")
    assert served.report(key) is not None
    outside = tmp_path / "outside"
    inner.parent.rename(outside)
    if swapped == "parent":
        inner.parent.symlink_to(outside)
    else:
        inner.parent.mkdir()
    if swapped == "link":
        inner.symlink_to(outside / "one.json")
    elif swapped == "pipe":
        os.mkfifo(inner)
    elif swapped == "large":
        inner.write_bytes((outside / "one.json").read_bytes() + b" " * documents.LARGEST)
    with pytest.raises(FileError, match=r"inner/one\.json"):
        served.report(key)


def test_what_the_walk_left_out_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not walk(folder).truncated
    (folder / "/".join("abcdefgh")).mkdir(parents=True)
    assert walk(folder).truncated
    (folder / "z").mkdir()
    for number in range(9):
        (folder / "z" / f"{number}.txt").touch()
    monkeypatch.setattr(walks, "MOST", len([*folder.iterdir()]) + 3)
    found = walk(folder)
    assert found.truncated
    assert id_of("prod/second") in found.models  # near ones first
    monkeypatch.setattr(walks, "MOST", 3)
    page = overview_page(ServedFolder(folder).overview(), "en", "")
    assert "Not everything is listed" in page


def test_a_mark_in_the_folder_itself_hides_nothing(folder: Path) -> None:
    below = {id_of("mnist"), id_of("prod/second")}
    (folder / "config.json").write_text("{}")  # of an experiment, too: no model by itself
    assert {id_of("."), *below} & set(walk(folder).models) == below
    (folder / "model.safetensors").write_bytes(b"")
    assert {id_of("."), *below} <= set(walk(folder).models)


@pytest.mark.parametrize("number", ["3", "99999999999999999999", "9" * 900])
def test_an_audit_that_is_not_there_is_not_found(client: TestClient, number: str) -> None:
    for address in (f"/audits/{number}", f"/api/v1/audits/{number}"):
        assert client.get(address).status_code == 404


def test_answers_say_why_in_a_status(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"origin": HERE, HEADER: client.app.secret, "content-type": "application/json"}  # type: ignore[attr-defined]
    address = f"/api/v1/models/{id_of('mnist')}/entries"
    assert client.post(address, content=b'{"text": "\xff"}', headers=headers).status_code == 400
    chunks = iter([b" " * (LARGEST // 2)] * 3)
    assert client.post(address, content=chunks, headers=headers).status_code == 413
    assert client.get(f"/{'x' * 5000}").status_code == 414
    answer = client.post("/", content=b"{}", headers=headers)
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]

    def broken(_self: ServedFolder) -> None:
        raise RuntimeError("private")

    monkeypatch.setattr(ServedFolder, "overview", broken)
    quiet = TestClient(client.app, base_url=HERE, raise_server_exceptions=False)
    answer = quiet.get("/")
    assert answer.status_code == 500
    assert "private" not in answer.text
    assert "terminal of `bilens serve`" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    (folder / "bilens.db").write_text("not a database, " * 100)
    assert client.get("/api/v1/audits/1").status_code == 503


def asked(method: str = "GET", **headers: str) -> dict[str, Any]:
    raw = [(name.encode(), value.encode()) for name, value in ({"host": "h:1"} | headers).items()]
    return {"type": "http", "method": method, "path": "/", "query_string": b"", "headers": raw}


def test_so_many_requests_run_at_once_and_the_others_wait() -> None:
    running, most, statuses = 0, 0, []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        statuses.append(message["status"])

    async def all_of_them() -> None:
        guard = Guard(app, ["h:1"], None)
        await asyncio.gather(*(guard(asked(), never, send) for _ in range(3 * AT_ONCE)))

    asyncio.run(all_of_them())
    assert (most, statuses) == (AT_ONCE, [200] * 3 * AT_ONCE)


async def never() -> Any:
    await asyncio.Event().wait()


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "PATIENCE", 0.01)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    guard = Guard(never, ["h:1"], None)  # type: ignore[arg-type]
    own = {"origin": "http://h:1", HEADER: guard.secret, "content-type": "application/json"}
    asyncio.run(guard(asked("POST", **own), never, send))
    assert sent[0]["status"] == 408


def test_idle_connections_lock_nobody_out(folder: Path) -> None:
    with Address(port=0).bound() as listening:
        listening.listen()  # the server comes a little later
        place = listening.getsockname()
        here = f"127.0.0.1:{place[1]}"
        app = build_app(ServedFolder(folder), [here])
        server = uvicorn.Server(uvicorn.Config(app, **SETTINGS))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        idle = [socket.create_connection(place) for _ in range(70)]
        assert httpx.get(f"http://{here}/api/v1/overview", trust_env=False).status_code == 200
        server.should_exit = True
        for one in idle:
            one.close()
        thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_token_is_kept_by_port_and_leads_nowhere_else(folder: Path) -> None:
    app = build_app(ServedFolder(folder), ["10.0.0.5:8737"], token=TOKEN)
    with TestClient(app, base_url="http://10.0.0.5:8737", follow_redirects=False) as client:
        answer = client.get(f"http://10.0.0.5:8737//evil.example/x?lang=ja&token={TOKEN}")
        assert answer.headers["refresh"] == "0; url=/evil.example/x?lang=ja"
        cookie = answer.headers["set-cookie"].lower()
        assert cookie.startswith("bilens-token-8737=")
        assert {"httponly", "samesite=strict"} <= {*cookie.split("; ")}
        client.cookies.clear()
        for given, status in ((f"bearer {TOKEN}", 200), (TOKEN, 401), (f"Basic {TOKEN}", 401)):
            assert client.get("/", headers={"authorization": given}).status_code == status
        kept = f"other=[1]; x; bilens-token-8737={TOKEN}"  # of other programs of the machine
        assert client.get("/", headers={"cookie": kept}).status_code == 200
        assert client.get("/", headers={"host": "10.0.0.5:8738"}).status_code == 421


def test_names_under_which_it_may_be_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Box")
    monkeypatch.setattr(socket, "getfqdn", lambda: "box.example")
    found = [(0, 0, 0, "", (place, 0)) for place in ("10.0.0.5", "fe80::1%eth0")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    assert Address("::1").names()[0] == "::1"
    everywhere = Address("0.0.0.0", allow_host=["Lab"]).names()  # noqa: S104 - nothing listens
    own = ["box", "box.example", "127.0.0.1", "localhost", "::1", "10.0.0.5", "fe80::1", "lab"]
    assert everywhere == own
    assert Address("10.0.0.9").names() == ["10.0.0.9", "box", "box.example"]
    for wrong in ("", "a/b"):
        with pytest.raises(UsageError, match="--host"):
            Address(wrong)
        with pytest.raises(UsageError, match="--allow-host"):
            Address(allow_host=[wrong])
    app = build_app(ServedFolder(folder), ["lab:80", "[::1]:80", "lab"])
    with TestClient(app, base_url="http://LAB") as client:
        assert client.get("/", headers={"host": "LAB"}).status_code == 200
        assert client.get("/", headers={"host": "[::1]:80"}).status_code == 200


def test_a_page_says_what_can_be_done(folder: Path) -> None:
    model_folder(folder / "-odd", tiny.classifier())
    served = ServedFolder(folder)
    (folder / "mnist").rename(folder.parent / "away")

    def page(name: str) -> str:
        found = served.model(id_of(name))
        assert found is not None
        return model_page(found, "en", "")

    assert "bilens audit --history . -- -odd" in page("-odd")
    assert "bilens audit" not in page("mnist")
    table = overview_page(served.overview(), "en", "")
    assert '<th role="rowheader" scope="row"><a href="/models/' in table


def test_a_browser_opens_what_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int] = []
    asked = threading.Event()

    def browse(address: str) -> None:
        answers.append(httpx.get(address).status_code)
        asked.set()

    monkeypatch.setattr("webbrowser.open", browse)
    with Address(port=0).bound() as listening:
        here = f"127.0.0.1:{listening.getsockname()[1]}"
        server = server_of(build_app(ServedFolder(folder), [here]), f"http://{here}")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        assert asked.wait(20)
        server.should_exit = True
        thread.join(timeout=10)
    assert answers == [200]


def test_without_a_screen_no_browser_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert not has_screen()
