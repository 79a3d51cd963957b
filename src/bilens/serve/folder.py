"""What lies in a folder: models and reports, found by names and first bytes, never opened by path.

Addresses hold ids, and an id stands for a path that a walk of the folder found: no text of a
request ever becomes a path.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from bilens.api.history import History
from bilens.base.errors import BilensError, FileError
from bilens.base.files import read_json
from bilens.io.file_kinds import is_model
from bilens.records.explorer import ModelPage, ModelRow, Overview, ReportRow
from bilens.records.history import PastAudit
from bilens.report.reports import (
    AttackReport,
    AuditReport,
    CertificateReport,
    ConversionReport,
    LayerAuditReport,
    SavedReport,
    TableReport,
    TraceReport,
)

KINDS: dict[str, type[SavedReport[Any]]] = {
    "audit": AuditReport,
    "layer_audit": LayerAuditReport,
    "table_audit": TableReport,
    "certificate": CertificateReport,
    "attack": AttackReport,
    "conversion": ConversionReport,
    "trace": TraceReport,
}
DEEPEST, MOST = 6, 20_000  # folders below the first; files and folders that are looked at
START, LARGEST = 400, 1 << 27  # bytes that tell a document's kind; of a document
KIND = re.compile(rb'"kind":\s*"(\w+)"')
FRESH = 2.0  # seconds for which a walk is not repeated
SHOWN = 20  # audits in a row's line of failures
NONE: tuple[set[str], set[str]] = set(), set()
SEVERITY = ("do_not_use", "cannot_judge", "conditions", "use")


@dataclass(frozen=True)
class Found:
    """What a walk found, by id."""

    models: dict[str, Path]
    reports: dict[str, tuple[Path, str]]  # path and kind


class ServedFolder:
    """A folder, walked again when it is looked at; and its history.

    Raises:
        FileError: If it is no folder, or may not be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.history = History(self.folder)
        self._found, self._walked, self._lock = Found({}, {}), float("-inf"), Lock()

    def found(self) -> Found:
        with self._lock:
            if time.monotonic() - self._walked > FRESH:
                self._found, self._walked = walk(self.folder), time.monotonic()
            return self._found

    def overview(self) -> Overview:
        """Return all models, the worst first, and all reports."""
        found, by_model = self.found(), self._audits_by_model()
        names = {id_of(self.name_of(path)): self.name_of(path) for path in found.models.values()}
        gone = {id_of(name): name for name in by_model}
        rows = [self._row(key, {**gone, **names}[key], by_model) for key in {**names, **gone}]
        rows.sort(key=severity)
        reports = [
            ReportRow(key, self.name_of(path), kind)
            for key, (path, kind) in sorted(found.reports.items(), key=lambda item: item[1])
        ]
        return Overview(folder=self.folder.name, models=tuple(rows), reports=tuple(reports))

    def model(self, key: str) -> ModelPage | None:
        """Return what is known of a model, None where there is none of this id."""
        rows = [row for row in self.overview().models if row.id == key]
        if not rows:
            return None
        audits, entries = (
            tuple(read(rows[0].name)) for read in (self.history.audits, self.history.entries)
        )
        return ModelPage(model=rows[0], audits=audits, entries=entries)  # type: ignore[arg-type]

    def report(self, key: str) -> SavedReport[Any] | None:
        """Return a report that lies in the folder; it may be damaged: then CheckpointError."""
        if key not in self.found().reports:
            return None
        path, kind = self.found().reports[key]
        document = read_json(path, LARGEST)
        try:
            return KINDS[kind](document)
        except BilensError as error:
            raise FileError(f"{self.name_of(path)}: {error}") from None

    def audit(self, number: int) -> SavedReport[Any]:
        """Return the report of an audit of the history."""
        document = self.history.document(number)
        return KINDS[document["kind"]](document)

    def name_of(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix() or "."

    def _audits_by_model(self) -> dict[str, list[PastAudit]]:
        found: dict[str, list[PastAudit]] = {}
        for audit in self.history.audits():
            found.setdefault(audit.model, []).append(audit)
        return found

    def _row(self, key: str, name: str, by_model: dict[str, list[PastAudit]]) -> ModelRow:
        audits = by_model.get(name, [])
        last, before = ({*one.failed} for one in [*audits[:2], *audits[:1]][:2]) if audits else NONE
        return ModelRow(
            id=key,
            name=name,
            there=key in self._found.models,
            audits=len(audits),
            last=audits[0] if audits else None,
            new=tuple(sorted(last - before)),
            mended=tuple(sorted(before - last)),
            failures=tuple(len(one.failed) for one in reversed(audits[:SHOWN])),
            accepted=tuple(sorted(self.history.accepted(name))) if audits else (),
        )


def severity(row: ModelRow) -> tuple[bool, int, int, str]:
    """Return what models are ordered by: those never audited last, the others the worst first."""
    if row.last is None:
        return True, 0, 0, row.name
    failed = {*row.last.failed} - {*row.accepted}
    return False, SEVERITY.index(row.last.answer), -len(failed), row.name


def id_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def walk(folder: Path) -> Found:
    """Return the models and reports below a folder; links that lead out of it are left out."""
    models: dict[str, Path] = {}
    reports: dict[str, tuple[Path, str]] = {}
    for path in entries_below(folder):
        key = id_of(path.relative_to(folder).as_posix() or ".")
        if is_model(path):
            models[key] = path
        elif path.suffix == ".json" and (kind := kind_at(path)) in KINDS:
            reports[key] = path, kind
    return Found(models, reports)


def entries_below(folder: Path) -> Iterator[Path]:
    """Yield files and folders, models not looked into, hidden ones left out."""
    waiting, looked = [(folder, 0)], 0
    while waiting:
        here, depth = waiting.pop()
        yield here
        if is_model(here) or depth > DEEPEST:
            continue
        try:
            inside = sorted(os.scandir(here), key=lambda item: item.name)
        except OSError:
            continue  # gone since, or may not be looked into
        for item in inside:
            looked += 1
            path = Path(item.path)
            if looked > MOST or item.name.startswith("."):
                continue
            if item.is_symlink() and not path.resolve().is_relative_to(folder):
                continue
            if item.is_dir(follow_symlinks=False):
                waiting.append((path, depth + 1))
            elif item.is_file():
                yield path


def kind_at(path: Path) -> str:
    """Return the kind of a document by its first bytes; empty where it is none."""
    try:
        with path.open("rb") as file:
            found = KIND.search(file.read(START))
    except OSError:
        return ""
    return found[1].decode() if found else ""
