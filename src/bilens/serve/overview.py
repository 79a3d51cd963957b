"""What the first page says of each model: how its last audit ended, and what changed since."""

import hashlib
from datetime import date
from functools import lru_cache
from pathlib import Path

from bilens.findings.rules.judgements import Audited, judgements
from bilens.findings.rules.progress import changes
from bilens.findings.rules.registry import rules_asked_for
from bilens.records.explorer import ModelRow, Overview, ReportRow, id_of
from bilens.serve.past import Past
from bilens.serve.walk import Found

SHOWN = 20  # audits in a row's lines
SEVERITY = ("do_not_use", "cannot_judge", "conditions", "use")
WATCHED = ("accuracy", "r_squared", "coverage", "r2")  # at first, the first that is there


@lru_cache(maxsize=4)
def overview_of(
    folder: str,
    writable: bool,
    found: Found,
    past: Past,
    watch: str,
    today: date,
    changed: frozenset[str] = frozenset(),
) -> Overview:
    """Return all models, the worst first, and all reports."""
    rules = watchable(past)
    watched = next((rule for rule in (watch, *WATCHED, *rules) if rule in rules), "")
    known = {id_of(name): name for name in past.audits} | {
        key: found.names[key] for key in found.models
    }
    rows = [
        row_of(key, name, key in found.models, past, watched, today, changed=key in changed)
        for key, name in known.items()
    ]
    return Overview(
        folder=folder,
        models=tuple(sorted(rows, key=severity)),
        reports=reports_of(found),
        truncated=found.truncated,
        watched=watched,
        watchable=rules,
        writable=writable,
        digest=digest_of(found, past, today, changed),
    )


def reports_of(found: Found, folder: Path | None = None) -> tuple[ReportRow, ...]:
    """Return all reports by name, or those in the folder of a model."""
    listed = sorted(found.reports.items(), key=lambda item: found.names[item[0]])
    return tuple(
        ReportRow(key, found.names[key], kind)
        for key, (path, kind) in listed
        if folder in (None, path.parent)
    )


def row_of(
    key: str, name: str, there: bool, past: Past, watched: str, today: date, *, changed: bool
) -> ModelRow:
    audits = past.audits.get(name, ())
    shown = audits[:SHOWN]
    judged = [past.measured.get(one.number, {}) for one in shown]
    moved = changes(shown[1], judged[1], shown[0], judged[0]) if len(shown) > 1 else ()
    audited = Audited.of_past(audits[0], judged[0]) if audits and not changed else Audited()
    standing = judgements(past.entries.get(name, ()), audited, today.isoformat())
    numbers = (one[watched].value if watched in one else None for one in reversed(judged))
    return ModelRow(
        id=key,
        name=name,
        there=there,
        audits=len(audits),
        last=audits[0] if audits else None,
        changes=moved,
        failures=tuple(len(one.failed) for one in reversed(shown)),
        numbers=tuple(numbers),
        accepted=tuple(sorted(rule for rule, (_, how) in standing.items() if how == "accepted")),
        changed=changed,
    )


def severity(row: ModelRow) -> tuple[bool, int, int, str]:
    """Return what models are ordered by: changed ones, the worst of the others, never audited."""
    if row.last is None or row.changed:
        return not row.changed, -1, 0, row.name
    failed = {*row.last.failed} - {*row.accepted}
    return False, SEVERITY.index(row.last.answer), -len(failed), row.name


def watchable(past: Past) -> tuple[str, ...]:
    """Return the rules that measured a number in the last audit of any model."""
    found = {
        rule
        for audits in past.audits.values()
        for rule, one in past.measured.get(audits[0].number, {}).items()
        if one.value is not None
    }
    return tuple(rule for rule in rules_asked_for() if rule in found)


def digest_of(found: Found, past: Past, today: date, changed: frozenset[str]) -> str:
    names = sorted(found.names.values())
    return digest(names, found.truncated, past.file, past.last, today, sorted(changed))


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
