"""What lies in a folder: models and reports, found by names and first bytes, never opened by path.

Addresses hold ids, and an id stands for a path that a walk of the folder found: no text of a
request ever becomes a path.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, TypeVar

from bilens.api.history import History
from bilens.base.errors import BilensError, CheckpointError, FileError, UsageError
from bilens.base.files import why_unreadable
from bilens.data.image_folder import SUFFIXES as IMAGES
from bilens.data.table_file import KINDS as TABLES
from bilens.findings.rules.judgements import JUDGED, RULE
from bilens.io.file_kinds import MARKS, is_model
from bilens.records.base import LARGEST_WHOLE, displayable, kind_of
from bilens.records.common import Finding, JudgedCondition
from bilens.records.explorer import ModelPage, ModelRow, Overview, ReportRow, id_of
from bilens.records.history import PastAudit
from bilens.records.jobs import Choices, Job, NamedFile, NewJob
from bilens.report.reports import (
    AttackReport,
    AuditReport,
    CertificateReport,
    ConversionReport,
    LayerAuditReport,
    SavedReport,
    TableReport,
    TraceReport,
    VerdictReport,
)
from bilens.serve.jobs import Jobs, arguments_of
from bilens.serve.models import OpenModel, OpenModels

KINDS: dict[str, type[SavedReport[Any]]] = {
    kind_of(one.type): one
    for one in (
        *(AuditReport, LayerAuditReport, TableReport, CertificateReport),
        *(AttackReport, ConversionReport, TraceReport),
    )
}
DEEPEST, MOST = 6, 20_000  # folders below the first; files and folders that are looked at
START, LARGEST = 400, 1 << 24  # bytes that tell a document's kind; of a document
DATA, TEXTS = (*TABLES, ".npy", ".npz"), (".txt", ".jsonl")
AUTOENCODER = ("sae.safetensors", "sae_weights.safetensors")  # else its class says it
CODER = re.compile(rb'"class":\s*"\w*SAE"')
MOST_CHOICES = 500  # in a list of files
IDX = re.compile("idx[13]-ubyte")  # in the names of a data set of images
KIND = re.compile(rb'"kind":\s*"([\w ]+)"')
FRESH = 2.0  # seconds for which a walk is not repeated
SHOWN = 20  # audits in a row's line of failures
NONE: tuple[set[str], set[str]] = set(), set()
Kept = TypeVar("Kept")
SEVERITY = ("do_not_use", "cannot_judge", "conditions", "use")


@dataclass(frozen=True)
class Found:
    """What a walk found, by id."""

    models: dict[str, Path]
    reports: dict[str, tuple[Path, str]]  # path and kind
    data: dict[str, Path]  # what models may be judged on, and texts
    truncated: bool = False  # where more lies there than is looked at


class ServedFolder:
    """A folder, walked again when it is looked at; and its history.

    Raises:
        FileError: If it is no folder, or may not be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.history = History(self.folder)
        self.jobs = Jobs(self.folder)
        self._found, self._walked, self._lock = Found({}, {}, {}), float("-inf"), Lock()
        self._verdicts: dict[int, tuple[tuple[Finding, ...], tuple[JudgedCondition, ...]]] = {}
        self._models = OpenModels(self.folder)
        self._reading = Lock()  # documents may be large: one at a time

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
        known = {**gone, **names}
        rows = [self._row(key, known[key], by_model, key in names) for key in known]
        rows.sort(key=severity)
        reports = [
            ReportRow(key, self.name_of(path), kind)
            for key, (path, kind) in sorted(found.reports.items(), key=lambda item: item[1])
        ]
        return Overview(
            folder=self.folder.name,
            models=tuple(rows),
            reports=tuple(reports),
            truncated=found.truncated,
        )

    def model(self, key: str) -> ModelPage | None:
        """Return what is known of a model, None where there is none of this id."""
        rows = [row for row in self.overview().models if row.id == key]
        if not rows:
            return None
        audits = kept(self.history.audits, rows[0].name)
        entries = kept(self.history.entries, rows[0].name)
        findings, conditions = self._judged(audits[0].number) if audits else ((), ())
        failed = tuple(one for one in conditions if one.failed)
        spoken = {one.subject.removeprefix(RULE) for one in entries if one.action in JUDGED}
        spoken |= {one.rule for one in failed}
        return ModelPage(
            model=rows[0],
            audits=audits,
            entries=entries,
            findings=tuple(
                one for one in findings if one.outcome in ("fail", "warn") or one.rule in spoken
            ),
            conditions=failed,
        )

    def _judged(self, number: int) -> tuple[tuple[Finding, ...], tuple[JudgedCondition, ...]]:
        """Return verdict and conditions of an audit; none of a document that is not read here."""
        if number not in self._verdicts:  # an audit never changes
            found: Any = None
            with suppress(FileError, CheckpointError):
                found = self.audit(number)
            judged = ((), ()) if found is None else (found.record.verdict, found.record.conditions)
            self._verdicts[number] = judged[0], judged[1] or ()
        return self._verdicts[number]

    def opened(self, key: str) -> OpenModel | None:
        """Return a model of the folder, open; BilensError where it cannot be read."""
        path = self.found().models.get(key)
        return None if path is None else self._models.get(path, displayable(self.name_of(path)))

    def report(self, key: str) -> SavedReport[Any] | None:
        """Return a report that lies in the folder; it may be damaged: then FileError."""
        path, kind = self.found().reports.get(key, (None, ""))
        if path is None:
            return None
        name = self.name_of(path)
        with self._reading:
            try:
                with opened(self.folder, path) as file:
                    text = file.read(LARGEST + 1)
                if len(text) > LARGEST:
                    raise FileError(f"{name}: at most {LARGEST} bytes are read.")
                return checked(name, kind, json.loads(text))
            except OSError as error:
                raise FileError(f"{name}: {why_unreadable(error)}") from None
            except (ValueError, RecursionError) as error:
                raise FileError(f"{name}: is not valid JSON ({error}).") from None

    def audit(self, number: int) -> VerdictReport[Any] | None:
        """Return the report of an audit of the history, None where there is none."""
        if number > LARGEST_WHOLE:
            return None
        try:
            document = self.history.document(number)
        except UsageError:
            return None
        found = checked(f"audit {number}", document["kind"], document)
        assert isinstance(found, VerdictReport), "an audit is kept, and nothing else"
        model = next(one.model for one in self.history.audits() if one.number == number)
        return found.with_people(self.history.people(model))

    def start(self, asked: NewJob) -> Job | None:
        """Put a job in the queue; None where its model is not there."""
        found = self.found()
        models = {key: self.name_of(path) for key, path in found.models.items()}
        data = {key: self.name_of(path) for key, path in found.data.items()}
        if asked.model not in models:
            return None
        return self.jobs.add(asked.command, models[asked.model], arguments_of(asked, models, data))

    def choices(self) -> Choices:
        """Return what the folder has to start a job with."""
        found = self.found()

        def named(files: Iterable[tuple[str, Path]]) -> tuple[NamedFile, ...]:
            listed = sorted((self.name_of(path), key) for key, path in files)
            return tuple(NamedFile(key, name) for name, key in listed[:MOST_CHOICES])

        texts = {key: path for key, path in found.data.items() if path.suffix.lower() in TEXTS}
        return Choices(
            data=named(item for item in found.data.items() if item[0] not in texts),
            texts=named(texts.items()),
            saes=named(item for item in found.models.items() if self.is_autoencoder(item[1])),
        )

    def is_autoencoder(self, path: Path) -> bool:
        if any((path / mark).exists() for mark in AUTOENCODER):
            return True
        with suppress(OSError), opened(self.folder, path / "config.json") as file:
            return CODER.search(file.read(START)) is not None
        return False

    def mark(self) -> tuple[int, ...]:
        """Return what changes when something is added; no walk is made for it."""
        paths = [*self._found.models.values(), *(path for path, _ in self._found.reports.values())]
        places = {self.folder, self.history.path, *paths, *(path.parent for path in paths)}
        return tuple(map(changed_at, sorted(places)))

    def last_audit(self, key: str) -> tuple[str, VerdictReport[Any]] | None:
        """Return the name of a model and the report of its last audit, None without one."""
        found = self.model(key)
        last = None if found is None else found.model.last
        report = None if last is None else self.audit(last.number)
        return None if last is None or report is None else (last.model, report)

    def name_of(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix() or "."

    def _audits_by_model(self) -> dict[str, list[PastAudit]]:
        found: dict[str, list[PastAudit]] = {}
        for audit in self.history.audits():
            found.setdefault(audit.model, []).append(audit)
        return found

    def _row(
        self, key: str, name: str, by_model: dict[str, list[PastAudit]], there: bool
    ) -> ModelRow:
        audits = by_model.get(name, [])
        last, before = ({*one.failed} for one in [*audits[:2], *audits[:1]][:2]) if audits else NONE
        return ModelRow(
            id=key,
            name=name,
            there=there,
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


def kept(read: Callable[[str], list[Kept]], name: str) -> tuple[Kept, ...]:
    """Return what the history has of a name; nothing of one that is no text."""
    try:
        return tuple(read(name))
    except UnicodeEncodeError:
        return ()


def changed_at(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def checked(name: str, kind: str, document: Mapping[str, object]) -> SavedReport[Any]:
    try:
        return KINDS[kind](document)
    except BilensError as error:
        raise FileError(f"{name}: {error}") from None


def walk(folder: Path) -> Found:
    """Return the models and reports below a folder, near ones first; links out are left out."""
    found = Found({}, {}, {})
    waiting, looked = deque([(folder, 0)]), 0
    while waiting:
        path, depth = waiting.popleft()
        with suppress(OSError, RuntimeError, ValueError):  # gone since, closed to us, a loop
            if path.is_symlink() and not path.resolve().is_relative_to(folder):
                continue
            key = id_of(path.relative_to(folder).as_posix() or ".")
            if is_model(path):
                found.models[key] = path
                if path != folder:
                    for item in islice(path.iterdir(), MOST_CHOICES):  # such as its test rows
                        if item.suffix in DATA and item.is_file() and not item.is_symlink():
                            found.data[id_of(item.relative_to(folder).as_posix())] = item
                    continue
            elif path.suffix == ".json" and (kind := kind_at(folder, path)) in KINDS:
                found.reports[key] = path, kind
            elif path.suffix.lower() in (*DATA, *TEXTS) and path.is_file():
                found.data[key] = path
            if path.is_symlink() or not path.is_dir():
                continue
            if depth > DEEPEST:
                found = replace(found, truncated=True)
                continue
            with os.scandir(path) as inside:
                items = [*islice(inside, MOST + 1 - looked)]
            looked += len(items)
            if looked > MOST:
                looked -= 1
                items.pop()
                found = replace(found, truncated=True)
            names = sorted(item.name for item in items)
            holder = path if any(map(IDX.search, names)) else None
            if any(name.lower().endswith(IMAGES) for name in names):  # of one class
                holder = path.parent
            if holder is not None and holder.is_relative_to(folder):
                found.data[id_of(holder.relative_to(folder).as_posix() or ".")] = holder
            if path == folder:  # its marks are parts of one model
                names = [name for name in names if name not in MARKS]
            waiting += [(path / name, depth + 1) for name in names if not name.startswith(".")]
    return found


def kind_at(folder: Path, path: Path) -> str:
    """Return the kind of a document by its first bytes; empty where it is none."""
    with opened(folder, path) as file:
        found = KIND.search(file.read(START))
    return found[1].decode() if found else ""


@contextmanager
def opened(folder: Path, path: Path) -> Iterator[BinaryIO]:
    """Open a file below a folder, step by step: no link is followed, whatever was put there."""
    here = os.open(folder, os.O_RDONLY)
    try:
        for part in path.relative_to(folder).parts:
            inside = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
            os.close(here)
            here = inside
        if not stat.S_ISREG(os.fstat(here).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(here, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(here)
