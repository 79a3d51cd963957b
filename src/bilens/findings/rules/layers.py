"""Rules on the layers of a model: whether they can be read, their fit, weights and maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bilens.findings.rules.rule import Evidence, Judged, Rule, named
from bilens.records.layer_audit import LayerReading
from bilens.records.verdict import Outcome, Value

HUGE = 3.5  # robust z: Iglewicz and Hoaglin, How to detect and handle outliers, 1993
DOMINANT = 0.1  # of ‖B‖², carried by one input
LOW_RANK = 0.1  # effective rank, of the output directions that a layer can have


def non_finite(evidence: Evidence) -> Judged:
    layers = evidence.layers
    if not layers:
        return None
    broken = [layer.name for layer in layers if layer.broken is not None]
    return "fail" if broken else "pass", {
        "value": len(broken),
        "threshold": 0,
        "of": len(layers),
        "layers": named(broken),
    }


def r2(evidence: Evidence) -> Judged:
    layers = evidence.whole
    fits = [(layer, layer.fit) for layer in layers if layer.fit is not None]
    refused = [layer.name for layer, fit in fits if not fit.usable]
    if not layers:
        return None
    return "warn" if refused else "pass", {
        "value": min((fit.quadratic for _, fit in fits), default=1.0),
        "threshold": fits[0][1].threshold if fits else 0.0,
        "of": len(layers),
        "approximate": len(fits),
        "refused": len(refused),
        "layers": named(refused),
    }


def all_exact(values: Mapping[str, Value]) -> str:
    return "_exact" if values["approximate"] == 0 else ""


def counted(layers: tuple[LayerReading, ...], count: Callable[[LayerReading], int]) -> Judged:
    """Return how many units of all layers have a fault."""
    if not layers:
        return None
    having = [layer.name for layer in layers if count(layer) > 0]
    return "warn" if having else "pass", {
        "value": sum(map(count, layers)),
        "threshold": 0,
        "of": sum(layer.d_hidden for layer in layers),
        "layers": named(having),
    }


def dead_units(evidence: Evidence) -> Judged:
    def count(layer: LayerReading) -> int:
        return layer.units.dead + layer.units.never_active if layer.units else 0

    return counted(evidence.whole, count)


def duplicate_units(evidence: Evidence) -> Judged:
    found = counted(evidence.whole, lambda layer: layer.units.duplicates if layer.units else 0)
    units = [layer.units for layer in evidence.whole if layer.units is not None]
    if found is None or not units:
        return None
    outcome, values = found
    worst = max(units, key=lambda item: item.largest_overlap)
    return outcome, {**values, "overlap": worst.largest_overlap, "null": worst.overlap_null}


def huge_norm(evidence: Evidence) -> Judged:
    known = [(layer.norm_z, layer) for layer in evidence.whole if layer.norm_z is not None]
    if not known:
        return None
    value, worst = max(known, key=lambda item: item[0])
    return "warn" if value > HUGE else "pass", {
        "value": value,
        "threshold": HUGE,
        "norm": worst.weight_norm or 0.0,
        "layers": worst.name,
    }


def unused_inputs(evidence: Evidence) -> Judged:
    known = [(layer, layer.inputs) for layer in evidence.whole if layer.inputs is not None]
    if not known:
        return None
    having = [layer.name for layer, inputs in known if inputs.unused]
    most, inputs = max(known, key=lambda item: len(item[1].unused))
    return "info" if having else "pass", {
        "value": len(inputs.unused),
        "threshold": 0,
        "of": most.d_input,
        "layers": named(having),
    }


def dominant_inputs(evidence: Evidence) -> Judged:
    known = [
        (layer, layer.inputs)
        for layer in evidence.whole
        if layer.inputs is not None and layer.inputs.dominant is not None
    ]
    if not known:
        return None
    worst, inputs = max(known, key=lambda item: item[1].share)
    outcome: Outcome = "pass"
    if inputs.share > inputs.share_null:
        outcome = "warn" if inputs.share > DOMINANT else "info"
    return outcome, {
        "value": inputs.share,
        "threshold": DOMINANT,
        "null": inputs.share_null,
        "input": inputs.dominant or 0,
        "layers": worst.name,
    }


def low_rank(evidence: Evidence) -> Judged:
    known = [
        (outputs.effective_rank / most_directions(layer), layer, outputs)
        for layer in evidence.whole
        if (outputs := layer.outputs) is not None
    ]
    if not known:
        return None
    value, worst, outputs = min(known, key=lambda item: item[0])
    return "info" if value < LOW_RANK else "pass", {
        "value": value,
        "threshold": LOW_RANK,
        "rank": outputs.effective_rank,
        "null": outputs.effective_rank_null.median,
        "of": most_directions(worst),
        "layers": worst.name,
    }


def most_directions(layer: LayerReading) -> int:
    """Return how many output directions the quadratic part of a layer can have."""
    d_output = layer.d_output - layer.class_centred
    return min(d_output, layer.d_hidden, layer.d_input * (layer.d_input + 1) // 2)


def unstable_directions(evidence: Evidence) -> Judged:
    known = [(layer, layer.stability) for layer in evidence.whole if layer.stability is not None]
    if not known:
        return None
    unstable = [layer.name for layer, item in known if item.guaranteed == 0]
    return "warn" if unstable else "pass", {
        "value": len(unstable),
        "threshold": 0,
        "of": len(known),
        "kind": known[0][1].kind,
        "layers": named(unstable),
    }


NON_FINITE = Rule(
    "non_finite",
    ("layer_audit",),
    {"value": "whole", "threshold": "whole", "of": "count", "layers": "text"},
    non_finite,
    bad=">",
    scope="weights",
)
R2 = Rule(
    "r2",
    ("layer_audit",),
    {
        "value": "fixed3",
        "threshold": "fixed3",
        "of": "count",
        "approximate": "count",
        "refused": "count",
        "layers": "text",
    },
    r2,
    bad="<",
    scope="fit",
    variant=all_exact,
)
DEAD_UNITS = Rule(
    "dead_units",
    ("audit", "layer_audit"),
    {"value": "whole", "threshold": "whole", "of": "count", "layers": "text"},
    dead_units,
    bad=">",
    scope="weights",
)
DUPLICATE_UNITS = Rule(
    "duplicate_units",
    ("audit", "layer_audit"),
    {
        "value": "whole",
        "threshold": "whole",
        "of": "count",
        "layers": "text",
        "overlap": "fixed3",
        "null": "fixed3",
    },
    duplicate_units,
    bad=">",
    scope="weights",
)
HUGE_NORM = Rule(
    "huge_norm",
    ("layer_audit",),
    {"value": "quantity", "threshold": "quantity", "norm": "quantity", "layers": "text"},
    huge_norm,
    bad=">",
    scope="weights",
)
UNUSED_INPUTS = Rule(
    "unused_inputs",
    ("audit", "layer_audit"),
    {"value": "whole", "threshold": "whole", "of": "count", "layers": "text"},
    unused_inputs,
    bad=">",
    scope="weights",
)
DOMINANT_INPUTS = Rule(
    "dominant_inputs",
    ("audit", "layer_audit"),
    {
        "value": "percent",
        "threshold": "percent",
        "null": "percent",
        "input": "count",
        "layers": "text",
    },
    dominant_inputs,
    bad=">",
    scope="map",
)
LOW_RANK_RULE = Rule(
    "low_rank",
    ("layer_audit",),
    {
        "value": "percent",
        "threshold": "percent",
        "rank": "quantity",
        "null": "quantity",
        "of": "count",
        "layers": "text",
    },
    low_rank,
    bad="<",
    scope="map",
)
UNSTABLE_DIRECTIONS = Rule(
    "unstable_directions",
    ("audit", "layer_audit"),
    {"value": "whole", "threshold": "whole", "of": "count", "kind": "text", "layers": "text"},
    unstable_directions,
    bad=">",
    scope="rounding",
)
