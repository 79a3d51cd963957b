"""Fitted models of scikit-learn in files: only where the caller trusts them, and never trees."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import bilens as bl
from bilens.base.errors import CheckpointError
from bilens.base.files import file_sha256
from bilens.io.file_kinds import kind_of

joblib = pytest.importorskip("joblib")
pytest.importorskip("sklearn")
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

X = np.random.default_rng(0).normal(size=(60, 4))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


def mlp() -> MLPClassifier:
    return MLPClassifier((5,), max_iter=3, random_state=0)


def fitted() -> dict[str, Any]:
    pipeline = make_pipeline(StandardScaler(), mlp())
    return {
        "a classifier": mlp().fit(X, Y),
        "a regressor": MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=0).fit(
            X, X[:, 0]
        ),
        "a pipeline": pipeline.fit(X, Y),
        "a search": GridSearchCV(pipeline, {"mlpclassifier__alpha": [0.1]}, cv=2).fit(X, Y),
        "ours": bl.sklearn.BilinearClassifier().fit(X, Y),
    }


WRITERS: dict[str, Callable[[Any, Path], object]] = {
    "m.joblib": joblib.dump,
    "zipped.joblib": lambda model, path: joblib.dump(model, path, compress=("gzip", 3)),
    "packed.pkl": lambda model, path: joblib.dump(model, path, compress=3),
    "m.pkl": lambda model, path: path.write_bytes(pickle.dumps(model)),
    "m.pt": lambda model, path: path.write_bytes(pickle.dumps(model, 4)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a classifier", "a regressor", "a pipeline", "a search", "ours"])
def test_a_trusted_file_is_read_as_the_object(name: str, tmp_path: Path) -> None:
    model, path = fitted()[name], tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(model))
    loaded = bl.load(path, trust_pickle=True)
    direct = bl.from_sklearn(getattr(model, "best_estimator_", model))
    assert (loaded.source, loaded.weights_sha256) == (str(path), file_sha256(path))
    x = torch.from_numpy(X)
    for one, other in zip(loaded.layers.values(), direct.layers.values(), strict=True):
        y = other.weights(torch.float64)(x)
        torch.testing.assert_close(one.weights(torch.float64)(x), y)
        x = y


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", WRITERS)
def test_every_way_of_writing_is_known_by_its_content(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    WRITERS[file](fitted()["a pipeline"], path)
    assert kind_of(path) == "pickle"
    with pytest.raises(CheckpointError, match=r"is a pickle, .*trust_pickle=True\)\.$"):
        bl.load(path, allow_pickle=True)
    assert len(bl.load(path, trust_pickle=True).layers) == 1


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_run_without_the_word(tmp_path: Path) -> None:
    path, mark = tmp_path / "m.pkl", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Touch(mark)))
    for flags in ({}, {"allow_pickle": True}):
        with pytest.raises(CheckpointError, match="runs whatever code"):
            bl.load(path, **flags)
    assert not mark.exists()
    with pytest.raises(CheckpointError, match="NoneType is no MLP of scikit-learn"):
        bl.load(path, trust_pickle=True)
    assert mark.exists()


def forest(path: Path) -> None:
    joblib.dump(RandomForestClassifier(2).fit(X, Y), path)


def behind_a_scaler(path: Path) -> None:
    """The arrays of the scaler end what is seen of the pickle."""
    joblib.dump(make_pipeline(StandardScaler(), RandomForestClassifier(2)).fit(X, Y), path)


def boosted(module: str, name: str) -> Callable[[Path], None]:
    """A pickle that names a class of another package."""

    def write(path: Path) -> None:
        made = ModuleType(module)
        made.Model = type("Model", (), {"__module__": module})  # type: ignore[attr-defined]
        made.Model.__qualname__ = made.Model.__name__ = name
        setattr(made, name, made.Model)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, module.partition(".")[0], ModuleType("package"))
            patch.setitem(sys.modules, module, made)
            path.write_bytes(pickle.dumps(made.Model()))

    return write


def starting(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content + bytes(100))


TREES: dict[str, Callable[[Path], object]] = {
    "forest.joblib": forest,
    "scaled.joblib": behind_a_scaler,
    "lgbm.pkl": boosted("lightgbm.sklearn", "LGBMClassifier"),
    "xgb.pkl": boosted("xgboost.sklearn", "XGBClassifier"),
    "lgbm.txt": starting(b"tree\nversion=v4\nnum_class=1\n"),
    "xgb.json": starting(b'{"learner":{"attributes":{}'),
    "xgb.ubj": starting(b"{L\0\0\0\0\0\0\0\x07learner{"),
    "xgb.model": starting(b"{L\0\0\0\0\0\0\0\x07learner{"),
    "cat.cbm": starting(b"CBM1"),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_have_no_weights_and_a_way_out(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path / name)
    with pytest.raises(CheckpointError, match=r"trees have no weights to read.*bilens train table"):
        bl.load(tmp_path / name, trust_pickle=True)
    if name != "scaled.joblib":
        assert kind_of(tmp_path / name) == "trees"


BAD: dict[str, tuple[Any, str]] = {
    "not fitted": (mlp(), "is not fitted"),
    "another model": (StandardScaler(), "is no MLP of scikit-learn"),
    "arrays": ({"W": X}, "dict is no MLP of scikit-learn"),
    "two models": ({"a": mlp(), "b": mlp()}, "dict is no MLP of scikit-learn"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_fitted_mlp_is_refused(name: str, tmp_path: Path) -> None:
    content, words = BAD[name]
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=words) as caught:
        bl.load(path, trust_pickle=True)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_damaged_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    joblib.dump(mlp().fit(X, Y), path)
    whole = path.read_bytes()
    for end in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match="cannot be opened as a fitted model"):
            bl.load(path, trust_pickle=True)


def test_skops_needs_no_word_where_it_knows_all_types(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    path, model = tmp_path / "m.skops", make_pipeline(StandardScaler(), mlp()).fit(X, Y)
    skops.dump(model, path)
    loaded = bl.load(path)
    assert [*loaded.layers] == ["layers.0"]
    skops.dump(RandomForestClassifier(2).fit(X, Y), path)
    with pytest.raises(CheckpointError, match="trees have no weights"):
        bl.load(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError):
        bl.load(path)
