"""Options of `bilens explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bilens.cli.options import (
    AllowPickle,
    DataDir,
    DatasetOption,
    Json,
    Lang,
    ModelPath,
    Overwrite,
    Residual,
)


def explain(
    context: typer.Context,
    model: ModelPath,
    index: Annotated[list[int], typer.Option(help="Test image or row, from 0; may be repeated.")],
    table: Annotated[
        Path | None,
        typer.Option(help="CSV file with a column for each input, in place of images."),
    ] = None,
    dataset: DatasetOption = None,
    data_dir: DataDir = None,
    baseline: Annotated[
        Literal["zeros", "mean"] | None,
        typer.Option(
            help="What an absent input is: 0, or the mean of training images or rows; the mean "
            "where the model knows it, and else 0."
        ),
    ] = None,
    plate: Annotated[
        Path | None, typer.Option(help="Draw what each pixel adds into this SVG file.")
    ] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the drawing.")] = "en",
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Take single predictions apart, exactly: into eigenvectors, and into inputs.

    Example: bilens explain runs/demo --index 0 --index 7 --plate pixels.svg
    """
    from bilens.cli.actions.explain import run_explain_command

    run_explain_command(
        context.obj,
        (model, residual, allow_pickle),
        index,
        table=table,
        dataset=dataset,
        data_dir=data_dir,
        baseline=baseline,
        plate=plate,
        lang=lang,
        overwrite=overwrite,
        json=json,
    )
