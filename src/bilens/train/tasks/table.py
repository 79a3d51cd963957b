"""Training on a table: read, split, fitted by Newton's method, judged, saved in a run folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from msgspec import structs
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base import silent
from bilens.base.errors import DataError, NumericalError
from bilens.base.files import write_files
from bilens.data.column_numbers import follow_curves
from bilens.data.table_columns import read_by_curve
from bilens.data.table_rows import ROWS_KEY, TrainingTable, fitted_to, row_fingerprints
from bilens.io.model_folder import save
from bilens.nn.classifier import classifier_of_map
from bilens.records.base import json_text
from bilens.records.column_readings import CellConversion, TableReading
from bilens.train.device import CPU
from bilens.train.newton import CrossEntropy, Loss, SquaredError
from bilens.train.recipes import ColumnScale
from bilens.train.run_folder import (
    HISTORY_NAME,
    METRICS_NAME,
    RUN_NAME,
    TEST_NAME,
    check_folder,
    written_by_us,
)
from bilens.train.table_choice import TableFit, fit_table
from bilens.train.table_fit import Report, TableRecipe, held_out_rows, scaled_target
from bilens.train.trackers import Chosen, check_trackers, tracked


@dataclass(frozen=True)
class TableMetrics:
    """How good the model is. Scores on held-out rows are None where there are none."""

    task: Literal["classification", "regression"]
    score: Literal["accuracy", "R²"]  # R² is the share of variance that is explained
    train_score: float
    test_score: float | None
    chance_score: float | None  # on the test rows, of the most frequent class or of the mean
    train_rows: int
    test_rows: int
    inputs: int  # columns and indicators that it reads
    hidden: int  # units of the saved model
    column_scale: ColumnScale  # of the columns of numbers
    quadratic_scale: float
    alpha: float
    fits: int  # of candidates in folds, and the last one
    iterations: int  # of Newton's method, in the last one


@dataclass(frozen=True, eq=False)
class TableTask:
    """A table to fit: its rows split for the test."""

    table: TrainingTable
    recipe: TableRecipe
    target_name: str  # the name of a regression's output
    test_fraction: float  # held out, in each class
    device: torch.device = CPU

    def labels(self) -> Tensor:
        """Return the classes that a split keeps in their shares; one for all numbers."""
        target = self.table.target
        return torch.zeros_like(target, dtype=torch.int64) if self.is_regression else target

    @cached_property
    def fitted_table(self) -> TrainingTable:
        """The table as its training rows alone say that it is read."""
        return fitted_to(self.table, ~self.test_rows)

    @property
    def is_regression(self) -> bool:
        return self.table.class_names is None

    @property
    def numbers(self) -> list[bool]:
        """Which inputs are columns of numbers, and may be read by their ranks."""
        own = {one.name for one in self.fitted_table.reading.columns if one.kind == "number"}
        return [name in own for name in self.fitted_table.names]

    @cached_property
    def test_rows(self) -> Tensor:
        """Which rows are held out, (rows,) bool."""
        rows = len(self.table.values)
        if self.test_fraction == 0:
            return torch.zeros(rows, dtype=torch.bool)
        generator = torch.Generator().manual_seed(2 * self.recipe.seed + 1)
        values = self.table.values.nan_to_num()
        found = held_out_rows(values, self.labels(), self.test_fraction, generator)
        if int((~found).sum()) < 2:
            raise DataError(
                f"{int((~found).sum())} of {rows} rows are left to fit: use a smaller --test."
            )
        return found

    def fitted(
        self, x: Tensor, known: Tensor, report: Report = silent
    ) -> tuple[TableFit, QuadraticMap]:
        """Return the fit to the known rows, and its map to logits, or to the target in its unit."""
        goal = self.table.target[known]
        weights = torch.ones(len(goal), dtype=torch.float64)
        mean = deviation = weights
        if self.table.class_names is None:
            scaled, mean, deviation = scaled_target(goal, weights)
            loss: Loss = SquaredError(scaled[:, None].to(self.device))
        else:
            hot = torch.nn.functional.one_hot(goal, len(self.table.class_names))
            loss = CrossEntropy(hot.double().to(self.device))
        x, weights = x[known].to(self.device), weights.to(self.device)
        fit = fit_table(x, loss, weights, self.recipe, report, self.numbers).to(CPU)
        if not fit.converged:
            raise NumericalError(
                f"the fit did not converge in {len(fit.steps)} iterations: raise --alpha."
            )
        f = fit.standard_map
        if self.is_regression:
            f = f.compose_output(torch.diag(deviation), mean)
        return fit, f


def train_table_in_folder(
    folder: Path,
    task: TableTask,
    *,
    about_data: Mapping[str, Any],
    provenance: Mapping[str, str],
    overwrite: bool = False,
    report: Report = silent,
    tracker: Chosen | Sequence[str] | None = (),
    say: Callable[[str], None] = silent,
) -> tuple[TableMetrics, tuple[CellConversion, ...]]:
    """Fit a table and leave model, metrics, history and the test rows as they came in a folder.

    Each line of the history is told to `tracker`, and last the metrics. Return how good it is, and
    sentences on what was chosen.
    """
    table, recipe, trackers = task.fitted_table, task.recipe, check_trackers(tracker)
    decides = {**recipe.to_dict(), "test_fraction": task.test_fraction}
    about = {"recipe": decides, "data": about_data}
    check_folder(folder, about, resume=False, overwrite=overwrite)
    test = task.test_rows
    fit, f = task.fitted(table.values, ~test, report)
    module = classifier_of_map(f, fit.mean, fit.scale)
    x = follow_curves(table.values, fit.curves)
    x = torch.where(x.isnan(), fit.mean, x)  # in the place of what says nothing
    outputs = f((x - fit.mean) / fit.scale)
    metrics = measure(task, outputs, fit, module.embed.out_features)
    reading = reading_of_fit(table, fit, metrics)
    with written_by_us(folder):
        save(
            module,
            folder,
            input_names=[name for one in reading.columns for name in one.inputs],
            input_mean=fit.mean.tolist(),
            input_scale=fit.scale.tolist(),
            output_names=table.class_names or (task.target_name,),
            provenance={
                "target": task.target_name,
                "recipe": json.dumps(recipe.to_dict()),
                "reading": json_text(reading),
                ROWS_KEY: row_fingerprints(x[~test], table.target[~test]),
                **provenance,
            },
            overwrite=True,
        )
        lines = [*map(asdict, fit.choice.tried), *map(asdict, fit.steps)]
        held_out = test.nonzero().flatten().tolist()
        judged = {folder / TEST_NAME: table.cells.to_text(held_out).encode()} if held_out else {}
        write_files(
            {
                **judged,
                folder / RUN_NAME: json.dumps(about, indent=2).encode(),
                folder / HISTORY_NAME: "".join(json.dumps(x) + "\n" for x in lines).encode(),
                folder / METRICS_NAME: json.dumps(asdict(metrics), indent=2).encode(),
            }
        )
        with tracked(folder, trackers, decides, say) as telling:
            for place, line in enumerate([*lines, asdict(metrics)], start=1):
                telling.log(place, line)
    return metrics, fit.choice.conversions()


def reading_of_fit(table: TrainingTable, fit: TableFit, metrics: TableMetrics) -> TableReading:
    """Return how a table was read, with the curves of its fit and sentences on the choice."""
    curves = dict(zip(table.names, fit.curves, strict=True))
    columns = (read_by_curve(one, curves.get(one.name, ())) for one in table.reading.columns)
    return structs.replace(
        table.reading,
        columns=tuple(columns),
        done=(*table.reading.done, *fit.choice.conversions()),
        train_score=metrics.train_score,
    )


def measure(task: TableTask, outputs: Tensor, fit: TableFit, hidden: int) -> TableMetrics:
    """Return how good the outputs for all rows are, on those that were fitted to and on others."""
    target, test = task.fitted_table.target, task.test_rows
    return TableMetrics(
        task="regression" if task.is_regression else "classification",
        score="R²" if task.is_regression else "accuracy",
        train_score=score(outputs, target, ~test) or 0.0,
        test_score=score(outputs, target, test),
        chance_score=score(chance_outputs(outputs, target, ~test), target, test),
        train_rows=int((~test).sum()),
        test_rows=int(test.sum()),
        inputs=len(task.fitted_table.names),
        hidden=hidden,
        column_scale=fit.choice.chosen.column_scale,
        quadratic_scale=fit.choice.chosen.quadratic_scale,
        alpha=fit.choice.chosen.alpha,
        fits=fit.choice.fits,
        iterations=len(fit.steps),
    )


def score(outputs: Tensor, target: Tensor, rows: Tensor) -> float | None:
    """Return accuracy, or R² for numbers, on some rows; None where there is none to say."""
    outputs, target = outputs[rows], target[rows]
    if len(target) == 0:
        return None
    if not target.is_floating_point():
        return float((outputs.argmax(dim=1) == target).double().mean())
    spread = (target - target.mean()).square().sum()
    return float(1 - (outputs[:, 0] - target).square().sum() / spread) if spread > 0 else None


def chance_outputs(outputs: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return, for every row, the most frequent class, or the mean, of the known rows."""
    goal = target[known]
    if target.is_floating_point():
        return goal.mean().expand(len(outputs), 1)
    return torch.bincount(goal, minlength=outputs.shape[1]).double().expand(len(outputs), -1)
