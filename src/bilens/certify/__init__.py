"""Proven statements about quadratic maps: bounds, radii, influence, stability.

The names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilens.certify.truncation import (
        InputBounds,
        TruncationError,
        smallest_k,
        truncated_input_bound,
        truncation_error,
    )

_HOMES = {
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
    "InputBounds",
    "TruncationError",
    "smallest_k",
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
