"""Reproductions of published measurements: a study says what it measures and how it is told."""

from difflib import get_close_matches

from bilens.base.errors import UsageError
from bilens.studies.autoencoders import LayerStudy, SAETrainingStudy
from bilens.studies.consistency import ConsistencyStudy
from bilens.studies.conversion import ConversionStudy
from bilens.studies.corners import CornerStudy
from bilens.studies.eigenvectors import EigenvectorStudy, HosvdStudy
from bilens.studies.explanations import ExplanationStudy
from bilens.studies.findings import FindingStudy
from bilens.studies.gates import GateStudy
from bilens.studies.logic import LogicStudy
from bilens.studies.masks import MaskStudy
from bilens.studies.modular import ModularStudy
from bilens.studies.negation_grammar import NegationStudy
from bilens.studies.negation_text import NegationTextStudy
from bilens.studies.regularisation import RegularisationStudy
from bilens.studies.replacing import ReplacingStudy
from bilens.studies.shared import SharedStudy
from bilens.studies.stopping import StoppingStudy
from bilens.studies.study import Study
from bilens.studies.targets import TargetStudy
from bilens.studies.truncation import TruncationStudy

KINDS = (  # in the order of the page
    *(LogicStudy, ModularStudy),
    *(CornerStudy, RegularisationStudy, ReplacingStudy),
    *(EigenvectorStudy, HosvdStudy, SharedStudy, ExplanationStudy),
    *(ConsistencyStudy, TruncationStudy, TargetStudy, MaskStudy),
    *(GateStudy, NegationStudy, NegationTextStudy, SAETrainingStudy, LayerStudy, ConversionStudy),
    *(FindingStudy, StoppingStudy),
)
STUDIES: dict[str, Study] = {kind.name: kind() for kind in KINDS}


def find_studies(name: str) -> list[Study]:
    """Return the study of a name, or all of a group such as "toy"."""
    found = [study for key, study in STUDIES.items() if name in (key, key.partition("/")[0])]
    if not found:
        known = dict.fromkeys([*STUDIES, *(key.partition("/")[0] for key in STUDIES)])
        ends = {key.rpartition("/")[2]: key for key in STUDIES}
        near = get_close_matches(name, [*known, *ends], n=3, cutoff=0.5)
        which = dict.fromkeys(ends.get(key, key) for key in near) or known
        raise UsageError(
            f"there is no study {name!r}: choose one of {', '.join(which)}; `bilens reproduce "
            "list` says what each measures."
        )
    return found
