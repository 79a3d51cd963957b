"""The section on layers at recorded inputs: R² first, then their units and ranks."""

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.layer_readings import LayerReading, LayerReadings
from bilens.report.markup import paragraph, quiet, section
from bilens.report.sections.layers import fit_text, named_layer
from bilens.report.sections.performance_section import data_notes
from bilens.report.tables import FieldColumn, FieldTable
from bilens.report.text import NONE, Catalogue, grouped


def seen_units(t: Catalogue, record: Audit, found: LayerReadings) -> Markup:
    """Return the section on layers at the inputs that were given; nothing without any."""
    rows = [layer for layer in found.readings if layer.seen is not None]
    if not rows:
        return Markup()
    said = [quiet(line) for line in data_notes(t, record.data)] if record.text is None else []
    body = SEEN.on_page(t, rows, class_="layers")
    return section(t, "layers.seen", paragraph(t("layers.seen.lead")), body, *said)


def beside(t: Catalogue, here: int | None, weights: int | None) -> str:
    """Return a count on inputs, and beside it that of the weights alone."""
    counts = (NONE if one is None else grouped(one) for one in (here, weights))
    return t("layers.seen.beside", **dict(zip(("here", "weights"), counts, strict=True)))


def silent_units(t: Catalogue, layer: LayerReading) -> str:
    units = layer.units
    assert layer.seen is not None, "rows of the table have it"
    return beside(t, layer.seen.silent, None if units is None else units.dead + units.never_active)


def equal_units(t: Catalogue, layer: LayerReading) -> str:
    assert layer.seen is not None, "rows of the table have it"
    units = layer.units
    return beside(t, layer.seen.duplicates, None if units is None else units.duplicates)


SEEN = FieldTable(
    LayerReading,
    (
        FieldColumn("name", drawn=named_layer, numeric=False),
        FieldColumn("fit", fit_text, strong=True),
        FieldColumn("seen.rows"),
        FieldColumn("seen", silent_units, heading="layers.seen.silent"),
        FieldColumn("units", equal_units, heading="layers.seen.duplicates"),
        FieldColumn("seen.input_rank"),
        FieldColumn("seen.hidden_rank"),
        FieldColumn("seen.output_rank"),
    ),
    "layers.seen.caption",
)
