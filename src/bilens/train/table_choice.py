"""How columns are read, whether there are products, and the penalty: chosen by rows held out.

Each candidate is fitted to four fifths of the training rows and judged on the last one, five times;
whatever is read off rows, ranks and means too, is read off the four fifths alone. The first one,
the linear model that everybody has, gives way to the best only where that is clearly better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base import silent
from bilens.base.checks import check_float_tensor
from bilens.base.errors import UsageError
from bilens.data.column_numbers import Curve
from bilens.records.column_readings import CellConversion
from bilens.train.newton import Loss, NewtonStep
from bilens.train.recipes import ColumnScale, TableRecipe
from bilens.train.table_fit import COPIES, Report, TableProblem, prepare_table

FOLDS = 5
TWICE = 1000  # rows; so many and fewer are dealt into folds twice
CLEARLY = 2.0  # standard errors by which the best has to be better than the first candidate
LEAST_ROWS = 20  # different ones; fewer choose nothing
PENALTIES = tuple(10.0 ** (2.5 - step / 2) for step in range(9))  # from 316 to 0.03
PATIENCE = 2  # penalties in a row that may bring nothing before the rest are left out
ROUGH = 1e-2  # tolerance of the gradient: the loss is right to about its square
MOST_LOSS = 10.0  # of a row: a cell far outside is no reason for or against a candidate by itself
PRODUCTS = 0.1  # quadratic_scale where products are tried
USUAL = 3.0  # alpha where nothing is chosen
WORK = 2e9  # rows · features² of a fit: more rows than that, and than FEWEST, do not choose
FEWEST, MOST = 2000, 20_000


@dataclass(frozen=True)
class TableCandidate:
    """A way to read and fit a table; its loss is the mean of rows that it was not fitted to."""

    column_scale: ColumnScale
    quadratic_scale: float
    alpha: float
    loss: float | None = None
    more: float = 0.0  # than the loss of the best candidate, row by row
    error: float = 0.0  # the standard error of that
    penalties: int = 0  # that were tried

    def to_text(self) -> str:
        """Return a description in a few words."""
        kind = f"products {self.quadratic_scale:g}" if self.quadratic_scale else "linear"
        return f"{self.column_scale}, {kind}, alpha {self.alpha:.3g}"

    @property
    def kind(self) -> str:
        return f"{self.column_scale}_{'products' if self.quadratic_scale else 'linear'}"


@dataclass(frozen=True)
class TableChoice:
    """The candidate that was chosen, and those tried: none where all was given, or rows are few."""

    chosen: TableCandidate
    tried: tuple[TableCandidate, ...] = field(default=())
    folds: int = FOLDS  # in which rows were held out, of all dealings
    unused_components: int = 0  # that were asked for, where no products were chosen

    @property
    def fits(self) -> int:
        """How many fits it took, the last one to all rows included."""
        return 1 + self.folds * sum(one.penalties for one in self.tried)

    def conversions(self) -> tuple[CellConversion, ...]:
        """Return sentences on the choice, for page and terminal."""
        of_kind, count = CellConversion.of_kind, self.unused_components
        unused = (of_kind("unused_components", count=count),) if count else ()
        if not self.tried:
            return unused
        tried = (
            of_kind(f"tried.{one.kind}", **{n: f"{getattr(one, n):.4g}" for n in NUMBERS})
            for one in self.tried
        )
        alpha, fits = f"{self.chosen.alpha:.4g}", self.fits
        chosen = of_kind(f"chosen.{self.chosen.kind}", alpha=alpha, folds=self.folds, fits=fits)
        why = "first_kept" if self.chosen == self.tried[0] else "best_taken"
        return (*tried, chosen, of_kind(why, margin=f"{CLEARLY:g}"), *unused)


NUMBERS = ("loss", "more", "error", "alpha")  # of the sentence on a candidate


@dataclass(frozen=True, eq=False)
class TableFit:
    standard_map: QuadraticMap  # of standardised columns z = (curve(x) − mean) / scale, float64
    curves: tuple[Curve, ...]  # of each column, empty where it is read as it comes
    mean: Tensor  # (columns,), weighted
    scale: Tensor  # (columns,), the weighted standard deviation; 1 where a column is constant
    choice: TableChoice
    steps: tuple[NewtonStep, ...]  # of the fit to all rows
    converged: bool

    def to(self, device: torch.device) -> TableFit:
        parts = {name: getattr(self, name).to(device) for name in ("standard_map", "mean", "scale")}
        return replace(self, **parts)


def fit_table(
    x: Tensor,
    loss: Loss,
    weights: Tensor,
    recipe: TableRecipe,
    report: Report = silent,
    numbers: Sequence[bool] | None = None,
) -> TableFit:
    """Return the quadratic map that minimises a penalised loss; the seed deals rows into folds.

    The x, (rows, columns), are NaN where the mean of a column is to stand in; `weights` are above
    0: a row that does not count would still be dealt and standardised. `numbers` are the columns
    that may be read by their ranks; None is all.
    """
    check_float_tensor("x", x.nan_to_num(0.0, math.inf, -math.inf), num_axes=2)
    check_float_tensor("weights", weights, num_axes=1)
    if not bool((weights > 0).all()):
        raise UsageError("a row has the weight 0, or one below: leave out rows that do not count.")
    problem = TableProblem(x, loss, weights, numbers or [True] * x.shape[1])
    with torch.no_grad():
        choice = choose_fit(problem, recipe, report)
        unused = 0 if choice.chosen.quadratic_scale else recipe.n_components or 0
        choice = replace(choice, unused_components=unused)
        recipe = settle_recipe(choice.chosen, recipe)
        prepared = prepare_table(problem, recipe)
        found = prepared.solve(choice.chosen.alpha, recipe, report=report)
        return TableFit(
            prepared.map_of(found),
            curves=prepared.curves,
            mean=prepared.mean,
            scale=prepared.scale,
            choice=choice,
            steps=found.steps,
            converged=found.converged,
        )


def choose_fit(problem: TableProblem, recipe: TableRecipe, report: Report) -> TableChoice:
    """Return the best candidate where it is clearly better than the first, and else the first.

    Clearly: by so many standard errors of the loss, and without more wrong classes.
    """
    column_scales: tuple[ColumnScale, ...] = ("standard", "rank")
    if recipe.column_scale is not None:
        column_scales = (recipe.column_scale,)
    elif not any(problem.numbers):
        column_scales = ("standard",)
    scale = recipe.quadratic_scale
    scales = (0.0, PRODUCTS) if scale is None else (scale,)
    penalties = PENALTIES if recipe.alpha is None else (recipe.alpha,)
    usual = TableCandidate(column_scales[0], scales[0], recipe.alpha or USUAL)
    if len(column_scales) == len(scales) == len(penalties) == 1:
        return TableChoice(usual)
    dealings = range(2 if len(problem.x) <= TWICE else 1)
    dealt, groups = zip(*(deal_rows(problem, recipe.seed, one) for one in dealings), strict=True)
    counted = dealt[0] >= 0
    if int(groups[0].max()) + 1 < LEAST_ROWS or not bool(counted.any()):
        return TableChoice(usual)
    judged = partial(judge_candidate, problem, recipe, dealt=dealt, report=report)
    found = [judged(one, scales[0], penalties) for one in column_scales]
    if penalties is PENALTIES and not scales[0]:
        # of two classes a logistic regression penalises w, and a softmax its halves w/2 and −w/2
        plain = (2.0 if problem.loss.target.shape[1] == 2 else 1.0,)
        found.insert(0, judged(column_scales[0], 0.0, plain))
    better = min(found, key=lambda one: one[0].loss or 0.0)[0].column_scale
    found += [judged(better, products, penalties) for products in scales[1:]]
    best = min(range(len(found)), key=lambda at: found[at][0].loss or 0.0)
    tried = []
    for one, (losses, _) in found:
        differences = losses - found[best][1][0]
        more, error = paired_difference(differences, problem.weights, groups[0], counted)
        tried.append(replace(one, more=more, error=error))
    wrong = [float(problem.weights @ misses) for _, (_, misses) in found]
    first = tried[0]
    is_clear = first.more > CLEARLY * first.error and wrong[best] <= wrong[0]
    return TableChoice(tried[best if is_clear else 0], tuple(tried), FOLDS * len(dealings))


def settle_recipe(one: TableCandidate, recipe: TableRecipe) -> TableRecipe:
    """Return a recipe of which nothing is left to choose."""
    components = recipe.n_components if one.quadratic_scale else None
    return replace(
        recipe,
        alpha=one.alpha,
        column_scale=one.column_scale,
        quadratic_scale=one.quadratic_scale,
        n_components=components,
    )


def judge_candidate(
    problem: TableProblem,
    recipe: TableRecipe,
    column_scale: ColumnScale,
    scale: float,
    penalties: tuple[float, ...],
    dealt: Sequence[Tensor],
    report: Report,
) -> tuple[TableCandidate, Tensor]:
    """Return a candidate with its best penalty, and of each row held out its loss and misses."""
    rough = settle_recipe(TableCandidate(column_scale, scale, 1.0), recipe)
    rough = replace(rough, tol=max(recipe.tol, ROUGH))
    rows = searched_rows(problem, recipe, scale)
    parts = []
    for known in (folds != fold for folds in dealt for fold in range(FOLDS)):
        prepared, new = prepare_table(problem.at(known & rows), rough), problem.at(~known)
        parts.append((prepared, ~known, new.loss, prepared.read_rows(new.x)))
    starts: list[Tensor | None] = [None] * len(parts)
    counts = problem.weights * (dealt[0] >= 0)
    kept: tuple[float, float, Tensor] | None = None
    tried = since = 0
    for alpha in penalties:
        told = problem.weights.new_zeros(2, len(problem.x))
        for part, (prepared, held_out, loss, z) in enumerate(parts):
            solution = prepared.solve(alpha, rough, starts[part], report)
            starts[part] = solution.coefficients
            outputs = prepared.map_of(solution)(z)
            losses = loss.values(outputs).clamp(max=MOST_LOSS)
            wrong = outputs.argmax(dim=1) != loss.target.argmax(dim=1)  # none where it is a number
            told[:, held_out] += torch.stack([losses, wrong.double()]) / len(dealt)
        mean, tried = float(counts @ told[0] / counts.sum()), tried + 1
        since += 1
        if kept is None or mean < kept[0]:
            kept, since = (mean, alpha, told), 0
        if since >= PATIENCE:
            break
    assert kept is not None, "there is a penalty"
    mean, alpha, told = kept
    return TableCandidate(column_scale, scale, alpha, mean, penalties=tried), told


def searched_rows(problem: TableProblem, recipe: TableRecipe, scale: float) -> Tensor:
    """Return which rows candidates are fitted to, (rows,) bool: not all of a large table."""
    rows, width = problem.x.shape
    features = width + (width * (width + 1) // 2 if scale else 0)
    most = max(FEWEST, min(MOST, int(WORK / features**2)))
    kept = torch.ones(rows, dtype=torch.bool, device=problem.x.device)
    if rows > most:
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(recipe.seed))
        kept[order[most:]] = False
    return kept


def deal_rows(problem: TableProblem, seed: int, dealing: int = 0) -> tuple[Tensor, Tensor]:
    """Return the fold of each row, −1 for what stays in all, and which rows go together.

    Rows of equal inputs go together, unless most of a table is made of few: what occurs `COPIES`
    times on average are few values, and no copies. Each class is dealt out evenly, and the only
    rows of one stay. Neither order nor copies of rows change it.
    """
    values = problem.x.nan_to_num().cpu().numpy()
    labels = problem.loss.target.argmax(dim=1).cpu().numpy()  # one for all numbers
    _, groups = np.unique(values, axis=0, return_inverse=True)
    if (groups.max() + 1) * COPIES <= len(values):
        groups = np.arange(len(values))
    label = np.zeros(groups.max() + 1, dtype=np.int64)
    np.maximum.at(label, groups, labels)
    order = np.random.default_rng([seed, dealing]).permutation(len(label))
    fold = np.full(len(label), -1)
    start = itertools.count()
    for each in np.unique(label):
        own = order[label[order] == each]
        if len(own) > 1:
            fold[own] = [next(start) % FOLDS for _ in own]
    device = problem.x.device
    return torch.from_numpy(fold[groups]).to(device), torch.from_numpy(groups).to(device)


def paired_difference(
    losses: Tensor, weights: Tensor, groups: Tensor, counted: Tensor
) -> tuple[float, float]:
    """Return the weighted mean of differences and its standard error, by groups of rows."""
    weights = weights * counted
    mean = weights @ losses / weights.sum()
    parts = torch.zeros_like(weights).index_add_(0, groups, weights * (losses - mean))
    return float(mean), float(parts.square().sum().sqrt() / weights.sum())
