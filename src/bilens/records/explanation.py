"""Single predictions, taken apart into eigenvectors and into inputs."""

from __future__ import annotations

from typing import Literal

from bilens.records.audit import Explanation, check_explanation
from bilens.records.base import Document
from bilens.records.origin import DataOrigin, Run, Source
from bilens.records.table_audit import InputAttribution
from bilens.records.verdict import ModelSummary


class InputExplanation(Explanation, frozen=True):
    """One prediction, taken apart exactly both ways."""

    attributions: tuple[InputAttribution, ...]  # of the predicted class, and of its lead


class Explanations(Document, frozen=True, kw_only=True):
    """What eigenvectors and inputs add to the scores of some inputs."""

    kind: Literal["explanation"] = "explanation"
    model: ModelSummary  # what was read
    baseline: str  # `zeros` or `mean`: what an input is set to where it is absent
    explanations: tuple[InputExplanation, ...]
    source: Source  # where the weights come from
    data: DataOrigin  # where the inputs come from
    reproduce: Run  # what it takes to run the same again

    def __post_init__(self) -> None:
        for item in self.explanations:
            check_explanation(item, self.model.d_output, self.model.d_input)
