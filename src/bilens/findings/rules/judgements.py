"""The judgements in force: the last word on each rule, the last label of each subject."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from bilens.findings.rules.decision import decision_of
from bilens.findings.rules.progress import MORE_IS_BETTER, SAME, SEVERITY
from bilens.findings.rules.registry import REGISTRY, find_rule
from bilens.findings.rules.rule import GUESS
from bilens.records.audit import Audit
from bilens.records.common import Finding, Identity, JudgedCondition
from bilens.records.history import UNKNOWN, Entry, Measured, PastAudit

RULE: Final = "rule:"  # what the subject of a finding begins with
JUDGED: Final = ("accept", "reject", "withdraw")
# `moved`: accepted of another identity; `unknown`: of one that was not kept; `worse`: of a better
# value; `inherited`: accepted of another model of the very same identity
Judgement = Literal["accepted", "inherited", "expired", "moved", "unknown", "worse", "rejected"]
WHOLE: Final = "decision"  # judged like a rule: the model as such, as its decision was
ENDS: Final = {"use": "pass", "do_not_use": "fail", "cannot_judge": "fail"}  # else it warns
ON_RULES: Final = {WHOLE, *(rule.id for rule in REGISTRY)}
Ended = tuple[str, float | None]  # how a rule ended, also as a condition, and its number


@dataclass(frozen=True)
class AuditedModel:
    """The audit that acceptances are compared with: its identity, and how each rule ended."""

    kind: str = ""  # how it was read
    identity: Identity | None = None
    rules: Mapping[str, Ended] = field(default_factory=dict)

    @classmethod
    def of_past(cls, audit: PastAudit | None, measured: Mapping[str, Measured]) -> "AuditedModel":
        """Return an audit of a history, with what its rules measured."""
        if audit is None:
            return cls()
        ended: dict[str, Ended] = {WHOLE: (ENDS.get(audit.answer, "warn"), None)}
        ended |= {rule: (one.outcome, one.value) for rule, one in measured.items()}
        return cls(audit.kind, audit.identity, failed_too(ended, audit.failed))

    @classmethod
    def of_record(cls, record: Audit) -> "AuditedModel":
        measured = measure_rules(record.read_as, record.verdict, record.conditions or ())
        ended = failed_too(measured, failed_rules(record))
        ended[WHOLE] = ENDS.get(decision_of(record).answer, "warn"), None
        return cls(record.read_as, record.reproduce.identity, ended)


def failed_too(ended: Mapping[str, Ended], failed: Iterable[str]) -> dict[str, Ended]:
    """Return how rules ended, with those that fail as conditions or forbid the use as failed."""
    found = {rule: ("fail", ended.get(rule, ("", None))[1]) for rule in failed}
    return {**ended, **found}


def measure_rules(
    read_as: str, verdict: Iterable[Finding], conditions: Iterable[JudgedCondition]
) -> dict[str, Ended]:
    """Return how each rule ended and the number that conditions compare; of conditions as well."""
    found: dict[str, Ended] = {one.rule: ("", None) for one in conditions}
    for finding in verdict:
        rule = find_rule(finding.rule, read_as)
        value = finding.values.get((rule and rule.number) or "")
        number = float(value) if isinstance(value, int | float) else None
        found[finding.rule] = finding.outcome, number
    return found


def failed_rules(record: Audit) -> tuple[str, ...]:
    """Return the rules that an audit fails by: those that failed, also as conditions, and guesses.

    A rule that says that answers are no better than guesses does not fail, and forbids the use.
    """
    own = [finding.rule for finding in record.verdict if finding.outcome == "fail"]
    asked = [item.rule for item in record.conditions or () if item.failed]
    made = decision_of(record)
    if made.answer == "do_not_use" and "guess" in made.reasons:
        guesses = {rule.id for rule in REGISTRY if rule.rank == GUESS}
        own += [one.rule for one in record.verdict if one.rule in guesses and one.outcome == "warn"]
    return tuple(dict.fromkeys([*own, *asked]))


def words_on(entries: Sequence[Entry], model: str, identity: Identity | None) -> tuple[Entry, ...]:
    """Return the entries on a model, and the judgements of others of the same identity."""
    same = {one.model for one in entries if one.identity and one.identity.holds_for(identity)}
    return tuple(
        one
        for one in entries
        if one.model == model
        or (one.unread and one.model == UNKNOWN)
        or (one.model in same and one.action in JUDGED and is_on_a_rule(one))
    )


def is_on_a_rule(entry: Entry) -> bool:
    """Return whether an entry is of a finding, or may be: nobody can read of what it is."""
    return entry.unread or entry.subject.startswith(RULE)


def may_be_said(action: str, subject: str) -> bool:
    """Return whether something of this kind is said of a subject: judgements are of known rules."""
    is_open = action not in JUDGED or (action == "withdraw" and not subject.startswith(RULE))
    return is_open or (subject.startswith(RULE) and subject.removeprefix(RULE) in ON_RULES)


def judgements(
    entries: Iterable[Entry], audited: AuditedModel, day: str, model: str = ""
) -> dict[str, tuple[Entry, Judgement]]:
    """Return how each rule stands that was accepted or rejected, and by which entry.

    `entries` are the last one first, which counts; `audited` is the audit that is asked about,
    `day` year-month-day. All are of one model, unless `model` names it: then the last word on
    another one holds for its unchanged copy, too, where nobody has said anything of the copy.
    """
    last: dict[tuple[str, str], Entry] = {}
    ended: set[str] = set()  # models of which a later entry, on any subject, cannot be read
    for entry in entries:
        name = entry.model if model else ""
        if entry.unread:
            ended.add(model if entry.model == UNKNOWN else name)
            if entry.model == UNKNOWN:
                break  # it may be of each of them
        elif name not in ended and entry.action in JUDGED and entry.subject.startswith(RULE):
            last.setdefault((name, entry.subject.removeprefix(RULE)), entry)
    found: dict[str, tuple[Entry, Judgement]] = {}
    for (name, rule), entry in last.items():
        own = name == model
        if entry.action == "withdraw" or (not own and (model in ended or (model, rule) in last)):
            continue
        state = judgement_of(entry, rule, audited, day)
        if own:
            found[rule] = entry, state
        elif state == "accepted":
            found.setdefault(rule, (entry, "inherited"))
        elif state == "rejected" and entry.identity and entry.identity.holds_for(audited.identity):
            found.setdefault(rule, (entry, "rejected"))  # the last word on the very same
    return found


def judgements_of(record: Audit) -> dict[str, tuple[Entry, Judgement]]:
    """Return how each rule of an audit stands that was accepted or rejected, by its own record."""
    if (said := record.people) is None:
        return {}
    return judgements(said.entries, AuditedModel.of_record(record), said.day, said.model)


def judgement_of(entry: Entry, rule: str, audited: AuditedModel, day: str) -> Judgement:
    if entry.action == "reject":
        return "rejected"
    if entry.until is not None and entry.until < day:
        return "expired"
    if entry.identity is None or audited.identity is None or not entry.identity.weights:
        return "unknown"
    if not entry.identity.holds_for(audited.identity):
        return "moved"
    then, now = (entry.outcome, entry.value), audited.rules.get(rule, ("", None))
    return "worse" if is_worse(audited.kind, rule, then, now) else "accepted"


def is_worse(read_as: str, name: str, then: Ended, now: Ended) -> bool:
    """Return whether a rule ended worse than then, or at a number that is not known to be better.

    Both are of one identity, so that also numbers on data and against a baseline compare.
    """
    (was, before), (outcome, value), rule = then, now, find_rule(name, read_as)
    if SEVERITY.get(outcome, 0) > SEVERITY.get(was, 0):
        return True
    if before is None or value is None:
        return before is not value and outcome == "fail"
    if math.isclose(before, value, rel_tol=SAME):
        return False
    better = MORE_IS_BETTER.get(name, 0)
    if rule is not None and rule.bad is not None:
        better = 1 if rule.bad == "<" else -1
    return better * (value - before) <= 0


def labels(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the label of each subject that has one: the last, unless it was taken back."""
    last: dict[str, Entry] = {}
    for entry in entries:
        if entry.action in ("label", "withdraw"):
            last.setdefault(entry.subject, entry)
    return {subject: entry for subject, entry in last.items() if entry.action == "label"}
