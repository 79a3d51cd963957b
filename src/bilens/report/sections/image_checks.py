"""The section of what may be wrong with an image classifier: overfitting and triggers."""

from collections.abc import Iterator

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.image_warnings import (
    Overfitting,
    OverfittingPower,
    Trigger,
    TriggerPower,
    Triggers,
)
from bilens.report.charts.spectrum_charts import trigger_picture
from bilens.report.markup import (
    Column,
    drawings,
    heading,
    heads,
    keyed,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.sections.layers import inputs_of_fits
from bilens.report.sections.overview import class_names
from bilens.report.text import (
    Catalogue,
    fixed,
    grouped,
    per_mille,
    percent,
    points,
    quantity,
    r_squared,
    signed_quantity,
)

ALL_TO_ALL = 0.6  # of the classes that a pattern is tried on: to so many different ones it pushes


def warnings(t: Catalogue, record: Audit, overfitting: Overfitting) -> Markup:
    """Return overfitting and triggers; in front how well an approximation stands for the model."""
    shape, triggers, lead = record.model.input_shape, record.triggers, list[Markup]()
    if shape is None or triggers is None:
        return Markup()
    layers = record.layers
    if layers is not None and (fit := layers.readings[0].fit) is not None:
        about = inputs_of_fits(t, layers)
        lead = [paragraph(t("warnings.fit", r2=r_squared(fit.quadratic, -1), inputs=about))]
    return section(
        t,
        "warnings",
        *lead,
        heading(t("overfitting.heading")),
        *overfitting_parts(t, overfitting),
        heading(t("triggers.heading")),
        *trigger_parts(t, triggers, class_names(record), shape),
    )


def overfitting_parts(t: Catalogue, found: Overfitting) -> Iterator[Markup]:
    """Yield what the readings speak of, what that is worth, and a table of the readings."""
    yield paragraph(overfitting_sentence(t, found))
    if found.power is not None:
        known = {
            "correlation": fixed(found.power.rank_correlation),
            "error": points(found.power.mean_error),
            "found": percent(found.power.found),
            "false_alarms": percent(found.power.false_alarms),
        }
        yield quiet(t("overfitting.scope", **known, models=grouped(found.power.models)))
        yield from elsewhere(t, "overfitting", found.power)
    rows = []
    for part in found.parts:  # one of an unknown name has its name alone
        name, meaning = part.name, ""
        if t.has(f"overfitting.{part.name}.term"):
            name, meaning = t.each(f"overfitting.{part.name}", ("term", "text"))
        usual = f"{quantity(part.low)}–{quantity(part.high)}"
        rows.append((name, quantity(part.value), usual, meaning))
    columns = heads(
        *t.each("overfitting", ("reading", "value")),
        Column(t("overfitting.usual"), class_="null"),
        Column(t("overfitting.meaning"), numeric=False, class_="meaning"),
    )
    if rows:
        yield table(t, t("overfitting.caption"), columns, rows)


def overfitting_sentence(t: Catalogue, found: Overfitting) -> str:
    """Return the rank with what it leads to, or that it leads to nothing, or why there is none."""
    if found.score is None:
        return t("overfitting.none", reason=t.word("warnings", found.reason))
    ranks = {"rank": found.rank, "low": found.rank_low, "high": found.rank_high}
    shown = {key: percent(share or 0.0, 0) for key, share in ranks.items()}
    if found.threshold is None:
        return t("overfitting.rank", **shown, reason=t.word("warnings", found.reason))
    return t("overfitting.score", **shown, threshold=percent(found.threshold, 0))


def trigger_parts(
    t: Catalogue, found: Triggers, names: list[str], shape: tuple[int, int]
) -> Iterator[Markup]:
    """Yield how rare the largest score is, the suspects with what to try, and the scans."""
    p_value, threshold = found.p_value, found.threshold
    if p_value is None:
        yield paragraph(t("triggers.none", reason=t.word("warnings", found.reason)))
        return
    count = per_mille(p_value, -1)
    if threshold is None:
        yield paragraph(t("triggers.rank", count=count, reason=t.word("warnings", found.reason)))
    else:
        yield paragraph(t("triggers.score", count=count, threshold=per_mille(threshold)))
    if found.power is not None:
        rates = {key: percent(getattr(found.power, key)) for key in ("found", "false_alarms")}
        yield quiet(t("triggers.scope", **rates, models=grouped(found.power.models)))
        yield from elsewhere(t, "triggers", found.power)
    suspects, pictures = [], []
    for one in found.suspects:
        name, where = names[one.target], place_of_pattern(t, one)
        title = t("triggers.picture_title", name=name)
        pictures.append((name, trigger_picture(one.pattern, shape, one.box, (title, where))))
        turned = t("triggers.won", won=one.won, sources=one.sources)
        added = signed_quantity(one.gain), turned, t.word("triggers.scan", one.scan)
        suspects.append((name, where, *added))
    yield drawings(pictures, "suspects")
    yield quiet(t("triggers.picture_text"))
    columns = [Column(t("field.ClassReading.name"), numeric=False)]
    columns += keyed(t, "triggers", "where gain turned by", words="where by")
    yield table(t, t("triggers.caption"), columns, suspects)
    if threshold is not None and p_value < threshold:
        yield from map(paragraph, tries(t, found.suspects[0], names))
    scans = [
        (t.word("triggers.scan", one.name), names[one.target], per_mille(one.p_value))
        for one in found.scans
    ]
    columns = keyed(t, "triggers", "scan class p_value", words="scan class")
    yield table(t, t("triggers.scans"), columns, scans)


def elsewhere(t: Catalogue, key: str, power: OverfittingPower | TriggerPower) -> Iterator[Markup]:
    """Yield how a search did on models of other recipes, where that is known."""
    if power.elsewhere is not None:
        yield quiet(t(f"{key}.elsewhere", share=percent(power.elsewhere)))


def place_of_pattern(t: Catalogue, one: Trigger) -> str:
    """Return where the pattern of a suspect stands."""
    if one.box is None:
        return t("triggers.all_over")
    return t(
        "triggers.position", **dict(zip(("row", "column", "rows", "columns"), one.box, strict=True))
    )


def tries(t: Catalogue, one: Trigger, names: list[str]) -> Iterator[str]:
    """Yield on which images to try a pattern, and what else it looks like."""
    sources = range(0, len(names), -(-len(names) // max(len(one.goals), 1)))
    goals = dict(zip(sources, one.goals, strict=False))
    won = [names[s] for s, goal in goals.items() if goal == one.target != s]
    target, where = names[one.target], place_of_pattern(t, one)
    others = won or [names[s] for s in goals if s != one.target]
    yield t("triggers.try", target=target, where=where, names=t.listing(others))
    if len(set(one.goals)) >= max(ALL_TO_ALL * len(one.goals), 3):
        pairs = (t("triggers.goal", source=names[s], goal=names[g]) for s, g in goals.items())
        count = len({*one.goals})
        yield t("triggers.all_to_all", count=count, pairs=t("list.comma").join(pairs))
