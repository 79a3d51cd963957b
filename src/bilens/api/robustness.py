"""What is proven about a one-layer classifier, and what universal perturbations do to it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bilens.api.audit import labelled
from bilens.api.layer_reading import LayerOutputs, output_index
from bilens.api.provenance import given_model, origin_of
from bilens.api.quadratic_fit import offering_a_fit
from bilens.base import Progress, silent
from bilens.base.errors import UsageError
from bilens.data.images import ImageDataset
from bilens.findings.attack import attack_classifier
from bilens.findings.attack_objective import EPSILONS, AttackRequest
from bilens.findings.certificate import SAMPLES, certify_classifier
from bilens.findings.subject import LabelledImages
from bilens.io.load import LoadedModel
from bilens.report.reports import AttackReport, CertificateReport


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


def attack_model(
    model: LoadedModel | nn.Module,
    data: ImageDataset,
    *,
    target: int | str | None = None,
    source: int | str | None = None,
    pairs: bool = False,
    epsilons: Sequence[float] | None = None,
    random_perturbations: int = 3,
    restarts: int = 3,
    seed: int = 0,
    command: str | None = None,
    progress: Progress = silent,
) -> AttackReport:
    """Return what universal perturbations of every method do to a one-layer bilinear classifier.

    A perturbation δ is added to every image. The optimal one provably lowers the mean margin of the
    source classes over the target most, of all δ with ‖δ‖₂ ≤ ε; beside it stand those of the paper,
    baselines and gradient descent at the same length. Masks are made from weights and training
    images, and judged on test images.

    Cost: two eigendecompositions for each objective, and one product of all test images with
        every perturbation and length, O(images · perturbations · epsilons · out · in).

    Args:
        model: what `bl.load` returned, or a `BilinearClassifier`; it is not changed.
        data: training and test images.
        target: the class that should win, by index or name; None takes each class in turn.
        source: the class that should lose; None takes all others, by their share of the images.
        pairs: a perturbation of its own for each source class, where no source is named.
        epsilons: lengths ‖δ‖₂ in units of a pixel's range; None for 0, 0.5, … 4.2, 6,
            8.4. 4.2 is the paper's standard deviation
            of 0.15 at 784 pixels.
        random_perturbations: random ones for each target.
        restarts: descents of the projected gradient for each length.
        seed: of the random perturbations and of the descents.
        command: how to reproduce this, for the report; None takes the process's command line.
        progress: called with (stage, done, total).

    Returns:
        A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`.

    Raises:
        UsageError: If the model is not a classifier of bilens, a class does not exist or has no
            images, source is target, or a length is negative or not finite.
        NotQuadraticError: If it is gated or has more than one layer: nothing is proven then.
        ShapeError: If the data do not fit the model.
        NonFiniteError: If a weight or a pixel is NaN or infinite.
        NumericalError: If a spectrum did not pass its checks.
        MemoryLimitError: If the work would not fit.

    Source: arXiv:2410.08417, §4.4 and App. M, for the published perturbations.
    """
    module, loaded = given_model(model, "an attack", "bl.attack_model({}, data)")
    if not isinstance(data, ImageDataset):
        raise UsageError(
            f"data is a {type(data).__name__}; expected an ImageDataset: δ is made from its "
            "training images and judged on its test images."
        )
    request = AttackRequest(
        class_index(loaded, target),
        class_index(loaded, source),
        pairs,
        EPSILONS if epsilons is None else tuple(epsilons),
        random_perturbations,
        restarts,
        seed,
    )
    with offering_a_fit(model):
        findings = attack_classifier(
            module,
            LabelledImages(data.train_images, data.train_labels),
            LabelledImages(data.test_images, data.test_labels),
            request,
            input_shape=loaded.input_shape if loaded is not None else data.image_shape,
            output_names=loaded.output_names if loaded is not None else None,
            progress=progress,
            origin=origin_of(loaded, data, command, seed),
        )
    return AttackReport(findings)


def class_index(loaded: LoadedModel | None, value: int | str | None) -> int | None:
    if not isinstance(value, str):
        return value
    if loaded is None:
        raise UsageError(
            f"{value!r} is a name, and a model in memory has none: pass the index of the class."
        )
    return output_index(value, LayerOutputs.of(loaded, list(loaded.layers)[-1]))
