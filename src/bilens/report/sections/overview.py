"""What was read: model, sizes, data; and how classes and inputs are called in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.common import DataOrigin, ModelSummary
from bilens.records.guarantees import Certificate
from bilens.report.catalogue import Catalogue
from bilens.report.numbers import whole
from bilens.report.svg import shortened

LONGEST = 40  # characters of a name


def model_facts(t: Catalogue, record: Audit | Certificate | Attack) -> list[tuple[str, str]]:
    """Return terms and values of a classifier, in the order in which they are shown."""
    return [(t(f"facts.{key}"), value) for key, value in _model_facts(t, record)]


def _model_facts(t: Catalogue, record: Audit | Certificate | Attack) -> Iterator[tuple[str, str]]:
    model = record.model
    yield "model", model.kind
    if record.source.path:
        yield "file", record.source.path
    yield "input", input_layout(t, model)
    yield "hidden", whole(model.d_hidden)
    yield "classes", whole(model.d_output)
    count = whole(model.num_parameters)
    yield "parameters", t("facts.parameters_value", count=count, dtype=model.dtype)
    yield "terms", " / ".join(t("yes" if flag else "no") for flag in (model.bias, model.residual))
    yield "data", test_data(t, record.data)


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


def class_names(model: ModelSummary) -> list[str]:
    """Return a name for each class that is neither empty nor endless."""
    names = enumerate(model.output_names)
    return [shortened(name.strip(), LONGEST) or f"#{index}" for index, name in names]


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
