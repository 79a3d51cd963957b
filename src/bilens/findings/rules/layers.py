"""Rules on layers: whether they can be read, their fit, weights and maps, and what changed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from bilens.findings.rules import models
from bilens.findings.rules.rule import (
    ASSUMED,
    GROUND,
    HEAVY,
    OPEN,
    Evidence,
    Rule,
    Values,
    formats,
    list_names,
    rule,
)
from bilens.records.audit import ReadAs
from bilens.records.common import Value
from bilens.records.layer_readings import LayerDifference

LAYERS: tuple[ReadAs, ...] = ("layers",)
BOTH: tuple[ReadAs, ...] = ("classes", "layers")
ALL: tuple[ReadAs, ...] = (*BOTH, "columns")
SAME = ("identical", "same_tensors", "same_numbers", "rounded", "baseline_rounded", "rounding")
NO_SUCH = ("the model has no such layer", "the baseline has no such layer")
COUNTED: Final = formats("value threshold", "whole", of="count", layers="text")


# A count over layers that should be zero; what a baseline is needed for.
counted = partial(Rule, readings=BOTH, group="model", values=COUNTED, bad=">", scope="weights")
changed = partial(Rule, readings=ALL, group="use", needs="baseline", scope="map")


def total(counts: Mapping[str, int], of: int) -> dict[str, Value]:
    """Return a count over layers, and the layers that have any."""
    having = [name for name, count in counts.items() if count > 0]
    return {"value": sum(counts.values()), "of": of, "layers": list_names(having)}


@rule(
    counted,
    readings=LAYERS,
    beyond="fail",
    values={**COUNTED, "tensors": "count"},
    variant=lambda values: "" if not values["tensors"] else "_all" if values["of"] else "_tensors",
)
def non_finite(evidence: Evidence) -> Iterator[Values]:
    layers, (tensors, broken) = evidence.layers, evidence.others
    if layers or tensors:
        counts = {layer.name: layer.broken is not None for layer in layers}
        yield total(counts | dict.fromkeys(broken, True), len(layers)) | {"tensors": tensors}


@rule(
    Rule,
    group="reading",
    rank=3,
    readings=LAYERS,
    values=formats("value threshold", "fixed3")
    | formats("of approximate refused", "count", layers="text", on="text"),
    bad="<",
    variant=lambda values: "_exact" if values["approximate"] == 0 else str(values["on"]),
)
def r2(evidence: Evidence) -> Iterator[Values]:
    fits = [(layer.name, layer.fit) for layer in evidence.readable if layer.fit is not None]
    refused = [name for name, fit in fits if not fit.usable]
    if evidence.readable:
        known = [x for _, fit in fits for x in (fit.least, fit.trimmed) if x is not None]
        missed = any(None in (fit.quadratic, fit.trimmed) for _, fit in fits)  # a constant
        # on an assumed input, or by a few rows or files that carry all, nothing is vouched for
        given = all(fit.vouched and fit.standard_error < HEAVY for _, fit in fits)
        yield {
            "value": min([0.0] * missed + known, default=1.0),  # there: no variance to explain
            "on": {0: "", len(fits): "_seen"}.get(sum(fit.seen for _, fit in fits), "_some"),
            "threshold": fits[0][1].threshold if fits else 0.0,
            "of": len(evidence.readable),
            "approximate": len(fits),
            "refused": len(refused),
            "layers": list_names(refused),
            GROUND: "" if all(fit.seen for _, fit in fits) else "assumed",
            "outcome": "warn" if refused else "pass" if given else "info",
        }


layered_accuracy = replace(models.accuracy, readings=LAYERS)  # behind R² there


@rule(counted)
def dead_units(evidence: Evidence) -> Iterator[Values]:
    units = {layer.name: layer.units for layer in evidence.readable if layer.units is not None}
    if units:
        counts = {name: item.dead + item.never_active for name, item in units.items()}
        yield total(counts, hidden_units(evidence))


@rule(counted, values={**COUNTED, "overlap": "fixed3", "null": "fixed3"})
def duplicate_units(evidence: Evidence) -> Iterator[Values]:
    units = {layer.name: layer.units for layer in evidence.readable if layer.units is not None}
    if units:
        counts = {name: item.duplicates for name, item in units.items()}
        worst = max(units.values(), key=lambda item: item.largest_overlap)
        overlaps = {"overlap": worst.largest_overlap, "null": worst.overlap_null}
        yield total(counts, hidden_units(evidence)) | overlaps


def hidden_units(evidence: Evidence) -> int:
    """Return how many hidden units have weights."""
    empty = sum(layer.units.empty for layer in evidence.readable if layer.units is not None)
    return sum(layer.d_hidden for layer in evidence.readable) - empty


@rule(
    Rule,
    group="model",
    readings=LAYERS,
    values=formats("value threshold norm", "quantity", layers="text"),
    threshold=3.5,  # robust z: Iglewicz and Hoaglin, How to detect and handle outliers, 1993
    bad=">",
    scope="weights",
)
def huge_norm(evidence: Evidence) -> Iterator[Values]:
    for layer in evidence.readable:
        if layer.norm_z is not None:
            norm = layer.weight_norm or 0.0
            yield {"value": layer.norm_z, "norm": norm, "layers": layer.name}


@rule(counted, beyond="info")
def unused_inputs(evidence: Evidence) -> Iterator[Values]:
    unused = {layer: layer.inputs.unused for layer in evidence.readable if layer.inputs is not None}
    if unused:
        most = max(unused, key=lambda layer: len(unused[layer]))
        counts = {layer.name: len(inputs) for layer, inputs in unused.items()}
        yield total(counts, most.d_input) | {"value": len(unused[most])}


@rule(
    Rule,
    group="model",
    readings=BOTH,
    values=formats("value threshold null", "percent", input="number or name", layers="text"),
    threshold=0.1,  # of ‖B‖², or of the variance of the outputs, carried by one input
    variant=lambda values: "_rows" if isinstance(values["input"], str) else "",
    bad=">",
    usual="info",
    scope="map",
)
def dominant_inputs(evidence: Evidence) -> Iterator[Values]:
    maps = [one.inputs for one in evidence.readable if one.outputs is not None]
    if any(inputs is not None and inputs.dominant is None for inputs in maps):
        return  # of some layers nothing says in which units inputs compare
    for layer in evidence.readable:
        inputs = layer.inputs
        if inputs is not None and inputs.dominant is not None:
            found: dict[str, Value] = {
                "value": inputs.share,
                "null": inputs.share_null,
                "input": inputs.name or str(inputs.dominant) if inputs.rows else inputs.dominant,
                "layers": layer.name,
            }
            if inputs.share <= inputs.share_null:
                found["outcome"] = "pass"
            found[ASSUMED] = layer.name in evidence.assumed
            yield found


@rule(
    Rule,
    group="model",
    readings=LAYERS,
    values=formats("value threshold", "percent", rank="quantity", null="quantity", of="count")
    | {"layers": "text"},
    threshold=0.1,  # effective rank, of the output directions that a layer can have
    bad="<",
    beyond="info",
    scope="map",
)
def low_rank(evidence: Evidence) -> Iterator[Values]:
    for layer in evidence.readable:
        if layer.outputs is not None:
            rank, inputs = layer.outputs.effective_rank, layer.d_input * (layer.d_input + 1) // 2
            most = min(layer.d_output - layer.class_centred, layer.d_hidden, inputs)
            yield {
                "value": rank / most,
                "rank": rank,
                "null": layer.outputs.effective_rank_null.median,
                "of": most,
                "layers": layer.name,
                ASSUMED: layer.name in evidence.assumed,
            }


@rule(
    Rule,
    group="reading",
    readings=BOTH,
    values=formats("value threshold", "whole", of="count", kind="text", layers="text"),
    bad=">",
    scope="rounding",
)
def unstable_directions(evidence: Evidence) -> Iterator[Values]:
    known = {one.name: one.stability for one in evidence.readable if one.stability is not None}
    for assumed in (False, True):  # of a map that may not be the layer's, nothing is proven
        some = {n: item for n, item in known.items() if (n in evidence.assumed) == assumed}
        if some:
            unstable = {name: item.guaranteed == 0 for name, item in some.items()}
            kind = next(iter(some.values())).kind
            yield total(unstable, len(some)) | {"kind": kind, ASSUMED: assumed}


# What changed from a baseline: how much, and whether it went into few directions.


def end_of_key(values: Values) -> str:
    """Return the end of the key of a sentence on numbers of some layers, or on assumed inputs."""
    return "_open" if OPEN in values else "_assumed" if ASSUMED in values else ""


@rule(
    counted,
    readings=ALL,
    group="use",
    beyond="info",
    needs="baseline",
    variant=lambda values: f"_{values[OPEN]}" if OPEN in values else "",
)
def changed_layers(evidence: Evidence) -> Iterator[Values]:
    whole = evidence.whole_change
    head = None if whole is None else whole.headline
    alone = Counter(one.refused for one in evidence.changes if one.refused in NO_SUCH)
    if head and len(alone) == 1 and alone.total() == len(evidence.changes):
        return  # of one of both no layer is read, as in a format whose tensors alone are
    # as many layers under other names, of the same tensors, are no change
    renamed = head is not None and head.kind in SAME and len({alone[why] for why in NO_SUCH}) == 1
    if layers := [one for one in evidence.changes if not (renamed and one.refused in NO_SUCH)]:
        found = total({layer.name: not layer.identical for layer in layers}, len(layers))
        yield {**found, OPEN: evidence.around, "outcome": "warn"} if evidence.around else found


def compared(
    evidence: Evidence, layers: Sequence[LayerDifference], names: tuple[str, ...]
) -> Iterator[Values]:
    """Yield numbers of what two maps of a layer differ by, and whether they rest on assumed inputs.

    Where a layer has none, or what is around them is another, they are not of the whole model.
    """
    numbers = {one.name: [getattr(one, name) for name in names] for one in layers}
    known = {name: [x for x in each if x is not None] for name, each in numbers.items()}
    lacking = any(not known[one.name] and not one.same_function for one in layers)
    open_for = evidence.around or ("layers" if lacking else "")
    for layer in layers:
        for value in known[layer.name]:
            assumed = layer.row_change is None and not (layer.identical or layer.same_function)
            case: dict[str, Value] = {ASSUMED: assumed, "value": value, "layers": layer.name}
            if assumed and layer.name not in evidence.assumed:
                case[GROUND] = "units"
            yield {**case, OPEN: open_for, "outcome": "info"} if open_for else case


@rule(
    changed,
    values=formats("value threshold", "fixed5", layers="text"),
    threshold=0.99,
    bad="<",
    beyond="info",
    variant=end_of_key,
)
def similarity(evidence: Evidence) -> Iterator[Values]:
    layers = sorted(evidence.changes, key=lambda layer: layer.name)
    yield from compared(evidence, layers, ("frobenius", "gaussian", "row_similarity"))


@rule(
    changed,
    values=formats("value threshold", "percent", layers="text"),
    threshold=0.1,  # of the size of a quadratic part, or of what a map answers
    bad=">",
    beyond="info",
    variant=end_of_key,
)
def change(evidence: Evidence) -> Iterator[Values]:
    layers = sorted(evidence.changes, key=lambda layer: layer.name, reverse=True)
    yield from compared(evidence, layers, ("change", "map_change", "row_change"))


@rule(
    changed,
    group="model",
    values=formats("value threshold", "percent", mode="mode", rank="quantity", null="quantity")
    | {"directions": "count", "layers": "text"},
    threshold=0.5,  # of the effective rank of noise of the same size
    bad="<",
    rank=3,
)
def concentrated_change(evidence: Evidence) -> Iterator[Values]:
    for layer in evidence.changes:
        for name, mode in (("outputs", layer.outputs), ("inputs", layer.inputs)):
            if mode is not None and mode.effective_rank_null is not None:
                yield {
                    ASSUMED: layer.name in evidence.assumed,
                    "value": mode.effective_rank / mode.effective_rank_null,
                    "mode": name,
                    "rank": mode.effective_rank,
                    "null": mode.effective_rank_null,
                    "directions": mode.directions_90,
                    "layers": layer.name,
                }
