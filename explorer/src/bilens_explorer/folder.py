"""A folder that is served: what lies in it, its history, and the documents that are asked for."""

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from bilens import AuditReport, History
from bilens.api import read_beside
from bilens.base import file_sha256, parse_object, why_unreadable
from bilens.base.errors import BilensError, CheckpointError, FileError, UsageError
from bilens.data import FILE_NAME as TOKENIZER
from bilens.findings import JUDGED, RULE
from bilens.records import EARLIER_KINDS, Finding, JudgedCondition, PastAudit, People, displayable
from bilens.report import SavedReport, load_catalogue
from bilens_explorer.audit_runs import AuditRuns
from bilens_explorer.inside import (
    ADAPTER,
    MissingError,
    cut_paths,
    opened,
    require_found,
    state_of,
)
from bilens_explorer.open_models import OpenModel, OpenModels
from bilens_explorer.overview import Past, digest, overview_of, reports_of, row_of
from bilens_explorer.recorded_command import RefusedError, RepeatedCommand, repeat_command
from bilens_explorer.records.models import (
    AuditRun,
    Key,
    ModelPage,
    Nothing,
    Overview,
    State,
    id_of,
)
from bilens_explorer.walk import KINDS, START, FolderContents, walk

LARGEST = 1 << 24  # bytes of a document
VIEWS = "spectra", "interactions"  # of every model that has layers
AUTOENCODER = ("sae.safetensors", "sae_weights.safetensors")  # else its class says it
Report = TypeVar("Report", bound=SavedReport[Any])
CODER = re.compile(rb'"class":\s*"\w*SAE"')
FRESH = 2.0  # seconds for which a walk is not repeated
Judged = tuple[tuple[Finding, ...], tuple[JudgedCondition, ...]]


class ServedFolder:
    """A folder, walked again when it is looked at; and its history.

    What is asked for and is not there is `MissingError`. With `exporting`, for readers elsewhere,
    nothing is written, and notes are left out.
    """

    def __init__(self, folder: Path, *, exporting: bool = False) -> None:
        self.folder = folder.resolve()
        if not os.access(self.folder, os.R_OK | os.X_OK) and self.folder.is_dir():
            raise FileError(f"{folder}: may not be read: ask its owner for the permission.")
        self.history = History(self.folder, reading=True, writing=not exporting)
        self._exporting = exporting
        self.runs = AuditRuns(self.folder)
        self._found, self._walked, self._walking = FolderContents(), float("-inf"), Lock()
        self._past, self._remembering, self._drawing = Past(), Lock(), Lock()
        self._verdicts: dict[PastAudit, Judged] = {}  # a history may be put in place of another
        self._models = OpenModels(self.folder)
        self.briefs: dict[tuple[str, int], Any] = {}  # of traces
        self._hashes: dict[tuple[str, int, int, int], str] = {}  # of files, by size and time
        self._reading = Lock()  # documents may be large: one at a time

    def last_walk(self) -> FolderContents:
        """Return the contents found by the last walk; during a walk, those of the one before."""
        if self._walking.acquire(blocking=self._walked < 0):
            try:
                if time.monotonic() - self._walked > FRESH:
                    found = walk(self.folder)
                    if found.compared_parts != self._found.compared_parts:
                        self._found = found
                    self._walked = time.monotonic()
            finally:
                self._walking.release()
        return self._found

    def past(self) -> Past:
        with self._remembering:
            self._past = self._past.read_on(self.history)
            return self._past

    def overview(
        self, watch: Annotated[str, Meta(max_length=40, description="a rule")] = ""
    ) -> Overview:
        """All models, the worst first, with the numbers of a rule to watch; and all reports."""
        found, past = self.last_walk(), self.past()
        changed = self._changed(found, past)
        with self._drawing:  # it is made once, for all who ask
            writable = self.history.writable
            return overview_of(self.folder.name, writable, found, past, watch, day(), changed)

    def _changed(self, found: FolderContents, past: Past, only: str = "") -> frozenset[str]:
        """Return the models whose files are others than those of their last audit."""
        keys = [key for key in found.models if key == (only or key)]
        last = {key: past.audits.get(found.names[key], ())[:1] for key in keys}
        return frozenset(
            key
            for key in keys
            for one in last[key]
            if not self.is_of(key, one.weights_sha256, dict(one.files))
        )

    def is_of(self, key: str, weights_sha256: str, files: Mapping[str, str]) -> bool:
        """Return whether what was read then is a model of the folder as its files are now."""
        with suppress(BilensError, OSError, KeyError, ValueError):  # also of what is no file
            path = self._found.models[key]
            if not files or (path / ADAPTER).exists():  # of an earlier release, or with its base
                return self.opened(key).model.read_sha256 == weights_sha256
            place = path if path.is_dir() else path.parent
            beside = {*read_beside(path)} if path.is_dir() else set()
            return all(self._sha256(place / name) == files.get(name) for name in beside | {*files})
        return False

    def is_open_as(self, key: str, weights_sha256: str, files: Mapping[str, str]) -> bool:
        """Return whether what was read then is the model as it is opened, its weights first."""
        with suppress(BilensError):
            same = self.opened(key).model.read_sha256 == weights_sha256
            return same and self.is_of(key, weights_sha256, files)
        return False

    def _sha256(self, file: Path) -> str:
        """Return the SHA-256 of a file of the folder; it is read again where it changed."""
        (state,) = state_of(self.folder, file)
        if state not in self._hashes:
            self._hashes[state] = file_sha256(file)
        return self._hashes[state]

    def model(self, key: Key) -> ModelPage:
        """One model: its audits, and what people said of it."""
        found, past = self.last_walk(), self.past()
        path = found.models.get(key)
        names = past.audits if path is None else [found.names[key]]
        name = require_found(next((name for name in names if id_of(name) == key), None))
        audits = past.audits.get(name, ())
        entries = past.entries.get(name, ())
        if self._exporting:
            entries = tuple(one for one in entries if one.action != "note")
        changed = key in self._changed(found, past, key)
        findings, conditions = self._judged(audits[0]) if audits and not changed else ((), ())
        failed = tuple(one for one in conditions if one.failed)
        spoken = {one.subject.removeprefix(RULE) for one in entries if one.action in JUDGED}
        spoken |= {one.rule for one in failed}
        return ModelPage(
            model=row_of(key, name, path is not None, past, "", day(), changed=changed),
            reports=() if path in (None, self.folder) else reports_of(found, path),
            views=() if path is None else self.views_of(path),
            audits=audits,
            entries=entries,
            findings=tuple(
                one for one in findings if one.outcome in ("fail", "warn") or one.rule in spoken
            ),
            conditions=failed,
            measured=tuple(
                one for audit in audits for one in past.measured.get(audit.number, {}).values()
            ),
            writable=self.history.writable,
            digest=self._digest(key, name, found, past),
            run=None if path is None or self._exporting else self.audit_run(key),
        )

    def _judged(self, audit: PastAudit) -> Judged:
        """Return verdict and conditions of an audit; none of a document that is not read here."""
        if audit not in self._verdicts:
            try:
                record = self.audit(audit.number).record
            except (FileError, CheckpointError):
                return (), ()
            self._verdicts[audit] = record.verdict, record.conditions or ()
        return self._verdicts[audit]

    def state(self) -> State:
        """Whether the folder is what it was: models, reports, history and day make its digest."""
        return State(digest=self.overview().digest, there=True)

    def model_state(self, key: Key) -> State:
        """Whether a model is what it was: its files, its audits and what was said of it."""
        try:
            page = self.model(key)
        except MissingError:  # it was there for whoever asks
            return State(digest="", there=False)
        return State(digest=page.digest, there=page.model.there)

    def _digest(self, key: str, name: str, found: FolderContents, past: Past) -> str:
        files: object = None
        with suppress(BilensError, OSError, KeyError):
            files = state_of(self.folder, found.models[key])
        told = (one.get(name, ())[:1] for one in (past.audits, past.entries))
        return digest(files, *([row.number for row in rows] for rows in told))

    def opened(self, key: str) -> OpenModel:
        """Return a model of the folder, open; BilensError where it cannot be read."""
        path = require_found(self.last_walk().models.get(key))
        return self._models.get(path, displayable(self.name_of(path)))

    def report(self, key: str) -> SavedReport[Any]:
        """Return a report that lies in the folder, as it is told."""
        return self._told(self.read_report(key))

    def read_report(self, key: str) -> SavedReport[Any]:
        """Return a report with the places that it names; it may be damaged: then FileError."""
        path, kind = require_found(self.last_walk().reports.get(key))
        name = self.name_of(path)
        with self._reading:
            try:
                with opened(self.folder, path) as file:
                    text = file.read(LARGEST + 1)
                if len(text) > LARGEST:
                    raise FileError(f"{name}: at most {LARGEST} bytes are read.")
                return checked(name, kind, parse_object(text))
            except OSError as error:
                raise FileError(f"{name}: {why_unreadable(error)}") from None
            except ValueError as error:
                raise FileError(f"{name}: {error}.") from None

    def audit(self, number: int) -> AuditReport:
        """Return the report of an audit of the history."""
        last, _ = self.history.last()
        require_found(number if 0 < number <= last else None)
        with self._reading:
            document = self.history.document(number)
            kind = document.get("read_as") or EARLIER_KINDS.get(str(document.get("kind")))
            found = checked(f"audit {number}", kind, document)
            del document
        assert isinstance(found, AuditReport), "an audit is kept, and nothing else"
        model = next(one.model for one in self.history.audits() if one.number == number)
        return self._told(
            found.with_people(self.history.people(model, found.record.reproduce.identity))
        )

    def _told(self, report: Report) -> Report:
        """Return a report without the machine's places, for readers elsewhere without notes."""
        report.record = cut_paths(report.record, self.folder)
        people = getattr(report.record, "people", None)
        if people is None or not self._exporting or not isinstance(report, AuditReport):
            return report
        entries = tuple(one for one in people.entries if one.action != "note")
        return report.with_people(People(people.day, entries) if entries else None)

    def audit_run(self, key: Key) -> AuditRun:
        """How the repeated audit of a model goes, or whether one may be started."""
        require_found(self.last_walk().models.get(key))
        if (run := self.runs.describe(key)) is not None:
            return run
        try:
            self._recorded_command(key)
        except RefusedError as error:
            return AuditRun(state="refused", why=error.why, about=error.about)
        return AuditRun(state="ready")

    def audit_again(self, key: Key, body: Nothing) -> AuditRun:  # noqa: ARG002 - it says nothing
        """Audit a model again: the command of its last audit, with its data and options."""
        require_found(self.last_walk().models.get(key))
        return self.runs.start(key, self._recorded_command(key))

    def cancel_audit(self, key: Key, body: Nothing) -> AuditRun:  # noqa: ARG002 - it says nothing
        """End the audit of a model that was started."""
        self.runs.cancel(key)
        return self.audit_run(key)

    def _recorded_command(self, key: str) -> RepeatedCommand:
        name, commands = self.last_walk().names[key], self.past().commands
        if name not in commands:
            raise RefusedError("none")
        return repeat_command(commands[name], self.folder, name)

    def is_autoencoder(self, path: Path) -> bool:
        if any((path / mark).exists() for mark in AUTOENCODER):
            return True
        with suppress(OSError), opened(self.folder, path / "config.json") as file:
            return CODER.search(file.read(START)) is not None
        return False

    def views_of(self, path: Path) -> tuple[str, ...]:
        if self.is_autoencoder(path):
            return ()
        return (*VIEWS, "text" if (path / TOKENIZER).is_file() else "playground")

    def last_audit(self, key: str) -> tuple[str, AuditReport]:
        """Return the name of a model and the report of its last audit."""
        found = self.model(key).model
        last = require_found(found.last)
        if found.changed:
            raise UsageError(load_catalogue("en")("explorer.changed_text", day=last.date[:10]))
        return last.model, self.audit(last.number)

    def name_of(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def day() -> date:
    return datetime.now(UTC).date()


def checked(name: str, kind: object, document: Mapping[str, object]) -> SavedReport[Any]:
    try:
        if not isinstance(kind, str) or kind not in KINDS:
            raise FileError(f"a document of kind {kind!r:.40} is none that this release reads.")
        return KINDS[kind](document)
    except BilensError as error:
        raise FileError(f"{name}: {error}") from None
