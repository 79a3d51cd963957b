"""The folder in the explorer: models, their audits, and reports of other kinds."""

import hashlib
import os
from typing import Annotated, Literal

from msgspec import Meta

from bilens.records import (
    Change,
    Count,
    Document,
    Entry,
    Finding,
    JudgedCondition,
    Measured,
    PastAudit,
    Record,
)

RunState = Literal["ready", "refused", "running", "done", "failed", "cancelled"]
# Why the explorer does not run a command, and why it ended one; sentences are `explorer.why.…`.
Refused = Literal["none", "command", "option", "start", "gone", "outside", "many", "unreadable"]
Failed = Literal["", "late"]


Key = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]  # of a model or a report, in addresses


def id_of(name: str) -> str:
    """Return by what a path from the folder is asked for: no part of it is in an address."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


class ModelRow(Record, frozen=True):
    """One model of the folder, with how its last audit ended."""

    id: str  # by which it is asked for; no path of the folder is ever part of an address
    name: str  # its path from the folder
    there: bool  # false where it was audited and is gone since
    audits: Count
    last: PastAudit | None  # null where it was never audited
    changes: tuple[Change, ...]  # since the audit before
    failures: tuple[Count, ...]  # rules that failed, of the last audits, the oldest first
    numbers: tuple[float | None, ...]  # of the watched rule, of these audits; null: not judged
    accepted: tuple[str, ...]  # rules whose failing is accepted today
    # whether its files are others than those of its last audit, which says nothing of them then
    changed: bool = False


class ReportRow(Record, frozen=True):
    """One report that lies in the folder as a JSON file."""

    id: str
    name: str  # its path from the folder
    kind: str  # of the document; of an audit how its model was read


class Overview(Document, frozen=True, kw_only=True):
    """Everything that was found in a folder."""

    kind: Literal["overview"] = "overview"
    folder: str  # its name alone
    models: tuple[ModelRow, ...]  # the worst first
    reports: tuple[ReportRow, ...]
    truncated: bool  # whether more lies there than was looked at
    watched: str  # the rule whose numbers the rows have
    watchable: tuple[str, ...]  # rules that measured a number in a last audit
    writable: bool  # whether anything can be said
    digest: str  # other where a model, a report, an audit or an entry is


class Nothing(Record, frozen=True, forbid_unknown_fields=True):
    """An empty object, which is sent where a click says all."""


class AuditRun(Document, frozen=True, kw_only=True):
    """The repeated audit of a model: whether it may be started, and how it goes or went."""

    kind: Literal["audit_run"] = "audit_run"
    state: RunState  # "ready": it may be started; "refused": it may not
    why: Refused | Failed = ""  # what bilens itself says of that
    about: str = ""  # of what that is said
    said: str = ""  # the last line that the command wrote, of one that failed why
    code: int | None = None  # exit code; of a signal, its negative number
    report: str | None = None  # address of the audit that it recorded
    done: Count = 0  # of `total` steps that the command told last
    total: Count = 0  # 0 where it tells none


class ModelPage(Document, frozen=True, kw_only=True):
    """One model: its audits, and what people said of it."""

    kind: Literal["model"] = "model"
    model: ModelRow
    audits: tuple[PastAudit, ...]  # the last one first
    entries: tuple[Entry, ...]  # the last one first
    measured: tuple[Measured, ...]  # of all audits, the last one first
    writable: bool  # whether anything can be said
    digest: str  # other where its files, its audits or its entries are
    # of the last audit: what fails, asks for caution, or was accepted or rejected
    findings: tuple[Finding, ...] = ()
    conditions: tuple[JudgedCondition, ...] = ()  # of the last audit, those that failed
    reports: tuple[ReportRow, ...] = ()  # that lie in its folder
    views: tuple[str, ...] = ()  # that it can be looked at in; none of an autoencoder
    run: AuditRun | None = None  # of auditing it again; null where it is gone


class State(Document, frozen=True, kw_only=True):
    """Whether a page is still of today."""

    kind: Literal["state"] = "state"
    digest: str  # of the overview, or of a model
    there: bool  # false where the model is gone
