"""A connection on which half a request came is closed; one that waits for an answer is not.

Broken once: with no timer at first, with none behind an answer, with one that ends answers.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bilens_explorer import connections
from bilens_explorer.command import Address, server_of
from bilens_explorer.guard import Guard

WHOLE = b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(connections, "PATIENCE", 0.3)

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        if scope["path"] == "/slow":
            await asyncio.sleep(1.0)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    with Address(port=0).bound() as listening:
        listening.listen()
        here: tuple[str, int] = listening.getsockname()
        server = server_of(Guard(app, ["{}:{}".format(*here)], None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield here
        server.should_exit = True
        thread.join(timeout=10)


def read_all(found: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found.settimeout(10)
    text = b""
    while part := found.recv(4096):
        text += part
    return text


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nhost: ", WHOLE + WHOLE[:20]])
def test_half_a_request_is_not_waited_for(place: tuple[str, int], sent: bytes) -> None:
    whole = sent.startswith(WHOLE)
    with socket.create_connection(place) as found:
        if whole:
            found.sendall(WHOLE % "{}:{}".format(*place).encode())
            assert found.recv(4096).startswith(b"HTTP/1.1 200")
        found.sendall(WHOLE[:20] if whole else sent)
        assert read_all(found) in (b"", b"ok")


def test_an_answer_that_takes_long_comes(place: tuple[str, int]) -> None:
    with socket.create_connection(place) as found:
        host = "{}:{}".format(*place).encode()
        found.sendall(b"GET /slow HTTP/1.1\r\nconnection: close\r\nhost: %b\r\n\r\n" % host)
        assert read_all(found).endswith(b"ok")
