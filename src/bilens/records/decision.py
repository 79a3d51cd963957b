"""What may be done with a model, as far as one audit can tell."""

from __future__ import annotations

from typing import Literal

from bilens.records.base import Count, Record
from bilens.records.common import Finding

Answer = Literal["use", "conditions", "do_not_use", "cannot_judge"]


class Decision(Record, frozen=True):
    """The answer to "may we use it?"; `coverage` of the document says what it rests on."""

    answer: Answer
    # why it is no better: `defect`, `guess`, `condition`, `reading`, `coverage`, `refused`,
    # `unseen`, `partial`, `approximate`, `few` (inputs), `one_class` (one right answer to all),
    # `no_data` or `caution`
    reasons: tuple[str, ...]
    # the largest, at most three: findings of the verdict; a `condition` that was asked for and
    # failed; `no_data` where no answers were measured
    risks: tuple[Finding, ...]
    inputs: Count  # test inputs that the answers were measured on; 0 without data
    # who has to accept it: `owner` (who answers for the use), `owner_and_risk` (and who answers
    # for the risk), or `nobody` before the developers have acted
    accepted_by: str
