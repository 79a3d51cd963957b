"""The history of the models of a folder: audits, and what people said of them."""

from typing import Literal

from bilens.records.base import Count, Record
from bilens.records.common import Identity
from bilens.records.decision import Answer

# kind of an audit's document in an earlier release → how its model was read
EARLIER_KINDS = {"audit": "classes", "layer_audit": "layers", "table": "columns"}
UNNAMED = "(from memory)"  # what each model without a path is called
Action = Literal["label", "note", "accept", "reject", "withdraw"]
# `unjudged`: it failed, and was not judged; `elsewhere`: more is another than the model
Direction = Literal["worse", "better", "unjudged", "elsewhere"]


class PastAudit(Record, frozen=True):
    """One audit, without its document."""

    number: Count  # from 1, in the order in which they were recorded
    model: str  # its path, from the folder where it lies in it
    kind: str  # how the model was read: `classes`, `layers` or `columns`
    date: str  # UTC, year-month-dayThour:minute:secondZ
    version: str  # of bilens
    weights_sha256: str
    data_sha256: str  # empty without data
    command: str  # that was run, with its options
    answer: Answer  # of the decision
    passed: bool | None
    failed: tuple[str, ...]  # rules that failed, and rules of conditions that did
    identity: Identity | None = None  # what it is of; null of an earlier release
    # the files that were read, weights first, and the SHA-256 of each
    files: tuple[tuple[str, str], ...] = ()


class Measured(Record, frozen=True):
    """The outcome and the number of one rule in an audit."""

    audit: Count  # its number
    rule: str
    outcome: str  # `pass`, `warn`, `fail` or `info`; empty where it had nothing to judge
    value: float | None  # the number that conditions compare; null where the rule has none
    asked: bool  # whether a condition named the rule


class Change(Record, frozen=True):
    """The change of a rule from one audit to the next."""

    rule: str
    direction: Direction
    before: str  # how it ended, also as a condition: as in `Measured`
    now: str
    was: float | None  # its number before; null where there was none
    value: float | None  # and now


class Entry(Record, frozen=True):
    """A remark of a person; nothing is changed or deleted, the last one of a subject counts."""

    number: Count
    date: str  # as of an audit
    author: str
    action: Action
    model: str  # as of an audit
    weights_sha256: str  # that a label is of, or of its last audit then; empty where not known
    subject: str  # `rule:trigger`, `class:3:positive:0`, `latent:17`, `column:age`
    text: str  # the label, the note, or why
    until: str | None  # last day of an acceptance, year-month-day; null: no end, or not accepted
    # of the last audit then: what it was of, how the rule ended, also as a condition, and its
    # number; null of an earlier release, whose acceptances count for nothing any more
    identity: Identity | None = None
    outcome: str = ""
    value: float | None = None


class People(Record, frozen=True):
    """All remarks on a model up to a day."""

    day: str  # UTC, year-month-day
    entries: tuple[Entry, ...]  # the last one first
