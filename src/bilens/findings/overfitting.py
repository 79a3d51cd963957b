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
from bilens.findings.spectra import null_interval
from bilens.records.audit import Overfitting, OverfittingPart

TEMPLATE_PAIRS = 3  # eigenvectors of a class; more bring in what no input has
INK = 0.1  # mean square of an image's pixels that the length of a template stands for


def class_templates(eigs: EigenDecomposition) -> Tensor:
    """Return an image for each class that its own score answers to, (classes, in), unit length."""
    # relu(Σ_{i ≤ 3} λ_i v_i + b / 2ρ), over the largest λ_i > 0, Σ v_i ≥ 0
    largest = eigs.distinct_from_zero.clamp(min=0).topk(
        min(TEMPLATE_PAIRS, eigs.eigenvalues.shape[1])
    )
    chosen = largest.indices[..., None].expand(-1, -1, eigs.eigenvectors.shape[2])
    vectors = eigs.eigenvectors.gather(1, chosen)
    upright = torch.where(vectors.sum(dim=2, keepdim=True) < 0, -vectors, vectors)
    pattern = (largest.values[..., None] * upright).sum(dim=1)
    pattern = (pattern + eigs.linear / (2 * usual_length(pattern.shape[1]))).clamp(min=0)
    length = pattern.norm(dim=1, keepdim=True)
    return pattern / torch.where(length > 0, length, 1.0)


def gaussian_blob(shape: tuple[int, int]) -> Tensor:
    """Return a Gaussian blob in the middle of an image, (in,), of unit length."""
    down, across = (
        torch.exp(-8 * ((torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5).square())
        for side in shape
    )
    blob = torch.outer(down, across).flatten()
    unit: Tensor = blob / blob.norm()
    return unit


def moved(templates: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return each template a tenth of a side up, down, left and right, (4, classes, in)."""
    images = templates.reshape(-1, *shape)
    rows, columns = (max(1, round(side / 10)) for side in shape)
    turned = torch.zeros(4, *images.shape, dtype=images.dtype)
    turned[0, :, :-rows] = images[:, rows:]
    turned[1, :, rows:] = images[:, :-rows]
    turned[2, :, :, :-columns] = images[:, :, columns:]
    turned[3, :, :, columns:] = images[:, :, :-columns]
    flat = turned.flatten(2)
    length = flat.norm(dim=2, keepdim=True)
    return flat / torch.where(length > 0, length, 1.0)


def usual_length(d_input: int) -> float:
    """Return the length ρ of an image whose mean square is `INK`; a digit of MNIST has 9.2."""
    return float((INK * d_input) ** 0.5)


def gradients(f: QuadraticMap, x: Tensor) -> Tensor:
    """Return the gradient of every output at every point, (points, out, in)."""
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    slopes = (x @ right.T)[:, None] * down @ left + (x @ left.T)[:, None] * down @ right
    return slopes if f.linear is None else slopes + f.linear


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
    eigs: EigenDecomposition  # its whole spectra
    within_null: Tensor  # which eigenvalues are inside the null interval, (classes, k)
    templates: Tensor  # of `class_templates`, (classes, in)
    shape: tuple[int, int]  # rows and columns of an image; one row for inputs that are no images


def read_overfitting(
    subject: Subject, null: Sequence[dict[str, float]], images: Tensor | None = None
) -> Overfitting:
    """Return the readings, each beside its null interval, and the score made of them."""
    observed = readings(subject, subject.f, subject.eigs.eigenvectors[:, :LEADING], images)
    parts = []
    for name, value in observed.items():
        samples = torch.tensor([sample[name] for sample in null]).double()
        parts.append(OverfittingPart(name, value, null_interval(samples)))
    squares = subject.eigs.eigenvalues.square()
    total, tail = float(squares.sum()), float(squares[subject.within_null].sum())
    parts.append(OverfittingPart("tail_mass", tail / total if total > 0 else 0.0, None))
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
        inner = torch.zeros(subject.shape, dtype=torch.bool)
        inner[1:-1, 1:-1] = True  # at the edge inputs rarely vary
        found["edge_mass"] = float(energy[~inner.flatten()].sum())
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


def nearly_constant(images: Tensor) -> Tensor:
    """Return which inputs hardly vary over the data, (in,)."""
    low, high = images.aminmax()
    return images.double().std(dim=0, correction=0) <= STILL * float(high - low)
