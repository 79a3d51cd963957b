"""What a history holds, by model: as it is only added to, what is new alone is read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bilens.api.history import History
from bilens.records.history import Entry, Measured, PastAudit
from bilens.serve.inside import told

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
        """Return what is there now; this where nothing was added."""
        last, file = history.last(), file_of(history)
        if (last, file) == (self.last, self.file):
            return self
        grown = all(new >= old for new, old in zip(last, self.last, strict=True))
        known = self if file == self.file and grown else Past()
        new = history.audits(after=known.last[0])
        audits = [told(one, history.folder) for one in new]
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
    found: dict[str, list[Kept]] = {}
    for row in rows:
        found.setdefault(row.model, []).append(row)
    grown: dict[str, tuple[Kept, ...]] = {**known}
    for name, new in found.items():
        grown[name] = (*new, *grown.get(name, ()))
    return grown
