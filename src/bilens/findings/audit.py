"""The audit of one classifier: every finding, from weights, and from data where they are given."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.rotation_null import rotation_null
from bilens.checks import check_count, check_float_tensor
from bilens.errors import ShapeError, UsageError
from bilens.findings.accuracy import share_right, truncation_curve
from bilens.findings.exactness import check_exactness
from bilens.findings.explanation import choose_examples, explain
from bilens.findings.records import AuditFindings, Explanation, ModelSummary, TruncationPoint
from bilens.findings.spectra import MINIMUM_SAMPLES, read_classes
from bilens.findings.verdict import judge
from bilens.nn import BilinearClassifier

SEED_LIMIT = 2**32  # torch's generator uses no more bits of a seed
Progress = Callable[[str, int, int], None]


def silent(_stage: str, _done: int, _total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Inputs with their right classes: (batch, in) and (batch,)."""

    images: Tensor
    labels: Tensor

    def check(self, d_input: int, d_output: int) -> None:
        """Refuse data that do not fit a model.

        Raises:
            ShapeError: If images or labels do not fit each other or the model.
            NonFiniteError: If a pixel is NaN or infinite.
        """
        check_float_tensor("images", self.images)
        if self.images.ndim != 2 or self.images.shape[1] != d_input:
            raise ShapeError(
                f"the images have shape {tuple(self.images.shape)}; the model reads "
                f"{d_input} inputs, so (batch, {d_input}) was expected."
            )
        labels = self.labels
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
            raise ShapeError(
                f"the labels have dtype {labels.dtype} and shape {tuple(labels.shape)}; one whole "
                "number for each image, (batch,), was expected: use labels.long()."
            )
        if len(labels) != len(self.images) or len(labels) == 0:
            raise ShapeError(
                f"there are {len(self.images)} images and {len(labels)} labels; one label "
                "for each image, and at least one, was expected."
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= d_output:
            raise ShapeError(
                f"the labels run from {low} to {high}; the model has {d_output} classes, counted "
                "from 0: check that these are its data."
            )


def audit_classifier(
    module: nn.Module,
    data: LabelledImages | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    output_names: tuple[str, ...] | None = None,
    null_samples: int = 99,
    seed: int = 0,
    progress: Progress = silent,
) -> AuditFindings:
    """Return what the weights of a one-layer bilinear classifier say; the model is not changed.

    Cost: classes · O(in³) for the spectra; null_samples · classes · O(min(in, 2·hidden)³) for
    the level of chance; O(classes · in²) memory.

    Args:
        module: a `BilinearClassifier` with one layer and no gate.
        data: test images; without them nothing is said about accuracy or predictions.
        input_shape: how an input is laid out; None assumes a square image where that fits.
        output_names: one name for each class; None counts them.
        null_samples: rotations for the level of chance.
        seed: of the rotations and of the random inputs.
        progress: called with (stage, done, total).

    Raises:
        UsageError: If the module is not a classifier of ours or has one class only, or
            null_samples or seed is out of range.
        NotQuadraticError: If it is gated or has more than one layer.
        ShapeError: If the data do not fit the model.
        NonFiniteError: If a weight is NaN or infinite, or the weights exceed float32's range.
        MemoryLimitError: If the dense matrices would not fit.
    """
    if not isinstance(module, BilinearClassifier):
        raise UsageError(
            f"an audit reads a BilinearClassifier, got a {type(module).__name__}: take other "
            "layers apart with bl.eigendecompose_all(layer.quadratic_map())."
        )
    null_samples = check_count("null_samples", null_samples, minimum=MINIMUM_SAMPLES)
    seed = check_count("seed", seed, minimum=0)
    if seed >= SEED_LIMIT:
        raise UsageError(f"seed must be below 2**32, got {seed}.")
    in_float64(module).quadratic_map()  # refuses a gated or deeper model before any work is done
    summary = summarise(module, input_shape, output_names)
    if summary.d_output < 2:
        raise UsageError(
            "an audit reads each class against the mean of all classes, and this model has one "
            "output: take it apart with bl.eigendecompose_all(model.quadratic_map())."
        )
    if data is not None:
        data.check(summary.d_input, summary.d_output)
    progress("exactness", 0, 1)
    exactness = check_exactness(module, seed)
    module = in_float64(module)
    f = module.quadratic_map().detach()
    progress("spectra", 0, 1)
    eigs = class_centred(module)
    generator = torch.Generator().manual_seed(seed)
    null = rotation_null(
        module.quadratic_map("embedding"),
        centred_directions(summary.d_output),
        generator,
        null_samples,
        embedding=module.embed.weight,
        progress=lambda done: progress("chance", done, null_samples),
    )
    classes = read_classes(module, eigs, null, summary.output_names)
    accuracy = None
    truncation: tuple[TruncationPoint, ...] = ()
    enough = 0
    explanations: tuple[Explanation, ...] = ()
    if data is not None:
        progress("data", 0, 1)
        images, labels = data.images.detach().double(), data.labels
        scores = f(images)
        accuracy = share_right(scores.argmax(dim=1), labels)
        truncation, enough = truncation_curve(eigs, images, labels, scores.argmax(dim=1))
        explanations = explain_examples(eigs, images, labels, scores)
    verdict = judge(exactness, classes, accuracy, truncation, enough)
    return AuditFindings(
        summary,
        exactness,
        accuracy,
        classes,
        truncation,
        explanations,
        verdict,
        null_samples,
        seed,
    )


def in_float64(module: BilinearClassifier) -> BilinearClassifier:
    """Return a copy in float64: the products of the weights are rounded there, not in float32."""
    return copy.deepcopy(module).double()


def class_centred(module: BilinearClassifier) -> EigenDecomposition:
    """Return the whole spectra of the class-centred forms of a classifier, in the input basis."""
    f = in_float64(module).quadratic_map()
    return eigendecompose_all(f, centred_directions(f.sizes.d_out), k=None)


def explain_examples(
    eigs: EigenDecomposition, images: Tensor, labels: Tensor, scores: Tensor
) -> tuple[Explanation, ...]:
    """Return the explanations of a typical, a narrow and a wrong prediction."""
    return tuple(
        explain(eigs, images[index], scores[index], int(labels[index]), index, kind)
        for kind, index in choose_examples(scores, labels).items()
    )


def summarise(
    module: BilinearClassifier,
    input_shape: tuple[int, ...] | None,
    output_names: tuple[str, ...] | None,
) -> ModelSummary:
    """Return what the model is: sizes, options, and how its inputs are laid out."""
    d_input, d_output = module.embed.in_features, module.head.out_features
    layer = module.layers[0]
    return ModelSummary(
        kind=type(module).__name__,
        d_input=d_input,
        d_hidden=module.embed.out_features,
        d_output=d_output,
        bias=bool(getattr(layer, "has_bias", False)),
        residual=module.residual,
        num_parameters=sum(parameter.numel() for parameter in module.parameters()),
        dtype=str(module.embed.weight.dtype).removeprefix("torch."),
        input_shape=image_shape(d_input, input_shape),
        input_shape_assumed=input_shape is None,
        output_names=output_names or tuple(str(index) for index in range(d_output)),
    )


def image_shape(d_input: int, input_shape: tuple[int, ...] | None) -> tuple[int, int]:
    """Return rows and columns for drawing: the shape given, a square, or a single row."""
    if input_shape is not None and len(input_shape) == 2:
        return input_shape[0], input_shape[1]
    side = math.isqrt(d_input)
    return (side, side) if input_shape is None and side * side == d_input else (1, d_input)
