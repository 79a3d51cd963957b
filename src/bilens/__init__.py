"""bilens reads what an MLP computes straight from its weights.

The names below are the public ones. They are imported when they are first used, so that
`import bilens` stays light and the command line can print its help without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bilens.version import VERSION

if TYPE_CHECKING:
    from bilens import certify, nn
    from bilens import sklearn as sklearn
    from bilens.algebra.attribution import attribute, attribute_to_background
    from bilens.algebra.bilinear_tensor import BilinearTensor
    from bilens.algebra.closest.activation import Activation
    from bilens.algebra.closest.activation_moments import activation_moments
    from bilens.algebra.closest.layer_weights import GLUWeights, MLPWeights
    from bilens.algebra.closest.quadratic_fit import QuadraticFit
    from bilens.algebra.closest.refit import LeastSquaresFit
    from bilens.algebra.closest.scores import FitScores, RSquared
    from bilens.algebra.cp.decompose import cp_decompose
    from bilens.algebra.cp.decomposition import CPDecomposition
    from bilens.algebra.direct.direct_interactions import direct_interactions
    from bilens.algebra.direct.exact_entries import interaction_submatrix
    from bilens.algebra.direct.record import DirectInteractions
    from bilens.algebra.directions import centred_directions, contrast_direction, raw_directions
    from bilens.algebra.dual_directions import DualExpression, dual_expression
    from bilens.algebra.effective_rank import effective_rank
    from bilens.algebra.eigen.decomposition import (
        Contributions,
        EigenDecomposition,
        Proof,
        Subspace,
    )
    from bilens.algebra.eigen.eigendecompose import (
        eigendecompose,
        eigendecompose_all,
        plan_eigendecomposition,
    )
    from bilens.algebra.eigen.plan import EigenPlan
    from bilens.algebra.eigenvector_matching import EigenvectorMatch, match_eigenvectors
    from bilens.algebra.gaussian_moments import GaussianMoments, gaussian_moments
    from bilens.algebra.hosvd import HOSVD, hosvd
    from bilens.algebra.interaction import InteractionMatrix
    from bilens.algebra.localisation import localisation
    from bilens.algebra.quadratic_form import QuadraticForm
    from bilens.algebra.quadratic_map import QuadraticMap
    from bilens.algebra.quantise import quantise
    from bilens.algebra.rotation_null import rotation_null
    from bilens.algebra.rotation_null_record import RotationNull, SignificantEigenvalues
    from bilens.algebra.shapley_interactions import (
        TopInteractions,
        pairwise_interactions,
        top_interactions,
    )
    from bilens.algebra.similarity import similarity
    from bilens.algebra.status import Status
    from bilens.algebra.whiten import whiten
    from bilens.io.estimator_reader import from_sklearn
    from bilens.io.load import load
    from bilens.io.model_folder import save
    from bilens.io.module_reader import from_module
    from bilens.io.sae_formats.export import export_sae
    from bilens.report.attack_report import AttackReport
    from bilens.report.audit_report import AuditReport
    from bilens.report.certificate_report import CertificateReport
    from bilens.report.layer_audit_report import LayerAuditReport
    from bilens.report.trace_report import TraceReport
    from bilens.workflows.attack import attack_model
    from bilens.workflows.audit import audit
    from bilens.workflows.certify import certify_model
    from bilens.workflows.quadratic_fit import quadratic_fit
    from bilens.workflows.trace import trace

__version__ = VERSION

_HOMES = {
    "bilens": ("certify", "nn", "sklearn"),
    "bilens.algebra.attribution": (
        "attribute",
        "attribute_to_background",
    ),
    "bilens.algebra.bilinear_tensor": ("BilinearTensor",),
    "bilens.algebra.closest.activation": ("Activation",),
    "bilens.algebra.closest.activation_moments": ("activation_moments",),
    "bilens.algebra.closest.layer_weights": (
        "GLUWeights",
        "MLPWeights",
    ),
    "bilens.algebra.closest.quadratic_fit": ("QuadraticFit",),
    "bilens.algebra.closest.refit": ("LeastSquaresFit",),
    "bilens.algebra.closest.scores": (
        "FitScores",
        "RSquared",
    ),
    "bilens.algebra.cp.decompose": ("cp_decompose",),
    "bilens.algebra.cp.decomposition": ("CPDecomposition",),
    "bilens.algebra.direct.direct_interactions": ("direct_interactions",),
    "bilens.algebra.direct.exact_entries": ("interaction_submatrix",),
    "bilens.algebra.direct.record": ("DirectInteractions",),
    "bilens.algebra.directions": (
        "centred_directions",
        "contrast_direction",
        "raw_directions",
    ),
    "bilens.algebra.dual_directions": (
        "DualExpression",
        "dual_expression",
    ),
    "bilens.algebra.effective_rank": ("effective_rank",),
    "bilens.algebra.eigen.decomposition": (
        "Contributions",
        "EigenDecomposition",
        "Proof",
        "Subspace",
    ),
    "bilens.algebra.eigen.eigendecompose": (
        "eigendecompose",
        "eigendecompose_all",
        "plan_eigendecomposition",
    ),
    "bilens.algebra.eigen.plan": ("EigenPlan",),
    "bilens.algebra.eigenvector_matching": (
        "EigenvectorMatch",
        "match_eigenvectors",
    ),
    "bilens.algebra.gaussian_moments": (
        "GaussianMoments",
        "gaussian_moments",
    ),
    "bilens.algebra.hosvd": (
        "HOSVD",
        "hosvd",
    ),
    "bilens.algebra.interaction": ("InteractionMatrix",),
    "bilens.algebra.localisation": ("localisation",),
    "bilens.algebra.quadratic_form": ("QuadraticForm",),
    "bilens.algebra.quadratic_map": ("QuadraticMap",),
    "bilens.algebra.quantise": ("quantise",),
    "bilens.algebra.rotation_null": ("rotation_null",),
    "bilens.algebra.rotation_null_record": (
        "RotationNull",
        "SignificantEigenvalues",
    ),
    "bilens.algebra.shapley_interactions": (
        "TopInteractions",
        "pairwise_interactions",
        "top_interactions",
    ),
    "bilens.algebra.similarity": ("similarity",),
    "bilens.algebra.status": ("Status",),
    "bilens.algebra.whiten": ("whiten",),
    "bilens.io.estimator_reader": ("from_sklearn",),
    "bilens.io.load": ("load",),
    "bilens.io.model_folder": ("save",),
    "bilens.io.module_reader": ("from_module",),
    "bilens.io.sae_formats.export": ("export_sae",),
    "bilens.report.attack_report": ("AttackReport",),
    "bilens.report.audit_report": ("AuditReport",),
    "bilens.report.certificate_report": ("CertificateReport",),
    "bilens.report.layer_audit_report": ("LayerAuditReport",),
    "bilens.report.trace_report": ("TraceReport",),
    "bilens.workflows.attack": ("attack_model",),
    "bilens.workflows.audit": ("audit",),
    "bilens.workflows.certify": ("certify_model",),
    "bilens.workflows.trace": ("trace",),
    "bilens.workflows.quadratic_fit": ("quadratic_fit",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

# Without `sklearn`: `from bilens import *` must not need an extra.
__all__ = [
    "HOSVD",
    "Activation",
    "AttackReport",
    "AuditReport",
    "BilinearTensor",
    "CPDecomposition",
    "CertificateReport",
    "Contributions",
    "DirectInteractions",
    "DualExpression",
    "EigenDecomposition",
    "EigenPlan",
    "EigenvectorMatch",
    "FitScores",
    "GLUWeights",
    "GaussianMoments",
    "InteractionMatrix",
    "LayerAuditReport",
    "LeastSquaresFit",
    "MLPWeights",
    "Proof",
    "QuadraticFit",
    "QuadraticForm",
    "QuadraticMap",
    "RSquared",
    "RotationNull",
    "SignificantEigenvalues",
    "Status",
    "Subspace",
    "TopInteractions",
    "TraceReport",
    "activation_moments",
    "attack_model",
    "attribute",
    "attribute_to_background",
    "audit",
    "centred_directions",
    "certify",
    "certify_model",
    "contrast_direction",
    "cp_decompose",
    "direct_interactions",
    "dual_expression",
    "effective_rank",
    "eigendecompose",
    "eigendecompose_all",
    "export_sae",
    "from_module",
    "from_sklearn",
    "gaussian_moments",
    "hosvd",
    "interaction_submatrix",
    "load",
    "localisation",
    "match_eigenvectors",
    "nn",
    "pairwise_interactions",
    "plan_eigendecomposition",
    "quadratic_fit",
    "quantise",
    "raw_directions",
    "rotation_null",
    "save",
    "similarity",
    "top_interactions",
    "trace",
    "whiten",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bilens' has no attribute {name!r}")
    home = _HOME[name]
    if home == "bilens":
        return importlib.import_module(f"bilens.{name}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
