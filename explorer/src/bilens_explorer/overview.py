"""The history of a folder by model, and the row of each model on the first page.

A history is only added to, so what is new alone is read again.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from bilens import History
from bilens.api import RegisterState, day_of
from bilens.findings import JUDGED, AuditedModel, changes, judgements
from bilens.records import UNKNOWN, Entry, Measured, ModelState, PastAudit
from bilens_explorer.inside import cut_paths
from bilens_explorer.records.models import (
    Approval,
    ModelRow,
    Overview,
    ReportRow,
    id_of,
)
from bilens_explorer.walk import FolderContents

SEVERITY = ("do_not_use", "cannot_judge", "not_read", "conditions", "use")
STATES: tuple[ModelState, ...] = ("changed", "unread", "audited", "never", "gone")
NEVER, GONE = RegisterState("never"), RegisterState("gone")
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
    # judgements, the last one first, by the weights that they are of
    judged: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    day: str = ""  # of the last audit or entry

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
        judged = [one for one in entries if one.action in JUDGED]
        dates = [*(one.date for one in audits), *(one.date for one in entries)]
        return Past(
            file=file,
            last=(newest(audits, known.last[0]), newest(entries, known.last[1])),
            audits=added(known.audits, ((one.model, one) for one in audits)),
            entries=added(known.entries, ((one.model, one) for one in entries)),
            judged=added(
                known.judged, ((one.identity.weights, one) for one in judged if one.identity)
            ),
            day=max([known.day, *map(day_of, dates)]),
            measured={**known.measured, **measured},
            commands={**known.commands, **{one.model: one.command for one in reversed(new)}},
        )

    def of_models(self, names: Iterable[str]) -> Past:
        """Return the past of these models alone."""
        known = [*names, UNKNOWN]
        return replace(
            self,
            audits={name: self.audits[name] for name in known if name in self.audits},
            entries={name: self.entries[name] for name in known if name in self.entries},
        )

    def entries_on(self, *names: str) -> tuple[Entry, ...]:
        """Return the entries on models, and those of which nobody can read the model."""
        known = [one for name in {*names, UNKNOWN} for one in self.entries.get(name, ())]
        found = [one for one in known if one.unread or one.model in names]
        return tuple(sorted(found, key=lambda one: -one.number))


def file_of(history: History) -> tuple[int, int]:
    """Return which file it is: one that was put in its place is read anew."""
    try:
        found = history.path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def newest(rows: Sequence[PastAudit | Entry], before: int) -> int:
    return max((row.number for row in rows), default=before)


def added(
    known: Mapping[str, tuple[Kept, ...]], rows: Iterable[tuple[str, Kept]]
) -> dict[str, tuple[Kept, ...]]:
    """Return rows by what they are of, the last one first, with new ones before known ones."""
    new = defaultdict[str, list[Kept]](list)
    for name, row in rows:
        new[name].append(row)
    return {**known, **{name: (*found, *known.get(name, ())) for name, found in new.items()}}


@lru_cache(maxsize=4)
def overview_of(
    folder: str,
    writable: bool,
    found: FolderContents,
    past: Past,
    clock: str,
    day: str,
    states: tuple[tuple[str, RegisterState], ...] = (),
) -> Overview:
    """Return all models, the worst first, and all reports."""
    lying = dict(states)
    known = {id_of(name): name for name in past.audits} | {
        key: found.names[key] for key in found.models
    }
    rows = [
        row_of(key, name, past, day, lying.get(key, NEVER if key in found.models else GONE))
        for key, name in known.items()
    ]
    told = [(row.id, row.state, row.differences) for row in rows]
    return Overview(
        folder=folder,
        models=tuple(sorted(rows, key=severity)),
        reports=reports_of(found),
        truncated=found.truncated,
        writable=writable,
        digest=digest(found.compared_parts, past.file, past.last, day, told),
        day=day,
        clock=clock,
    )


def reports_of(found: FolderContents, folder: Path | None = None) -> tuple[ReportRow, ...]:
    """Return all reports by name, or those in the folder of a model."""
    listed = sorted(found.reports.items(), key=lambda item: found.names[item[0]])
    return tuple(
        ReportRow(key, found.names[key], kind)
        for key, (path, kind) in listed
        if folder in (None, path.parent)
    )


def row_of(key: str, name: str, past: Past, day: str, lying: RegisterState) -> ModelRow:
    audits = past.audits.get(name, ())
    judged = [past.measured.get(one.number, {}) for one in audits[:2]]
    moved = changes(audits[1], judged[1], audits[0], judged[0]) if len(audits) > 1 else ()
    damaged = bool(audits) and audits[0].unread and lying.state != "gone"
    return ModelRow(
        id=key,
        name=name,
        state="unread" if damaged else lying.state,
        audits=len(audits),
        last=audits[0] if audits else None,
        changes=moved,
        approvals=tuple(approvals(name, past, day)) if lying.state == "audited" else (),
        differences=lying.differences,
        read=lying.read,
    )


def approvals(name: str, past: Past, day: str) -> Iterator[Approval]:
    """Yield what is accepted of the last audit of a model today, also of an unchanged copy."""
    last = past.audits[name][0]
    audited = AuditedModel.of_past(last, past.measured.get(last.number, {}))
    alike = past.judged.get(last.identity.weights, ()) if last.identity else ()
    names = {name, *(one.model for one in alike)}
    for rule, (entry, how) in judgements(past.entries_on(*names), audited, day, name).items():
        if how in ("accepted", "inherited"):
            yield Approval(rule, entry.author, entry.date[:10], entry.until, entry.model)


def severity(row: ModelRow) -> tuple[int, int, int, str]:
    """Return the sort key of a model: changed first, then by severity; never audited, gone last."""
    if (last := row.answered) is None:
        return STATES.index(row.state), 0, 0, row.name
    failed = {*last.failed} - row.accepted
    return STATES.index(row.state), SEVERITY.index(last.answer), -len(failed), row.name


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
