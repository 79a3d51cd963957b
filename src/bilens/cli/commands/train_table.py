"""Options of `bilens train table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bilens.cli.options import Json, Overwrite


def train_table(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="CSV file; the first line names the columns.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[Path, typer.Option(help="Folder for the run.")],
    task: Annotated[
        Literal["auto", "classification", "regression"],
        typer.Option(help="auto: texts, and at most 10 different whole numbers, are classes."),
    ] = "auto",
    drop: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; may be repeated.")
    ] = None,
    missing: Annotated[
        Literal["refuse", "mean", "drop"],
        typer.Option(help="Cells without a value: an error, the column's mean, or drop the row."),
    ] = "refuse",
    alpha: Annotated[float, typer.Option(help="Penalty of all coefficients.")] = 3.0,
    quadratic_scale: Annotated[
        float,
        typer.Option(help="Squares and pairs beside the linear part, a ratio of variances; 0: no."),
    ] = 0.3,
    components: Annotated[
        int | None,
        typer.Option(help="Pairs of so many principal directions, not of all columns.", min=1),
    ] = None,
    early_stopping: Annotated[
        bool, typer.Option("--early-stopping", help="Let held-out rows choose the penalty.")
    ] = False,
    validation: Annotated[float, typer.Option(help="Share of rows that do.")] = 0.1,
    test: Annotated[
        float, typer.Option(help="Share of rows for the test.", min=0.0, max=0.9)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the splits.", min=0)] = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fit a table exactly: every column, square and pair of columns has one coefficient.

    The fit is a convex problem with one solution; it is saved as a bilinear model that every
    command reads. Columns of text with at most 20 different values become an indicator each.

    Example: bilens train table wine.csv --target cultivar --out runs/wine
    """
    from bilens.cli.actions.train_table import run_train_table_command

    recipe = {
        "alpha": alpha,
        "quadratic_scale": quadratic_scale,
        "n_components": components,
        "early_stopping": early_stopping,
        "validation_fraction": validation,
        "seed": seed,
    }
    run_train_table_command(
        context.obj,
        data,
        target,
        out,
        recipe,
        task=task,
        drop=drop or [],
        missing=missing,
        test=test,
        overwrite=overwrite,
        json=json,
    )
