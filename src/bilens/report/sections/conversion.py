"""The page of a conversion: the bill, the gain, layer by layer, and what was not preserved."""

import math

from markupsafe import Markup

from bilens.records.bilinear_conversion import Conversion, DomainLoss
from bilens.report.charts.curves import effect_chart
from bilens.report.charts.spectrum_charts import LayerColumn, layer_columns
from bilens.report.markup import Column, drawings, facts, heading, heads, paragraph, section, table
from bilens.report.plot import Axis, padded
from bilens.report.sections.overview import Page
from bilens.report.sections.performance_section import data_notes
from bilens.report.sections.trace_circuits import passages, readings
from bilens.report.sections.trace_page import causal_of
from bilens.report.text import NONE, Catalogue, fixed, grouped, percent, quantity, signed, tick_text

HALF = 1.96  # standard errors in half a 95 % interval


def conversion_page(t: Catalogue, record: Conversion) -> Page:
    first, *more = summary(t, record)
    lines = paragraph(first, class_="overall"), *map(paragraph, more)
    kind = "text" if record.rows is None else "rows"
    limits = t.each("conversion.limits", (kind, "interval", "alone", "chosen"))
    limits += t.each("trace.limits", ("norm", "direct", "meaning")) if record.gain else []
    gain = Markup()
    if record.gain:
        gain = readings(t, record.gain, "conversion", lambda one: causal_of(t, one, "conversion"))
    return Page(
        keys="conversion.page",
        title=record.folder,
        count=len(record.layers),
        facts=[(t("conversion.opens"), record.loaded_by)],
        parts=[
            ("bill", section(t, "conversion.bill", *lines, class_="verdict")),
            ("stages", stages(t, record)),
            ("layers", layers(t, record)),
            ("readings", gain),
            ("lost", lost(t, record)),
        ],
        limits=limits,
        styles=("trace.css", "conversion.css"),
    )


def summary(t: Catalogue, record: Conversion) -> list[str]:
    """Return the bill of each domain in plain words, and the gain."""
    made = len(record.layers)
    of = {"count": grouped(made), "all": grouped(made + len(record.kept))}
    lines = []
    for one in record.domains:
        right, now = (share or 0.0 for share in (one.teacher_accuracy, one.accuracy))
        low, high = (fixed(math.exp(min(loss, 99.0))) for loss in (one.teacher_loss, one.loss))
        said = {"before": percent(right), "after": percent(now), "low": low, "high": high}
        said |= {"name": domain_name(t, one), "added": around(one.loss_added, one.error)}
        said["change"] = around(100 * (now - right), 100 * (one.accuracy_error or 0.0), 2)
        said["same"] = percent(one.same_top_token or 0.0)
        if one.accuracy is None and one.kl is not None:  # nothing says what is right
            lines.append(t("conversion.bill.unlabelled", **said, **of))
            continue
        lines.append(t(f"conversion.bill.{record.unit.replace(' ', '_')}", **said, **of))
        if record.spread is not None:
            roots = map(math.sqrt, (one.teacher_loss, one.loss))
            before, after = (quantity(record.spread * root, 4) for root in roots)
            lines.append(t("conversion.bill.in_unit", before=before, after=after))
    share = percent(record.exact_parameters / (record.num_parameters or 1))
    key = "gained" if record.unit == "nats per token" else "gained_of_rows"
    lines.append(t(f"conversion.{key}", exact=grouped(record.exact_parameters), share=share, **of))
    if checked := [one.causal.checks[0] for one in record.gain if one.causal and one.causal.checks]:
        told = sum(check.confirmed is True for check in checked)
        layers = {one.name for one in record.gain if one.causal and one.causal.checks}
        numbers = {"told": told, "checked": len(checked), "layers": len(layers)}
        lines.append(t("conversion.caused", **{name: grouped(n) for name, n in numbers.items()}))
    return [*lines, *data_notes(t, record.rows), *record.notes]


def domain_name(t: Catalogue, one: DomainLoss) -> str:
    return one.name if one.fitted else t("conversion.only_measured", name=one.name)


def around(value: float, error: float, digits: int = 3) -> str:
    """Return a difference with half its 95 % interval."""
    return f"{signed(value, digits)} ± {fixed(HALF * error, digits)}"


def number_cells(*values: float | None) -> list[str]:
    return [NONE if value is None else fixed(value, 3) for value in values]


def stages(t: Catalogue, record: Conversion) -> Markup:
    """Return a row for each stage on each domain, and the loss while it was distilled."""
    rows, curve = [], Markup()
    for stage, domains in (("layers", record.after_layers), ("end", record.domains)):
        for one in domains:
            scores = number_cells(one.kl, one.same_top_token, one.teacher_accuracy, one.accuracy)
            losses = *number_cells(one.teacher_loss, one.loss), around(one.loss_added, one.error)
            name = domain_name(t, one), t(f"conversion.stage.{stage}")
            rows.append((*name, *losses, *scores, grouped(one.tokens), grouped(one.texts)))
    if record.curve:
        tokens = grouped(record.line_tokens)
        caption, x = t.each("conversion.curve", ("caption", "x"), tokens=tokens)
        seen, values = zip(*((one.tokens, one.loss_added) for one in record.curve), strict=True)
        chart = x, seen, [("kind-all", values)], Axis(padded(values), tick_text)
        curve = drawings([(caption, effect_chart((caption, caption), *chart))])
    keys = "loss", "now", "added", "kl", "same", "before", "after", "tokens", "texts"
    words = (Column(name, numeric=False) for name in t.each("conversion", ("domain", "stage")))
    unit = t(f"conversion.unit.{record.unit.replace(' ', '_')}")
    lead = t("conversion.stages.lead", unit=unit)
    columns = heads(*words, *t.each("conversion", keys))
    found = table(t, lead, columns, rows, named=(0, 1), label=t("nav.stages"))
    return section(t, "conversion.stages", found, curve)


def layers(t: Catalogue, record: Conversion) -> Markup:
    """Return R² and swap-in cost of each layer as columns, and the numbers behind them."""
    costs, fits, rows, swaps = [], [], [], dict[str, str]()
    for block, value in record.swap_in_costs.items():
        half = HALF * record.swap_in_errors[block]
        middle, low, high = (max(value + side, 0.0) for side in (0.0, -half, half))
        costs.append(LayerColumn(middle, null=(low, high)))
        swaps[block] = around(value, record.swap_in_errors[block], 4)
    for one in record.layers:
        fits.append(LayerColumn(one.r_squared and max(one.r_squared, 0.0), one.closed_form))
        block = next((part for part in (one.name, *one.name.split(".")) if part in swaps), "")
        scores = number_cells(one.closed_form, one.r_squared, one.trimmed, one.median)
        rows.append((one.name, *scores, swaps.get(block, NONE)))
    first, second = t.each("conversion.layers", ("fit", "cost"))
    charts = [(first, layer_columns(t, (first, first), fits, top=1.0))]
    charts.append((second, layer_columns(t, (second, second), costs)))
    names = t.each("conversion.layers", ("name", "closed", "all", "trimmed", "median", "swap"))
    found = drawings(charts), table(t, "", names, rows, label=t("nav.layers"))
    return section(t, "conversion.layers", paragraph(t("conversion.layers.lead")), *found)


def lost(t: Catalogue, record: Conversion) -> Markup:
    """Return where the converted model is worse, where it differs most, and what both write."""
    parts = [paragraph(t("conversion.lost.lead"))]
    places = t.each("conversion", ("at", "added"))
    names = t.each("conversion", ("beginning", "same_text", "teacher", "student"))
    for one, worst in ((one, one.worst) for one in record.domains if one.worst is not None):
        rows = [(t(f"at.{x.kind}", at=x.at), around(x.loss_added, x.error)) for x in one.losses]
        parts += [heading(domain_name(t, one)), table(t, t("conversion.losses"), places, rows)]
        gap = "" if any(x.startswith(" ") for each in worst.contexts for x in each.tokens) else " "
        parts += [heading(t("conversion.worst"), 4), passages(t, worst, spaced=not gap)]
        for text in one.samples:
            same = [*map(str.__eq__, text.teacher, text.student), False].index(False)
            ways = text.beginning, text.teacher[:same], text.teacher[same:], text.student[same:]
            parts.append(facts(zip(names, map(gap.join, ways), strict=True), "steps"))
    return section(t, "conversion.lost", *parts) if len(parts) > 1 else Markup()
