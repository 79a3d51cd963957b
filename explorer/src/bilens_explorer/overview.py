"""The history of a folder by model, and the row of each model on the first page."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec
from msgspec import structs

from bilens import History
from bilens.api import RegisterState
from bilens.findings import JUDGED, AuditedModel, changes, judgements, words_on
from bilens.io import address_in, mark_of
from bilens.records import UNKNOWN, Entry, Identity, Measured, ModelState, PastAudit, People
from bilens_explorer.inside import command_told
from bilens_explorer.records.models import Approval, ModelRow, Overview, ReportRow, id_of
from bilens_explorer.register import UNREAD
from bilens_explorer.walk import FolderContents

SEVERITY = ("do_not_use", "cannot_judge", "not_read", "conditions", "use")
STATES: tuple[ModelState, ...] = ("changed", "unread", "audited", "never", "gone")
NEVER = RegisterState("never")
Kept = TypeVar("Kept", bound=PastAudit | Entry)
Rows: TypeAlias = tuple[tuple[PastAudit, ...], tuple[Entry, ...]]


@dataclass(frozen=True, eq=False)
class Past:
    """Audits and entries by model, the last one first."""

    rows: Rows = ((), ())  # all audits and entries
    audits: Mapping[str, tuple[PastAudit, ...]] = field(default_factory=dict)
    entries: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    measured: Mapping[int, Mapping[str, Measured]] = field(default_factory=dict)  # audit, rule
    # of the last audit of each model, with the places that it names, which are not told
    commands: Mapping[str, str] = field(default_factory=dict)
    # judgements, the last one first, by the weights that they are of
    judged: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)

    def read_on(self, history: History) -> Past:
        """Read a history that was written to, or is another one; itself where that says nothing."""
        audits, entries = rows = tuple(history.audits()), tuple(history.entries())
        if rows == self.rows:
            return self
        known = len(self.rows[0])
        grown = known > 0 and audits[-known:] == self.rows[0]
        measured: dict[int, dict[str, Measured]] = {}
        for one in history.measured(after=self.rows[0][0].number if grown else 0):
            measured.setdefault(one.audit, {})[one.rule] = one
        judged = [one for one in entries if one.action in JUDGED]
        told = [structs.replace(a, command=command_told(a.command, history.folder)) for a in audits]
        return Past(
            rows=rows,
            audits=grouped_by((one.model, one) for one in told),
            entries=grouped_by((one.model, one) for one in entries),
            judged=grouped_by((one.identity.weights, one) for one in judged if one.identity),
            measured={**self.measured, **measured} if grown else measured,
            commands={one.model: one.command for one in reversed(audits)},
        )

    def of_models(self, names: Iterable[str]) -> Past:
        """Return the past with the audits of these models alone; what was said of others counts."""
        return replace(self, audits={name: self.audits.get(name, ()) for name in names})

    def for_others(self) -> Past:
        """Return the past for readers elsewhere: models outside the folder are no rows of it.

        What was said of them, which holds for a copy, names them by the end of their path.
        """

        def without_place(one: Entry) -> Entry:
            return one if is_inside(one.model) else structs.replace(one, model=Path(one.model).name)

        said = [without_place(one) for each in self.entries.values() for one in each]
        return replace(
            self,
            rows=(tuple(one for one in self.rows[0] if is_inside(one.model)), self.rows[1]),
            audits={name: each for name, each in self.audits.items() if is_inside(name)},
            judged={key: tuple(map(without_place, each)) for key, each in self.judged.items()},
            entries=grouped_by((one.model, one) for one in said),
        )

    def people(self, model: str, identity: Identity | None, day: str) -> People | None:
        """Return the words on a model, as `History.people` does; `day` is today."""
        alike = self.judged.get(identity.weights, ()) if identity else ()
        names = {model, *(one.model for one in alike)}
        found = words_on(self.entries_on(*names), model, identity)
        return People(day, found, model) if found else None

    def entries_on(self, *names: str) -> tuple[Entry, ...]:
        """Return the entries on models, and those of which nobody can read the model."""
        known = [one for name in {*names, UNKNOWN} for one in self.entries.get(name, ())]
        found = [one for one in known if one.unread or one.model in names]
        return tuple(sorted(found, key=lambda one: -one.number))


def is_inside(model: str) -> bool:
    """Tell whether a model lies in the folder of its history, by its name there."""
    return not Path(model).is_absolute() and not address_in(model)


def mark_of_history(history: History) -> Hashable:
    """Return by what a history is told from what it was: its last rows, its file and its log."""
    log = history.path.with_name(f"{history.path.name}-wal")
    marks = [mark_of(str(history.path)), mark_of(str(log)) if log.exists() else None]
    return history.last(), *marks


def grouped_by(rows: Iterable[tuple[str, Kept]]) -> dict[str, tuple[Kept, ...]]:
    """Return rows by what they are of, in their order."""
    found = defaultdict[str, list[Kept]](list)
    for name, row in rows:
        found[name].append(row)
    return {name: tuple(each) for name, each in found.items()}


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
        row_of(key, name, past, day, lying.get(key, NEVER if key in found.models else UNREAD))
        for key, name in known.items()
    ]
    told = [(row.id, row.state, row.differences) for row in rows]
    return Overview(
        folder=folder,
        models=tuple(sorted(rows, key=severity)),
        reports=reports_of(found),
        truncated=found.truncated,
        writable=writable,
        digest=digest(found.compared_parts, past.rows, day, told),
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
        differences=() if damaged else lying.differences,
        read=lying.read,
    )


def approvals(name: str, past: Past, day: str) -> Iterator[Approval]:
    """Yield what is accepted of the last audit of a model today, also of an unchanged copy."""
    last = past.audits[name][0]
    audited = AuditedModel.of_past(last, past.measured.get(last.number, {}))
    if people := past.people(name, last.identity, day):
        for rule, (one, how) in judgements(people.entries, audited, day, name).items():
            if how in ("accepted", "inherited"):
                until, by = one.until, one.known_by
                yield Approval(rule, one.author, one.date[:10], until, one.model, by)


def severity(row: ModelRow) -> tuple[int, int, int, str]:
    """Return the sort key of a model: changed first, then by severity; never audited, gone last."""
    if (last := row.answered) is None:
        return STATES.index(row.state), 0, 0, row.name
    failed = {*last.failed} - row.accepted
    return STATES.index(row.state), SEVERITY.index(last.answer), -len(failed), row.name


def digest(*parts: object) -> str:
    plain = msgspec.to_builtins(parts, enc_hook=str)  # the repr of a record leaves fields out
    return hashlib.sha256(repr(plain).encode(errors="surrogatepass")).hexdigest()[:16]


def without_notes(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    return tuple(one for one in entries if one.action != "note")
