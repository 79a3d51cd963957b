"""Options of `bilens explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from bilens.cli.options import AllowPickle, DataDir, DatasetOption, Json, ModelPath, Residual


def explain(
    context: typer.Context,
    model: ModelPath,
    index: Annotated[list[int], typer.Option(help="Test image, from 0; may be repeated.")],
    dataset: DatasetOption = None,
    data_dir: DataDir = None,
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    json: Json = False,
) -> None:
    """Take single predictions apart into the eigenvectors that spoke for and against a class.

    Example: bilens explain runs/demo --index 0 --index 7
    """
    from bilens.cli.actions.explain import run_explain_command

    run_explain_command(
        context.obj,
        (model, residual, allow_pickle),
        index,
        dataset=dataset,
        data_dir=data_dir,
        json=json,
    )
