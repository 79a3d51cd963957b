"""The quadratic map of a table: standardise, expand, solve, and fold everything back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_float_tensor
from bilens.base.errors import UsageError
from bilens.train.table.expansion import Expansion, chosen_directions, expand
from bilens.train.table.factors import map_of
from bilens.train.table.losses import Loss
from bilens.train.table.newton import Problem, Solution, Step, minimise
from bilens.train.table.recipe import TableRecipe
from bilens.train.table.standardise import standardisation

Report = Callable[[float, int, Step], object]  # penalty, iteration, where it began
PATH_TOLERANCE = 1e-3  # of the gradient: the validation loss is right to about its square
PATH = tuple(10.0 ** (2 - step / 2) for step in range(9))  # penalties, as multiples of alpha


def silent(alpha: float, number: int, step: Step) -> None:
    """Say nothing of an iteration."""


@dataclass(frozen=True)
class PathPoint:
    """One penalty of the path, judged on the rows that were held out."""

    alpha: float
    validation_loss: float
    n_iter: int


@dataclass(frozen=True, eq=False)
class TableFit:
    """What was fitted.

    Attributes:
        standard_map: the map of standardised columns z = (x − mean) / scale, float64.
        mean: (columns,), weighted.
        scale: (columns,), the weighted standard deviation; 1 where a column is constant.
        alpha: the penalty, as given or as chosen on the path.
        steps: of Newton's method, in the fit to all rows.
        converged: whether it met the tolerance.
        path: the penalties tried, where some rows were held out.
    """

    standard_map: QuadraticMap
    mean: Tensor
    scale: Tensor
    alpha: float
    steps: tuple[Step, ...]
    converged: bool
    path: tuple[PathPoint, ...]

    @cached_property
    def quadratic_map(self) -> QuadraticMap:
        """The same function of the columns as they come: the standardisation is folded in."""
        return self.standard_map.compose_input(torch.diag(1 / self.scale), -self.mean / self.scale)

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
    """Return the quadratic map that minimises a penalised loss; the solution is the only one.

    Nothing is random. A row of weight 2 counts as two rows, one of weight 0 as none.

    Cost: see `expand` and `minimise`; with the path, the same for each penalty.

    Args:
        x: (rows, columns) float64.
        loss: with a target for each row.
        weights: (rows,), at least 0.
        recipe: the problem.
        held_out: (rows,) bool, the rows that choose the penalty; needed for `early_stopping`.
        report: called with the penalty, the number of an iteration and where it began.

    Raises:
        UsageError: If no row has a weight, or n_components exceeds the columns.
        NonFiniteError: If a value is NaN or infinite.
        MemoryLimitError: If the table does not fit.
        NumericalError: If products of the columns overflow.
    """
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
        problem = Problem(features, self.weights, self.loss, alpha)
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
    z = torch.where(varies, (x - mean) / scale, 0.0)
    columns = max(int(varies.sum()), 1)
    directions = chosen_directions(z, weights, recipe.n_components)
    expansion = expand(z, weights, directions, (recipe.quadratic_scale / columns) ** 0.5)
    return _Prepared(mean, scale, expansion, replace(loss, target=loss.target[chosen]), weights)
