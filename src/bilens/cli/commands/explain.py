"""`bilens explain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bilens.base.errors import UsageError
from bilens.base.files import write_file
from bilens.cli.console import Output
from bilens.cli.options import ImageData, Json, Lang, ModelFile, Overwrite, option, refuse_existing

if TYPE_CHECKING:
    from bilens.io.load import LoadedModel
    from bilens.records.audit import Explanations


@dataclass(frozen=True)
class ExplainOptions:
    """Which predictions are taken apart, and how that is drawn."""

    index: Annotated[list[int], typer.Option(help="Test image or row, from 0; may be repeated.")]
    table: Path | None = option(None, "CSV file with a column for each input, in place of images.")
    baseline: Literal["zeros", "mean"] | None = option(
        None,
        "What an absent input is: 0, or the mean of training images or rows; the mean where the "
        "model knows it, and else 0.",
    )
    plate: Path | None = option(None, "Draw what each pixel adds into this SVG file.")
    lang: Lang = option("en", "Language of the drawing.")


def explain(
    output: Output,
    source: ModelFile,
    options: ExplainOptions,
    images: ImageData,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Take single predictions apart, exactly: into eigenvectors, and into inputs.

    Example: bilens explain runs/demo --index 0 --index 7 --plate pixels.svg
    """
    from bilens.records.base import to_json
    from bilens.report.plates import attribution_plate
    from bilens.report.terminal_readings import attribution_tables, explanation_tables

    plate = options.plate
    refuse_existing(plate, overwrite)
    record = explained(output, source.open(), source.model, options, images)
    if plate is not None:
        write_file(plate, attribution_plate(record, options.lang).encode("utf-8"))
    lines = [] if plate is None else [f"Drawing: {plate}"]
    tables = *explanation_tables(record), *attribution_tables(record)
    output.answer(json, to_json(record), *tables, *lines)


def explained(
    output: Output, model: LoadedModel, path: Path, options: ExplainOptions, images: ImageData
) -> Explanations:
    from bilens.api.classifier import explain_image, explain_rows

    table, baseline = options.table, options.baseline
    if table is not None:
        images.refuse_beside("--table")
        if options.plate is not None:
            raise UsageError(
                "--plate draws the pixels of images; what the columns of a row add is drawn by "
                f"bilens audit {path} --table {table} --html page.html."
            )
        return explain_rows(model, table, options.index, baseline=baseline)
    data = images.find(model, output.say)
    if data is None:
        raise UsageError(
            "an explanation needs inputs: pass --data-dir with the IDX files of the data set, "
            "and --dataset where the model does not say it, or --table with a CSV file."
        )
    return explain_image(model, data, options.index, baseline=baseline or "zeros")
