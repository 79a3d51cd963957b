"""The output weights of a map refitted by least squares on data, and judged on data held out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.approximation.scores import RSquared, r_squared
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap

HELD_OUT = 0.2  # of the rows
ROWS_FOR_EACH = 2  # rows of training for each unknown of an output, at least
CUT = 1e-10  # of the largest eigenvalue: directions that the data do not show are left alone
BLOCK = 1024  # rows at a time


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


def refit(
    f: QuadraticMap, x: Tensor, y: Tensor, generator: torch.Generator
) -> LeastSquaresFit | None:
    """Return the map refitted to y on four fifths of the rows; None where they are too few.

    Math: least squares for y − f(x) over the products (left·x)(right·x), the inputs and a
        constant, in units of their deviation; where the data leave a direction open, f is kept.
    Cost: O(rows · p² + p³) time and O(p²) memory, p = hidden + in.

    Args:
        f: the map to start from, float64.
        x: (rows, in) float64.
        y: (rows, out) float64.
        generator: for the choice of rows held out.
    """
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
