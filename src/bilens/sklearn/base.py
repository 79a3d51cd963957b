"""The base class of classifier and regressor: the fit, and how it is read."""

import warnings
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from bilens.algebra.attribution import attribute
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.audit_model import audit
from bilens.api.provenance import READING
from bilens.base.errors import BilensWarning, UsageError
from bilens.data.column_numbers import follow_curves, odd_numbers
from bilens.data.model_interface import ClassIndex
from bilens.data.table_checks import decided
from bilens.data.table_columns import read_by_curve
from bilens.data.table_rows import plain_column
from bilens.findings.column_effects import output_effects
from bilens.findings.subject import gauge_free
from bilens.io.estimator import is_of_sklearn
from bilens.io.loaded_model import NUMBERED, LoadedModel
from bilens.io.model_folder import save
from bilens.nn.classifier import classifier_of_map
from bilens.records.base import json_text
from bilens.records.column_readings import OutputEffects, TableColumn, TableReading
from bilens.report.reports import AuditReport
from bilens.report.sections.table_cells import lines_on
from bilens.train.newton import Loss, NewtonStep
from bilens.train.recipes import ColumnScale
from bilens.train.table_choice import fit_table
from bilens.train.table_fit import TableRecipe, standardisation

STRONGEST_PAIRS = 100  # rows of `interactions_` for each output


class TableEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The parameters, the fit and the readings."""

    standard_map_: QuadraticMap
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "alpha": [Interval(Real, 0, None, closed="neither"), None],
        "column_scale": [StrOptions({"standard", "rank"}), None],
        "quadratic_scale": [Interval(Real, 0, None, closed="left"), None],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        alpha: float | None = None,
        column_scale: ColumnScale | None = None,
        quadratic_scale: float | None = None,
        n_components: int | None = None,
        max_iter: int = 100,
        tol: float = 1e-8,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.alpha = alpha
        self.column_scale = column_scale
        self.quadratic_scale = quadratic_scale
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    def _checked(self, X: Any, y: Any, sample_weight: Any, **options: bool) -> list[np.ndarray]:
        """Return rows, one target a row, and weights above 0; rows of weight 0 are left out."""
        shape = np.asarray(y).shape
        if len(shape) == 2 and shape[1] > 1:
            raise ValueError(
                f"y has {shape[1]} columns; a {type(self).__name__} has one target, y of shape "
                "(rows,): fit one estimator for each column, as sklearn.multioutput does."
            )
        X, y = validate_data(self, X, y, dtype=np.float64, **options)
        weights: np.ndarray = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if weights.min() < 0 or not weights.any():
            raise ValueError("sample_weight must hold no negative weight, and one above 0.")
        counted = weights > 0
        return [X[counted], y[counted], weights[counted]]

    def _warn_of_columns(self, x: np.ndarray, y: np.ndarray, class_names: Any = None) -> None:
        """Name columns with a value that may stand for none, or that may hold the answer."""
        self.odd_columns_ = []
        for name, column in zip(self._names(), x.T, strict=True):
            self.odd_columns_ += odd_numbers(name, column) + decided(name, column, y, class_names)
        for line in lines_on(self.odd_columns_) if self.odd_columns_ else ():
            warnings.warn(line, BilensWarning, stacklevel=4)

    def _fit_map(self, x: np.ndarray, weights: np.ndarray, loss: Loss) -> None:
        """Fit, and set the attributes that both kinds have."""
        random, seed = self.random_state, 0
        if random is not None:
            seed = int(check_random_state(random).randint(2**31))
        recipe = TableRecipe(
            alpha=None if self.alpha is None else float(self.alpha),
            column_scale=self.column_scale,
            quadratic_scale=None if self.quadratic_scale is None else float(self.quadratic_scale),
            n_components=self.n_components,
            max_iter=self.max_iter,
            tol=float(self.tol),
            seed=seed,
        )
        fit = fit_table(as_tensor(x), loss, as_tensor(weights), recipe, self._say)
        if not fit.converged:
            said = f"did not converge in {self.max_iter} iterations: raise max_iter or alpha."
            warnings.warn(f"Newton's method {said}", ConvergenceWarning, stacklevel=4)
        self.n_iter_ = len(fit.steps)
        self.choice_, self.chosen_ = fit.choice, fit.choice.chosen
        self.alpha_ = self.chosen_.alpha
        self.loss_curve_ = [step.objective for step in fit.steps]
        self.curves_ = fit.curves
        self.mean_, self.scale_ = fit.mean.numpy(), fit.scale.numpy()
        self.standard_map_ = fit.standard_map

    def _read_against(self, x: np.ndarray, weights: np.ndarray) -> None:
        """Write the same function in the means and deviations of rows that count as given here."""
        read = follow_curves(as_tensor(x), self.curves_)
        mean, scale, _ = standardisation(read, as_tensor(weights))
        shift, own = as_tensor(self.mean_), as_tensor(self.scale_)
        units = torch.diag(scale / own), (mean - shift) / own
        self.standard_map_ = self.standard_map_.compose_input(*units)
        self.mean_, self.scale_ = mean.numpy(), scale.numpy()

    def _say(self, alpha: float, number: int, step: NewtonStep) -> None:
        if self.verbose:
            at = f"alpha {alpha:g}, iteration {number}: loss {step.objective:.8g}"
            print(f"{at}, gradient {step.gradient:.1e}", flush=True)  # noqa: T201 - is asked for

    def _rows(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return as_tensor(validate_data(self, X, reset=False, dtype=np.float64))

    def _outputs(self, X: Any) -> Tensor:
        z = self._standardised(X)  # says first if there was no fit
        return self.standard_map_(z)

    def _standardised(self, X: Any) -> Tensor:
        return (self._encoded(X) - as_tensor(self.mean_)) / as_tensor(self.scale_)

    def _encoded(self, X: Any) -> Tensor:
        rows = self._rows(X)  # says first if there was no fit
        return follow_curves(rows, self.curves_)

    def encode(self, X: Any) -> np.ndarray:
        """Return rows as the map reads them, (rows, columns): by rank where `curves_` has one."""
        return self._encoded(X).numpy()

    @property
    def quadratic_map_(self) -> QuadraticMap:
        """The fitted map of `encode(X)`, exactly what is predicted from.

        Where `column_scale` is "standard", these are the original columns in their units.
        """
        check_is_fitted(self)
        shift, scale = as_tensor(self.mean_), as_tensor(self.scale_)
        return self.standard_map_.compose_input(torch.diag(1 / scale), -shift / scale)

    @property
    def effects_(self) -> pd.DataFrame:
        """Every column alone, in every output: linear · z + square · z², by falling size.

        z is the column of `encode(X)` less its mean over the rows of `fit`, by its deviation there
        (class weights do not count), so that columns can be compared; `size` is the standard
        deviation of the effect over a standard normal z. Classes are read against their mean.
        A column read by rank is called `… (rank)`.
        """
        names = self._input_names()
        return pd.DataFrame(
            [
                (item.name, names[one.column], one.linear, one.square, one.size)
                for item in self._effects()
                for one in item.columns
            ],
            columns=["output", "column", "linear", "square", "size"],
        )

    @property
    def interactions_(self) -> pd.DataFrame:
        """The strongest pairs of columns of every output: coefficient · z_i z_j, exactly 2 q_ij.

        `coefficient` is in units of the output for standardised columns, by falling size;
        `raw_coefficient` is the same for the columns as they come, and NaN where one of the two
        is read by rank, which is called `… (rank)`. Classes are read against their mean.
        """
        names, rows = self._input_names(), []
        scale = [
            np.nan if curve else one for curve, one in zip(self.curves_, self.scale_, strict=True)
        ]
        for name, pair in ((one.name, pair) for one in self._effects() for pair in one.pairs):
            first, second = pair.first, pair.second
            raw = pair.coefficient / (scale[first] * scale[second])
            rows.append((name, names[first], names[second], pair.coefficient, raw))
        columns = ["output", "first", "second", "coefficient", "raw_coefficient"]
        return pd.DataFrame(rows, columns=columns)

    def attribute(self, X: Any) -> np.ndarray:
        """Return how much each column adds to each output of each row, exactly.

        These are the Shapley values against the mean of the rows of `fit`, each as often as its
        sample weight says and whatever its class weighs. For a quadratic map they are the
        integrated gradients: they sum to f(x) − f(mean), in a column read by rank the mean rank.

        Args:
            X: (rows, columns).

        Returns: (rows, outputs, columns), in logits or in units of the target; classes are read
            against their mean.
        """
        z = self._standardised(X)
        return attribute(gauge_free(self.standard_map_), z).numpy()

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a model folder that `bl.load` and every command read, with names.

        Args:
            folder: where to.
            overwrite: whether a model that is already there may be replaced.

        Raises: OutputExistsError if the folder holds a model and `overwrite` is off; DiskError,
            FileError if it cannot be written.
        """
        model = self.loaded_model()
        parameters = {name: str(value) for name, value in self.get_params().items()}
        return save(
            model.module_for("a model folder"),
            folder,
            input_names=model.input_names,
            output_names=model.output_names,
            input_mean=model.input_mean,
            input_scale=model.input_scale,
            provenance={**model.provenance, **parameters},
            overwrite=overwrite,
        )

    def report(self, X: Any = None, y: Any = None) -> AuditReport:
        """Return the report of the fitted model: columns, pairs, and rows taken apart.

        Args:
            X: rows to judge it on, (rows, columns); better ones that `fit` has not seen.
            y: their targets.

        Returns:
            `to_html(path, lang="en" | "ja")`, `to_json(path)`, `to_dict()`; a notebook shows it.
        """
        check_is_fitted(self)
        rows = None
        if X is not None:
            if y is None:
                raise ValueError("report(X) needs the targets of its rows, too: report(X, y).")
            rows = (self._rows(X), self._targets(y))
        command = f"{type(self).__name__}.report()"
        return audit(self.loaded_model(), rows, command=command)

    def loaded_model(self) -> LoadedModel:
        """Return the fitted model as `bl.load` returns it once it is saved; so does `from_sklearn`.

        It has no file, so that its source and its SHA-256 are empty.

        Raises: UsageError if a subclass has a predict or predict_proba of its own.
        """
        check_is_fitted(self)
        if not is_of_sklearn(self, "bilens.sklearn."):
            raise UsageError(
                f"the {type(self).__name__} has a predict or predict_proba of its own, which is "
                "not read: fit the estimator of bl.sklearn that it was made of."
            )
        numbered = {} if hasattr(self, "feature_names_in_") else {NUMBERED: "numbered from x0"}
        done = (*self.odd_columns_, *self.choice_.conversions())
        said = {READING: json_text(TableReading(self._columns(), done))}
        return LoadedModel(
            classifier_of_map(self.standard_map_, as_tensor(self.mean_), as_tensor(self.scale_)),
            "",
            "",
            output_names=self._output_names(),
            input_names=tuple(self._input_names()),
            input_mean=tuple(self.mean_.tolist()),
            input_scale=tuple(self.scale_.tolist()),
            provenance={"estimator": type(self).__name__, **numbered, **said},
        )

    def _effects(self) -> tuple[OutputEffects, ...]:
        check_is_fitted(self)
        f = gauge_free(self.standard_map_)
        return output_effects(f, self._output_names(), STRONGEST_PAIRS)

    def _names(self) -> tuple[str, ...]:
        names = getattr(self, "feature_names_in_", None)
        return tuple(f"x{i}" for i in range(self.n_features_in_)) if names is None else tuple(names)

    def _columns(self) -> tuple[TableColumn, ...]:
        """Return how each column is read."""
        return tuple(map(read_by_curve, map(plain_column, self._names()), self.curves_))

    def _input_names(self) -> list[str]:
        check_is_fitted(self)
        return [name for one in self._columns() for name in one.inputs]

    def _output_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _targets(self, y: Any) -> Tensor | list[ClassIndex]:
        """Return targets as a report takes them: numbers, or positions of classes."""
        raise NotImplementedError


def as_tensor(values: np.ndarray) -> Tensor:
    """Return a float64 copy: what came may be read-only."""
    return torch.from_numpy(np.array(values, dtype=np.float64))
