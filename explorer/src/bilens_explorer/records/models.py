"""The folder in the explorer: models, their audits, and reports of other kinds."""

import hashlib
import os
from typing import Annotated, Any, Literal

from msgspec import Meta

from bilens.api import Refused
from bilens.records import (
    LARGEST_WHOLE,
    Change,
    Count,
    Document,
    Entry,
    FileDifference,
    Finding,
    JudgedCondition,
    Measured,
    ModelState,
    PastAudit,
    Record,
    Trace,
    WholeDifference,
)

# `audit`: of the history, as it was made here; `others`: of weights that do not lie here
PaperState = Literal["audit", "these", "weights", "others", "unread"]
RunState = Literal["ready", "refused", "running", "done", "failed", "cancelled"]
Failed = Literal["", "late"]  # why it ended one; sentences are `explorer.why.…`
KEY = "^[0-9a-f]{16}$"
Key = Annotated[str, Meta(pattern=KEY, description="of a model or a report")]
Number = Annotated[int, Meta(ge=1, le=LARGEST_WHOLE, description="of an audit, or in a trace")]


def id_of(name: str) -> str:
    """Return by what a path from the folder is asked for: no part of it is in an address."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


class Approval(Record, frozen=True):
    """A judgement that holds today: a rule whose failing is accepted, or the model as such."""

    rule: Annotated[str, "its name; `decision`: the model as such"]
    author: Annotated[str, "who accepted it"]
    day: Annotated[str, "when, UTC"]
    until: Annotated[str | None, "its last day; null for no end"]
    model: Annotated[str, "of which it was said: another one is an unchanged copy"]
    known_by: Annotated[str, "header in which a proxy named the author; empty: typed"] = ""


class ModelRow(Record, frozen=True):
    """One model of the folder: what lies there now, and how its last audit ended."""

    id: Annotated[str, "by which it is asked for; no path of the folder is ever part of an address"]
    name: Annotated[str, "its path from the folder"]
    state: Annotated[ModelState, "what lies there, held against the last audit"]
    audits: Annotated[Count, "how many there are"]
    last: Annotated[PastAudit | None, "null where it was never audited"]
    changes: Annotated[tuple[Change, ...], "since the audit before"] = ()
    approvals: Annotated[tuple[Approval, ...], "of what lies there, that hold today"] = ()
    differences: Annotated[tuple[FileDifference, ...], "from what was audited last"] = ()
    read: Annotated[str, "when its files were read, UTC; empty where they were not"] = ""

    @property
    def there(self) -> bool:
        return self.state != "gone"

    @property
    def answered(self) -> PastAudit | None:
        """The last audit, where it is of what lies there."""
        return self.last if self.state == "audited" else None

    @property
    def accepted(self) -> set[str]:
        """The rules whose failing is accepted today."""
        return {one.rule for one in self.approvals}


class ReportRow(Record, frozen=True):
    """One report that lies in the folder as a JSON file; only the history says what is decided."""

    id: Annotated[str, "by which it is asked for"]
    name: Annotated[str, "its path from the folder"]
    kind: Annotated[str, "of the document; of an audit how its model was read"]
    state: Annotated[PaperState | None, "what it is; null where it was not opened for that"] = None
    audit: Annotated[Count, "which it is of the history; 0 where it is none"] = 0


class Overview(Document, frozen=True, kw_only=True):
    """Everything that was found in a folder."""

    kind: Annotated[Literal["overview"], "of the document"] = "overview"
    folder: Annotated[str, "its name alone"]
    models: Annotated[tuple[ModelRow, ...], "the worst first"]
    reports: Annotated[tuple[ReportRow, ...], "that lie in the folder, by name"]
    truncated: Annotated[bool, "whether more lies there than was looked at"]
    writable: Annotated[bool, "whether anything can be said"]
    digest: Annotated[str, "other where a model, a report, an audit or an entry is"]
    day: Annotated[str, "of today, UTC; never before the last one of the history"] = ""
    clock: Annotated[str, "the day that the clock tells"] = ""


class AuditRead(Record, frozen=True, forbid_unknown_fields=True):
    """The audit that is shown beside a click on Audit again, or on its Cancel."""

    audit: Annotated[Count, "its number"]


class AuditRun(Document, frozen=True, kw_only=True):
    """The repeated audit of a model: whether it may be started, and how it goes or went."""

    kind: Annotated[Literal["audit_run"], "of the document"] = "audit_run"
    state: Annotated[RunState, "`ready`: it may be started; `refused`: it may not"]
    why: Annotated[Refused | Failed, "what bilens itself says of that"] = ""
    about: Annotated[str, "what that is said of"] = ""
    said: Annotated[str, "the last line that the command wrote, of one that failed why"] = ""
    code: Annotated[int | None, "exit code; of a signal, its negative number"] = None
    report: Annotated[str | None, "address of the audit that it recorded"] = None
    done: Annotated[Count, "steps of `total`, as the command said last"] = 0
    total: Annotated[Count, "steps of all; 0 where it tells none"] = 0


class ModelPage(Document, frozen=True, kw_only=True):
    """One model: its audits, and what people said of it."""

    kind: Annotated[Literal["model"], "of the document"] = "model"
    model: Annotated[ModelRow, "as the first page shows it"]
    audits: Annotated[tuple[PastAudit, ...], "the last one first"]
    entries: Annotated[tuple[Entry, ...], "the last one first"]
    measured: Annotated[tuple[Measured, ...], "of all audits, the last one first"]
    judged: Annotated[tuple[Entry, ...], "that judge its last audit, also those of copies"]
    writable: Annotated[bool, "whether anything can be said"]
    digest: Annotated[str, "other where its files, its audits or its entries are"]
    day: Annotated[str, "of today, UTC; never before the last one of the history"] = ""
    before: Annotated[str, "id of the model where what was audited lies now; empty if none"] = ""
    since: Annotated[WholeDifference | None, "from that, where a page asks"] = None
    findings: Annotated[tuple[Finding, ...], "of the last audit, but those that pass"] = ()
    conditions: Annotated[tuple[JudgedCondition, ...], "of the last audit, those that failed"] = ()
    unread: Annotated[bool, "whether the document of the last audit cannot be read"] = False
    reports: Annotated[tuple[ReportRow, ...], "that lie in its folder"] = ()
    views: Annotated[tuple[str, ...], "that it can be looked at in; none of an autoencoder"] = ()
    again: Annotated[str, "that repeats its last audit in this folder; empty if unknown"] = ""
    run: Annotated[AuditRun | None, "of auditing it again; null where it is gone"] = None


class State(Document, frozen=True, kw_only=True):
    """Whether a page is still of today."""

    kind: Annotated[Literal["state"], "of the document"] = "state"
    digest: Annotated[str, "of the overview, or of a model"]
    there: Annotated[bool, "false where the model is gone"]


class TracePage(Document, frozen=True, kw_only=True):
    """A trace that lies in the folder, with the model that it belongs to."""

    kind: Annotated[Literal["trace page"], "of the document"] = "trace page"
    report: Annotated[str, "its id"]
    name: Annotated[str, "its path from the folder"]
    model: Annotated[str | None, "id of the model of those weights; null where the folder has none"]
    trace: Annotated[Trace, "the document itself"]
    paper: Annotated[ReportRow, "what it is: nobody says that it was made here"]


class CircuitGraph(Record, frozen=True, rename={"parameters": "qParams"}):
    """A circuit in the layout of circuit-tracer, with the labels that people gave."""

    metadata: Annotated[dict[str, Any], "what the graph is of"]
    parameters: Annotated[dict[str, Any], "what is shown of it at first"]
    nodes: Annotated[tuple[dict[str, Any], ...], "latents, with the labels that people gave"]
    links: Annotated[tuple[dict[str, Any], ...], "what one adds to another"]
