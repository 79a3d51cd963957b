"""bilens reads what an MLP computes straight from its weights.

The names below are the public ones. They are imported when they are first used, so that
`import bilens` stays light and the command line can print its help without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bilens.version import VERSION

if TYPE_CHECKING:
    from bilens import nn
    from bilens.algebra.bilinear_tensor import BilinearTensor
    from bilens.algebra.directions import (
        centred_directions,
        contrast_direction,
        raw_directions,
    )
    from bilens.algebra.effective_rank import effective_rank
    from bilens.algebra.eigen.decomposition import Contributions, EigenDecomposition, Subspace
    from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
    from bilens.algebra.interaction import InteractionMatrix
    from bilens.algebra.quadratic_form import QuadraticForm
    from bilens.algebra.quadratic_map import QuadraticMap
    from bilens.algebra.rotation_null import RotationNull, rotation_null
    from bilens.io.load import load
    from bilens.io.model_folder import save
    from bilens.report.audit_report import AuditReport
    from bilens.workflows.audit import audit

__version__ = VERSION

_HOMES = {
    "bilens": ("nn",),
    "bilens.algebra.bilinear_tensor": ("BilinearTensor",),
    "bilens.algebra.directions": ("centred_directions", "contrast_direction", "raw_directions"),
    "bilens.algebra.effective_rank": ("effective_rank",),
    "bilens.algebra.eigen.decomposition": ("Contributions", "EigenDecomposition", "Subspace"),
    "bilens.algebra.eigen.eigendecompose": ("eigendecompose", "eigendecompose_all"),
    "bilens.algebra.interaction": ("InteractionMatrix",),
    "bilens.algebra.quadratic_form": ("QuadraticForm",),
    "bilens.algebra.quadratic_map": ("QuadraticMap",),
    "bilens.algebra.rotation_null": ("RotationNull", "rotation_null"),
    "bilens.io.load": ("load",),
    "bilens.io.model_folder": ("save",),
    "bilens.report.audit_report": ("AuditReport",),
    "bilens.workflows.audit": ("audit",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AuditReport",
    "BilinearTensor",
    "Contributions",
    "EigenDecomposition",
    "InteractionMatrix",
    "QuadraticForm",
    "QuadraticMap",
    "RotationNull",
    "Subspace",
    "audit",
    "centred_directions",
    "contrast_direction",
    "effective_rank",
    "eigendecompose",
    "eigendecompose_all",
    "load",
    "nn",
    "raw_directions",
    "rotation_null",
    "save",
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
