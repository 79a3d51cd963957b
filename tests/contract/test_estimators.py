"""Guards against reading an estimator of scikit-learn as another function than it computes."""

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject, strategies as st
from torch import Tensor

import bilens as bl
from bilens.api.given_data import interface_of, performance_of
from bilens.base.errors import BilensError, CheckpointError, NumericalError, UsageError
from bilens.data.labelled_data import labelled
from bilens.io.estimator import AFFINE
from bilens.records.common import DataOrigin
from bilens.train.layer_fit import ConversionRecipe
from contract.drawn import drawn, fewer
from contract.table import cell

pytest.importorskip("sklearn")
pandas = pytest.importorskip("pandas")
from sklearn.base import BaseEstimator, TransformerMixin  # noqa: E402
from sklearn.cluster import FeatureAgglomeration  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.linear_model import LinearRegression, Ridge  # noqa: E402
from sklearn.neighbors import NeighborhoodComponentsAnalysis  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline  # noqa: E402

from sklearn import (  # noqa: E402
    decomposition,
    discriminant_analysis,
    feature_selection as chosen,
    impute,
    preprocessing as made_ready,
    random_projection as projected,
)

ROWS, COLUMNS = 80, 5
ACTIVATIONS = ("relu", "tanh", "logistic", "identity")
TARGETS = ("bools", "words", "numbers", "three", "labels", "one", "two", "counts")
SEEDS = st.integers(0, 10_000)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step of training does not converge
        yield


def rows(seed: int, spread: float = 1.0) -> Any:
    """Columns of other means and sizes each."""
    generator = np.random.default_rng(seed)
    scales = np.array([1.0, 1e-3, 40.0, 7.0, 0.2]) * spread
    return generator.normal(size=(ROWS, COLUMNS)) * scales + np.array([0, 1, 900.0, -3, 5]) * spread


def answers(target: str, seed: int) -> Any:
    generator = np.random.default_rng(seed + 1)
    whole = generator.integers(0, 3, size=ROWS)
    return {
        "bools": whole > 0,
        "words": np.where(whole > 0, "b", "a"),
        "numbers": np.where(whole > 0, 10, 9),  # whose order as texts is another one
        "three": np.array([100, 20, 3])[whole],
        "labels": generator.integers(0, 2, size=(ROWS, 3)),
        "one": generator.normal(size=ROWS),
        "two": generator.normal(size=(ROWS, 2)),
        "counts": generator.poisson(2.0, size=ROWS),
    }[target]


def mlp(target: str, activation: str = "relu", hidden: tuple[int, ...] = (6, 4)) -> Any:
    options: dict[str, Any] = {"activation": activation, "max_iter": 1, "random_state": 0}
    if target in ("one", "two"):
        return MLPRegressor(hidden_layer_sizes=hidden, **options)
    if target == "counts":
        return MLPRegressor(loss="poisson", hidden_layer_sizes=hidden, **options)
    return MLPClassifier(hidden, **options)


def scattered(fitted: Any, seed: int) -> Any:
    """Weights far from their start, in place of a training."""
    generator, last = np.random.default_rng(seed), fitted[-1] if is_pipeline(fitted) else fitted
    for parts in (last.coefs_, last.intercepts_):
        for k, part in enumerate(parts):
            parts[k] = (generator.normal(size=part.shape) * 0.7).astype(part.dtype)
    return fitted


def is_pipeline(fitted: Any) -> bool:
    return isinstance(fitted, Pipeline)


def outputs(model: Any, x: Any) -> Tensor:
    y = torch.tensor(np.asarray(x, dtype=np.float64))
    for view in model.network:
        y = view.weights(torch.float64)(y)
    return y


def check(fitted: Any, x: Any, atol: float = 1e-7) -> None:
    """Compare a reading with what the estimator itself says, its classes by their names."""
    model = bl.from_sklearn(fitted)
    y, head = outputs(model, x), model.head
    if not hasattr(fitted, "classes_"):
        y = y.exp() if head == "exp" else y
        with np.errstate(over="ignore"):
            expected = fitted.predict(x).reshape(len(y), -1)
            y = y.numpy().astype(expected.dtype)  # an exponential may be too large for float32
        np.testing.assert_allclose(y, expected, rtol=atol, atol=atol)
        return
    several = head == "sigmoid of each logit"
    p = (y.sigmoid() if several else y.softmax(dim=1)).numpy()
    np.testing.assert_allclose(p, fitted.predict_proba(x), atol=atol)
    if not several:
        names = np.array(model.output_names)[p.argmax(axis=1)]
        assert [*names] == [str(one) for one in fitted.predict(x)]


@cell("load estimator", "own object", "other dtype", "other units")
@drawn
@given(
    seed=SEEDS,
    target=st.sampled_from(TARGETS),
    activation=st.sampled_from(ACTIVATIONS),
    dtype=st.sampled_from([np.float64, np.float32]),
    hidden=st.sampled_from([(6,), (6, 4), (3, 5, 4)]),
)
def test_an_estimator_is_what_it_says_itself(
    seed: int, target: str, activation: str, dtype: Any, hidden: tuple[int, ...]
) -> None:
    x, y = rows(seed).astype(dtype), answers(target, seed)
    scaler = made_ready.StandardScaler()
    for model in (
        mlp(target, activation, hidden),
        make_pipeline(scaler, mlp(target, activation, hidden)),
    ):
        try:
            fitted = scattered(model.fit(x, y), seed)
        except ValueError:  # the training itself diverged
            reject()
        far = x[:20].copy() if is_pipeline(fitted) else x[:20] / 100
        far[3] = 0
        check(fitted, far, 1e-3 if dtype == np.float32 else 1e-6)


STEPS: dict[str, Any] = {
    "StandardScaler": made_ready.StandardScaler(),
    "MinMaxScaler": made_ready.MinMaxScaler((-2, 3)),
    "MaxAbsScaler": made_ready.MaxAbsScaler(),
    "RobustScaler": made_ready.RobustScaler(unit_variance=True),
    "FunctionTransformer": made_ready.FunctionTransformer(),
    "SimpleImputer": impute.SimpleImputer(strategy="median"),
    "KNNImputer": impute.KNNImputer(),
    "PCA": decomposition.PCA(3, whiten=True),
    "IncrementalPCA": decomposition.IncrementalPCA(3),
    "TruncatedSVD": decomposition.TruncatedSVD(3),
    "FastICA": decomposition.FastICA(3, random_state=0),
    "FactorAnalysis": decomposition.FactorAnalysis(2),
    "LinearDiscriminantAnalysis": discriminant_analysis.LinearDiscriminantAnalysis(),
    "NeighborhoodComponentsAnalysis": NeighborhoodComponentsAnalysis(3, max_iter=2),
    "GaussianRandomProjection": projected.GaussianRandomProjection(3, random_state=0),
    "SparseRandomProjection": projected.SparseRandomProjection(3, random_state=0),
    "FeatureAgglomeration": FeatureAgglomeration(3),
    "VarianceThreshold": chosen.VarianceThreshold(0.01),
    "SelectKBest": chosen.SelectKBest(k=3),
    "SelectPercentile": chosen.SelectPercentile(percentile=60),
    "SelectFpr": chosen.SelectFpr(alpha=1),
    "SelectFdr": chosen.SelectFdr(alpha=1),
    "SelectFwe": chosen.SelectFwe(alpha=1),
    "SelectFromModel": chosen.SelectFromModel(Ridge(), threshold="median"),
    "GenericUnivariateSelect": chosen.GenericUnivariateSelect(mode="k_best", param=2),
    "RFE": chosen.RFE(LinearRegression(), n_features_to_select=3),
    "RFECV": chosen.RFECV(LinearRegression(), cv=2),
    "SequentialFeatureSelector": chosen.SequentialFeatureSelector(LinearRegression(), cv=2),
}


@cell("load estimator", "own object")
@pytest.mark.parametrize("name", AFFINE)
def test_a_known_step_is_what_it_says_itself(name: str) -> None:
    step, x = STEPS[name], rows(3)
    before = made_ready.StandardScaler()
    fitted = make_pipeline(before, step, mlp("numbers")).fit(x, answers("numbers", 3))
    check(scattered(fitted, 3), 3 * x - 2)


class Spike(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Affine but at one value."""

    def fit(self, x: Any, _: Any = None) -> Any:
        self.n_features_in_ = x.shape[1]
        return self

    def transform(self, x: Any) -> Any:
        return np.where(x == 7, 0.0, x)


class Clipped(made_ready.StandardScaler):  # type: ignore[misc]
    """A class that inherits from a known one, and is another function."""

    def transform(self, x: Any, copy: Any = None) -> Any:
        return np.minimum(super().transform(x, copy), 1e7)


OTHER_STEPS: dict[str, Any] = {
    "one hot": made_ready.OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    "ordinal": made_ready.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "target": made_ready.TargetEncoder(target_type="binary"),
    "clipped": made_ready.MinMaxScaler(clip=True),
    "binarised": made_ready.Binarizer(threshold=1e9),
    "bins": made_ready.KBinsDiscretizer(3, encode="ordinal"),
    "quantiles": made_ready.QuantileTransformer(n_quantiles=10),
    "powers": made_ready.PowerTransformer(),
    "normalised": made_ready.Normalizer(),
    "a function": made_ready.FunctionTransformer(lambda x: np.maximum(x, -1e8)),
    "zeros replaced": impute.SimpleImputer(missing_values=0),
    "the largest": FeatureAgglomeration(3, pooling_func=np.max),
    "of one's own": Spike(),
    "inherited": Clipped(),
    "of the same name": type("StandardScaler", (Clipped,), {})(),
    "of some columns": ColumnTransformer(
        [("a", made_ready.Binarizer(threshold=1e9), [0])], remainder="passthrough"
    ),
    "beside others": FeatureUnion([("a", made_ready.StandardScaler()), ("b", Spike())]),
    "inside": make_pipeline(made_ready.StandardScaler(), Spike()),
}


@cell("load estimator", "other function")
@pytest.mark.parametrize("name", OTHER_STEPS)
def test_a_step_that_is_not_known_to_be_affine_is_refused(name: str) -> None:
    x = np.random.default_rng(0).integers(0, 4, size=(ROWS, 3)) * 10 + 7
    fitted = make_pipeline(OTHER_STEPS[name], mlp("numbers")).fit(x, answers("numbers", 0))
    with pytest.raises(UsageError, match=r"is not affine, .*pipeline\[-1\]"):
        bl.from_sklearn(fitted)


class Careful(MLPClassifier):  # type: ignore[misc]
    def predict(self, x: Any) -> Any:
        return self.classes_[(self.predict_proba(x)[:, 1] > 0.05).astype(int)]


class Far(MLPClassifier):  # type: ignore[misc]
    def predict_proba(self, x: Any) -> Any:
        return np.where(np.abs(x).max(axis=1, keepdims=True) > 1e6, 0.5, super().predict_proba(x))


class Named(MLPClassifier):  # type: ignore[misc]
    """Adds nothing to what it computes."""

    def name(self) -> str:
        return "named"


def with_own_predict() -> Any:
    fitted = fit(mlp("words"))
    fitted.predict_proba = lambda x: np.full((len(x), 2), 0.5)
    return fitted


def fit(model: Any, target: str = "words", seed: int = 0) -> Any:
    return scattered(model.fit(rows(seed) / 50, answers(target, seed)), seed)


def with_another_order() -> Any:
    fitted = fit(mlp("three"), "three")
    fitted._label_binarizer.classes_ = fitted.classes_[::-1]  # what predict answers with
    return fitted


OTHERS: dict[str, tuple[Callable[[], Any], type[BilensError]]] = {
    "predict of its own": (lambda: fit(Careful((4,), max_iter=1)), UsageError),
    "probabilities of its own": (lambda: fit(Far((4,), max_iter=1)), UsageError),
    "of the object": (with_own_predict, UsageError),
    "another order of classes": (with_another_order, NumericalError),
}


@cell("load estimator", "other function")
@pytest.mark.parametrize("name", OTHERS)
def test_an_estimator_that_answers_otherwise_is_refused(name: str) -> None:
    build, error = OTHERS[name]
    with pytest.raises(error, match="predict"):
        bl.from_sklearn(build())


@cell("load estimator", "same function")
def test_a_class_that_adds_no_answers_is_read() -> None:
    check(fit(Named((4,), max_iter=1)), rows(0) / 50)


def changed(fitted: Any, **parts: Any) -> Any:
    copied = copy.deepcopy(fitted)
    for name, part in parts.items():
        setattr(copied, name, part)
    return copied


@cell("load estimator", "permuted units", "scaled branches", "same function")
@drawn
@given(seed=SEEDS, factor=st.floats(0.01, 100), target=st.sampled_from(TARGETS))
def test_hidden_units_in_another_order_or_scale(seed: int, factor: float, target: str) -> None:
    fitted, x = fit(mlp(target), target, seed), rows(seed) / 50
    order = np.random.default_rng(seed).permutation(6)
    (first, second, last), (bias, *others) = fitted.coefs_, fitted.intercepts_
    moved = changed(
        fitted,
        coefs_=[first[:, order] * factor, second[order] / factor, last],
        intercepts_=[bias[order] * factor, *others],
    )
    before, after = (outputs(bl.from_sklearn(one), x) for one in (fitted, moved))
    torch.testing.assert_close(before, after)


@cell("load estimator", "permuted inputs", "permuted outputs", "other names")
@drawn
@given(seed=SEEDS)
def test_columns_and_classes_go_by_their_names(seed: int) -> None:
    table = pandas.DataFrame(rows(seed), columns=["a", "b", "c", "d", "e"])
    order = np.random.default_rng(seed).permutation(COLUMNS)
    scale = ColumnTransformer(
        [("s", made_ready.StandardScaler(), ["d", "a", "c"]), ("p", "passthrough", ["e"])]
    )
    names = np.array(["x", "m", "b"])
    for words in (names, names[::-1], np.array(["10", "9", "100"])):
        y = words[answers("three", seed) % 3]
        fitted = scattered(make_pipeline(scale, mlp("three")).fit(table, y), seed)
        fitted.set_output(transform="pandas")
        model = bl.from_sklearn(fitted)
        assert model.input_names == (*table.columns,)
        check(fitted, table)
        other = make_pipeline(scale, mlp("three")).fit(table.iloc[:, order], y)
        other[-1].coefs_, other[-1].intercepts_ = fitted[-1].coefs_, fitted[-1].intercepts_
        turned = bl.from_sklearn(other)
        assert turned.input_names == (*table.columns[order],)
        x = table.to_numpy()
        torch.testing.assert_close(outputs(model, x), outputs(turned, x[:, order]))


@cell("load estimator", "other units")
@drawn
@given(seed=SEEDS, unit=st.sampled_from([1e-3, 60.0, 1e4]))
def test_a_column_in_another_unit_is_the_same_function(seed: int, unit: float) -> None:
    x, y = rows(seed), answers("words", seed)
    units = np.array([1, unit, 1, 1, 1])
    one, other = (
        make_pipeline(made_ready.StandardScaler(), mlp("words")).fit(x * by, y)
        for by in (1.0, units)
    )
    scattered(one, seed), scattered(other, seed)
    before, after = outputs(bl.from_sklearn(one), x), outputs(bl.from_sklearn(other), x * units)
    torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-6)


@cell("load estimator", "saved")
@cell("load file", "saved")
@pytest.mark.parametrize("way", ["skops", "pkl"])
def test_a_saved_estimator_is_the_estimator(way: str, tmp_path: Path) -> None:
    fitted = fit(make_pipeline(made_ready.StandardScaler(), mlp("three")), "three")
    path, x = tmp_path / f"m.{way}", rows(0) / 50
    if way == "skops":
        pytest.importorskip("skops.io").dump(fitted, path)
    else:
        path.write_bytes(pickle.dumps(fitted))
    read = bl.load(path, trust_pickle=way == "pkl")
    torch.testing.assert_close(outputs(read, x), outputs(bl.from_sklearn(fitted), x))
    assert read.output_names == tuple(map(str, fitted.classes_))


@cell("load file", "other function")
def test_a_saved_pipeline_that_is_not_affine_is_refused(tmp_path: Path) -> None:
    fitted = make_pipeline(Spike(), mlp("words")).fit(rows(0), answers("words", 0))
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(fitted))
    with pytest.raises(CheckpointError, match="step Spike before the MLP is not affine"):
        bl.load(tmp_path / "m.pkl", trust_pickle=True)


@cell("convert", "own object", "saved")
@fewer(5)
@given(seed=SEEDS)
def test_a_converted_poisson_regressor_gives_means(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    x = np.random.default_rng(seed).normal(size=(600, COLUMNS)) / 2
    fitted = scattered(mlp("counts").fit(x, answers("counts", seed).repeat(8)[:600]), seed)
    folder, y = tmp_path_factory.mktemp("converted"), fitted.predict(x)
    recipe = ConversionRecipe(n_ctx=1, tokens=2000, layer_steps=5, batch_size=64)
    bl.convert_network(fitted, (x, y), folder, recipe, overwrite=True)
    read = bl.load(folder)
    for model in (bl.from_sklearn(fitted), read):
        assert model.head == "exp"
        origin = DataOrigin("d", "d", "arrays", len(x), "")
        rows_of_it = labelled(x, y, origin, interface_of(model))
        found = performance_of(model, rows_of_it).regression
        means = np.exp(outputs(model, x).numpy()[:, 0])
        by_hand = 1 - ((y - means) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        assert found is not None
        assert found.r_squared == pytest.approx(by_hand, rel=1e-4)
    # not those of the logarithms of the means
    assert by_hand != pytest.approx(
        1 - ((y - np.log(means)) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    )


class Cautious(bl.sklearn.BilinearClassifier):  # type: ignore[misc]
    """An estimator of ours whose answer is another one."""

    def predict(self, x: Any) -> Any:
        return np.where(self.predict_proba(x)[:, 1] > 0.9, *self.classes_[::-1])


class Shifted(bl.sklearn.BilinearRegressor):  # type: ignore[misc]
    def predict(self, x: Any) -> Any:
        return super().predict(x) + 7


@cell("load estimator", "own object", "other function")
@pytest.mark.parametrize("kind", [Cautious, Shifted])
def test_an_estimator_of_ours_with_its_own_predict_is_refused(
    kind: type[Any], tmp_path: Path
) -> None:
    x = np.random.default_rng(0).normal(size=(80, COLUMNS))
    y = x[:, 0] * x[:, 1] + x[:, 2]
    fitted = kind().fit(x, y if kind is Shifted else y > 0)
    for read in (bl.from_sklearn, bl.audit, lambda one: one.save(tmp_path / "model")):
        with pytest.raises(UsageError, match="predict_proba of its own"):
            read(fitted)
    parent = kind.__mro__[1]().fit(x, y if kind is Shifted else y > 0)
    assert bl.from_sklearn(parent).layers
    parent.predict = fitted.predict
    with pytest.raises(UsageError, match="predict_proba of its own"):
        bl.from_sklearn(parent)


@cell("load estimator", "own object")
def test_a_search_is_read_as_what_it_predicts_with() -> None:
    """The file of a search was read, and the object itself refused."""
    from sklearn.model_selection import GridSearchCV

    x, y = rows(3), np.arange(ROWS) % 2
    inner = MLPClassifier((4,), max_iter=3, random_state=0)
    search = GridSearchCV(inner, {"alpha": [0.1, 1.0]}, cv=2).fit(x, y)
    read = bl.from_sklearn(search)
    logits = torch.as_tensor(np.asarray(x), dtype=torch.float64)
    for layer in read.layers.values():
        logits = layer.weights(torch.float64)(logits)
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), search.predict_proba(x), atol=1e-6)

    class Own(GridSearchCV):  # type: ignore[misc]
        def predict(self, x: Any) -> Any:
            return 1 - super().predict(x)

    with pytest.raises(UsageError, match="best_estimator_"):
        bl.from_sklearn(Own(inner, {"alpha": [0.1]}, cv=2).fit(x, y))


def test_an_output_that_is_none_of_its_classes_is_refused(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((90, 4))
    fitted = MLPClassifier((6,), max_iter=20, random_state=0)
    fitted.fit(x, np.array(["a", "b", "c"])[np.arange(90) % 3])
    fitted.out_activation_ = "logistic"
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(fitted))
    with pytest.raises(NumericalError, match="logistic output of 3 numbers and says one class"):
        bl.load(tmp_path / "m.pkl", trust_pickle=True)
