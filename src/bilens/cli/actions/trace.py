"""What `bilens trace` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bilens.api.trace import trace
from bilens.base.errors import FileError, OutputExistsError, UsageError
from bilens.cli.actions.shared import refuse_existing
from bilens.cli.actions.train_sae import Text, corpus_options
from bilens.cli.console import Output
from bilens.cli.tables.trace import trace_tables


def run_trace_command(
    output: Output,
    model: Path,
    layer: int,
    saes: tuple[Path | None, Path | None],
    text: Text,
    options: dict[str, Any],
    *,
    html: Path | None,
    lang: str,
    graph: Path | None,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens trace`."""
    if graph is not None and saes == (None, None):
        raise UsageError(
            "--graph writes circuits, which are made of latents: give --input-sae and "
            "--output-sae, or leave it out."
        )
    refuse_existing(html, overwrite)
    refuse_filled(graph, overwrite)
    with output.progress() as progress:
        report = trace(
            model,
            layer,
            input_sae=saes[0],
            output_sae=saes[1],
            corpus=corpus_options(text),
            progress=progress,
            say=output.say,
            **options,
        )
    if html is not None:
        report.to_html(html, lang=lang)
    graphs = report.to_graphs(graph) if graph is not None else []
    if json:
        output.json(report.to_dict())
        return
    for table in trace_tables(report.to_dict()):
        output.result.print(table)
    if html is not None:
        output.result.print(f"Report: {html}", highlight=False, markup=False, soft_wrap=True)
    for file in graphs:
        output.result.print(f"Graph: {file}", highlight=False, markup=False, soft_wrap=True)


def refuse_filled(folder: Path | None, overwrite: bool) -> None:
    """Refuse to write graphs beside what a folder holds already, before any work is done."""
    if folder is None or not folder.exists():
        return
    if not folder.is_dir():
        raise FileError(f"{folder} is a file; expected a folder for the graphs: choose another.")
    if any(folder.iterdir()) and not overwrite:
        raise OutputExistsError(
            f"{folder} is not empty: choose another folder, or write into it with --overwrite."
        )
