"""Options of `bilens trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilens.cli.options import Json, Lang, Overwrite


def trace(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Folder of the language model.")],
    layer: Annotated[int, typer.Option(help="The block whose MLP is traced, from 0.", min=0)],
    input_sae: Annotated[
        Path | None, typer.Option(help="Folder of the autoencoder at mlp_in of that block.")
    ] = None,
    output_sae: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the autoencoder at mlp_out. Without both, output directions are read "
            "straight as tokens."
        ),
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="As for `train language`; left out: the model's own.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of --corpus with the text.")] = None,
    limit: Annotated[int | None, typer.Option(help="Documents of --corpus to read.", min=2)] = None,
    tokens: Annotated[int, typer.Option(help="Held-out tokens to read.", min=1)] = 16_384,
    latent: Annotated[
        list[int] | None,
        typer.Option(help="An output latent to draw; may be repeated. Left out: the first ones."),
    ] = None,
    toward: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKEN",
            help="Without autoencoders: read the direction that raises this token; may be "
            "repeated. Left out: the leading singular directions.",
        ),
    ] = None,
    outputs: Annotated[int, typer.Option(help="How many outputs to draw.", min=1)] = 5,
    pairs: Annotated[int, typer.Option(help="Eigenpairs of each output.", min=1)] = 8,
    features: Annotated[int, typer.Option(help="Input latents of a circuit.", min=1)] = 8,
    top: Annotated[int, typer.Option(help="Interactions listed of each kind.", min=1)] = 20,
    html: Annotated[Path | None, typer.Option(help="Write the report to this HTML file.")] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the HTML report.")] = "en",
    graph: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write each circuit as a graph of circuit-tracer's layout."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random directions.", min=0)] = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Read how one MLP of a language model builds its outputs: latents, circuits, tokens.

    Example: bilens trace runs/stories --layer 0 --input-sae runs/sae/blocks.0.mlp_in
    --output-sae runs/sae/blocks.0.mlp_out --html trace.html
    """
    from bilens.cli.actions.trace import run_trace_command

    run_trace_command(
        context.obj,
        model,
        layer,
        (input_sae, output_sae),
        (corpus, column, limit),
        {
            "latents": latent or None,
            "toward": tuple(toward or ()),
            "outputs": outputs,
            "pairs": pairs,
            "features": features,
            "top": top,
            "tokens": tokens,
            "seed": seed,
        },
        html=html,
        lang=lang,
        graph=graph,
        overwrite=overwrite,
        json=json,
    )
