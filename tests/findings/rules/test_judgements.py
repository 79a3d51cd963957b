"""What counts of all that was said: the last word, until its day, of one identity and value.

Broken once: with the first word of a rule in place of the last, with an acceptance that ends a day
early, with one of other weights let through.
"""

from typing import Any

import pytest
from msgspec.structs import replace

from bilens.findings.rules.judgements import AuditedModel, Ended, judgements, labels
from bilens.records.common import PARTS, Identity
from bilens.records.history import UNKNOWN
from people_documents import WEIGHTS, entry

DAY = "2027-03-31"
HERE = Identity(WEIGHTS, "r", "d", "b", "o")
OTHERS = {part: replace(HERE, **{part: "x"}) for part in PARTS}


def audited(
    identity: Identity | None = HERE, rule: str = "trigger", ended: Ended = ("", None)
) -> AuditedModel:
    return AuditedModel("audit", identity, {rule: ended})


@pytest.mark.parametrize(
    ("changes", "identity", "expected"),
    [
        ({}, HERE, "accepted"),
        ({"until": DAY}, HERE, "accepted"),  # its last day
        ({"until": "2027-03-30"}, HERE, "expired"),
        ({"until": "2027-03-30"}, OTHERS["data"], "expired"),
        *(({}, other, "moved") for other in OTHERS.values()),
        ({}, None, "unknown"),
        ({"identity": None}, HERE, "unknown"),  # of an earlier release
        ({"identity": Identity("")}, Identity(""), "unknown"),  # of a model from memory
        ({"action": "reject"}, OTHERS["weights"], "rejected"),
    ],
)
def test_how_a_finding_stands(
    changes: dict[str, Any], identity: Identity | None, expected: str
) -> None:
    said = entry(**{"identity": HERE, **changes})
    assert judgements([said], audited(identity), DAY) == {"trigger": (said, expected)}


@pytest.mark.parametrize(
    ("rule", "then", "now", "worse"),
    [
        ("accuracy", ("fail", 0.93), ("fail", 0.93), False),
        ("accuracy", ("fail", 0.93), ("fail", 0.95), False),
        ("accuracy", ("fail", 0.93), ("fail", 0.195), True),
        ("accuracy", ("warn", 0.93), ("fail", 0.93), True),
        ("accuracy", ("fail", None), ("fail", 0.5), True),
        ("accuracy", ("fail", 0.93), ("fail", None), True),
        ("accuracy", ("fail", None), ("fail", None), False),
        ("calibration", ("fail", 0.1), ("fail", 0.2), True),
        ("calibration", ("fail", 0.2), ("fail", 0.1), False),
        ("similarity", ("fail", 0.98), ("fail", 0.5), True),
        ("few_directions", ("fail", 3.0), ("fail", 4.0), True),  # which is better is not known
        ("new", ("warn", None), ("fail", None), True),
    ],
)
def test_an_acceptance_is_of_a_value_no_worse(
    rule: str, then: Ended, now: Ended, *, worse: bool
) -> None:
    said = entry(identity=HERE, subject=f"rule:{rule}", outcome=then[0], value=then[1])
    expected = "worse" if worse else "accepted"
    assert judgements([said], audited(rule=rule, ended=now), DAY) == {rule: (said, expected)}


def test_the_last_word_of_a_rule_counts_and_of_no_other_subject() -> None:
    last, first = (
        entry(number=n, action=a, identity=HERE) for n, a in ((2, "reject"), (1, "accept"))
    )
    assert judgements([last, first], audited(), DAY) == {"trigger": (last, "rejected")}
    assert judgements([entry(action="withdraw"), first], audited(), DAY) == {}
    others = [entry(action="note"), entry(action="withdraw", subject="trigger"), first]
    assert judgements(others, audited(), DAY) == {"trigger": (first, "accepted")}


@pytest.mark.parametrize(
    "changes", [{"subject": "model"}, {"model": UNKNOWN, "subject": "model"}, {}]
)
def test_an_entry_that_cannot_be_read_takes_back_all_that_was_judged(
    changes: dict[str, Any],
) -> None:
    """Seen red: with an entry whose subject or model is of a later release passed over."""
    first, again = entry(identity=HERE), entry(number=3, identity=HERE)
    unread = entry(**{"number": 2, "action": "withdraw", "unread": True, **changes})
    assert judgements([unread, first], audited(), DAY) == {}
    assert judgements([unread, first], audited(), DAY, "mnist") == {}
    assert judgements([unread, first], audited(), DAY, "copy") == {}
    of_copy = replace(unread, model="copy")
    assert judgements([of_copy, first], audited(), DAY, "copy") == {}
    assert judgements([of_copy, first], audited(), DAY, "mnist") == {"trigger": (first, "accepted")}
    for model in ("", "mnist"):
        said = judgements([again, unread, first], audited(), DAY, model)
        assert said == {"trigger": (again, "accepted")}


def test_the_last_label_of_a_subject_counts_until_it_is_taken_back() -> None:
    first, last = (entry(action="label", subject="latent:17", text=text) for text in "ab")
    assert labels([entry(action="note", subject="latent:17"), last, first]) == {"latent:17": last}
    assert labels([entry(action="withdraw", subject="latent:17"), last]) == {}
