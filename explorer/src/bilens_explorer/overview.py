"""The history of a folder by model, and the row of each model on the first page.

A history is only added to, so what is new alone is read again.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from bilens import History
from bilens.findings import AuditedModel, changes, judgements, rules_asked_for
from bilens.records import Entry, Measured, PastAudit
from bilens_explorer.inside import cut_paths
from bilens_explorer.records.models import ModelRow, Overview, ReportRow, id_of
from bilens_explorer.walk import FolderContents

SHOWN = 20  # audits in a row's lines
SEVERITY = ("do_not_use", "cannot_judge", "not_read", "conditions", "use")
WATCHED = ("accuracy", "r_squared", "coverage", "r2")  # at first, the first that is there
Kept = TypeVar("Kept", bound=PastAudit | Entry)


@dataclass(frozen=True, eq=False)
class Past:
    """Audits and entries by model, the last one first."""

    file: tuple[int, int] = (0, 0)  # device and number of the history's file
    last: tuple[int, int] = (0, 0)  # numbers of the last audit and the last entry
    audits: Mapping[str, tuple[PastAudit, ...]] = field(default_factory=dict)
    entries: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    measured: Mapping[int, Mapping[str, Measured]] = field(default_factory=dict)  # audit, rule
    # of the last audit of each model, with the places that it names, which are not told
    commands: Mapping[str, str] = field(default_factory=dict)

    def read_on(self, history: History) -> Past:
        """Read the audits and entries that were added; return itself where there were none."""
        last, file = history.last(), file_of(history)
        if (last, file) == (self.last, self.file):
            return self
        grown = all(new >= old for new, old in zip(last, self.last, strict=True))
        known = self if file == self.file and grown else Past()
        new = history.audits(after=known.last[0])
        audits = [cut_paths(one, history.folder) for one in new]
        entries = history.entries(after=known.last[1])
        measured: dict[int, dict[str, Measured]] = {}
        for one in history.measured(after=known.last[0]):
            measured.setdefault(one.audit, {})[one.rule] = one
        return Past(
            file=file,
            last=(newest(audits, known.last[0]), newest(entries, known.last[1])),
            audits=added(known.audits, audits),
            entries=added(known.entries, entries),
            measured={**known.measured, **measured},
            commands={**known.commands, **{one.model: one.command for one in reversed(new)}},
        )

    def of_models(self, names: Iterable[str]) -> Past:
        """Return the past of these models alone."""
        known = [*names]
        return replace(
            self,
            audits={name: self.audits[name] for name in known if name in self.audits},
            entries={name: self.entries[name] for name in known if name in self.entries},
        )


def file_of(history: History) -> tuple[int, int]:
    """Return which file it is: one that was put in its place is read anew."""
    try:
        found = history.path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def newest(rows: Sequence[PastAudit | Entry], before: int) -> int:
    return max((row.number for row in rows), default=before)


def added(known: Mapping[str, tuple[Kept, ...]], rows: list[Kept]) -> dict[str, tuple[Kept, ...]]:
    """Return rows by model, the last one first, with new ones before those that are known."""
    new = defaultdict[str, list[Kept]](list)
    for row in rows:
        new[row.model].append(row)
    return {**known, **{name: (*found, *known.get(name, ())) for name, found in new.items()}}


@lru_cache(maxsize=4)
def overview_of(
    folder: str,
    writable: bool,
    found: FolderContents,
    past: Past,
    watch: str,
    today: date,
    changed: frozenset[str] = frozenset(),
) -> Overview:
    """Return all models, the worst first, and all reports."""
    rules = watchable(past)
    watched = next((rule for rule in (watch, *WATCHED, *rules) if rule in rules), "")
    known = {id_of(name): name for name in past.audits} | {
        key: found.names[key] for key in found.models
    }
    rows = [
        row_of(key, name, key in found.models, past, watched, today, changed=key in changed)
        for key, name in known.items()
    ]
    return Overview(
        folder=folder,
        models=tuple(sorted(rows, key=severity)),
        reports=reports_of(found),
        truncated=found.truncated,
        watched=watched,
        watchable=rules,
        writable=writable,
        digest=digest(found.compared_parts, past.file, past.last, today, sorted(changed)),
    )


def reports_of(found: FolderContents, folder: Path | None = None) -> tuple[ReportRow, ...]:
    """Return all reports by name, or those in the folder of a model."""
    listed = sorted(found.reports.items(), key=lambda item: found.names[item[0]])
    return tuple(
        ReportRow(key, found.names[key], kind)
        for key, (path, kind) in listed
        if folder in (None, path.parent)
    )


def row_of(
    key: str, name: str, there: bool, past: Past, watched: str, today: date, *, changed: bool
) -> ModelRow:
    audits = past.audits.get(name, ())
    shown = audits[:SHOWN]
    judged = [past.measured.get(one.number, {}) for one in shown]
    moved = changes(shown[1], judged[1], shown[0], judged[0]) if len(shown) > 1 else ()
    last = audits[0] if audits and not changed else None
    audited = AuditedModel() if last is None else AuditedModel.of_past(last, judged[0])
    standing = judgements(past.entries.get(name, ()), audited, today.isoformat())
    numbers = (one[watched].value if watched in one else None for one in reversed(judged))
    return ModelRow(
        id=key,
        name=name,
        there=there,
        audits=len(audits),
        last=audits[0] if audits else None,
        changes=moved,
        failures=tuple(len(one.failed) for one in reversed(shown)),
        numbers=tuple(numbers),
        accepted=tuple(sorted(rule for rule, (_, how) in standing.items() if how == "accepted")),
        changed=changed,
    )


def severity(row: ModelRow) -> tuple[bool, int, int, str]:
    """Return the sort key of a model: changed first, then by severity, never audited last."""
    if row.last is None or row.changed:
        return not row.changed, -1, 0, row.name
    failed = {*row.last.failed} - {*row.accepted}
    return False, SEVERITY.index(row.last.answer), -len(failed), row.name


def watchable(past: Past) -> tuple[str, ...]:
    """Return the rules that measured a number in the last audit of any model."""
    found = {
        rule
        for audits in past.audits.values()
        for rule, one in past.measured.get(audits[0].number, {}).items()
        if one.value is not None
    }
    return tuple(rule for rule in rules_asked_for() if rule in found)


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
