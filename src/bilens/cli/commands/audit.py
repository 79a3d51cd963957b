"""`bilens audit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.cli.options import (
    FAILED,
    METHOD_PANEL,
    ImageData,
    Json,
    Lang,
    Overwrite,
    TensorFile,
    option,
    refuse_existing,
)
from bilens.findings.rules.registry import condition_help, parse_conditions

if TYPE_CHECKING:
    from bilens.report.reports import AuditReport, LayerAuditReport, TableReport

    Report = AuditReport | LayerAuditReport | TableReport


@dataclass(frozen=True)
class AuditOptions:
    """What an audit is made of and what fails it."""

    table: Path | None = option(
        None, "CSV file with the columns and the target of a table's model."
    )
    baseline: Path | None = option(
        None, "The model that this one was made from: report what changed."
    )
    fail_on: list[str] | None = option(None, condition_help())
    null_samples: int | None = option(
        None,
        "Draws of the null distribution: 99 of a classifier, 19 of each layer.",
        panel=METHOD_PANEL,
    )
    threshold: float = option(
        0.9,
        "R² from which a layer that is not quadratic is read at all.",
        min=0,
        max=1,
        panel=METHOD_PANEL,
    )
    seed: int = option(0, "Seed of the null distribution.", min=0, panel=METHOD_PANEL)


@dataclass(frozen=True)
class AuditPages:
    """The pages that are written about an audit."""

    html: Path | None = option(None, "Write the report to this HTML file.")
    markdown: Path | None = option(
        None, "Write Markdown for a pull request to this file; - for stdout."
    )
    lang: Lang = option("en", "Language of the HTML and Markdown reports.")

    @property
    def on_stdout(self) -> bool:
        return str(self.markdown) == "-"

    @property
    def files(self) -> list[Path]:
        named = [self.html, None if self.on_stdout else self.markdown]
        return [path for path in named if path is not None]

    def write(self, report: Report) -> None:
        if self.html is not None:
            report.to_html(self.html, lang=self.lang)
        if self.markdown is not None and not self.on_stdout:
            report.to_markdown(self.markdown, lang=self.lang)


def audit(
    output: Output,
    source: TensorFile,
    images: ImageData,
    options: AuditOptions,
    pages: AuditPages,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Read a model and report what its weights say; exit code 1 if a condition fails.

    Example: bilens audit runs/mnist --data-dir data --html report.html --lang ja
    """
    if pages.on_stdout and json:
        raise UsageError(
            "--json and --markdown - both print on stdout: write one of them to a file."
        )
    for path in pages.files:
        refuse_existing(path, overwrite)
    report = read_and_judge(output, source, images, options)
    pages.write(report)
    if pages.on_stdout:
        output.result.out(report.to_markdown(lang=pages.lang), highlight=False, end="")
    else:
        print_audit(output, report, json, *(f"Report: {path}" for path in pages.files))
    if report.failed_rules:
        output.say(f"Failed: {', '.join(report.failed_rules)}")
    asked = report.to_dict()["conditions"] or []
    unjudged = [item["condition"] for item in asked if item["value"] is None]
    if unjudged:
        output.say(f"Nothing to judge in this model, so counted as failed: {', '.join(unjudged)}")
    if not report.passed:
        raise typer.Exit(FAILED)


def read_and_judge(
    output: Output, source: TensorFile, images: ImageData, options: AuditOptions
) -> Report:
    from bilens.api.audit import audit as audit_model

    rules = tuple(options.fail_on or ())
    parse_conditions(rules, data=True, baseline=options.baseline is not None)  # before any reading
    model = source.open(output.say)
    if options.table is not None:
        images.refuse_beside("--table")
    data = options.table or images.find(model, output.say)
    before = None if options.baseline is None else source.open_another(options.baseline)
    with output.progress() as progress:
        return audit_model(
            model,
            data,
            null_samples=options.null_samples,
            seed=options.seed,
            progress=progress,
            baseline=before,
            fail_on=rules,
            threshold=options.threshold,
        )


def print_audit(output: Output, report: Report, json: bool, *more: str) -> None:
    """Print the result of an audit: JSON, or a short table, the verdict and more."""
    from bilens.report.reports import AuditReport, TableReport
    from bilens.report.terminal import audit_table, column_table, layer_audit_table, verdict_lines

    if isinstance(report, TableReport):
        table = column_table(report.record)
    elif isinstance(report, AuditReport):
        table = audit_table(report.record)
    else:
        table = layer_audit_table(report.record)
    output.answer(json, report.to_dict(), table, *verdict_lines(report.record), *more)
