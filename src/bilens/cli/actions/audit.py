"""What `bilens audit` does."""

from __future__ import annotations

from pathlib import Path

import typer

from bilens.cli.actions.shared import (
    FAILED,
    Said,
    Source,
    open_model,
    print_audit,
    refuse_existing,
)
from bilens.cli.console import Output
from bilens.data.images import ImageDataset
from bilens.errors import UsageError
from bilens.workflows.audit import audit
from bilens.workflows.judging_data import find_test_data


def run_audit_command(
    output: Output,
    source: Source,
    said: Said,
    *,
    dataset: str | None,
    data_dir: Path | None,
    table: Path | None,
    html: Path | None,
    lang: str,
    null_samples: int | None,
    seed: int,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens audit`."""
    refuse_existing(html, overwrite)
    model = open_model(source, said, output.say)
    data: ImageDataset | Path | None = table
    if table is None:
        data = find_test_data(model, dataset, data_dir, output.say)
    elif dataset is not None or data_dir is not None:
        raise UsageError("--table takes the place of --dataset and --data-dir: give it alone.")
    with output.progress() as progress:
        report = audit(model, data, null_samples=null_samples, seed=seed, progress=progress)
    if html is not None:
        report.to_html(html, lang=lang)
    print_audit(output, report, json)
    if html is not None and not json:
        output.result.print(f"Report: {html}", highlight=False)
    if not report.passed:
        raise typer.Exit(FAILED)
