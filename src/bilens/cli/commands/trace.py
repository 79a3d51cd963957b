"""`bilens trace`."""

from pathlib import Path
from typing import Annotated

import typer

from bilens.base.errors import OutputExistsError
from bilens.base.files import names_in
from bilens.base.option_rules import NO_SAES, refuse_idle
from bilens.cli.console import Output
from bilens.cli.options import LanguageModel, Overwrite, check_outputs
from bilens.cli.shared_options import HtmlReport, Text
from bilens.interp.trace_options import TraceOptions


def trace(
    output: Output,
    model: LanguageModel,
    layer: Annotated[int, typer.Option(help="The block whose MLP is traced, from 0.", min=0)],
    options: TraceOptions,
    text: Text,
    page: HtmlReport,
    graph: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write each circuit as a graph of circuit-tracer's layout."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Read how one MLP of a language model builds its outputs: latents, circuits, tokens.

    Example: bilens trace runs/stories --layer 0 --input-sae runs/sae/blocks.0.mlp_in
    --output-sae runs/sae/blocks.0.mlp_out --html trace.html
    """
    from bilens.api.tracing import trace as trace_model
    from bilens.report.terminal_readings import trace_tables

    if options.input_sae is None and options.output_sae is None:
        refuse_idle("trace", {"graph": graph}, NO_SAES)
    check_outputs([("--html", page.html)], overwrite)
    if graph is not None and names_in(graph, "graphs") and not overwrite:
        raise OutputExistsError(
            f"{graph} is not empty: choose another folder, or write into it with --overwrite."
        )
    with output.progress() as progress:
        told = {"corpus": text.options(), "progress": progress, "say": output.say}
        report = trace_model(model, layer, options, **told)
    lines = page.write(report)
    if graph is not None:
        lines += [f"Graph: {file}" for file in report.to_graphs(graph)]
    output.answer(report.to_dict(), *trace_tables(report.record, page.lang), *lines)
