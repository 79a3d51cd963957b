"""Options of `bilens audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilens.cli.options import (
    ActivationName,
    AllowPickle,
    DataDir,
    DatasetOption,
    Json,
    Lang,
    ModelPath,
    Overwrite,
    Residual,
    Roles,
    Transposed,
)


def audit(
    context: typer.Context,
    model: ModelPath,
    dataset: DatasetOption = None,
    data_dir: DataDir = None,
    table: Annotated[
        Path | None,
        typer.Option(help="CSV file with the columns and the target of a table's model."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this HTML file.")] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Write Markdown for a pull request to this file; - for stdout."),
    ] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the HTML and Markdown reports.")] = "en",
    null_samples: Annotated[
        int | None,
        typer.Option(help="Draws for the level of chance: 99 of a classifier, 19 of each layer."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="The model that this one was made from: report what changed."),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            help="Fail (exit code 1) on a rule, such as unused_inputs, or on a rule with a limit, "
            "such as 'r2<0.9'; may be given again."
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="R² from which a layer that is not quadratic is read at all."
        ),
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the chance level.", min=0)] = 0,
    roles: Roles = None,
    activation: ActivationName = None,
    transposed: Transposed = None,
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Read a model and report what its weights say; exit code 1 if a condition fails.

    Example: bilens audit runs/mnist --data-dir data --html report.html --lang ja
    """
    from bilens.cli.actions.audit import run_audit_command

    run_audit_command(
        context.obj,
        (model, residual, allow_pickle),
        (roles, activation, transposed),
        dataset=dataset,
        data_dir=data_dir,
        table=table,
        html=html,
        markdown=markdown,
        lang=lang,
        null_samples=null_samples,
        baseline=baseline,
        fail_on=tuple(fail_on or ()),
        threshold=threshold,
        seed=seed,
        overwrite=overwrite,
        json=json,
    )
