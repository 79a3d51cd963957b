"""The quadratic map of a table: standardise, expand, solve, and fold everything back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base import silent
from bilens.base.checks import check_finite, check_float_tensor
from bilens.base.errors import UsageError
from bilens.train.expansion import Expansion, chosen_directions, expand
from bilens.train.newton import Loss, NewtonStep, PenalisedProblem, Solution, minimise
from bilens.train.recipe import Recipe, check_fields

Report = Callable[[float, int, NewtonStep], object]  # penalty, iteration, where it began
PATH_TOLERANCE = 1e-3  # of the gradient: the validation loss is right to about its square
PATH = tuple(10.0 ** (2 - step / 2) for step in range(9))  # penalties, as multiples of alpha
CONSTANT = 1e-12  # of the largest value of a column: less spread than that is rounding
SMALLEST = 1e-100  # deviation of a column: the square of its inverse must not overflow
NEGLIGIBLE = 1e-14  # of the largest eigenvalue: rounding of the ones that are zero


@dataclass(frozen=True)
class TableRecipe(Recipe):
    """The convex problem of a table, and how it is solved."""

    alpha: float = 3.0  # the penalty, above 0
    # how large the quadratic part of a typical row is expected to be, as a variance beside that of
    # the linear part; 0 leaves logistic or ridge regression
    quadratic_scale: float = 0.3
    # the products are of so many leading principal directions; None is all columns, as long as
    # these are at most `expansion.UNKNOWNS` unknowns an output
    n_components: int | None = None
    max_iter: int = 100  # of Newton's method
    tol: float = 1e-8  # of the gradient, in the metric of the curvature, for each unit of weight
    # a held-out share of the rows chooses the penalty, on the path from 100 alpha down to
    # alpha / 100, which is left where so many penalties in a row brought nothing
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 2
    seed: int = 0  # of the rows that are held out

    def __post_init__(self) -> None:
        check_fields(
            self,
            counts={"max_iter": 1, "n_iter_no_change": 1, "seed": 0, "n_components": 1},
            numbers=("alpha", "quadratic_scale", "tol", "validation_fraction"),
        )
        if self.alpha == 0:
            raise UsageError("alpha must be above 0: without a penalty there is no one solution.")
        if not 0 < self.validation_fraction < 1:
            raise UsageError(
                f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}."
            )


@dataclass(frozen=True)
class PathPoint:
    """One penalty of the path, judged on the rows that were held out."""

    alpha: float
    validation_loss: float
    n_iter: int


@dataclass(frozen=True, eq=False)
class TableFit:
    """What was fitted."""

    standard_map: QuadraticMap  # of standardised columns z = (x − mean) / scale, float64
    mean: Tensor  # (columns,), weighted
    scale: Tensor  # (columns,), the weighted standard deviation; 1 where a column is constant
    alpha: float  # the penalty, as given or as chosen on the path
    steps: tuple[NewtonStep, ...]  # of the fit to all rows
    converged: bool
    path: tuple[PathPoint, ...]  # the penalties tried, where some rows were held out

    @cached_property
    def quadratic_map(self) -> QuadraticMap:
        """The same function of the columns as they come: the standardisation is folded in."""
        f, inverse, shift = self.standard_map, 1 / self.scale, -self.mean / self.scale
        down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
        assert f.linear is not None, "a fit has a linear part"
        assert f.constant is not None, "and a constant"
        # no matrix of columns by columns: there may be 100,000 of them
        tensor = BilinearTensor(down, left * inverse, right * inverse)
        scaled = QuadraticMap(tensor, f.linear * inverse, f.constant + f.linear @ shift)
        return scaled.with_biases(left @ shift, right @ shift)

    def to(self, device: torch.device) -> TableFit:
        """Return the same fit on another device."""
        f = self.standard_map
        parts = (part.to(device) for part in (f.tensor.down, f.tensor.left, f.tensor.right))
        linear, constant = (None if x is None else x.to(device) for x in (f.linear, f.constant))
        moved = QuadraticMap(BilinearTensor(*parts), linear, constant)
        mean, scale = self.mean.to(device), self.scale.to(device)
        return replace(self, standard_map=moved, mean=mean, scale=scale)

    def outputs(self, x: Tensor) -> Tensor:
        """Return the outputs of rows in the units of the columns, (rows, outputs)."""
        return self.standard_map((x - self.mean) / self.scale)


def fit_table(
    x: Tensor,
    loss: Loss,
    weights: Tensor,
    recipe: TableRecipe,
    held_out: Tensor | None = None,
    report: Report = silent,
) -> TableFit:
    """Return the quadratic map that minimises a penalised loss; the solution is the only one."""
    check_float_tensor("x", x, num_axes=2)
    check_float_tensor("weights", weights, num_axes=1)
    positive = weights > 0
    if not bool(positive.any()):
        raise UsageError("every row has the weight 0: at least one must count.")
    path: tuple[PathPoint, ...] = ()
    alpha = recipe.alpha
    with torch.no_grad():
        if recipe.early_stopping:
            assert held_out is not None, "the caller splits"
            known, judged = positive & ~held_out, positive & held_out
            path = tuple(_path(x, loss, weights, recipe, known, judged, report))
            alpha = min(path, key=lambda point: point.validation_loss).alpha
        prepared = _prepare(x, loss, weights, recipe, positive)
        solution = prepared.solve(alpha, recipe, report=report)
        return TableFit(
            prepared.map_of(solution),
            prepared.mean,
            prepared.scale,
            alpha,
            solution.steps,
            solution.converged,
            path,
        )


def _path(
    x: Tensor,
    loss: Loss,
    weights: Tensor,
    recipe: TableRecipe,
    known: Tensor,
    judged: Tensor,
    report: Report,
) -> Iterator[PathPoint]:
    """Yield the penalties of the path until they no longer improve what was held out."""
    prepared = _prepare(x, loss, weights, recipe, known)
    z = (x[judged] - prepared.mean) / prepared.scale
    judge, total = replace(loss, target=loss.target[judged]), weights[judged].sum()
    best, since, start = float("inf"), 0, None
    rough = replace(recipe, tol=max(recipe.tol, PATH_TOLERANCE))
    for multiple in PATH:
        solution = prepared.solve(multiple * recipe.alpha, rough, start, report)
        start = solution.coefficients
        score = float(weights[judged] @ judge.values(prepared.map_of(solution)(z)) / total)
        yield PathPoint(multiple * recipe.alpha, score, len(solution.steps))
        best, since = (score, 0) if score < best else (best, since + 1)
        if since >= recipe.n_iter_no_change:
            return


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A table on its way: what does not depend on the penalty."""

    mean: Tensor
    scale: Tensor
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


def _prepare(
    x: Tensor, loss: Loss, weights: Tensor, recipe: TableRecipe, chosen: Tensor
) -> _Prepared:
    """Standardise and expand the chosen rows."""
    x, weights = x[chosen], weights[chosen]
    mean, scale, varies = standardisation(x, weights)
    tiny = (scale < SMALLEST).nonzero().flatten().tolist()
    if tiny:
        raise UsageError(
            f"column {tiny[0]} (counted from 0) varies by {float(scale[tiny[0]]):g} only; expected "
            f"at least {SMALLEST:g}, as smaller numbers cannot be computed with: rescale it."
        )
    z = torch.where(varies, (x - mean) / scale, 0.0)
    columns = max(int(varies.sum()), 1)
    directions = chosen_directions(z, weights, recipe.n_components)
    expansion = expand(z, weights, directions, (recipe.quadratic_scale / columns) ** 0.5)
    return _Prepared(mean, scale, expansion, replace(loss, target=loss.target[chosen]), weights)


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


def in_units(f: QuadraticMap, mean: Tensor, deviation: Tensor) -> QuadraticMap:
    """Return the map to the target in its own unit: the scaling is folded in."""
    return f.compose_output(torch.diag(deviation), mean)


def held_out_rows(labels: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return which rows are held out, (rows,) bool: a share of each class, and never all of it."""
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
    return held_out
