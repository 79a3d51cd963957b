"""`bilens trace`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bilens.base.errors import OutputExistsError
from bilens.base.files import names_in
from bilens.base.option_rules import NO_SAES, refuse_idle
from bilens.cli.console import Output
from bilens.cli.options import LanguageModel, Overwrite, check_outputs, option
from bilens.cli.shared_options import HtmlReport, Text


@dataclass(frozen=True)
class TracedLayerOptions:
    """The layer, and the autoencoders around it."""

    model: LanguageModel
    layer: Annotated[int, typer.Option(help="The block whose MLP is traced, from 0.", min=0)]
    input_sae: Path | None = option(None, "Folder of the autoencoder at mlp_in of that block.")
    output_sae: Path | None = option(
        None,
        "Folder of the autoencoder at mlp_out. Without both, output directions are read straight "
        "as tokens.",
    )


@dataclass(frozen=True)
class ListingOptions:
    """The latents, pairs and directions that are listed and drawn: arguments of `bl.trace`."""

    latents: list[int] | None = option(
        None, "An output latent to draw; may be repeated. Left out: the first ones.", "--latent"
    )
    toward: list[str] | None = option(
        None,
        "Without autoencoders: read the direction that raises this token; may be repeated. Left "
        "out: the leading singular directions.",
        metavar="TOKEN",
    )
    outputs: int = option(5, "How many outputs to draw.", min=1)
    pairs: int = option(8, "Eigenpairs of each output.", min=1)
    features: int = option(8, "Input latents of a circuit.", min=1)
    top: int = option(20, "Interactions listed of each kind.", min=1)
    tokens: int = option(16_384, "Held-out tokens to read.", min=1)
    seed: int = option(0, "Seed of the text drawn, of random directions and dictionaries.", min=0)
    dictionaries: int = option(
        19, "Random dictionaries to rank and check likewise; fewer than 19 tell nothing.", min=1
    )


def trace(
    output: Output,
    subject: TracedLayerOptions,
    text: Text,
    listed: ListingOptions,
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

    if subject.input_sae is None and subject.output_sae is None:
        refuse_idle("trace", {"graph": graph}, NO_SAES)
    check_outputs([("--html", page.html)], overwrite)
    if graph is not None and names_in(graph, "graphs") and not overwrite:
        raise OutputExistsError(
            f"{graph} is not empty: choose another folder, or write into it with --overwrite."
        )
    with output.progress() as progress:
        report = trace_model(
            **vars(subject),
            corpus=text.options(),
            progress=progress,
            say=output.say,
            **{**vars(listed), "latents": listed.latents or None, "toward": listed.toward or ()},
        )
    lines = page.write(report)
    if graph is not None:
        lines += [f"Graph: {file}" for file in report.to_graphs(graph)]
    output.answer(report.to_dict(), *trace_tables(report.record, page.lang), *lines)
