"""Readings of a classifier's weights in training, and the sign that it has learnt enough."""

import math

from torch import Tensor

from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.base.errors import UsageError
from bilens.data.images import ImageDataset
from bilens.findings.leads import gradients, usual_length
from bilens.findings.overfitting import (
    COARSE,
    SMALLEST_IMAGE,
    gaussian_blob,
    ratio,
    steepness,
    weight_readings,
)
from bilens.findings.subject import gauge_free, in_float64
from bilens.nn import BilinearClassifier
from bilens.train.tasks.image import ImageRecipe, Watch, new_classifier

FINER = (0.24, 0.5)  # of the highest frequency: strokes, where `COARSE` is whole figures
ROUGHNESS, STEEPNESS, ENOUGH = 3.2, 1.2, -2.2  # fixed on 58 runs that judge nothing
NOTHING = 1e-12  # stands for zero, before a logarithm


def read_weights(model: BilinearClassifier, shape: tuple[int, int]) -> dict[str, float]:
    """Return the readings of overfitting, the roughness of the slopes, and what is left to learn.

    The slopes are the gradients of the class-centred logits at a Gaussian blob, in closed form.
    Memorised images make them rough: their power in strokes grows beside that in whole figures.
    A steep model has learnt its images, a rough one more than what they share:

    left = ENOUGH - ROUGHNESS · ln(roughness) - STEEPNESS · ln(steepness)
    """
    exact = in_float64(model).cpu().requires_grad_(False)
    f = gauge_free(exact.quadratic_map())
    slopes = gradients(f, usual_length(f.sizes.d_in) * gaussian_blob(shape)[None])[0]
    found = {"steepness": steepness(f, shape), **weight_readings(exact.embed.weight, shape)}
    found["roughness"] = ratio(slopes, shape, FINER, COARSE)
    rough, steep = (math.log(max(found[x], NOTHING)) for x in ("roughness", "steepness"))
    return found | {"left": ENOUGH - ROUGHNESS * rough - STEEPNESS * steep}


def leading_eigenvectors(model: BilinearClassifier) -> Tensor:
    """Return the eigenvectors of the largest and the smallest eigenvalue, (classes, 2, in)."""
    exact = in_float64(model).cpu().requires_grad_(False)
    found = eigendecompose_all(gauge_free(exact.quadratic_map()), k=2, which="both")
    order = found.eigenvalues.argsort(dim=1, descending=True)[..., None]
    return found.eigenvectors.take_along_dim(order, dim=1)


def watch_of(data: ImageDataset, recipe: ImageRecipe) -> Watch:
    """Return a function that reads the weights in training, as ratios to the initial ones.

    Growth, fine parts and the like are told as multiples of what the initial weights have, which
    are known exactly; steepness (logits a unit), roughness and `left` are told as they are.

    Raises:
        UsageError: If the model has several layers or a gate, or its images are too small.
    """
    shape = data.image_shape
    if recipe.n_layers > 1 or recipe.gate is not None:
        has = f"{recipe.n_layers} layers" if recipe.n_layers > 1 else f"the gate {recipe.gate!r}"
        raise UsageError(
            "weights are watched through the exact quadratic form of one bilinear layer; this "
            f"model has {has}: train it without --watch, or as one layer without a gate."
        )
    if min(shape) < SMALLEST_IMAGE:
        raise UsageError(
            f"weights are watched on images of at least {SMALLEST_IMAGE} rows and columns; these "
            f"have {shape[0]} × {shape[1]}."
        )
    start = read_weights(new_classifier(recipe, data), shape)
    ratios = ("growth", "fine")

    def watch(model: BilinearClassifier) -> dict[str, float]:
        found = read_weights(model, shape)
        return found | {name: found[name] / start[name] for name in ratios}

    return watch
