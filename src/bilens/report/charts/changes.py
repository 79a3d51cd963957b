"""Where a model changed: a map of kinds of tensors by layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bilens.records.layer_audit import TensorChange
from bilens.report.markup import Figure, element, joined, label
from bilens.report.text import Catalogue, whole

WIDTH, NAMES, HIGH, HEAD, WIDEST = 760.0, 132.0, 24.0, 22.0, 40.0
NUMBERED = 20.0  # a cell so wide has room for a number
DECADES = 6  # of ‖ΔW‖ / ‖W‖, from pale to full colour


def change_map(t: Catalogue, changed: Sequence[TensorChange]) -> Figure:
    """Return a cell for each kind and layer: coloured by its largest change, with its rank."""
    kinds = [*dict.fromkeys(one.kind for one in changed)]
    last = max((one.layer for one in changed if one.layer is not None), default=-1)
    layers = [*([None] if any(one.layer is None for one in changed) else []), *range(last + 1)]
    wide = min((WIDTH - NAMES) / len(layers), WIDEST)
    ranked = sorted(changed, key=lambda one: math.inf if one.change is None else one.change)
    cells = {(one.kind, one.layer): one for one in ranked}
    step, parts = math.ceil(NUMBERED / wide), []
    for place, layer in [*enumerate(layers)][::step]:
        name = "–" if layer is None else str(layer)
        parts.append(label(NAMES + (place + 0.5) * wide, HEAD - 8, name, "tick", "middle"))
    for row, kind in enumerate(kinds):
        top, base = HEAD + row * HIGH, HEAD + (row + 0.68) * HIGH
        parts.append(label(NAMES - 8, base, t(f"difference.kind.{kind}"), "tick", "end"))
        for place, layer in enumerate(layers):
            left, found = NAMES + place * wide, cells.get((kind, layer))
            box = {"x": left + 1, "y": top + 1, "width": wide - 2, "height": HIGH - 2}
            parts.append(element("rect", **box, class_="track"))
            if found is not None:
                size = max(found.change or 1.0, 10.0**-DECADES)
                shade = min(1 + 0.85 * math.log10(size) / DECADES, 1.0)
                colour = "neg strong" if found.state == "not_finite" else "pos strong"
                parts.append(element("rect", **box, class_=colour, fill_opacity=shade))
                number = str(found.rank or "") if wide >= NUMBERED else ""
                parts.append(label(left + wide / 2, base, number, "number", "middle"))
    ends = NAMES + len(layers) * wide + 4, HEAD + len(kinds) * HIGH + 4
    title, text = t("difference.map"), t("difference.map_text", changed=whole(len(changed)))
    return Figure(title, text, *ends, joined(*parts), "chart change-map")
