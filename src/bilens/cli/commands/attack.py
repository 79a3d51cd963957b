"""Options of `bilens attack`."""

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


def attack(
    context: typer.Context,
    model: ModelPath,
    dataset: DatasetOption = None,
    data_dir: DataDir = None,
    target: Annotated[
        str | None,
        typer.Option(help="Class that should win, by index or name; each in turn without."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Class that should lose; all but the target without.")
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="A mask of its own for each source class.")
    ] = False,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(
            help="Length ‖δ‖₂ of the masks; may be repeated. Without: 0 to 8.4; 4.2 is the "
            "paper's std of 0.15 at 784 pixels."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this HTML file.")] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the HTML report.")] = "en",
    seed: Annotated[
        int, typer.Option(help="Seed of random masks and gradient descents.", min=0)
    ] = 0,
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Add one mask to every image: the provably best for the mean margin, beside other masks.

    Example: bilens attack runs/mnist --data-dir data --target 3 --html attack.html
    """
    from bilens.cli.actions.attack import run_attack_command

    run_attack_command(
        context.obj,
        (model, residual, allow_pickle),
        dataset=dataset,
        data_dir=data_dir,
        request={
            "target": target,
            "source": source,
            "pairs": pairs,
            "seed": seed,
            "epsilons": epsilon,
        },
        html=html,
        lang=lang,
        overwrite=overwrite,
        json=json,
    )
