"""The studies that `bilens reproduce` knows."""

from __future__ import annotations

from bilens.base.errors import UsageError
from bilens.studies.gates import GateStudy
from bilens.studies.layers import LayerStudy
from bilens.studies.negation import NegationStudy
from bilens.studies.negation_text import NegationTextStudy
from bilens.studies.sae_training import SAETrainingStudy
from bilens.studies.study import Study

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
