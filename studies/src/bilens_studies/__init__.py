"""Reproductions of published measurements: a study says what it measures and how it is told."""

from difflib import get_close_matches

from bilens.base.errors import UsageError
from bilens_studies.autoencoders import LayerStudy, SAETrainingStudy
from bilens_studies.consistency import ConsistencyStudy
from bilens_studies.conversion_circuits import ConversionCircuitStudy
from bilens_studies.corners import CornerStudy
from bilens_studies.eigenvectors import EigenvectorStudy, HosvdStudy
from bilens_studies.explanations import ExplanationStudy
from bilens_studies.findings import FindingStudy
from bilens_studies.gated_conversion import ConversionStudy
from bilens_studies.gates import GateStudy
from bilens_studies.logic import LogicStudy
from bilens_studies.masks import MaskStudy
from bilens_studies.modular import ModularStudy
from bilens_studies.negation_grammar import NegationStudy
from bilens_studies.negation_text import NegationTextStudy
from bilens_studies.regularisation import RegularisationStudy
from bilens_studies.replacing import ReplacingStudy
from bilens_studies.shared import SharedStudy
from bilens_studies.stopping import StoppingStudy
from bilens_studies.study import Study
from bilens_studies.targets import TargetStudy
from bilens_studies.truncation import TruncationStudy

KINDS: list[type[Study]] = [LogicStudy, ModularStudy]  # in the order of the page
KINDS += [CornerStudy, RegularisationStudy, ReplacingStudy]
KINDS += [EigenvectorStudy, HosvdStudy, SharedStudy, ExplanationStudy]
KINDS += [ConsistencyStudy, TruncationStudy, TargetStudy, MaskStudy]
KINDS += [GateStudy, NegationStudy, NegationTextStudy]
KINDS += [SAETrainingStudy, LayerStudy, ConversionStudy, ConversionCircuitStudy]
KINDS += [FindingStudy, StoppingStudy]
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
