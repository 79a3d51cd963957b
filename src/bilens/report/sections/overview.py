"""What every page says: its parts, what was read, and how classes and inputs are called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup

from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.base import json_text
from bilens.records.common import DataOrigin, ModelSummary
from bilens.records.guarantees import Certificate
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.records.trace import Trace
from bilens.report.raster import Painter
from bilens.report.text import Catalogue, shortened, whole

LONGEST = 40  # characters of a name
AnyReport: TypeAlias = Audit | LayerAudit | TableAudit | Attack | Certificate | Trace


@dataclass(frozen=True)
class Page:
    """What differs from one kind of page to another; what every kind has stands in `html.py`."""

    keys: str  # of its title, heading, lead and footer in the catalogue
    title: str
    count: int  # of what the lead speaks of: classes, layers or outputs
    facts: Iterable[tuple[str, str]]
    parts: Iterable[tuple[str, Markup]]  # by the names in the navigation; empty ones are left out
    limits: Sequence[str]
    conventions: Sequence[tuple[str, str]] = ()
    styles: Sequence[str] = ()  # further style sheets


def title_of(record: AnyReport) -> str:
    return record.source.path or record.model.kind


def model_facts(t: Catalogue, record: Audit | Certificate | Attack) -> Iterator[tuple[str, str]]:
    """Yield terms and values of a classifier, in the order in which they are shown."""
    model = record.model
    yield from file_facts(t, record)
    yield t("facts.input"), input_layout(t, model)
    yield t("facts.hidden"), whole(model.d_hidden)
    yield t("facts.classes"), whole(model.d_output)
    count = whole(model.num_parameters)
    yield t("facts.parameters"), t("facts.parameters_value", count=count, dtype=model.dtype)
    terms = (t("yes" if flag else "no") for flag in (model.bias, model.residual))
    yield t("facts.terms"), " / ".join(terms)
    yield t("facts.data"), test_data(t, record.data)


def file_facts(t: Catalogue, record: AnyReport) -> Iterator[tuple[str, str]]:
    """Yield the kind of a model, and its file where there is one."""
    yield t("facts.model"), record.model.kind
    if record.source.path:
        yield t("facts.file"), record.source.path


def input_layout(t: Catalogue, model: ModelSummary) -> str:
    """Return how an input is laid out, and whether that is an assumption."""
    rows, columns = model.input_shape
    if rows == 1:
        return t("facts.input_row", inputs=whole(columns))
    shape = t("facts.input_image", rows=rows, columns=columns)
    return t("facts.input_assumed", shape=shape) if model.input_shape_assumed else shape


def test_data(t: Catalogue, data: DataOrigin | None) -> str:
    """Return which data the predictions were made on."""
    if data is None:
        return t("facts.no_data")
    name, count = data.name or t("facts.unnamed_data"), whole(data.num_images)
    return t("facts.data_value", name=name, count=count)


def clean_names(names: Sequence[str]) -> list[str]:
    """Return names that are neither empty nor endless."""
    return [shortened(name.strip(), LONGEST) or f"#{index}" for index, name in enumerate(names)]


def class_painter(record: Audit) -> Painter:
    """Return how the eigenvectors of all classes are drawn, on one scale."""
    every = (pair.vector for one in record.classes for pair in (*one.positive, *one.negative))
    return Painter.of(record.model.input_shape, every)


def input_name(t: Catalogue, model: ModelSummary, index: int) -> str:
    """Return what an input is called: its column, its pixel, or its number."""
    rows, columns = model.input_shape
    number = t("use.number", index=whole(index))
    if model.input_names is not None:
        return shortened(model.input_names[index].strip(), LONGEST) or number
    if rows == 1:
        return number
    row, column = divmod(index, columns)
    return t("use.pixel", index=whole(index), row=row, column=column)


def document_sha256(record: AnyReport) -> str:
    """Return the fingerprint of the file that `to_json(path)` writes."""
    return hashlib.sha256(f"{json_text(record)}\n".encode()).hexdigest()
