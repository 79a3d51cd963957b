"""What `bilens explain` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bilens.api.explain import Baseline, explain_image, explain_rows
from bilens.api.judging_data import find_test_data
from bilens.base.atomic import write_file
from bilens.base.errors import UsageError
from bilens.cli.actions.shared import Source, open_model, refuse_existing
from bilens.cli.console import Output
from bilens.cli.tables.explanation import attribution_tables, explanation_tables
from bilens.report.attribution_plate import attribution_plate


def run_explain_command(
    output: Output,
    source: Source,
    indices: Sequence[int],
    *,
    table: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    baseline: Baseline | None,
    plate: Path | None,
    lang: str,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens explain`."""
    refuse_existing(plate, overwrite)
    model = open_model(source)
    if table is not None:
        if dataset is not None or data_dir is not None:
            raise UsageError("--table takes the place of --dataset and --data-dir: give it alone.")
        if plate is not None:
            raise UsageError(
                "--plate draws the pixels of images; what the columns of a row add is drawn by "
                f"bilens audit {source[0]} --table {table} --html page.html."
            )
        document = explain_rows(model, table, indices, baseline=baseline)
    else:
        data = find_test_data(model, dataset, data_dir, output.say)
        if data is None:
            raise UsageError(
                "an explanation needs inputs: pass --data-dir with the IDX files of the data set, "
                "and --dataset where the model does not say it, or --table with a CSV file."
            )
        document = explain_image(model, data, indices, baseline=baseline or "zeros")
    if plate is not None:
        write_file(plate, attribution_plate(document, lang).encode("utf-8"))
    if json:
        output.json(document)
        return
    for shown in (*explanation_tables(document), *attribution_tables(document)):
        output.result.print(shown)
    if plate is not None:
        output.result.print(f"Drawing: {plate}", highlight=False)
