"""The parts of every page: facts of model and run, names of inputs and classes, verdict."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

from markupsafe import Markup

from bilens.findings.rules.registry import COMPARED, GRAMMAR, find_rule
from bilens.findings.rules.rule import ASSUMED, Rule
from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.base import json_text
from bilens.records.bilinear_conversion import Conversion
from bilens.records.class_readings import ClassReadings, Contribution, Explanation
from bilens.records.common import DataOrigin, Finding, JudgedCondition, ModelSummary, Value
from bilens.records.guarantees import Certificate
from bilens.records.mlp_trace import Trace
from bilens.records.network_reading import NetworkReading
from bilens.records.sweep_report import SweepSummary
from bilens.records.view import Format
from bilens.report.markup import ICONS, badge, element, keyed_table, paragraph, section
from bilens.report.raster import Painter
from bilens.report.text import (
    FORMATS,
    NONE,
    Catalogue,
    distinct_names,
    grouped,
    percents,
    quantity,
    read_percents,
    scientific,
)

LONGEST = 40  # characters of a name
WHOLE: Final = (
    "count",
    "whole",
    "number or name",
    "cell",
)  # formats of numbers that are not rounded
MOST_NAMED = 3  # inputs
EVEN = 1 / 6  # of the weight: where the heaviest of nine parts has less, it lies everywhere
PARTS: Final = (
    ("upper_left", "upper", "upper_right"),
    ("left", "centre", "right"),
    ("lower_left", "lower", "lower_right"),
)
ENDINGS: Final = ("pass", "warn", "fail", "info")
OfModels: TypeAlias = Audit | Attack | Certificate | Trace | Conversion | SweepSummary
AnyReport: TypeAlias = OfModels | NetworkReading

# Sections by their names in the navigation; empty ones are left out.
Parts: TypeAlias = Iterable[tuple[str, Markup]]


@dataclass(frozen=True)
class Page:
    """The parts in which kinds of pages differ; those of every kind stand in `html.py`."""

    keys: str  # of its title, heading, lead and footer in the catalogue
    count: int  # of what the lead speaks of: classes, layers or outputs
    facts: Iterable[tuple[str, str]]
    parts: Parts
    limits: Sequence[str]
    title: str = ""  # of the window; otherwise the file or the kind of the model
    conventions: Sequence[tuple[str, str]] = ()
    styles: Sequence[str] = ()  # further style sheets
    lead: str = ""  # ending of the key of its lead


def model_facts(t: Catalogue, record: Audit | Certificate | Attack) -> Iterator[tuple[str, str]]:
    """Yield terms and values of a classifier, in the order in which they are shown."""
    model = record.model.one_layer if isinstance(record, Audit) else record.model
    yield from file_facts(t, record)
    rows, columns = model.input_shape
    layout = t("facts.input_row", inputs=grouped(columns))
    if rows > 1:
        layout = t("facts.input_image", rows=rows, columns=columns)
        if model.input_shape_assumed:
            layout = t("facts.input_assumed", shape=layout)
    yield t("facts.input"), layout
    yield t("facts.hidden"), grouped(model.d_hidden)
    yield t("facts.classes"), grouped(model.d_output)
    count = grouped(model.num_parameters)
    yield t("facts.parameters"), t("facts.parameters_value", count=count, dtype=model.dtype)
    terms = (t("yes" if flag else "no") for flag in (model.bias, model.residual))
    yield t("facts.terms"), " / ".join(terms)
    yield t("facts.data"), data_used(t, record.data)


def file_facts(t: Catalogue, record: AnyReport) -> Iterator[tuple[str, str]]:
    yield t("facts.model"), record.model.kind
    if record.source.path:
        yield t("facts.file"), record.source.path


def data_used(t: Catalogue, data: DataOrigin | None, key: str = "facts.data_value") -> str:
    """Return which data the predictions were made on."""
    if data is None:
        return t("facts.no_data")
    key = "facts.files_value" if any(one.kind == "seen_files" for one in data.notes) else key
    return t(key, name=data.name or t("facts.unnamed_data"), count=grouped(data.num_images))


def data_source(t: Catalogue, data: DataOrigin) -> str:
    """Return where the data come from, in words; as the record says it where the kind is new."""
    source = data.source.strip().rstrip(".")
    key = f"data.source.{data.source_kind}"
    if not t.has(key):
        return source
    name, location = data.name or t("facts.unnamed_data"), source.rpartition(" folder ")[2]
    return t(key, name=name, count=grouped(data.num_images), location=location)


def clean_names(names: Sequence[str]) -> list[str]:
    """Return names that are neither empty nor endless, each told from the others."""
    shown = distinct_names(tuple(names), LONGEST)
    return [name or f"#{index}" for index, name in enumerate(shown)]


def class_names(record: Audit) -> list[str]:
    """Return the names of the classes, or outputs, of an audit as they are shown."""
    return clean_names(record.model.output_names)


def class_painter(record: Audit) -> Painter:
    """Return a painter for the eigenvectors of all classes, on one scale."""
    classes = () if record.classes is None else record.classes.readings
    every = (pair.vector for one in classes for pair in (*one.positive, *one.negative))
    return Painter.scaled_to(record.model.one_layer.input_shape, every)


def input_name(t: Catalogue, model: ModelSummary, index: int) -> str:
    """Return the name of an input: its column, its pixel, or its number."""
    rows, columns = model.input_shape
    number = t("use.number", index=grouped(index))
    if model.input_names is not None:
        return distinct_names(model.input_names, LONGEST)[index] or number
    if rows == 1:
        return number
    row, column = divmod(index, columns)
    return t("use.pixel", index=grouped(index), row=row, column=column)


def document_sha256(record: AnyReport) -> str:
    """Return the fingerprint of the file that `to_json(path)` writes."""
    return hashlib.sha256(f"{json_text(record)}\n".encode()).hexdigest()


def run_facts(record: AnyReport, original: AnyReport) -> dict[str, str]:
    """Return command, seed, file, hashes and versions to run the same again, where known.

    `record` is what can be shown of the `original`.
    """
    run, source, data = record.reproduce, record.source, record.data
    found = {
        "command": run.command,
        "seed": str(run.seed),
        "file": source.path,
        "weights": source.weights_sha256,
        "data": "" if data is None else data.sha256,
        "document": document_sha256(original),
        "versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        "hardware": run.hardware,
        "date": run.date,
    }
    return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class FindingLine:
    """One finding, or one condition, in words."""

    outcome: str  # one of ICONS
    sentence: str
    scope: str = ""  # what it holds for
    group: str = "model"  # that of its rule


def mark(t: Catalogue, outcome: str) -> str:
    """Return an outcome as a sign and a word."""
    return f"{ICONS[outcome]} {t(f'outcome.{outcome}')}"


def finding_lines(t: Catalogue, record: Audit) -> list[FindingLine]:
    """Return the findings in the order of the record."""
    return [finding_line(t, record.read_as, finding) for finding in record.verdict]


def finding_line(t: Catalogue, read_as: str, finding: Finding) -> FindingLine:
    """Return a finding in words; one of an unknown rule as its name and numbers."""
    rule = find_rule(finding.rule, read_as)
    outcome = finding.outcome if finding.outcome in ENDINGS else "info"
    holds = "" if rule is None else rule.scope
    scope = t(f"rule.scope.{ASSUMED if ASSUMED in finding.values else holds}") if holds else ""
    sentence = rule_text(t, read_as, finding, outcome)
    if not sentence:
        shown = ((name, told_value(value)) for name, value in finding.values.items())
        numbers = ", ".join(f"{name} = {value}" for name, value in shown)
        sentence = f"{finding.rule}: {numbers}"
    return FindingLine(outcome, sentence, scope, "model" if rule is None else rule.group)


def title_of(t: Catalogue, rule: str) -> str:
    """Return the name of a rule; of one that is not known, its id."""
    key = f"rule.{rule}.title"
    return t(key) if t.has(key) else rule


def rule_text(t: Catalogue, read_as: str, finding: Finding, ending: str) -> str:
    """Return the sentence of a finding for an outcome, `risk` or `next`; "" of an unknown rule."""
    rule, values = find_rule(finding.rule, read_as), finding.values
    key = "" if rule is None else f"rule.{rule.sentences or rule.id}.{ending}"
    if rule is not None and ending in ENDINGS:
        key = rule.sentence_key(ending, values)
    elif rule is not None and t.has(f"{key}{rule.variant(values)}"):
        key += rule.variant(values)
    if rule is None or not t.has(key):
        return ""
    toward = {"low": -1, "high": 1, rule.number: rounding_of(rule)}
    shown = {
        each: shown_value(t, form, values[each], toward.get(each, 0))
        for each, form in rule.values.items()
    }
    shares = [each for each, form in rule.values.items() if form == "share"]
    shown |= zip(shares, percents([float(values[each]) for each in shares], 0), strict=True)
    if rule.id == "condition" and values["value"] != NONE:
        shown["value"] = compared_number(shown["condition"], float(values["value"]))
    if rule.id == "coverage":
        shown |= read_percents(float(values["exact"]), float(values["approximate"]))
    return t(key, **shown)


def rounding_of(rule: Rule) -> int:
    """Return toward which side the number of a rule is rounded: never to look better than it is."""
    return {"<": -1, ">": 1}.get(rule.bad or "", 0)


def rule_number(t: Catalogue, rule: str, read_as: str, value: float | None) -> str:
    """Return the number of a rule as its sentence has it; a dash for one without."""
    known = find_rule(rule, read_as)
    if value is None or known is None or known.number is None:
        return NONE
    form = known.values.get(known.number, "quantity")
    text = shown_value(t, form, value, rounding_of(known))
    return t("explorer.points", value=text) if form == "points" else text


def shown_value(t: Catalogue, form: Format, value: Value, toward: int = 0) -> str:
    """Return one value of a rule as a reader sees it."""
    if not isinstance(value, str):
        return FORMATS[form](value, **({"toward": toward} if toward and form not in WHOLE else {}))
    if form == "kinds":
        return t("list.comma").join(t.each("difference.kind", value.split(", ")))
    if form not in ("mode", "source"):
        return value
    prefix = "layers.difference.mode" if form == "mode" else "source"
    return t.listing([t.word(prefix, one) for one in value.split(" and ")])


def told_value(value: Value) -> Value:
    """Return a value that no rule says how to write: a number that is not whole with six digits."""
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        return quantity(value, 6, -1)
    return value


def condition_lines(t: Catalogue, record: Audit | SweepSummary) -> list[FindingLine]:
    """Return each condition as a finding; none where no condition was asked for."""
    return [condition_line(t, item) for item in record.conditions or ()]


def condition_line(t: Catalogue, item: JudgedCondition) -> FindingLine:
    """Say how a condition of the user ended."""
    outcome = "fail" if item.failed else "pass"
    key, value = item.ground or "undecided", ""
    if item.value is not None:
        key, value = item.ground or outcome, compared_number(item.condition, item.value)
    if item.ground == "units":
        outcome = "info"
    return FindingLine(outcome, t(f"conditions.{key}", condition=item.condition, value=value))


def compared_number(condition: str, value: float) -> str:
    """Return the number of a condition: rounded as elsewhere, unless it would change its side."""
    toward, found = -1 if "<" in condition else 1, GRAMMAR.fullmatch(condition)
    with suppress(ValueError):  # of a document, whose conditions nobody has read yet
        compared, limit = (found[2], float(found[3])) if found and found[2] else ("", 0.0)
        nearest = float(f"{value:.4g}")
        if compared:
            same = COMPARED[compared](value, limit) == COMPARED[compared](nearest, limit)
            toward = 0 if same else -1 if value < limit else 1
    return quantity(value, 4, toward)


def exactness(t: Catalogue, record: Audit, found: ClassReadings) -> Markup:
    """Return the differences between model and formula, and whether spectra are complete."""
    rows, (agrees, differs) = [], t.each("exactness", ("agrees", "differs"))
    for item in record.exactness:
        name = t.word("exactness", item.precision)
        errors = scientific(item.largest_error), scientific(item.relative_error)
        end = badge(t, *(("pass", agrees) if item.passed else ("fail", differs)))
        rows.append((name, *errors, scientific(item.tolerance, 0), end))
    keys = "precision largest relative tolerance result"
    worst = scientific(max(reading.largest_residual for reading in found.readings))
    names = [reading.name for reading in found.readings if not reading.complete]
    if names:
        complete = t("exactness.incomplete", names=t.listing(names), residual=worst)
    else:
        complete = t(
            "exactness.complete", inputs=grouped(record.model.one_layer.d_input), residual=worst
        )
    return section(
        t,
        "exactness",
        paragraph(t("exactness.lead", inputs=grouped(record.exactness[0].num_inputs))),
        keyed_table(t, "exactness", keys, rows, words="precision result"),
        paragraph(complete),
    )


def guide(t: Catalogue) -> Markup:
    """Return how the pictures of an audit are to be read."""
    parts = (
        element("li", element("strong", t(f"guide.{key}.term")), " ", t(f"guide.{key}.text"))
        for key in ("picture", "match", "sign", "null", "sum")
    )
    title = element("h2", t("guide.heading"), id="guide-heading")
    return element(
        "aside", title, element("ol", *parts), class_="guide", aria_labelledby="guide-heading"
    )


def place(t: Catalogue, model: ModelSummary, weights: Sequence[float], *, brief: bool) -> str:
    """Return where the weights with the sign of their sum are heaviest.

    Of an image it is one of nine parts of what is not zero, with rows and columns from 0 unless
    `brief`; of other inputs the names of the heaviest.
    """
    (rows, columns), sign = model.input_shape, 1 if sum(weights) >= 0 else -1
    sizes = [max(sign * weight, 0.0) for weight in weights]
    if min(rows, columns) < len(PARTS) or model.input_names is not None:
        order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
        heaviest = order[: 1 if brief else MOST_NAMED]
        return t.listing([input_name(t, model, index) for index in heaviest])
    lit = [divmod(index, columns) for index, weight in enumerate(weights) if weight] or [(0, 0)]
    boxes = [(min(axis), max(axis) + 1 - min(axis)) for axis in zip(*lit, strict=True)]
    sums = dict.fromkeys(product(range(3), repeat=2), 0.0)
    for at in lit:
        row, column = (3 * (x - low) // length for x, (low, length) in zip(at, boxes, strict=True))
        sums[row, column] += sizes[at[0] * columns + at[1]]
    part = max(sums, key=lambda each: sums[each])
    if sums[part] <= EVEN * sum(sizes):
        return t("place.whole")
    name, ends = t(f"place.{PARTS[part[0]][part[1]]}"), list[int]()
    for third, (low, length) in zip(part, boxes, strict=True):
        ends += [low - -third * length // 3, low - -(third + 1) * length // 3 - 1]
    box = dict(zip(("top", "bottom", "left", "right"), ends, strict=True))
    return name if brief else t("place.box", name=name, **box)


def met_at(
    t: Catalogue, model: ModelSummary, item: Explanation, pair: Contribution, *, brief: bool
) -> str:
    """Return where in an input an eigenvector is met most, in words."""
    weights = [a * b for a, b in zip(pair.vector, item.image, strict=True)]
    return place(t, model, weights, brief=brief)
