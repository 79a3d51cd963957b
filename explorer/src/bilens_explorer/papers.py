"""Reports that lie in the folder: which are audits of the history, and which only papers.

Anybody can lay a report beside a model. So each is held against the history, and the files that it
says it is of against those that lie there; it decides nothing.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from time import monotonic
from typing import Any

from msgspec import structs

from bilens import AuditReport, History
from bilens.api import AuditedFiles
from bilens.base.errors import BilensError, FileError
from bilens.io import mark_of
from bilens.records import Audit, PastAudit, Record, Source, json_text
from bilens.report import SavedReport
from bilens_explorer.inside import cut_paths
from bilens_explorer.records.models import ReportRow
from bilens_explorer.register import Register

Audits = Iterable[tuple[PastAudit, ...]]  # of each model
LONGEST = 3600.0  # seconds, where no page waits


class Papers:
    """The reports of a folder; `read` reads one by its id."""

    def __init__(
        self, history: History, register: Register, read: Callable[[str], SavedReport[Any]]
    ) -> None:
        self._history, self._register, self._read = history, register, read
        self._told: dict[str, tuple[object, Source, str]] = {}  # by id: mark, source and digest
        self._recorded: dict[PastAudit, tuple[str, str]] = {}  # digests

    def describe(
        self, row: ReportRow, path: Path, models: Collection[Path], audits: Audits
    ) -> ReportRow:
        """Return a report with what it is: of which audit, and whether of what lies beside it."""
        try:
            source, digest = self._facts(row.id, path)
            sha256 = source.weights_sha256
            asked = [one for each in audits for one in each if one.weights_sha256 == sha256]
            asked = sorted(asked, key=lambda one: -one.number)
            until = monotonic() + (self._register.patience or LONGEST)
            number = next((one.number for one in asked if digest in self._digests(one, until)), 0)
        except BilensError:
            return structs.replace(row, state="unread")
        here = [one for one in models if path.parent in (one, one.parent)]
        here = here or self._register.where(sha256)
        files = (*source.files.items(),)
        known = [self._register.lies_at(one, sha256) for one in here]
        if not sha256 or not here:
            unknown = sha256 and None in (self._register.lies_at(one, sha256) for one in models)
            state = "unread" if unknown else "others"
        elif not files and None not in known:  # it names no files
            state = "these" if any(known) else "others"
        else:
            wanted = {f"{row.id}/{one.name}": AuditedFiles(one, sha256, files) for one in here}
            lying = self._register.look(wanted).values()
            found = {"audited" if not files and sha256 in x.hashes else x.state for x in lying}
            other = "unread" if "unread" in found else "others"
            state = "these" if "audited" in found else other
        if state == "these":
            state = "audit" if number else "these" if files else "weights"
        return structs.replace(row, state=state, audit=number)

    def _facts(self, key: str, path: Path) -> tuple[Source, str]:
        mark = mark_of(str(path))
        if key not in self._told or self._told[key][0] != mark:
            record = self._read(key).record
            self._told[key] = mark, record.source, digest_of(record)
        return self._told[key][1:]

    def _digests(self, audit: PastAudit, until: float) -> tuple[str, str]:
        """Return the digests of the document of an audit, and of what the explorer tells of it."""
        if audit not in self._recorded:
            if monotonic() > until:  # the next look goes on from here
                raise FileError("not all audits of these weights are read yet.")
            record = AuditReport(self._history.document(audit.number)).record
            told = cut_paths(record, self._history.folder)
            self._recorded[audit] = digest_of(record), digest_of(told)
        return self._recorded[audit]


def digest_of(record: Record) -> str:
    """Return a hash of a document, without what people said, which is kept by itself."""
    if isinstance(record, Audit):
        record = structs.replace(record, people=None)
    return hashlib.sha256(json_text(record).encode()).hexdigest()
