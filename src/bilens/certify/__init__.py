"""Proven statements about quadratic maps: bounds, radii, influence, stability.

The names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilens.certify.agreement import (
        CertifiedAgreement,
        certified_agreement,
    )
    from bilens.certify.contrast import (
        Contrast,
        PairSpectra,
        prepare,
    )
    from bilens.certify.influence import (
        InfluenceRange,
        influence_range,
    )
    from bilens.certify.input_removal import (
        RemovedInputs,
        remove_inputs,
    )
    from bilens.certify.input_use import (
        UnusedInputs,
        unused_inputs,
    )
    from bilens.certify.l2_certificates import (
        l2_radius,
    )
    from bilens.certify.l2_record import (
        L2Radius,
        certified_accuracy,
        projected_margin,
    )
    from bilens.certify.linf_certificates import (
        LinfRadius,
        linf_radius,
    )
    from bilens.certify.quadric_distance import (
        QuadricDistance,
        distance_to_quadric,
    )
    from bilens.certify.stability import (
        QuantisationStability,
        SpectrumStability,
        quantisation_stability,
        spectrum_stability,
    )
    from bilens.certify.status import (
        RadiusStatus,
    )
    from bilens.certify.truncated_moments import (
        truncation_moments,
    )
    from bilens.certify.truncation import (
        InputBounds,
        TruncationError,
        smallest_k,
        truncated_input_bound,
        truncation_error,
    )
    from bilens.certify.trust_region import (
        TrustRegion,
        solve_trust_region,
    )
    from bilens.certify.universal import (
        UniversalPerturbation,
        universal_perturbation,
    )

_HOMES = {
    "bilens.certify.agreement": (
        "CertifiedAgreement",
        "certified_agreement",
    ),
    "bilens.certify.contrast": (
        "Contrast",
        "PairSpectra",
        "prepare",
    ),
    "bilens.certify.influence": (
        "InfluenceRange",
        "influence_range",
    ),
    "bilens.certify.input_removal": (
        "RemovedInputs",
        "remove_inputs",
    ),
    "bilens.certify.input_use": (
        "UnusedInputs",
        "unused_inputs",
    ),
    "bilens.certify.l2_certificates": ("l2_radius",),
    "bilens.certify.l2_record": (
        "L2Radius",
        "certified_accuracy",
        "projected_margin",
    ),
    "bilens.certify.linf_certificates": (
        "LinfRadius",
        "linf_radius",
    ),
    "bilens.certify.quadric_distance": (
        "QuadricDistance",
        "distance_to_quadric",
    ),
    "bilens.certify.stability": (
        "QuantisationStability",
        "SpectrumStability",
        "quantisation_stability",
        "spectrum_stability",
    ),
    "bilens.certify.status": ("RadiusStatus",),
    "bilens.certify.truncated_moments": ("truncation_moments",),
    "bilens.certify.truncation": (
        "InputBounds",
        "TruncationError",
        "smallest_k",
        "truncated_input_bound",
        "truncation_error",
    ),
    "bilens.certify.trust_region": (
        "TrustRegion",
        "solve_trust_region",
    ),
    "bilens.certify.universal": (
        "UniversalPerturbation",
        "universal_perturbation",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CertifiedAgreement",
    "Contrast",
    "InfluenceRange",
    "InputBounds",
    "L2Radius",
    "LinfRadius",
    "PairSpectra",
    "QuadricDistance",
    "QuantisationStability",
    "RadiusStatus",
    "RemovedInputs",
    "SpectrumStability",
    "TruncationError",
    "TrustRegion",
    "UniversalPerturbation",
    "UnusedInputs",
    "certified_accuracy",
    "certified_agreement",
    "distance_to_quadric",
    "influence_range",
    "l2_radius",
    "linf_radius",
    "prepare",
    "projected_margin",
    "quantisation_stability",
    "remove_inputs",
    "smallest_k",
    "solve_trust_region",
    "spectrum_stability",
    "truncated_input_bound",
    "truncation_error",
    "truncation_moments",
    "universal_perturbation",
    "unused_inputs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bilens.certify' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
