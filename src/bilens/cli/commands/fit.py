"""`bilens fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bilens.algebra.approximation.fit_options import QuadraticFitOptions
from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.cli.options import FAILED, Lang, flags_of
from bilens.cli.shared_options import DataFiles, SeenText, TensorFile

if TYPE_CHECKING:
    from torch import Tensor

    from bilens.io.load import LoadedModel
    from bilens.records.common import DataOrigin


def fit(
    output: Output,
    source: TensorFile,
    options: QuadraticFitOptions,
    data: DataFiles,
    seen: SeenText,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Fit this layer alone; can be repeated. Without it the whole and all."),
    ] = None,
    lang: Annotated[
        Lang, typer.Option(help="Language of the table; messages are in English.")
    ] = "en",
) -> None:
    """Say how close the quadratic approximation comes: R² by degree, on data where they are given.

    Of a language model --text says what its layers see; R² is of documents that are held out.

    Exit code 1 if a map explains less than the threshold.

    Example: bilens fit mlp.safetensors --map up=fc1.weight --map down=fc2.weight --activation relu
    """
    from msgspec import structs

    from bilens.api.given_data import runs_on_files
    from bilens.api.quadratic_fit import fit_layers_of, fit_on_inputs
    from bilens.records.base import to_json
    from bilens.report.terminal_readings import fit_lines, fit_table

    names = ("train_steps", "samples", "threshold", "seed")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    layers = layer or []
    beside = [*flags_of(source), *flags_of(data)] if seen.text is not None else []
    if beside:
        raise UsageError(f"--text and {', '.join(beside)} exclude each other: give one.")
    model = None if seen.text is not None else source.open(output.say)
    files = None
    if model is not None and data.path is not None and data.path.is_dir() and runs_on_files(model):
        files = data.path_of_files()
    with output.progress() as progress:
        inputs = seen.layer_inputs(source.model, layers, given["seed"], progress, model, files)
    if inputs is not None or model is None:
        assert inputs is not None, "of a text"
        record = fit_on_inputs(inputs, **given)
    else:
        rows, about = find_rows(output, model, layers, data)
        record = fit_layers_of(model, rows, layers=layers, **given)
        record = structs.replace(record, data=about)
    output.answer(to_json(record), fit_table(record, lang), *fit_lines(record, lang))
    if not all(fit.usable for fit in record.fits):
        raise typer.Exit(FAILED)


def find_rows(
    output: Output, model: LoadedModel, layers: list[str], data: DataFiles
) -> tuple[Tensor | None, DataOrigin | None]:
    """Return the inputs that data name, and where they come from; None for none."""
    from bilens.api.provenance import image_origin
    from bilens.data.images import ImageDataset
    from bilens.data.model_interface import ModelInterface

    first = next(iter(model.layers))
    if not model.network and layers and layers[0] in model.layers:
        first = layers[0]
    d_out, _, d_in = model.layers[first].sizes
    shape, names = model.input_shape, model.input_names
    wanted = ModelInterface(d_in, d_out, "unknown", shape, names, answers=False)
    found = data.find(model, output.say, wanted)
    if isinstance(found, ImageDataset):
        return found.test_images, image_origin(found)
    return (None, None) if found is None else (found.inputs, found.origin)
