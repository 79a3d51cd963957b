"""`bilens attack`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.cli.options import (
    FAILED,
    HtmlReport,
    ImageData,
    Json,
    ModelFile,
    Overwrite,
    refuse_existing,
)


@dataclass(frozen=True)
class AttackOptions:
    """Which perturbations are made."""

    target: Annotated[
        str | None,
        typer.Option(help="Class that should win, by index or name; each in turn without."),
    ] = None
    source: Annotated[
        str | None, typer.Option(help="Class that should lose; all but the target without.")
    ] = None
    pairs: Annotated[
        bool, typer.Option("--pairs", help="A perturbation of its own for each source class.")
    ] = False
    epsilons: Annotated[
        list[float] | None,
        typer.Option(
            "--epsilon",
            help="Length ‖δ‖₂ of the perturbations; may be repeated. Without: 0 to 8.4; 4.2 is the "
            "paper's std of 0.15 at 784 pixels.",
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(help="Seed of random perturbations and gradient descents.", min=0)
    ] = 0


def attack(
    output: Output,
    file: ModelFile,
    images: ImageData,
    options: AttackOptions,
    page: HtmlReport,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Add one perturbation to every image: the provably best one for the mean margin, and others.

    Example: bilens attack runs/mnist --data-dir data --target 3 --html attack.html
    """
    from bilens.api.robustness import attack_model
    from bilens.report.terminal import attack_lines, attack_tables

    refuse_existing(page.html, overwrite)
    model = file.open()
    data = images.find(model, output.say)
    if data is None:
        raise UsageError(
            "an attack needs training and test images: pass --data-dir with the IDX files of the "
            "data set, and --dataset where the model does not say it."
        )
    with output.progress() as progress:
        report = attack_model(model, data, progress=progress, **vars(options))
    written = page.write(report)
    if json:
        output.json(report.to_dict())
    else:
        for table in attack_tables(report.record):
            output.tables(table)
            output.result.print()
        output.lines(*attack_lines(report.record), *written)
    if not report.holds:
        raise typer.Exit(FAILED)
