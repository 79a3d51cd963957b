"""Who may ask and how many at once; what is refused is said so that a reader understands it.

Broken once: with origins of safe requests let through, with slow requests in the places of all,
with no end of those that wait, with answers computed for nobody, with q of languages left out,
with refusals as JSON alone, with the headers of a busy server lost on its page.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import tiny
from bilens_explorer.app import ENDPOINTS, build_app
from bilens_explorer.folder import ServedFolder
from bilens_explorer.guard import AT_ONCE, FEW, HEADER, MOST_WAITING, Guard
from bilens_explorer.records.models import id_of
from commands import model_folder
from explorer_server import HERE

KEY = id_of("a")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    model_folder(tmp_path / "runs" / "a", tiny.classifier())
    app = build_app(ServedFolder(tmp_path / "runs"), ["127.0.0.1:8737"])
    with TestClient(app, base_url=HERE) as found:
        yield found


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": HERE}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),  # a link
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, 200),
    ],
)
def test_a_page_of_elsewhere_reads_nothing(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    for address in ("/", "/api/v1/overview", "/static/explorer.css"):
        if client.get(address).status_code == 200:
            assert client.get(address, headers=headers).status_code == status


def asked(path: str) -> dict[str, Any]:
    headers = [(b"host", b"h:1")]
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}


def test_slow_requests_keep_nobody_waiting_and_have_an_end() -> None:
    started: list[str] = []
    statuses: list[tuple[str, int]] = []
    sent: list[Any] = []

    async def check() -> None:
        go = asyncio.Event()

        async def app(scope: Any, _receive: Any, send: Any) -> None:
            started.append(scope["path"])
            if scope["path"].startswith("/slow"):
                await go.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def ask(path: str, *, gone: bool = False) -> None:
            async def receive() -> Any:
                if not gone:
                    await asyncio.Event().wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    sent.append(message)
                    statuses.append((path, message["status"]))

            await guard(asked(path), receive, send)

        slow = [(re.compile("/slow"), "a"), (re.compile("/slower"), "b")]
        guard = Guard(app, ["h:1"], None, slow=slow)
        first = [asyncio.create_task(ask("/slow")) for _ in range(FEW)]
        while len(started) < FEW:
            await asyncio.sleep(0.001)
        tasks = [
            asyncio.create_task(ask("/slow", gone=index == 0)) for index in range(MOST_WAITING)
        ]
        await asyncio.sleep(0)
        await ask("/slow")  # one too many
        assert statuses == [("/slow", 503)]
        assert {(b"retry-after", b"2"), (b"refresh", b"2")} <= {*sent[0]["headers"]}
        await asyncio.gather(*(ask("/fast") for _ in range(2 * AT_ONCE)))
        tasks.append(asyncio.create_task(ask("/slower")))  # another kind
        while started[-1] != "/slower":
            await asyncio.sleep(0.001)
        assert started.count("/slow") == FEW
        go.set()
        await asyncio.gather(*first, *tasks)

    asyncio.run(asyncio.wait_for(check(), 30))
    assert started.count("/slow") == FEW + MOST_WAITING - 1  # who is gone is not computed for
    assert statuses.count(("/fast", 200)) == 2 * AT_ONCE
    assert ("/slower", 200) in statuses


def test_what_takes_long_is_slow(client: TestClient) -> None:
    slow = {one.path.rpartition("/")[2] for one in ENDPOINTS if one.slow}
    named = {"null", "radius", "spectrum", "interactions", "compare", "playground"}
    assert named <= slow
    patterns = [path for path, _ in client.app.slow]  # type: ignore[attr-defined]
    for address in (f"/api/v1/models/{KEY}/null", "/api/v1/compare", "/compare"):
        assert any(path.fullmatch(address) for path in patterns)
    assert not any(path.fullmatch("/api/v1/overview") for path in patterns)


@pytest.mark.parametrize(
    ("header", "lang"),
    [
        ("en;q=0.1, ja;q=0.9", "ja"),
        ("ja;q=0", "en"),
        ("de, ja;q=0.5, en;q=0.4", "ja"),
        ("en-GB,ja", "en"),
        ("ja , en", "ja"),
        ("*", "en"),
        (";q=,q=9;;", "en"),
    ],
)
def test_the_language_that_is_liked_best_is_taken(
    client: TestClient, header: str, lang: str
) -> None:
    page = client.get("/", headers={"accept-language": header}).text
    assert f'<html lang="{lang}">' in page


def test_a_refusal_is_a_page_for_a_person(client: TestClient, tmp_path: Path) -> None:
    headers = {"host": "evil.example", "accept": "text/html,*/*", "accept-language": "ja"}
    answer = client.get("/", headers=headers)
    assert answer.status_code == 421
    assert answer.headers["content-type"].startswith("text/html")
    assert '<html lang="ja">' in answer.text
    assert "このアドレスでは" in answer.text
    assert "Host header" not in answer.text  # seen red: the reason itself was English
    assert answer.headers["content-language"] == "ja"
    assert set(client.get("/", headers={"host": "evil.example"}).json()) == {"error"}
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    token = build_app(ServedFolder(tmp_path), ["h:1"], "a-token")
    with TestClient(token, base_url="http://h:1") as other:
        answer = other.get("/", headers={"accept": "text/html"})
        assert (answer.status_code, "A token is needed" in answer.text) == (401, True)
        assert "a-token" not in answer.text


def test_the_page_of_a_busy_server_asks_again(client: TestClient) -> None:
    for _, queue in client.app.slow:  # type: ignore[attr-defined]
        queue.waiting = MOST_WAITING
    answer = client.get("/compare", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"][:9]) == (503, "text/html")
    assert answer.headers["retry-after"] == answer.headers["refresh"] == "2"


def test_sentences_say_what_to_do(client: TestClient) -> None:
    said = client.get(f"/api/v1/models/{KEY}/spectrum").json()["error"]
    assert said == "the query lacks layer: ask with ?layer=… in the address."
    assert client.get("/api/v1/x").json()["error"] == "there is nothing at this address."
    assert "Not Found" not in client.get("/x").text
    own = {"origin": HERE, HEADER: client.app.secret}  # type: ignore[attr-defined]
    address = f"/api/v1/models/{KEY}/radius"
    said = client.post(address, json={"inputs": [1.0]}, headers=own).json()["error"]
    assert re.fullmatch(r"the model reads \d+ numbers; 1 came\.", said)
