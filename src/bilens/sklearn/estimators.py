"""A classifier and a regressor of tables whose outputs are a quadratic map."""

import math
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from bilens.data.model_interface import ClassIndex
from bilens.sklearn.base import TableEstimator, as_tensor
from bilens.train.newton import CrossEntropy, SquaredError
from bilens.train.recipes import ColumnScale
from bilens.train.table_fit import scaled_target


class BilinearClassifier(ClassifierMixin, TableEstimator):  # type: ignore[misc]
    """Logits that are an exact quadratic map of the columns: singles, squares and pairs.

    The columns are standardised, and the penalised cross-entropy is minimised, a convex problem:
    its solution is the only one. Logistic regression is the special case `quadratic_scale=0`.
    What is fitted is a bilinear layer, and can be read like one. What is None is chosen by five
    folds of the rows of `fit`: scikit-learn's logistic regression, unless another candidate is
    better by more than two standard errors of the loss, with no more wrong classes. `fit` warns of
    columns that may hold the answer, and of values that may stand for none.

    Args:
        alpha: the penalty of all coefficients of standardised columns, as in ridge regression.
        column_scale: "standard" reads columns as they come, "rank" by the share of rows below.
        quadratic_scale: how large squares and pairs are expected to be beside the linear part,
            as a ratio of variances; 0 leaves them out.
        n_components: products are formed of so many leading principal directions; None is all
            columns, as long as there is room.
        class_weight: None, "balanced", or a dict from class to weight, above 0; 1 where a class
            is not named.
        max_iter: iterations of Newton's method; ten are usual.
        tol: of the gradient, in the metric of the curvature, a row.
        random_state: of the folds, None is 0; nothing else is random.
        verbose: whether each iteration prints its loss and gradient.

    Attributes:
        classes_: the classes, sorted.
        n_features_in_, feature_names_in_: the columns seen in `fit`; names where it had names.
        curves_: of each column, values and their ranks; empty where it is read as it comes.
        mean_, scale_: mean and standard deviation of the columns of `encode(X)`, by
            `sample_weight`. The fit itself standardises by class weights, too.
        standard_map_: the map of standardised columns, to class-centred logits.
        choice_, chosen_: the candidates with their losses, and the one that was taken.
        odd_columns_: what `fit` warned of.
        alpha_, n_iter_, loss_curve_: its penalty, and how the fit to all rows went.

    Source: arXiv:2410.08417 for the reading; the fit is kernel logistic regression with the kernel
        z·z' + scale² (z·z')², whose solution has a bilinear layer's form.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TableEstimator._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def __init__(
        self,
        alpha: float | None = None,
        column_scale: ColumnScale | None = None,
        quadratic_scale: float | None = None,
        n_components: int | None = None,
        class_weight: Any = None,
        max_iter: int = 100,
        tol: float = 1e-8,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.class_weight = class_weight
        problem = alpha, column_scale, quadratic_scale, n_components, max_iter, tol
        TableEstimator.__init__(self, *problem, random_state, verbose)

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the map.

        Args:
            X: (rows, columns), numbers; a DataFrame gives the columns their names.
            y: (rows,), the classes.
            sample_weight: (rows,); a weight of 2 is the same as the row twice, 0 as none.
        """
        X, y, weights = self._checked(X, y, sample_weight)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class, {self.classes_.tolist()[0]!r}; a classifier needs at least 2 "
                "classes."
            )
        if self.class_weight == "balanced":
            counts = np.bincount(labels, weights)
            of_class = weights.sum() / (len(self.classes_) * counts)
        else:
            given, known = self.class_weight or {}, self.classes_.tolist()
            whole = {*known} <= given.keys()  # then others may be of rows that are not here
            for name, value in given.items():
                if name not in known and not whole:
                    raise ValueError(
                        f"class_weight names {name!r}, which is none of the classes of y, {known}: "
                        "leave it out, or weigh them all."
                    )
                if not (isinstance(value, Real) and 0 < float(value) < math.inf):
                    raise ValueError(
                        f"class_weight gives {name!r} the weight {value!r}; expected a finite "
                        "number above 0: to ignore a class, leave its rows out of fit."
                    )
            of_class = np.array([float(given.get(name, 1.0)) for name in known])
        weighted = weights * of_class[labels]
        target = torch.nn.functional.one_hot(torch.from_numpy(labels), len(self.classes_))
        self._warn_of_columns(X, labels, self.classes_)
        self._fit_map(X, weighted, CrossEntropy(target.double()))
        if self.class_weight is not None:
            self._read_against(X, weights)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the class-centred logits, (rows, classes); for two classes second − first."""
        logits: np.ndarray = self._outputs(X).numpy()
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (rows, classes)."""
        probabilities: np.ndarray = torch.softmax(self._outputs(X), dim=1).numpy()
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely class of each row."""
        logits = self._outputs(X)
        names: np.ndarray = self.classes_[logits.argmax(dim=1).numpy()]
        return names

    def _output_names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.classes_)

    def _targets(self, y: Any) -> list[ClassIndex]:
        y = column_or_1d(y)
        unknown = sorted(map(str, set(y.tolist()) - set(self.classes_.tolist())))
        if unknown:
            raise ValueError(f"y holds {unknown[0]!r}, and the classes of fit are {self.classes_}.")
        known = {name: place for place, name in enumerate(self.classes_.tolist())}
        return [ClassIndex(known[label]) for label in y.tolist()]


class BilinearRegressor(RegressorMixin, TableEstimator):  # type: ignore[misc]
    """A prediction that is an exact quadratic form of the columns: singles, squares and pairs.

    Columns and target are standardised, and the penalised squared error is minimised, in closed
    form: the solution is the only one. Ridge regression is the special case
    `quadratic_scale=0`. What is fitted is a bilinear layer, and can be read like one.

    Args:
        alpha, column_scale, quadratic_scale, n_components, tol, random_state, verbose: as of
            `BilinearClassifier`.
        max_iter: iterations of Newton's method; one solves it, and the second one checks.

    Attributes:
        standard_map_: the map of standardised columns, to the target in its own unit.
        n_features_in_, feature_names_in_, curves_, mean_, scale_, choice_, chosen_, odd_columns_,
            alpha_, n_iter_, loss_curve_: as of `BilinearClassifier`; losses of the scaled target.

    Source: arXiv:2410.08417 for the reading; the fit is kernel ridge regression with the kernel
        z·z' + scale² (z·z')², whose solution has a bilinear layer's form.
    """

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the map.

        Args:
            X: (rows, columns), numbers; a DataFrame gives the columns their names.
            y: (rows,), the target, in any unit.
            sample_weight: (rows,); a weight of 2 is the same as the row twice, 0 as none.
        """
        X, y, weights = self._checked(X, y, sample_weight, y_numeric=True)
        target, mean, deviation = scaled_target(as_tensor(y), as_tensor(weights))
        self._warn_of_columns(X, y)
        self._fit_map(X, weights, SquaredError(target[:, None]))
        self.standard_map_ = self.standard_map_.compose_output(torch.diag(deviation), mean)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the prediction of each row, in the unit of the target."""
        outputs: np.ndarray = self._outputs(X)[:, 0].numpy()
        return outputs

    def _output_names(self) -> tuple[str, ...]:
        return ("target",)

    def _targets(self, y: Any) -> torch.Tensor:
        return as_tensor(column_or_1d(y))
