"""What a layer audit says on a terminal: one row for each layer, R² first."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bilens.cli.tables.cells import number, plain, short
from bilens.records.base import displayable
from bilens.report.catalogue import load_catalogue
from bilens.report.sections.conditions import condition_lines
from bilens.report.sections.verdict import (
    ICONS,
    overall_outcome,
    overall_sentence,
    verdict_findings,
)

CAPTION = (
    "R² of the closest quadratic map under a standard normal input; — where a claim is refused or "
    "the layer cannot be read. Rank: of the output directions, beside its range by chance."
)


def layer_audit_table(document: dict[str, Any]) -> Table:
    """Return one row for each layer of a checked document."""
    table = Table(caption=CAPTION, caption_justify="left", pad_edge=False)
    table.add_column("layer", overflow="fold", min_width=8)
    for name in ("R²", "linear", "‖W‖", "rank", "chance", "90%", "largest λ", "dead"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in document["layers"]:
        table.add_row(plain(layer["name"]), *cells(layer))
    return table


def layer_lines(document: dict[str, Any]) -> list[str]:
    """Return every finding, and then the verdict, as plain text: print without markup."""
    t = load_catalogue("en")
    keys = ("kind", "verdict", "passed", "conditions")
    shown = displayable({key: document[key] for key in keys})
    found = [*verdict_findings(t, shown), *condition_lines(t, shown)]
    lines = [f"{item.icon} {item.word}: {item.sentence}" for item in found]
    return [*lines, f"{ICONS[overall_outcome(shown)]} {overall_sentence(t, shown)}"]


def cells(layer: dict[str, Any]) -> list[str]:
    """Return the numbers of one layer."""
    if layer["broken"] is not None:
        return ["broken", *7 * ["—"]]
    fit, outputs, units = layer["fit"], layer["outputs"], layer["units"]
    first = ["exact", "—"] if fit is None else [f"{fit['quadratic']:.3f}", f"{fit['linear']:.3f}"]
    dead = str(units["dead"] + units["never_active"])
    size = number(layer["weight_norm"], ".4g")
    if outputs is None:
        return [*first, size, *4 * ["—"], dead]
    chance = outputs["effective_rank_null"]
    return [
        *first,
        size,
        short(outputs["effective_rank"]),
        f"{short(chance['low'])}–{short(chance['high'])}",
        str(outputs["directions_90"]),
        f"{outputs['pairs'][0]['eigenvalue']:+.3g}",
        dead,
    ]
