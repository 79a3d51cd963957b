"""The history of a folder: every audit, and what people said, in one SQLite file beside the models.

Models and reports stay where they are. `bilens.db` holds what could not be made again: when a
model was audited and how that ended, and who accepted which finding until when. It is only added
to. Each call opens the file for itself, so threads and processes may share a folder.
"""

from __future__ import annotations

import json
import re
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

from bilens.base.errors import CheckpointError, FileError, UsageError
from bilens.base.files import check_path
from bilens.records.audit import Audit
from bilens.records.base import UNPRINTABLE, json_text
from bilens.records.history import Action, Entry, PastAudit
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.report.sections.decision import decision_of

NAME = "bilens.db"
APPLICATION = 0x62696C6E  # "biln", by which SQLite tells whose file it is
MIGRATIONS = (  # a script each; the number of those that were run is the file's user_version
    """
    CREATE TABLE audits (
        number INTEGER PRIMARY KEY, model TEXT NOT NULL, kind TEXT NOT NULL, date TEXT NOT NULL,
        version TEXT NOT NULL, weights_sha256 TEXT NOT NULL, data_sha256 TEXT NOT NULL,
        command TEXT NOT NULL, answer TEXT NOT NULL, passed INTEGER, failed TEXT NOT NULL,
        document BLOB NOT NULL
    );
    CREATE INDEX audits_of ON audits (model, number);
    CREATE TABLE entries (
        number INTEGER PRIMARY KEY, date TEXT NOT NULL, author TEXT NOT NULL, action TEXT NOT NULL,
        model TEXT NOT NULL, subject TEXT NOT NULL, text TEXT NOT NULL, until TEXT
    );
    CREATE INDEX entries_of ON entries (model, number);
    CREATE TRIGGER audits_stay BEFORE UPDATE ON audits BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    CREATE TRIGGER audits_kept BEFORE DELETE ON audits BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    CREATE TRIGGER entries_kept BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    """,
)
WAIT = 10.0  # seconds, for another writer
LONGEST = {"author": 100, "subject": 200, "text": 4000}  # characters
DAY = re.compile(r"\d{4}-\d\d-\d\d")
PAST = [name for name in PastAudit.__struct_fields__ if name != "number"]
SAID = [name for name in Entry.__struct_fields__ if name != "number"]


class History:
    """Audits of the models of a folder, and what people said of them.

    Args:
        folder: of the models; its `bilens.db` is made where there is none.

    Raises:
        CheckpointError: If the file is no history, damaged, or of a later version.
        FileError: If it cannot be read or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = check_path("folder", folder)
        if not self.folder.is_dir():
            raise FileError(f"{self.folder}: is no folder; a history lies in one that is there.")
        self.path = self.folder / NAME
        with self._opened() as database:
            self._migrate(database)

    def __repr__(self) -> str:
        return f"History({str(self.folder)!r})"

    def name_of(self, model: str | Path) -> str:
        """Return how the history names a model: its path from the folder, where it lies in it."""
        path, folder = Path(model).resolve(), self.folder.resolve()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(model)

    def add(self, record: Audit | LayerAudit | TableAudit) -> PastAudit:
        """Record an audit, with its whole document; it is on the disk when this returns."""
        found = {
            "model": self.name_of(record.source.path),
            "kind": record.kind,
            "date": now(),
            "version": record.reproduce.versions.get("bilens", ""),
            "weights_sha256": record.source.weights_sha256,
            "data_sha256": "" if record.data is None else record.data.sha256,
            "command": record.reproduce.command,
            "answer": decision_of(record).answer,
            "passed": record.passed,
            "failed": json.dumps(failed_rules(record)),
        }
        document = zlib.compress(json_text(record).encode())
        number = self._insert("audits", {**found, "document": document})
        return past([number, *found.values()])

    def audits(self, model: str | None = None) -> list[PastAudit]:
        """Return the audits, of all models or of one, the last one first."""
        return [past(row) for row in self._rows("audits", PAST, model)]

    def document(self, number: int) -> dict[str, Any]:
        """Return the document of an audit as JSON values.

        Raises:
            UsageError: If there is no audit of this number.
        """
        with self._opened() as database:
            row = database.execute("SELECT document FROM audits WHERE number = ?", (number,))
            found = row.fetchone()
        if found is None:
            raise UsageError(f"{self.path} has no audit {number}: `audits()` lists them.")
        values: dict[str, Any] = json.loads(zlib.decompress(found[0]))
        return values

    def say(
        self,
        action: Action,
        model: str | Path,
        subject: str,
        text: str,
        author: str,
        until: str | None = None,
    ) -> Entry:
        """Add a label, a note, or that a finding is accepted, rejected or open again.

        Args:
            action: "label", "note", "accept", "reject" or "withdraw".
            model: its path, or its name in the history.
            subject: what it is about: "rule:triggers", "class:3:positive:0", "column:age".
            text: the label, the note, or the reason, which acceptance and rejection need.
            author: who says it.
            until: of an acceptance, the last day on which it holds, year-month-day.

        Returns:
            The entry; it is on the disk when this returns.

        Raises:
            UsageError: If an argument is none of these, empty or too long.
        """
        if action not in get_args(Action):
            raise UsageError(
                f"action is {action!r}; expected one of {', '.join(get_args(Action))}."
            )
        given = {"author": author, "subject": subject, "text": text}
        for name, value in given.items():
            if not isinstance(value, str) or len(value) > LONGEST[name]:
                raise UsageError(f"{name} is no text of at most {LONGEST[name]} characters.")
            given[name] = UNPRINTABLE.sub(" ", value).strip()
        needed = ["author", "subject", *["text"] * (action != "withdraw")]
        if empty := [name for name in needed if not given[name]]:
            raise UsageError(f"{' and '.join(empty)} must not be empty: say who, of what and why.")
        if until is not None:
            check_day(action, until)
        found = {
            "date": now(),
            "author": given["author"],
            "action": action,
            "model": self.name_of(model),
            "subject": given["subject"],
            "text": given["text"],
            "until": until,
        }
        return Entry(self._insert("entries", found), **found)  # type: ignore[arg-type]

    def entries(self, model: str | None = None) -> list[Entry]:
        """Return what was said, of all models or of one, the last one first."""
        return [Entry(*row) for row in self._rows("entries", SAID, model)]

    def accepted(self, model: str, today: date | None = None) -> dict[str, Entry]:
        """Return the rules of a model whose findings are accepted now, each with who did."""
        day = (today or datetime.now(UTC).date()).isoformat()
        found: dict[str, Entry] = {}
        for entry in self.entries(model):  # the last one of a subject counts
            if entry.action in ("accept", "reject", "withdraw"):
                found.setdefault(entry.subject, entry)
        return {
            subject.removeprefix("rule:"): entry
            for subject, entry in found.items()
            if entry.action == "accept" and (entry.until is None or day <= entry.until)
        }

    def _rows(self, table: str, columns: list[str], model: str | None) -> list[tuple[Any, ...]]:
        where, values = ("WHERE model = ?", (model,)) if model is not None else ("", ())
        query = f"SELECT number, {', '.join(columns)} FROM {table} {where} ORDER BY number DESC"  # noqa: S608 - names of this file
        with self._opened() as database:
            return database.execute(query, values).fetchall()

    def _insert(self, table: str, row: dict[str, object]) -> int:
        marks = ", ".join("?" * len(row))
        query = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"  # noqa: S608 - names of this file
        with self._opened() as database, database:
            return int(database.execute(query, tuple(row.values())).lastrowid or 0)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=WAIT)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")  # confirmed is on the disk
                yield database
        except sqlite3.OperationalError as error:
            raise FileError(
                f"{self.path}: cannot be read or written ({error}): check the folder's permissions "
                "and free space, or that nothing else holds it for long."
            ) from None
        except sqlite3.DatabaseError as error:
            raise foreign(self.path, str(error)) from None

    def _migrate(self, database: sqlite3.Connection) -> None:
        """Bring the file to this version, in one transaction that another process waits for."""
        tables = "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
        database.execute("BEGIN IMMEDIATE")
        (owner,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if owner != APPLICATION and database.execute(tables).fetchone() != (0,):
            raise foreign(self.path, "its tables are of another program")
        if version > len(MIGRATIONS):
            raise CheckpointError(
                f"{self.path}: is of version {version}; this release reads up to "
                f"{len(MIGRATIONS)}: use the release of bilens that wrote it."
            )
        for script in MIGRATIONS[version:]:
            for statement in statements(script):
                database.execute(statement)
        if version < len(MIGRATIONS):
            database.execute(f"PRAGMA application_id = {APPLICATION}")
            database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        database.execute("COMMIT")


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; `executescript` would commit between them."""
    part = ""
    for line in script.splitlines():
        part += f"{line}\n"
        if sqlite3.complete_statement(part):
            yield part
            part = ""


def past(row: Sequence[Any]) -> PastAudit:
    found = dict(zip(("number", *PAST), row, strict=True))
    found["passed"] = None if found["passed"] is None else bool(found["passed"])
    return PastAudit(**{**found, "failed": tuple(json.loads(found["failed"]))})


def failed_rules(record: Audit | LayerAudit | TableAudit) -> tuple[str, ...]:
    """Return the rules that failed by themselves, and those of conditions that failed."""
    own = (finding.rule for finding in record.verdict if finding.outcome == "fail")
    asked = (item.rule for item in record.conditions or () if item.failed)
    return tuple(dict.fromkeys([*own, *asked]))


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_day(action: str, until: str) -> None:
    if action != "accept":
        raise UsageError(f"until is of an acceptance; the action is {action!r}: leave it out.")
    try:
        if DAY.fullmatch(until):
            date.fromisoformat(until)
            return
    except ValueError:
        pass
    raise UsageError(f"until is {until!r}; expected a day as 2027-03-31.")


def foreign(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: is no history of bilens ({why}): move it away, or name another folder."
    )
