"""The studies that `bilens reproduce` knows."""

from __future__ import annotations

from bilens.errors import UsageError
from bilens.workflows.reproduce.gates import GateStudy
from bilens.workflows.reproduce.layers import LayerStudy
from bilens.workflows.reproduce.negation import NegationStudy
from bilens.workflows.reproduce.negation_text import NegationTextStudy
from bilens.workflows.reproduce.sae_training import SAETrainingStudy
from bilens.workflows.reproduce.study import Study

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        GateStudy(),
        NegationStudy(),
        NegationTextStudy(),
        SAETrainingStudy(),
        LayerStudy(),
    )
}


def find_study(name: str) -> Study:
    """Return the study of a name.

    Raises:
        UsageError: If there is none.
    """
    if name not in STUDIES:
        raise UsageError(f"there is no study {name!r}: choose one of {', '.join(STUDIES)}.")
    return STUDIES[name]
