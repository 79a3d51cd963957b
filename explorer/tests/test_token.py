"""A token lets scripts change something, and nobody else reads it.

Broken once: with a bearer token compared with nothing, with OPTIONS let through.
"""

import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import bilens as bl
import fake_commands
import tiny
from bilens.base.errors import FileError, UsageError
from bilens_explorer.app import build_app
from bilens_explorer.command import Address
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.models import id_of
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
    app, key = build_app(served, ["127.0.0.1:8737"], TOKEN, needed=False), id_of("mnist")
    with TestClient(app, base_url=HERE) as client:
        here = f"/api/v1/models/{key}/audit"

        def post(path: str = here, **headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return client.post(path, json={}, headers=named).status_code

        bearer = f"Bearer {TOKEN}"
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
    assert Address().token() is None
    assert Address("10.0.0.9").token() is not None
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
