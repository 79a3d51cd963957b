"""A token lets scripts change something, and nobody else reads it.

Broken once: with a bearer token compared with nothing, with OPTIONS let through.
"""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient

import bilens as bl
import fake_commands
import tiny
from bilens.base.errors import FileError, UsageError
from bilens.report.text import load_catalogue
from bilens_explorer.app import ENDPOINTS, build_app
from bilens_explorer.command import Address, server_of
from bilens_explorer.folder import ServedFolder
from bilens_explorer.guard import HEADER, NamingProxy
from bilens_explorer.pages import model_page
from bilens_explorer.records.models import Approval, id_of
from bilens_explorer.standing import approved
from chromium import needs_browser
from commands import model_folder
from explorer_server import HERE
from report_documents import audit_of

TOKEN = "t" * 32


@pytest.fixture
def served(tmp_path: Path) -> ServedFolder:
    folder = tmp_path / "runs"
    model_folder(folder / "mnist", tiny.classifier())
    bl.History(folder).add(audit_of(folder / "mnist").record)
    return ServedFolder(folder)


def test_a_script_starts_and_cancels_by_the_token_alone(
    served: ServedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", fake_commands.install(tmp_path / "python"))
    (served.folder / "plan.json").write_text('{"mnist": [["sleep", 60]]}')
    app, key = build_app(served, ["127.0.0.1:8737"], TOKEN), id_of("mnist")
    with TestClient(app, base_url=HERE) as client:
        here = f"/api/v1/models/{key}/audit"

        def post(path: str = here, **headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return client.post(path, json={"audit": 1}, headers=named).status_code

        bearer = f"Bearer {TOKEN}"
        assert client.get(here).status_code == 401  # by whoever has an account on this machine
        client.get(f"/?token={TOKEN}")
        assert client.get(here).json()["state"] == "ready"
        assert post(authorization=bearer) == 201
        for wrong in ("", "Bearer ", "Bearer x", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
            assert post(authorization=wrong) == 403
        # a page of another site that knew it: told of by the browser, and asked for first
        assert post(authorization=bearer, origin="http://evil.example") == 403
        assert post(authorization=bearer, sec_fetch_site="cross-site") == 403
        asked = {
            "origin": "http://evil.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        for origin in ({"origin": "http://evil.example"}, {}):
            answer = client.options(here, headers=asked | origin)
            assert answer.status_code == 403
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert post(authorization=bearer) == 400  # it is being audited
        assert client.get(here).json()["state"] == "running"
        assert post(f"{here}/cancel", authorization=bearer) == 200
        assert client.get(here).json()["state"] == "cancelled"
        assert post(f"/api/v1/models/{id_of('gone')}/audit", authorization=bearer) == 404
        schemes = client.get("/api/v1/openapi.json").json()["components"]["securitySchemes"]
        assert schemes["script"]["scheme"] == "bearer"
    no_token = build_app(served, ["127.0.0.1:8737"])
    for given in ("Bearer ", "Bearer None"):
        headers = {"authorization": given}
        answer = TestClient(no_token, base_url=HERE).post(here, json={}, headers=headers)
        assert answer.status_code == 403


def test_the_token_is_kept_where_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "token"
    made = Address(token_file=file).token()
    assert made is not None
    assert Address("10.0.0.9", token_file=file).token() == made  # the same at the next start
    assert file.stat().st_mode & 0o777 == 0o600
    assert len({Address().token(), Address().token(), made}) == 3  # another one at each start
    file.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        Address(token_file=file).token()
    file.chmod(0o600)
    for wrong in (b"", b"short\n", b"x" * 40 + b" y", b"\xff" * 40):
        file.write_bytes(wrong)
        with pytest.raises(UsageError, match="holds no token"):
            Address(token_file=file).token()
    with pytest.raises(FileError, match="cannot be written"):
        Address(token_file=tmp_path / "no" / "token").token()
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(FileError):
        Address(token_file=tmp_path / "link").token()


@pytest.mark.parametrize(
    ("named", "peer", "author"),
    [
        (["ada@example.org"], "10.0.0.7", "ada@example.org"),
        (["Ad\u00e4"], "10.0.0.7", "Ad\u00e4"),
        (["ada@example.org"], "::ffff:10.0.0.7", "ada@example.org"),
        (["ada@example.org"], "127.0.0.1", None),  # not the proxy
        (["mallory", "ada@example.org"], "10.0.0.7", None),  # sent through it
        (["  "], "10.0.0.7", None),
        ([], "10.0.0.7", None),
    ],
)
def test_behind_a_proxy_its_user_is_the_author(
    served: ServedFolder, named: list[str], peer: str, author: str | None
) -> None:
    header, port = "X-Forwarded-User", 8737
    address = Address(user_header=header, proxy="10.0.0.7", allow_host=["Models.example"])
    proxy = NamingProxy(address.proxy, header)
    app = build_app(served, address.hosts(port), TOKEN, proxy)
    key, origin = id_of("mnist"), "https://models.example"
    users = [(header, one.encode()) for one in named]
    headers = [("authorization", f"Bearer {TOKEN}"), *users]
    body = {"action": "note", "subject": "rule:exact", "text": "x", "author": "Bob"}
    with TestClient(app, base_url=origin, client=(peer, 1)) as client:
        there = f"/api/v1/models/{key}/entries"
        asked = client.get("/api/v1/visitor", headers=headers)
        assert asked.json()["user"] == (author or "")
        own = [*headers, ("origin", origin), (HEADER, app.secret)]
        answer = client.post(there, json=body, headers=own)
        assert client.post(there, json=body, headers=own[1:]).status_code == 401  # no token
        forged = [*headers, ("origin", "https://evil.example"), (HEADER, app.secret)]
        assert client.post(there, json=body, headers=forged).status_code == 403
        # the proxy adds the token to whatever comes: that alone changes nothing
        bare = client.post(there, json=body, headers=headers)
        assert bare.status_code == (400 if author is None else 403)
    entries = bl.History(served.folder).entries()
    if author is None:
        assert (answer.status_code, entries) == (400, [])
        assert "named nobody" in answer.json()["error"]
    else:
        assert [(one.author, one.known_by) for one in entries] == [(author, header)]
        page = model_page(served.model(key), "en", "")
        assert f"signed in: {header}" in page
        row = served.model(key).model
        row = replace(row, approvals=(Approval("exact", author, "", None, row.name, header),))
        assert approved(load_catalogue("en"), row)[0].startswith(f"{author} (signed in: {header}):")


@pytest.mark.parametrize("name", ["Ad\u200ba", "\u202eAda", "\xa0Ada", "Ad\ufffda"])
def test_letters_that_nobody_sees_make_nobody_of_another_account(
    served: ServedFolder, name: str
) -> None:
    """Seen red: said by Ada, another account. The last one is read where a header is no UTF-8."""
    app = build_app(served, [HERE[7:]], TOKEN, NamingProxy("10.0.0.7", "X-Forwarded-User"))
    headers = [("X-Forwarded-User", name.encode()), ("origin", HERE), (HEADER, app.secret)]
    body = {"action": "note", "subject": "rule:exact", "text": "x", "author": "Bob"}
    with TestClient(app, base_url=HERE, client=("10.0.0.7", 1)) as client:
        client.headers["authorization"] = f"Bearer {TOKEN}"
        path = f"/api/v1/models/{id_of('mnist')}/entries"
        answer = client.post(path, json=body, headers=headers)
    assert (answer.status_code, bl.History(served.folder).entries()) == (400, [])
    assert "letters that nobody sees" in answer.json()["error"]


def test_whom_the_proxy_does_not_name_changes_nothing(served: ServedFolder) -> None:
    """Seen red: audits were started and cancelled. Whatever is sent counts, but what only reads."""
    app = build_app(served, [HERE[7:]], TOKEN, NamingProxy("10.0.0.7", "X-Forwarded-User"))
    headers = {"authorization": f"Bearer {TOKEN}", "origin": HERE, HEADER: app.secret}
    sent = [one for one in ENDPOINTS if one.method != "GET"]
    assert [one.path for one in sent if one.reads] == ["/models/{key}/radius"]
    with TestClient(app, base_url=HERE, client=("10.0.0.7", 1)) as client:
        for one in sent:
            path = f"/api/v1{one.path.format(key=id_of('mnist'))}"
            told = client.post(path, json={}, headers=headers).json().get("error", "")
            assert ("named nobody" in told) == (not one.reads), one.path
    assert served.runs.describe(id_of("mnist")) is None


def test_without_a_proxy_no_header_names_anybody(served: ServedFolder) -> None:
    app = build_app(served, ["127.0.0.1:8737"], TOKEN)
    headers = {"authorization": f"Bearer {TOKEN}", "x-forwarded-user": "ada"}
    body = {"action": "note", "subject": "rule:exact", "text": "x", "author": "Bob"}
    with TestClient(app, base_url=HERE) as client:
        assert client.get("/api/v1/visitor", headers=headers).json()["user"] is None
        path = f"/api/v1/models/{id_of('mnist')}/entries"
        assert client.post(path, json=body, headers=headers).status_code == 201
    assert [(one.author, one.known_by) for one in bl.History(served.folder).entries()] == [
        ("Bob", "")
    ]
    for wrong in ("", "a b", "X:Y", "Ä"):
        with pytest.raises(UsageError, match="--user-header"):
            Address(user_header=wrong)
    with pytest.raises(UsageError, match="--proxy"):
        Address(proxy="models.example")


@needs_browser
def test_a_browser_that_is_led_there_from_elsewhere_has_the_cookie(
    served: ServedFolder, browser: Any, tmp_path: Path
) -> None:
    with Address(port=0).bound() as listening:
        here = f"127.0.0.1:{listening.getsockname()[1]}"
        listening.listen()
        server = server_of(build_app(served, [here], TOKEN))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        link = tmp_path / "link.html"  # as that which `bilens serve` opens
        link.write_text(
            f'<meta http-equiv="refresh" content="0; url=http://{here}/?token={TOKEN}">'
        )
        page = browser.new_page()
        page.goto(link.as_uri())
        page.get_by_role("heading", name="runs").wait_for()
        assert page.url == f"http://{here}/"
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        page.close()
        server.should_exit = True
        thread.join(timeout=10)
