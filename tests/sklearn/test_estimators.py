"""The estimators, as scikit-learn and its users meet them."""

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import bilens as bl
from bilens.base.errors import BilensWarning, MissingExtraError, UsageError

WINE = load_wine(as_frame=True)
DIABETES = load_diabetes(as_frame=True)


@parametrize_with_checks([bl.sklearn.BilinearClassifier(), bl.sklearn.BilinearRegressor()])
def test_scikit_learn_finds_no_fault(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


FIXED = {"alpha": 3.0, "column_scale": "standard", "quadratic_scale": 0.3}  # nothing to choose


def wine(**options: Any) -> Any:
    return bl.sklearn.BilinearClassifier(**FIXED | options).fit(WINE.data, WINE.target)


def diabetes(**options: Any) -> Any:
    return bl.sklearn.BilinearRegressor(**FIXED | options).fit(DIABETES.data, DIABETES.target)


def test_the_map_in_units_of_the_columns_is_what_is_predicted() -> None:
    x = torch.tensor(WINE.data.to_numpy())
    model = wine()
    probabilities = torch.softmax(model.quadratic_map_(x), dim=1).numpy()
    np.testing.assert_allclose(probabilities, model.predict_proba(WINE.data), atol=1e-10)
    regressor = diabetes()
    x = torch.tensor(DIABETES.data.to_numpy())
    outputs = regressor.quadratic_map_(x)[:, 0].numpy()
    np.testing.assert_allclose(outputs, regressor.predict(DIABETES.data), rtol=1e-9)


@pytest.mark.parametrize("data", [WINE, DIABETES], ids=["classes", "numbers"])
def test_rows_of_no_weight_are_neither_fitted_to_nor_split(data: Any) -> None:
    kind = bl.sklearn.BilinearClassifier if data is WINE else bl.sklearn.BilinearRegressor
    weights = np.random.default_rng(0).integers(0, 2, len(data.target))
    kept, target = weights > 0, data.target.mask(weights == 0, 1e9 if data is DIABETES else 0)
    options = {"random_state": 3}
    weighted = kind(**options).fit(data.data, target, sample_weight=weights)
    without = kind(**options).fit(data.data[kept], data.target[kept])
    assert weighted.choice_.tried
    assert weighted.choice_ == without.choice_


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({0: 1.0, 7: 2.0}, r"names 7, which is none of the classes of y, \[0, 1, 2\]"),
        ({0: 0.0}, "gives 0 the weight 0.0; .* leave its rows out"),
        ({0: -1}, "gives 0 the weight -1;"),
        ({0: float("inf")}, "gives 0 the weight inf;"),
        ({0: "much"}, "gives 0 the weight 'much';"),
    ],
)
def test_class_weights_are_of_classes_and_above_zero(given: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        wine(class_weight=given)


def test_balanced_classes_are_the_weights_that_make_them_so() -> None:
    counts = WINE.target.value_counts()
    given = {label: len(WINE.target) / (3 * count) for label, count in counts.items()}
    balanced, by_hand = wine(class_weight="balanced"), wine(class_weight=given)
    weights = WINE.target.map(given)
    by_row = bl.sklearn.BilinearClassifier(**FIXED).fit(
        WINE.data, WINE.target, sample_weight=weights
    )
    for other in (by_hand, by_row):
        np.testing.assert_allclose(
            balanced.predict_proba(WINE.data), other.predict_proba(WINE.data), atol=1e-9
        )


def test_effects_and_interactions_are_the_coefficients_of_the_map() -> None:
    """Rebuilt from the two tables alone, the form of a class is the prediction."""
    model = wine()
    z = ((WINE.data - model.mean_) / model.scale_).iloc[:20]
    effects, pairs = model.effects_, model.interactions_
    assert pairs.groupby("output").size().tolist() == [78, 78, 78]
    for place, name in enumerate(["0", "1", "2"]):
        total = np.full(len(z), float(model.standard_map_.constant[place]))
        for row in effects[effects.output == name].itertuples():
            total += row.linear * z[row.column] + row.square * z[row.column] ** 2
        for row in pairs[pairs.output == name].itertuples():
            total += row.coefficient * z[row.first] * z[row.second]
        expected = model.decision_function(WINE.data.iloc[:20])[:, place]
        np.testing.assert_allclose(total, expected, atol=1e-10)
        sizes = pairs[pairs.output == name].coefficient.abs()
        assert sizes.is_monotonic_decreasing
    first = pairs.iloc[0]
    i, j = WINE.data.columns.get_loc(first["first"]), WINE.data.columns.get_loc(first["second"])
    form = model.quadratic_map_.form(torch.eye(3, dtype=torch.float64)[int(first["output"])])
    assert first["raw_coefficient"] == pytest.approx(2 * float(form.dense()[i, j]), rel=1e-9)


def test_attributions_add_up() -> None:
    model = diabetes()
    parts = model.attribute(DIABETES.data)
    assert parts.shape == (442, 1, 10)
    start = model.predict(pd.DataFrame([model.mean_], columns=DIABETES.data.columns))
    np.testing.assert_allclose(parts.sum(axis=(1, 2)) + start, model.predict(DIABETES.data))


def test_a_saved_model_is_loaded_with_its_names(tmp_path: Path) -> None:
    model = wine()
    loaded = bl.load(model.save(tmp_path / "wine"))
    assert loaded.input_names == tuple(WINE.data.columns)
    assert loaded.output_names == ("0", "1", "2")
    x = torch.tensor(WINE.data.to_numpy())
    torch.testing.assert_close(loaded.module(x), torch.tensor(model.decision_function(WINE.data)))
    regressor = bl.load(diabetes().save(tmp_path / "diabetes"))
    assert tuple(regressor.layers["layers.0"].quadratic_map.sizes)[::2] == (1, 10)


def test_few_components_are_the_products_of_the_leading_directions() -> None:
    model = wine(n_components=2)
    z = (WINE.data.to_numpy() - model.mean_) / model.scale_
    leading = np.linalg.svd(z, full_matrices=False)[2][:2]
    dense = model.standard_map_.form(torch.tensor([1.0, 0.0, 0.0]).double()).dense().numpy()
    outside = np.eye(13) - leading.T @ leading
    assert np.abs(dense @ outside).max() < 1e-12 * np.abs(dense).max() + 1e-15
    with pytest.raises(ValueError, match="n_components is 14, and the table has 13 columns"):
        wine(n_components=14)


def test_a_fit_that_did_not_converge_says_so() -> None:
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        wine(max_iter=2)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ValueError, match="one class"):
        bl.sklearn.BilinearClassifier().fit([[1.0], [2.0]], ["a", "a"])
    with pytest.raises(ValueError, match=r"[Ww]eight"):
        bl.sklearn.BilinearRegressor().fit([[1.0], [2.0]], [1.0, 2.0], sample_weight=[0, 0])
    for kind in (bl.sklearn.BilinearClassifier, bl.sklearn.BilinearRegressor):
        with pytest.raises(ValueError, match=r"y has 2 columns; .* fit one estimator for each"):
            kind().fit([[1.0], [2.0]], [[0, 1], [1, 0]])


def test_a_verbose_fit_says_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    model = wine(verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[0].startswith("alpha 3, iteration 1: loss 1.0986123, gradient ")
    wine()
    assert capsys.readouterr().out == ""


def test_an_estimator_is_audited_as_the_model_that_it_saves(tmp_path: Path) -> None:
    model = wine()
    here = bl.audit(model, fail_on=["exact"])
    there = bl.audit(bl.load(model.save(tmp_path / "wine")), fail_on=["exact"])
    assert here.passed
    assert here.to_dict()["columns"]["outputs"] == there.to_dict()["columns"]["outputs"]
    assert bl.quadratic_fit(model).exact
    share = bl.audit(model, (WINE.data, WINE.target)).record.performance.classification.accuracy
    assert share.value == pytest.approx(model.score(WINE.data, WINE.target))
    with pytest.raises(UsageError, match=r"pass it alone, pipeline\[-1\]"):
        bl.audit(make_pipeline(StandardScaler(), bl.sklearn.BilinearClassifier()))


def test_odd_columns_are_named_before_the_fit_and_stay_with_the_model(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(50, 9, (200, 3)), columns=["income", "age", "days"])
    frame.loc[::40, "income"], frame.loc[::2, "days"] = 999999.4, 7
    target = np.where(frame.days == 7, "no", np.where(frame.age > 50, "yes", "no"))
    with pytest.warns(BilensWarning) as told:
        model = bl.sklearn.BilinearClassifier().fit(frame, target)
    odd, deciding = (str(one.message) for one in told)
    assert odd.startswith("income: 5 cells of the training rows hold 999999.4, far outside all")
    assert "days: in all training rows where it is “7” (100 rows, 50%" in deciding
    assert "the answer is “no”" in deciding
    assert {one.filename for one in told} == {__file__}  # where the user fits
    loaded = bl.load(model.save(tmp_path / "model"))
    for each in (model, loaded):
        done = bl.audit(each, (frame, target)).record.columns.reading.done
        assert [one.kind for one in done[:2]] == ["sentinel", "decides"]
        assert done[2:] == model.choice_.conversions()


def test_the_choice_goes_along_without_ranks_and_indicators_are_still_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame({"age": random.normal(50, 9, 200), "colour": ["red", "blue"] * 100})
    target = table.age + 9 * (table.colour == "red")
    model = bl.sklearn.BilinearRegressor(column_scale="standard")
    model.fit(pd.get_dummies(table, prefix_sep="=").astype(float), target)
    assert not any(model.curves_)
    table.assign(answer=target).to_csv(tmp_path / "rows.csv", index=False)
    loaded = bl.load(model.save(tmp_path / "model"))
    found = bl.audit(loaded, tmp_path / "rows.csv", labels="answer").record
    assert found.columns.reading.done == model.choice_.conversions()
    assert found.performance.regression.r_squared == pytest.approx(1, abs=1e-3)


def test_what_changed_does_not_depend_on_the_units_of_the_columns() -> None:

    def compared(data: Any) -> Any:
        old, new = (
            bl.sklearn.BilinearClassifier(alpha=alpha).fit(data, WINE.target) for alpha in (3, 4)
        )
        document = bl.audit(new, baseline=old).to_dict()
        return document["difference"]["layers"][0], document["column_changes"]["outputs"]

    (layer, change), (again, same) = (
        compared(data) for data in (WINE.data, WINE.data.assign(hue=1000 * WINE.data["hue"]))
    )
    assert layer["change"] == pytest.approx(again["change"])
    for one, other in zip(change, same, strict=True):
        assert [x["column"] for x in one["columns"]] == [x["column"] for x in other["columns"]]
        assert one["columns"][0]["size"] == pytest.approx(other["columns"][0]["size"])


def test_constant_columns_take_no_part() -> None:
    data = WINE.data.assign(constant=1e6 / 3)
    model = bl.sklearn.BilinearClassifier(**FIXED).fit(data, WINE.target)
    np.testing.assert_allclose(
        model.predict_proba(data), wine().predict_proba(WINE.data), atol=1e-10
    )
    assert not model.effects_.set_index("column").loc["constant", "size"].any()


def test_a_report_names_the_columns(tmp_path: Path) -> None:
    report = wine().report(WINE.data, WINE.target)
    assert report.passed
    document = report.to_dict()
    assert document["model"]["input_names"] == list(WINE.data.columns)
    assert document["performance"]["classification"]["accuracy"]["value"] > 0.97
    assert "flavanoids" in report.to_html(tmp_path / "wine.html", lang="ja")
    numbers = diabetes().report()
    assert numbers.to_dict()["model"]["task"] == "regression"
    with pytest.raises(ValueError, match="y holds '7'"):
        wine().report(WINE.data, WINE.target + 7)
    with pytest.raises(ValueError, match="needs the targets"):
        wine().report(WINE.data)


@pytest.mark.parametrize("absent", ["sklearn", "pandas"])
def test_without_the_packages_the_extra_is_named(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "bilens.sklearn")
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bilens\[sklearn\]'"):
        importlib.import_module("bilens.sklearn")
