"""Explaining single predictions of a loaded classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from bilens.data.images import ImageDataset
from bilens.errors import UsageError
from bilens.findings.audit import class_centred
from bilens.findings.explanation import explain
from bilens.findings.input_attribution import attribute_prediction
from bilens.findings.records import SCHEMA_VERSION
from bilens.findings.subject import LabelledImages, in_float64, summarise
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.workflows.approximate_reading import offering_a_fit
from bilens.workflows.provenance import describe_data, describe_run, describe_source

Baseline = Literal["zeros", "mean"]


def explain_image(
    model: LoadedModel,
    data: ImageDataset,
    indices: Sequence[int],
    *,
    baseline: Baseline = "zeros",
    command: str | None = None,
) -> dict[str, Any]:
    """Return exact explanations of test images, as a document.

    By eigenvectors, and by inputs: the Shapley values, which for a quadratic map are the
    integrated gradients, of the predicted class and of its lead over a rival.

    Args:
        model: what `bl.load` returned.
        data: the images to take apart are its test images.
        indices: which of them, from 0.
        baseline: what an input is set to where it is absent: "zeros", or the "mean" of the
            training images.
        command: how to reproduce this; None takes the process's command line.

    Raises:
        UsageError: If an index is outside the test set, there is no such baseline, or the model
            is not a classifier.
        NotQuadraticError: If it is gated or has more than one layer.
        ShapeError: If the images do not fit the model.
    """
    module = model.module
    if not isinstance(module, BilinearClassifier):
        raise UsageError(
            f"{model.source} is a {type(module).__name__}; expected a BilinearClassifier."
        )
    summary = summarise(module, model.input_shape, model.output_names)
    LabelledImages(data.test_images, data.test_labels).check(summary.d_input, summary.d_output)
    for index in indices:
        if not 0 <= index < len(data.test_images):
            raise UsageError(
                f"there is no test image {index}: the test set has {len(data.test_images)}, "
                f"counted from 0."
            )
    if baseline not in get_args(Baseline):
        raise UsageError(f'baseline={baseline!r} is not known: use "zeros" or "mean".')
    start = baseline_of(data, baseline)
    with offering_a_fit(model):
        f = in_float64(module).quadratic_map().detach()
        eigs = class_centred(module)
    images = data.test_images[list(indices)].double()
    logits = f(images)
    explanations = [
        explain(eigs, image, scores, int(data.test_labels[index]), index)
        for index, image, scores in zip(indices, images, logits, strict=True)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "explanation",
        "model": asdict(summary),
        "baseline": baseline,
        "explanations": [
            {
                **asdict(item),
                "attributions": [
                    asdict(part) for part in attribute_prediction(f, image, start, item.label)
                ],
            }
            for item, image in zip(explanations, images, strict=True)
        ],
        "source": describe_source(model),
        "data": describe_data(data),
        "reproduce": describe_run(command, 0),
    }


def baseline_of(data: ImageDataset, baseline: Baseline) -> Tensor:
    """Return what an absent input is set to, (in,) float64."""
    if baseline == "zeros":
        return torch.zeros(data.test_images.shape[1], dtype=torch.float64)
    return data.train_images.double().mean(dim=0)
