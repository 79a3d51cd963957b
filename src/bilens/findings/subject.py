"""What is judged: a classifier in float64, what it is, and inputs with their right classes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError
from bilens.nn import BilinearClassifier
from bilens.records.common import ModelSummary

DRAWN_DIGITS = 5  # decimals of vectors that are only drawn; they have unit length
SEED_LIMIT = 2**32  # torch's generator uses no more bits of a seed


def drawn(tensor: Tensor) -> tuple[float, ...]:
    """Return a vector as numbers that are precise enough to draw it."""
    return tuple(round(value, DRAWN_DIGITS) for value in tensor.tolist())


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Inputs with their right classes: (batch, in) and (batch,)."""

    images: Tensor
    labels: Tensor

    def check(self, d_input: int, d_output: int) -> None:
        """Refuse data that do not fit a model."""
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


def in_float64(module: BilinearClassifier) -> BilinearClassifier:
    """Return a copy in float64: the products of the weights are rounded there, not in float32."""
    return copy.deepcopy(module).double()


def summarise(
    module: BilinearClassifier,
    input_shape: tuple[int, ...] | None,
    output_names: tuple[str, ...] | None,
    input_names: tuple[str, ...] | None = None,
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
        input_shape=image_shape(d_input, input_shape if input_names is None else (1, d_input)),
        input_shape_assumed=input_shape is None and input_names is None,
        output_names=output_names or tuple(str(index) for index in range(d_output)),
        input_names=input_names,
    )


def image_shape(d_input: int, input_shape: tuple[int, ...] | None) -> tuple[int, int]:
    """Return rows and columns for drawing: the shape given, a square, or a single row."""
    if input_shape is not None and len(input_shape) == 2:
        return input_shape[0], input_shape[1]
    side = math.isqrt(d_input)
    return (side, side) if input_shape is None and side * side == d_input else (1, d_input)
