"""`bilens fit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.cli.options import FAILED, Lang, flags_of, option
from bilens.cli.shared_options import DataFiles, SeenText, TensorFile

if TYPE_CHECKING:
    from torch import Tensor

    from bilens.io.load import LoadedModel
    from bilens.records.common import DataOrigin


@dataclass(frozen=True)
class FitOptions:
    """The layers to fit, the inputs to fit them on, and the R² that is good enough."""

    layer: list[str] | None = option(
        None, "Fit this layer alone; can be repeated. Without it the whole and all."
    )
    train_steps: int = option(0, "Steps of training after the last fit to data.", min=0)
    samples: int = option(10_000, "Random inputs that R² is measured on, 100 or more.", min=100)
    threshold: float = option(0.9, "R² from which a map stands for the model.", min=0.0, max=1.0)
    seed: int = option(0, "Seed of the random inputs.", min=0)
    lang: Lang = option("en", "Language of the table; messages are in English.")


def fit(
    output: Output,
    source: TensorFile,
    options: FitOptions,
    data: DataFiles,
    seen: SeenText,
) -> None:
    """Say how close the quadratic approximation comes: R² by degree, on data where they are given.

    Of a language model --text says what its layers see; R² is of documents that are held out.

    Exit code 1 if a map explains less than the threshold.

    Example: bilens fit mlp.safetensors --map up=fc1.weight --map down=fc2.weight --activation relu
    """
    from msgspec import structs

    from bilens.api.quadratic_fit import fit_layers_of, fit_on_inputs
    from bilens.records.base import to_json
    from bilens.report.terminal_readings import fit_lines, fit_table

    given = dict(vars(options))
    layers = given.pop("layer") or []
    lang = given.pop("lang")
    beside = [*flags_of(source), *flags_of(data)] if seen.text is not None else []
    if beside:
        raise UsageError(f"--text and {', '.join(beside)} exclude each other: give one.")
    with output.progress() as progress:
        inputs = seen.inputs(source.model, layers, options.seed, progress)
    if inputs is not None:
        record = fit_on_inputs(inputs, **given)
    else:
        model = source.open(output.say)
        rows, about = find_rows(output, model, options, data)
        record = fit_layers_of(model, rows, layers=layers, **given)
        record = structs.replace(record, data=about)
    output.answer(to_json(record), fit_table(record, lang), *fit_lines(record, lang))
    if not all(fit.usable for fit in record.fits):
        raise typer.Exit(FAILED)


def find_rows(
    output: Output, model: LoadedModel, options: FitOptions, data: DataFiles
) -> tuple[Tensor | None, DataOrigin | None]:
    """Return the inputs that the options name, and where they come from; None for none."""
    from bilens.api.provenance import image_origin
    from bilens.data.images import ImageDataset
    from bilens.data.model_interface import ModelInterface

    first = next(iter(model.layers))
    if not model.network and options.layer and options.layer[0] in model.layers:
        first = options.layer[0]
    d_out, _, d_in = model.layers[first].sizes
    shape, names = model.input_shape, model.input_names
    wanted = ModelInterface(d_in, d_out, "unknown", shape, names, answers=False)
    found = data.find(model, output.say, wanted)
    if isinstance(found, ImageDataset):
        return found.test_images, image_origin(found)
    return (None, None) if found is None else (found.inputs, found.origin)
