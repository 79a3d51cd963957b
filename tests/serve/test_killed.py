"""kill -9 of servers, keepers and commands at many points: what was confirmed is there afterwards.

Broken once: with the job's file written in place and in two halves, with the slot not handed on,
with `synchronous` off and the entry answered before it is in the file, with live jobs left as they
are.
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
from collections.abc import Callable, Iterator
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
from bilens.records.explorer import id_of
from bilens.serve.jobs import ENDED, Jobs
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


def serve(folder: Path, python: str, told: Connection) -> None:
    """The explorer as `bilens serve` runs it, with fake commands."""
    from bilens.cli.commands.serve import Address, server_of
    from bilens.serve.app import build_app
    from bilens.serve.folder import ServedFolder

    sys.executable = python
    with Address(port=0).bound() as listening:
        port = listening.getsockname()[1]
        app = build_app(ServedFolder(folder), [f"127.0.0.1:{port}"], TOKEN, needed=False)
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
    asked: list[int] = field(default_factory=list)  # numbers of jobs

    def start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bilens.serve.app", "bilens.cli.commands.serve"])
        mine, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(self.folder, self.python, theirs))
        self.process.start()
        assert mine.poll(SOON)
        self.address = f"http://127.0.0.1:{mine.recv()}/api/v1"

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def wait_for_a_keeper(self) -> None:
        end = time.monotonic() + SOON
        while not any(one["pid"] and one["job"]["ended"] is None for one in records(self.folder)):
            assert time.monotonic() < end
            time.sleep(0.01)

    def post(self, path: str, **body: Any) -> dict[str, Any] | None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        with suppress(httpx.HTTPError):  # it was killed meanwhile: nothing was confirmed
            url = f"{self.address}{path}"
            answer = httpx.post(url, json=body, headers=headers, trust_env=False, timeout=SOON)
            assert answer.status_code == 201, answer.text
            found: dict[str, Any] = answer.json()
            return found
        return None

    def talk(self, over: threading.Event) -> None:
        count = 0
        while not over.is_set():
            text = f"{count}x" + "x" * (count * 37 % 3000)
            path = f"/models/{id_of('mnist')}/entries"
            said = self.post(path, **SAYINGS[count % 3], text=text, author="Ada")
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
    steps = [["say", "Layer 1: 1/2"], ["sleep", 0.1], ["print", "half"], ["remember"]]
    (folder / "plan.json").write_text(json.dumps({"mnist": steps}))
    found = Server(folder, fake_commands.install(tmp_path / "python"))
    found.start()
    yield found
    found.kill()


def records(folder: Path) -> list[dict[str, Any]]:
    """The jobs as they lie on the disk; each can be read at any moment."""
    return [json.loads(one.read_text()) for one in Jobs(folder).place.glob("[0-9]*.json")]


def victims(server: Server, who: str) -> Callable[[], None]:
    """What kills the keeper or the command of the job that runs, or all that there is."""

    def kill() -> None:
        pids = (one["pid"] for one in records(server.folder) if one["job"]["ended"] is None)
        for pid in filter(None, pids):
            with suppress(ProcessLookupError):
                if who == "keeper":
                    os.kill(pid, signal.SIGKILL)
                else:
                    os.killpg(pid, signal.SIGKILL)

    return kill


def test_what_was_confirmed_outlives_every_kill(server: Server, sweep_share: float) -> None:
    rng = random.Random(0)
    over = threading.Event()
    talking = threading.Thread(target=server.talk, args=(over,))
    talking.start()
    try:
        for point in range(int(POINTS * sweep_share)):
            said = server.post("/jobs", command="audit", model=id_of("mnist"))
            if said is not None:
                server.asked.append(said["number"])
            who = ("server", "keeper", "group", "everything")[point % 4]
            if who in ("keeper", "group"):
                server.wait_for_a_keeper()
            time.sleep(rng.uniform(0.0, 1.2 if who in ("server", "everything") else 0.4))
            if who in ("server", "everything"):
                server.kill()
            if who != "server":
                victims(server, who)()
            if who in ("server", "everything"):
                server.start()
    finally:
        over.set()
        talking.join(SOON)
    jobs = Jobs(server.folder)
    end = time.monotonic() + SOON
    while any(job.state not in ENDED for job in jobs.overview().jobs):
        assert time.monotonic() < end
        time.sleep(0.1)
    history = bl.History(server.folder)
    entries = {one.number: one.text for one in history.entries("mnist")}
    assert len(server.confirmed) > len(SAYINGS), "who talks was refused"
    assert {number: entries.get(number) for number in server.confirmed} == server.confirmed
    with sqlite3.connect(history.path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    listed = {job.number: job for job in jobs.overview().jobs}
    assert set(server.asked) <= set(listed)
    audits = {f"/audits/{audit.number}" for audit in history.audits()}
    states = {job.state for job in listed.values()}
    assert states <= {"done", "interrupted", "failed"}
    for job in listed.values():
        assert job.why != "lost"
        assert (job.state == "done") == (job.report in audits), job
        if job.state == "failed":
            assert job.code == -signal.SIGKILL, job
    for audit in history.audits():
        assert history.document(audit.number)["kind"] == "audit"


def test_two_servers_of_one_folder_hear_of_each_other(server: Server) -> None:
    other = Server(server.folder, server.python)
    other.start()
    try:
        over = threading.Event()
        talking = [threading.Thread(target=one.talk, args=(over,)) for one in (server, other)]
        for one in talking:
            one.start()
        for one in (server, other, server):
            assert one.post("/jobs", command="audit", model=id_of("mnist")) is not None
        jobs = Jobs(server.folder)
        end = time.monotonic() + SOON
        while any(job.state not in ENDED for job in jobs.overview().jobs):
            assert time.monotonic() < end
            time.sleep(0.1)
        over.set()
        for one in talking:
            one.join(SOON)
        lists = [
            httpx.get(f"{one.address}/jobs", trust_env=False).json()["jobs"]
            for one in (server, other)
        ]
        assert lists[0] == lists[1]
        assert [job["report"] for job in lists[0]] == ["/audits/4", "/audits/3", "/audits/2"]
        assert not {*server.confirmed} & {*other.confirmed}
        entries = {one.number: one.text for one in bl.History(server.folder).entries()}
        assert server.confirmed | other.confirmed == entries
    finally:
        other.kill()
