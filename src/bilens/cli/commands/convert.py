"""Options of `bilens convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bilens.cli.options import AllowPickle, Json, ModelPath, Overwrite, Residual

Target = Literal["bilens", "huggingface", "saelens", "sparsify", "official"]


def convert(
    context: typer.Context,
    model: ModelPath,
    to: Annotated[
        Target,
        typer.Option(
            help="huggingface: a language model as Llama; saelens, sparsify, official: a sparse "
            "autoencoder; bilens: a model folder of anything that is read."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for it.")],
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a model in another layout; weights, and what is known of them, are kept.

    Example: bilens convert runs/stories --to huggingface --out exports/stories
    """
    from bilens.cli.actions.convert import run_convert_command

    run_convert_command(
        context.obj, (model, residual, allow_pickle), to, out, overwrite=overwrite, json=json
    )
