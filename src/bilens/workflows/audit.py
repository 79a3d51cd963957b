"""`bl.audit`: a classifier and, if given, test images, to a report."""

from __future__ import annotations

from torch import Tensor, nn

from bilens.data.images import ImageDataset
from bilens.errors import UsageError
from bilens.findings.audit import audit_classifier
from bilens.findings.subject import LabelledImages, Progress, silent
from bilens.io.load import LoadedModel
from bilens.report.audit_report import AuditReport
from bilens.workflows.approximate_reading import offering_a_fit
from bilens.workflows.given_model import given_model
from bilens.workflows.provenance import describe_data, describe_run, describe_source


def audit(
    model: LoadedModel | nn.Module,
    data: ImageDataset | tuple[Tensor, Tensor] | None = None,
    *,
    null_samples: int = 99,
    seed: int = 0,
    command: str | None = None,
    progress: Progress = silent,
) -> AuditReport:
    """Read a one-layer bilinear classifier and report what its weights say.

    Cost: classes · O(in³) for the spectra; null_samples · classes · O(min(in, 2·hidden)³) for
    the level of chance: about half a minute for 784 pixels, 256 hidden units and 10 classes.

    Args:
        model: what `bl.load` returned, or a `BilinearClassifier`; it is not changed.
        data: test images, an `ImageDataset` or (images (batch, in), labels (batch,)); without
            them nothing is said about accuracy or single predictions.
        null_samples: random rotations for the level of chance, at least 39.
        seed: of the rotations and of the random inputs.
        command: how to reproduce this, for the report; None takes the process's command line.
        progress: called with (stage, done, total).

    Returns:
        A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`.

    Raises:
        UsageError: If the model is not a classifier of bilens, or null_samples is below 39.
        NotQuadraticError: If it is gated or has more than one layer.
        ShapeError: If the data do not fit the model.
        NonFiniteError: If a weight is NaN or infinite, or the weights exceed float32's range.
        MemoryLimitError: If the dense matrices would not fit.
    """
    module, loaded = given_model(model, "an audit", "bl.audit({})")
    with offering_a_fit(model):
        findings = audit_classifier(
            module,
            labelled(data),
            input_shape=loaded.input_shape if loaded is not None else None,
            output_names=loaded.output_names if loaded is not None else None,
            input_names=loaded.input_names if loaded is not None else None,
            null_samples=null_samples,
            seed=seed,
            progress=progress,
        )
    document = {
        **findings.to_dict(),
        "source": describe_source(loaded),
        "data": describe_data(data),
        "reproduce": describe_run(command, seed),
    }
    return AuditReport(document)


def labelled(data: ImageDataset | tuple[Tensor, Tensor] | None) -> LabelledImages | None:
    """Return the test images of what a caller may pass as data."""
    if data is None:
        return None
    if isinstance(data, ImageDataset):
        return LabelledImages(data.test_images, data.test_labels)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data):
        return LabelledImages(*data)
    raise UsageError(
        f"data is a {type(data).__name__}; expected an ImageDataset or a pair of tensors "
        "(images, labels)."
    )
