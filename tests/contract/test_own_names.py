"""Guards against guessing from how names look whether a model, or a table, has any.

Each was seen to fail: classes called 0, 1, 2 and columns called x0, x1 were taken for no names, so
that other classes and columns were compared (digits 1–9 beside 0–9: 525 answers told as changed
where 85 were), and a table with other columns was read by place.
"""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bilens as bl
from bilens.api.training import train_image
from bilens.base.errors import DataError, UsageError
from bilens.io.loaded_model import LoadedModel
from contract.compared_models import compared, copied, table
from contract.table import cell

pytest.importorskip("sklearn")
pandas = pytest.importorskip("pandas")
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402
from sklearn.pipeline import FeatureUnion, Pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

FEW = {"null_samples": 39}
OURS = (bl.sklearn.BilinearClassifier, bl.sklearn.BilinearRegressor)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training does not converge
        yield


def mlp() -> Any:
    return MLPClassifier((8,), max_iter=60, random_state=0)


def clusters(count: int = 150) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows of three columns, and their class, 0 to 2."""
    kind = np.arange(count) % 3
    return np.random.default_rng(0).normal(size=(count, 3)) + 3 * np.eye(3)[kind], kind


def notes(document: dict[str, Any]) -> dict[str, list[str]]:
    return {one["kind"]: one["names"] for one in document["difference"]["aligned"]}


# ---- two models


@cell("compare", "other names")
def test_classes_that_are_called_by_numbers_are_compared_by_name() -> None:
    x, kind = clusters()
    before, after = mlp().fit(x, kind), mlp().fit(x, kind + 1)
    found = compared(after, before, (x, kind + 1), **FEW)
    told = notes(found)
    assert (told["outputs_alone"], told["baseline_outputs_alone"]) == (["3"], ["0"])
    assert "by_place" not in told
    changed = int((before.predict(x) != after.predict(x)).sum())
    assert found["difference"]["answers"]["changed"] == changed == len(x)


@cell("compare", "other names")
def test_a_digit_that_is_left_out_moves_no_other() -> None:
    digits = load_digits()
    x, kind = digits.data[:300] / 16, digits.target[:300]
    kept = kind > 0
    before, after = mlp().fit(x, kind), mlp().fit(x[kept], kind[kept])
    found = compared(after, before, (x[kept], kind[kept]), **FEW)
    changed = int((before.predict(x[kept]) != after.predict(x[kept])).sum())
    assert found["difference"]["answers"]["changed"] == changed
    assert notes(found)["baseline_outputs_alone"] == ["0"]


@cell("compare", "other names")
def test_columns_that_are_called_by_numbers_are_compared_by_name() -> None:
    """All rules passed of a function that had moved by one column."""
    before = table(3, input_names=("x0", "x1", "x2", "x3"))
    after = copied(before, input_names=("x1", "x2", "x3", "x4"))
    found = compared(after, before)
    assert found["column_changes"]["added"] == ["x4"]
    assert found["column_changes"]["removed"] == ["x0"]
    assert "by_place" not in notes(found)


@cell("compare", "other names")
def test_a_column_that_is_left_out_is_told() -> None:
    """Widths that differ, matched by place, ended in a bare RuntimeError."""
    x = np.random.default_rng(0).normal(size=(80, 4))
    frame = pandas.DataFrame(x, columns=["x0", "x1", "x2", "x3"])
    y, fewer = 3 * x[:, 1] - x[:, 3], frame[["x1", "x2", "x3"]]
    before, after = (bl.sklearn.BilinearRegressor().fit(one, y) for one in (frame, fewer))
    changes = compared(after, before, (fewer, y))["column_changes"]
    assert (changes["added"], changes["removed"]) == ([], ["x0"])


@cell("compare", "other names")
def test_other_widths_without_names_are_not_matched() -> None:
    x = np.random.default_rng(0).normal(size=(80, 4))
    before, after = (bl.sklearn.BilinearRegressor().fit(x[:, :n], x[:, 0]) for n in (4, 3))
    changes = compared(after, before, (x[:, :3], x[:, 0]))["column_changes"]
    assert (changes["added"], changes["removed"]) == (["x0 … x2"], ["x0 … x3"])
    assert changes["change"] is None
    assert changes["rows"] == 0


@cell("compare", "saved", "other names")
@pytest.mark.parametrize("kind", OURS)
def test_an_estimator_that_was_fitted_without_names_is_matched_by_place(
    kind: Any, tmp_path: Path
) -> None:
    x, y = clusters()
    bare, named = kind().fit(x, y), kind().fit(pandas.DataFrame(x, columns=["p", "q", "r"]), y)
    bare.save(tmp_path / "bare")
    for one in (bare, bl.load(tmp_path / "bare")):
        found = compared(named, one)
        assert "inputs" in notes(found)["by_place"]
        assert found["column_changes"]["added"] == []
        assert found["difference"]["layers"][0]["change"] < 1e-9


@cell("compare", "other names")
def test_classes_that_nobody_named_have_no_names(tmp_path: Path) -> None:
    """Those of images in memory, which are numbered, beside the same with names."""
    x, kind = torch.rand(40, 4, 4), torch.arange(40) % 3
    options: dict[str, Any] = {"d_hidden": 3, "epochs": 1, "batch_size": 8}
    bare = bl.load(train_image(x, kind, tmp_path / "bare", **options).folder)
    assert bare.output_names is None
    named = images_like(bare, ("0", "2", "1"))
    assert notes(compared(named, bare, **FEW))["by_place"] == ["outputs"]


def images_like(model: LoadedModel, names: tuple[str, ...]) -> LoadedModel:
    return LoadedModel(copy.deepcopy(model.module), "", "", model.input_shape, names)


# ---- tables


@cell("audit", "permuted inputs", "other names")
@pytest.mark.parametrize("kind", [mlp, bl.sklearn.BilinearClassifier])
def test_a_table_with_other_columns_is_refused(kind: Any) -> None:
    x, y = clusters()
    frame = pandas.DataFrame(x, columns=["x0", "x1", "x2"])
    model = kind().fit(frame, y)
    for names in (["X0", "X1", "X2"], ["age", "height", "weight"]):
        other = frame.set_axis(names, axis=1)
        with pytest.raises(DataError, match="no columns 'x0'"):
            bl.audit(model, (other, y))
    turned = bl.audit(model, (frame[["x2", "x0", "x1"]], y)).record.performance
    assert turned.classification.accuracy.value == model.score(frame, y)


@cell("audit", "other names", "saved")
@pytest.mark.parametrize("kind", [mlp, bl.sklearn.BilinearClassifier])
def test_a_model_that_was_fitted_without_names_reads_by_place(kind: Any, tmp_path: Path) -> None:
    """Also columns that happen to be called as bilens numbers them, as its own predict does."""
    x, y = clusters()
    model = kind().fit(x, y)
    models = [model]
    if hasattr(model, "save"):
        model.save(tmp_path / "m")
        models.append(bl.load(tmp_path / "m"))
    for names in (["p", "q", "r"], ["x1", "x2", "x0"]):
        frame = pandas.DataFrame(x, columns=names)
        frame.assign(kind=y).to_csv(tmp_path / "rows.csv", index=False)
        for one in models:
            for data, more in (((frame, y), {}), (tmp_path / "rows.csv", {"labels": "kind"})):
                found = bl.audit(one, data, **more).record.performance
                assert found.classification.accuracy.value == model.score(x, y)


@cell("compare", "permuted inputs", "other names")
@pytest.mark.parametrize("order", [("p", "q", "r"), ("r", "q", "p")])
def test_a_baseline_without_names_reads_the_rows_as_it_was_matched(
    order: tuple[str, ...], tmp_path: Path
) -> None:
    x, kind = clusters()
    frame, y = pandas.DataFrame(x, columns=["p", "q", "r"]), np.array(["u", "v", "w"])[kind]
    named, bare = mlp().fit(frame, y), mlp().fit(x, y)
    frame[[*order]].assign(y=y).to_csv(tmp_path / "rows.csv", index=False)
    for model, baseline in ((named, bare), (bare, named)):
        found = compared(model, baseline, tmp_path / "rows.csv", labels="y", **FEW)["difference"]
        assert found["layers"][0]["identical"]
        assert found["answers"]["changed"] == 0


# ---- pipelines


def piped(*steps: Any) -> Any:
    return Pipeline([*((f"s{at}", step) for at, step in enumerate(steps)), ("mlp", mlp())])


@cell("load estimator", "permuted inputs", "other names")
@pytest.mark.parametrize(
    "steps",
    [
        ("passthrough",),
        (None,),
        ("passthrough", StandardScaler()),
        (Pipeline([("a", "passthrough"), ("b", StandardScaler())]),),
        (Pipeline([("a", None)]), StandardScaler()),
        (FeatureUnion([("a", "passthrough"), ("b", StandardScaler())]),),
        (FeatureUnion([("a", "drop"), ("b", StandardScaler())]),),
    ],
    ids=["passthrough", "None", "before a scaler", "nested", "nested None", "union", "drop"],
)
def test_steps_that_pass_columns_on_lose_no_names(steps: Any) -> None:
    x, kind = clusters()
    frame = pandas.DataFrame(x, columns=["age", "income", "size"])
    whole = piped(*copy.deepcopy(steps)).fit(frame, kind)
    model = bl.from_sklearn(whole)
    assert model.input_names == ("age", "income", "size")
    found = bl.audit(model, (frame[["size", "age", "income"]], kind), **FEW).record.performance
    assert found.classification.accuracy.value == whole.score(frame, kind)
    assert bl.from_sklearn(piped(*copy.deepcopy(steps)).fit(x, kind)).input_names is None


@cell("load estimator", "other names")
def test_names_that_a_step_makes_are_not_those_of_the_inputs() -> None:
    x, kind = clusters()
    whole = piped("passthrough", StandardScaler().set_output(transform="pandas")).fit(x, kind)
    assert hasattr(whole[-1], "feature_names_in_")
    assert bl.from_sklearn(whole).input_names is None


# ---- classes that are asked for


@cell("attack", "other names")
def test_a_class_of_a_model_in_memory_is_asked_for_by_its_name() -> None:
    x, kind = clusters()
    model = bl.sklearn.BilinearClassifier().fit(x, np.array(["u", "v", "w"])[kind])
    data = (x, np.array(["u", "v", "w"])[kind])
    for target in ("v", 1, np.int64(1)):
        record = bl.attack_model(model, data, target=target, epsilons=[0.5]).record
        assert {one.target for one in record.objectives} == {1}
    for wrong in ("y", 1.5, torch.tensor(1.5)):
        with pytest.raises(UsageError, match="names no output of"):
            bl.attack_model(model, data, target=wrong, epsilons=[0.5])  # type: ignore[arg-type]
