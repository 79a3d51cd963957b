"""What is proven about one map: from its weights, and where given, for test inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.guarantees.input_use import input_use
from bilens.findings.guarantees.radii import euclidean_radii, largest_entry_radii
from bilens.findings.guarantees.stability import rounding_stability
from bilens.findings.guarantees.truncation import Ball, truncation_guarantees
from bilens.findings.subject import LabelledImages, Progress
from bilens.nn import BilinearClassifier
from bilens.records.guarantees import Box, Guarantees

SAMPLES = 1000  # test inputs that are read
LINF_SAMPLES = 100  # of them, for the bounds in the ℓ∞ norm
UNIT_BOX = Box(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class ClassForms:
    """A classifier as one map in float64, against the mean of its classes, with all spectra."""

    module: BilinearClassifier
    f: QuadraticMap
    centred: QuadraticMap
    eigs: EigenDecomposition


@dataclass(frozen=True)
class Extent:
    """How much of it is proven.

    Attributes:
        samples: the first so many test inputs are read.
        truncate: k; None looks for one that provably keeps 99 % of the predictions.
        radius: of the ball over which errors of truncation are bounded; None takes the length of
            the longest input, without data the farthest corner of the box.
        linf_seed: of the attack that bounds ℓ∞ distances from above; None leaves them out.
        rounding: whether to say what fewer bits can do, at the cost of three spectra a class.
    """

    samples: int = SAMPLES
    truncate: int | None = None
    radius: float | None = None
    linf_seed: int | None = None
    rounding: bool = False


def classifier_guarantees(
    forms: ClassForms, data: LabelledImages | None, extent: Extent, progress: Progress
) -> Guarantees:
    """Return what is proven.

    Cost: O(classes² · in³) for the radii, where data are given; O(classes · in³) for the rest.
    """
    x = labels = l2 = linf = None
    if data is not None:
        x = data.images[: extent.samples].detach().double()
        labels = data.labels[: extent.samples].long()
    box = box_of(x)
    if x is not None and labels is not None:
        progress("radii", 0, 1)
        l2 = euclidean_radii(forms.f, x, labels, box)
        if extent.linf_seed is not None:
            progress("ℓ∞ bounds", 0, 1)
            generator = torch.Generator().manual_seed(extent.linf_seed)
            few = slice(0, LINF_SAMPLES)
            linf = largest_entry_radii(forms.f, x[few], labels[few], generator)
    progress("truncation", 0, 1)
    ball = ball_of(extent.radius, x, box, forms.f.sizes.d_in)
    truncation = truncation_guarantees(forms.centred, forms.eigs, ball, x, extent.truncate)
    progress("use of inputs", 0, 1)
    used = input_use(forms.f, forms.centred, box)
    if not extent.rounding:
        return Guarantees(box, l2, linf, truncation, used, ())
    progress("rounding", 0, 1)
    return Guarantees(box, l2, linf, truncation, used, rounding_stability(forms.module))


def box_of(x: Tensor | None) -> Box:
    """Return [0, 1], or the smallest interval around it that holds the data."""
    if x is None:
        return UNIT_BOX
    return Box(min(UNIT_BOX.low, float(x.min())), max(UNIT_BOX.high, float(x.max())))


def ball_of(radius: float | None, x: Tensor | None, box: Box, width: int) -> Ball:
    """Return the ball over which errors of truncation are bounded."""
    if radius is not None:
        return Ball(float(radius), "asked")
    if x is not None and bool((longest := x.norm(dim=1).max()) > 0):
        return Ball(float(longest), "data")
    corner = max(abs(box.low), abs(box.high)) * math.sqrt(width)
    return Ball(corner * (1 + 1e-15), "box")  # the root is rounded; the corner is inside
