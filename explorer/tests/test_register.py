"""The register: what lies in a folder now, held against what was audited and approved.

Broken once: with the model's name in place of its files, with a forged time taken for an unchanged
file, with a report beside a model taken for an audit, with the day of a clock that was put back.
Seen red: weights of an earlier release and open models told by the time alone, an adapter without
its base, a paper without files.
"""

import html
import itertools
import json
import os
import re
import shutil
import sqlite3
import threading
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from starlette.testclient import TestClient
from typer.testing import CliRunner

import bilens as bl
import tiny
from bilens.api.watch import watch_folder
from bilens.base.errors import UsageError
from bilens.base.files import file_sha256
from bilens.cli.app import app
from bilens.records.audit import Audit
from bilens.records.base import read_document
from bilens.records.common import Identity
from bilens.records.performance import Answer
from bilens.report.text import load_catalogue
from bilens_explorer import folder as folders, register
from bilens_explorer.app import build_app
from bilens_explorer.folder import ServedFolder
from bilens_explorer.guard import HEADER
from bilens_explorer.open_models import reading_options
from bilens_explorer.people import NewEntry, add_entry
from bilens_explorer.records.models import ModelRow, id_of
from commands import model_folder
from explorer_folder import run
from explorer_server import HERE
from report_documents import audit_of
from tiny_language_models import write_adapter

T = load_catalogue("en")
BADGE = 'class="badge'
ABOUT = {"input_shape": (tiny.SIDE, tiny.SIDE), "output_names": ("x", "y", "z")}
DECIDED = T("decision.conditions")  # of the audit that is made up


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that was audited."""
    monkeypatch.setattr(folders, "FRESH", -1.0)  # each look walks
    root = tmp_path / "runs"
    model_folder(root / "m", tiny.classifier(), **ABOUT)
    audited(root, "m")
    return root


def audited(root: Path, name: str) -> None:
    """Record an audit of what lies there."""
    record = audit_of(root / name).record
    files = {one: sha256_of(root / name / one) for one in ("model.safetensors", "config.json")}
    weights = files["model.safetensors"]
    source = replace(record.source, weights_sha256=weights, files=files)
    same = Identity(weights, "read", "data", "", "options")
    run = replace(record.reproduce, identity=same, command=f"bilens audit {name} --history .")
    bl.History(root).add(replace(record, source=source, reproduce=run))


def sha256_of(file: Path) -> str:
    return file_sha256(file)


def swap(root: Path, name: str = "m") -> None:
    """Put other weights in place of those that were audited."""
    new = model_folder(root.parent / "new", tiny.classifier(7), **ABOUT)
    for each in new.iterdir():
        each.replace(root / name / each.name)


def row(served: ServedFolder, name: str = "m") -> ModelRow:
    return next(one for one in served.overview().models if one.name == name)


def client_of(served: ServedFolder) -> TestClient:
    return TestClient(build_app(served, [HERE.removeprefix("http://")]), base_url=HERE)


def main_of(text: str) -> str:
    """A page without its controls."""
    return re.sub("<select.*?</select>", "", text[text.index("<body") :], flags=re.DOTALL)


def test_swapped_weights_are_seen_on_every_page(root: Path) -> None:
    served, key = ServedFolder(root), id_of("m")
    bl.History(root).say("accept", "m", "rule:decision", "for digits", "Ada", until="2199-03-31")
    pages = ("/", f"/models/{key}", f"/models/{key}/summary", "/audits/1")
    approval = "Ada (name as typed): The model as such (until 2199-03-31)"
    with client_of(served) as client:
        before = [client.get(page).text for page in pages]
        assert all(DECIDED in main_of(page) for page in before)
        assert all(approval in page for page in before[:3])
        assert all("What lies here is what audit 1 read" in page for page in before[1:])
        swap(root)
        home, model, summary, audit = (client.get(page).text for page in pages)
    line = "model.safetensors is another file"
    for page in (home, model, summary, audit):
        assert line in page
        assert approval not in page
    for page in (home, summary, model.partition("<table")[0]):
        assert DECIDED not in main_of(page)
        assert BADGE not in page
    assert audit.index(line) < audit.index(DECIDED), "said before what was found then"
    assert BADGE not in model
    accepted = NewEntry("accept", "rule:decision", "of what was audited", "Ada", audit=1)
    with pytest.raises(UsageError, match="nothing to accept"):
        add_entry(served, key, accepted)


@pytest.mark.parametrize("lying", [False, True])
def test_a_forged_time_hides_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, lying: bool
) -> None:
    """The time of the last change tells; where no time does, opening the model's page does."""
    if lying:
        monkeypatch.setattr(register, "mark_of", lambda path: path)
        monkeypatch.setattr(register, "OLD", -1.0)
    served, file = ServedFolder(root), root / "m" / "model.safetensors"
    assert row(served).state == "audited"
    overwrite(file)
    if lying:
        assert row(served).state == "audited"
        served.looked_at(id_of("m"))
    assert row(served).state == "changed"


def overwrite(file: Path) -> None:
    """Put other numbers into a file of weights in place: the same size and time."""
    said, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    with file.open("r+b") as there:
        there.write(content)
    os.utime(file, ns=(said.st_atime_ns, said.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (said.st_size, said.st_mtime_ns)


@pytest.mark.parametrize("lying", [False, True])
def test_no_forged_time_hides_what_is_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, lying: bool
) -> None:
    """Of an audit of an earlier release weights alone are known; views show what lies there."""
    monkeypatch.setattr("bilens_explorer.register.OLD", -1.0)
    record = audit_of(root / "m").record
    source = replace(record.source, weights_sha256=sha256_of(root / "m" / "model.safetensors"))
    bl.History(root).add(replace(record, source=replace(source, files={})))
    served = ServedFolder(root)
    before = served.opened(id_of("m")).model.read_sha256
    assert row(served).state == "unread"  # of what lies beside them nothing was recorded
    if lying:  # a disk that tells no change at all
        for each in ("register", "inside"):
            monkeypatch.setattr(f"bilens_explorer.{each}.mark_of", lambda _: (0,))
        assert row(served).state == "unread"
    overwrite(root / "m" / "model.safetensors")
    served.looked_at(id_of("m"))
    assert row(served).state == "changed"
    if not lying:
        assert served.opened(id_of("m")).model.read_sha256 != before


def test_an_adapter_is_another_where_its_base_is(root: Path) -> None:
    write_adapter(root)
    report = bl.audit(bl.load(root / "adapter"), null_samples=3)
    bl.History(root).add(report.record)
    served, config = ServedFolder(root), root / "base" / "config.json"
    assert row(served, "adapter").state == "audited"
    said = config.read_text()
    for file, text in (
        (config, said.replace('"hidden_act": "silu"', '"hidden_act": "relu"')),
        (root / "adapter" / "tokenizer_config.json", "{}"),
        (root / "base" / "tokenizer.json", "{}"),
    ):
        before = file.read_bytes() if file.exists() else None
        file.write_text(text)
        (found,) = row(served, "adapter").differences
        assert found.name.removeprefix("base: ") == file.name
        assert found.name.startswith("base: ") == (file.parent.name == "base")
        file.unlink() if before is None else file.write_bytes(before)
        assert row(served, "adapter").state == "audited"
    (root / "base").rename(root.parent / "base")
    (root / "base").symlink_to(root.parent / "base")
    assert row(served, "adapter").state == "unread", "no file out of the folder is read"


def test_an_adapter_is_opened_with_the_base_that_its_audit_named(root: Path) -> None:
    """Seen red: not known, and its views not to be opened."""
    adapter = write_adapter(root, named="elsewhere/gone")
    record = bl.audit(bl.load(adapter, base=root / "base"), null_samples=3).record
    line = "bilens audit runs/adapter --history runs --baseline=runs/base --data ../rows.csv"
    bl.History(root).add(replace(record, reproduce=replace(record.reproduce, command=line)))
    served = ServedFolder(root)
    assert row(served, "adapter").state == "audited"
    before = served.opened(id_of("adapter"))
    assert served.opened(id_of("adapter")) is before
    config = root / "base" / "config.json"
    config.write_text(config.read_text().replace('"hidden_act": "silu"', '"hidden_act": "relu"'))
    assert [one.name for one in row(served, "adapter").differences] == ["base: config.json"]
    assert served.opened(id_of("adapter")) is not before


@pytest.mark.parametrize(
    ("command", "line", "said"),
    [
        ("{root}/m --history {root} --html x.html", "--history=. -- m", "again"),
        ("runs/m other/m --history runs --seed 3", "--history=. --seed=3 -- m", "again"),
        (
            "{root}/m --history {root} --data /srv/t.csv",
            ".../runs/m --history .../runs --data .../t.csv",
            "recorded",
        ),
        (
            "runs/m --history runs --data=t.csv",
            "runs/m --history runs --data=t.csv",
            "recorded",
        ),
    ],
)
def test_a_line_to_copy_is_of_this_model_data_and_history(
    root: Path, command: str, line: str, said: str
) -> None:
    """Seen red: a path from the root as one from the folder above, where another may lie."""
    record = audit_of(root / "m").record
    run = replace(record.reproduce, command=f"bilens audit {command.format(root=root)}")
    bl.History(root).add(replace(record, reproduce=run))
    with client_of(ServedFolder(root)) as client:
        page = client.get(f"/models/{id_of('m')}").text
    shown = html.unescape(re.sub("<[^>]+>", "", page[page.index("<pre") :].partition("</pre>")[0]))
    assert shown == f"bilens audit {line}"
    assert html.escape(T(f"explorer.{said}"), quote=False) in page
    if ".../" in line:  # wherever it is pasted, it opens nothing
        assert CliRunner().invoke(app, shown.split()[1:]).exit_code != 0


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_what_is_refused_is_told_in_the_language_that_is_asked_for(root: Path, lang: str) -> None:
    """Sentences of the pages' own; those of other parts of bilens are English, and say so."""
    key, served = id_of("m"), ServedFolder(root)
    app = build_app(served, [HERE.removeprefix("http://")])
    sent = {"accept-language": lang, "origin": HERE, HEADER: app.secret}
    body = {"action": "reject", "subject": "rule:decision", "text": "no", "author": "Ada"}
    with TestClient(app, base_url=HERE, headers=sent) as client:
        found = client.post(f"/api/v1/models/{key}/entries", json=body)
        told = load_catalogue(lang)("explorer.told.another", number=1, model="m")
        assert (found.status_code, found.json()["error"]) == (400, told)
        assert found.headers["content-language"] == lang
        unknown = client.get(f"/api/v1/models/{key}/spectrum?layer=none")
        assert (unknown.status_code, unknown.headers["content-language"]) == (400, "en")
        for path in ("/models/nothing", f"/api/v1/models/{key}/audit/cancel"):
            said = client.get(f"{path}?lang={lang}")
            assert load_catalogue(lang)(f"explorer.told.{said.status_code}") in said.text
        page = client.get(f"/compare?a=x&lang={lang}").text
        assert '<span lang="en">' in page


def test_nobody_waits_for_a_reader_that_is_gone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red: without end, as an export waits for as long as it takes."""
    served, compare, failing = ServedFolder(root, patience=3.0), register.Register.compare, [True]

    def compare_or_fail(self: Any, audited: Any, *, again: bool = False) -> Any:
        if failing.pop() if failing else False:
            raise RuntimeError("no more threads")
        return compare(self, audited, again=again)

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(register.Register, "compare", compare_or_fail)
    assert row(served).state == "unread"
    assert row(served).state == "audited"  # which is tried again, as nothing of it is known


def test_files_are_read_once_and_only_those_that_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    read = register.file_sha256
    monkeypatch.setattr(
        register, "file_sha256", lambda file: (seen.append(file.name), read(file))[1]
    )
    served = ServedFolder(root)
    for _ in range(3):
        row(served)
        served.looked_at(id_of("m"))
    assert sorted(seen) == ["config.json", "model.safetensors"]
    report = json.dumps(bl.History(root).document(1))
    (root / "m" / "report.json").write_text(report)  # which makes the folder another
    config = root / "m" / "config.json"
    config.write_text(config.read_text() + " ")
    assert row(served).differences[0].name == "config.json"
    assert seen[2:] == ["config.json"]


def test_a_page_does_not_wait_long_and_says_what_it_does_not_know(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, read = Event(), register.file_sha256
    monkeypatch.setattr(register, "file_sha256", lambda file: ended.wait(60) and read(file))
    served = ServedFolder(root, patience=0.0)
    served.last_walk()
    assert row(served).state == "unread"
    with client_of(served) as client:
        for page in ("/", f"/models/{id_of('m')}", f"/models/{id_of('m')}/summary"):
            found = main_of(client.get(page).text)
            assert DECIDED not in found.partition("<table")[0]
            assert T("explorer.state_of.unread") in found or "is not known" in found
    before = served.state().digest
    ended.set()
    served._register.patience = None
    assert row(served).state == "audited"
    assert served.state().digest != before


def test_what_is_gone_has_no_badge_and_comes_last(root: Path) -> None:
    model_folder(root / "never", tiny.classifier(1), **ABOUT)
    shutil.rmtree(root / "m")
    served = ServedFolder(root)
    assert [(one.name, one.state) for one in served.overview().models] == [
        ("never", "never"),
        ("m", "gone"),
    ]
    with client_of(served) as client:
        home, page = client.get("/").text, client.get(f"/models/{id_of('m')}").text
        summary = client.get(f"/models/{id_of('m')}/summary").text
    assert BADGE not in home + page
    assert "Gone from the folder. Audit 1" in page
    assert "Gone from the folder. Audit 1" in summary
    assert BADGE not in summary


def papers(root: Path) -> dict[str, tuple[Any, int]]:
    found = ServedFolder(root).model(id_of("m")).reports
    return {one.name.removeprefix("m/"): (one.state, one.audit) for one in found}


def test_only_a_report_that_was_made_here_is_an_audit(root: Path) -> None:
    document = bl.History(root).document(1)
    forged = document | {"reproduce": document["reproduce"] | {"date": "2027-01-02"}}
    other = document | {"source": document["source"] | {"weights_sha256": "c" * 64, "files": {}}}
    with client_of(ServedFolder(root)) as client:
        told = client.get("/api/v1/audits/1").json()  # seen red: places in it are cut
    laid = {"own": document, "told": told, "forged": forged, "other": other}
    for name, written in laid.items():
        (root / "m" / f"{name}.json").write_text(json.dumps(written))
    (root / "m" / "broken.json").write_text('{"schema_version": 2, "kind": "audit", ')
    wanted = {
        "own.json": ("audit", 1),
        "told.json": ("audit", 1),
        "forged.json": ("these", 0),
        "other.json": ("others", 0),
        "broken.json": ("unread", 0),
    }
    assert papers(root) == wanted
    with client_of(ServedFolder(root)) as client:
        page = client.get(f"/models/{id_of('m')}").text
        for name, (state, number) in wanted.items():
            said = T(f"explorer.paper.{state}", number=number)
            assert said in page
            if state != "unread":
                report = client.get(f"/reports/{id_of(f'm/{name}')}").text
                assert report.index(said) < report.index(BADGE), "said before its own badge"
    (root / "m" / "bare.json").write_text(
        json.dumps(forged | {"source": forged["source"] | {"files": {}}})
    )
    assert papers(root)["bare.json"] == ("weights", 0), "one that names no files"
    (root / "m" / "bare.json").unlink()
    swap(root)
    others = dict.fromkeys(("own.json", "told.json"), ("others", 1))
    assert papers(root) == wanted | others | {"forged.json": ("others", 0)}


def test_a_report_is_held_against_every_audit_of_its_weights(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red: behind twenty later audits it was called made elsewhere."""
    first = bl.AuditReport(bl.History(root).document(1))
    (root / "m" / "own.json").write_text(first.to_json())
    for day in range(1, 23):
        run = replace(first.record.reproduce, date=f"2027-01-{day:02}")
        bl.History(root).add(replace(first.record, reproduce=run))
    assert papers(root) == {"own.json": ("audit", 1)}
    served = ServedFolder(root, patience=9.5)
    monkeypatch.setattr("bilens_explorer.papers.monotonic", itertools.count().__next__)
    found = [served.paper(id_of("m/own.json")).state for _ in range(3)]
    assert found == ["unread", "unread", "audit"], "a page waits for nine, and goes on from there"


def test_a_report_of_an_earlier_audit_says_that_there_is_a_later_one(root: Path) -> None:
    (root / "m" / "own.json").write_text(json.dumps(bl.History(root).document(1)))
    said = T("explorer.standing.earlier", number=2, day="")[:-2]
    with client_of(ServedFolder(root)) as client:
        assert said not in client.get(f"/reports/{id_of('m/own.json')}").text
        later = bl.AuditReport(bl.History(root).document(1)).record
        bl.History(root).add(replace(later, reproduce=replace(later.reproduce, date="2027-01-02")))
        assert said in client.get(f"/reports/{id_of('m/own.json')}").text


def test_a_clock_that_is_put_back_revives_no_acceptance(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock(day: str) -> None:
        monkeypatch.setattr(folders, "now", lambda: f"{day}T10:00:00Z")
        monkeypatch.setattr("bilens.api.history.now", lambda: f"{day}T10:00:00Z")

    served = ServedFolder(root)
    clock("2198-12-01")
    served.history.say("accept", "m", "rule:decision", "known", "Ada", until="2199-03-31")
    assert [one.author for one in row(served).approvals] == ["Ada"]
    clock("2199-04-01")
    assert row(served).approvals == ()
    clock("2199-03-31")
    assert row(served).approvals == (), "this explorer has seen a later day"
    with client_of(served) as client:
        for page in ("/audits/1", f"/models/{id_of('m')}/summary"):
            assert "Accepted until" not in client.get(page).text
    served.history.say("note", "m", "model", "nothing", "Kei")
    assert row(ServedFolder(root)).approvals == (), "the history keeps that it has ended"
    clock("2199-04-02")
    served.history.say("note", "m", "model", "a later day is in the history", "Kei")
    clock("2199-03-31")
    again = ServedFolder(root)
    assert row(again).approvals == ()
    with client_of(again) as client:
        home = client.get("/").text
        assert "clock says 2199-03-31, and the history has something of 2199-04-02" in home
        assert "Accepted until" not in client.get(f"/models/{id_of('m')}").text


def test_an_unchanged_copy_says_of_which_model_it_was_approved(root: Path) -> None:
    shutil.copytree(root / "m", root / "copy")
    audited(root, "copy")
    history = bl.History(root)
    history.say("accept", "m", "rule:decision", "known", "Ada")
    served = ServedFolder(root)
    (found,) = row(served, "copy").approvals
    assert (found.author, found.model) == ("Ada", "m")
    with client_of(served) as client:
        assert "said of m, of which this is an unchanged copy" in client.get("/").text
    history.say("reject", "copy", "rule:decision", "not here", "Kei")
    assert row(served, "copy").approvals == ()


def test_what_changed_is_said_where_what_was_audited_lies_there_too(root: Path) -> None:
    shutil.copytree(root / "m", root / "before")
    audited(root, "before")
    swap(root)
    with client_of(ServedFolder(root)) as client:
        client.get("/")
        page = client.get(f"/models/{id_of('m')}").text
    assert f"/models/{id_of('before')}?lang=en" in page
    assert f"/compare?a={id_of('before')}&amp;b={id_of('m')}" in page
    assert "<p>Unrelated weights: 4 of 4 tensors differ" in page


def test_a_history_reads_no_file_out_of_the_folder(root: Path) -> None:
    secret = root.parent / "secret.txt"
    secret.write_text("known")
    record = audit_of(root / "m").record
    source = replace(record.source, files={"../../secret.txt": sha256_of(secret)})
    bl.History(root).add(replace(record, source=source))
    assert row(ServedFolder(root)).state == "unread"


def test_a_mapping_an_activation_and_names_open_the_views_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and activation of a file that does not say them stand in the audit's command."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    tensors = {"first": torch.randn(6, 4), "second": torch.randn(3, 6)}
    save_file(tensors, root / "odd.safetensors")
    words = ["audit", "odd.safetensors", "--map", "up=first", "--map", "down=second"]
    words += ["--activation", "relu", "--history", ".", "--classes", "names.txt"]
    words += ["--data", "x.npy", "--labels", "y.npy"]
    (root / "names.txt").write_text("cat\ndog\ncow\n")
    np.save(root / "x.npy", torch.randn(60, 4).numpy())
    np.save(root / "y.npy", torch.arange(60).numpy() % 3)
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["bilens", *words])  # which the audit says of itself
    run(*words)
    served = ServedFolder(root)
    assert row(served, "odd.safetensors").state == "audited"
    with client_of(served) as client:
        found = client.get(f"/api/v1/models/{id_of('odd.safetensors')}/layers")
    assert found.status_code == 200, found.text
    (layer,) = found.json()["layers"]
    assert layer["activation"] == "relu"
    assert layer["outputs"] == ["cat", "dog", "cow"]


def test_names_that_were_given_in_python_are_those_of_the_views(root: Path) -> None:
    """Seen red: 0, 1, 2. Where the files changed since, nobody knows what their outputs are."""

    def outputs() -> Any:
        with client_of(ServedFolder(root)) as client:
            found = client.get(f"/api/v1/models/{id_of('plain')}/layers").json()
        return found["layers"][0]["outputs"]

    model_folder(root / "plain", tiny.classifier())
    model = bl.load(root / "plain", output_names=["cat", "dog", "cow"])
    bl.History(root).add(bl.audit(model, null_samples=tiny.ROTATIONS).record)
    assert outputs() == ["cat", "dog", "cow"]
    shutil.rmtree(root / "plain")
    model_folder(root / "plain", tiny.classifier(7))
    assert outputs() is None
    swap(root, "plain")  # whose files have names of their own
    assert outputs() == ["x", "y", "z"]


def test_one_name_without_a_comma_is_a_name_too(root: Path) -> None:
    """Seen red: a single output without its name; where a file has it, the audit alone says it."""
    options = partial(reading_options, folder=root, path=root / "m")
    (root / "risk.txt").write_text("a")
    assert options("bilens audit m --history . --classes risk") == {"output_names": ["risk"]}
    assert options("bilens audit m --history . --classes=a,b") == {"output_names": ["a", "b"]}
    for unknown in ("--history . --classes risk.txt", f"--history {root} --classes risk"):
        found = options(f"bilens audit m {unknown} --activation relu")
        assert found == {"activation": "relu"}


def test_no_view_draws_what_the_audit_did_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    shapes = {"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (3, 8), "fc2.bias": (3,)}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    monkeypatch.chdir(root)
    key = id_of("a.safetensors")
    asked = {"layer": "layer", "output": "1"}
    # with weights that are large a tanh is a step, of which R² is low: refused once all the same
    for activation, size, threshold, code in (
        ("relu", 1, 0.5, 200),
        ("relu", 1, 0.99999, 400),
        ("tanh", 20, 0, 200),
    ):
        scaled = {name: one * size for name, one in tensors.items()}
        save_file(scaled, root / "a.safetensors")
        words = ["audit", "a.safetensors", "--activation", activation, "--history", "."]
        words += ["--threshold", str(threshold)]
        monkeypatch.setattr("sys.argv", ["bilens", *words])
        run(*words)
        with client_of(ServedFolder(root)) as client:
            for view in ("spectrum", "null", "eigenvectors", "interactions"):
                found = client.get(f"/api/v1/models/{key}/{view}", params=asked)
                assert found.status_code == code, found.text
                assert code == 200 or "not read by the last audit: R²" in found.json()["error"]
                if view in ("spectrum", "interactions") and code == 200:  # seen red: another R²
                    kept = client.get(f"/api/v1/models/{key}/layers").json()["layers"][0]
                    assert found.json()["approximation"]["r_squared"] == kept["r_squared"]


def test_a_paper_says_nothing_of_what_people_accepted(root: Path) -> None:
    """Its words are no judgement: the history has these, whatever was true when it was written."""
    history = bl.History(root)
    history.say("accept", "m", "rule:decision", "known", "Ada")
    people = history.people("m", history.audits("m")[0].identity)
    own = bl.AuditReport(history.document(1)).with_people(people)
    own.to_json(root / "m" / "own.json")
    forged = json.loads(own.to_json()) | {"seed": 99}
    (root / "m" / "forged.json").write_text(json.dumps(forged))
    history.say("reject", "m", "rule:decision", "stop it", "Bob")
    served = ServedFolder(root)
    with client_of(served) as client:
        found = {one: client.get(f"/reports/{id_of(f'm/{one}.json')}") for one in ("own", "forged")}
        told = client.get(f"/api/v1/reports/{id_of('m/forged.json')}").json()
    assert "Bob" in found["own"].text
    assert "Accepted" not in found["own"].text
    assert not {"Ada", "Bob"} & {*re.findall("Ada|Bob", found["forged"].text)}
    assert told["people"] is None


def test_nobody_accepts_an_audit_that_they_did_not_see(root: Path) -> None:
    served, key, last = ServedFolder(root), id_of("m"), bl.History(root).audits("m")[0]
    seen = {"audit": last.number, "identity": last.identity}
    page = client_of(served).get(f"/models/{key}").text
    assert json.loads(html.unescape(re.findall('data-read="([^"]*)"', page)[0]))["audit"] == 1
    swap(root)
    audited(root, "m")
    for given in ({}, seen, {"audit": 2, "identity": last.identity}):
        with pytest.raises(UsageError, match="Audit 2 is the last one of m, and this is said of"):
            add_entry(served, key, NewEntry("accept", "rule:decision", "I read it", "Ada", **given))
    with pytest.raises(UsageError, match="audit 1 is not the last one of m"):
        served.history.say("accept", "m", "rule:decision", "known", "Ada", audit=1)
    assert row(served).approvals == ()
    now = {"audit": 2, "identity": served.history.audits("m")[0].identity}
    add_entry(served, key, NewEntry("accept", "rule:decision", "I read it", "Ada", **now))
    assert [one.author for one in row(served).approvals] == ["Ada"]


def test_chosen_models_keep_what_was_accepted_of_their_copies(root: Path) -> None:
    shutil.copytree(root / "m", root / "copy")
    audited(root, "copy")
    bl.History(root).say("accept", "m", "rule:decision", "known", "Ada")
    served = ServedFolder(root, exporting=True)
    served.choose_models(["copy"])
    assert [one.author for one in row(served, "copy").approvals] == ["Ada"]
    with client_of(served) as client:
        for page in (f"/models/{id_of('copy')}", f"/models/{id_of('copy')}/summary", "/audits/2"):
            found = client.get(page).text
            assert "Ada" in found
            assert T("explorer.not_approved") not in found


def test_what_the_walk_does_not_find_is_not_gone(root: Path) -> None:
    """Hidden, deep, or a file of a folder: what lies there is said; outside nobody looks."""
    deep = "/".join("abcdefgh")
    for name in (".hidden", deep, "../outside"):
        shutil.copytree(root / "m", root / name)
    (root / "out").symlink_to(root.parent / "outside")
    for name in (".hidden", deep, "out"):
        audited(root, name)
    record = audit_of(root / "m").record
    file = {"model.safetensors": sha256_of(root / "m" / "model.safetensors")}
    for path in (root / "m" / "model.safetensors", root.parent / "outside"):
        source = replace(record.source, path=str(path), files=file)
        bl.History(root).add(replace(record, source=source))
    states = {one.name: one.state for one in ServedFolder(root).overview().models}
    assert states == {
        "m": "audited",
        ".hidden": "audited",
        deep: "audited",
        "m/model.safetensors": "audited",
        "out": "unread",
        str(root.parent / "outside"): "unread",
    }


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_model_at_an_address_is_not_gone_and_is_told_by_it(root: Path, lang: str) -> None:
    """Seen red: gone from the folder."""
    record, name = audit_of(root / "m").record, "https://example.org/m.gguf"
    bl.History(root).add(replace(record, source=replace(record.source, path=name)))
    served, about = ServedFolder(root), {"lang": lang}
    assert row(served, name).state == "unread"
    with client_of(served) as client:
        home = html.unescape(client.get("/", params=about).text).replace("<wbr>", "")
        page = client.get(f"/models/{id_of(name)}", params=about).text
    assert name in home
    assert name in page
    assert {"en": "at an address", "ja": "アドレス"}[lang] in main_of(page)
    assert BADGE not in main_of(page)
    models = ServedFolder(root, exporting=True).overview().models
    assert [one.name for one in models] == ["m"]  # of readers elsewhere


def test_wrong_answers_are_those_of_the_audit_that_decides(root: Path) -> None:
    """An audit without data has none: then its model has no such page (docs/explorer.md)."""
    record = read_document(Audit, bl.History(root).document(1))
    wrong = Answer(index=0, name="", target=0, predicted=1, confidence=0.9, image=None)
    answers = replace(record.performance, mistakes=(wrong,))  # type: ignore[type-var]
    bl.History(root).add(replace(record, performance=answers))
    assert "mistakes" in ServedFolder(root).model(id_of("m")).views
    bl.History(root).add(replace(record, performance=None, data=None))
    assert "mistakes" not in ServedFolder(root).model(id_of("m")).views
    with client_of(ServedFolder(root)) as client:
        assert client.get(f"/models/{id_of('m')}/mistakes").status_code == 404
        assert client.get("/audits/2").status_code == 200


def test_an_empty_folder_is_gone_for_home_and_watch(root: Path) -> None:
    for file in [*(root / "m").iterdir()]:
        file.unlink()
    assert row(ServedFolder(root)).state == "gone"
    assert [one.state for one in watch_folder(root).models] == ["gone"]


def test_a_history_that_is_copied_over_it_is_read_anew(root: Path) -> None:
    """With as many rows, in the same file, by time and bytes another one."""
    other = root.parent / "other"
    shutil.copytree(root, other)
    bl.History(root).say("accept", "m", "rule:decision", "known", "Ada")
    bl.History(other).say("reject", "m", "rule:decision", "stop it", "Bob")
    served = ServedFolder(root)
    assert [one.author for one in row(served).approvals] == ["Ada"]
    before = served.state().digest
    with sqlite3.connect(other / "bilens.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (root / "bilens.db").write_bytes((other / "bilens.db").read_bytes())
    assert row(served).approvals == ()
    assert served.state().digest != before


def test_files_of_which_no_layer_is_read_are_listed_and_audited_again(root: Path) -> None:
    """Seen red: not listed; once audited, without a button, and said to be gone."""
    (root / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    for name in ("trees.json", "config.json"):  # seen red: the second not on the first page
        (root / name).write_text('{"learner": {}}')
    (root / "notes.json").write_text("{}")
    (root / "b.mlpackage").mkdir()
    np.savez(root / "c.npz", w=np.eye(2))
    source = replace(
        audit_of(root / "c.npz").record.source, files={"c.npz": sha256_of(root / "c.npz")}
    )
    record = replace(audit_of(root / "c.npz").record, source=source)
    run = replace(record.reproduce, command="bilens audit c.npz --history .")
    bl.History(root).add(replace(record, reproduce=run))
    served = ServedFolder(root)
    states = {one.name: one.state for one in served.overview().models}
    listed = dict.fromkeys(("a.tflite", "trees.json", "config.json", "b.mlpackage"), "never")
    assert states == {"m": "audited", "c.npz": "audited", **listed}
    assert {one.model for one in watch_folder(root).models} == {*states}
    found = served.model(id_of("c.npz"))
    assert found.run is not None
    assert found.run.state == "ready"
