"""`bl.certify_model`: a classifier and, if given, test images, to what is proven about it."""

from __future__ import annotations

from torch import Tensor, nn

from bilens.api.audit import labelled
from bilens.api.given import given_model
from bilens.api.provenance import origin_of
from bilens.api.quadratic_fit import offering_a_fit
from bilens.data.images import ImageDataset
from bilens.findings.certificate import SAMPLES, certify_classifier
from bilens.findings.subject import Progress, silent
from bilens.io.load import LoadedModel
from bilens.report.reports import CertificateReport


def certify_model(
    model: LoadedModel | nn.Module,
    data: ImageDataset | tuple[Tensor, Tensor] | None = None,
    *,
    samples: int = SAMPLES,
    truncate: int | None = None,
    radius: float | None = None,
    seed: int = 0,
    command: str | None = None,
    progress: Progress = silent,
) -> CertificateReport:
    """Return what is proven about a one-layer bilinear classifier, and nothing else.

    Radii of test inputs, bounds on truncation, unused inputs, the largest influence of one input,
    and what rounding of the weights can do; `docs/certifying.md` has every claim with what it
    assumes.

    Cost: one eigendecomposition for each pair of classes, O(in³), for the radii; one for each
    class for the rest.

    Args:
        model: what `bl.load` returned, or a `BilinearClassifier`; it is not changed.
        data: test images, an `ImageDataset` or (images (batch, in), labels (batch,)); without
            them nothing is said about radii and predictions.
        samples: the first so many test images are read.
        truncate: pairs kept of each class form; None looks for a number that provably keeps 99 %
            of the predictions.
        radius: of the ball over which the error of truncation is bounded; None takes the length
            of the longest image, without data the farthest corner of the box [0, 1]ⁿ.
        seed: of the attack that bounds ℓ∞ distances from above.
        command: how to reproduce this, for the report; None takes the process's command line.
        progress: called with (stage, done, total).

    Returns:
        A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`.

    Raises:
        UsageError: If the model is not a classifier of bilens, or an argument is out of range.
        NotQuadraticError: If it is gated or has more than one layer: nothing is proven then.
        ShapeError: If the data do not fit the model.
        NonFiniteError: If a weight or a pixel is NaN or infinite.
        NumericalError: If formula and model disagree, or a spectrum did not pass its checks.
        MemoryLimitError: If the work would not fit.
    """
    module, loaded = given_model(model, "a certificate", "bl.certify_model({})")
    with offering_a_fit(model):
        certificate = certify_classifier(
            module,
            labelled(data),
            input_shape=loaded.input_shape if loaded is not None else None,
            output_names=loaded.output_names if loaded is not None else None,
            input_names=loaded.input_names if loaded is not None else None,
            samples=samples,
            truncate=truncate,
            radius=radius,
            seed=seed,
            progress=progress,
            origin=origin_of(loaded, data, command, seed),
        )
    return CertificateReport(certificate)
