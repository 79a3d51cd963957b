"""kill -9 of servers and audits at many points: what was confirmed is there afterwards.

Broken once: with `synchronous` off and the entry answered before it is in the file.
"""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import pytest

import bilens as bl
import fake_commands
import tiny
from bilens_explorer.audit_runs import RUNNING
from bilens_explorer.records.models import id_of
from commands import model_folder
from report_documents import audit_of, failed

POINTS = 32  # a tenth of them in a quick run
SOON = 60.0
TOKEN = "t" * 32
SAYINGS = (
    {"action": "note", "subject": "rule:exact"},
    {"action": "label", "subject": "class:1:positive:0"},
    {"action": "accept", "subject": "rule:complete", "until": "2999-01-01"},
)
# an audit ended between what was read and what was said of it
ANOTHER = "last one of mnist", "Another audit was recorded"


def serve(folder: Path, python: str, told: Connection) -> None:
    """The explorer as `bilens serve` runs it, with fake commands."""
    from bilens_explorer.app import build_app
    from bilens_explorer.command import Address, server_of
    from bilens_explorer.folder import ServedFolder

    sys.executable = python
    with Address(port=0).bound() as listening:
        port = listening.getsockname()[1]
        app = build_app(ServedFolder(folder), [f"127.0.0.1:{port}"], TOKEN)
        listening.listen()
        told.send(port)
        server_of(app).run(sockets=[listening])


@dataclass
class Server:
    """A server that is killed and started anew, and somebody who talks to it all the time."""

    folder: Path
    python: str
    process: Any = None
    address: str = ""
    confirmed: dict[int, str] = field(default_factory=dict)  # number of an entry → its text

    def start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bilens_explorer.app", "bilens_explorer.command"])
        mine, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(self.folder, self.python, theirs))
        self.process.start()
        assert mine.poll(SOON)
        self.address = f"http://127.0.0.1:{mine.recv()}/api/v1"

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def audit(self) -> bool:
        """Ask for an audit; False where another one was recorded meanwhile, or it was killed."""
        last = self.last_audit().get("audit", 0)
        return self.post(f"/models/{id_of('mnist')}/audit", audit=last) is not None

    def state(self) -> dict[str, Any]:
        url = f"{self.address}/models/{id_of('mnist')}/audit"
        headers = {"authorization": f"Bearer {TOKEN}"}
        found: dict[str, Any] = httpx.get(
            url, headers=headers, trust_env=False, timeout=SOON
        ).json()
        return found

    def wait_for_the_end(self) -> dict[str, Any]:
        end = time.monotonic() + SOON
        while (found := self.state())["state"] == RUNNING:
            assert time.monotonic() < end
            time.sleep(0.02)
        return found

    def post(self, path: str, **body: Any) -> dict[str, Any] | None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        with suppress(httpx.HTTPError):  # it was killed meanwhile: nothing was confirmed
            url = f"{self.address}{path}"
            answer = httpx.post(url, json=body, headers=headers, trust_env=False, timeout=SOON)
            if answer.status_code == 400 and any(one in answer.text for one in ANOTHER):
                return None
            assert answer.status_code == 201, answer.text
            found: dict[str, Any] = answer.json()
            return found
        return None

    def last_audit(self) -> dict[str, Any]:
        """Return which audit an acceptance is of, as a page that is opened now says it."""
        url = f"{self.address}/models/{id_of('mnist')}"
        headers = {"authorization": f"Bearer {TOKEN}"}
        with suppress(httpx.HTTPError):
            page = httpx.get(url, headers=headers, trust_env=False, timeout=SOON).json()
            last = page["model"]["last"]
            return {"audit": last["number"], "identity": last["identity"]}
        return {}

    def talk(self, over: threading.Event) -> None:
        count = 0
        while not over.is_set():
            text = f"{count}x" + "x" * (count * 37 % 3000)
            path = f"/models/{id_of('mnist')}/entries"
            saying = SAYINGS[count % 3]
            read = self.last_audit() if saying["action"] == "accept" else {}
            said = self.post(path, **saying, **read, text=text, author="Ada")
            if said is not None:
                self.confirmed[said["number"]] = text
            count += 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "runs"
    model_folder(folder / "mnist", tiny.classifier())
    weights = bl.load(folder / "mnist").weights_sha256
    # so that there is something to accept
    report = audit_of(folder / "mnist", failed(), weights_sha256=weights)
    report.to_json(folder / "document.json")
    bl.History(folder).add(report.record)
    steps = [["say", "Layer 1: 1/2"], ["sleep", 0.1], ["remember"]]
    (folder / "plan.json").write_text(json.dumps({"mnist": steps}))
    found = Server(folder, fake_commands.install(tmp_path / "python"))
    found.start()
    yield found
    found.kill()


def commands(folder: Path) -> list[int]:
    """The processes that audit in a folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (each / "cwd").readlink() == folder:
                found.append(int(each.name))
    return found


def test_what_was_confirmed_outlives_every_kill(server: Server, sweep_share: float) -> None:
    rng = random.Random(0)
    over = threading.Event()
    talking = threading.Thread(target=server.talk, args=(over,))
    talking.start()
    states = set()
    soon = time.monotonic() + SOON
    while len(server.confirmed) < len(SAYINGS):  # each kind at least once
        assert time.monotonic() < soon, "who talks was refused"
        time.sleep(0.05)
    try:
        for point in range(int(POINTS * sweep_share)):
            server.audit()
            who = ("server", "command", "everything")[point % 3]
            time.sleep(rng.uniform(0.0, 1.2))
            if who != "command":
                server.kill()
            if who != "server":
                for pid in commands(server.folder):
                    with suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
            if who == "command":
                states.add(server.wait_for_the_end()["state"])
            else:
                server.start()
    finally:
        over.set()
        talking.join(SOON)
    assert states <= {"done", "failed"}
    end = time.monotonic() + SOON
    while commands(server.folder):  # an audit whose server was killed ends with it
        assert time.monotonic() < end
        time.sleep(0.1)
    history = bl.History(server.folder)
    said = history.entries("mnist")
    entries = {one.number: one.text for one in said}
    confirmed = {one.action for one in said if one.number in server.confirmed}
    assert confirmed == {one["action"] for one in SAYINGS}
    assert {number: entries.get(number) for number in server.confirmed} == server.confirmed
    with sqlite3.connect(history.path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for audit in history.audits():
        assert history.document(audit.number)["kind"] == "audit"


def test_two_servers_of_one_folder_lose_nothing(server: Server) -> None:
    other = Server(server.folder, server.python)
    other.start()
    try:
        over = threading.Event()
        talking = [threading.Thread(target=one.talk, args=(over,)) for one in (server, other)]
        for one in talking:
            one.start()
        for one in (server, other):  # that of the first may end right before the second is asked
            assert one.audit() or one.audit()
        reports = {one.wait_for_the_end()["report"] for one in (server, other)}
        over.set()
        for thread in talking:
            thread.join(SOON)
        assert reports == {"/audits/2", "/audits/3"}
        assert not {*server.confirmed} & {*other.confirmed}
        entries = {one.number: one.text for one in bl.History(server.folder).entries()}
        assert server.confirmed | other.confirmed == entries
    finally:
        other.kill()
