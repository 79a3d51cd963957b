"""Explaining single predictions of a loaded classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bilens.data.images import ImageDataset
from bilens.errors import UsageError
from bilens.findings.audit import LabelledImages, class_centred, in_float64, summarise
from bilens.findings.explanation import explain
from bilens.findings.records import SCHEMA_VERSION
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.workflows.provenance import describe_data, describe_run, describe_source


def explain_image(
    model: LoadedModel, data: ImageDataset, indices: Sequence[int], *, command: str | None = None
) -> dict[str, Any]:
    """Return exact explanations of test images, as a document.

    Raises:
        UsageError: If an index is outside the test set, or the model is not a classifier.
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
    eigs = class_centred(module)
    images = data.test_images[list(indices)].double()
    logits = in_float64(module).quadratic_map().detach()(images)
    explanations = [
        explain(eigs, image, scores, int(data.test_labels[index]), index)
        for index, image, scores in zip(indices, images, logits, strict=True)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "explanation",
        "model": asdict(summary),
        "explanations": [asdict(item) for item in explanations],
        "source": describe_source(model),
        "data": describe_data(data),
        "reproduce": describe_run(command, 0),
    }
