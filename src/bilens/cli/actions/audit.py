"""What `bilens audit` does."""

from __future__ import annotations

from pathlib import Path

import typer

from bilens.api.audit import audit
from bilens.api.judging_data import find_test_data
from bilens.base.errors import UsageError
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
from bilens.findings.conditions import parse_conditions


def run_audit_command(
    output: Output,
    source: Source,
    said: Said,
    *,
    dataset: str | None,
    data_dir: Path | None,
    table: Path | None,
    html: Path | None,
    markdown: Path | None,
    lang: str,
    null_samples: int | None,
    baseline: Path | None,
    fail_on: tuple[str, ...],
    threshold: float,
    seed: int,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens audit`."""
    to_stdout = str(markdown) == "-"
    if to_stdout and json:
        raise UsageError(
            "--json and --markdown - both print on stdout: write one of them to a file."
        )
    refuse_existing(html, overwrite)
    refuse_existing(None if to_stdout else markdown, overwrite)
    parse_conditions(fail_on, data=True, baseline=baseline is not None)  # before anything is read
    model = open_model(source, said, output.say)
    data: ImageDataset | Path | None = table
    if table is None:
        data = find_test_data(model, dataset, data_dir, output.say)
    elif dataset is not None or data_dir is not None:
        raise UsageError("--table takes the place of --dataset and --data-dir: give it alone.")
    base = None if baseline is None else open_model((baseline, *source[1:]), said)
    with output.progress() as progress:
        report = audit(
            model,
            data,
            null_samples=null_samples,
            seed=seed,
            progress=progress,
            baseline=base,
            fail_on=fail_on,
            threshold=threshold,
        )
    if html is not None:
        report.to_html(html, lang=lang)
    if to_stdout:
        output.result.out(report.to_markdown(lang=lang), highlight=False, end="")
    else:
        if markdown is not None:
            report.to_markdown(markdown, lang=lang)
        print_audit(output, report, json)
    if not json and not to_stdout:
        for path in filter(None, (html, markdown)):
            output.result.print(f"Report: {path}", highlight=False)
    if report.failed_rules:
        output.say(f"Failed: {', '.join(report.failed_rules)}")
    asked = report.to_dict()["conditions"] or []
    unjudged = [item["condition"] for item in asked if item["value"] is None]
    if unjudged:
        output.say(f"Nothing to judge in this model, so counted as failed: {', '.join(unjudged)}")
    if not report.passed:
        raise typer.Exit(FAILED)
