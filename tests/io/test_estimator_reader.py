"""Fitted MLPs of scikit-learn: the same outputs, with the names that the estimator has."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import bilens as bl
from bilens.base.errors import NonFiniteError, UsageError

network = pytest.importorskip("sklearn.neural_network")
ROWS, D_IN = 60, 4
X = np.random.default_rng(0).normal(size=(ROWS, D_IN))
TARGETS: dict[str, Any] = {
    "two classes": np.where(X[:, 0] > 0, "yes", "no"),
    "three classes": np.digitize(X[:, 0], [-0.5, 0.5]),
    "three labels": (X[:, :3] > 0).astype(int),
    "one number": X[:, 0],
    "two numbers": X[:, :2],
}


def fitted(target: str, hidden: tuple[int, ...] = (6, 5), **options: Any) -> Any:
    kind = network.MLPRegressor if "number" in target else network.MLPClassifier
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge in three steps
        return kind(hidden_layer_sizes=hidden, max_iter=3, random_state=0, **options).fit(
            X, TARGETS[target]
        )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_the_layers_are_the_estimator(target: str, activation: str) -> None:
    estimator = fitted(target, activation=activation)
    model = bl.from_sklearn(estimator)
    y = torch.tensor(X)
    for view in model.network:
        y = view.weights()(y)
    if "number" in target:
        expected = estimator.predict(X).reshape(ROWS, -1)
    else:
        y = y.softmax(dim=-1) if "classes" in target else y.sigmoid()
        expected = estimator.predict_proba(X)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    assert model.load_report is not None
    assert model.load_report.max_error < 1e-12
    wanted = {"identity": "identity", "logistic": "sigmoid"}.get(activation, activation)
    assert {view.activation.name for view in model.layers.values()} == {wanted}


def test_two_classes_have_two_logits_and_their_names() -> None:
    estimator = fitted("two classes")
    model = bl.from_sklearn(estimator)
    assert model.output_names == ("no", "yes")
    assert model.network[-1].sizes.d_out == 2
    assert model.network[-1].gives == "logits"
    assert model.load_report is not None
    assert "z the one logit" in str(model.load_report.head)


def test_columns_keep_their_names() -> None:
    pandas = pytest.importorskip("pandas")
    estimator = fitted("one number")
    assert bl.from_sklearn(estimator).input_names is None
    table = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(table, X[:, 0])
    assert bl.from_sklearn(estimator).input_names == ("a", "b", "c", "d")


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5, 4)])
def test_any_number_of_hidden_layers(hidden: tuple[int, ...]) -> None:
    model = bl.from_sklearn(fitted("three classes", hidden))
    assert len(model.network) == max(len(hidden), 1)


def test_an_estimator_is_fitted_end_to_end() -> None:
    estimator = fitted("one number", activation="tanh")
    fit = bl.quadratic_fit(estimator, data=torch.tensor(X), samples=200)
    assert fit.on_data is not None
    assert fit.on_data.quadratic.overall > 0.9


def broken() -> Any:
    estimator = fitted("one number")
    estimator.coefs_[1][2, 3] = np.nan
    return estimator


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "not fitted": (network.MLPClassifier, UsageError, "is not fitted: call its fit"),
    "a number": (lambda: 3, UsageError, "a int is no MLP of scikit-learn; expected a fitted"),
    "the class": (lambda: network.MLPClassifier, UsageError, "a ABCMeta is no MLP"),
    "a path": (lambda: "model.pkl", UsageError, "a str is no MLP of scikit-learn"),
    "NaN": (broken, NonFiniteError, r"coefs_\[1\] holds 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_fitted_mlp_is_refused(name: str) -> None:
    build, error, words = BAD[name]
    with pytest.raises(error, match=words):
        bl.from_sklearn(build())


@pytest.mark.parametrize("target", ["two classes", "two numbers"])
def test_affine_steps_of_a_pipeline_join_the_first_layer(target: str) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    decomposition = pytest.importorskip("sklearn.decomposition")
    kind = network.MLPRegressor if "number" in target else network.MLPClassifier
    steps = (preprocessing.StandardScaler(), decomposition.PCA(3), kind((5,), max_iter=3))
    if "number" in target:
        steps = (*steps[:2], kind(hidden_layer_sizes=(5,), max_iter=3))
    pipeline = pytest.importorskip("sklearn.pipeline").make_pipeline(*steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.fit(3 * X + 1, TARGETS[target])
    model = bl.from_sklearn(pipeline)
    assert model.network[0].sizes.d_in == D_IN
    y = model.network[0].weights(torch.float64)(torch.tensor(X))
    expected = pipeline.predict_proba(X) if "classes" in target else pipeline.predict(X)
    np.testing.assert_allclose(y.softmax(-1) if "classes" in target else y, expected, atol=1e-9)
    assert model.load_report is not None
    assert "the Pipeline's own outputs" in model.load_report.worst.source


def test_a_step_that_is_not_affine_is_refused() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    scaler = preprocessing.MinMaxScaler(clip=True)
    pipeline = pytest.importorskip("sklearn.pipeline").make_pipeline(
        scaler, network.MLPRegressor(max_iter=2)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.fit(X, X[:, 0])
    with pytest.raises(UsageError, match=r"step MinMaxScaler .* is not affine.*pipeline\[-1\]"):
        bl.from_sklearn(pipeline)
