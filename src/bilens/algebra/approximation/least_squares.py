"""Output weights refitted by least squares on data, and R² with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.notebook import html_summary

ROUNDING = 1e-24  # of the mean square: what is left of the variance of a constant
HELD_OUT = 0.2  # of the rows
ROWS_FOR_EACH = 2  # rows of training for each unknown of an output, at least
CUT = 1e-10  # of the largest eigenvalue: directions that the data do not show are left alone
BLOCK = 1024  # rows at a time


@dataclass(frozen=True, eq=False)
class RSquared:
    """R² = 1 − E‖y − f(x)‖² / E‖y − E y‖² over rows of inputs.

    Attributes:
        overall: over all outputs, weighted by their variance.
        standard_error: of `overall`.
        outputs: (out,) float64, of each output; 1 for a constant one that is met.
        output_errors: (out,) float64, their standard errors.
    """

    overall: float
    standard_error: float
    outputs: Tensor
    output_errors: Tensor

    _repr_html_ = html_summary()


@dataclass(frozen=True, eq=False)
class FitScores:
    """R² by degree; that of the best constant is 0.

    Attributes:
        linear: of the affine part of the map.
        quadratic: of the whole map.
        rows: inputs that were looked at.
    """

    linear: RSquared
    quadratic: RSquared
    rows: int

    _repr_html_ = html_summary()


def r_squared(y: Tensor, predicted: Tensor) -> RSquared:
    """Return how well predictions explain values, both (rows, out) float64."""
    # Math: R² = 1 − A / B with mean squares A, B of residuals and deviations. The standard error is
    # that of a ratio, sd(a − (A/B) b) / (B √rows) (delta method).
    residuals = (y - predicted).square()
    deviations = (y - y.mean(dim=0)).square()
    sizes = y.square().mean(dim=0)
    outputs, errors = ratio(residuals, deviations, sizes)
    overall, error = ratio(
        residuals.sum(dim=1, keepdim=True), deviations.sum(dim=1, keepdim=True), sizes.sum(0, True)
    )
    return RSquared(float(overall), float(error), outputs, errors)


def ratio(residuals: Tensor, deviations: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 − A/B and its standard error for each column."""
    rows = len(residuals)
    lost, total = residuals.mean(dim=0), deviations.mean(dim=0)
    still = total <= ROUNDING * sizes
    share = lost / torch.where(still, 1.0, total)
    spread = (residuals - share * deviations).square().mean(dim=0).sqrt()
    error = spread / torch.where(still, 1.0, total) / math.sqrt(rows)
    met = torch.where(lost <= ROUNDING * sizes, 1.0, -torch.inf)
    return torch.where(still, met, 1 - share), torch.where(still, 0.0, error)


@dataclass(frozen=True, eq=False)
class LeastSquaresFit:
    """A map with the neurons of the closed form and output weights fitted to data.

    Attributes:
        quadratic_map: down, linear and constant minimise the squared error on the training rows.
        held_out: R² of it on rows that it was not fitted to.
        closed_form_held_out: R² of the closed form on the same rows.
        rows: rows it was fitted to, and rows held out.
    """

    quadratic_map: QuadraticMap
    held_out: RSquared
    closed_form_held_out: RSquared
    rows: tuple[int, int]

    _repr_html_ = html_summary()


def refit(
    f: QuadraticMap, x: Tensor, y: Tensor, generator: torch.Generator
) -> LeastSquaresFit | None:
    """Return the map refitted to y on four fifths of the rows; None where they are too few."""
    # Math: least squares for y − f(x) over the products (left·x)(right·x), the inputs and a
    # constant, in units of their deviation; where the data leave a direction open, f is kept.
    order = torch.randperm(len(x), generator=generator)
    held = int(HELD_OUT * len(x))
    test, train = order[:held], order[held:]
    _, d_hidden, d_in = f.sizes
    if held < 2 or len(train) < ROWS_FOR_EACH * (d_hidden + d_in + 1):
        return None
    improved = fitted(f, x[train], y[train])
    return LeastSquaresFit(
        improved,
        r_squared(y[test], improved(x[test])),
        r_squared(y[test], f(x[test])),
        (len(train), held),
    )


def fitted(f: QuadraticMap, x: Tensor, y: Tensor) -> QuadraticMap:
    """Return f with down, linear and constant changed so that it fits best."""
    blocks, d_hidden = range(0, len(x), BLOCK), f.sizes.d_hidden
    total = x.new_zeros(d_hidden + f.sizes.d_in)
    squares = torch.zeros_like(total)
    for start in blocks:
        part = features(f, x[start : start + BLOCK])
        total, squares = total + part.sum(dim=0), squares + part.square().sum(dim=0)
    centre = total / len(x)
    scale = (squares / len(x) - centre.square()).clamp(min=0).sqrt()
    scale = torch.where(scale > 1e-7 * centre.abs(), scale, torch.inf)  # constant features
    miss = y - f(x)
    offset = miss.mean(dim=0)
    gram = x.new_zeros(len(centre), len(centre))
    right = x.new_zeros(len(centre), y.shape[1])
    for start in blocks:
        part = (features(f, x[start : start + BLOCK]) - centre) / scale
        gram += part.T @ part
        right += part.T @ (miss[start : start + BLOCK] - offset)
    values, columns = torch.linalg.eigh(gram)
    inverse = torch.where(values > CUT * values[-1], 1 / values, 0.0)
    change = (columns @ (inverse[:, None] * (columns.T @ right))) / scale[:, None]
    tensor = BilinearTensor(f.tensor.down + change[:d_hidden].T, f.tensor.left, f.tensor.right)
    return replace(f, tensor=tensor).plus_affine(change[d_hidden:].T, offset - change.T @ centre)


def features(f: QuadraticMap, x: Tensor) -> Tensor:
    """Return the products of the neurons and the inputs, (rows, hidden + in)."""
    return torch.cat([(x @ f.tensor.left.T) * (x @ f.tensor.right.T), x], dim=1)
