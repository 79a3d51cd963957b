"""Whether the finding of triggers tells poisoned models from clean ones, and finds the patch."""

from __future__ import annotations

import time
from typing import Any

from bench.power.models import Measured, Patch
from bench.power.overfitting import spectra
from bilens.findings.audit import centred_map
from bilens.findings.overfitting import class_templates
from bilens.findings.subject import in_float64
from bilens.findings.triggers import highest_scoring
from bilens.records.audit import Patch as FoundPatch


def trigger_row(model: Measured, shape: tuple[int, int]) -> dict[str, Any]:
    """The score of a model, its highest-scoring patch, and whether that is the planted."""
    began = time.perf_counter()
    f = centred_map(in_float64(model.model))
    window = highest_scoring(f, class_templates(spectra(f)), shape)[0]
    seconds = time.perf_counter() - began
    planted = model.numbers["setting"]["patch"]
    patch = None if planted is None else Patch(**planted)
    return {
        **model.numbers,
        "score": window.score,
        "place": [window.row, window.column, window.side],
        "target": window.target,
        "overlap": None if patch is None else overlap(window, patch),
        "target_found": None if patch is None else window.target == patch.target,
        "score_seconds": seconds,
    }


def overlap(window: FoundPatch, patch: Patch) -> float:
    """Return pixels in both squares over pixels in either."""
    both = 1
    for start, first in ((window.row, patch.row), (window.column, patch.column)):
        both *= max(0, min(start + window.side, first + patch.side) - max(start, first))
    return both / (window.side**2 + patch.side**2 - both)
