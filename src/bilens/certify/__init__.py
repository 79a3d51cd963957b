"""Proven statements about quadratic maps: bounds, radii, influence, stability.

The names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilens.certify.contrast import Contrast, PairSpectra, prepare
    from bilens.certify.l2_certificates import l2_radius
    from bilens.certify.l2_record import (
        L2Radius,
        RadiusStatus,
        certified_accuracy,
        projected_margin,
    )
    from bilens.certify.quadric_distance import QuadricDistance, distance_to_quadric
    from bilens.certify.truncation import (
        InputBounds,
        TruncationError,
        smallest_k,
        truncated_input_bound,
        truncation_error,
    )
    from bilens.certify.trust_region import TrustRegion, solve_trust_region

_HOMES = {
    "bilens.certify.contrast": ("Contrast", "PairSpectra", "prepare"),
    "bilens.certify.l2_certificates": ("l2_radius",),
    "bilens.certify.l2_record": (
        "L2Radius",
        "RadiusStatus",
        "certified_accuracy",
        "projected_margin",
    ),
    "bilens.certify.quadric_distance": ("QuadricDistance", "distance_to_quadric"),
    "bilens.certify.trust_region": ("TrustRegion", "solve_trust_region"),
    "bilens.certify.truncation": (
        "InputBounds",
        "TruncationError",
        "smallest_k",
        "truncated_input_bound",
        "truncation_error",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Contrast",
    "InputBounds",
    "L2Radius",
    "PairSpectra",
    "QuadricDistance",
    "RadiusStatus",
    "TruncationError",
    "TrustRegion",
    "certified_accuracy",
    "distance_to_quadric",
    "l2_radius",
    "prepare",
    "projected_margin",
    "smallest_k",
    "solve_trust_region",
    "truncated_input_bound",
    "truncation_error",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bilens.certify' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
