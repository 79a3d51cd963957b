"""Who watches is told the state as it is now; streams starve nobody and hold up no end.

Broken once: with streams counted among the requests that run, with no `close` when the server
stops, with a bearer token compared with nothing, with OPTIONS let through.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

import tiny
from bilens.base.errors import FileError, UsageError
from bilens.cli.commands.serve import Address, server_of
from bilens.records.explorer import id_of
from bilens.serve import events as streams, guard as guards
from bilens.serve.app import build_app
from bilens.serve.events import Events
from bilens.serve.folder import ServedFolder
from bilens.serve.guard import AT_ONCE, STREAM
from commands import model_folder
from explorer_server import HERE

TOKEN = "t" * 32


@pytest.fixture
def served(tmp_path: Path) -> ServedFolder:
    model_folder(tmp_path / "runs" / "mnist", tiny.classifier())
    return ServedFolder(tmp_path / "runs")


@contextmanager
def running(served: ServedFolder) -> Iterator[str]:
    with Address(port=0).bound() as listening:
        listening.listen()
        here = f"127.0.0.1:{listening.getsockname()[1]}"
        server = server_of(build_app(served, [here]))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://{here}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
    assert not thread.is_alive()


def opened(address: str) -> socket.socket:
    place = address.removeprefix("http://")
    found = socket.create_connection((place.split(":")[0], int(place.split(":")[1])), timeout=30)
    found.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
    return found


def read_until(stream: socket.socket, text: bytes) -> bytes:
    found = b""
    while text not in found:
        piece = stream.recv(4096)
        assert piece, found
        found += piece
    return found


def test_streams_starve_nobody_and_end_with_the_server(served: ServedFolder) -> None:
    with running(served) as address:
        listeners = [opened(address) for _ in range(AT_ONCE + 18)]
        for one in listeners:
            assert b"text/event-stream" in read_until(one, b'"jobs":[]')
        for _ in range(AT_ONCE):
            answer = httpx.get(f"{address}/api/v1/jobs", trust_env=False)
            assert answer.status_code == 200
        served.jobs.add("audit", "gone", ("nothing",))
        for one in listeners:
            read_until(one, b'"arguments":["nothing"]')
        for one in listeners[:5]:  # some leave on their own
            one.close()
    for one in listeners[5:]:
        assert read_until(one, b"0\r\n\r\n").endswith(b"0\r\n\r\n")  # whole, and not cut off
        one.close()


def test_a_watcher_hears_that_it_is_alive_and_then_the_present_state(
    served: ServedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT", 0.01)
    monkeypatch.setattr(streams, "PAUSE", 0.01)

    async def watch() -> None:
        events = Events(served)
        async with events.watched(None):
            asleep = events.stream()
            while await anext(asleep) != ": here\n\n":
                pass
            served.jobs.add("audit", "mnist", ("nothing",))  # and it is read late
            while '"nothing"' not in events.state:
                await asyncio.sleep(0.01)
            back = events.stream()
            heard = [await anext(back) for _ in range(2)]
            assert '"nothing"' in heard[1]
            while not (await anext(asleep)).startswith("event: jobs"):
                pass
            events.close()
            assert [one async for one in back if one.startswith("event")] == []

    asyncio.run(watch())


def test_a_full_disk_stops_no_watching(
    served: ServedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PAUSE", 0.0)
    looks = 0

    def full(_self: object) -> None:
        nonlocal looks
        looks += 1
        raise FileError("full") if looks % 2 else OSError("full")

    monkeypatch.setattr(type(served.jobs), "advance", full)

    async def watch() -> None:
        async with Events(served).watched(None):
            while looks < 3:
                await asyncio.sleep(0.01)

    asyncio.run(watch())


def test_so_many_streams_and_no_more(served: ServedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "STREAMS", 1)
    with running(served) as address:
        one = opened(address)
        read_until(one, b"retry")
        other = opened(address)
        assert b"503" in read_until(other, b"close some")
        one.close()
        other.close()


def test_a_script_starts_and_cancels_by_the_token_alone(served: ServedFolder) -> None:
    app = build_app(served, ["127.0.0.1:8737"], TOKEN, needed=False)
    with TestClient(app, base_url=HERE) as client:
        served.jobs.advance = lambda: None  # type: ignore[method-assign]
        body = {"command": "audit", "model": id_of("mnist")}

        def post(path: str = "/api/v1/jobs", **headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return client.post(path, json=body, headers=named).status_code

        bearer = f"Bearer {TOKEN}"
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
            answer = client.options("/api/v1/jobs", headers=asked | origin)
            assert answer.status_code == 403
            assert not [name for name in answer.headers if name.startswith("access-control")]
        body = {}
        assert post("/api/v1/jobs/1/cancel", authorization=bearer) == 200
        assert client.get("/api/v1/jobs").json()["jobs"][0]["state"] == "cancelled"
        assert post("/api/v1/jobs/7/cancel", authorization=bearer) == 404
        schemes = client.get("/api/v1/openapi.json").json()["components"]["securitySchemes"]
        assert schemes["script"]["scheme"] == "bearer"
    no_token = build_app(served, ["127.0.0.1:8737"])
    for given in ("Bearer ", "Bearer None"):
        headers = {"authorization": given}
        answer = TestClient(no_token, base_url=HERE).post("/api/v1/jobs", json={}, headers=headers)
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
