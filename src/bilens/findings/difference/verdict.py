"""The verdict on a difference: how much changed, and whether it went into few directions."""

from __future__ import annotations

from collections.abc import Sequence

from bilens.findings.layers.verdict import named
from bilens.records.difference import LayerDifference, ModeChange
from bilens.records.verdict import Finding

ALIKE = 0.99  # similarity
LARGE = 0.1  # ‖Δ‖ / ‖B‖
CONCENTRATED = 0.5  # of the effective rank of noise of the same size


def judge_difference(layers: Sequence[LayerDifference]) -> tuple[Finding, ...]:
    """Return the rules on a difference; a rule without a case is absent."""
    found = [_changed(layers), _similarity(layers), _change(layers), _concentrated(layers)]
    return tuple(finding for finding in found if finding is not None)


def _changed(layers: Sequence[LayerDifference]) -> Finding:
    changed = [layer.name for layer in layers if not layer.identical]
    return Finding(
        "changed_layers",
        "info" if changed else "pass",
        {"value": len(changed), "threshold": 0, "of": len(layers), "layers": named(changed)},
    )


def _similarity(layers: Sequence[LayerDifference]) -> Finding | None:
    known = [
        (cosine, layer.name)
        for layer in layers
        for cosine in (layer.frobenius, layer.gaussian)
        if cosine is not None
    ]
    if not known:
        return None
    value, name = min(known)
    return Finding(
        "similarity",
        "info" if value < ALIKE else "pass",
        {"value": value, "threshold": ALIKE, "layers": name},
    )


def _change(layers: Sequence[LayerDifference]) -> Finding | None:
    known = [(layer.change, layer.name) for layer in layers if layer.change is not None]
    if not known:
        return None
    value, name = max(known)
    return Finding(
        "change",
        "info" if value > LARGE else "pass",
        {"value": value, "threshold": LARGE, "layers": name},
    )


def _concentrated(layers: Sequence[LayerDifference]) -> Finding | None:
    known = [
        (mode.effective_rank / mode.effective_rank_null, kind, layer, mode)
        for layer in layers
        for kind, mode in (("outputs", layer.outputs), ("inputs", layer.inputs))
        if mode is not None and mode.effective_rank_null is not None
    ]
    if not known:
        return None

    def share(item: tuple[float, str, LayerDifference, ModeChange]) -> float:
        return item[0]

    value, kind, layer, mode = min(known, key=share)
    return Finding(
        "concentrated_change",
        "warn" if value < CONCENTRATED else "pass",
        {
            "value": value,
            "threshold": CONCENTRATED,
            "mode": kind,
            "rank": mode.effective_rank,
            "null": mode.effective_rank_null or 0.0,
            "directions": mode.directions_90,
            "layers": layer.name,
        },
    )
