"""Is the reading exact, is the model right, and with how few eigenvectors."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor

from bilens.algebra.directions import output_form
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_finite
from bilens.base.errors import NonFiniteError
from bilens.nn import BilinearClassifier
from bilens.records.audit import TruncationPoint
from bilens.records.common import Exactness, Share

NUM_INPUTS = 1000
Precision = Literal["float32", "float64"]
TOLERANCES: dict[Precision, float] = {"float32": 1e-5, "float64": 1e-12}


def check_exactness(module: BilinearClassifier, seed: int) -> tuple[Exactness, ...]:
    """Return the largest |forward − (xᵀQx + b·x + c)|, with Q dense, in float32 and float64."""
    return tuple(_compare(module, precision, seed) for precision in TOLERANCES)


@torch.no_grad()
def _compare(module: BilinearClassifier, precision: Precision, seed: int) -> Exactness:
    dtype = torch.float32 if precision == "float32" else torch.float64
    evaluated = copy.deepcopy(module).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(
        NUM_INPUTS, evaluated.embed.in_features, generator=generator, dtype=torch.float64
    ).to(dtype)
    try:
        forward = check_finite("the forward pass", evaluated(x))
        reading = check_finite("the reading", read_densely(evaluated.quadratic_map(), x))
    except NonFiniteError:
        raise NonFiniteError(
            f"the weights of the model, or their products, exceed the range of {precision} "
            f"(±{torch.finfo(dtype).max:.1e}), in which an audit compares the model with its "
            "reading: scale the weights down; a factor on the head's is a factor on every logit."
        ) from None
    return compared(precision, forward, reading)


def compared(precision: Precision, forward: Tensor, reading: Tensor) -> Exactness:
    """Return how far two results of the same inputs are apart."""
    error, largest = float((forward - reading).abs().max()), float(forward.abs().max())
    relative, tolerance = error / largest if largest > 0 else error, TOLERANCES[precision]
    return Exactness(precision, error, relative, tolerance, len(forward), relative <= tolerance)


def read_densely(f: QuadraticMap, x: Tensor) -> Tensor:
    """Return f(x) through the dense matrix of each output, (batch, out)."""
    outputs = []
    for output in range(f.sizes.d_out):
        form = output_form(f, output)
        outputs.append(((x @ form.dense()) * x).sum(dim=1) + x @ form.linear + form.constant)
    return torch.stack(outputs, dim=1)


KEPT = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300)
LEVEL = 0.95
ACCURACY_DROP = 0.01  # what "as good as the whole model" may lose
IMAGES_AT_ONCE = 500


def share_right(predicted: Tensor, labels: Tensor) -> Share:
    """Return the share of right answers and its exact 95 % interval (Clopper–Pearson)."""
    from scipy.stats import binomtest  # slow to import, needed only where data are given

    right, total = int((predicted == labels).sum()), len(labels)
    interval = binomtest(right, total).proportion_ci(LEVEL, method="exact")
    return Share(right, total, right / total, float(interval.low), float(interval.high))


def truncation_curve(
    eigs: EigenDecomposition, images: Tensor, labels: Tensor, full: Tensor
) -> tuple[tuple[TruncationPoint, ...], int]:
    """Return accuracy and agreement when each class keeps its k leading eigenvectors."""
    width = eigs.eigenvalues.shape[1]
    right, agreeing = torch.zeros(width + 1), torch.zeros(width + 1)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        rows = slice(start, start + IMAGES_AT_ONCE)
        predicted = predictions(eigs, images[rows])  # (width + 1, images)
        right += (predicted == labels[rows]).sum(dim=1)
        agreeing += (predicted == full[rows]).sum(dim=1)
    accuracy, agreement = right.double() / len(images), agreeing.double() / len(images)
    worse = torch.nonzero(accuracy < accuracy[-1] - ACCURACY_DROP - 1e-12).flatten()
    enough = int(worse[-1]) + 1 if len(worse) > 0 else 0
    kept = sorted({k for k in KEPT if k < width} | {enough, width})
    points = (TruncationPoint(k, float(accuracy[k]), float(agreement[k])) for k in kept)
    return tuple(points), enough


def predictions(eigs: EigenDecomposition, images: Tensor) -> Tensor:
    """Return the predicted class for every number of eigenvectors kept, (in + 1, batch)."""
    parts = eigs.contributions(images)  # (classes, batch, in)
    none = (parts.linear + parts.constant[:, None])[..., None]
    scores = torch.cat([none, none + parts.pairs.cumsum(dim=2)], dim=2)
    return scores.argmax(dim=0).T
