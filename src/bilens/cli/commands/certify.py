"""Options of `bilens certify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


def certify(
    context: typer.Context,
    model: ModelPath,
    dataset: DatasetOption = None,
    data_dir: DataDir = None,
    samples: Annotated[
        int, typer.Option(help="The first so many test images get a certified radius.")
    ] = 1000,
    truncate: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Eigenpairs kept of each class; without it, as many as provably keep 99 % of "
            "the predictions.",
        ),
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Truncation is bounded over inputs of at most this length; without it, that of "
            "the longest image, or of the box [0, 1]ⁿ.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this HTML file.")] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the HTML report.")] = "en",
    seed: Annotated[
        int, typer.Option(help="Seed of the attack that bounds ℓ∞ distances.", min=0)
    ] = 0,
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """State what is proven about a one-layer classifier: radii, truncation, use of inputs.

    Example: bilens certify runs/mnist --data-dir data --html certificate.html --lang ja
    """
    from bilens.cli.actions.certify import run_certify_command

    run_certify_command(
        context.obj,
        (model, residual, allow_pickle),
        dataset=dataset,
        data_dir=data_dir,
        samples=samples,
        truncate=truncate,
        radius=radius,
        html=html,
        lang=lang,
        seed=seed,
        overwrite=overwrite,
        json=json,
    )
