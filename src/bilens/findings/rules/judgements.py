"""What counts of all that people said: the last word on a rule, and the last label of a subject."""

from collections.abc import Iterable
from typing import Final, Literal

from bilens.records.history import Entry

RULE: Final = "rule:"  # what the subject of a finding begins with
JUDGED: Final = ("accept", "reject", "withdraw")
# `moved`: accepted for other weights
Judgement = Literal["accepted", "expired", "moved", "rejected"]


def judgements(
    entries: Iterable[Entry], weights: str, day: str
) -> dict[str, tuple[Entry, Judgement]]:
    """Return how each rule stands that was accepted or rejected, and by which entry.

    `entries` are of one model, the last one first, which counts; `weights` is the SHA-256 that is
    asked about (nothing is accepted of ""), `day` year-month-day.
    """
    last: dict[str, Entry] = {}
    for entry in entries:
        if entry.action in JUDGED and entry.subject.startswith(RULE):
            last.setdefault(entry.subject.removeprefix(RULE), entry)
    return {
        rule: (entry, judgement_of(entry, weights, day))
        for rule, entry in last.items()
        if entry.action != "withdraw"
    }


def judgement_of(entry: Entry, weights: str, day: str) -> Judgement:
    if entry.action == "reject":
        return "rejected"
    if entry.until is not None and entry.until < day:
        return "expired"
    return "accepted" if entry.weights_sha256 == weights != "" else "moved"


def labels(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the label of each subject that has one: the last, unless it was taken back."""
    last: dict[str, Entry] = {}
    for entry in entries:
        if entry.action in ("label", "withdraw"):
            last.setdefault(entry.subject, entry)
    return {subject: entry for subject, entry in last.items() if entry.action == "label"}
