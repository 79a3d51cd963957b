"""The page of a conversion: the bill, the gain, layer by layer, and what was not preserved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os.path import commonprefix

from markupsafe import Markup

from bilens.records.conversion import Conversion, Measured
from bilens.report.charts.curves import effect_chart
from bilens.report.charts.spectra import LayerColumn, layer_columns
from bilens.report.markup import (
    Column,
    drawings,
    element,
    heading,
    joined,
    paragraph,
    section,
    table,
)
from bilens.report.plot import Axis, padded
from bilens.report.sections.overview import Page
from bilens.report.sections.trace_circuits import passages, readings
from bilens.report.text import NONE, Catalogue, fixed, percent, signed, tick_text, visible, whole

HALF = 1.96  # standard errors in half a 95 % interval


def conversion_page(t: Catalogue, record: Conversion) -> Page:
    first, *more = summary(t, record)
    lines = paragraph(first, class_="overall"), *map(paragraph, more)
    values = record.source.provenance.get("teacher", NONE), record.loaded_by, " ".join(record.notes)
    parts = [("bill", section(t, "conversion.bill", *lines, class_="verdict"))]
    parts += [("stages", stages(t, record)), ("layers", layers(t, record))]
    limits = t.each("conversion.limits", ("text", "interval", "alone", "chosen"))
    if record.gain:
        parts.append(("readings", readings(t, record.gain, "conversion")))
        limits += t.each("trace.limits", ("norm", "direct", "meaning"))
    parts += [("lost", lost(t, record))] if any(one.losses for one in record.domains) else []
    return Page(
        keys="conversion.page",
        title=record.folder,
        count=len(record.layers),
        facts=zip(t.each("conversion", ("made_from", "opens", "notes")), values, strict=True),
        parts=parts,
        limits=limits,
        styles=("trace.css", "conversion.css"),
    )


def summary(t: Catalogue, record: Conversion) -> list[str]:
    """Return the bill of each domain in plain words, and the gain."""
    made, model, lines = len(record.layers), record.model, []
    of = {"count": whole(made), "all": whole(made + len(record.kept))}
    for one in record.domains:
        right, now = (1000 * (share or 0.0) for share in (one.teacher_accuracy, one.accuracy))
        low, high = (fixed(math.exp(min(loss, 99.0))) for loss in (one.teacher_loss, one.loss))
        said = {"before": fixed(right, 0), "after": fixed(now, 0), "low": low, "high": high}
        said["change"] = around(now - right, 1000 * (one.accuracy_error or 0.0), 1)
        said |= {"name": named(t, one), "added": around(one.loss_added, one.error)}
        lines.append(t(f"conversion.bill.{record.unit.replace(' ', '_')}", **said, **of))
    share = percent(model.exact_parameters / (model.num_parameters or 1))
    return [*lines, t("conversion.gained", exact=whole(model.exact_parameters), share=share, **of)]


def named(t: Catalogue, one: Measured) -> str:
    return one.name if one.fitted else t("conversion.only_measured", name=one.name)


def around(value: float, error: float, digits: int = 3) -> str:
    """Return a difference with half its 95 % interval."""
    return f"{signed(value, digits)} ± {fixed(HALF * error, digits)}"


def known(*values: float | None) -> list[str]:
    return [NONE if value is None else fixed(value, 3) for value in values]


def stages(t: Catalogue, record: Conversion) -> Markup:
    """Return a row for each stage on each domain, and the loss while it was distilled."""
    rows, curve = [], Markup()
    for early, last in zip(record.after_layers, record.domains, strict=True):
        for key, one in (("layers", early), ("end", last)):
            losses = *known(one.teacher_loss, one.loss), around(one.loss_added, one.error)
            scores = known(one.kl, one.same_top_token, one.teacher_accuracy, one.accuracy)
            stage = named(t, one), t(f"conversion.stage.{key}")
            rows.append((*stage, *losses, *scores, whole(one.tokens), whole(one.texts)))
    if record.curve:
        caption, x = t.each("conversion.curve", ("caption", "x"), tokens=whole(record.line_tokens))
        seen, values = zip(*((one.tokens, one.loss_added) for one in record.curve), strict=True)
        axis = Axis(*padded(values), tick_text)
        chart = effect_chart(caption, caption, x, seen, [("kind-all", values)], axis)
        curve = drawings([(caption, chart)])
    words = [Column(name, numeric=False) for name in t.each("conversion", ("domain", "stage"))]
    keys = "loss", "now", "added", "kl", "same", "before", "after", "tokens", "texts"
    columns, label = [*words, *t.each("conversion", keys)], t("conversion.stages.heading")
    lead = paragraph(
        t("conversion.stages.lead", unit=t(f"conversion.unit.{record.unit.replace(' ', '_')}"))
    )
    return section(
        t, "conversion.stages", lead, table(t, "", columns, rows, named=(0, 1), label=label), curve
    )


def layers(t: Catalogue, record: Conversion) -> Markup:
    """Return R² and swap-in cost of each layer as columns, and the numbers behind them."""
    costs, fits, swaps, rows = [], [], dict[str, str](), []
    for block, value in record.swap_in_costs.items():
        error = record.swap_in_errors[block]
        low, middle, high = (max(value + side * HALF * error, 0.0) for side in (-1, 0, 1))
        costs.append(LayerColumn(middle, null=(low, high)))
        swaps[block] = around(value, error, 4)
    for one in record.layers:
        fits.append(LayerColumn(one.r_squared and max(one.r_squared, 0.0), one.closed_form))
        block = next((part for part in (one.name, *one.name.split(".")) if part in swaps), "")
        scores = known(one.closed_form, one.r_squared, one.trimmed, one.median)
        rows.append((one.name, *scores, swaps.get(block, NONE)))
    first, second = t.each("conversion.layers", ("fit", "cost"), tokens=whole(record.line_tokens))
    charts = [(first, layer_columns(t, first, first, fits, top=1.0))]
    charts.append((second, layer_columns(t, second, second, costs)))
    names = t.each("conversion.layers", ("name", "closed", "all", "trimmed", "median", "swap"))
    found = table(t, "", names, rows, label=t("conversion.layers.heading"))
    return section(
        t, "conversion.layers", paragraph(t("conversion.layers.lead")), drawings(charts), found
    )


def lost(t: Catalogue, record: Conversion) -> Markup:
    """Return where the converted model is worse, where it differs most, and what both write."""
    parts = [paragraph(t("conversion.lost.lead"))]
    places = t.each("conversion", ("at", "tokens", "added"))
    texts = [
        Column(one, False) for one in t.each("conversion", ("beginning", "teacher", "student"))
    ]
    for one in record.domains:
        rows = [
            (
                t(f"conversion.{x.kind}", at=visible(x.at)),
                whole(x.count),
                around(x.loss_added, x.error),
            )
            for x in one.losses
        ]
        parts += [heading(named(t, one)), table(t, t("conversion.losses"), places, rows)]
        if one.worst is not None:
            parts += [heading(t("conversion.worst"), 4), passages(t, one.worst, spaced=True)]
        written = []
        for sample in one.samples:
            same = len(commonprefix([sample.teacher, sample.student]))
            models = (marked(text, same) for text in (sample.teacher, sample.student))
            written.append((visible("".join(sample.beginning)), *models))
        parts.append(table(t, t("conversion.samples"), texts, written, named=(), class_="samples"))
    return section(t, "conversion.lost", *parts)


def marked(text: Sequence[str], place: int) -> Markup:
    """Return a text with a mark on one of its tokens."""
    before, at, behind = text[:place], text[place : place + 1], text[place + 1 :]
    shown = [visible("".join(part)) for part in (before, at, behind)]
    return joined(shown[0], element("mark", shown[1]), shown[2])
