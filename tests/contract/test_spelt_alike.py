"""Guards against names that differ in case, width or spaces alone and are taken for one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.neural_network import MLPClassifier

import bilens as bl
from bilens.base.errors import DataError
from bilens.data.model_interface import ClassIndex, ClassName, ModelInterface
from contract.table import cell

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
ROWS = 90
ALIKE = [
    ("A", "a", "b"),
    ("co", "CO", "x"),
    ("ｂ", "a", "b"),
    ("a b", "a  b", "c"),
    ("ß", "ss", "t"),
]
BY_SPACES = [(" a", "a", "b"), ("a ", "a", "b"), (" 1", "1", "2")]


def rows_of(names: tuple[str, ...]) -> tuple[pd.DataFrame, np.ndarray]:
    """Three columns, and a class that the largest of them tells mostly."""
    rng, k = np.random.default_rng(0), np.arange(ROWS) % 3
    x = pd.DataFrame(rng.normal(size=(ROWS, 3)) + 2 * np.eye(3)[k], columns=["p", "q", "r"])
    return x, np.array(names)[k]


def classifier(names: tuple[str, ...]) -> MLPClassifier:
    return MLPClassifier((4,), max_iter=60, random_state=0).fit(*rows_of(names))


def told(model: MLPClassifier, data: object, labels: str | None = None) -> list[object]:
    found = bl.audit(bl.from_sklearn(model), data=data, labels=labels)
    performance = found.record.performance
    assert performance is not None
    assert performance.classification is not None
    every = performance.classification
    return [every.accuracy.value, [each.recall and each.recall.total for each in every.classes]]


@cell("load estimator", "other names")
@cell("audit", "other names")
@pytest.mark.parametrize("names", [*ALIKE, *BY_SPACES])
def test_right_answers_that_are_spelt_alike_are_told_apart(names: tuple[str, ...]) -> None:
    model, (x, y) = classifier(names), rows_of(names)
    assert told(model, (x, y)) == [pytest.approx(model.score(x, y)), [ROWS / 3] * 3]


@cell("audit", "other names")
@pytest.mark.parametrize("names", ALIKE)
def test_right_answers_of_a_table_are_told_apart(names: tuple[str, ...], tmp_path: Path) -> None:
    model, (x, y) = classifier(names), rows_of(names)
    x.assign(gene=y).to_csv(tmp_path / "t.csv", index=False)
    found = told(model, tmp_path / "t.csv", "gene")
    assert found == [pytest.approx(model.score(x, y)), [ROWS / 3] * 3]


@cell("audit", "other names")
@pytest.mark.parametrize(
    ("names", "written"),
    [*((names, names) for names in BY_SPACES), (("A", "a", "b"), ("Ａ", "a", "b"))],
)
def test_an_answer_of_a_table_that_may_be_two_classes_is_refused(
    names: tuple[str, ...], written: tuple[str, ...], tmp_path: Path
) -> None:
    x, y = rows_of(written)  # a table's cells are read without spaces around them
    x.assign(gene=y).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"row 2 .* 'gene'; expected the exact text of one"):
        told(classifier(names), tmp_path / "t.csv", "gene")


@cell("train table", "other names")
def test_indicators_that_are_spelt_alike_are_told_apart(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "t.csv"
    texts = np.array(["Red", "red", "blue"])[np.arange(ROWS) % 3]
    table = pd.DataFrame({"z": rng.normal(size=ROWS), "c": texts})
    x = pd.get_dummies(table, prefix_sep="=").astype(float)
    y = table.z + 2.0 * (texts == "Red") - 3 * (texts == "red")
    model = bl.sklearn.BilinearRegressor().fit(x, y)
    table.assign(y=y).to_csv(path, index=False)
    found = bl.audit(model, data=path, labels="y").record.performance
    assert found is not None
    assert found.regression is not None
    assert found.regression.r_squared == pytest.approx(model.score(x, y))
    table.assign(y=y, c=np.where(texts == "Red", "RED", texts)).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"'RED' in column 'c'; expected the exact text of one"):
        bl.audit(model, data=path, labels="y")


@cell("audit", "permuted inputs")
def test_one_column_is_not_two_inputs(tmp_path: Path) -> None:
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(ROWS, 2)), columns=["a", "a "])
    model = bl.sklearn.BilinearRegressor().fit(x, x["a"] - 3 * x["a "])
    x[["a"]].assign(y=x["a"]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="two, of the name 'a'"):
        bl.audit(model, data=tmp_path / "t.csv", labels="y")


@cell("audit", "other names")
@pytest.mark.parametrize("name_first", [False, True])
def test_a_position_beside_names_is_no_name(name_first: bool) -> None:
    """Classes are called by the other's number: both labels are of the first class."""
    face = ModelInterface(3, 2, "classification", output_names=("1", "0"))
    labels = [ClassName("1"), ClassIndex(0)] if name_first else [ClassIndex(0), ClassName("1")]
    assert face.encode_labels("labels", labels).tolist() == [0, 0]
