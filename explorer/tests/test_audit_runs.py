"""Audits that are run again: one at a time; each says how it ended, and none outlives the server.

Broken once: with no -P, with the command asked to end and not killed, with no end of audits when
the server stops, with steps taken from any line.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import fake_commands
import tiny
from bilens.api import RefusedError, RepeatedCommand
from bilens.base.errors import UsageError
from bilens_explorer import audit_runs
from bilens_explorer.audit_runs import RUNNING, AuditRuns
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.models import AuditRead, AuditRun, id_of
from commands import model_folder
from explorer_folder import run
from report_documents import make_document

SOON = 240.0  # seconds, after which a test gives up
Plan = dict[str, list[list[Any]]]
Start = Callable[[Plan], AuditRuns]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start the first audit of a plan."""
    monkeypatch.setattr(sys, "executable", fake_commands.install(tmp_path / "python"))
    folder = tmp_path / "runs"
    folder.mkdir()
    runs = AuditRuns(folder)

    def begin(plan: Plan) -> AuditRuns:
        (folder / "plan.json").write_text(json.dumps(plan))
        (folder / "document.json").write_text(json.dumps(make_document()))
        for name in plan:
            (folder / name).touch()
        runs.start(next(iter(plan)), command_of(next(iter(plan))))
        return runs

    yield begin
    runs.close()


def command_of(name: str) -> RepeatedCommand:
    return RepeatedCommand(("audit", "--history=.", "--", name), (name,))


def until(ready: Callable[[], Any]) -> Any:
    end = time.monotonic() + SOON
    while not (found := ready()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
    return found


def now(runs: AuditRuns, name: str) -> AuditRun:
    found = runs.describe(name)
    assert found is not None
    return found


def ended(runs: AuditRuns, name: str) -> AuditRun:
    until(lambda: now(runs, name).state != RUNNING)
    return now(runs, name)


def ran(runs: AuditRuns) -> list[str]:
    return (runs.folder / "ran.txt").read_text().splitlines()


def test_an_audit_is_repeated_with_its_data_conditions_baseline_and_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real command, of a name that options and shells would take for their own."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, filter(None, sys.path))))
    folder = tmp_path / "runs"
    name = "-odd name"
    model_folder(folder / name, tiny.classifier())
    model_folder(folder / "before", tiny.classifier())
    data = tiny.write_idx(folder / "idx", tiny.images(name="mnist"))
    (folder / "torch.py").write_text("raise SystemExit('imported from the folder')")
    monkeypatch.chdir(tmp_path)
    line = ["--data", data.relative_to(tmp_path), "--dataset", "mnist", "--fail-on", "r2<0.9"]
    line += ["--null-samples", tiny.ROTATIONS, "--baseline", "runs/before"]
    pages = ["--html", tmp_path / "report.html", "--lang", "ja", "--history", "runs"]
    words = ["audit", *map(str, (*line, *pages)), "--", f"runs/{name}"]
    monkeypatch.setattr(sys, "argv", ["bilens", *words])  # which the audit says of itself
    run(*words)
    (tmp_path / "report.html").unlink()
    served, key = ServedFolder(folder), id_of(name)
    assert served.audit_run(key).state == "ready"
    with pytest.raises(
        RefusedError, match="Another audit was recorded"
    ):  # the command of a page read before
        served.audit_again(key, AuditRead(0))
    served.audit_again(key, AuditRead(1))
    with pytest.raises(UsageError, match="An audit is running"):
        served.audit_again(key, AuditRead(1))
    found = ended(served.runs, key)
    assert (found.state, found.report, found.said) == ("done", "/audits/2", ""), found
    again, first = bl.History(folder).audits(name)
    assert again.identity == first.identity
    assert (again.data_sha256, again.failed) == (first.data_sha256, first.failed)
    assert again.command == (
        "bilens audit --history=. --data=idx --dataset=mnist '--fail-on=r2<0.9' "
        f"--null-samples={tiny.ROTATIONS} --baseline=before -- '{name}'"
    )
    assert not (tmp_path / "report.html").exists()
    served.audit_again(key, AuditRead(2))  # of the command that was repeated
    assert ended(served.runs, key).report == "/audits/3"


def test_one_that_fails_says_why(start: Start) -> None:
    runs = start(
        {
            "bad": [["say", "error: \x1b[2J no such layer at /srv/secret/x."], ["exit", 3]],
            "killed": [["say", "Layer 1: 3/9"], ["kill", int(signal.SIGKILL)]],
            "silent": [],
            "fails": [["remember"], ["exit", 1]],
        }
    )
    found = ended(runs, "bad")
    assert (found.state, found.code, found.said) == (
        "failed",
        3,
        "\ufffd[2J no such layer at x.",
    )
    runs.start("killed", command_of("killed"))
    found = ended(runs, "killed")
    assert (found.state, found.code, found.said) == ("failed", -9, "Layer 1: 3/9")
    assert (found.done, found.total) == (0, 0)  # it goes no further
    runs.start("silent", command_of("silent"))
    assert ended(runs, "silent").state == "failed"  # it recorded nothing
    runs.start("fails", command_of("fails"))
    found = ended(runs, "fails")  # by a condition: that is a result
    assert (found.state, found.report) == ("done", "/audits/1")


def test_one_runs_at_a_time_and_is_cancelled_even_if_it_is_deaf(start: Start) -> None:
    sleep = ["sleep", SOON]
    runs = start({"deaf": [["ignore"], ["say", "deaf"], sleep], "next": [["say", "L: 3/9"], sleep]})
    until(lambda: now(runs, "deaf").said == "deaf")
    assert now(runs, "deaf").total == 0  # it tells no steps
    for name in ("deaf", "next"):
        with pytest.raises(UsageError, match="An audit is running"):
            runs.start(name, command_of(name))
    assert runs.describe("next") is None
    runs.cancel("next")  # of which none runs
    assert now(runs, "deaf").state == RUNNING
    runs.cancel("deaf")
    assert now(runs, "deaf").state == "cancelled"
    runs.start("next", command_of("next"))
    until(lambda: now(runs, "next").total)
    assert (now(runs, "next").done, now(runs, "next").total) == (3, 9)
    runs.cancel("next")
    runs.cancel("next")  # it stays as it ended
    assert now(runs, "next").state == "cancelled"
    assert ran(runs) == ["start deaf", "start next"]


def test_one_that_takes_too_long_is_ended(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_runs, "LIMIT", 0.0)
    found = ended(start({"long": [["sleep", SOON]]}), "long")
    assert (found.state, found.why, found.about) == ("failed", "late", "0")


def test_it_ends_with_the_server(start: Start) -> None:
    runs = start({"a": [["say", "on"], ["sleep", SOON]]})
    until(lambda: now(runs, "a").said == "on")
    runs.close()
    assert now(runs, "a").state == "cancelled"
    assert ran(runs) == ["start a"]


def test_what_may_not_be_read_or_cannot_be_started_is_refused(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = start({"a": []})
    ended(runs, "a")
    (runs.folder / "b").symlink_to(tmp_path / "python")
    with pytest.raises(RefusedError):
        runs.start("b", command_of("b"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="cannot be started: No such file"):
        runs.start("c", command_of("a"))
    assert runs.describe("b") is runs.describe("c") is None
