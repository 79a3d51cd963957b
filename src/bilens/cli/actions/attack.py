"""What `bilens attack` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from bilens.api.attack import attack_model
from bilens.api.judging_data import find_test_data
from bilens.base.errors import UsageError
from bilens.cli.actions.shared import FAILED, Source, open_model, refuse_existing
from bilens.cli.console import Output
from bilens.cli.tables.attack import attack_lines, attack_tables


def run_attack_command(
    output: Output,
    source: Source,
    *,
    dataset: str | None,
    data_dir: Path | None,
    request: dict[str, Any],
    html: Path | None,
    lang: str,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens attack`."""
    refuse_existing(html, overwrite)
    model = open_model(source)
    data = find_test_data(model, dataset, data_dir, output.say)
    if data is None:
        raise UsageError(
            "an attack needs training and test images: pass --data-dir with the IDX files of the "
            "data set, and --dataset where the model does not say it."
        )
    with output.progress() as progress:
        report = attack_model(model, data, progress=progress, **request)
    if html is not None:
        report.to_html(html, lang=lang)
    document = report.to_dict()
    if json:
        output.json(document)
    else:
        for table in attack_tables(document):
            output.result.print(table)
            output.result.print()
        for line in attack_lines(document):
            output.result.print(line, highlight=False, markup=False, soft_wrap=True)
        if html is not None:
            output.result.print(f"Report: {html}", highlight=False)
    if not report.holds:
        raise typer.Exit(FAILED)
