"""What counts of all that was said: the last word, until its day, for its weights.

Broken once: with the first word of a rule in place of the last, with an acceptance that ends a day
early, with one of other weights let through.
"""

import pytest

from bilens.findings.rules.judgements import judgements, labels
from people_documents import WEIGHTS, entry

DAY = "2027-03-31"


@pytest.mark.parametrize(
    ("changes", "weights", "expected"),
    [
        ({}, WEIGHTS, "accepted"),
        ({"until": DAY}, WEIGHTS, "accepted"),  # its last day
        ({"until": "2027-03-30"}, WEIGHTS, "expired"),
        ({"until": "2027-03-30"}, "cd" * 32, "expired"),
        ({}, "cd" * 32, "moved"),
        ({"weights_sha256": ""}, "", "moved"),  # of a model from memory
        ({"action": "reject"}, "cd" * 32, "rejected"),
    ],
)
def test_how_a_finding_stands(changes: dict[str, str], weights: str, expected: str) -> None:
    said = entry(**changes)
    assert judgements([said], weights, DAY) == {"trigger": (said, expected)}


def test_the_last_word_of_a_rule_counts_and_of_no_other_subject() -> None:
    last, first = entry(number=2, action="reject"), entry(number=1)
    assert judgements([last, first], WEIGHTS, DAY) == {"trigger": (last, "rejected")}
    assert judgements([entry(action="withdraw"), first], WEIGHTS, DAY) == {}
    others = [entry(action="note"), entry(action="withdraw", subject="trigger"), first]
    assert judgements(others, WEIGHTS, DAY) == {"trigger": (first, "accepted")}


def test_the_last_label_of_a_subject_counts_until_it_is_taken_back() -> None:
    first, last = (entry(action="label", subject="latent:17", text=text) for text in "ab")
    assert labels([entry(action="note", subject="latent:17"), last, first]) == {"latent:17": last}
    assert labels([entry(action="withdraw", subject="latent:17"), last]) == {}
