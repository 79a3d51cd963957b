"""A model of a table in a run folder: read, split, fitted, judged, saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bilens.base.atomic import write_files
from bilens.base.errors import DataError, NumericalError
from bilens.data.training_table import TrainingTable
from bilens.io.model_folder import save
from bilens.nn.classifier import classifier_of_map
from bilens.train.run_files import (
    HISTORY_NAME,
    METRICS_NAME,
    RUN_NAME,
    TEST_NAME,
    earlier_run_kept,
)
from bilens.train.run_folder import check_folder, clear, locked
from bilens.train.table.fit import TableFit, fit_table
from bilens.train.table.losses import CrossEntropy, Loss, SquaredError
from bilens.train.table.recipe import TableRecipe
from bilens.train.table.split import held_out_rows
from bilens.train.table.target import in_units, scaled_target

TEST, VALIDATION = 1, 2  # what a split is for; each has a stream of its own


@dataclass(frozen=True)
class TableMetrics:
    """How good the model is.

    Attributes:
        task: what the target is.
        score: "accuracy", or "R²", the share of variance that is explained.
        train_score: on the rows it was fitted to.
        test_score: on the rows that were held out; None where there are none.
        chance_score: on the same rows, of the most frequent class or of the mean of the training
            rows; None where there are none.
        train_rows, test_rows: how many there are.
        inputs: how many columns and indicators it reads.
        hidden: units of the saved model.
        alpha: the penalty.
        iterations: of Newton's method.
    """

    task: Literal["classification", "regression"]
    score: Literal["accuracy", "R²"]
    train_score: float
    test_score: float | None
    chance_score: float | None
    train_rows: int
    test_rows: int
    inputs: int
    hidden: int
    alpha: float
    iterations: int


def train_table_in_folder(
    folder: Path,
    table: TrainingTable,
    recipe: TableRecipe,
    *,
    target_name: str,
    test_fraction: float,
    about_data: Mapping[str, Any],
    provenance: Mapping[str, str],
    overwrite: bool = False,
) -> TableMetrics:
    """Fit a table and leave model, metrics and history in a folder.

    Args:
        folder: gets the model, `run.json`, `history.jsonl`, `metrics.json` and, as they came, the
            rows held out for the test: `test.csv`.
        table: inputs and target.
        recipe: the problem; its seed splits the rows.
        target_name: the column that is predicted; the name of a regression's output.
        test_fraction: rows held out for the test, in each class; 0 holds none out.
        about_data: where the table comes from, for `run.json`.
        provenance: saved with the weights.
        overwrite: whether a run that is already there may be replaced.

    Raises:
        DataError: If there are too few rows.
        NumericalError: If Newton's method did not converge.
        OutputExistsError, UsageError: See `check_folder`.
        DiskError, FileError: If the folder cannot be written to.
    """
    about = {"recipe": {**recipe.to_dict(), "test_fraction": test_fraction}, "data": about_data}
    check_folder(folder, about, resume=False, overwrite=overwrite)
    classes = table.class_names
    test = test_rows(table, test_fraction, recipe.seed)
    x = filled(table.values, ~test)
    fit, f = fitted(x, table, ~test, recipe)
    module = classifier_of_map(f, fit.mean, fit.scale)
    outputs = f((x - fit.mean) / fit.scale)
    scores = [score(outputs, table.target, rows) for rows in (~test, test)]
    metrics = TableMetrics(
        task="regression" if classes is None else "classification",
        score="R²" if classes is None else "accuracy",
        train_score=scores[0] or 0.0,
        test_score=scores[1],
        chance_score=score(chance_outputs(outputs, table.target, ~test), table.target, test),
        train_rows=int((~test).sum()),
        test_rows=int(test.sum()),
        inputs=len(table.names),
        hidden=module.embed.out_features,
        alpha=fit.alpha,
        iterations=len(fit.steps),
    )
    with locked(folder), earlier_run_kept(folder, resume=False):
        clear(folder)
        save(
            module,
            folder,
            input_names=table.names,
            input_mean=fit.mean.tolist(),
            input_scale=fit.scale.tolist(),
            output_names=(target_name,) if classes is None else classes,
            provenance={
                "target": target_name,
                "recipe": json.dumps(recipe.to_dict()),
                **provenance,
            },
            overwrite=True,
        )
        lines = [*map(asdict, fit.path), *map(asdict, fit.steps)]
        places = test.nonzero().flatten().tolist()
        judged = {folder / TEST_NAME: table.cells.to_text(places).encode()} if places else {}
        write_files(
            {
                **judged,
                folder / RUN_NAME: json.dumps(about, indent=2).encode(),
                folder / HISTORY_NAME: "".join(json.dumps(x) + "\n" for x in lines).encode(),
                folder / METRICS_NAME: json.dumps(asdict(metrics), indent=2).encode(),
            }
        )
    return metrics


def labels_of(table: TrainingTable) -> Tensor:
    """Return the classes that a split keeps in their shares; one for all numbers."""
    return (
        torch.zeros(len(table.values), dtype=torch.int64)
        if table.class_names is None
        else (table.target)
    )


def test_rows(table: TrainingTable, fraction: float, seed: int) -> Tensor:
    """Return which rows are for the test, (rows,) bool.

    Raises:
        DataError: If fewer than two rows, or fewer than two classes, are left to fit.
    """
    rows = len(table.values)
    if fraction == 0:
        return torch.zeros(rows, dtype=torch.bool)
    generator = torch.Generator().manual_seed(2 * seed + TEST)
    found = held_out_rows(labels_of(table), fraction, generator)
    if int((~found).sum()) < 2:
        raise DataError(
            f"{int((~found).sum())} of {rows} rows are left to fit: use a smaller --test."
        )
    return found


def filled(values: Tensor, known: Tensor) -> Tensor:
    """Return the inputs with the mean of the known rows where they say nothing."""
    means = values[known].nanmean(dim=0)
    return torch.where(values.isnan(), means.nan_to_num(0.0), values)


def fitted(
    x: Tensor, table: TrainingTable, known: Tensor, recipe: TableRecipe
) -> tuple[TableFit, Any]:
    """Return the fit to the known rows, and its map to logits, or to the target in its unit.

    Raises:
        NumericalError: If Newton's method did not converge.
    """
    x, goal = x[known], table.target[known]
    weights = torch.ones(len(x), dtype=torch.float64)
    held_out = None
    if recipe.early_stopping:
        generator = torch.Generator().manual_seed(2 * recipe.seed + VALIDATION)
        held_out = held_out_rows(labels_of(table)[known], recipe.validation_fraction, generator)
    if table.class_names is None:
        scaled, mean, deviation = scaled_target(goal, weights)
        loss: Loss = SquaredError(scaled[:, None])
    else:
        hot = torch.nn.functional.one_hot(goal, len(table.class_names))
        loss = CrossEntropy(hot.double())
    fit = fit_table(x, loss, weights, recipe, held_out)
    if not fit.converged:
        raise NumericalError(
            f"the fit did not converge in {len(fit.steps)} iterations: raise --alpha."
        )
    f = fit.standard_map
    return fit, in_units(f, mean, deviation) if table.class_names is None else f


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
    """Return what the most frequent class, or the mean, of the known rows says of every row."""
    goal = target[known]
    if target.is_floating_point():
        return goal.mean().expand(len(outputs), 1)
    return torch.bincount(goal, minlength=outputs.shape[1]).double().expand(len(outputs), -1)
