"""What a folder remembers of its models: audits, and what people said of them."""

from __future__ import annotations

from typing import Literal

from bilens.records.base import Count, Record
from bilens.records.decision import Answer

Action = Literal["label", "note", "accept", "reject", "withdraw"]


class PastAudit(Record, frozen=True):
    """One audit, without its document."""

    number: Count  # from 1, in the order in which they were recorded
    model: str  # its path, from the folder where it lies in it
    kind: str  # of the document: `audit`, `layer_audit` or `table`
    date: str  # UTC, year-month-dayThour:minute:secondZ
    version: str  # of bilens
    weights_sha256: str
    data_sha256: str  # empty without data
    command: str  # that was run, with its options
    answer: Answer  # of the decision
    passed: bool | None
    failed: tuple[str, ...]  # rules that failed, and rules of conditions that did


class Entry(Record, frozen=True):
    """What somebody said; nothing is changed or deleted, the last one of a subject counts."""

    number: Count
    date: str  # as of an audit
    author: str
    action: Action
    model: str  # as of an audit
    weights_sha256: str  # of its last audit then; empty where there was none
    subject: str  # `rule:trigger`, `class:3:positive:0`, `latent:17`, `column:age`
    text: str  # the label, the note, or why
    until: str | None  # last day of an acceptance, year-month-day; null: no end, or not accepted


class People(Record, frozen=True):
    """What people had said of a model on a day."""

    day: str  # UTC, year-month-day
    entries: tuple[Entry, ...]  # the last one first
