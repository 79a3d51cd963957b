"""What `bilens fit` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from torch import Tensor

from bilens.api.fit_layers import fit_layers_of
from bilens.api.judging_data import find_test_data
from bilens.base.errors import UsageError
from bilens.cli.actions.shared import FAILED, Said, Source, open_model
from bilens.cli.console import Output
from bilens.cli.tables.fit import fit_lines, fit_table
from bilens.data.rows import read_rows
from bilens.io.load import LoadedModel


def run_fit_command(
    output: Output,
    source: Source,
    said: Said,
    *,
    layers: Sequence[str],
    data: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    samples: int,
    threshold: float,
    seed: int,
    json: bool,
) -> None:
    """`bilens fit`."""
    if data is not None and (dataset is not None or data_dir is not None):
        raise UsageError("--data takes the place of --dataset and --data-dir: give it alone.")
    model = open_model(source, said, output.say)
    document = fit_layers_of(
        model,
        find_rows(model, layers, data, dataset, data_dir, output.say),
        layers=layers,
        samples=samples,
        threshold=threshold,
        seed=seed,
    )
    if json:
        output.json(document)
    else:
        output.result.print(fit_table(document))
        for line in fit_lines(document):
            output.result.print(line, highlight=False, markup=False, soft_wrap=True)
    if not all(fit["usable"] for fit in document["fits"]):
        raise typer.Exit(FAILED)


def find_rows(
    model: LoadedModel,
    layers: Sequence[str],
    data: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    say: Callable[[str], None],
) -> Tensor | None:
    """Return the inputs that the options name; None where they name none."""
    if data is None:
        images = find_test_data(model, dataset, data_dir, say)
        return None if images is None else images.test_images
    names = [*model.layers]
    first = names[0] if model.network or not layers or layers[0] not in names else layers[0]
    return read_rows(data, model.layers[first].sizes.d_in, model.input_names)
