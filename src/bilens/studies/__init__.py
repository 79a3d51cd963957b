"""Reproductions of published measurements: a study says what it measures and how it is told."""

from bilens.base.errors import UsageError
from bilens.studies.autoencoders import LayerStudy, SAETrainingStudy
from bilens.studies.conversion import ConversionStudy
from bilens.studies.gates import GateStudy
from bilens.studies.negation_grammar import NegationStudy
from bilens.studies.negation_text import NegationTextStudy
from bilens.studies.study import Study

KINDS = (GateStudy, NegationStudy, NegationTextStudy, SAETrainingStudy, LayerStudy, ConversionStudy)
STUDIES: dict[str, Study] = {kind.name: kind() for kind in KINDS}


def find_study(name: str) -> Study:
    if name not in STUDIES:
        raise UsageError(f"there is no study {name!r}: choose one of {', '.join(STUDIES)}.")
    return STUDIES[name]
