"""A folder that is served: what lies in it, its history, and the documents that are asked for."""

import os
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any, TypeVar

from msgspec import structs

from bilens import AuditReport, History
from bilens.api import (
    AuditedFiles,
    RefusedError,
    RegisterState,
    RepeatedCommand,
    now,
    recorded_base,
    repeat_command,
)
from bilens.base.errors import BilensError, CheckpointError, FileError, UsageError
from bilens.findings import JUDGED, RULE
from bilens.records import EARLIER_KINDS, PastAudit, displayable
from bilens.report import SavedReport
from bilens_explorer.audit_runs import AuditRuns, repeated_line
from bilens_explorer.documents import Judged, check_report, read_report, without_rows
from bilens_explorer.inside import MissingError, cut_paths, require_found, state_of
from bilens_explorer.open_models import OpenModel, OpenModels, load_as_audited, reading_options
from bilens_explorer.overview import (
    NEVER,
    Past,
    digest,
    mark_of_history,
    overview_of,
    reports_of,
    row_of,
    without_notes,
)
from bilens_explorer.papers import Papers
from bilens_explorer.records.models import (
    AuditRead,
    AuditRun,
    Key,
    ModelPage,
    ModelRow,
    Overview,
    ReportRow,
    State,
    id_of,
)
from bilens_explorer.register import UNREAD, Register
from bilens_explorer.walk import FolderContents, find_views, place_of, walk

Report = TypeVar("Report", bound=SavedReport[Any])
FRESH = 2.0  # seconds for which a walk is not repeated


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
        self._past, self._remembering, self._drawing = Past(), Lock(), Lock()
        self._mark: Hashable = None  # of the history that was read
        self._seen: Hashable = None  # of what `today` was asked
        self._day = ""  # and what it said
        self._verdicts: dict[PastAudit, Judged] = {}  # a history may be put in place of another
        self._models = OpenModels(self.folder)
        self._register = Register(
            self.folder,
            lambda path: load_as_audited(path, self._options(path)).read_sha256,
            patience,
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
        named: Iterable[str] = ()
        with suppress(BilensError):  # a history that cannot be read is told where it is asked for
            named = self.past().audits
        found = walk(self.folder, named)
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
            if (mark := mark_of_history(self.history)) != self._mark:
                self._past, self._mark = self._past.read_on(self.history), mark
            past = self._past.for_others() if self._exporting else self._past
            chosen = self._chosen and [self._found.names[key] for key in self._chosen[0]]
            return past if chosen is None else past.of_models(chosen)

    def today(self) -> str:
        """Return the day by which acceptances end: no clock that is put back revives one."""
        seen = self._mark, now()[:10]
        if seen != self._seen:
            self._seen, self._day = seen, self.history.today()
        return self._day

    def overview(self) -> Overview:
        """All models with what lies there now, the worst first; and all reports."""
        found, past = self.last_walk(), self.past()
        lying, day = tuple(self._lying(found, past).items()), self.today()
        with self._drawing:  # it is made once, for all who ask
            writable, clock = self.history.writable, now()[:10]
            return overview_of(self.folder.name, writable, found, past, clock, day, lying)

    def _lying(self, found: FolderContents, past: Past, only: str = "") -> dict[str, RegisterState]:
        """Return how the models that were audited lie there now; not of those that lie outside."""
        return self._register.look(self._audited_files(found, past, only))

    def _audited_files(
        self, found: FolderContents, past: Past, only: str = ""
    ) -> dict[str, AuditedFiles]:
        """Return where audited models lie, with what was read then; none that lead out of here."""
        known = {id_of(name): last[0] for name, last in past.audits.items() if last}
        places = {
            key: found.models.get(key) or place_of(self.folder, one.model)
            for key, one in known.items()
            if only in ("", key)
        }
        return {
            key: self._audited(path, known[key].weights_sha256, known[key].files, past)
            for key, path in places.items()
            if path is not None
        }

    def _audited(
        self, path: Path, sha256: str, files: Sequence[tuple[str, str]], past: Past
    ) -> AuditedFiles:
        base = recorded_base(past.commands.get(self.name_of(path), ""), self.folder)
        return AuditedFiles(path, sha256, (*files,), base)

    def is_open_as(self, key: str, weights_sha256: str, files: Mapping[str, str]) -> bool:
        """Return whether what was read then is the model as it is opened, its weights first."""
        with suppress(BilensError):
            if self.opened(key).model.read_sha256 == weights_sha256:
                return self._lies_as(self._found.models[key], weights_sha256, [*files.items()])
        return False

    def looked_at(self, key: Key) -> ModelPage:
        """One model, whose files are read again where that was a while ago."""
        found, past = self.last_walk(), self.past()
        for one in self._audited_files(found, past, key).values():
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
        entries = without_notes(entries) if self._exporting else entries
        lying = self._lying(found, past, key).get(key, UNREAD if path is None else NEVER)
        day = self.today()
        row = row_of(key, name, past, day, lying)
        last = Judged() if row.answered is None else self._judged(row.answered)
        said = None if row.last is None else past.people(name, row.last.identity, day)
        failed = tuple(one for one in last.conditions if one.failed)
        judged = () if said is None else tuple(one for one in said.entries if one.action in JUDGED)
        told = {one.subject.removeprefix(RULE) for one in judged} | {one.rule for one in failed}
        reports = () if path in (None, self.folder) else reports_of(found, path)
        numbers = [past.measured.get(one.number, {}) for one in audits]
        return ModelPage(
            model=row,
            reports=tuple(self.paper(one.id) for one in reports),
            day=day,
            before=self._where_now(row),
            views=() if path is None else find_views(self.folder, path, wrong=last.wrong),
            audits=audits,
            entries=entries,
            judged=judged,
            findings=tuple(
                one for one in last.findings if one.outcome in ("fail", "warn") or one.rule in told
            ),
            conditions=failed,
            unread=last.unread,
            measured=tuple(one for each in numbers for one in each.values()),
            writable=self.history.writable,
            digest=self._digest(key, name, found, past, row),
            again=repeated_line(past.commands.get(name, ""), self.folder, name),
            run=None if path is None or self._exporting else self.audit_run(key),
        )

    def _judged(self, audit: PastAudit) -> Judged:
        """Return the findings of an audit, or nothing where it cannot be read."""
        if audit not in self._verdicts:
            try:
                record = self.audit(audit.number).record
            except (FileError, CheckpointError):
                return Judged(unread=True)
            self._verdicts[audit] = Judged.from_audit(record)
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

    def paper(self, key: str) -> ReportRow:
        """Return the row of a report of the folder, with its origin."""
        found, audits = self.last_walk(), self.past().audits.values()
        path, kind = require_found(found.reports.get(key))
        row = ReportRow(key, self.name_of(path), kind)
        return self._papers.describe(row, path, found.models.values(), audits)

    def _where_now(self, row: ModelRow) -> str:
        """Return the id of the model where the files that were audited last lie now, if any."""
        if row.state != "changed" or row.last is None:
            return ""
        found = map(self.name_of, self._register.where_all(row.last.files))
        return next((id_of(name) for name in found if name != row.name), "")

    def _digest(self, key: str, name: str, found: FolderContents, past: Past, row: ModelRow) -> str:
        files: object = None
        with suppress(BilensError, OSError, KeyError):
            files = state_of(self.folder, found.models[key])
        told = past.audits.get(name), past.entries_on(name)
        return digest(files, *told, row.state, row.differences, row.approvals)

    def opened(self, key: str) -> OpenModel:
        """Return a model, opened as its last audit read it; BilensError where that cannot be."""
        path = require_found(self.last_walk().models.get(key))
        return self._models.get(path, displayable(self.name_of(path)), self._options(path))

    def _options(self, path: Path) -> dict[str, Any]:
        name, past = self.name_of(path), self.past()
        command = past.commands.get(name, "")
        options = reading_options(command, self.folder, path)
        if "output_names" not in options and command:
            last, given = past.audits[name][0], "--classes" in command
            if not given and not command.startswith("bilens audit "):  # in Python
                given = self._lies_as(path, last.weights_sha256, last.files)
            if given and (names := self._judged(last).names):
                options["output_names"] = [*names]
        return options

    def _lies_as(self, path: Path, sha256: str, files: Sequence[tuple[str, str]]) -> bool:
        """Tell whether the files of a model are those that were read then."""
        then = self._audited(path, sha256, files, self.past())
        return self._register.compare(then)[1].state == "audited"

    def report(self, key: str) -> SavedReport[Any]:
        """Return a report that lies in the folder, as it is told.

        What people said is not what it says, but what the history does, where it is an audit of it.
        """
        report = self.read_report(key)
        return self._told(report, self.paper(key).audit if isinstance(report, AuditReport) else 0)

    def read_report(self, key: str) -> SavedReport[Any]:
        """Return a report with the places that it names; it may be damaged: then FileError."""
        path, kind = require_found(self.last_walk().reports.get(key))
        name = self.name_of(path)
        with self._reading:
            return read_report(self.folder, path, name, kind)

    def audit(self, number: int) -> AuditReport:
        """Return the report of an audit of the history."""
        rows = self.past().rows[0]
        if require_found(next((one for one in rows if one.number == number), None)).unread:
            raise CheckpointError(f"audit {number}: its row in the history cannot be read.")
        with self._reading:
            document = self.history.document(number)
            kind = document.get("read_as") or EARLIER_KINDS.get(str(document.get("kind")))
            found = check_report(f"audit {number}", kind, document)
            del document
        assert isinstance(found, AuditReport), "an audit is kept, and nothing else"
        return self._told(found, number)

    def _told(self, report: Report, number: int = 0) -> Report:
        """Return a report as its reader may see it: without the machine's places.

        What people said is that which the history says of its audit `number`. For readers elsewhere
        notes are left out, and rows of data unless they are wanted.
        """
        report.record = cut_paths(report.record, self.folder)
        if not self.shows_rows:
            report.record = without_rows(report.record)
        if not isinstance(report, AuditReport):
            return report
        past, people = self.past(), None
        for audit in (one for one in past.rows[0] if one.number == number):
            identity = report.record.reproduce.identity
            people = past.people(audit.model, identity, self.today())
        if people is not None and self._exporting:
            entries = without_notes(people.entries)
            people = structs.replace(people, entries=entries) if entries else None
        return report.with_people(people)

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

    def audit_again(self, key: Key, body: AuditRead) -> AuditRun:
        """Audit a model again: the command of its last audit, where the page shows that one."""
        require_found(self.last_walk().models.get(key))
        audits = self.past().audits.get(self.last_walk().names[key], ())
        if audits and audits[0].number != body.audit:
            raise RefusedError("another")
        return self.runs.start(key, self._recorded_command(key))

    def cancel_audit(self, key: Key, body: AuditRead) -> AuditRun:  # noqa: ARG002 - any run ends
        """End the audit of a model that was started."""
        self.runs.cancel(key)
        return self.audit_run(key)

    def _recorded_command(self, key: str) -> RepeatedCommand:
        name, commands = self.last_walk().names[key], self.past().commands
        audits = self.past().audits.get(name, ())
        if name not in commands or (audits and audits[0].unread):  # which the page says elsewhere
            raise RefusedError("none")
        return repeat_command(commands[name], self.folder, name)

    def name_of(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()
