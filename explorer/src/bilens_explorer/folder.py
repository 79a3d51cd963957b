"""A folder that is served: what lies in it, its history, and the documents that are asked for."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any, TypeVar

from bilens import AuditReport, History, load
from bilens.api import (
    AuditedFiles,
    RefusedError,
    RegisterState,
    RepeatedCommand,
    now,
    repeat_command,
)
from bilens.base import parse_object, why_unreadable
from bilens.base.errors import BilensError, CheckpointError, FileError, UsageError
from bilens.data import FILE_NAME as TOKENIZER
from bilens.findings import JUDGED, RULE
from bilens.records import EARLIER_KINDS, Finding, JudgedCondition, PastAudit, People, displayable
from bilens.report import SavedReport
from bilens_explorer.audit_runs import AuditRuns
from bilens_explorer.inside import (
    MissingError,
    cut_paths,
    opened,
    require_found,
    state_of,
)
from bilens_explorer.open_models import OpenModel, OpenModels
from bilens_explorer.overview import GONE, NEVER, Past, digest, overview_of, reports_of, row_of
from bilens_explorer.papers import Papers
from bilens_explorer.recorded_command import reading_options
from bilens_explorer.records.models import (
    AuditRun,
    Key,
    ModelPage,
    ModelRow,
    Nothing,
    Overview,
    ReportRow,
    State,
    id_of,
)
from bilens_explorer.register import Register
from bilens_explorer.rows import without_rows
from bilens_explorer.walk import KINDS, START, FolderContents, walk

LARGEST = 1 << 24  # bytes of a document
AUTOENCODER = ("sae.safetensors", "sae_weights.safetensors")  # else its class says it
Report = TypeVar("Report", bound=SavedReport[Any])
CODER = re.compile(rb'"class":\s*"\w*SAE"')
FRESH = 2.0  # seconds for which a walk is not repeated
# verdict, conditions, and whether wrong answers are listed
Judged = tuple[tuple[Finding, ...], tuple[JudgedCondition, ...], bool]


class ServedFolder:
    """A folder, walked again when it is looked at; and its history.

    What is asked for and is not there is `MissingError`. With `exporting`, for readers elsewhere,
    nothing is written, and notes are left out; so are rows of data, unless `with_data`. `patience`
    is how long a page waits for the folder to be walked again, and for files to be read, in
    seconds; None for as long as it takes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        exporting: bool = False,
        with_data: bool = False,
        patience: float | None = None,
    ) -> None:
        self.folder = folder.resolve()
        if not os.access(self.folder, os.R_OK | os.X_OK) and self.folder.is_dir():
            raise FileError(f"{folder}: may not be read: ask its owner for the permission.")
        self.history = History(self.folder, reading=True, writing=not exporting)
        self._exporting = exporting
        self.shows_rows = with_data or not exporting
        self._chosen: tuple[frozenset[str], frozenset[str]] | None = None  # models and reports
        self.runs = AuditRuns(self.folder)
        self._found, self._walked, self._walking = FolderContents(), float("-inf"), Lock()
        self._walker, self._patience = Thread(), patience
        self._day = ""  # the last one that was seen
        self._past, self._remembering, self._drawing = Past(), Lock(), Lock()
        self._verdicts: dict[PastAudit, Judged] = {}  # a history may be put in place of another
        self._models = OpenModels(self.folder)
        self._register = Register(
            self.folder, lambda path: load(path, **self._options(path)).read_sha256, patience
        )
        self._papers = Papers(self.history, self._register, self.read_report)
        self._reading = Lock()  # documents may be large: one at a time

    def last_walk(self) -> FolderContents:
        """Return the contents found by the last walk; where one takes long, those of the last."""
        with self._walking:
            if time.monotonic() - self._walked > FRESH and not self._walker.is_alive():
                self._walker = Thread(target=self._walk, name="walk", daemon=True)
                self._walker.start()
            walker, first = self._walker, self._walked < 0
        if walker.ident is not None:
            walker.join(None if first else self._patience)
        return self._found

    def _walk(self) -> None:
        found = walk(self.folder)
        found = found if self._chosen is None else found.restricted(*self._chosen)
        if found.compared_parts != self._found.compared_parts:
            self._found = found
        self._walked = time.monotonic()

    def choose_models(self, names: Sequence[str]) -> None:
        """Show these models alone, with the reports in their folders and traces of their weights.

        UsageError where the folder has no model of a name.
        """
        found = self.last_walk()
        chosen = {id_of(Path(name).as_posix()): name for name in names}
        if missing := [name for key, name in chosen.items() if key not in found.models]:
            there = ", ".join(sorted(found.names[key] for key in found.models))
            raise UsageError(
                f"--model {missing[0]} is no model of {self.folder.name}; there are: {there}."
            )
        weights = set[str]()
        for key in chosen:
            with suppress(BilensError):  # one that cannot be read has no traces
                weights.add(self.opened(key).model.read_sha256)
        paths = {found.models[key] for key in chosen}
        reports = {
            key
            for key, (path, kind) in found.reports.items()
            if path.parent in paths or (kind == "trace" and self._trace_weights(key) in weights)
        }
        self._chosen = frozenset(chosen), frozenset(reports)
        self._found = found.restricted(*self._chosen)

    def _trace_weights(self, key: str) -> str:
        with suppress(BilensError):
            return str(self.read_report(key).record.source.weights_sha256)
        return ""

    def past(self) -> Past:
        with self._remembering:
            self._past = self._past.read_on(self.history)
            if self._chosen is None:
                return self._past
            return self._past.of_models(self._found.names[key] for key in self._chosen[0])

    def today(self, past: Past) -> str:
        """Return the day by which acceptances end: no clock that is put back revives one."""
        self._day = max(self._day, past.day, now()[:10])
        return self._day

    def overview(self) -> Overview:
        """All models with what lies there now, the worst first; and all reports."""
        found, past = self.last_walk(), self.past()
        lying, day = tuple(self._lying(found, past).items()), self.today(past)
        with self._drawing:  # it is made once, for all who ask
            writable, clock = self.history.writable, now()[:10]
            return overview_of(self.folder.name, writable, found, past, clock, day, lying)

    def _lying(self, found: FolderContents, past: Past, only: str = "") -> dict[str, RegisterState]:
        """Return how the models that were audited lie there now."""
        return self._register.look(audited_files(found, past, only))

    def is_open_as(self, key: str, weights_sha256: str, files: Mapping[str, str]) -> bool:
        """Return whether what was read then is the model as it is opened, its weights first."""
        with suppress(BilensError):
            if self.opened(key).model.read_sha256 == weights_sha256:
                then = AuditedFiles(self._found.models[key], weights_sha256, (*files.items(),))
                return self._register.compare(then)[1].state == "audited"
        return False

    def looked_at(self, key: Key) -> ModelPage:
        """One model, whose files are read again where that was a while ago."""
        found, past = self.last_walk(), self.past()
        for one in audited_files(found, past, key).values():
            self._register.look_again(key, one)
        return self.model(key)

    def model(self, key: Key) -> ModelPage:
        """One model: its audits, and what people said of it."""
        found, past = self.last_walk(), self.past()
        path = found.models.get(key)
        names = past.audits if path is None else [found.names[key]]
        name = require_found(next((name for name in names if id_of(name) == key), None))
        audits = past.audits.get(name, ())
        entries = past.entries_on(name)
        if self._exporting:
            entries = tuple(one for one in entries if one.action != "note")
        lying = self._lying(found, past, key).get(key, GONE if path is None else NEVER)
        day = self.today(past)
        row = row_of(key, name, past, day, lying)
        findings, conditions, wrong = (
            ((), (), False) if row.answered is None else self._judged(row.answered)
        )
        failed = tuple(one for one in conditions if one.failed)
        spoken = {one.subject.removeprefix(RULE) for one in entries if one.action in JUDGED}
        spoken |= {one.rule for one in failed}
        return ModelPage(
            model=row,
            reports=(
                ()
                if path in (None, self.folder)
                else tuple(map(self.paper, reports_of(found, path)))
            ),
            day=day,
            before=self._where_now(row),
            views=() if path is None else self.views_of(path, wrong=wrong),
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
            digest=self._digest(key, name, found, past, row),
            run=None if path is None or self._exporting else self.audit_run(key),
        )

    def _judged(self, audit: PastAudit) -> Judged:
        """Return findings, conditions, and whether wrong answers are listed; none if unreadable."""
        if audit not in self._verdicts:
            try:
                record = self.audit(audit.number).record
            except (FileError, CheckpointError):
                return (), (), False
            wrong = record.performance is not None and bool(record.performance.mistakes)
            self._verdicts[audit] = record.verdict, record.conditions or (), wrong
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

    def paper(self, row: ReportRow) -> ReportRow:
        """Return a report of the folder with what it is."""
        found, past = self.last_walk(), self.past()
        path, _ = require_found(found.reports.get(row.id))
        return self._papers.describe(row, path, found.models.values(), past.audits.values())

    def _where_now(self, row: ModelRow) -> str:
        """Return the id of the model where the weights that were audited last lie now, if any."""
        if row.state != "changed" or row.last is None:
            return ""
        found = self._register.where(row.last.weights_sha256)
        return next((id_of(self.name_of(one)) for one in found), "")

    def _digest(self, key: str, name: str, found: FolderContents, past: Past, row: ModelRow) -> str:
        files: object = None
        with suppress(BilensError, OSError, KeyError):
            files = state_of(self.folder, found.models[key])
        told = past.audits.get(name, ())[:1], past.entries_on(name)[:1]
        numbers = [[one.number for one in rows] for rows in told]
        return digest(files, *numbers, row.state, row.differences, row.approvals)

    def opened(self, key: str) -> OpenModel:
        """Return a model of the folder, open; BilensError where it cannot be read."""
        return self._open(require_found(self.last_walk().models.get(key)))

    def _open(self, path: Path) -> OpenModel:
        """Open a model as its last audit read it: with its mapping, activation and the like."""
        return self._models.get(path, displayable(self.name_of(path)), self._options(path))

    def _options(self, path: Path) -> dict[str, Any]:
        return reading_options(self.past().commands.get(self.name_of(path), ""))

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
        """Return a report as its reader may see it: without the machine's places.

        For readers elsewhere notes are left out, and rows of data unless they are wanted.
        """
        report.record = cut_paths(report.record, self.folder)
        if not self.shows_rows:
            report.record = without_rows(report.record)
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

    def views_of(self, path: Path, *, wrong: bool = False) -> tuple[str, ...]:
        """Return the views of a model; `wrong`: its last audit lists wrong answers."""
        if self.is_autoencoder(path):
            return ()
        found = ["spectra"] if (path / TOKENIZER).is_file() else ["spectra", "playground"]
        return (*found, "mistakes") if wrong else tuple(found)

    def name_of(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def audited_files(found: FolderContents, past: Past, only: str = "") -> dict[str, AuditedFiles]:
    """Return where each model lies that was audited, or one of them, with what was read then."""
    wanted = {only: found.models[only]} if only in found.models else {} if only else found.models
    return {
        key: AuditedFiles(path, last.weights_sha256, last.files)
        for key, path in wanted.items()
        for last in past.audits.get(found.names[key], ())[:1]
    }


def checked(name: str, kind: object, document: Mapping[str, object]) -> SavedReport[Any]:
    try:
        if not isinstance(kind, str) or kind not in KINDS:
            raise FileError(f"a document of kind {kind!r:.40} is none that this release reads.")
        return KINDS[kind](document)
    except BilensError as error:
        raise FileError(f"{name}: {error}") from None
