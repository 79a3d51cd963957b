"""Whether the weights look like those of a model that learnt its training inputs by heart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.concentration import localisation, roughness
from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.gram.inner_products import input_gram
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.class_templates import gaussian_blob, gradients, moved, usual_length
from bilens.findings.null_intervals import null_interval
from bilens.records.audit import Overfitting, OverfittingPart

LEADING = 10  # eigenvectors of each class, by |λ|
FEWEST = 6  # rows and columns of an image for which there is a score
STILL = 0.01  # of the range of all inputs: an input whose deviation is less is nearly constant


@dataclass(frozen=True)
class Formula:
    """The recommended score: a gap of accuracy, from four readings."""

    intercept: float
    steepness: float
    edge: float
    roughness: float
    shift: float

    def gap(self, found: Mapping[str, float]) -> float:
        """Return the gap that models with such readings had."""
        exponent = (
            self.intercept
            + self.steepness * math.log(max(found["steepness"], 1e-300))
            + self.edge * math.log(found["edge_mass"] + FLOOR)
            + self.roughness * found["roughness"]
            + self.shift * found["shift_tolerance"]
        )
        return max(math.exp(min(exponent, 1.0)) - OFFSET, 0.0)


FLOOR, OFFSET = 1e-5, 0.02
THRESHOLD = 0.05  # a gap of five percentage points
FORMULA = Formula(intercept=-6.2, steepness=0.365, edge=-0.578, roughness=4.9, shift=-2.62)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is read: the class-centred map of a classifier, in the input basis."""

    f: QuadraticMap
    eigs: EigenDecomposition
    within_null: Tensor
    templates: Tensor
    shape: tuple[int, int]


def read_overfitting(
    subject: Subject, null: Sequence[dict[str, float]], images: Tensor | None = None
) -> Overfitting:
    """Return the readings, each beside its null interval, and the score made of them."""
    first = subject.eigs.eigenvectors[:, :LEADING]
    observed = readings(subject, subject.f, first, images)
    parts = [
        OverfittingPart(
            name, value, null_interval(torch.tensor([sample[name] for sample in null]).double())
        )
        for name, value in observed.items()
    ]
    parts.append(OverfittingPart("tail_mass", tail_mass(subject.eigs, subject.within_null), None))
    if min(subject.shape) < FEWEST:
        reason = "not_an_image" if min(subject.shape) == 1 else "too_small"
        return Overfitting(None, None, tuple(parts), reason)
    return Overfitting(FORMULA.gap(observed), THRESHOLD, tuple(parts), "")


def null_readings(
    subject: Subject, rotated: QuadraticMap, output: int, images: Tensor | None
) -> dict[str, float]:
    """Return what is read of the map with its right branch rotated."""
    eigs = eigendecompose_all(outputs_of(rotated, [output]), k=min(LEADING, rotated.sizes.d_in))
    return readings(subject, rotated, eigs.eigenvectors, images)


def readings(
    subject: Subject, f: QuadraticMap, leading: Tensor, images: Tensor | None
) -> dict[str, float]:
    """Return what is read of the model's map, or of one with a rotated branch."""
    found = {"localisation": float(localisation(leading).mean())}
    energy = input_gram(f.tensor.down, f.tensor.left, f.tensor.right).diagonal()
    energy = energy / torch.where(energy.sum() > 0, energy.sum(), 1.0)
    if images is not None:
        found["constant_mass"] = float(energy[nearly_constant(images)].sum())
    if min(subject.shape) > 1:
        found["edge_mass"] = float(energy[at_edge(subject.shape)].sum())
        found["roughness"] = float(roughness(leading, subject.shape).mean())
        found["steepness"] = steepness(f, subject.shape)
        found["shift_tolerance"] = shift_tolerance(f, subject.templates, subject.shape)
    return found


def steepness(f: QuadraticMap, shape: tuple[int, int]) -> float:
    """Return how fast one class overtakes another at a Gaussian blob, in logits per unit."""
    slopes = gradients(f, usual_length(f.sizes.d_in) * gaussian_blob(shape)[None])[0]
    between = torch.pdist(slopes)
    return float(between.median()) if len(between) else 0.0


def shift_tolerance(f: QuadraticMap, templates: Tensor, shape: tuple[int, int]) -> float:
    """Return the share of shifted templates that are still recognised."""
    logits = f(usual_length(f.sizes.d_in) * moved(templates, shape))  # (move, class, class)
    own = torch.eye(len(templates), dtype=torch.bool)
    others = logits.masked_fill(own, -math.inf).amax(dim=2)
    return float((logits[:, own] > others).double().mean())


def at_edge(shape: tuple[int, int]) -> Tensor:
    """Return which pixels are at the edge of an image, (in,): there inputs rarely vary."""
    inner = torch.zeros(shape, dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    return ~inner.flatten()


def nearly_constant(images: Tensor) -> Tensor:
    """Return which inputs hardly vary over the data, (in,)."""
    low, high = images.aminmax()
    return images.double().std(dim=0, correction=0) <= STILL * float(high - low)


def tail_mass(eigs: EigenDecomposition, within_null: Tensor) -> float:
    """Return the share of Σλ² that eigenvalues inside the null interval hold."""
    squares = eigs.eigenvalues.square()
    total = float(squares.sum())
    return float(squares[within_null].sum()) / total if total > 0 else 0.0
