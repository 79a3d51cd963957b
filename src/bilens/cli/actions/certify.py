"""What `bilens certify` does."""

from __future__ import annotations

from pathlib import Path

from bilens.api.certify import certify_model
from bilens.api.judging_data import find_test_data
from bilens.cli.actions.shared import Source, open_model, refuse_existing
from bilens.cli.console import Output
from bilens.cli.tables.certificate import certificate_lines, truncation_table


def run_certify_command(
    output: Output,
    source: Source,
    *,
    dataset: str | None,
    data_dir: Path | None,
    samples: int,
    truncate: int | None,
    radius: float | None,
    html: Path | None,
    lang: str,
    seed: int,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens certify`."""
    refuse_existing(html, overwrite)
    model = open_model(source)
    data = find_test_data(model, dataset, data_dir, output.say)
    with output.progress() as progress:
        report = certify_model(
            model,
            data,
            samples=samples,
            truncate=truncate,
            radius=radius,
            seed=seed,
            progress=progress,
        )
    if html is not None:
        report.to_html(html, lang=lang)
    if json:
        output.json(report.to_dict())
        return
    document = report.to_dict()
    output.result.print(truncation_table(document))
    for line in certificate_lines(document):
        output.result.print(line, highlight=False, markup=False, soft_wrap=True)
    if html is not None:
        output.result.print(f"Report: {html}", highlight=False)
