"""The layers of a model as a table, and as three small charts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.charts.spectra import Column, layer_columns
from bilens.report.document import Document
from bilens.report.numbers import fixed, percent, quantity, whole
from bilens.report.svg import Figure

NONE = "—"


@dataclass(frozen=True)
class LayerRow:
    """One row of the table: texts."""

    name: str
    about: str
    broken: str | None
    refused: bool
    r2: str
    linear: str
    norm: str
    rank: str
    chance: str
    directions: str
    share: str
    units: str
    input: str
    stable: str


def layer_rows(t: Catalogue, document: Document) -> list[LayerRow]:
    """Return one row for each layer."""
    return [layer_row(t, layer) for layer in document["layers"]]


def layer_row(t: Catalogue, layer: dict[str, Any]) -> LayerRow:
    """Return the row of a layer; a dash where a claim is refused."""
    fit, outputs, units, inputs = (layer[key] for key in ("fit", "outputs", "units", "inputs"))
    stable = layer["stability"]
    return LayerRow(
        name=layer["name"],
        about=about(layer),
        broken=layer["broken"],
        refused=fit is not None and not fit["usable"],
        r2=t("layers.table.exact") if fit is None else r2_text(fit),
        linear=NONE if fit is None else fixed(fit["linear"], 3),
        norm=NONE if layer["weight_norm"] is None else quantity(layer["weight_norm"]),
        rank=NONE if outputs is None else fixed(outputs["effective_rank"], 1),
        chance=NONE if outputs is None else interval(outputs["effective_rank_null"]),
        directions=NONE if outputs is None else whole(outputs["directions_90"]),
        share=NONE if outputs is None else percent(outputs["top_share"]),
        units=NONE if units is None else unit_text(units),
        input=NONE
        if inputs is None or inputs["dominant"] is None
        else f"{inputs['dominant']} ({percent(inputs['share'])})",
        stable=NONE if stable is None else f"{stable['guaranteed']} / {stable['leading']}",
    )


def about(layer: dict[str, Any]) -> str:
    """Return activation and sizes."""
    sizes = " → ".join(whole(layer[key]) for key in ("d_input", "d_hidden", "d_output"))
    return f"{layer['activation']}, {sizes}"


def r2_text(fit: dict[str, Any]) -> str:
    """Return R² with its standard error."""
    return f"{fixed(fit['quadratic'], 3)} ± {fixed(fit['standard_error'], 3)}"


def interval(chance: dict[str, float]) -> str:
    """Return the range of chance."""
    return f"{fixed(chance['low'], 1)} – {fixed(chance['high'], 1)}"


def unit_text(units: dict[str, Any]) -> str:
    """Return how many units are dead, and how many pairs are doubled."""
    return f"{whole(units['dead'] + units['never_active'])} / {whole(units['duplicates'])}"


def layer_charts(t: Catalogue, document: Document) -> list[tuple[str, Figure]]:
    """Return a caption and a drawing for each of R², size and effective rank."""
    layers = document["layers"]
    found = []
    if any(layer["fit"] is not None for layer in layers):
        found.append(r2_chart(t, layers))
    found.append(size_chart(t, layers))
    if any(layer["outputs"] is not None for layer in layers):
        found.append(rank_chart(t, layers))
    return found


def r2_chart(t: Catalogue, layers: list[dict[str, Any]]) -> tuple[str, Figure]:
    """Return R² by degree for each layer; an exact one reaches 1."""
    columns, threshold = [], 0.0
    for layer in layers:
        fit = layer["fit"]
        if fit is not None:
            threshold = fit["threshold"]
            linear = max(fit["linear"], 0.0)
            columns.append(Column(max(fit["quadratic"], 0.0), linear, marked=not fit["usable"]))
        else:
            columns.append(Column(None if layer["broken"] is not None else 1.0))
    caption = t("layers.charts.r2")
    values = [layer["fit"]["quadratic"] for layer in layers if layer["fit"] is not None]
    text = t("layers.charts.r2_text", low=fixed(min(values), 3), high=fixed(max(values), 3))
    return caption, layer_columns(t, caption, text, columns, top=1.0, level=threshold)


def size_chart(t: Catalogue, layers: list[dict[str, Any]]) -> tuple[str, Figure]:
    """Return the size of the weights of each layer; one that stands out is marked."""
    limit = 3.5  # that of the rule; a z is there only where there are enough layers
    columns = [
        Column(layer["weight_norm"], marked=(layer["norm_z"] or 0.0) > limit) for layer in layers
    ]
    caption = t("layers.charts.norm")
    values = [layer["weight_norm"] or 0.0 for layer in layers]
    text = t("layers.charts.norm_text", low=quantity(min(values)), high=quantity(max(values)))
    return caption, layer_columns(t, caption, text, columns)


def rank_chart(t: Catalogue, layers: list[dict[str, Any]]) -> tuple[str, Figure]:
    """Return the effective rank of each layer's outputs, with its range by chance."""
    columns = []
    for layer in layers:
        outputs = layer["outputs"]
        if outputs is None:
            columns.append(Column(None))
            continue
        chance = outputs["effective_rank_null"]
        columns.append(Column(outputs["effective_rank"], chance=(chance["low"], chance["high"])))
    caption = t("layers.charts.rank")
    values = [column.value or 0.0 for column in columns]
    text = t("layers.charts.rank_text", low=fixed(min(values), 1), high=fixed(max(values), 1))
    return caption, layer_columns(t, caption, text, columns)
