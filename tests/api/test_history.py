"""The history of a folder: what was confirmed is there, is never changed, and counts as it should.

Broken once: with acceptances that never end, with the first entry of a subject in place of the
last, without the triggers, with a file of another program taken over, with `after` not asked,
with a migration that commits after each statement, with a read-only history that takes entries,
with a log that holds nothing opened as one that does.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import save_file

import bilens as bl
import tiny
from bilens.api import history as histories
from bilens.api.history import now
from bilens.api.history_file import APPLICATION, LARGEST, MIGRATIONS, NAME, statements
from bilens.base.errors import CheckpointError, FileError, UsageError
from bilens.findings.rules.decision import decision_of
from bilens.findings.rules.judgements import failed_rules
from bilens.findings.rules.progress import changes
from bilens.records.common import Identity
from bilens.records.history import Measured
from bilens.report.reports import AuditReport
from bilens.report.sections.decision_page import looked_lines
from bilens.report.sections.people import judged_lines
from bilens.report.text import load_catalogue
from report_documents import audit_of, failed, make_document, variants

RULE = "rule:trigger"


@pytest.fixture
def history(tmp_path: Path) -> bl.History:
    return bl.History(tmp_path)


def test_an_audit_is_recorded_whole(history: bl.History) -> None:
    record = AuditReport(make_document()).record
    first = history.add(record)
    second = history.add(AuditReport(failed()).record)
    again = bl.History(history.folder)
    assert again.audits() == [second, first]
    assert (first.number, second.number) == (1, 2)
    assert AuditReport(again.document(1)).record == record
    assert first.weights_sha256 == record.source.weights_sha256
    assert (first.failed, second.passed) == ((), False)
    assert second.failed
    assert history.audits(model="another") == []
    with pytest.raises(UsageError, match="no audit 3"):
        history.document(3)


def test_a_model_has_one_name_wherever_it_is_asked_from(
    history: bl.History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert history.name_of(tmp_path / "runs" / "mnist") == "runs/mnist"
    outside = tmp_path.parent / "elsewhere" / "mnist"
    assert history.name_of(tmp_path / ".." / "elsewhere" / "mnist") == str(outside)
    monkeypatch.chdir(tmp_path)
    assert history.name_of("runs/mnist") == "runs/mnist"
    monkeypatch.chdir(tmp_path.parent)
    assert history.name_of("elsewhere/mnist") == str(outside)
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    assert history.name_of(tmp_path / "link" / "mnist") == "link/mnist"
    assert history.name_of("") == "(from memory)"
    for one in ("https://example.org/m", Path("https://example.org/m")):  # seen red: a path
        assert history.name_of(one) == "https://example.org/m"


def audited(history: bl.History, name: str = "m", document: Any = None) -> None:
    history.add(audit_of(history.folder / name, document).record)


def test_an_acceptance_ends(history: bl.History) -> None:
    audited(history)
    said = history.say("accept", "m", RULE, "known", "Ada", until="2027-03-31")
    assert history.accepted("m", date(2027, 3, 31)) == {"trigger": said}
    assert history.accepted("m", date(2027, 4, 1)) == {}
    assert history.accepted("other", date(2027, 3, 31)) == {}


def test_a_clock_that_is_put_back_revives_no_acceptance(
    history: bl.History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red: with the day of the clock alone, and with that of what was recorded last."""

    def clock(day: str) -> None:
        monkeypatch.setattr(histories, "now", lambda: f"{day}T10:00:00Z")

    clock("2027-03-30")
    audited(history)
    history.say("accept", "m", RULE, "known", "Ada", until="2027-03-31")
    assert set(history.accepted("m")) == {"trigger"}
    clock("2027-04-01")
    assert history.accepted("m") == {}
    clock("2027-03-31")
    assert history.today() == "2027-04-01"
    assert bl.History(history.folder).accepted("m") == {}
    people = history.people("m")
    assert people is not None
    assert people.day == "2027-04-01"
    with pytest.raises(UsageError, match="today is 2027-04-01"):
        history.say("accept", "m", RULE, "known", "Ada", until="2027-03-31")


def test_a_row_without_a_day_says_nothing_of_today(history: bl.History) -> None:
    audited(history)
    with closing(sqlite3.connect(history.path)) as database, database:
        row = "SELECT 9, model, kind, 'zzzz-99-99', version, weights_sha256, data_sha256, command"
        more = "answer, passed, failed, document, identity, files, '' FROM audits"
        database.execute(f"INSERT INTO audits {row}, {more}")
    assert history.today() == now()[:10]


def test_an_acceptance_is_of_the_weights_that_were_audited(history: bl.History) -> None:
    audited(history)
    history.say("accept", "m", RULE, "known", "Ada")
    assert set(history.accepted("m")) == {"trigger"}
    document = make_document()
    audited(
        history, document=document | {"source": document["source"] | {"weights_sha256": "c" * 64}}
    )
    assert history.accepted("m") == {}


def test_nothing_is_accepted_of_models_from_memory(history: bl.History) -> None:
    """They have no hash of weights, so that one would pass for another."""
    name = history.add(audit_of("", weights_sha256="").record).model
    history.say("accept", name, RULE, "known", "Ada")
    assert history.accepted(name) == {}


def test_a_guess_stays_a_failure_until_it_is_accepted(history: bl.History) -> None:
    """Answers no better than guesses only warn, and forbid the use."""
    records = (AuditReport(one).record for one in variants().values())
    record = next(one for one in records if decision_of(one).inputs >= 100)
    verdict = [
        replace(one, outcome="warn" if one.rule == "accuracy" else "pass") for one in record.verdict
    ]
    record = replace(record, verdict=tuple(verdict), passed=False)
    assert failed_rules(record) == ("accuracy",)
    assert history.still_fails(record, ())
    assert history.still_fails(record, ("trigger",))
    assert not history.still_fails(record, ("accuracy",))


def test_the_last_word_counts_and_the_first_stays(history: bl.History) -> None:
    audited(history)
    history.say("accept", "m", RULE, "known", "Ada")
    history.say("note", "m", RULE, "look again", "Kei")
    assert set(history.accepted("m")) == {"trigger"}
    history.say("withdraw", "m", RULE, "", "Kei")
    assert history.accepted("m") == {}
    assert [one.action for one in history.entries("m")] == ["withdraw", "note", "accept"]


def test_what_was_said_since_refuses_an_entry(history: bl.History) -> None:
    audited(history)
    first = history.say("note", "m", RULE, "look again", "Kei", after=0)
    history.say("note", "m", "column:age", "of another subject", "Kei")
    history.say("note", "n", RULE, "of another model", "Kei")
    with pytest.raises(UsageError, match="something was said of rule:trigger since"):
        history.say("accept", "m", RULE, "known", "Ada", after=0)
    history.say("accept", "m", RULE, "known", "Ada", after=first.number)
    assert set(history.accepted("m")) == {"trigger"}

    def say(number: int) -> bool:
        try:
            history.say("note", "m", "column:sex", f"{number}", "Ada", after=0)
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(say, range(8))) == 1


def test_a_label_is_taken_back_and_no_acceptance_with_it(history: bl.History) -> None:
    audited(history)
    history.say("accept", "m", RULE, "known", "Ada")
    history.say("withdraw", "m", "trigger", "", "Kei")  # a subject of that name, not the rule
    assert set(history.accepted("m")) == {"trigger"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"action": "delete"}, "action is 'delete'"),
        ({"author": " "}, "author must not be empty"),
        ({"text": "\x00\n"}, "text must not be empty"),
        ({"text": "x" * 4001}, "at most 4000"),
        ({"author": "\u200b"}, "author must not be empty"),
        ({"author": "Ad\u200ba"}, r"author is 'Ad\\u200ba', with letters that nobody sees"),
        ({"author": "Ad\u3164a"}, "letters that nobody sees"),
        ({"author": "\xa0Ada", "known_by": "X-User"}, "letters that nobody sees"),
        ({"subject": "rule:triger"}, "expected a rule"),
        ({"subject": "trigger"}, "expected a rule"),
        ({"until": "2001-01-01"}, "from today on"),
        ({"until": "31.3.2027"}, "expected a day"),
        ({"until": "2027-02-30"}, "expected a day"),
        ({"action": "note", "until": "2027-03-31"}, "of an acceptance"),
    ],
)
def test_an_entry_says_who_and_why(history: bl.History, changes: dict[str, str], told: str) -> None:
    given = {"action": "accept", "subject": RULE, "text": "known", "author": "Ada"} | changes
    with pytest.raises(UsageError, match=told):
        history.say(model="m", **given)  # type: ignore[arg-type]
    assert history.entries() == []


def test_nothing_is_changed_or_deleted(history: bl.History) -> None:
    history.say("note", "m", RULE, "x", "Ada")
    history.add(AuditReport(make_document()).record)
    with sqlite3.connect(history.path) as database:
        columns = {"entries": "model", "audits": "model", "measured": "rule"}
        for order in ("UPDATE {} SET {} = 'n'", "DELETE FROM {}"):
            for table in columns.items():
                with pytest.raises(sqlite3.IntegrityError, match="is kept"):
                    database.execute(order.format(*table))


def test_files_that_are_no_history_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(CheckpointError, match="no history of bilens"):
        bl.History(tmp_path)
    assert path.read_bytes().startswith(b"not a database")
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes (text)")
    with pytest.raises(CheckpointError, match="of another program"):
        bl.History(tmp_path)
    path.unlink()
    bl.History(tmp_path)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(CheckpointError, match="version 7; this release reads up to 6"):
        bl.History(tmp_path)
    path.unlink()
    away = tmp_path.parent / "away.db"
    path.symlink_to(away)
    with pytest.raises(CheckpointError, match="it is a link"):
        bl.History(tmp_path)
    assert not away.exists()
    path.unlink()
    with pytest.raises(FileError, match="no folder"):
        bl.History(tmp_path / "none")


def test_a_file_of_another_program_is_not_altered(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes (text)")
    before = path.read_bytes()
    with pytest.raises(CheckpointError):
        bl.History(tmp_path)
    assert path.read_bytes() == before


def test_a_history_that_is_taken_away_or_changed_is_told(history: bl.History) -> None:
    history.say("note", "m", RULE, "x", "Ada")
    with sqlite3.connect(history.path) as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(CheckpointError, match="of version 7"):
        history.say("note", "m", RULE, "y", "Ada")
    with sqlite3.connect(history.path) as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    history.path.unlink()
    with pytest.raises(FileError, match="is gone"):
        history.audits()
    assert not history.path.exists()


def change(history: bl.History, *lines: str, **values: Any) -> None:
    """Write into a history what bilens would not."""
    with closing(sqlite3.connect(history.path)) as database, database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            database.execute(f"DROP TRIGGER {name}")
        for line in lines:
            database.execute(line, values)


@pytest.mark.parametrize(
    "damage",
    [
        "answer = 'approved_by_law'",
        "failed = 'no list'",
        "failed = :deep",
        "files = :deep",
        "identity = '7'",
        "kind = x'00'",
        "command = CAST(zeroblob(1048577) AS TEXT)",
        "model = x'ff', answer = 'later'",
    ],
)
def test_a_row_that_cannot_be_read_is_told_and_the_others_go_on(
    damage: str, history: bl.History
) -> None:
    for name in ("a", "b"):
        audited(history, name, failed())
        history.say("accept", name, RULE, "known", "Ada")
    change(history, f"UPDATE audits SET {damage} WHERE number = 1", deep="[" * 100_000)  # noqa: S608
    other, row = history.audits()
    assert (other.model, other.unread) == ("b", False)
    assert (row.number, row.unread, row.answer, row.failed) == (1, True, "cannot_judge", ())
    assert row.model == ("(damaged)" if "model" in damage else "a")
    assert [*history.accepted("b")] == ["trigger"]
    assert history.accepted(row.model) == {}


@pytest.mark.parametrize(
    "more", ["", ", subject = 'every:rule'", ", subject = x'00'", ", model = x'ff'"]
)
def test_an_entry_that_cannot_be_read_leaves_nothing_accepted(
    history: bl.History, more: str
) -> None:
    audited(history, "a", failed())
    history.say("accept", "a", RULE, "known", "Ada")
    change(history, "UPDATE measured SET outcome = 'later', value = 9e999 WHERE rule = 'exact'")
    assert [*history.accepted("a")] == ["trigger"]
    assert {(one.outcome, one.value) for one in history.measured("a") if one.rule == "exact"} == {
        ("", None)
    }
    history.say("accept", "a", RULE, "known", "Ada")
    change(history, f"UPDATE entries SET action = 'approve'{more} WHERE number = 2")  # noqa: S608
    assert [one.unread for one in history.entries()] == [True, False]
    assert history.accepted("a") == {}
    said = history.people("a")
    assert said is not None
    assert [one.unread for one in said.entries] == [True, False]


@pytest.mark.parametrize("kept", ["", ", seal = ''"])
@pytest.mark.parametrize("cell", ["subject", "model", "action"])
def test_a_damaged_rejection_revives_nothing(history: bl.History, cell: str, kept: str) -> None:
    """Seen red: accepted still; also in a row without a seal, of an earlier release."""
    audited(history, "a", failed())
    history.say("accept", "a", RULE, "known", "Ada")
    history.say("reject", "a", RULE, "no", "Ada")
    damaged = f"{cell} = CAST(CAST({cell} AS BLOB) || x'c9' AS TEXT){kept}"
    change(history, f"UPDATE entries SET {damaged} WHERE number = 2")  # noqa: S608
    assert [(one.unread, one.model) for one in history.entries()] == [
        (True, "(damaged)"),
        (False, "a"),
    ]
    assert history.accepted("a") == {}
    history.say("accept", "a", RULE, "known again", "Ada")
    assert [*history.accepted("a")] == ["trigger"]


@pytest.mark.parametrize(
    "damage",
    [
        "audits SET answer = 'use'",
        "audits SET model = 'b'",
        'audits SET files = \'[["x", "y"]]\'',
        "entries SET model = 'b'",
        "entries SET subject = 'rule:accuracy'",
        "entries SET action = 'accept'",
        "entries SET until = '2199-03-31'",
        "entries SET number = 7",
        "entries SET seal = 1",
    ],
)
def test_no_row_becomes_another_one_unseen(history: bl.History, damage: str) -> None:
    """Seen red: a word that is one of ours, in place of another one, was read as it stood."""
    audited(history, "b", failed())
    audited(history, "a", failed())
    history.say("accept", "a", RULE, "known", "Ada")
    history.say("reject", "a", RULE, "no", "Ada")
    change(history)
    assert not any(one.unread for one in (*history.audits(), *history.entries()))
    change(history, f"UPDATE {damage} WHERE number = 2")
    read = history.audits() if damage.startswith("audits") else history.entries()
    assert [one.unread for one in read] == [True, False]
    assert history.accepted("a") == {}


def test_a_rule_that_there_is_not_is_never_accepted(history: bl.History) -> None:
    audited(history, "a", failed())
    history.say("accept", "a", RULE, "known", "Ada")
    change(history, "UPDATE entries SET subject = 'rule:accurasy', seal = ''")
    assert history.entries()[0].unread
    assert history.accepted("a") == {}


def test_a_document_that_is_a_bomb_is_not_unpacked(history: bl.History) -> None:
    """Half a megabyte took 1.1 GB."""
    audited(history)
    change(history)
    bombs = [
        b"[]",
        b"{}" * 9,
        b"[" * 100_000,
        b'{"a":' * 60 + b"1" + b"}" * 60,
        b"[0" + 10**6 * b",0",
    ]
    texts = [*map(zlib.compress, bombs), b"no zlib", b"", "text"]
    texts += [zlib.compress(b" " * (LARGEST + 1)), zlib.compress(b'{"kind": 1}')[:-3]]
    for text in texts:
        change(history, "UPDATE audits SET document = :text", text=text)
        with pytest.raises(CheckpointError, match="the document of audit 1"):
            history.document(1)


def test_a_view_in_place_of_a_table_is_refused(history: bl.History) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n"
    change(history, f"CREATE VIEW more AS {endless}")
    with pytest.raises(CheckpointError, match="another program"):
        history.audits()


def test_several_begin_a_history_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: bl.History(tmp_path).audits(), range(64)))
    assert made == [[]] * 64


def test_several_write_at_once(history: bl.History) -> None:
    def write(author: str) -> list[int]:
        own = bl.History(history.folder)
        return [own.say("note", "m", RULE, str(n), author).number for n in range(20)]

    with ThreadPoolExecutor() as pool:
        numbers = [number for found in pool.map(write, "abcd") for number in found]
    assert sorted(numbers) == list(range(1, 81))
    assert len(history.entries()) == 80


def test_what_was_confirmed_survives_a_kill(history: bl.History) -> None:
    code = (
        "import sys, itertools; from bilens.api.history import History\n"
        "history = History(sys.argv[1])\n"
        "for n in itertools.count(): print(history.say('note', 'm', 's', str(n), 'a').number)"
    )
    for _ in range(3):
        command = [sys.executable, "-u", "-c", code, str(history.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            confirmed = [int(process.stdout.readline()) for _ in range(25)]
            process.kill()
            confirmed += [int(line) for line in process.stdout if line.endswith("\n")]
        there = {entry.number for entry in history.entries()}
        assert set(confirmed) <= there


def test_what_each_rule_measured_is_kept(history: bl.History) -> None:
    document = make_document() | {
        "conditions": [
            {"condition": "r2<0.9", "rule": "r2", "value": None, "failed": True},
            {"condition": "exact", "rule": "exact", "value": 2.7e-7, "failed": False},
        ]
    }
    audited(history, document=document)
    audited(history, "n")
    found = {one.rule: one for one in history.measured("m")}
    exact = next(one for one in document["verdict"] if one["rule"] == "exact")
    assert {*found} == {"r2", *(one["rule"] for one in document["verdict"])}
    assert (found["exact"].value, found["exact"].asked) == (exact["values"]["error"], True)
    assert (found["r2"].outcome, found["r2"].value, found["r2"].asked) == ("", None, True)
    assert not found["accuracy"].asked
    assert {one.audit for one in history.measured(after=1)} == {2}


MOST = {"audits": 12, "entries": 9}  # columns of version 1


def first_version(folder: Path) -> dict[str, list[Any]]:
    """A file of version 1 with audits, one of them damaged, and an entry; return its rows."""
    new = bl.History(folder)
    for _ in range(6):
        audited(new)
    new.say("note", "m", RULE, "look again", "Kei")
    with sqlite3.connect(new.path) as database:
        rows = {
            name: [row[: MOST[name]] for row in kept] for name, kept in rows_of(database).items()
        }
    for path in folder.glob(f"{NAME}*"):
        path.unlink()
    with sqlite3.connect(new.path) as database:
        for statement in statements(MIGRATIONS[0]):
            database.execute(statement)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute("PRAGMA user_version = 1")
        rows["audits"] = [(*row[:2], "audit", *row[3:]) for row in rows["audits"]]  # as it was
        rows["audits"][2] = (*rows["audits"][2][:-1], b"damaged")
        for name, kept in rows.items():
            marks = ", ".join("?" * len(kept[0]))
            database.executemany(f"INSERT INTO {name} VALUES ({marks})", kept)  # noqa: S608
    return rows


def rows_of(database: sqlite3.Connection) -> dict[str, list[Any]]:
    tables = ("audits", "entries")
    return {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in tables}  # noqa: S608


def assert_migrated(folder: Path, rows: dict[str, list[Any]]) -> None:
    history = bl.History(folder)
    with sqlite3.connect(history.path) as database:
        assert {
            name: [row[: MOST[name]] for row in kept] for name, kept in rows_of(database).items()
        } == rows
    assert [one.number for one in history.audits()] == [6, 5, 4, 3, 2, 1]
    assert {one.kind for one in history.audits()} == {"classes"}
    assert {one.audit for one in history.measured()} == {1, 2, 4, 5, 6}
    assert len({one.rule for one in history.measured()}) == len(make_document()["verdict"])
    assert history.entries()[0].text == "look again"


def test_a_file_of_version_1_is_migrated_and_nothing_is_lost(tmp_path: Path) -> None:
    assert_migrated(tmp_path, first_version(tmp_path))


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_kill_in_a_migration_leaves_a_file_that_opens(tmp_path: Path, after: int) -> None:
    rows = first_version(tmp_path)
    code = (
        "import os, sys; from bilens.api import history, history_file as file\n"
        "left, insert = int(sys.argv[2]), file.insert_measured\n"
        "def dying(*given):\n"
        "    global left\n"
        "    insert(*given)\n"
        "    left -= 1\n"
        "    left < 0 and os.kill(os.getpid(), 9)\n"
        "file.insert_measured = dying\n"
        "history.History(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(after)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert_migrated(tmp_path, rows)


@pytest.mark.parametrize("begin", ["none", "version 1", "now"])
def test_a_folder_that_is_read_only_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    if begin == "version 1":
        first_version(tmp_path)
    elif begin != "none":
        audited(bl.History(tmp_path))
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*[!m]")}  # shared memory
    history = bl.History(tmp_path, reading=True)
    audits = {"none": 0, "version 1": 6}.get(begin, 1)
    assert len(history.audits()) == audits
    assert bool(history.measured()) == bool(audits)
    with pytest.raises(FileError, match="may only be read"):
        history.say("note", "m", RULE, "x", "Ada")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*[!m]")} == before


@pytest.mark.parametrize("changes", [False, True])
def test_a_log_without_its_shared_memory_is_passed_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: bool
) -> None:
    audited(bl.History(tmp_path))
    log = tmp_path / "bilens.db-wal"
    with closing(sqlite3.connect(tmp_path / "bilens.db")) as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        left = log.read_bytes()  # as after a crash
    log.write_bytes(left if changes else b"")
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    if changes:
        with pytest.raises(FileError, match="copy the folder to such a place"):
            bl.History(tmp_path, reading=True)
    else:
        assert len(bl.History(tmp_path, reading=True).audits()) == 1
    assert {path.name for path in tmp_path.iterdir()} == before


IDENTITY = Identity("a" * 64, "read", "data", "", "options")


def audited_as(history: bl.History, name: str, identity: Identity) -> None:
    record = audit_of(history.folder / name).record
    history.add(replace(record, reproduce=replace(record.reproduce, identity=identity)))


def test_an_unchanged_copy_inherits_an_acceptance_and_says_whose(history: bl.History) -> None:
    audited_as(history, "m", IDENTITY)
    audited_as(history, "copy", IDENTITY)
    for rule in (RULE, "rule:decision"):
        history.say("accept", "m", rule, "known", "Ada", until="2199-03-31")
    assert {*history.accepted("copy")} == {"trigger", "decision"}
    assert {*history.accepted("copy", date(2199, 4, 1))} == set()
    people = history.people("copy", IDENTITY)
    record = replace(audit_of(history.folder / "copy").record, people=people)
    record = replace(record, reproduce=replace(record.reproduce, identity=IDENTITY))
    for lang, words in (("en", "unchanged copy of m"), ("ja", "同じ複製")):
        t = load_catalogue(lang)
        assert len([line for line in judged_lines(t, record) if words in line]) == 2
        said = t("decision.inherited", author="Ada", day=now()[:10], model="m")
        until = f"{said}{t('sentence.gap')}{t('decision.until', until='2199-03-31')}"
        assert until in dict(looked_lines(t, record))[t("decision.accepted_by")]
    history.say("accept", "m", "rule:decision", "known", "Ada")  # on itself, and without an end
    record = replace(audit_of(history.folder / "m").record, people=history.people("m", IDENTITY))
    record = replace(record, reproduce=replace(record.reproduce, identity=IDENTITY))
    t = load_catalogue("en")
    said = f"Accepted already by Ada on {now()[:10]}. It has no end."
    assert said in dict(looked_lines(t, record))[t("decision.accepted_by")]
    # the last word on the copy itself counts, and so does one that takes the acceptance back
    history.say("reject", "copy", RULE, "no", "Kei")
    assert {*history.accepted("copy")} == {"decision"}
    history.say("withdraw", "m", "rule:decision", "", "Kei")
    assert history.accepted("copy") == {}


def test_a_copy_that_is_compared_with_what_was_accepted_inherits_too(history: bl.History) -> None:
    """Beside an unchanged copy of itself: its reading and the baseline's are one."""
    beside_itself = replace(IDENTITY, baseline=IDENTITY.reading)
    audited_as(history, "m", IDENTITY)
    audited_as(history, "copy", beside_itself)
    history.say("accept", "m", "rule:decision", "known", "Ada")
    assert {*history.accepted("copy")} == {"decision"}
    people = history.people("copy", beside_itself)
    assert people is not None
    other = replace(IDENTITY, baseline="b" * 64)
    audited_as(history, "other", other)
    assert history.accepted("other") == {}
    # seen red: what was accepted beside another model held beside a copy
    assert not other.holds_for(beside_itself)
    assert not other.holds_for(IDENTITY)
    assert beside_itself.holds_for(IDENTITY)


def test_the_last_word_on_any_unchanged_copy_counts(history: bl.History) -> None:
    """Broken once: rejected under one name, it was accepted under another."""
    for name in ("a", "b", "c"):
        audited_as(history, name, IDENTITY)
    history.say("accept", "a", "rule:decision", "known", "Ada")
    assert {*history.accepted("c")} == {"decision"}
    history.say("reject", "b", "rule:decision", "malware", "Bob")
    assert history.accepted("c") == {}
    assert {*history.accepted("a")} == {"decision"}  # of which nothing else was said


@pytest.mark.parametrize("part", ["weights", "data", "reading", "options"])
def test_what_is_no_unchanged_copy_inherits_nothing(part: str, history: bl.History) -> None:
    other = replace(IDENTITY, **{part: "another"})
    audited_as(history, "m", IDENTITY)
    audited_as(history, "copy", other)
    history.say("accept", "m", RULE, "known", "Ada")
    assert history.accepted("copy") == {}
    assert history.people("copy", other) is None


def test_a_model_that_nobody_can_accept_is_accepted_by_nobody(history: bl.History) -> None:
    audited(history, document=failed())
    assert history.audits("m")[0].answer == "cannot_judge"
    with pytest.raises(UsageError, match="cannot_judge, and nobody can accept it"):
        history.say("accept", "m", "rule:decision", "trust me", "Ada")
    with pytest.raises(UsageError, match="never audited"):
        history.say("accept", "unknown", "rule:decision", "trust me", "Ada")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"activation": "relu"}, "elsewhere"),
        ({"activation": "gelu", "roles": {"down": "0.weight", "up": "2.weight"}}, "elsewhere"),
        ({"activation": "gelu", "roles": {"down": "2.weight", "up": "0.weight"}}, "better"),
    ],
)
def test_a_model_that_is_read_otherwise_is_neither_better_nor_worse(
    history: bl.History, asked: dict[str, Any], expected: str
) -> None:
    """Seen red: with another activation, R² was called worse; a retrained model is compared."""
    path, roles = history.folder / "m.safetensors", {"up": "0.weight", "down": "2.weight"}
    found = []
    for width, how in ((12, {"activation": "gelu", "roles": roles}), (16, asked)):
        torch.manual_seed(width)
        shapes = {"0.weight": (width, 9), "2.weight": (9, width)}
        save_file({name: torch.randn(shape) for name, shape in shapes.items()}, path)
        record = bl.audit(
            bl.load(path, transposed=False, **how), null_samples=tiny.ROTATIONS
        ).record
        found.append(history.add(record))
    before, now = found
    judged = {"r2": Measured(1, "r2", "info", 0.5, asked=False)}
    last = {"r2": Measured(2, "r2", "info", 0.6, asked=False)}
    assert [one.direction for one in changes(before, judged, now, last)] == [expected]
