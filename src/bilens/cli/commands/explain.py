"""`bilens explain`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bilens.base.errors import UsageError
from bilens.base.files import write_file
from bilens.cli.console import Output
from bilens.cli.options import Lang, Overwrite, check_outputs, option
from bilens.cli.shared_options import DataFiles, NamedModel

if TYPE_CHECKING:
    from bilens.io.load import LoadedModel
    from bilens.records.class_readings import Explanations


@dataclass(frozen=True)
class ExplainOptions:
    """Which predictions are taken apart, and how that is drawn."""

    index: Annotated[
        list[int], typer.Option(help="Test image from 0, or row of a table; repeatable.")
    ]
    baseline: Literal["zeros", "mean"] | None = option(
        None,
        "What an absent input is: 0, or the mean of training images or rows; the mean where the "
        "model knows it, and else 0.",
    )
    plate: Path | None = option(None, "Draw what each pixel adds into this SVG file.")
    html: Path | None = option(None, "Write a page on rows of a table to this HTML file.")
    lang: Lang = option("en", "Language of tables, drawing and page; messages are in English.")


def explain(
    output: Output,
    source: NamedModel,
    options: ExplainOptions,
    data: DataFiles,
    overwrite: Overwrite = False,
) -> None:
    """Take single predictions apart, exactly: into eigenvectors, and into inputs.

    Example: bilens explain runs/demo --index 0 --index 7 --plate pixels.svg
    """
    from bilens.records.base import displayable, to_json
    from bilens.report.plates import attribution_plate
    from bilens.report.sections.performance_section import data_notes
    from bilens.report.terminal_readings import attribution_tables, explanation_tables
    from bilens.report.text import load_catalogue

    plate, lang = options.plate, options.lang
    check_outputs([("--plate", plate), ("--html", options.html)], overwrite)
    record, labels = explained(output, source.open(), source.model, options, data)
    if plate is not None:
        write_file(plate, attribution_plate(record, lang).encode("utf-8"))
    lines = [] if plate is None else [f"Drawing: {plate}"]
    lines += [] if options.html is None else [f"Report: {options.html}"]
    found = [explanation_tables(record, lang), attribution_tables(record, lang, labels)]
    if record.model.input_names:  # columns are what a reader knows
        found.reverse()
    tables = [table for each in found for table in each]
    lines += data_notes(load_catalogue(lang), displayable(record.data))
    output.answer(to_json(record), *tables, *lines)


def explained(
    output: Output, model: LoadedModel, path: Path, options: ExplainOptions, data: DataFiles
) -> tuple[Explanations, list[tuple[str, ...]]]:
    """Return the predictions taken apart, and what the inputs of a row of a table are called."""
    from bilens.api.audit_model import examine_subject
    from bilens.api.audit_subject import AuditSubject
    from bilens.api.classifier import default_baseline, explain_predictions, rows_asked
    from bilens.api.examiners import examine_columns
    from bilens.api.provenance import reading_of
    from bilens.data.model_interface import LabelledData
    from bilens.report.reports import AuditReport
    from bilens.report.sections.table_cells import input_labels

    named = model.input_names is not None
    if named and options.plate is not None:
        raise UsageError(
            "--plate draws the pixels of images; what the columns of a row add is drawn by "
            f"bilens audit {path} --data {data.path} --html page.html."
        )
    usual = default_baseline(model)
    if options.html is not None and options.baseline not in (None, usual):
        raise UsageError(
            f"--html takes rows apart from the baseline {usual!r}: leave --baseline out, or --html."
        )
    read = partial(data.find, model, output.say)
    given = rows_asked(model, options.index, read, output.say) if named else read()
    if given is None:
        raise UsageError(
            "an explanation needs inputs: pass --data with a table, arrays, a folder of images, or "
            "the IDX files of a data set, and --dataset where the model does not say it."
        )
    record = explain_predictions(model, given, options.index, baseline=options.baseline)
    if options.html is not None:
        if not isinstance(given, LabelledData) or not named:
            raise UsageError("--html is about rows of a model with named columns: use --plate.")
        subject = AuditSubject(model, given, rows=options.index, by_columns=True)
        found = examine_subject(subject, examiners={"columns": examine_columns})
        AuditReport(found).to_html(options.html, lang=options.lang)
    labels = list[tuple[str, ...]]()
    if isinstance(given, LabelledData) and named:
        reading, rows = reading_of(model), given.inputs[[*given.places(options.index)]]
        names = model.input_names or ()
        labels = [input_labels(reading, names, row) for row in rows.tolist()]
    return record, labels
