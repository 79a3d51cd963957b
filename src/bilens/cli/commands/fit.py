"""Options of `bilens fit`."""

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
    ModelPath,
    Residual,
    Roles,
    Transposed,
)


def fit(
    context: typer.Context,
    model: ModelPath,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Fit this layer alone; can be repeated. Without it the whole and all."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Inputs of the model: a .csv table, a .npy array or a .safetensors file."
        ),
    ] = None,
    dataset: DatasetOption = None,
    data_dir: DataDir = None,
    roles: Roles = None,
    activation: ActivationName = None,
    transposed: Transposed = None,
    samples: Annotated[
        int, typer.Option(help="Random inputs that R² is measured on, 100 or more.", min=100)
    ] = 10_000,
    threshold: Annotated[
        float,
        typer.Option(help="R² from which a map stands for the model.", min=0.0, max=1.0),
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the random inputs.", min=0)] = 0,
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    json: Json = False,
) -> None:
    """Say how close the closest quadratic map comes: R² by degree, assumed input and data.

    Exit code 1 if a map explains less than the threshold.

    Example: bilens fit mlp.safetensors --map up=fc1.weight --map down=fc2.weight --activation relu
    """
    from bilens.cli.actions.fit import run_fit_command

    run_fit_command(
        context.obj,
        (model, residual, allow_pickle),
        (roles, activation, transposed),
        layers=layer or [],
        data=data,
        dataset=dataset,
        data_dir=data_dir,
        samples=samples,
        threshold=threshold,
        seed=seed,
        json=json,
    )
