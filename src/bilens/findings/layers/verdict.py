"""The verdict on many layers: a few rules, each with its value, threshold and level of chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from bilens.findings.layers.subject import LayerSubject, described
from bilens.findings.verdict import accuracy_finding
from bilens.records.layer_audit import InputShares, LayerReading, Stability, Units
from bilens.records.verdict import Finding, Outcome, Share

HUGE = 3.5  # robust z: Iglewicz and Hoaglin, How to detect and handle outliers, 1993
DOMINANT = 0.1  # of ‖B‖², carried by one input
LOW_RANK = 0.1  # effective rank, of the output directions that a layer can have
NAMED = 5  # layers that a sentence names


def judge_layers(
    layers: Sequence[LayerReading], accuracy: Share | None = None
) -> tuple[Finding, ...]:
    """Return the rules in the order in which a reader needs them; a rule without a case is absent.

    Args:
        layers: all of them, first to last.
        accuracy: of the whole model; None where no data were given.
    """
    whole = [layer for layer in layers if layer.broken is None]
    found = [
        _non_finite(layers),
        _r2(whole),
        None if accuracy is None else accuracy_finding(accuracy),
        _dead_units(whole),
        _duplicate_units(whole),
        _huge_norm(whole),
        _unused_inputs(whole),
        _dominant_inputs(whole),
        _low_rank(whole),
        _unstable_directions(whole),
    ]
    return tuple(finding for finding in found if finding is not None)


def judge_weights(
    subject: LayerSubject, units: Units, inputs: InputShares, stable: Stability | None
) -> tuple[Finding, ...]:
    """Return the rules on the weights of a single layer that is read exactly."""
    layers = [replace(described(subject), units=units, inputs=inputs, stability=stable)]
    rules = (_dead_units, _duplicate_units, _unused_inputs, _dominant_inputs, _unstable_directions)
    return tuple(finding for rule in rules if (finding := rule(layers)) is not None)


def named(names: Sequence[str]) -> str:
    """Return some names, and how many more there are."""
    more = [f"+{len(names) - NAMED}"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def _non_finite(layers: Sequence[LayerReading]) -> Finding:
    broken = [layer.name for layer in layers if layer.broken is not None]
    return Finding(
        "non_finite",
        "fail" if broken else "pass",
        {"value": len(broken), "threshold": 0, "of": len(layers), "layers": named(broken)},
    )


def _r2(layers: Sequence[LayerReading]) -> Finding | None:
    fits = [(layer, layer.fit) for layer in layers if layer.fit is not None]
    if not layers:
        return None
    if not fits:
        values: dict[str, float | int | str] = {
            "value": 1.0,
            "threshold": 0.0,
            "of": len(layers),
            "refused": 0,
            "layers": "",
        }
        return Finding("r2", "pass", {**values, "approximate": 0})
    refused = [layer.name for layer, fit in fits if not fit.usable]
    return Finding(
        "r2",
        "warn" if refused else "pass",
        {
            "value": min(fit.quadratic for _, fit in fits),
            "threshold": fits[0][1].threshold,
            "of": len(layers),
            "approximate": len(fits),
            "refused": len(refused),
            "layers": named(refused),
        },
    )


def _dead_units(layers: Sequence[LayerReading]) -> Finding | None:
    return _counted(
        "dead_units",
        layers,
        lambda layer: layer.units.dead + layer.units.never_active if layer.units else 0,
    )


def _duplicate_units(layers: Sequence[LayerReading]) -> Finding | None:
    found = _counted(
        "duplicate_units", layers, lambda layer: layer.units.duplicates if layer.units else 0
    )
    units = [layer.units for layer in layers if layer.units is not None]
    if found is None or not units:
        return None
    worst = max(units, key=lambda item: item.largest_overlap)
    extra = {"overlap": worst.largest_overlap, "null": worst.overlap_null}
    return Finding(found.rule, found.outcome, {**found.values, **extra})


def _counted(
    rule: str, layers: Sequence[LayerReading], count: Callable[[LayerReading], int]
) -> Finding | None:
    """Return a finding on how many units of all layers have a fault."""
    if not layers:
        return None
    having = [layer.name for layer in layers if count(layer) > 0]
    return Finding(
        rule,
        "warn" if having else "pass",
        {
            "value": sum(map(count, layers)),
            "threshold": 0,
            "of": sum(layer.d_hidden for layer in layers),
            "layers": named(having),
        },
    )


def _huge_norm(layers: Sequence[LayerReading]) -> Finding | None:
    known = [layer for layer in layers if layer.norm_z is not None]
    if not known:
        return None
    worst = max(known, key=lambda layer: layer.norm_z or 0.0)
    value = worst.norm_z or 0.0
    return Finding(
        "huge_norm",
        "warn" if value > HUGE else "pass",
        {"value": value, "threshold": HUGE, "norm": worst.weight_norm or 0.0, "layers": worst.name},
    )


def _unused_inputs(layers: Sequence[LayerReading]) -> Finding | None:
    counts = {layer.name: len(layer.inputs.unused) for layer in layers if layer.inputs is not None}
    if not counts:
        return None
    having = [name for name, count in counts.items() if count]
    most = max(layers, key=lambda layer: counts.get(layer.name, 0))
    return Finding(
        "unused_inputs",
        "info" if having else "pass",
        {
            "value": counts[most.name],
            "threshold": 0,
            "of": most.d_input,
            "layers": named(having),
        },
    )


def _dominant_inputs(layers: Sequence[LayerReading]) -> Finding | None:
    known = [layer for layer in layers if layer.inputs and layer.inputs.dominant is not None]
    if not known:
        return None
    worst = max(known, key=lambda layer: layer.inputs.share if layer.inputs else 0.0)
    inputs = worst.inputs
    assert inputs is not None, "chosen above"
    beyond = inputs.share > inputs.share_null
    outcome: Outcome = "pass"
    if beyond:
        outcome = "warn" if inputs.share > DOMINANT else "info"
    return Finding(
        "dominant_inputs",
        outcome,
        {
            "value": inputs.share,
            "threshold": DOMINANT,
            "null": inputs.share_null,
            "input": inputs.dominant or 0,
            "layers": worst.name,
        },
    )


def _low_rank(layers: Sequence[LayerReading]) -> Finding | None:
    known = [
        (outputs.effective_rank / most_directions(layer), layer, outputs)
        for layer in layers
        if (outputs := layer.outputs) is not None
    ]
    if not known:
        return None
    value, worst, outputs = min(known, key=lambda item: item[0])
    return Finding(
        "low_rank",
        "info" if value < LOW_RANK else "pass",
        {
            "value": value,
            "threshold": LOW_RANK,
            "rank": outputs.effective_rank,
            "null": outputs.effective_rank_null.median,
            "of": most_directions(worst),
            "layers": worst.name,
        },
    )


def most_directions(layer: LayerReading) -> int:
    """Return how many output directions the quadratic part of a layer can have."""
    d_output = layer.d_output - layer.class_centred
    return min(d_output, layer.d_hidden, layer.d_input * (layer.d_input + 1) // 2)


def _unstable_directions(layers: Sequence[LayerReading]) -> Finding | None:
    known = [(layer, layer.stability) for layer in layers if layer.stability is not None]
    if not known:
        return None
    unstable = [layer.name for layer, item in known if item.guaranteed == 0]
    return Finding(
        "unstable_directions",
        "warn" if unstable else "pass",
        {
            "value": len(unstable),
            "threshold": 0,
            "of": len(known),
            "kind": known[0][1].kind,
            "layers": named(unstable),
        },
    )
