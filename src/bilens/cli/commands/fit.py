"""`bilens fit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bilens.cli.console import Output
from bilens.cli.options import FAILED, ImageData, Json, TensorFile, option

if TYPE_CHECKING:
    from torch import Tensor

    from bilens.io.load import LoadedModel


@dataclass(frozen=True)
class FitOptions:
    """What is fitted, on what, and when it is good enough."""

    layer: list[str] | None = option(
        None, "Fit this layer alone; can be repeated. Without it the whole and all."
    )
    data: Path | None = option(
        None, "Inputs of the model: a .csv table, a .npy array or a .safetensors file."
    )
    samples: int = option(10_000, "Random inputs that R² is measured on, 100 or more.", min=100)
    threshold: float = option(0.9, "R² from which a map stands for the model.", min=0.0, max=1.0)
    seed: int = option(0, "Seed of the random inputs.", min=0)


def fit(
    output: Output,
    source: TensorFile,
    options: FitOptions,
    images: ImageData,
    json: Json = False,
) -> None:
    """Say how close the quadratic approximation comes: R² by degree, assumed input and data.

    Exit code 1 if a map explains less than the threshold.

    Example: bilens fit mlp.safetensors --map up=fc1.weight --map down=fc2.weight --activation relu
    """
    from bilens.api.quadratic_fit import fit_layers_of
    from bilens.records.base import to_json
    from bilens.report.terminal_readings import fit_lines, fit_table

    if options.data is not None:
        images.refuse_beside("--data")
    model = source.open(output.say)
    record = fit_layers_of(
        model,
        find_rows(output, model, options, images),
        layers=options.layer or [],
        samples=options.samples,
        threshold=options.threshold,
        seed=options.seed,
    )
    output.answer(json, to_json(record), fit_table(record), *fit_lines(record))
    if not all(fit.usable for fit in record.fits):
        raise typer.Exit(FAILED)


def find_rows(
    output: Output, model: LoadedModel, options: FitOptions, images: ImageData
) -> Tensor | None:
    """Return the inputs that the options name; None where they name none."""
    from bilens.data.tables import read_rows

    if options.data is None:
        found = images.find(model, output.say)
        return None if found is None else found.test_images
    first = next(iter(model.layers))
    if not model.network and options.layer and options.layer[0] in model.layers:
        first = options.layer[0]
    return read_rows(options.data, model.layers[first].sizes.d_in, model.input_names)
