"""Page one: coverage of a model, and the decision whether to use it; and an index of many models.

An index is a row of each page one.
"""

from typing import Literal

from bilens.records.base import Count, Document, Record, require
from bilens.records.common import Finding

Answer = Literal["use", "conditions", "do_not_use", "cannot_judge"]


class CoverageGroup(Record, frozen=True):
    """Tensors whose names differ in numbers alone, such as the same matrix of each layer."""

    name: str  # numbers that differ are written `*`
    tensors: Count
    parameters: Count
    exact: Count  # parameters in layers that are read exactly
    approximate: Count  # parameters in layers that are read through an approximation
    # why the rest is not read: `unread` (no layer that can be read is made of it), `refused` (R² is
    # too low), `assumed` (R² is of an input that nobody gave), `broken` (not finite); empty where
    # all is read
    reason: str


class Coverage(Record, frozen=True):
    """The numbers of parameters of a model that were read, of all its tensors."""

    parameters: Count
    exact: Count  # in layers that are read exactly
    approximate: Count  # in layers that are read through their quadratic approximation on data
    unread: Count
    groups: tuple[CoverageGroup, ...]  # by falling number of parameters that are not read
    # how it is known which tensor is what: `known` (the format says it), `guessed` (from names and
    # shapes) or `said` (by the caller)
    layout: str
    checked_against: str  # what the layers were compared with; empty where nothing could be
    error: float | None  # the largest difference there, over the largest output
    # whether what was read, one behind the other, is all that the model computes between input and
    # output; false where other operations stand between or around (attention, norms, reshapes)
    connected: bool = False

    def __post_init__(self) -> None:
        read = self.exact + self.approximate
        require(read + self.unread == self.parameters, "the parts of coverage do not add up")

    @property
    def share(self) -> float:
        """The share of the parameters that was read, exactly or not."""
        return 1 - self.unread / self.parameters if self.parameters else 0.0

    @property
    def is_whole(self) -> bool:
        """Whether all that the model computes was read, of a layout that is known, and compared."""
        known = self.layout == "known" and self.checked_against != ""
        return self.unread == 0 and known and self.connected


class Decision(Record, frozen=True):
    """The answer to "may we use it?"; `coverage` of the document says what it rests on."""

    answer: Answer
    # why it is no better: `defect`, `guess`, `condition`, `reading`, `coverage`, `refused`,
    # `assumed` (approximated under an assumed input), `unseen`, `partial`, `approximate`, `few`
    # (inputs), `one_class` (one right answer to all), `no_data` or `caution`
    reasons: tuple[str, ...]
    # the largest, at most three: findings of the verdict; a `condition` that was asked for and
    # failed; `no_data` where no answers were measured
    risks: tuple[Finding, ...]
    inputs: Count  # test inputs that the answers were measured on; 0 without data
    # who has to accept it: `owner` (who answers for the use), `owner_and_risk` (and who answers
    # for the risk), or `nobody` before the developers have acted
    accepted_by: str
    more: Count = 0  # further risks that ask for caution or are defects


class IndexRow(Record, frozen=True):
    """The outcome of the audit of one model, as a row of an index."""

    model: str  # its path, as it was asked for
    outcome: str  # the `answer` of its decision; `unread` where it could not be audited
    exit_code: Count  # that the audit of this model alone would end with
    coverage: float | None  # share of its parameters that was read; null where that is not known
    risk: str  # the largest; empty where the model may be used
    error: str = ""  # why it could not be audited
    page: str = ""  # its own page, beside the index; empty where none was written
    document_sha256: str = ""  # of its document


class AuditIndex(Document, frozen=True, kw_only=True):
    """The audits of many models."""

    kind: Literal["audit_index"] = "audit_index"
    models: tuple[IndexRow, ...]  # the worst first
    version: str  # of bilens

    @property
    def exit_code(self) -> int:
        """The highest exit code of all."""
        return max((row.exit_code for row in self.models), default=0)
