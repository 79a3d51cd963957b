"""Explaining single predictions of a loaded classifier: of images, or of rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from msgspec import structs
from torch import Tensor

from bilens.api.provenance import describe_run, describe_source, image_origin
from bilens.api.quadratic_fit import offering_a_fit
from bilens.base.errors import UsageError
from bilens.base.files import file_sha256
from bilens.data.images import ImageDataset
from bilens.data.tables import read_columns
from bilens.findings.audit import class_centred
from bilens.findings.explanation import attribute_prediction, explain
from bilens.findings.subject import LabelledImages, in_float64, summarise
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import in_standard_units
from bilens.records.audit import Explanations, InputExplanation
from bilens.records.common import DataOrigin, ModelSummary

Baseline = Literal["zeros", "mean"]


def explain_image(
    model: LoadedModel,
    data: ImageDataset,
    indices: Sequence[int],
    *,
    baseline: Baseline = "zeros",
    command: str | None = None,
) -> Explanations:
    """Return exact explanations of test images."""
    summary = summary_of(model)
    LabelledImages(data.test_images, data.test_labels).check(summary.d_input, summary.d_output)
    check_indices(indices, len(data.test_images), "test image")
    start = baseline_of(data.train_images, baseline)
    labels = [int(data.test_labels[index]) for index in indices]
    inputs = data.test_images[list(indices)]
    return Explanations(
        model=summary,
        baseline=baseline,
        explanations=explained(model, inputs, labels, indices, start),
        source=describe_source(model),
        data=image_origin(data),
        reproduce=describe_run(command, 0),
    )


def explain_rows(
    model: LoadedModel,
    table: Path,
    indices: Sequence[int],
    *,
    baseline: Baseline | None = None,
    command: str | None = None,
) -> Explanations:
    """Return exact explanations of rows of a table with named columns."""
    summary = summary_of(model)
    if summary.input_names is None:
        raise UsageError(
            f"{model.source} does not name its inputs, so that columns cannot be told apart: save "
            "it with bl.save(model, folder, input_names=[...])."
        )
    rows = read_columns(table, summary.input_names)
    check_indices(indices, len(rows.values), "row")
    if baseline is None:
        baseline = "zeros" if model.input_mean is None else "mean"
    start = baseline_of(rows.values, baseline)
    if baseline == "mean" and model.input_mean is not None:
        start = torch.tensor(model.input_mean, dtype=torch.float64)
    labels = [None] * len(indices)
    inputs = rows.values[list(indices)]
    return Explanations(
        model=summary,
        baseline=baseline,
        explanations=explained(model, inputs, labels, indices, start),
        source=describe_source(model),
        data=DataOrigin(table.name, str(table), "table", len(rows.values), file_sha256(table)),
        reproduce=describe_run(command, 0),
    )


def summary_of(model: LoadedModel) -> ModelSummary:
    module = model.whole("an explanation")
    if not isinstance(module, BilinearClassifier):
        raise UsageError(
            f"{model.source} is a {type(module).__name__}; expected a BilinearClassifier."
        )
    return summarise(module, model.input_shape, model.output_names, model.input_names)


def check_indices(indices: Sequence[int], available: int, what: str) -> None:
    for index in indices:
        if not 0 <= index < available:
            raise UsageError(f"there is no {what} {index}: there are {available}, counted from 0.")


def explained(
    model: LoadedModel,
    inputs: Tensor,
    labels: Sequence[int | None],
    indices: Sequence[int],
    start: Tensor,
) -> tuple[InputExplanation, ...]:
    """Return how the scores of some inputs come about."""
    module = model.module
    assert isinstance(module, BilinearClassifier), "checked by summary_of"
    inputs = inputs.double()
    with offering_a_fit(model):
        if model.input_mean is not None and model.input_scale is not None:
            mean, scale = torch.tensor([model.input_mean, model.input_scale], dtype=torch.float64)
            module = in_standard_units(module, mean, scale)
            inputs, start = (inputs - mean) / scale, (start - mean) / scale
        f = in_float64(module).quadratic_map().detach()
        eigs = class_centred(module)
    explanations = [
        explain(eigs, x, scores, label, index)
        for index, x, scores, label in zip(indices, inputs, f(inputs), labels, strict=True)
    ]
    return tuple(
        InputExplanation(
            **structs.asdict(item),
            attributions=tuple(attribute_prediction(f, x, start, item.label)),
        )
        for item, x in zip(explanations, inputs, strict=True)
    )


def baseline_of(known: Tensor, baseline: Baseline) -> Tensor:
    """Return what an absent input is set to, (in,) float64: 0, or the mean of known inputs."""
    if baseline not in get_args(Baseline):
        raise UsageError(f'baseline={baseline!r} is not known: use "zeros" or "mean".')
    if baseline == "zeros":
        return torch.zeros(known.shape[1], dtype=torch.float64)
    return known.double().mean(dim=0)
