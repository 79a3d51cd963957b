"""The quadratic map of a table: standardise, expand in products of columns, solve, fold back.

Where there are fewer rows than columns and products, these are replaced by as many features as
rows that span the same functions of them (the representer theorem): the solution is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.repeated_rows import count_different, equal_rows
from bilens.base import silent
from bilens.base.checks import check_finite
from bilens.base.errors import NumericalError, UsageError
from bilens.base.memory import check_memory
from bilens.data.column_numbers import Curve, follow_curves, rank_curve
from bilens.train.newton import Loss, NewtonStep, PenalisedProblem, Solution, minimise
from bilens.train.recipes import TableRecipe as TableRecipe

Report = Callable[[float, int, NewtonStep], object]  # penalty, iteration, where it began
CONSTANT = 1e-12  # of the largest value of a column: less spread than that is rounding
SMALLEST = 1e-100  # deviation of a column: the square of its inverse must not overflow
NEGLIGIBLE = 1e-14  # of the largest eigenvalue: rounding of the ones that are zero
UNKNOWNS = 6000  # of one output, at most, where nothing else is asked for
MANY_COLUMNS = 1000  # from here on, eigenvectors of (columns, columns) take seconds and more
COPIES = 10  # of a row, on average, from which a table is made of few different ones
RANK_TOLERANCE = 1e-13  # of the largest diagonal entry of the kernel
LESS = "choose a smaller n_components, or fit fewer rows"


@dataclass(frozen=True, eq=False)
class TableProblem:
    """The rows that a table is fitted to, their loss and their weights."""

    x: Tensor  # (rows, columns) float64; NaN where the mean stands in
    loss: Loss
    weights: Tensor  # (rows,), above 0: a row that does not count would still be standardised
    numbers: Sequence[bool]  # which columns may be read by their ranks

    def at(self, rows: Tensor) -> TableProblem:
        """Return some of the rows, (rows,) bool, as a problem of their own."""
        loss = replace(self.loss, target=self.loss.target[rows])
        return replace(self, x=self.x[rows], loss=loss, weights=self.weights[rows])


@dataclass(frozen=True, eq=False)
class PreparedTable:
    """The parts of a fit that do not depend on the penalty."""

    curves: tuple[Curve, ...]  # of each column, empty where it is read as it comes
    mean: Tensor  # (columns,), weighted, of what the curves give
    scale: Tensor  # (columns,), the weighted standard deviation; 1 where a column is constant
    expansion: Expansion
    loss: Loss
    weights: Tensor

    def solve(
        self,
        alpha: float,
        recipe: TableRecipe,
        start: Tensor | None = None,
        report: Report = silent,
    ) -> Solution:
        features = self.expansion.features
        problem = PenalisedProblem(features, self.weights, self.loss, alpha)
        if start is None:
            start = features.new_zeros(features.shape[1] + 1, self.loss.target.shape[1])
        return minimise(problem, start, recipe.max_iter, recipe.tol, partial(report, alpha))

    def map_of(self, solution: Solution) -> QuadraticMap:
        parts = self.expansion.unfold(solution.coefficients)
        return map_of(*parts, self.expansion.directions)

    def read_rows(self, x: Tensor) -> Tensor:
        """Return rows as the map takes them, in standard units."""
        z = (follow_curves(x, self.curves) - self.mean) / self.scale
        return z.nan_to_num(0.0)


def prepare_table(problem: TableProblem, recipe: TableRecipe) -> PreparedTable:
    x, weights = problem.x, problem.weights
    curves: tuple[Curve, ...] = ((),) * x.shape[1]
    if recipe.column_scale == "rank":
        parts = zip(x.T, problem.numbers, strict=True)
        curves = tuple(rank_curve(column, weights) if is_one else () for column, is_one in parts)
    read = follow_curves(x, curves)
    means = read.nanmean(dim=0).nan_to_num(0.0)
    read = torch.where(read.isnan(), means, read)
    mean, scale, varies = standardisation(read, weights)
    tiny = (scale < SMALLEST).nonzero().flatten().tolist()
    if tiny:
        raise UsageError(
            f"column {tiny[0]} (counted from 0) varies by {float(scale[tiny[0]]):g} only; expected "
            f"at least {SMALLEST:g}, as smaller numbers cannot be computed with: rescale it."
        )
    z = torch.where(varies, (read - mean) / scale, 0.0)
    columns = max(int(varies.sum()), 1)
    directions = chosen_directions(z, weights, recipe.n_components)
    quadratic = recipe.quadratic_scale or 0.0
    expansion = expand(z, weights, directions, (quadratic / columns) ** 0.5)
    return PreparedTable(curves, mean, scale, expansion, problem.loss, weights)


@dataclass(frozen=True, eq=False)
class Expansion:
    """Features of the rows, of weighted mean zero, in which every quadratic map is linear."""

    features: Tensor  # (rows, features) float64
    columns: Tensor  # z, (rows, columns): what the linear part reads
    directions: Tensor  # P, (components, columns), orthonormal rows; the products are of u = P z
    scale: float  # s of the products; 0 leaves them out
    mean_product: Tensor  # weighted mean of u uᵀ
    weights: Tensor
    # the rows that span the features where these come from the kernel, with their triangle; None
    # where the features are the columns and products themselves
    pivots: tuple[Tensor, Tensor] | None

    def unfold(self, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q (outputs, components, components), linear and constant of coefficients."""
        inner, intercept = coefficients[:-1], coefficients[-1]
        if self.pivots is None:
            width = self.columns.shape[1]
            linear = inner[:width].T.contiguous()
            components = len(self.directions)
            first, second = torch.triu_indices(components, components, device=inner.device)
            upper = inner.new_zeros(inner.shape[1], components, components)
            root = torch.where(first == second, 0.5, 0.5**0.5).double()
            upper[:, first, second] = inner[width:].T * root
            products = self.scale * (upper + upper.transpose(1, 2))
        else:
            rows, triangle = self.pivots
            duals = inner.new_zeros(len(self.columns), inner.shape[1])
            duals[rows] = torch.linalg.solve_triangular(triangle.T, inner, upper=True)
            duals -= self.weights[:, None] / self.weights.sum() * duals.sum(dim=0)
            reduced = self.columns @ self.directions.T
            linear = duals.T @ self.columns
            products = torch.stack([(reduced.T * dual) @ reduced for dual in duals.T])
            products = self.scale**2 * (products + products.transpose(1, 2)) / 2
        mean = (products * self.mean_product).sum(dim=(1, 2))
        return products, linear, intercept - mean


def expand(z: Tensor, weights: Tensor, directions: Tensor, scale: float) -> Expansion:
    """Return the features of standardised rows z, (rows, columns) of weighted mean zero."""
    # φ(z) = (z, s·u_i², s·√2·u_i u_j): ‖coefficients‖² is ‖linear‖² + ‖Q‖_F² / s²
    rows, width = z.shape
    components = len(directions) if scale > 0 else 0
    directions = directions[:components]
    count = width + components * (components + 1) // 2
    size = 8 * min(rows, count) * (2 * rows + 2 * min(rows, count))
    check_memory(size, f"a table of {rows} rows with {count} columns and pairs", LESS)
    u = z @ directions.T
    mean_product = (u.T * weights) @ u / weights.sum()
    if count <= rows:
        first, second = torch.triu_indices(components, components, device=z.device)
        root = torch.where(first == second, 1.0, math.sqrt(2)).double()
        features = torch.cat([z, scale * root * u[:, first] * u[:, second]], dim=1)
        features -= weights @ features / weights.sum()
        pivots = None
    else:
        features, pivots = _from_kernel(z @ z.T + scale**2 * (u @ u.T).square(), weights)
    if not bool(torch.isfinite(features).all()):
        raise NumericalError("products of the columns overflow: scale the table down.")
    return Expansion(features, z, directions, scale, mean_product, weights, pivots)


def chosen_directions(z: Tensor, weights: Tensor, n_components: int | None) -> Tensor:
    """Return the directions whose products are formed, (components, columns), orthonormal rows."""
    rows, width = z.shape
    if n_components is None:
        room = UNKNOWNS - width if rows > UNKNOWNS else rows * rows
        n_components = min(width, max(int((math.sqrt(8 * max(room, 0) + 1) - 1) / 2), 1))
    if n_components > width:
        raise UsageError(
            f"n_components is {n_components}, and the table has {width} columns: ask for at most "
            "as many."
        )
    if n_components == width:
        return torch.eye(width, dtype=z.dtype, device=z.device)
    if rows < width and width > MANY_COLUMNS:
        weighted = z * weights.sqrt()[:, None]
        leading = torch.linalg.svd(weighted, full_matrices=False).Vh[:n_components]
    else:
        _, vectors = torch.linalg.eigh((z.T * weights) @ z / weights.sum())
        leading = vectors.T.flip(0)[:n_components]
    largest = leading.gather(1, leading.abs().argmax(dim=1, keepdim=True))
    turned: Tensor = leading * largest.sign()
    return turned


def _from_kernel(kernel: Tensor, weights: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return features with this kernel, centred, from a Cholesky factor with pivots."""
    mean = kernel @ weights / weights.sum()
    kernel = kernel - mean - mean[:, None] + weights @ mean / weights.sum()
    tolerance = RANK_TOLERANCE * float(kernel.diagonal().max())
    factor, pivots, rank, _ = lapack.dpstrf(kernel.cpu().numpy(), tol=tolerance, lower=1)
    rows = torch.from_numpy(pivots.astype(np.int64) - 1).to(kernel.device)
    lower = torch.from_numpy(np.tril(factor)[:, :rank]).to(kernel.device)
    features = torch.empty_like(lower)
    features[rows] = lower
    return features, (rows[:rank], lower[:rank].contiguous())


def standardisation(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return weighted mean and standard deviation of the columns, and which of them vary."""
    total = weights.sum()
    mean = check_finite("the mean of the columns", weights @ x / total)
    centred = x - mean
    peak = centred.abs().amax(dim=0)
    varies = peak > CONSTANT * x.abs().amax(dim=0)
    peak = torch.where(varies, peak, 1.0)
    deviation = peak * (weights @ (centred / peak).square() / total).sqrt()
    return mean, torch.where(varies, deviation, 1.0), varies


def map_of(products: Tensor, linear: Tensor, constant: Tensor, directions: Tensor) -> QuadraticMap:
    """Return x ↦ u(x)ᵀ Q_c u(x) + linear x + constant with u = directions · x, exactly."""
    # Q_c = Σ_k a_ck T_k with ⟨T_k, T_l⟩ = 0 for k ≠ l, from the outputs' Gram matrix: outputs
    # that combine others need no units of their own. T_k = Σ_i λ_ki v_ki v_kiᵀ: a unit is
    # left = right = v_ki, with down = a_ck λ_ki.
    flat = products.flatten(1)
    size = float(flat.abs().max()) if flat.numel() else 0.0
    if size == 0:
        zero = linear.new_zeros(1, linear.shape[1])
        tensor = BilinearTensor(linear.new_zeros(len(linear), 1), zero, zero.clone())
        return QuadraticMap(tensor, linear, constant)
    shares, mixing = torch.linalg.eigh((flat / size) @ (flat / size).T)
    mixing = mixing[:, shares > NEGLIGIBLE * shares.max()]
    values, vectors = torch.linalg.eigh(torch.einsum("ck,cij->kij", mixing, products))
    kept = values.abs() > NEGLIGIBLE * values.abs().max()
    order = values[kept].abs().argsort(descending=True)
    rows = vectors.transpose(1, 2)[kept][order]
    owner = torch.nonzero(kept)[order, 0]
    down = mixing[:, owner] * values[kept][order]
    left = rows @ directions
    return QuadraticMap(BilinearTensor(down, left, left.clone()), linear, constant)


def scaled_target(y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (y − mean) / deviation, mean (1,) and deviation (1,); 1 where y is constant."""
    mean, deviation, _ = standardisation(y[:, None], weights)
    return (y - mean) / deviation, mean, deviation


def held_out_rows(x: Tensor, labels: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return which rows are held out, (rows,) bool: a share of each class, never all of it.

    Rows that are repeated are all held out, or none, unless most of a table is made of few rows:
    what occurs `COPIES` times on average are few values, and no copies.
    """
    order = torch.randperm(len(labels), generator=generator)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    counts = torch.bincount(labels)
    if int(counts.max()) < 2:
        raise UsageError(
            f"{len(labels)} row(s) (n_samples={len(labels)}) cannot be split: a class with at "
            "least 2 rows was expected."
        )
    wanted = torch.minimum((counts * fraction).round().long(), (counts - 1).clamp(min=0))
    if int(wanted.sum()) == 0:
        wanted[counts.argmax()] = 1
    for label, count in enumerate(wanted.tolist()):
        held_out[order[labels[order] == label][:count]] = True
    equal = equal_rows(torch.cat([x, labels[:, None].to(x)], dim=1))
    if count_different(equal) * COPIES <= len(x):
        return held_out
    together = held_out[equal]
    left = torch.bincount(labels[~together], minlength=len(counts))
    kept = bool(together.any()) and bool((left[counts > 0] > 0).all())
    return together if kept else held_out
