"""The history of a folder: every audit, and what people said, in one SQLite file beside the models.

Models and reports stay where they are. `bilens.db` holds what could not be made again: when a
model was audited and how that ended, and who accepted which finding until when. It is only added
to. Each call opens the file for itself, so threads and processes may share a folder.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args
from unicodedata import category

from msgspec import structs

from bilens.api.history_file import (
    LONGEST_CELL,
    NAME,
    AnyRecord,
    HistoryFile,
    day_of,
    insert,
    insert_measured,
    record_of,
    unpack_document,
)
from bilens.base.errors import CheckpointError, FileError, UsageError
from bilens.base.files import check_path
from bilens.findings.rules.decision import ACCEPTED_BY, decide, decision_of, passed
from bilens.findings.rules.judgements import (
    RULE,
    WHOLE,
    AuditedModel,
    failed_rules,
    judgements,
    may_be_said,
    words_on,
)
from bilens.io.remote import address_in
from bilens.records.audit import Audit
from bilens.records.base import LOST, UNPRINTABLE, Record, json_text, to_json
from bilens.records.common import Identity
from bilens.records.history import UNNAMED, Action, Entry, Measured, PastAudit, People

LONGEST = {"author": 100, "subject": 200, "text": 4000}  # characters
# letters that are drawn as nothing, beside those that format a text (Cf); and what was no text
UNSEEN = re.compile(f"[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0{LOST}]")
DAYS = """
    SELECT substr(date, 1, 10) FROM audits UNION SELECT substr(date, 1, 10) FROM entries
    UNION SELECT day FROM days
"""
ENDED = "SELECT count(*) FROM entries WHERE until >= ? AND until < ?"
TABLES: dict[type[Record], str] = {
    PastAudit: "audits",
    Entry: "entries",
    Measured: "measured JOIN audits ON audit = number",
}


class History:
    """Audits of the models of a folder, and what people said of them.

    Args:
        folder: of the models; its `bilens.db` is made where there is none.
        reading: open it also where nothing may be written; without a file, it is empty there.
        writing: whether something may be written; else it is read as if nothing might.

    Raises:
        CheckpointError: If the file is no history, damaged, or of a later version.
        FileError: If it cannot be read or written.
    """

    def __init__(self, folder: str | Path, *, reading: bool = False, writing: bool = True) -> None:
        given = check_path("folder", folder)
        if not given.is_dir():
            raise FileError(f"{given}: is no folder; a history lies in one that is there.")
        self.given = absolute(given)
        self.folder = given.resolve()
        self.path = self.folder / NAME
        places = [self.folder, *([self.path] if self.path.exists() else [])]
        allowed = not reading or all(os.access(one, os.W_OK) for one in places)
        self.writable = writing and allowed
        self._file = HistoryFile(self.path, self.writable)
        self.last()

    def __repr__(self) -> str:
        return f"History({str(self.folder)!r})"

    def name_of(self, model: str | Path) -> str:
        """Return how the history names a model at a path.

        Its path from the folder where it lies in it, by a link too; else the path without links, or
        its address. A model from memory has no path.
        """
        if not str(model):
            return UNNAMED
        if address := address_in(model):
            return address
        path = absolute(model)
        real = path.resolve()
        for place, folder in ((path, self.given), (path, self.folder), (real, self.folder)):
            if place.is_relative_to(folder):
                return place.relative_to(folder).as_posix()
        return str(real)

    def add(self, record: Audit) -> PastAudit:
        """Record an audit, with its whole document; it is on the disk when this returns.

        What people said is kept by itself, and not again in the document.
        """
        record = structs.replace(record, people=None)
        found = {
            "model": self.name_of(record.source.path),
            "kind": record.read_as,
            "date": now(),
            "version": record.reproduce.versions.get("bilens", ""),
            "weights_sha256": record.source.weights_sha256,
            "data_sha256": "" if record.data is None else record.data.sha256,
            "command": record.reproduce.command,
            "answer": decision_of(record).answer,
            "passed": record.passed,
            "failed": json.dumps(failed_rules(record)),
            "identity": kept_identity(record.reproduce.identity),
            "files": json.dumps([*record.source.files.items()]),
        }
        document = to_json(record)
        packed = zlib.compress(json_text(document).encode())
        with self._file.writing() as database:
            number = insert(database, "audits", {**found, "document": packed})
            assert number is not None, "nothing forbids it"
            insert_measured(database, number, document)
        return record_of(PastAudit, [number, *found.values()])

    def audits(self, model: str | None = None, after: int = 0) -> list[PastAudit]:
        """Return the audits behind a number, of all models or of one, the last one first."""
        return self._records(PastAudit, model, after)

    def measured(self, model: str | None = None, after: int = 0) -> list[Measured]:
        """Return the numbers of all rules in the audits behind a number, the last audit first."""
        return self._records(Measured, model, after)

    def last(self) -> tuple[int, int]:
        """Return the numbers of the last audit and the last entry, 0 where there is none."""
        with self._file.opened() as database:
            query = "SELECT (SELECT max(number) FROM audits), (SELECT max(number) FROM entries)"
            audit, entry = database.execute(query).fetchone()
        return audit or 0, entry or 0

    def today(self) -> str:
        """Return the day by which acceptances end, year-month-day in UTC.

        It is never before the last day on which something was recorded, or on which an acceptance
        was seen to have ended, which is recorded then: a clock that is put back revives nothing.
        """
        with self._file.opened() as database:
            last = max((day_of(day) for (day,) in database.execute(DAYS)), default="")
            day = max(now()[:10], last)
            (ended,) = database.execute(ENDED, (last, day)).fetchone()
        if ended and self.writable:
            with self._file.writing() as database:
                database.execute("INSERT OR IGNORE INTO days VALUES (?)", (day,))
        return day

    def document(self, number: int) -> dict[str, Any]:
        """Return the document of an audit as JSON values.

        Raises:
            UsageError: If there is no audit of this number.
        """
        with self._file.opened() as database:
            row = database.execute("SELECT document FROM audits WHERE number = ?", (number,))
            found = row.fetchone()
        if found is None:
            raise UsageError(f"{self.path} has no audit {number}: `audits()` lists them.")
        try:
            return unpack_document(found[0])
        except ValueError as error:
            raise CheckpointError(f"{self.path}: the document of audit {number} {error}.") from None

    def say(
        self,
        action: Action,
        model: str | Path,
        subject: str,
        text: str,
        author: str,
        until: str | None = None,
        after: int | None = None,
        weights: str | None = None,
        known_by: str = "",
        audit: int | None = None,
    ) -> Entry:
        """Add a label, a note, or that a finding is accepted, rejected or open again.

        Args:
            action: "label", "note", "accept", "reject" or "withdraw".
            model: its name in the history, or its path as a `Path`.
            subject: what it is about: "rule:trigger", "class:3:positive:0", "column:age"; of an
                acceptance and a rejection, a rule, or "rule:decision", the model as such.
                "withdraw" takes back either, or a label.
            text: the label, the note, or the reason, which acceptance and rejection need.
            author: who says it.
            until: of an acceptance, the last day on which it holds, year-month-day: for the same
                weights, reading, data, baseline and options, and a value that is no worse.
            after: number of the last entry on the subject that the author has read, 0 for none; a
                later one refuses this one. None: nothing does.
            weights: SHA-256 of those that a label is of. None: of those that were audited last.
            known_by: header in which a proxy named the author; empty where they did it themselves.
            audit: number of the last audit of the model, which the author has read; a later one
                refuses this one. None: nothing does.

        Returns:
            The entry; it is on the disk when this returns.

        Raises:
            UsageError: If an argument is none of these, empty or too long, or something was said
                of the subject after `after`, or another audit than `audit` is the last one.
        """
        given = checked_texts(action, {"author": author, "subject": subject, "text": text})
        check_author(author, given["author"], known_by)
        check_scope(action, until, weights, self.today())
        name = self.name_of(model) if isinstance(model, Path) else check_name(model)
        last, audited = self._last(name)
        if audit is not None and audit != (0 if last is None else last.number):
            raise UsageError(
                f"audit {audit} is not the last one of {name}: read that, and say it of that one."
            )
        if action == "accept" and given["subject"] == RULE + WHOLE:
            check_acceptable(name, last)
        ended = audited.rules.get(given["subject"].removeprefix(RULE), ("", None))
        found = {
            "date": now(),
            "author": given["author"],
            "action": action,
            "model": name,
            "weights_sha256": weights or ("" if last is None else last.weights_sha256),
            "subject": given["subject"],
            "text": given["text"],
            "until": until,
            "identity": kept_identity(audited.identity),
            "outcome": ended[0],
            "value": ended[1],
            "known_by": known_by,
        }
        with self._file.writing() as database:
            number = insert(database, "entries", found, after, audit)
        if number is None:
            raise UsageError(
                f"something was said of {given['subject']} since, or {name} was audited: read it "
                "first."
            )
        return record_of(Entry, [number, *found.values()])

    def entries(self, model: str | None = None, after: int = 0) -> list[Entry]:
        """Return the entries behind a number, of all models or of one, the last one first."""
        return self._records(Entry, model, after)

    def accepted(self, model: str, today: date | None = None) -> dict[str, Entry]:
        """Return the rules of a model whose findings are accepted now, each with who did.

        An acceptance ends with its last day and with a later word on its rule. It is of the audit
        that was the last one then: of another one it counts for nothing where anything in its
        identity is another (weights, reading, data, baseline, options), or the value is worse. Of
        another model with the same identity, an unchanged copy, it counts as well.
        """
        day = self.today() if today is None else today.isoformat()
        standing = judgements(self.entries(), self._last(model)[1], day, model)
        held = "accepted", "inherited"
        return {rule: entry for rule, (entry, how) in standing.items() if how in held}

    def _last(self, model: str) -> tuple[PastAudit | None, AuditedModel]:
        """Return the last audit of a model, and what acceptances are held against in it."""
        last = next(iter(self.audits(model)), None)
        measured = [] if last is None else self.measured(model, after=last.number - 1)
        return last, AuditedModel.of_past(last, {one.rule: one for one in measured})

    def people(self, model: str, identity: Identity | None = None) -> People | None:
        """Return the entries on a model until today, for its report; None without any.

        `identity` is of its audit: what was judged of others with the same one is there, too.
        """
        entries = words_on(self.entries(), model, identity)
        return People(self.today(), entries, model) if entries else None

    def still_fails(self, record: Audit, rules: Collection[str]) -> bool:
        """Return whether an audit would fail without what is accepted: decided anew."""
        verdict = tuple(one for one in record.verdict if one.rule not in rules)
        asked = tuple(one for one in record.conditions or () if one.rule not in rules)
        left = decide(record.read_as, verdict, record.coverage, asked, record.performance)
        return record.passed is False and passed(left, verdict, record.coverage) is False

    def _records(self, kind: type[AnyRecord], model: str | None, after: int) -> list[AnyRecord]:
        sealed = {"unread": "seal"}  # `Measured` has neither
        number, *others = [sealed.get(one, one) for one in kind.__struct_fields__]
        where, values = ("", [after]) if model is None else (" AND model = ?", [after, model])
        bounded = (
            f"iif(length(CAST({one} AS BLOB)) > {LONGEST_CELL}, x'', {one})" for one in others
        )
        query = (
            f"SELECT {number}, {', '.join(bounded)} FROM {TABLES[kind]} "  # noqa: S608 - names of this file
            f"WHERE {number} > ?{where} ORDER BY {number} DESC"
        )
        with self._file.opened() as database:
            rows = database.execute(query, values).fetchall()
        return [record_of(kind, row) for row in rows]


def absolute(path: str | Path) -> Path:
    """Return a path from the root, links kept."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` follows links


def kept_identity(identity: Identity | None) -> str | None:
    return None if identity is None else json_text(identity)


def now() -> str:
    """Return the time of now in UTC, as histories write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_name(model: object) -> str:
    if not isinstance(model, str) or not model or UNPRINTABLE.search(model):
        raise UsageError(f"model is {model!r:.80}; expected its name in the history, or a Path.")
    return model


def checked_texts(action: Action, given: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of an entry without letters that nobody sees; refuse what cannot be said."""
    if action not in get_args(Action):
        raise UsageError(f"action is {action!r}; expected one of {', '.join(get_args(Action))}.")
    found = {}
    for name, value in given.items():
        if not isinstance(value, str) or len(value) > LONGEST[name]:
            raise UsageError(f"{name} is no text of at most {LONGEST[name]} characters.")
        seen = (each for each in UNPRINTABLE.sub(" ", value) if category(each) != "Cf")
        found[name] = "".join(seen).strip()
    needed = ("author", "subject") if action == "withdraw" else ("author", "subject", "text")
    if empty := [name for name in needed if not found[name]]:
        raise UsageError(f"{' and '.join(empty)} must not be empty: say who, of what and why.")
    if not may_be_said(action, found["subject"]):
        raise UsageError(
            f"subject is {found['subject']!r:.80}; expected a rule, as rule:trigger "
            "(docs/history.md)."
        )
    return found


def check_author(given: str, seen: str, known_by: str) -> None:
    """Refuse a name that would be drawn as another one; a proxy's is never altered at all."""
    plain = given == " ".join(seen.split()) if known_by else given.strip() == seen
    if not plain or UNSEEN.search(given):
        raise UsageError(
            f"author is {given!a}, with letters that nobody sees: it would read as the name "
            "of somebody else; sign in, or write it, without them."
        )


def check_acceptable(model: str, last: PastAudit | None) -> None:
    """Refuse to accept a model as such that nobody can accept by its last audit."""
    answer = "never audited" if last is None else last.answer
    if ACCEPTED_BY.get(answer) is None:
        raise UsageError(
            f"{model} is {answer}, and nobody can accept it as it is: settle its risks, and audit "
            "it again."
        )


def check_scope(action: str, until: str | None, weights: str | None, today: str) -> None:
    """Refuse weights of anything but a label, and a last day that no acceptance can have."""
    if weights is not None and action != "label":
        raise UsageError("weights are said of a label alone.")
    if until is None:
        return
    if action != "accept":
        raise UsageError(f"until is of an acceptance; the action is {action!r}: leave it out.")
    if day_of(until) != until or until < today:
        raise UsageError(
            f"until is {until!r}; expected a day from today on, as 2027-03-31 "
            f"(today is {today}, by clock and history)."
        )
