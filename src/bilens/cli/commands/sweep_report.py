"""`bilens sweep report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from bilens.cli.console import Output
from bilens.cli.options import FAILED, check_outputs, option
from bilens.cli.shared_options import HtmlReport
from bilens.findings.rules.registry import condition_help, parse_conditions

REPORT_PANEL = "Report"


@dataclass(frozen=True)
class SweepPages(HtmlReport):
    """What `sweep report` writes, and what fails it."""

    PANEL = REPORT_PANEL

    table: Path | None = option(
        None, "Write every layer with all its numbers to this Parquet file."
    )
    fail_on: list[str] | None = option(None, condition_help())

    def __post_init__(self) -> None:
        """Take all of it without --html, too."""


def report_sweep(
    output: Output, place: str, pages: SweepPages, baseline: str | None, json: bool
) -> None:
    """Report what a sweep found; exit code 1 if a condition fails, or cannot be judged."""
    check_outputs([("--html", pages.html), ("--table", pages.table)], overwrite=True)
    conditions = parse_conditions(tuple(pages.fail_on or ()), data=True, baseline=True)
    from bilens.base.files import write_file
    from bilens.report.reports import SweepReport
    from bilens.report.sections.sweep import sweep_lines
    from bilens.report.text import load_catalogue
    from bilens.sweep.output import Output as Place
    from bilens.sweep.report import report_of, table_of

    with output.progress() as progress:
        swept, found = report_of(Place(place), conditions, baseline, progress)
    report = SweepReport(found)
    said = pages.write(report)
    if pages.table is not None:
        write_file(pages.table, table_of(swept).to_parquet(index=False))
        said.append(f"Table: {pages.table}")
    lines = sweep_lines(load_catalogue(pages.lang), report.record)
    output.answer(json, report.to_dict() if json else {}, *lines, *said)
    if report.record.failed:
        raise typer.Exit(FAILED)
