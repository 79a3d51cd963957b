"""The file of a history: how it is opened, whose it is, how it came to this version, its rows."""

import hashlib
import json
import math
import os
import re
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from filelock import FileLock, Timeout

from bilens.base.errors import CheckpointError, FileError
from bilens.base.files import parse_object
from bilens.findings.rules.judgements import may_be_said, measure_rules
from bilens.records.common import Finding, JudgedCondition
from bilens.records.history import EARLIER_KINDS, UNKNOWN, Entry, Measured, PastAudit

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
        model TEXT NOT NULL, weights_sha256 TEXT NOT NULL, subject TEXT NOT NULL,
        text TEXT NOT NULL, until TEXT
    );
    CREATE INDEX entries_of ON entries (model, number);
    CREATE TRIGGER audits_stay BEFORE UPDATE ON audits BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    CREATE TRIGGER audits_kept BEFORE DELETE ON audits BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    CREATE TRIGGER entries_kept BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    """,
    """
    CREATE TABLE measured (
        audit INTEGER NOT NULL REFERENCES audits, rule TEXT NOT NULL, outcome TEXT NOT NULL,
        value REAL, asked INTEGER NOT NULL, PRIMARY KEY (audit, rule)
    ) WITHOUT ROWID;
    CREATE TRIGGER numbers_stay BEFORE UPDATE ON measured BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    CREATE TRIGGER numbers_kept BEFORE DELETE ON measured BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    """,
    """
    ALTER TABLE audits ADD COLUMN identity TEXT;
    ALTER TABLE audits ADD COLUMN files TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE entries ADD COLUMN identity TEXT;
    ALTER TABLE entries ADD COLUMN outcome TEXT NOT NULL DEFAULT '';
    ALTER TABLE entries ADD COLUMN value REAL;
    """,
    "ALTER TABLE entries ADD COLUMN known_by TEXT NOT NULL DEFAULT '';",
    """
    CREATE TABLE days (day TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TRIGGER days_stay BEFORE UPDATE ON days BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    CREATE TRIGGER days_kept BEFORE DELETE ON days BEGIN SELECT RAISE(ABORT, 'is kept'); END;
    """,  # on which an acceptance was first seen to have ended
    """
    ALTER TABLE audits ADD COLUMN seal TEXT NOT NULL DEFAULT '';
    ALTER TABLE entries ADD COLUMN seal TEXT NOT NULL DEFAULT '';
    """,  # a hash of the row; empty of an earlier version
)
MEASURED = 2  # the version that fills `measured` from the documents of earlier ones
WAIT = 10.0  # seconds, for another writer
DAY = re.compile(r"\d{4}-\d\d-\d\d")
LARGEST = 1 << 25  # bytes of a document, which packs a thousandfold where somebody wants it to

LONGEST_CELL = 1 << 20  # bytes in a column of a row
ENDLESS = (1 << 63) - 1  # the largest number of a row
AnyRecord = TypeVar("AnyRecord", PastAudit, Entry, Measured)
KEPT = {"model", "date", "subject", "rule"}  # of a row that cannot be read: of what it is
TEXTS = (
    "kind",
    "date",
    "version",
    "weights_sha256",
    "data_sha256",
    "command",
    "author",
    "rule",
    "known_by",
)
UNREAD: dict[str, Any] = dict.fromkeys((*TEXTS, "text", "outcome"), "") | {
    **dict.fromkeys(("passed", "value", "until")),
    "model": UNKNOWN,
    "answer": "cannot_judge",
    "failed": (),
    "asked": False,
    "unread": True,
    "action": "withdraw",
    "subject": "model",  # nothing stays accepted by an unknown word
}


class HistoryFile:
    """The file, which each call opens for itself; it is made where there is none and may be."""

    def __init__(self, path: Path, writable: bool) -> None:
        self.path, self.writable = path, writable
        if writable:
            self._migrate()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        if not self.writable:
            raise FileError(f"{self.path}: may only be read, so nothing can be said or kept there.")
        with self.opened() as database, database:
            yield database

    @contextmanager
    def opened(self, checked: bool = True, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise foreign(self.path, "it is a link or no file")
        if mode == "rw" and self.writable and not self.path.exists():
            raise FileError(f"{self.path}: is gone: put it back, or begin a new history.")
        try:
            with closing(self._connected(mode) if self.writable else self._read()) as database:
                if checked:
                    check_owner(self.path, database)
                database.execute("PRAGMA synchronous = FULL")  # confirmed is on the disk
                database.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
                yield database
        except sqlite3.OperationalError as error:
            raise FileError(
                f"{self.path}: cannot be read or written ({error}): check the folder's permissions "
                "and free space, or that nothing else holds it for long."
            ) from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # of damaged words of SQL
            raise foreign(self.path, str(error)) from None

    def _connected(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.as_uri()}?mode={mode}", timeout=WAIT, uri=True)

    def _read(self) -> sqlite3.Connection:
        """Return the file where it may not be written; in memory if none or an earlier one."""
        found = sqlite3.connect(":memory:")
        if self.path.exists():
            # Without a log beside it nobody writes, and SQLite need not make one to read.
            log, shared = (self.path.with_name(f"{NAME}-{end}") for end in ("wal", "shm"))
            held = log.exists() and (shared.exists() or size_of(log) > 0)
            if held and not shared.exists() and not os.access(self.path.parent, os.W_OK):
                raise FileError(
                    f"{self.path}: its last changes lie in {log.name}, which can only be read where"
                    " the folder may be written: copy the folder to such a place and open it there."
                )
            source = self._connected("ro" if held else "ro&immutable=1")
            if check_owner(self.path, source, exactly=False) == len(MIGRATIONS):
                return source
            with closing(source):
                source.backup(found)
        migrate(self.path, found)
        return found

    def _migrate(self) -> None:
        """Bring the file to this version; one process does, and others wait for it."""
        lock = FileLock(self.path.parent / f".{NAME}.lock", timeout=WAIT)
        try:
            with lock, self.opened(checked=False, mode="rwc") as database:
                migrate(self.path, database)
        except (OSError, Timeout) as error:
            told = f"{self.path}: cannot be made or opened ({error}): choose another folder."
            raise FileError(told) from None


def size_of(log: Path) -> int:
    """Return the bytes of a log, which who wrote last takes away at any moment."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def check_owner(path: Path, database: sqlite3.Connection, exactly: bool = True) -> int:
    """Return the version of a history; refuse a file of another program or of a later version."""
    (owner,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    query = "SELECT count(*), total(type = 'view') FROM sqlite_master"
    tables, views = database.execute(query).fetchone()
    if views or (owner != APPLICATION and (tables or exactly)):  # a view may have endless rows
        raise foreign(path, "its tables are of another program")
    if not 0 <= version <= len(MIGRATIONS) or (exactly and version != len(MIGRATIONS)):
        raise CheckpointError(
            f"{path}: is of version {version}; this release reads up to {len(MIGRATIONS)}: use the "
            "release of bilens that wrote it."
        )
    return int(version)


def migrate(path: Path, database: sqlite3.Connection) -> None:
    """Bring a history to this version, whole or not at all."""
    version = check_owner(path, database, exactly=False)
    if version == len(MIGRATIONS):
        return
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("BEGIN IMMEDIATE")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        for statement in statements(script):
            database.execute(statement)
        if number == MEASURED:
            for audit, packed in database.execute("SELECT number, document FROM audits"):
                with suppress(ValueError, TypeError, LookupError, msgspec.MsgspecError):
                    insert_measured(database, audit, unpack_document(packed))
    database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    database.execute("COMMIT")


def insert(
    database: sqlite3.Connection,
    table: str,
    row: Mapping[str, object],
    after: int | None = None,
    audit: int | None = None,
) -> int | None:
    """Return the number of a new row, which is sealed.

    None where its subject has one after `after`, or its model an audit after `audit`.
    """
    database.execute("BEGIN IMMEDIATE")  # so that the number stays the next one
    (last,) = database.execute(f"SELECT max(number) FROM {table}").fetchone()  # noqa: S608 - as below
    if last == ENDLESS:
        raise sqlite3.DatabaseError("its last row is damaged")
    row = {"number": (last or 0) + 1, **row}
    row["seal"] = seal_of([one for one in row.values() if not isinstance(one, bytes)])
    marks = ", ".join("?" * len(row))
    query = f"INSERT INTO {table} ({', '.join(row)}) SELECT {marks}"  # names of this package
    query += " WHERE NOT EXISTS (SELECT 1 FROM entries WHERE model = ? AND subject = ?"
    query += " AND number > ?) AND NOT EXISTS (SELECT 1 FROM audits WHERE model = ? AND number > ?)"
    said, audited = (ENDLESS if one is None else one for one in (after, audit))
    model = row["model"]
    values = [*row.values(), model, row.get("subject"), said, model, audited]
    made = database.execute(query, values)
    return made.lastrowid if made.rowcount else None


def seal_of(row: Sequence[object]) -> str:
    """Return a hash of the cells of a row, by which a damaged one is told."""
    plain = [int(one) if isinstance(one, bool) else one for one in row]
    return hashlib.sha256(json.dumps(plain, default=repr).encode()).hexdigest()


def unpack_document(packed: bytes) -> dict[str, Any]:
    """Return the document of an audit; ValueError where its row is damaged or holds too much."""
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(packed, LARGEST)
    except (zlib.error, TypeError) as error:
        raise ValueError(f"cannot be unpacked ({error})") from None
    if not reader.eof:
        raise ValueError(f"is cut off, or has more than {LARGEST:,} bytes")
    return parse_object(text)


def insert_measured(database: sqlite3.Connection, audit: int, document: Mapping[str, Any]) -> None:
    """Keep what each rule of a document measured: the number that conditions compare."""
    conditions = msgspec.convert(document.get("conditions") or (), tuple[JudgedCondition, ...])
    verdict = msgspec.convert(document["verdict"], tuple[Finding, ...])
    asked = {one.rule for one in conditions}
    read_as = document.get("read_as") or EARLIER_KINDS[document["kind"]]
    found = measure_rules(read_as, verdict, conditions)
    database.executemany(
        "INSERT INTO measured VALUES (?, ?, ?, ?, ?)",
        [(audit, rule, *what, rule in asked) for rule, what in found.items()],
    )


def record_of(kind: type[AnyRecord], row: Sequence[Any]) -> AnyRecord:
    """Return a row as a record, checked: the file may have been written by others.

    One that is damaged, or has words of a later release, is `unread`, and judges nothing. Behind
    its fields a row has its seal, if any.
    """
    found = dict(zip(kind.__struct_fields__, row, strict=False))
    is_sealed = (seal := found.pop("unread", "")) == seal_of(row[:-1])
    try:
        if seal != "" and not is_sealed:
            raise ValueError("not as it was written")
        if "failed" in found:
            found["failed"] = json.loads(found["failed"])
            found["passed"] = None if found["passed"] is None else bool(found["passed"])
        if kind is PastAudit:
            found["kind"] = EARLIER_KINDS.get(found["kind"], found["kind"])
        if "asked" in found:
            found["asked"] = bool(found["asked"])
        for name in {"identity", "files"} & found.keys():
            found[name] = None if found[name] is None else json.loads(found[name])
        if not math.isfinite(found.get("value") or 0.0):
            raise ValueError("no number of a rule")
        if (until := found.get("until")) and day_of(until) != until:  # compared as texts
            raise ValueError("no day")
        record = msgspec.convert(found, kind)
        if isinstance(record, Entry) and not may_be_said(record.action, record.subject):
            raise ValueError("no rule")
        msgspec.json.encode(record)  # halves of a character can be written nowhere
        return record
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError):
        unsure = {"model"} if kind is Entry and not is_sealed else set[str]()  # it ends all then
        kept = {one for one in (KEPT - unsure) & found.keys() if isinstance(found[one], str)}
        empty = {name: value for name, value in UNREAD.items() if name in kind.__struct_fields__}
        first = kind.__struct_fields__[0]
        return kind(**{first: row[0]} | empty | {name: shown(found[name]) for name in kept})


def shown(text: str) -> str:
    """Return a text with a mark in place of bytes that are none."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def day_of(text: object) -> str:
    """Return the day in the time of a row, year-month-day; empty where it holds none."""
    day = str(text)[:10]
    with suppress(ValueError):
        return day if DAY.fullmatch(day) and date.fromisoformat(day) else ""
    return ""


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; `executescript` would commit between them."""
    part = ""
    for line in script.splitlines():
        part += f"{line}\n"
        if sqlite3.complete_statement(part):
            yield part
            part = ""


def foreign(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: is no history of bilens ({why}): move it away, or name another folder."
    )
