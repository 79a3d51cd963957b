"""May the model be used? One answer, from a verdict, what was read, conditions and data.

A defect, answers no better than guessing on data that can tell, or a failed condition: do not use.
Else a reading that is wrong: it cannot be judged. Else a function that was not read: that is said,
and somebody may accept the file on its origin, unless something suspicious was found. Else anything
that asks for care, was not read or was not measured: conditions. What is left may be used.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Final

from bilens.findings.rules.registry import find_rule
from bilens.findings.rules.rule import GUESS, USUAL
from bilens.records.audit import Audit, ReadAs
from bilens.records.common import Finding, JudgedCondition, Value
from bilens.records.decision import Answer, Coverage, Decision
from bilens.records.performance import Performance

ENOUGH: Final = 0.5  # share of the parameters that has to be read before anything is concluded
FEW: Final = 100  # test inputs: of fewer, even no error leaves 4 % open (95 % interval)
MOST_RISKS: Final = 3
TOLD_BY: Final = {"low_rank_change": "concentrated_change"}  # the same risk, said by another rule
ORDER: Final[tuple[Answer, ...]] = ("do_not_use", "cannot_judge", "not_read", "conditions")
ACCEPTED_BY: Final = {
    "use": "owner",
    "conditions": "owner_and_risk",
    "not_read": "owner_on_origin",
}
UNDECIDED: Final = ("cannot_judge", "not_read")  # nothing is vouched for


def decision_of(record: Audit) -> Decision:
    """Return the decision in a record; of one that does not say it, what it would be."""
    if record.decision is not None:
        return record.decision
    asked = record.conditions or ()
    return decide(record.read_as, record.verdict, record.coverage, asked, record.performance)


def decide(
    read_as: ReadAs,
    verdict: Sequence[Finding],
    coverage: Coverage | None,
    conditions: Sequence[JudgedCondition],
    performance: Performance | None,
) -> Decision:
    """Return the decision on a model with what its predictions are worth, where that is known."""
    found, inputs, one_class = performance, 0, False
    if found is not None and found.classification is not None:
        inputs, one_class = found.rows, found.classification.accuracy.plain == 1
    elif found is not None and found.regression is not None:
        inputs, one_class = found.rows, found.regression.r_squared is None
    return decision(read_as, verdict, coverage, conditions, inputs, one_class)


def passed(made: Decision, verdict: Sequence[Finding], coverage: Coverage | None) -> bool | None:
    """Return False where something failed; else True, or None where nothing is vouched for."""
    # a condition that failed makes it "do not use"
    if made.answer == "do_not_use" or "fail" in [one.outcome for one in verdict]:
        return False
    whole = coverage is not None and coverage.is_whole
    open_still = made.answer in UNDECIDED or {"guess", "one_class"} & {*made.reasons}
    return True if whole and not open_still else None


def decision(
    read_as: str,
    verdict: Sequence[Finding],
    coverage: Coverage | None,
    conditions: Sequence[JudgedCondition] = (),
    inputs: int = 0,
    one_class: bool = False,  # whether all right answers are the same
) -> Decision:
    """Return the decision: a pure function of how rules and conditions ended, and on what."""
    added = [] if inputs else [Finding("no_data", "warn", {})]
    for item in conditions:
        if item.failed:
            value = "—" if item.value is None else str(item.value)  # pages round it
            known: dict[str, Value] = {"condition": item.condition, "value": value}
            added.append(Finding("condition", "fail", known))
    found = [*of_findings(read_as, (*verdict, *added)), *of_reading(coverage, inputs)]
    if one_class:
        found.append(("conditions", "one_class"))
    if one_class or inputs < FEW:  # such data prove nothing against a model, nor for it
        unproven: Answer = "conditions" if coverage and coverage.is_whole else "cannot_judge"
        found = [(unproven if why == "guess" else each, why) for each, why in found]
    if any(is_suspicious(read_as, finding) for finding in verdict):  # it has to be settled first
        found = [("conditions" if each == "not_read" else each, why) for each, why in found]
    answer: Answer = next((each for each in ORDER if each in dict(found)), "use")
    ranked = [(risk_rank(read_as, finding), finding) for finding in (*verdict, *added)]
    risks = [finding for rank, finding in sorted(ranked, key=itemgetter(0)) if rank < NO_RISK]
    cautions = {finding.rule for finding in risks if finding.outcome != "info"}
    risks = [finding for finding in risks if TOLD_BY.get(finding.rule) not in cautions]
    more = sum(finding.outcome != "info" for finding in risks[MOST_RISKS:])
    return Decision(
        answer,
        tuple(dict.fromkeys(reason for each, reason in found if each == answer)),
        tuple(risks[:MOST_RISKS]),
        inputs,
        ACCEPTED_BY.get(answer, "nobody"),
        more,
    )


def of_findings(read_as: str, verdict: Sequence[Finding]) -> Iterator[tuple[Answer, str]]:
    """Yield what each finding means for the use of the model."""
    for finding in verdict:
        rule = find_rule(finding.rule, read_as)
        if finding.rule in ("condition", "no_data"):
            yield "do_not_use" if finding.outcome == "fail" else "conditions", finding.rule
        elif finding.outcome == "fail":
            reads = rule is not None and rule.group == "reading"
            yield ("cannot_judge", "reading") if reads else ("do_not_use", "defect")
        elif finding.outcome == "warn":
            guess = rule is not None and rule.rank == GUESS
            yield ("do_not_use", "guess") if guess else ("conditions", "caution")
        if finding.rule == "r2" and finding.values.get("refused") == finding.values.get("of"):
            yield "not_read", "refused"


def of_reading(coverage: Coverage | None, inputs: int) -> Iterator[tuple[Answer, str]]:
    """Yield what was not read, not verified or hardly measured."""
    if coverage is None or not coverage.is_whole:
        yield "conditions", "partial"
        if inputs == 0:  # neither the weights nor the answers vouch for it
            yield "not_read", "unseen"
    if 0 < inputs < FEW:
        yield "conditions", "few"
    few = coverage is not None and coverage.share < ENOUGH
    if few:
        yield "not_read", "coverage"
    if coverage is not None and "assumed" in [group.reason for group in coverage.groups]:
        yield "not_read" if few else "conditions", "assumed"
    if coverage is not None and coverage.approximate > 0:
        yield "conditions", "approximate"


def is_suspicious(read_as: str, finding: Finding) -> bool:
    """Return whether a caution is of what may have been done to a model, not of how it was read."""
    rule = find_rule(finding.rule, read_as)
    if finding.outcome != "warn" or (rule is not None and rule.group == "reading"):
        return False
    return rule is None or GUESS < rule.rank < USUAL


NO_RISK: Final = 10


def risk_rank(read_as: str, finding: Finding) -> int:
    """Return the place of a finding among risks: the smaller, the larger the risk."""
    rule = find_rule(finding.rule, read_as)
    rank = USUAL if rule is None else rule.rank
    if finding.outcome in ("fail", "warn"):
        return 0 if finding.outcome == "fail" else rank
    return USUAL + 1 if rank == GUESS else NO_RISK  # the errors that any model makes
