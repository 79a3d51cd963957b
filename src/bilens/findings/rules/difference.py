"""Rules on what changed from a baseline: how much, and whether it went into few directions."""

from __future__ import annotations

from bilens.findings.rules.rule import Evidence, Judged, Rule, named

ALIKE = 0.99  # similarity
LARGE = 0.1  # ‖Δ‖ / ‖B‖
CONCENTRATED = 0.5  # of the effective rank of noise of the same size


def changed_layers(evidence: Evidence) -> Judged:
    layers = evidence.changes
    if not layers:
        return None
    changed = [layer.name for layer in layers if not layer.identical]
    return "info" if changed else "pass", {
        "value": len(changed),
        "threshold": 0,
        "of": len(layers),
        "layers": named(changed),
    }


def similarity(evidence: Evidence) -> Judged:
    known = [
        (cosine, layer.name)
        for layer in evidence.changes
        for cosine in (layer.frobenius, layer.gaussian)
        if cosine is not None
    ]
    if not known:
        return None
    value, name = min(known)
    return "info" if value < ALIKE else "pass", {"value": value, "threshold": ALIKE, "layers": name}


def change(evidence: Evidence) -> Judged:
    changes = evidence.changes
    known = [(layer.change, layer.name) for layer in changes if layer.change is not None]
    if not known:
        return None
    value, name = max(known)
    return "info" if value > LARGE else "pass", {"value": value, "threshold": LARGE, "layers": name}


def concentrated_change(evidence: Evidence) -> Judged:
    known = [
        (mode.effective_rank / mode.effective_rank_null, kind, layer, mode)
        for layer in evidence.changes
        for kind, mode in (("outputs", layer.outputs), ("inputs", layer.inputs))
        if mode is not None and mode.effective_rank_null is not None
    ]
    if not known:
        return None
    value, kind, layer, mode = min(known, key=lambda item: item[0])
    return "warn" if value < CONCENTRATED else "pass", {
        "value": value,
        "threshold": CONCENTRATED,
        "mode": kind,
        "rank": mode.effective_rank,
        "null": mode.effective_rank_null or 0.0,
        "directions": mode.directions_90,
        "layers": layer.name,
    }


CHANGED_LAYERS = Rule(
    "changed_layers",
    ("audit", "layer_audit"),
    {"value": "whole", "threshold": "whole", "of": "count", "layers": "text"},
    changed_layers,
    bad=">",
    needs="baseline",
    scope="weights",
)
SIMILARITY = Rule(
    "similarity",
    ("audit", "layer_audit"),
    {"value": "fixed5", "threshold": "fixed5", "layers": "text"},
    similarity,
    bad="<",
    needs="baseline",
    scope="map",
)
CHANGE = Rule(
    "change",
    ("audit", "layer_audit"),
    {"value": "percent", "threshold": "percent", "layers": "text"},
    change,
    bad=">",
    needs="baseline",
    scope="map",
)
CONCENTRATED_CHANGE = Rule(
    "concentrated_change",
    ("audit", "layer_audit"),
    {
        "value": "percent",
        "threshold": "percent",
        "mode": "mode",
        "rank": "quantity",
        "null": "quantity",
        "directions": "count",
        "layers": "text",
    },
    concentrated_change,
    bad="<",
    needs="baseline",
    scope="map",
)
