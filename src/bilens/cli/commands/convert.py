"""`bilens convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from bilens.cli.console import Output
from bilens.cli.options import Json, ModelFile, Overwrite, say_how_it_was_read


@dataclass(frozen=True)
class ConvertOptions:
    """Into what, and where to."""

    to: Annotated[
        Literal["bilens", "huggingface", "saelens", "sparsify", "official"],
        typer.Option(
            help="huggingface: a language model as Llama; saelens, sparsify, official: a sparse "
            "autoencoder; bilens: a model folder of anything that is read."
        ),
    ]
    out: Annotated[Path, typer.Option(help="Folder for it.")]


def convert(
    output: Output,
    source: ModelFile,
    options: ConvertOptions,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a model in another layout; weights, and what is known of them, are kept.

    Example: bilens convert runs/stories --to huggingface --out exports/stories
    """
    from bilens.api.convert import convert_model

    model = source.open()
    if model.module is not None:  # what cannot be converted is refused first
        say_how_it_was_read(model, output.say)
    written = convert_model(model, options.to, options.out, overwrite=overwrite)
    document = {
        "schema_version": 1,
        "kind": "conversion",
        "source": model.source,
        "weights_sha256": model.weights_sha256,
        "layout": options.to,
        "folder": str(options.out),
        "files": written,
    }
    output.answer(json, document, f"Written to {options.out}: {', '.join(written)}")
