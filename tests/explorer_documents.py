"""Made-up views of the explorer, with every ending that they can have."""

from typing import get_args

from bilens.records.explorer import ModelPage, ModelRow, Overview, ReportRow
from bilens.records.history import Action, Entry, PastAudit
from bilens.serve.folder import KINDS


def past(number: int, failed: tuple[str, ...] = (), answer: str = "use") -> PastAudit:
    day = f"2027-01-{number:02}T10:00:00Z"
    passed = not failed
    return PastAudit(
        number,
        "mnist",
        "audit",
        day,
        "0.1.0",
        "ab" * 32,
        "",
        "bilens audit",
        answer,
        passed,
        failed,
    )


AUDITS = (past(2, ("exact", "complete"), "do_not_use"), past(1, ("coverage",)))
ROW = ModelRow(
    "1a", "mnist", True, 2, AUDITS[0], ("complete", "exact"), ("coverage",), (1, 2), ("exact",)
)
NEVER = ModelRow("2b", "new", True, 0, None, (), (), (), ())
GONE = ModelRow("3c", "gone", False, 1, past(3), (), (), (0,), ())
OVERVIEW = Overview(
    folder="runs",
    models=(ROW, GONE, NEVER),
    reports=tuple(ReportRow(kind, f"{kind}.json", kind) for kind in KINDS),
    truncated=True,
)
EMPTY = Overview(folder="runs", models=(), reports=(), truncated=False)
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
    )
    for action in get_args(Action)
)
MODEL = ModelPage(model=ROW, audits=AUDITS, entries=ENTRIES)
UNKNOWN = ModelPage(model=NEVER, audits=(), entries=())
