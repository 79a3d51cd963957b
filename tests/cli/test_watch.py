"""`bilens watch`: what changed is audited again as before; one bad model stops no other.

Broken once: with every model audited again, with a failure of before forgotten, with redirects
followed, with the whole address in an error, with no lock, with the audit left running.
"""

import json
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from msgspec.structs import replace

import bilens as bl
import fake_commands
import tiny
from bilens.api import watch as watching
from bilens.api.provenance import files_read
from bilens.api.recorded_command import RepeatedCommand
from bilens.cli.commands import watch as command
from bilens.io.load import load
from bilens.records.history import UNNAMED, WatchedModel
from commands import FILE, USAGE, Shell, assert_one_line, model_folder
from report_documents import audit_of, failed, make_document
from tiny_language_models import write_adapter

SECRET = "hooks/s3cr3t"  # noqa: S105 - of a test
Keep = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    root.mkdir()
    return root


@pytest.fixture
def keep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Lay down a model that was audited; with steps, it changed since, and they are its audit."""
    monkeypatch.setattr(sys, "executable", fake_commands.install(folder.parent / "python"))
    plans: dict[str, Any] = {}

    def lay(name: str, *steps: list[Any], document: Any = None, line: str = "") -> None:
        path = model_folder(folder / name, tiny.classifier())
        model = load(path)
        record = audit_of(path, document).record
        kept = {"weights_sha256": model.weights_sha256, "files": files_read(model)}
        run = bl.History(folder).add(
            tiny_record(record, kept, f"bilens audit {name} --history . {line}")
        )
        assert run.model == name
        if steps:
            (path / "tokenizer.json").write_text("{}")
            plans[name] = steps
        (folder / "plan.json").write_text(json.dumps(plans))
        (folder / "document.json").write_text(json.dumps(make_document()))

    return lay


def tiny_record(record: Any, kept: dict[str, Any], line: str) -> Any:
    source = replace(record.source, **kept)
    return replace(record, source=source, reproduce=replace(record.reproduce, command=line))


def look(bilens: Shell, folder: Path, *more: object) -> tuple[int, dict[str, Any]]:
    result = bilens("watch", folder, "--once", "--json", *more)
    return result.code, {one["model"]: one for one in result.json()["models"]}


def remember(name: str, folder: Path) -> list[list[Any]]:
    document = make_document()
    document["source"]["path"] = str(folder / name)
    return [["remember", document]]


def test_what_changed_is_audited_again_and_all_else_is_told(
    bilens: Shell, folder: Path, keep: Keep
) -> None:
    keep("same")
    keep("fails", document=failed())
    keep("new", *remember("new", folder))
    keep("bad", ["say", f"error: {folder}/bad: is damaged \x1b[2J."], ["exit", 3])
    keep("killed", ["kill", 9])
    keep("silent", ["say", "well"])
    keep("away", ["say", "never run"], line="--data ../rows.csv")
    keep("gone")
    (folder / "gone").rename(folder.parent / "gone")
    model_folder(folder / "team" / "unseen", tiny.classifier())
    code, found = look(bilens, folder)
    told = {name: (one["state"], one["code"]) for name, one in found.items()}
    assert told == {
        "same": ("audited", 0),
        "fails": ("audited", 1),
        "new": ("changed", 0),
        "bad": ("changed", 3),
        "killed": ("changed", 5),
        "silent": ("changed", 70),
        "away": ("changed", 2),
        "gone": ("gone", 0),
        "team/unseen": ("never", 0),
    }
    assert code == 70
    assert found["bad"]["said"] == "runs/bad: is damaged \ufffd[2J."
    assert "rows.csv" in found["away"]["said"]
    assert found["new"]["files"] == ["tokenizer.json"]
    assert (
        found["new"]["audit"]
        == bl.History(folder).audits("new")[0].number
        > found["fails"]["audit"]
    )
    assert {*found["fails"]["failed"]} >= {"exact", "complete"}
    ran = (folder / "ran.txt").read_text().splitlines()
    assert {one for one in ran if one.startswith("start")} == {
        f"start {name}" for name in ("new", "bad", "killed", "silent")
    }


def test_a_folder_may_be_a_model_itself_and_may_be_called_anything(
    bilens: Shell, folder: Path
) -> None:
    """Seen red: its weights as a model of their own; a folder of this name was left out."""
    model_folder(folder, tiny.classifier())
    for name in (UNNAMED, "b"):
        model_folder(folder / name, tiny.classifier())
    _, found = look(bilens, folder)
    assert {name: one["state"] for name, one in found.items()} == {
        ".": "never", UNNAMED: "never", "b": "never",
    }  # fmt: skip


def test_what_was_accepted_is_no_objection(bilens: Shell, folder: Path, keep: Keep) -> None:
    keep("fails", document=failed())
    assert look(bilens, folder)[0] == 1
    history = bl.History(folder)
    for rule in history.audits()[0].failed:
        history.say("accept", "fails", f"rule:{rule}", "known", "Ada")
    code, found = look(bilens, folder)
    assert (code, found["fails"]["failed"]) == (0, [])


def test_an_audit_that_leaves_a_model_changed_is_told_and_not_made_for_ever(
    bilens: Shell, folder: Path, keep: Keep
) -> None:
    """Seen red: audited again at each look, with exit code 0."""
    steps = remember("m", folder)
    steps[0][1]["source"]["files"] = {"tokenizer.json": "0" * 64}
    keep("m", *steps)
    for audits, text in ((2, "{}"), (2, "{}"), (3, "[]"), (3, "[]")):
        (folder / "m" / "tokenizer.json").write_text(text)
        code, found = look(bilens, folder)
        assert (code, found["m"]["state"], found["m"]["code"]) == (70, "changed", 70)
        assert f"Right after audit {audits}, " in found["m"]["said"]
        assert len(bl.History(folder).audits("m")) == audits
    assert {one.author for one in bl.History(folder).entries("m")} == {"bilens watch"}


@pytest.mark.parametrize("unreadable", ["base: x", "../x"])
def test_what_no_audit_can_confirm_is_never_said_to_be_as_approved(
    bilens: Shell, folder: Path, keep: Keep, unreadable: str
) -> None:
    """Seen red: exit code 0 at the first look, and then other weights that nobody audited."""
    steps = remember("m", folder)
    source = steps[0][1]["source"]
    source["files"] = {"model.safetensors": "0" * 64, unreadable: "0" * 64}
    keep("m", *steps)
    for audits, weights in (
        (2, b"as they were"),
        (2, b"as they were"),
        (3, b"others"),
        (3, b"others"),
    ):
        (folder / "m" / "model.safetensors").write_bytes(weights)
        code, found = look(bilens, folder)
        assert (code, found["m"]["code"]) == (70, 70)
        assert f"Right after audit {audits}, " in found["m"]["said"]
        assert len(bl.History(folder).audits("m")) == audits


def test_what_changes_while_it_is_audited_is_audited_at_the_next_look(
    bilens: Shell, folder: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red: with the exit code of an audit of what lies there no longer."""
    keep("m", *remember("m", folder))
    run = watching.run_audit

    def changed(*given: Any) -> tuple[int, str]:
        found = run(*given)
        (folder / "m" / "tokenizer.json").write_text("[]")
        return found

    monkeypatch.setattr(watching, "run_audit", changed)
    code, found = look(bilens, folder)
    assert (code, found["m"]["code"], found["m"]["audit"]) == (70, 70, 2)
    assert "at the next look" in found["m"]["said"]
    code, found = look(bilens, folder)
    assert (code, found["m"]["state"], found["m"]["audit"]) == (0, "changed", 3)


@pytest.mark.parametrize("name", ["s3://bucket/m", "https://example.org/m.gguf", "hf:/a/b"])
def test_an_address_is_not_gone_and_not_looked_at(
    bilens: Shell, folder: Path, keep: Keep, name: str
) -> None:
    """Seen red: taken for a path, which is gone, with exit code 0."""
    keep("a")
    record = audit_of(folder / "a").record
    bl.History(folder).add(replace(record, source=replace(record.source, path=name)))
    code, found = look(bilens, folder)
    told = found[name.replace("hf:/a", "hf://a")]
    assert (code, told["state"], told["code"], told["audit"]) == (2, "unread", 2, 0)
    assert "address" in told["said"]
    assert found["a"]["code"] == 0


def test_a_row_that_cannot_be_read_is_told_of_its_model(
    bilens: Shell, folder: Path, keep: Keep
) -> None:
    keep("a")
    keep("b")
    with sqlite3.connect(bl.History(folder).path) as database:
        database.execute("DROP TRIGGER audits_stay")
        database.execute("UPDATE audits SET document = x'00' WHERE number = 1")
    code, found = look(bilens, folder)
    assert (code, found["a"]["code"], found["b"]["code"]) == (3, 3, 0)
    assert found["a"]["said"].startswith("runs/bilens.db: ")
    assert str(folder.parent) not in found["a"]["said"]
    with sqlite3.connect(bl.History(folder).path) as database:
        database.execute("UPDATE audits SET answer = 'later' WHERE number = 1")
    code, found = look(bilens, folder)
    assert (code, found["a"]["code"], found["b"]["code"]) == (3, 3, 0)
    assert "row 1" in found["a"]["said"]
    assert (found["a"]["state"], found["a"]["files"]) == ("unread", [])  # and not changed


def test_a_name_writes_no_line_of_its_own() -> None:
    forged = WatchedModel("evil\n\x1b[2Km: audited, audit 7: use", "never", said="a\rb")
    line = command.line_of(forged)
    assert line.isprintable()
    assert line.startswith("evil")


def test_data_of_a_folder_that_is_named_may_be_read(
    bilens: Shell, folder: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[RepeatedCommand] = []
    monkeypatch.setattr(watching, "run_audit", lambda one, _: (started.append(one), (3, "no"))[1])
    data = folder.parent / "data"
    data.mkdir()
    (data / "rows.csv").touch()
    keep("a", ["say", ""], line="--data ../data/rows.csv")
    assert look(bilens, folder)[1]["a"]["code"] == 2
    assert look(bilens, folder, "--inputs", data)[1]["a"]["code"] == 3
    assert f"--data={data / 'rows.csv'}" in started[0].arguments
    (data / "rows.csv").unlink()
    (data / "rows.csv").symlink_to(folder.parent / "python")
    assert look(bilens, folder, "--inputs", data)[1]["a"]["code"] == 2


def rename_rows(folder: Path, name: str) -> None:
    """Give the audits of a history another model, as anybody can who may write there."""
    with sqlite3.connect(bl.History(folder).path) as database:
        database.execute("DROP TRIGGER audits_stay")
        database.execute("UPDATE audits SET model = ?, seal = ''", (name,))


@pytest.mark.parametrize("name", ["{out}", "../out", "/etc", "link", "", "./a", "a/", "b/../a"])
def test_no_name_leads_out_of_the_folder(
    bilens: Shell, folder: Path, keep: Keep, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red: with models walked, hashed and audited wherever a row of the history says."""
    started: list[RepeatedCommand] = []
    monkeypatch.setattr(watching, "run_audit", lambda one, _: (started.append(one), (3, "no"))[1])
    out = folder.parent / "out"
    keep("a", ["say", ""])
    (folder / "a").rename(out)
    (folder / "link").symlink_to(out)
    rename_rows(folder, name.format(out=out))
    code, found = look(bilens, folder)
    (one,) = (one for key, one in found.items() if one["code"])
    assert (code, one["state"], one["files"], started) == (2, "unread", [], [])
    assert "leads out of the folder" in one["said"]
    assert str(folder.parent) not in json.dumps(found)
    if name in ("{out}", "link"):
        code, found = look(bilens, folder, "--inputs", out)
        (one,) = (one for key, one in found.items() if one["code"])
        assert (code, one["state"], one["files"]) == (3, "changed", ["tokenizer.json"])
        assert str(folder.parent) not in json.dumps(found)


def test_the_base_of_an_adapter_lies_in_the_folder_too(bilens: Shell, folder: Path) -> None:
    write_adapter(folder)
    bl.History(folder).add(bl.audit(load(folder / "adapter"), null_samples=3).record)
    assert look(bilens, folder)[1]["adapter"]["state"] == "audited"
    (folder / "base").rename(folder.parent / "base")
    (folder / "base").symlink_to(folder.parent / "base")
    assert look(bilens, folder)[1]["adapter"]["state"] == "unread"
    assert look(bilens, folder, "--inputs", folder.parent)[1]["adapter"]["state"] == "audited"


def test_an_adapter_is_held_against_the_base_that_its_audit_named(
    bilens: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red: not known at every look, and so audited at every look."""
    monkeypatch.setattr(watching, "run_audit", lambda *_: (3, "run"))
    adapter = write_adapter(folder, named="elsewhere/gone")
    record = bl.audit(load(adapter, base=folder / "base"), null_samples=3).record
    # an option that is not run again keeps nothing from being known
    line = "bilens audit adapter --history . --baseline base --activations out"
    run = replace(record.reproduce, command=line)
    bl.History(folder).add(replace(record, reproduce=run))
    assert look(bilens, folder)[1]["adapter"]["state"] == "audited"
    (folder / "base" / "tokenizer.json").write_text("{}")
    found = look(bilens, folder)[1]["adapter"]
    assert (found["state"], found["files"]) == ("changed", ["base: tokenizer.json"])


@pytest.fixture
def hook() -> Iterator[tuple[HTTPServer, list[Any]]]:
    """Listens on this machine, and answers as it is told."""
    heard: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((self.path, dict(self.headers), json.loads(body)))
            status = int(self.path.rpartition("/")[2]) if self.path[-3:].isdecimal() else 204
            if status == 999:
                threading.Event().wait(0.5)
                return
            self.send_response(status)
            if status == 302:
                self.send_header("location", "/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:  # of who follows a redirect
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server, heard
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [204, 302, 500, 999])
def test_a_webhook_hears_the_result_and_no_secret_of_this_machine(
    bilens: Shell,
    folder: Path,
    keep: Keep,
    hook: tuple[HTTPServer, list[Any]],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(command, "PATIENCE", 0.2 if status == 999 else 10.0)
    server, heard = hook
    keep("a", line="--seed 12345")
    address, out = f"http://127.0.0.1:{server.server_port}/{SECRET}/{status}", folder / "out.json"
    monkeypatch.setenv(command.WEBHOOK, address)
    result = bilens("watch", folder, "--once", "--out", out, "--quiet")
    assert result.code == (0 if status == 204 else FILE)
    assert SECRET not in result.err + result.out
    ((path, headers, document),) = heard
    assert path == f"/{SECRET}/{status}"
    assert headers["Content-Type"] == "application/json"
    assert document == json.loads(out.read_text())  # which is written first
    assert (document["kind"], document["folder"], document["code"]) == ("watch", "runs", 0)
    for secret in ("12345", str(folder), SECRET):
        assert secret not in json.dumps(document)


def test_what_cannot_be_watched_is_refused(bilens: Shell, folder: Path) -> None:
    for every in ("0d", "1", "1y", "-1h", "1.5h", "١d"):
        assert_one_line(bilens("watch", folder, "--every", every), USAGE, ["--every", "1d"])
    assert_one_line(
        bilens("watch", folder, "--once", "--every", "1d"), USAGE, ["--once", "--every"]
    )
    for address in ("file:///etc/passwd", "https://", "https://a:b@c/", "http://a b/", "ftp://a"):
        result = bilens("watch", folder, "--webhook", address)
        assert_one_line(result, USAGE, ["--webhook", "https://"])
    assert_one_line(bilens("watch", folder / "no"), FILE, ["no", "folder"])
    with FileLock(folder / command.LOCK):
        assert_one_line(bilens("watch", folder, "--once"), USAGE, ["watched already"])
    assert_one_line(bilens("watch", folder, "--once"), USAGE, ["nothing is watched"])  # no model


def test_it_looks_again_until_it_is_interrupted(
    bilens: Shell, folder: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", sleep)
    keep("a")
    result = bilens("watch", folder, "--every", "2h", "--webhook", "http://127.0.0.1:9/x")
    assert (result.code, len(waits)) == (130, 2)
    assert all(7100 < one <= 7200 for one in waits)
    assert result.out.count("a: audited") == 2
    assert result.err.count("could not be posted to 127.0.0.1") == 2  # and it goes on


def test_an_audit_ends_with_the_watch(
    bilens: Shell, folder: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep("a", ["sleep", 60])
    started: list[Any] = []
    start = RepeatedCommand.start

    def interrupted(self: RepeatedCommand, folder: Path) -> Any:
        process = start(self, folder)
        started.append(process)
        monkeypatch.setattr(process, "communicate", lambda **_: interrupt())
        return process

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RepeatedCommand, "start", interrupted)
    assert bilens("watch", folder, "--once").code == 130
    assert started[0].returncode == -9
    with pytest.raises(ProcessLookupError):
        os.killpg(started[0].pid, 0)


def test_the_recorded_command_itself_runs(
    bilens: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, filter(None, sys.path))))
    model = model_folder(folder / "m", tiny.classifier(n_layers=2, gate="silu"))
    line = ("--null-samples", 3, "--fail-on", "r2<0.9999", "--history", folder)
    assert bilens("audit", model, *line).code == 1
    assert look(bilens, folder)[1]["m"]["state"] == "audited"
    (model / "tokenizer.json").write_text("{}")
    code, found = look(bilens, folder)
    assert (code, found["m"]["state"], found["m"]["audit"]) == (1, "changed", 2)
    assert "--fail-on=r2<0.9999" in bl.History(folder).audits()[0].command
    assert look(bilens, folder)[1]["m"]["state"] == "audited"
