"""Data for any model: the same numbers whatever the model is and whatever the data come in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LinearRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import bilens as bl
import tiny
from bilens.api.audit_model import audit
from bilens.api.given_data import given_data, performance_of
from bilens.api.subject import is_of_columns, open_subject
from bilens.base.errors import DataError, ShapeError, UsageError
from bilens.nn import BilinearClassifier
from bilens.records.performance import Performance
from layer_audit_documents import transformer

DATA = tiny.images()
FRAME = pd.DataFrame(
    np.random.default_rng(0).normal(size=(120, 3)), columns=["width", "height", "depth"]
)
KIND = np.where(FRAME.width * FRAME.height > 0, "cat", "dog")
VALUE = (FRAME.width + FRAME.height * FRAME.depth).to_numpy()
MLP = {"hidden_layer_sizes": (6, 5), "max_iter": 60, "random_state": 0, "solver": "lbfgs"}


def performance(model: Any, data: Any, **options: Any) -> Performance:
    known = open_subject(model, "a test", bare=True)
    draws = {} if is_of_columns(known) else {"null_samples": 39}
    found = audit(model, data, **draws, **options).record.performance
    assert found is not None
    return found


def right(found: Performance) -> float:
    assert found.classification is not None
    return found.classification.accuracy.value


def images(folder: Path) -> Path:
    for index, (image, label) in enumerate(zip(DATA.test_images, DATA.test_labels, strict=True)):
        path = folder / DATA.class_names[label] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().byte().numpy().reshape(6, 6)
        Image.fromarray(pixels).save(path)
    return folder


def files(folder: Path) -> dict[str, Path]:
    """The test images in every kind of file."""
    x, y = DATA.test_images.double().numpy(), DATA.test_labels.numpy()
    pixels = (DATA.test_images * 255).round().byte().numpy().reshape(-1, 6, 6)
    np.savez(folder / "a.npz", x=pixels, y=y)
    save_file({"images": torch.tensor(x), "labels": torch.tensor(y)}, folder / "c.safetensors")
    table = pd.DataFrame(x).add_prefix("p").assign(label=np.array(DATA.class_names)[y])
    table.to_csv(folder / "d.csv", index=False)
    kinds = {path.suffix: path for path in folder.iterdir()}
    return {**kinds, "images": images(folder / "images")}


def test_every_kind_of_file_gives_the_accuracy_of_the_tensors(tmp_path: Path) -> None:
    model = tiny.loaded(tiny.classifier(seed=1))  # untrained: it makes mistakes
    expected = performance(model, (DATA.test_images, DATA.test_labels))
    assert 0 < right(expected) < 1
    for kind, path in files(tmp_path).items():
        found = performance(model, path)
        assert found.classification is not None
        assert right(found) == right(expected), kind
        assert expected.classification is not None
        assert found.classification.ece == pytest.approx(expected.classification.ece)
        assert len(found.mistakes) == len(expected.mistakes) > 0
        for item in found.mistakes:
            assert item.target != item.predicted
            assert item.name == "" or (tmp_path / "images" / item.name).exists()
            index = int(item.name[-7:-4]) if item.name else item.index
            row = DATA.test_images[index - 2 if kind == ".csv" else index]  # as a sheet shows it
            if found.image_shape is not None:
                assert item.image == pytest.approx(row.tolist(), abs=1e-3)


MODELS = {
    "exact": {},
    "deep": {"n_layers": 2},
    "gated": {"gate": "relu"},
    "deep and gated": {"n_layers": 2, "gate": "silu", "bias": True, "residual": True},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_classifier_of_any_depth_is_measured_as_it_runs(name: str) -> None:
    model = tiny.classifier(**MODELS[name])  # type: ignore[arg-type]
    x, y = DATA.test_images.double(), DATA.test_labels
    found = performance(model, (x.numpy(), y.numpy()))
    assert right(found) == accuracy_score(y, model(x).argmax(dim=1))
    assert len(found.approximation) == (0 if "gate" not in MODELS[name] else len(model.layers))
    assert all(len(one.classes) == 3 for one in found.approximation)


def test_a_network_of_scikit_learn_is_measured_by_the_names_of_its_columns(tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**MLP)).fit(FRAME, KIND)
    table = FRAME.assign(kind=KIND)[["kind", "depth", "width", "height"]]
    table.to_csv(tmp_path / "t.csv", index=False)
    found = performance(pipeline, tmp_path / "t.csv")
    assert right(found) == pytest.approx(pipeline.score(FRAME, KIND))
    assert found.names == ("cat", "dog")
    assert [one.kind for one in found.notes] == ["reordered", "target"]
    arrays = performance(pipeline, (FRAME, KIND))
    assert right(arrays) == right(found)
    named = [found.names[int(item.target)] for item in arrays.mistakes]
    assert [KIND[item.index] for item in arrays.mistakes] == named
    sure = [item.confidence or 0.0 for item in arrays.mistakes]
    assert sure == sorted(sure, reverse=True)
    regressor = MLPRegressor(**MLP).fit(FRAME, VALUE)
    measured = performance(regressor, (FRAME, VALUE))
    numbers, errors = measured.regression, abs(regressor.predict(FRAME) - VALUE)
    assert numbers is not None
    assert measured.mistakes[0].index == errors.argmax()
    assert numbers.r_squared == pytest.approx(r2_score(VALUE, regressor.predict(FRAME)))


def test_fifty_mistakes_are_kept_and_fewer_of_large_images() -> None:
    for side, kept in ((6, 50), (40, 24), (100, 12)):
        module = BilinearClassifier(side * side, 4, 3).eval()
        model = replace(tiny.loaded(module), input_shape=(side, side))
        x = torch.rand(120, side, side, generator=torch.Generator().manual_seed(0))
        wrong = (module(x.flatten(1)).argmax(dim=1) + 1) % 3
        given = given_data(model, (x.numpy(), wrong.numpy()))
        assert given is not None
        assert len(performance_of(model, given).mistakes) == kept


def test_a_safetensors_mlp_reads_columns_in_order(tmp_path: Path) -> None:
    fitted = MLPClassifier(**MLP).fit(FRAME, KIND)
    tensors = {}
    for index, (weight, bias) in enumerate(zip(fitted.coefs_, fitted.intercepts_, strict=True)):
        tensors[f"net.{index}.weight"] = torch.tensor(weight.T).contiguous()
        tensors[f"net.{index}.bias"] = torch.tensor(bias)
    save_file(tensors, tmp_path / "mlp.safetensors")
    FRAME.assign(dog=(KIND == "dog").astype(int)).to_csv(tmp_path / "t.csv", index=False)
    model = bl.load(tmp_path / "mlp.safetensors", activation="relu", transposed=False)
    found = performance(model, tmp_path / "t.csv")
    assert right(found) == pytest.approx(fitted.score(FRAME, KIND))  # one logit, as it is said
    assert [one.kind for one in found.notes] == ["by_position", "target", "one_logit"]


def test_estimators_and_models_of_tables_are_measured_with_a_baseline_too(tmp_path: Path) -> None:
    model = bl.sklearn.BilinearClassifier().fit(FRAME, KIND)
    report = model.report(FRAME, KIND)
    assert report.record.performance is not None
    assert right(report.record.performance) == pytest.approx(model.score(FRAME, KIND))
    model.save(tmp_path / "model")
    loaded = bl.load(tmp_path / "model")
    FRAME.assign(kind=KIND).to_csv(tmp_path / "t.csv", index=False)
    found = performance(loaded, tmp_path / "t.csv", baseline=loaded)  # read layer by layer
    assert right(found) == pytest.approx(model.score(FRAME, KIND))
    linear = LinearRegression().fit(FRAME, VALUE)
    numbers = bl.sklearn.BilinearRegressor().fit(FRAME, VALUE).report(FRAME, VALUE).record
    assert numbers.performance is not None
    assert numbers.performance.regression is not None
    assert (numbers.performance.regression.r_squared or 0) > linear.score(FRAME, VALUE)


def test_without_labels_r2_on_the_data_is_still_said(tmp_path: Path) -> None:
    model = bl.from_sklearn(MLPClassifier(**MLP).fit(FRAME, KIND))
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    found = performance(model, tmp_path / "t.csv")
    assert found.classification is None
    assert [one.kind for one in found.notes] == ["no_labels"]
    assert all(one.fitted is not None and one.fitted > 0 for one in found.approximation)


IMAGES, LABELS = DATA.test_images, DATA.test_labels
MISFITS: list[tuple[Any, Any, type[Exception], str]] = [
    (IMAGES[:, :-1], LABELS, ShapeError, r"shape \(60, 35\); the model reads 36 inputs"),
    (IMAGES, LABELS[:-1], ShapeError, r"60 rows have right answers \(59,\)"),
    (IMAGES[:0], LABELS[:0], ShapeError, r"shape \(0, 36\)"),
    (IMAGES[0, 0], LABELS, ShapeError, r"shape \(\); the model reads 36"),
    (IMAGES, LABELS - 1, DataError, "label '-1', which is no class"),
    (IMAGES, LABELS + 1, DataError, "label '3', which is no class"),
    (IMAGES, LABELS[0], ShapeError, r"60 rows have right answers \(\)"),
    (IMAGES, LABELS + 0.5, DataError, r"label '[012]\.5'"),
    (IMAGES / 0, LABELS, DataError, "hold NaN or infinity"),
]


@pytest.mark.parametrize(("images", "labels", "error", "message"), MISFITS)
def test_tensors_that_do_not_fit_are_refused(
    images: Any, labels: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        audit(tiny.classifier(), (images, labels))


def test_tensors_of_any_layout_are_read_alike() -> None:
    model = tiny.classifier()
    expected = performance(model, (IMAGES, LABELS)).classification
    for images in (IMAGES.to_sparse(), IMAGES.clone().requires_grad_(), IMAGES.reshape(60, 6, 6)):
        assert performance(model, (images, LABELS.float()[:, None])).classification == expected
    unscaled = performance(model, ((IMAGES * 255).byte(), LABELS))
    assert [one.kind for one in unscaled.notes] == ["unscaled"]
    assert performance(model, (IMAGES.bfloat16(), LABELS)).rows == 60


REFUSED: list[tuple[Any, Any, type[Exception], str]] = [
    (
        transformer(),
        (DATA.test_images, DATA.test_labels),
        UsageError,
        "one answer of a whole model",
    ),
    (tiny.classifier(), DATA.test_images, UsageError, "data is a Tensor; expected an ImageDataset"),
    (tiny.classifier(), (DATA.test_images, [0]), UsageError, "data is a tuple; expected an Image"),
    (tiny.classifier(), "nowhere.csv", DataError, "nowhere.csv: no such file; expected a table"),
    (tiny.classifier(), (np.zeros((2, 35)), np.zeros(2)), ShapeError, r"expected \(rows, 36\)"),
    (tiny.classifier(), (np.zeros((2, 36)), np.array([0, 3])), DataError, "the label '3'"),
    (MLPRegressor(**MLP).fit(FRAME, FRAME), (FRAME, VALUE), UsageError, "gives several answers"),
    (MLPRegressor(**MLP).fit(FRAME, VALUE), (FRAME, 0 * VALUE), DataError, "is 0 in every row"),
]


@pytest.mark.parametrize(("model", "data", "error", "words"), REFUSED)
def test_data_that_do_not_fit_are_refused(
    model: Any, data: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        audit(model, data, null_samples=39)


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x - 1


def test_one_sigmoid_is_a_probability_and_several_are_refused() -> None:
    torch.manual_seed(0)
    first, last = torch.nn.Linear(3, 6), torch.nn.Linear(6, 1)
    parts = torch.nn.Sequential(first, torch.nn.Sigmoid(), last).double()
    x = torch.tensor(FRAME.to_numpy())
    y = (parts(x) + 0.05 * torch.randn(120, 1) > parts(x).median()).long()[:, 0]
    with torch.no_grad():
        last.bias -= parts(x).flatten().sort().values[59:61].mean()  # no row is on the boundary
    logit = performance(parts, (x, y))  # sigmoids inside alone
    chance = performance(torch.nn.Sequential(*parts, torch.nn.Sigmoid()), (x, y))
    assert 0.6 < right(logit) < 1
    assert right(chance) == right(logit)
    assert chance.classification is not None
    assert logit.classification is not None
    assert chance.classification.ece == pytest.approx(logit.classification.ece)
    said = [one.kind for found in (logit, chance) for one in found.notes]
    assert said == ["one_logit", "one_probability"]
    scaled = torch.nn.Sequential(*parts, torch.nn.Sigmoid(), Doubled())
    with pytest.raises(DataError, match="comes out of a scaled sigmoid"):
        audit(scaled, (x, y))
    several = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Sigmoid())
    with pytest.raises(UsageError, match="gives several answers"):
        audit(several, (x, y))


def saved(folder: Path, kind: str, last: str, width: int = 1) -> tuple[Path, Any]:
    """A file of Keras or ONNX whose outputs come out of an activation, and what runs it."""
    if kind == "keras":
        import keras_files

        dense = keras_files.library().layers.Dense
        model = keras_files.sequential(dense(6, "relu"), dense(width, last), width=3)
        model.save(folder / "m.keras")
        return folder / "m.keras", lambda x: model.predict(x, verbose=0)
    pytest.importorskip("onnx")
    from onnx_files import export

    torch.manual_seed(4)
    ends: dict[str, Any] = {"sigmoid": torch.nn.Sigmoid(), "tanh": torch.nn.Tanh()}
    ends |= {"relu": torch.nn.ReLU(), "softmax": torch.nn.Softmax(-1), "linear": None}
    parts = torch.nn.Linear(3, 6), torch.nn.ReLU(), torch.nn.Linear(6, width), ends[last]
    module = torch.nn.Sequential(*filter(None, parts))
    path = export(module, torch.zeros(1, 3), folder / "m.onnx")
    return path, lambda x: module(torch.from_numpy(x.copy())).detach().numpy()


@pytest.mark.parametrize("kind", ["keras", "onnx"])
def test_what_a_file_ends_in_decides_how_it_is_scored(tmp_path: Path, kind: str) -> None:
    x = FRAME.to_numpy(np.float32)
    y = (np.random.default_rng(1).normal(size=120) > 0).astype(int)
    for last, middle, note in (("sigmoid", 0.5, "one_probability"), ("linear", 0, "one_logit")):
        path, run = saved(tmp_path, kind, last)
        found = performance(bl.load(path), (x, y))
        assert right(found) == accuracy_score(y, run(x)[:, 0] > middle)
        assert note in [one.kind for one in found.notes]
        assert found.classification is not None
        if last == "sigmoid":  # and not the sigmoid of it, which is never below a half
            assert found.classification.brier == pytest.approx(
                2 * float(((run(x)[:, 0] - y) ** 2).mean()), rel=1e-4
            )
    for last in ("tanh", "relu", "softmax"):
        path, run = saved(tmp_path, kind, last)
        with pytest.raises(DataError, match=f"comes out of {last}, so that it is neither a logit"):
            audit(bl.load(path), (x, y))
        if last != "softmax":
            numbers = performance(bl.load(path), (x, VALUE)).regression
            assert numbers is not None
            assert numbers.r_squared == pytest.approx(r2_score(VALUE, run(x)), rel=1e-4)
    with pytest.raises(UsageError, match="several answers, each of its own"):
        audit(bl.load(saved(tmp_path, kind, "sigmoid", width=3)[0]), (x, y))


def test_a_part_of_a_model_is_not_judged() -> None:
    loaded = bl.from_sklearn(MLPClassifier(**MLP).fit(FRAME, KIND))
    assert loaded.load_report is not None
    report = replace(loaded.load_report, left_out=("tensor gate",))
    with pytest.raises(UsageError, match="one behind the other: omit"):
        audit(replace(loaded, load_report=report), (FRAME, KIND))


def test_columns_of_a_frame_go_by_name() -> None:
    columns = ["width", "height", "depth"]
    model = bl.sklearn.BilinearClassifier().fit(FRAME[columns], KIND).loaded_model()
    found = [
        audit(model, (FRAME[order], KIND)).record.performance.classification.accuracy
        for order in (columns, columns[::-1])
    ]
    assert found[0] == found[1]
    plain = bl.sklearn.BilinearClassifier().fit(FRAME[columns].to_numpy(), KIND)
    assert right(performance(plain.loaded_model(), (FRAME[columns], KIND))) == found[0].value
    with pytest.raises(DataError, match="no columns 'depth'"):
        audit(model, (FRAME[["width", "height"]].assign(other=0.0), KIND))


def test_training_inputs_of_a_file_with_both_are_its_training_part(tmp_path: Path) -> None:
    path, model = tmp_path / "mnist.npz", tiny.trained()
    train, test = (DATA.train_images, DATA.train_labels), (DATA.test_images, DATA.test_labels)
    names = ("x_train", "y_train"), ("x_test", "y_test")
    named = dict(zip((*names[0], *names[1]), (*train, *test), strict=True))
    np.savez(path, **named)
    found = audit(model, path, train_data=path, null_samples=tiny.ROTATIONS).record.inputs
    assert found.training.rows == len(DATA.train_images)
    assert found.reason != "same"
