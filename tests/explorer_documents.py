"""Made-up views of the explorer, with every ending that they can have."""

from typing import get_args

import msgspec
from msgspec import structs

from bilens.findings.rules.judgements import JUDGED
from bilens.findings.rules.registry import REGISTRY
from bilens.records.common import Finding, JudgedCondition
from bilens.records.history import (
    Action,
    Change,
    Direction,
    Entry,
    FileChange,
    FileDifference,
    Measured,
    PastAudit,
)
from bilens.records.layer_readings import Difference
from bilens.report.reports import AuditReport, TraceReport
from bilens_explorer.pages import MODEL_VIEWS
from bilens_explorer.records.model_comparison import ComparedRule, ModelComparison
from bilens_explorer.records.models import (
    Approval,
    AuditRun,
    Failed,
    ModelPage,
    ModelRow,
    Overview,
    PaperState,
    Refused,
    ReportRow,
    RunState,
    TracePage,
)
from bilens_explorer.report_pages import ShownReport, WrongAnswers
from bilens_explorer.walk import KINDS
from layer_audit_documents import make_comparison
from report_documents import make_document
from table_documents import make_table
from trace_documents import make_trace


def past(number: int, failed: tuple[str, ...] = (), answer: str = "use") -> PastAudit:
    day = f"2027-01-{number:02}T10:00:00Z"
    passed = not failed
    return PastAudit(
        number,
        "mnist",
        "classes",
        day,
        "0.1.0",
        f"{number:02}" * 32,
        "",
        "bilens audit",
        answer,
        passed,
        failed,
    )


CHANGES = (
    Change("trigger", "worse", "info", "fail", 3.0, 9.0),
    Change("exact", "worse", "", "warn", None, 0.1),
    Change("overfitting", "better", "info", "info", 0.2, 0.1),
    Change("coverage", "unjudged", "fail", "", 0.5, None),
    Change("accuracy", "elsewhere", "pass", "warn", 0.9, 0.8),
)
AUDITS = (past(2, ("exact", "complete"), "do_not_use"), past(1, ("coverage",)))
APPROVALS = (
    Approval("exact", "Ada", "2027-01-01", "2027-03-31", "mnist"),
    Approval("decision", "Kei", "2027-01-01", None, "copy"),
)
DIFFERENCES = tuple(FileDifference(f"{one}.bin", one) for one in get_args(FileChange))
READ = "2027-01-02T10:00:00Z"
ROW = ModelRow("1a", "mnist", "audited", 2, AUDITS[0], CHANGES, APPROVALS, (), READ)
NEVER = ModelRow("2b", "new", "never", 0, None)
GONE = ModelRow("3c", "gone", "gone", 1, past(3))
CHANGED = ModelRow("5e", "changed", "changed", 1, past(5), differences=DIFFERENCES * 2)
UNSEEN = ModelRow("6f", "unread", "unread", 1, past(6))
STEADY = ModelRow("4d", "steady", "audited", 2, past(4), read=READ)
RULES = tuple(rule.id for rule in REGISTRY)
OVERVIEW = Overview(
    folder="runs",
    models=(ROW, GONE, NEVER, STEADY, CHANGED, UNSEEN),
    reports=tuple(ReportRow(kind, f"{kind}.json", kind) for kind in KINDS),
    truncated=True,
    writable=False,
    digest="d",
    day="2027-01-02",
    clock="2027-01-01",
)
EMPTY = structs.replace(OVERVIEW, models=(), reports=(), truncated=False)
DAY = "2027-01-01T10:00:00Z"
ENTRIES = tuple(
    Entry(
        1,
        "2027-01-01T10:00:00Z",
        "Ada",
        action,
        "mnist",
        "ab" * 32,
        "rule:exact",
        "why",
        "2027-03-31",
        known_by="X-Forwarded-User",
        unread=action == "withdraw",
    )
    for action in get_args(Action)
)
MEASURED = tuple(
    Measured(audit.number, rule, "pass", 0.5 / audit.number, asked=False)
    for audit in AUDITS
    for rule in dict.fromkeys(RULES)
)
FINDINGS = (Finding("complete", "fail", {"classes": 3, "incomplete": "0", "residual": 1e-3}),)
CONDITIONS = (JudgedCondition("r2<0.9", "r2", None, True),)
MODEL = ModelPage(
    model=ROW,
    audits=AUDITS,
    entries=ENTRIES,
    findings=FINDINGS,
    conditions=CONDITIONS,
    measured=MEASURED,
    judged=tuple(one for one in ENTRIES if one.action in JUDGED),
    writable=True,
    digest="d",
    views=MODEL_VIEWS,
    reports=tuple(
        ReportRow(state, f"{state}.json", "classes", state, 1) for state in get_args(PaperState)
    ),
)
UNREAD = structs.replace(
    MODEL, entries=(), judged=(), findings=(), conditions=()
)  # its audit failed
CALM = structs.replace(UNREAD, model=STEADY)
DAMAGED = structs.replace(
    UNREAD, model=structs.replace(ROW, state="unread", last=structs.replace(AUDITS[0], unread=True))
)
UNKNOWN = structs.replace(
    MODEL,
    model=NEVER,
    views=("spectra",),
    reports=(),
    audits=(),
    entries=(),
    judged=(),
    measured=(),
    findings=(),
    conditions=(),
)
CODER = structs.replace(UNKNOWN, views=())
FIRST = structs.replace(MODEL, model=STEADY, audits=AUDITS[1:], again="bilens audit -- m")
LOST = structs.replace(FIRST, model=GONE)
SAME = structs.replace(MODEL, model=STEADY)
SINCE = msgspec.convert(make_comparison()["difference"], Difference).whole
REPLACED = structs.replace(MODEL, model=CHANGED, before="4d", since=SINCE)
UNSEEN_PAGE = structs.replace(MODEL, model=UNSEEN)

ENDED = (None, *get_args(Direction))
COMPARED = ModelComparison(
    a=ROW,
    b=STEADY,
    rules=tuple(ComparedRule("exact", MEASURED[0], None, one) for one in ENDED),
    difference=None,
    left_out=0,
    r_squared=None,
    why="why",
)
WEIGHTS = structs.replace(
    COMPARED,
    b=NEVER,
    left_out=2,
    r_squared=0.95,
    difference=msgspec.convert(make_comparison()["difference"], Difference),
)


CODES = (2, 3, 4, 5, 70, 99, -9, -15)
WHYS = (*get_args(Failed)[1:], *get_args(Refused))
RUNS = (
    *(AuditRun(state=state, said="Layer 1: 3/9", total=9) for state in get_args(RunState)[2:]),
    *(AuditRun(state=state) for state in ("ready", "running")),
    AuditRun(state="done", report="/audits/1"),
    *(AuditRun(state="failed", code=code) for code in CODES),
    *(AuditRun(state="failed", why=why, about="1") for why in WHYS),
    *(AuditRun(state="refused", why=why, about="1") for why in get_args(Refused)),
)
WRONG = WrongAnswers(
    structs.replace(MODEL, views=(*MODEL_VIEWS, "mistakes")),
    AUDITS[0],
    AuditReport(make_document()).record.performance,
)
WRONG_NUMBERS = WRONG._replace(performance=AuditReport(make_table(classes=1)).record.performance)
TRACE_PAGE = TracePage(
    report="4d",
    name="trace.json",
    model="1a",
    trace=TraceReport(make_trace()).record,
    paper=ReportRow("4d", "trace.json", "trace", "these"),
)
EARLIER_AUDIT = ShownReport(AuditReport(make_document()), CHANGED, number=4)
