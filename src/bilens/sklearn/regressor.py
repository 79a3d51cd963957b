"""A regressor of tables whose prediction is a quadratic form."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils.validation import column_or_1d, validate_data

from bilens.sklearn.base import TableEstimator, as_tensor, check_one_target, row_weights
from bilens.train.newton import SquaredError
from bilens.train.table_fit import scaled_target


class BilinearRegressor(RegressorMixin, TableEstimator):  # type: ignore[misc]
    """A prediction that is an exact quadratic form of the columns: singles, squares and pairs.

    Columns and target are standardised, and the penalised squared error is minimised, in closed
    form: the solution is the only one, whatever the seed. Ridge regression is the special case
    `quadratic_scale=0`. What is fitted is a bilinear layer, and can be read like one.

    Args:
        alpha: the penalty of all coefficients of standardised columns, as in ridge regression.
        quadratic_scale: how large squares and pairs are expected to be beside the linear part,
            as a ratio of variances; 0 leaves them out.
        n_components: products are formed of so many leading principal directions; None is all
            columns, as long as there is room.
        max_iter: iterations of Newton's method; one solves it, and the second one checks.
        tol: of the gradient, in the metric of the curvature, a row.
        early_stopping: whether a held-out share of the rows chooses the penalty, on a path from
            100 alpha down to alpha / 100 that is left where it no longer gets better; all rows
            are fitted with it then.
        validation_fraction: that share.
        n_iter_no_change: how many penalties in a row may bring nothing before the path is left.
        random_state: of the rows that are held out; nothing else is random.
        verbose: whether each iteration prints its loss and gradient.

    Attributes:
        n_features_in_, feature_names_in_: the columns seen in `fit`; names where it had names.
        mean_, scale_: weighted mean and standard deviation of the columns.
        standard_map_: the map of standardised columns, to the target in its own unit.
        alpha_, n_iter_, loss_curve_, validation_curve_: how the fit went; the last one has a
            pair of penalty and validation loss for each penalty of the path. Losses are of the
            standardised target.

    Source: arXiv:2410.08417 for the reading; the fit is kernel ridge regression with the kernel
        z·z' + scale² (z·z')², whose solution has a bilinear layer's form.
    """

    def __init__(
        self,
        alpha: float = 3.0,
        quadratic_scale: float = 0.3,
        n_components: int | None = None,
        max_iter: int = 100,
        tol: float = 1e-8,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.alpha = alpha
        self.quadratic_scale = quadratic_scale
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the map.

        Args:
            X: (rows, columns), numbers; a DataFrame gives the columns their names.
            y: (rows,), the target, in any unit.
            sample_weight: (rows,); a weight of 2 is the same as the row twice, 0 as none.
        """
        check_one_target(self, y)
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        weights = row_weights(sample_weight, X)
        target, mean, deviation = scaled_target(as_tensor(y), as_tensor(weights))
        fit = self._fit_map(
            X, weights, SquaredError(target[:, None]), torch.zeros(len(X), dtype=torch.long)
        )
        self.mean_, self.scale_ = fit.mean.numpy(), fit.scale.numpy()
        self.standard_map_ = fit.standard_map.compose_output(torch.diag(deviation), mean)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the prediction of each row, in the unit of the target."""
        outputs: np.ndarray = self._outputs(X)[:, 0].numpy()
        return outputs

    def _output_names(self) -> tuple[str, ...]:
        return ("target",)

    def _targets(self, y: Any) -> torch.Tensor:
        return as_tensor(column_or_1d(y))
