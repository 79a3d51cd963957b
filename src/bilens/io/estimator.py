"""A fitted MLP of scikit-learn in memory, alone or behind the affine steps of a pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import isnan, nan, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import (
    MLPWeights,
    each_part,
    in_dtype,
    reading,
)
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.checks import check_finite
from bilens.base.errors import NumericalError, UsageError
from bilens.io.formats.families import activation_named
from bilens.io.load_report import LoadReport
from bilens.io.loaded_model import LoadedModel
from bilens.io.stored_mlp import Store, StoredTensor, block_of
from bilens.io.tensors import tensors_sha256
from bilens.nn.agreement import (
    Agreement,
    agreement_with_outputs,
    inputs_at_scales,
    inputs_that_reach,
)
from bilens.nn.layer_view import Gives, LayerView

ESTIMATORS = ("MLPClassifier", "MLPRegressor")
FITTED = ("coefs_", "intercepts_")  # the lists of its matrices and biases
STEP = 2.0**40  # of an input, far above every mean: the slope of an affine map without cancellation
CLEAR = 1e-4  # between two probabilities: below it rounding may choose the other class


# The steps of scikit-learn that are affine maps of all finite inputs. What is not here is refused:
# samples do not show that a step is affine everywhere.
AFFINE = (
    "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "FunctionTransformer",
    "SimpleImputer", "KNNImputer", "PCA", "IncrementalPCA", "TruncatedSVD", "FastICA",
    "FactorAnalysis", "LinearDiscriminantAnalysis", "FeatureAgglomeration",
    "NeighborhoodComponentsAnalysis", "GaussianRandomProjection", "SparseRandomProjection",
    "VarianceThreshold", "SelectKBest", "SelectPercentile", "SelectFpr", "SelectFdr", "SelectFwe",
    "SelectFromModel", "GenericUnivariateSelect", "RFE", "RFECV", "SequentialFeatureSelector",
)  # fmt: skip
OPTIONS = {"clip": False, "func": None, "pooling_func": np.mean}  # where they are affine
PARTS = {"Pipeline": "steps", "FeatureUnion": "transformer_list"}
PARTS["ColumnTransformer"] = "transformers_"
OWN_METHODS = ("transform", "predict", "predict_proba")


def from_sklearn(estimator: object) -> LoadedModel:
    """Read a fitted `MLPClassifier` or `MLPRegressor` of scikit-learn; it is not changed.

    The layers end where the estimator's output activation begins: at the logits of a classifier.
    Two classes have one logit z there; here they have two, −z/2 and z/2, whose softmax is the
    estimator's pair of probabilities. `model.load_report.head` names the output activation. Steps
    of a pipeline before the MLP become part of its first layer if they are affine on all inputs:
    scalers that do not clip, projections and selections of columns, alone or in a
    `ColumnTransformer`, and imputers, for rows without a missing value. The result is compared with
    the estimator's own `predict_proba` and `predict`.

    A fitted estimator of `bl.sklearn` is its own exact model, with the names of its columns.

    Args:
        estimator: the object itself, never a pickle of it, a `Pipeline` that ends in an MLP, or a
            fitted search (`GridSearchCV`) around one, which is read as its best estimator.

    Raises:
        UsageError: If it is another object, not fitted, or a step before it is not affine.
        NonFiniteError: If a weight is NaN or infinite.
        NumericalError: If the layers do not give the estimator's outputs.
    """
    whole: Any = estimator
    if hasattr(whole, "loaded_model") and not isinstance(whole, type):  # one of ours
        ours: LoadedModel = whole.loaded_model()
        return ours
    if type(whole).__module__.startswith("sklearn.model_selection."):
        whole = getattr(whole, "best_estimator_", whole)  # what a search predicts with
    is_pipeline = type(whole).__name__ == "Pipeline"
    fitted = whole.steps[-1][1] if is_pipeline else whole
    kind = check_estimator(fitted)
    layers, before, centre = layers_of(fitted), list[str](), None
    x = inputs_at_scales(layers[0].d_in, gaps=True)
    if is_pipeline and len(whole.steps) > 1:
        before = [*names_of_steps(whole[:-1])]
    if before:
        layers[0], centre, x = fold_steps(whole[:-1], layers[0])
    is_classifier = hasattr(fitted, "classes_")
    # several labels have a sigmoid each: a logit of one means something by itself
    softmax = is_classifier and (one_logit(fitted) or fitted.out_activation_ != "logistic")
    stored = fitted_tensors(fitted)
    views = views_of(layers, stored, "logits" if softmax else "outputs", centre)
    compare = partial(compare_with_estimator, whole, fitted, layers)
    check = compare(x).required()
    parts = [part for layer in layers for part in vars(layer).items()]
    columns = getattr(receiver_of(whole), "feature_names_in_", None)
    return LoadedModel(
        None,
        f"the {type(whole).__name__}",
        tensors_sha256((role, part) for role, part in parts if isinstance(part, Tensor)),
        output_names=tuple(map(str, fitted.classes_)) if softmax else None,  # labels have none
        provenance={"format": f"scikit-learn {kind}"},
        input_names=None if columns is None else tuple(map(str, columns)),
        views=views,
        load_report=LoadReport(
            roles_of(views, before), False, {"output": check}, (), head_of(fitted)
        ),
        stored=stored,
        compare_rows=compare,
    )


def fold_steps(steps: Any, layer: MLPWeights) -> tuple[MLPWeights, Tensor, Tensor]:
    """Return a layer with the affine steps before it, its centre, and inputs to compare it on."""
    matrix, shift = affine_map_of(steps)
    folded = reading(each_part(layer, Tensor.double), matrix, shift)
    return folded, -torch.linalg.pinv(matrix) @ shift, inputs_that_reach(matrix, shift)


# ---- the MLP


def views_of(
    layers: list[MLPWeights], stored: Store, gives: Gives, centre: Tensor | None
) -> dict[str, LayerView]:
    """Return the layers one behind the other; the last one gives what the model gives."""
    views, last = {}, len(layers) - 1
    numbers = {name: prod(one.shape) for name, one in stored.items()}
    for index, layer in enumerate(layers):
        name = f"layers.{index}"
        views[name] = LayerView(
            FactorSizes(len(layer.down), len(layer.up), layer.d_in),
            layer.phi,
            layer.up.dtype,
            lambda layer=layer: layer,  # type: ignore[misc]
            gated=False,
            reads="neurons" if index else "inputs",
            gives="neurons" if index < last else gives,
            name=name,
            centre=None if index else centre,
            # the last one reaches through two linear maps
            tensors={n: c for n, c in numbers.items() if min(int(n.split(".")[1]), last) == index},
        )
    return views


def roles_of(views: dict[str, LayerView], before: list[str]) -> dict[str, str]:
    """Describe in words what each layer is made of, and the steps that are part of the first."""
    roles = {}
    for name, view in views.items():
        d_out, d_hidden, d_in = view.sizes
        roles[name] = f"ordinary, {view.activation}, {d_in} → {d_hidden}"
        roles[name] += "" if view.gives == "neurons" else f" → {d_out}"
    if before:
        roles["layers.0"] += f", behind {', '.join(before)}"
    if any(name.endswith("Imputer") for name in before):
        roles["layers.0"] += ", for rows without a missing value"
    return roles


def fitted_tensors(estimator: Any) -> Store:
    """Return the matrices and biases of a fitted MLP."""
    found = {}
    for part in FITTED:
        for index, array in enumerate(getattr(estimator, part)):
            name, one = f"{part}.{index}", torch.as_tensor(array)
            fetch = partial(block_of, one)
            found[name] = StoredTensor(Path(part), name, tuple(one.shape), one.dtype, fetch)
    return found


def check_estimator(estimator: object) -> str:
    """Return the class of a fitted MLP of scikit-learn."""
    bases = [base for base in type(estimator).__mro__ if base.__module__.startswith("sklearn.")]
    kind = next((base.__name__ for base in bases if base.__name__ in ESTIMATORS), None)
    if kind is None:
        inner = ": pass its best_estimator_." if hasattr(estimator, "best_estimator_") else "."
        if hasattr(estimator, "loaded_model"):
            inner = ": pass it alone, pipeline[-1]; it reads the columns as it receives them."
        raise UsageError(
            f"a {type(estimator).__name__} is no MLP of scikit-learn; expected a fitted "
            f"{' or '.join(ESTIMATORS)}, or a Pipeline that ends in one{inner}"
        )
    if not hasattr(estimator, "coefs_"):
        raise UsageError(f"the {kind} is not fitted: call its fit(X, y) first.")
    if not is_of_sklearn(estimator):
        raise UsageError(
            f"the {type(estimator).__name__} has a predict or predict_proba of its own, which is "
            f"not read: pass a {kind} with its coefs_ and intercepts_."
        )
    return kind


def layers_of(estimator: Any) -> list[MLPWeights]:
    """Return the layers of an estimator; the last one reaches to the logits or outputs."""
    weights = [tensor(f"coefs_[{k}]", part).T for k, part in enumerate(estimator.coefs_)]
    biases = [tensor(f"intercepts_[{k}]", part) for k, part in enumerate(estimator.intercepts_)]
    activation = activation_named(estimator.activation).phi
    if one_logit(estimator):
        half = torch.tensor([[-0.5], [0.5]], dtype=weights[-1].dtype)
        weights[-1], biases[-1] = half @ weights[-1], half @ biases[-1]
    if len(weights) == 1:  # no hidden layer
        wide = torch.eye(weights[0].shape[1], dtype=weights[0].dtype)
        return [MLPWeights(weights[0], wide, Activation("identity"), constant=biases[0])]
    *ups, down = weights
    layers = [
        MLPWeights(torch.eye(len(up), dtype=up.dtype), up, activation, bias)
        for up, bias in zip(ups, biases[:-1], strict=True)
    ]
    layers[-1] = replace(layers[-1], down=down, constant=biases[-1])
    return layers


def tensor(name: str, array: Any) -> Tensor:
    return check_finite(name, torch.tensor(array))


def one_logit(estimator: Any) -> bool:
    """Tell whether it is a classifier of two classes with one logit."""
    classes = getattr(estimator, "classes_", ())
    return len(classes) == 2 and estimator.n_outputs_ == 1


def head_of(estimator: Any) -> str | None:
    """Return the output activation of an estimator; None for none."""
    if one_logit(estimator):
        return "softmax of −z/2 and z/2, z the one logit of the estimator"
    name = estimator.out_activation_
    return {"identity": None, "logistic": "sigmoid of each logit"}.get(name, name)


# ---- the steps before it


def names_of_steps(step: Any) -> Iterator[str]:
    """Yield the steps inside a step that are known to be affine; refuse any other."""
    if step is None or isinstance(step, str):  # passthrough and drop
        return
    name = type(step).__name__
    own, parts = is_of_sklearn(step), getattr(step, PARTS.get(name, ""), None)
    if own and parts is not None:
        for part in parts:
            yield from names_of_steps(part[1])
        return
    affine = all(getattr(step, key, wanted) in (wanted,) for key, wanted in OPTIONS.items())
    missing = getattr(step, "missing_values", nan)
    if not (own and name in AFFINE and affine and isinstance(missing, float) and isnan(missing)):
        raise UsageError(
            f"the step {name} before the MLP is not affine, as far as is known: pass the MLP "
            "alone, pipeline[-1], with inputs as it receives them. Known steps: "
            f"{', '.join(AFFINE)}, without clipping, and for NaN alone."
        )
    yield name


def receiver_of(step: Any) -> Any:
    """Return the estimator that reads the inputs of a step first; None for a text or None."""
    if type(step).__name__ not in ("Pipeline", "FeatureUnion"):
        return None if isinstance(step, str) else step
    found = (receiver_of(part) for _, part in getattr(step, PARTS[type(step).__name__]))
    return next((one for one in found if one is not None), None)


def is_of_sklearn(estimator: Any, package: str = "sklearn.") -> bool:
    """Tell whether what it computes is a package's own code, and no subclass's or object's."""
    for name in OWN_METHODS:
        home = next((one for one in type(estimator).__mro__ if name in vars(one)), None)
        if name in vars(estimator) or (home and not home.__module__.startswith(package)):
            return False
    return True


def affine_map_of(steps: Any) -> tuple[Tensor, Tensor]:
    """Return matrix (out, in) and shift of steps that are known to be affine."""
    width = getattr(receiver_of(steps), "n_features_in_", None)
    if width is None:
        raise UsageError("the steps before the MLP are not fitted: call fit(X, y) of the pipeline.")
    unit = STEP * torch.eye(width, dtype=torch.float64)
    above, below = transformed(steps, unit), transformed(steps, -unit)
    shift = transformed(steps, torch.zeros(1, width, dtype=torch.float64))[0]
    return ((above - below) / (2 * STEP)).T, shift


def transformed(steps: Any, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of overflow, and of the versions of others
        made = steps.transform(as_table(steps, x))  # a table of pandas where set_output asks
    return torch.tensor(np.asarray(made, dtype=np.float64))


def as_table(estimator: Any, x: Tensor) -> Any:
    """Return inputs as an estimator was fitted on them: a table where its columns had names."""
    columns = getattr(receiver_of(estimator), "feature_names_in_", None)
    if columns is not None:
        with suppress(ImportError):
            import pandas

            return pandas.DataFrame(x.numpy(), columns=columns)
    return x.numpy()


# ---- the comparison


def compare_with_estimator(
    whole: Any, fitted: Any, layers: list[MLPWeights], x: Tensor
) -> Agreement:
    """Return how far the layers are from what the estimator itself says of the same inputs."""
    is_classifier = hasattr(fitted, "classes_")
    several = is_classifier and fitted.out_activation_ == "logistic" and not one_logit(fitted)

    def predict(x: Tensor) -> Tensor:
        for layer in layers:
            x = in_dtype(layer, x.dtype)(x)
        if not is_classifier:
            return x
        return x.sigmoid() if several else x.softmax(dim=-1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inputs without the names of columns are meant
        said = np.asarray(whole.predict(as_table(whole, x)))
        expected = whole.predict_proba(as_table(whole, x)) if is_classifier else said
    made, found = torch.as_tensor(np.asarray(expected)).reshape(len(x), -1), predict(x)
    if made.shape != found.shape:
        raise NumericalError(
            f"the {type(whole).__name__} gives {made.shape[1]} numbers and its layers "
            f"{found.shape[1]}: fit it to two classes or more."
        )
    made = made.log() if fitted.out_activation_ == "exp" else made
    check = agreement_with_outputs(f"the {type(whole).__name__}'s own outputs", x, made, predict)
    if several and said.shape != found.shape:
        raise NumericalError(
            f"the {type(whole).__name__} has a logistic output of {found.shape[1]} numbers and "
            "says one class: its probabilities are not those of its layers. Fit it anew, or set "
            "its out_activation_ to what it was fitted with."
        )
    if several:
        agree, gap = (found > 0.5).numpy() == (said == 1), (found - 0.5).abs().numpy()
    elif is_classifier:
        agree = fitted.classes_[found.argmax(dim=1)] == said
        gap = found.topk(2, dim=1).values.diff(dim=1).abs()[:, 0].numpy()
    if is_classifier and not agree[gap > CLEAR].all():
        raise NumericalError(
            f"predict of the {type(whole).__name__} is not the class of the largest probability "
            "(of several labels, those above 0.5): what is read would be another function. Pass "
            "the MLP that it was made of."
        )
    return check
