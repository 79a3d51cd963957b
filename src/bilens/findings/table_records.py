"""The records of a table audit: plain numbers and words, ready to be written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from bilens.findings.effects import OutputEffects
from bilens.findings.input_attribution import InputAttribution
from bilens.findings.loudest_values import LoudestValues
from bilens.findings.records import SCHEMA_VERSION, Exactness, Finding

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class TableModel:
    """What was read."""

    kind: str
    task: Task  # one output is a regression
    d_input: int
    d_hidden: int
    d_output: int
    num_parameters: int
    dtype: str
    standardised: bool  # whether mean and standard deviation of the inputs are known
    output_names: tuple[str, ...]
    input_names: tuple[str, ...]


@dataclass(frozen=True)
class TableScore:
    """How good the predictions of the rows are."""

    kind: Literal["accuracy", "r_squared"]
    value: float
    low: float | None  # of the exact 95 % interval of an accuracy
    high: float | None
    total: int
    plain: float  # the same score of the most frequent class, or of the mean, of these rows


@dataclass(frozen=True)
class RowReading:
    """One row, taken apart exactly."""

    kind: str  # why it was chosen: "typical", "narrow", "wrong", "farthest" or "first"
    index: int  # in the table
    label: int | None  # the right class, if it is known
    target: float | None  # the right number, if it is known
    predicted: int  # the class; 0 where there is one output
    inputs: tuple[float, ...]  # as they come
    scores: tuple[float, ...]  # class-centred logits, or the predicted number
    attributions: tuple[InputAttribution, ...]  # against the mean row, or zeros


@dataclass(frozen=True)
class TableFindings:
    """All that one audit of a table's model found."""

    model: TableModel
    exactness: tuple[Exactness, ...]
    score: TableScore | None
    outputs: tuple[OutputEffects, ...]
    loudest: tuple[LoudestValues, ...]  # none where the units of the columns are not known
    rows: tuple[RowReading, ...]
    verdict: tuple[Finding, ...]
    seed: int

    @property
    def passed(self) -> bool:
        """Whether no rule failed."""
        return all(finding.outcome != "fail" for finding in self.verdict)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON values."""
        content = asdict(self)
        for record, exactness in zip(content["exactness"], self.exactness, strict=True):
            record["passed"] = exactness.passed
        return {"schema_version": SCHEMA_VERSION, "kind": "table", "passed": self.passed, **content}
