"""Page one: coverage of a model, and the decision whether to use it; and an index of many models.

An index is a row of each page one.
"""

from typing import Annotated, Literal

from bilens.records.base import Count, Document, Record, require
from bilens.records.common import Finding
from bilens.records.inventory import FileEntry

Answer = Literal["use", "conditions", "not_read", "do_not_use", "cannot_judge"]


class CoverageGroup(Record, frozen=True):
    """Tensors whose names differ in numbers alone, such as the same matrix of each layer."""

    name: Annotated[str, "numbers that differ are written `*`"]
    tensors: Annotated[Count, "how many there are"]
    parameters: Annotated[Count, "numbers in all of them"]
    exact: Annotated[Count, "parameters in layers that are read exactly"]
    approximate: Annotated[Count, "parameters in layers that are read through an approximation"]
    reason: Annotated[
        str,
        "why the rest is not read: `unread` (no layer that can be read is made of it), `refused` "
        "(R² is too low), `assumed` (R² is of an input that nobody gave), `broken` (not finite); "
        "empty where all is read",
    ]


class Coverage(Record, frozen=True):
    """The numbers of parameters of a model that were read, of all its tensors."""

    parameters: Annotated[Count, "numbers in all tensors of the model"]
    exact: Annotated[Count, "in layers that are read exactly"]
    approximate: Annotated[Count, "in layers read through their quadratic approximation on data"]
    unread: Annotated[Count, "parameters that were not read"]
    groups: Annotated[tuple[CoverageGroup, ...], "by falling number of unread parameters"]
    layout: Annotated[
        str, "how roles are known: `known` (by the format), `guessed` (names, shapes) or `said`"
    ]
    checked_against: Annotated[str, "what the layers were compared with; empty for nothing"]
    error: Annotated[float | None, "the largest difference there, over the largest output"]
    connected: Annotated[
        bool, "what was read is all that the model computes; not so with attention, norms, reshapes"
    ] = False
    other_files: Annotated[tuple[str, ...], "of weights, in its folder, that were not read"] = ()
    not_hashed: Annotated[tuple[str, ...], "folders in it with too many files or bytes"] = ()

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
        return self.unread == 0 and known and self.connected and not self.other_files


class Decision(Record, frozen=True):
    """The answer to "may we use it?"; `coverage` of the document says what it rests on."""

    answer: Annotated[
        Answer,
        "may it be used, on conditions, not; `not_read`: its function was not read, and nothing "
        "suspicious was found; `cannot_judge`: what was read is wrong or unproven",
    ]
    reasons: Annotated[
        tuple[str, ...],
        "why it is no better: `defect`, `guess`, `condition`, `reading`, `coverage`, `refused`, "
        "`assumed` (approximated under an assumed input), `unseen`, `partial`, `approximate`, "
        "`few` (inputs), `one_class` (one right answer to all), `no_data` or `caution`",
    ]
    risks: Annotated[tuple[Finding, ...], "up to three findings, failed `condition` or `no_data`"]
    inputs: Annotated[Count, "test inputs that the answers were measured on; 0 without data"]
    accepted_by: Annotated[
        str,
        "`owner` (of the use), `owner_and_risk` (and of the risk), `owner_on_origin` (on where the "
        "file is from and what it was compared with), or `nobody` yet",
    ]
    more: Annotated[Count, "further risks that ask for caution or are defects"] = 0


class IndexRow(Record, frozen=True):
    """The outcome of the audit of one model, as a row of an index."""

    model: Annotated[str, "its path, as it was asked for"]
    outcome: Annotated[str, "the `answer` of its decision; `unread` where it could not be audited"]
    exit_code: Annotated[Count, "that the audit of this model alone would end with"]
    coverage: Annotated[float | None, "share of its parameters that was read; null if not known"]
    risk: Annotated[str, "the largest; empty where the model may be used"]
    error: Annotated[str, "why it could not be audited"] = ""
    page: Annotated[str, "its own page, beside the index; empty where none was written"] = ""
    document_sha256: Annotated[str, "of its document"] = ""


class AuditIndex(Document, frozen=True, kw_only=True):
    """The audits of many models."""

    kind: Annotated[Literal["audit_index"], "of the document"] = "audit_index"
    models: Annotated[tuple[IndexRow, ...], "the worst first"]
    files: Annotated[tuple[FileEntry, ...], "of the folders that were given, every file"] = ()
    version: Annotated[str, "of bilens"]

    @property
    def exit_code(self) -> int:
        """The highest exit code of all."""
        return max((row.exit_code for row in self.models), default=0)
