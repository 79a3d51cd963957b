"""Guards against right answers that are read otherwise in an audit than in the training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies as st
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import nn

import bilens as bl
import bilens.sklearn as bls
from bilens.api.classifier import explain_predictions
from bilens.api.given_data import given_data, performance_of
from bilens.api.network_conversion import RECIPE, convert_network
from bilens.base.errors import BilensError, CheckpointError, DataError
from bilens.data.table_file import read_table
from bilens.data.table_rows import training_table
from bilens.io.model_config import names_by_id
from bilens.train.table_fit import TableRecipe
from bilens.train.tasks.table import TableTask, train_table_in_folder
from contract import compared_models
from contract.drawn import fewer
from contract.table import cell

ROWS = 60
seeds = st.integers(0, 2**31)


def frame(seed: int) -> pd.DataFrame:
    """Two columns, a number that they make, and a class of four."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-100, 100, size=(ROWS, 2)) / 10
    y = 20 + x[:, 0] - x[:, 1] + rng.integers(-5, 5, size=ROWS) / 10
    kind = 2 * (x[:, 0] > rng.integers(-3, 3)) + (x[:, 1] > 0)
    return pd.DataFrame(x, columns=["a", "b"]).assign(y=y.round(2), kind=kind)


AS_THEY_COME = TableRecipe(column_scale="standard")


def trained(folder: Path, table: pd.DataFrame, target: str, separator: str = ",") -> Any:
    """The model that `train table` leaves, without held-out rows."""
    path, run = folder / "train.csv", folder / "run"
    table.to_csv(path, index=False, sep=separator)
    task = TableTask(training_table(read_table(path), target), AS_THEY_COME, target, 0.0)
    train_table_in_folder(run, task, about_data={}, provenance={}, overwrite=True)
    return bl.load(run)


def predictions(model: Any, table: pd.DataFrame) -> np.ndarray:
    x = torch.from_numpy(table[["a", "b"]].to_numpy(np.float64, copy=True))
    return model.module.double()(x).detach().numpy()


def r_squared(model: Any, table: pd.DataFrame, y: np.ndarray) -> float:
    told = predictions(model, table)[:, 0]
    return float(1 - ((told - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def told(model: Any, data: Any) -> Any:
    found = bl.audit(model, data).record.performance
    assert found is not None
    return found.regression or found.classification


def written(style: str) -> Callable[[float], str]:
    """How a number stands in the cells of a table."""
    return {
        "plain": str,
        "kg": lambda value: f"{value} kg",
        "percent": lambda value: f"{value} %",
        "comma": lambda value: f"{value:.2f}".replace(".", ","),
    }[style]


ORDERS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "permuted inputs": lambda table: table[["y", "b", "a"]],
    "repeated rows": lambda table: table.loc[np.repeat(table.index, 2)],
    "shuffled rows": lambda table: table.sample(frac=1.0, random_state=0),
    "sorted rows": lambda table: table.sort_values("y", key=lambda y: y.astype(str)),
    "saved": lambda table: table,
}


@pytest.mark.parametrize("style", ["plain", "kg", "percent", "comma"])
@fewer(3)
@given(seed=seeds)
@cell("train table", *ORDERS, "other units", "other dtype")
def test_a_target_is_read_as_in_the_training(
    style: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, plain = tmp_path_factory.mktemp("t"), frame(seed).drop(columns="kind")
    table = plain.assign(y=plain.y.map(written(style)))
    model = trained(folder, table, "y", ";" if style == "comma" else ",")
    for relation, order in ORDERS.items():
        path, rows = folder / "test.csv", order(table)
        rows.to_csv(path, index=False, sep=";" if style == "comma" else ",")
        expected = r_squared(model, plain.loc[rows.index], plain.y.loc[rows.index].to_numpy())
        assert expected > 0.5  # the model has learnt something
        assert told(model, path).r_squared == pytest.approx(expected), (relation, style)


REFUSED = [
    ("plain", "percent"),
    ("plain", "kg"),
    ("kg", "percent"),
    ("percent", "plain"),
    ("percent", "kg"),
]


@pytest.mark.parametrize(("before", "after"), REFUSED)
@cell("train table", "other units")
def test_a_target_in_another_unit_is_refused(before: str, after: str, tmp_path: Path) -> None:
    """R² of −176,142 was told without a word."""
    plain = frame(0).drop(columns="kind")
    model = trained(tmp_path, plain.assign(y=plain.y.map(written(before))), "y")
    path = tmp_path / "test.csv"
    plain.assign(y=plain.y.map(written(after))).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"expected a number (in|without a unit)"):
        bl.audit(model, path)


CLASSES: dict[str, tuple[Any, ...]] = {
    "texts": ("owl", "cat", "dog", "bee"),
    "numbers": (3, 1, 2, 10),
    "signs": (-1, 1, 0, 2),
    "texts of numbers": ("3", "1", "10", "2"),
    "floats": (4.0, 1.0, 2.0, 3.0),
}


@pytest.mark.parametrize("name", CLASSES)
@fewer(3)
@given(seed=seeds)
@cell("train table", "permuted outputs", "other names")
@cell("audit", "other names", "other dtype")
def test_an_estimator_reports_the_accuracy_that_it_has(name: str, seed: int) -> None:
    """Positions of classes were read as their names: 1, 2, 3 moved by one."""
    table = frame(seed)
    x, y = table[["a", "b"]], np.array([CLASSES[name][kind] for kind in table.kind])
    estimator = bls.BilinearClassifier().fit(x, y)
    expected = float((estimator.predict(x) == y).mean())
    assert expected > 0.6
    forms = [y, pd.Series(y), pd.Series(y).astype("category")]
    for one in forms:
        report = estimator.report(x, one)
        found = report.record.performance
        assert found is not None
        assert found.classification is not None
        assert found.classification.accuracy.value == pytest.approx(expected)
        assert told(estimator.loaded_model(), (x[["b", "a"]], one)).accuracy.value == pytest.approx(
            expected
        )
    network = MLPClassifier((3,), max_iter=3, random_state=0, solver="lbfgs").fit(x, y)
    assert told(network, (x, y)).accuracy.value == pytest.approx(network.score(x, y))


def test_truth_values_are_the_classes_that_they_were_in_fit() -> None:
    table = frame(1)
    x, y = table[["a", "b"]], table.kind.to_numpy() > 1
    estimator = bls.BilinearClassifier().fit(x, y)
    expected = pytest.approx(float((estimator.predict(x) == y).mean()))
    record = estimator.report(x, y).record
    assert record.performance is not None
    assert record.performance.classification is not None
    assert record.performance.classification.accuracy.value == expected
    assert told(estimator.loaded_model(), (x, pd.Series(y))).accuracy.value == expected
    zeros = bls.BilinearClassifier().fit(x, y.astype(int))
    assert told(zeros.loaded_model(), (x, y)).accuracy.value == expected


def test_cells_spell_a_class_however_they_are_written(tmp_path: Path) -> None:
    table = frame(2).drop(columns="y").assign(kind=lambda one: one.kind + 3)
    model = trained(tmp_path, table, "kind")
    assert model.output_names == ("3", "4", "5", "6")
    logits = predictions(model, table)
    expected = float((logits.argmax(1) + 3 == table.kind).mean())
    for form in ("{}", "{}.0", " {}", "{}e0"):
        path = tmp_path / "test.csv"
        table.assign(kind=table.kind.map(form.format)).to_csv(path, index=False)
        assert told(model, path).accuracy.value == pytest.approx(expected), form


def test_a_sigmoid_is_not_measured_by_labels_of_minus_one() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    module = torch.nn.Sequential(*module, torch.nn.Sigmoid()).double()
    table = frame(3)
    x = torch.from_numpy(table[["a", "b"]].to_numpy(copy=True))
    y = torch.from_numpy(table.kind.to_numpy(copy=True))
    right = ((module(x)[:, 0] > 0.5) == (y > 1)).double().mean()
    found = told(module, (x, (y > 1).double()))
    assert found.accuracy.value == pytest.approx(float(right))
    with pytest.raises(DataError, match="write 0 and 1 for the two classes"):
        bl.audit(module, (x, 2 * (y > 1).double() - 1))


@cell("convert", "same function")
def test_a_model_of_the_logarithm_of_a_mean_is_judged_by_its_mean(tmp_path: Path) -> None:
    """A Poisson regressor lost its exponential when it was converted."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    y = rng.poisson(np.exp(0.5 * x[:, 0] + 0.2)).astype(float)
    how: dict[str, Any] = {"loss": "poisson", "solver": "lbfgs", "max_iter": 60, "random_state": 0}
    regressor = MLPRegressor(hidden_layer_sizes=(5,), **how).fit(x, y)

    def score(mean: np.ndarray) -> float:
        return float(1 - ((mean - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())

    assert told(regressor, (x, y)).r_squared == pytest.approx(score(regressor.predict(x)))
    recipe = replace(RECIPE, layer_steps=2, batch_size=32, skip=("distillation",))
    found = convert_network(regressor, (x, y), tmp_path / "out", recipe)
    assert "exponential" in " ".join(found["notes"])
    model = bl.load(tmp_path / "out")
    outputs = model.module.double()(torch.from_numpy(x)).detach().numpy()[:, 0]
    assert told(model, (x, y)).r_squared == pytest.approx(score(np.exp(outputs)))
    assert told(model, (x, y)).r_squared > score(outputs)
    assert model.output_names == ("log of the mean",)  # which is what it gives
    item = explain_predictions(model, (x, y), [0]).explanations[0]
    assert item.scores == pytest.approx(outputs[:1].tolist())
    assert item.target is None  # the right answer is a mean, and stands not beside a logarithm


def test_classes_of_hugging_face_stand_in_the_order_of_their_numbers() -> None:
    """JSON may hold "10" before "2"."""
    names = {str(at): f"class {at}" for at in range(12)}
    stored = dict(sorted(names.items()))
    assert [*stored] != [*names]
    assert names_by_id(Path("config.json"), stored) == tuple(names.values())
    with pytest.raises(CheckpointError, match="expected 0 to 1"):
        names_by_id(Path("config.json"), {"1": "a", "2": "b"})


def test_an_explanation_of_a_row_without_a_right_answer(tmp_path: Path) -> None:
    table = frame(4).drop(columns="y").assign(kind=lambda one: "k" + one.kind.astype(str))
    model = trained(tmp_path, table, "kind")
    gaps, path = table.copy(), tmp_path / "test.csv"
    gaps.loc[3, "kind"] = ""
    gaps.to_csv(path, index=False)
    known, absent = (explain_predictions(model, path, [row]).explanations[0] for row in (4, 5))
    assert model.output_names[known.label] == table.kind[2]
    assert absent.label is None
    x = table[["a", "b"]]  # an explanation shows the input in standard units
    z = ((x.loc[3] - x.mean()) / x.std(ddof=0)).tolist()
    assert absent.image == pytest.approx(z, abs=1e-5)
    numbers = frame(4).drop(columns="kind")
    other = trained(tmp_path, numbers, "y")
    item = explain_predictions(other, tmp_path / "train.csv", [7]).explanations[0]
    assert item.target == numbers.y[5]


def test_one_answer_that_is_missing_is_refused() -> None:
    table = frame(6)
    x, y = table[["a", "b"]], table.kind.map("k{}".format).astype(object)
    estimator = bls.BilinearClassifier().fit(x, y)
    y[3] = None
    with pytest.raises(BilensError, match="none of them missing"):
        bl.audit(estimator.loaded_model(), (x, y))


@cell("audit", "own object")
@pytest.mark.parametrize("build", [{"n_layers": 2, "bias": True}, {"gate": "relu"}])
def test_one_output_is_a_logit_where_the_labels_are_0_and_1(build: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, x = bl.nn.BilinearClassifier(4, 8, 1, **build).double(), torch.randn(200, 4).double()
    labels = (model(x).detach()[:, 0] > 0).long()
    found = bl.audit(model, data=(x, labels)).record.performance
    assert found is not None
    assert found.regression is None
    assert found.classification is not None
    assert found.classification.accuracy.value == 1


def test_a_regressor_of_ours_on_zeros_and_ones_is_of_numbers(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(80, 3))
    y = (x[:, 0] > 0).astype(float)
    fitted = bls.BilinearRegressor().fit(x, y)
    by_hand = fitted.score(x, y)
    told_of = fitted.report(x, y).record.performance
    fitted.save(tmp_path / "m")
    saved = bl.audit(bl.load(tmp_path / "m"), data=(x, y)).record.performance
    for found in (told_of, saved):
        assert found is not None
        assert found.regression is not None
        assert found.regression.r_squared == pytest.approx(by_hand, abs=1e-5)


ENDS = {"sigmoid": (nn.Sigmoid(), 0.5), "logit": (nn.Identity(), 0.0)}


@cell("convert", "own object", "saved")
@pytest.mark.parametrize("end", [*ENDS])
def test_a_conversion_knows_what_the_end_of_its_source_is(end: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    last, middle = ENDS[end]
    layers = [nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 1)]
    model = nn.Sequential(*layers, *([last] if end == "sigmoid" else [])).double()
    x = torch.randn(600, 4).double()
    labels = (model(x).detach()[:, 0] > middle).long()
    few = replace(RECIPE, tokens=1500, layer_steps=20)
    found = convert_network(model, (x, labels), tmp_path / "c", few)
    assert any("Right answers were not measured against" in note for note in found["notes"])
    read = bl.load(tmp_path / "c")
    with torch.no_grad():
        mine = read.module.double()(x)[:, 0]
    given_rows = given_data(read, (x, labels))
    assert given_rows is not None
    told_of = performance_of(read, given_rows)
    assert told_of.classification is not None
    by_hand = float(((mine > middle).long() == labels).double().mean())
    assert by_hand > 0.7
    assert told_of.classification.accuracy.value == pytest.approx(by_hand)


@cell("audit", "own object")
def test_the_page_names_the_input_of_each_approximation() -> None:
    """The map that is read is fitted to these rows: no row of the page may call another one so."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3)).double().eval()
    x = torch.randn(600, 6).double() + 5
    report = bl.audit(model, data=(x, model(x).argmax(-1)))
    assert report.record.layers.readings[0].fit.seen
    for lang, said in (
        ("en", "Under a standard normal input"),
        ("ja", "標準正規分布の入力での近似"),
    ):
        page = report.to_html(lang=lang)
        assert page.count(said) >= 4  # of all rows, and of those of each class
        assert "as read, rows of" not in page
        assert "解析に用いた近似" not in page


HEADS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "logits": (nn.Identity, 3),
    "softmax": (lambda: nn.Softmax(dim=-1), 3),
    "sigmoid": (nn.Sigmoid, 1),
}


@cell("audit", "own object", "same function")
@pytest.mark.parametrize("head", HEADS)
def test_the_numbers_of_an_audit_are_those_by_hand(head: str) -> None:
    torch.manual_seed(3)
    end, count = HEADS[head]
    hidden = [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, count)]
    module = nn.Sequential(*hidden, end()).double()
    x = 3 * torch.randn(200, 4).double()
    with torch.no_grad():
        p = module(x).softmax(dim=1) if head == "logits" else module(x)
    p = torch.cat([1 - p, p], dim=1) if head == "sigmoid" else p
    y = torch.where(torch.rand(200) < 0.7, p.argmax(dim=1), torch.randint(p.shape[1], (200,)))
    performance = bl.audit(module, data=(x, y), null_samples=3).record.performance
    assert performance is not None
    found = performance.classification
    assert found is not None
    sure, answer = p.max(dim=1)
    right = (answer == y).double()
    bins = (10 * sure).long().clamp(max=9)
    gaps = [(right - sure)[bins == one].sum().abs() / 200 for one in range(10)]
    assert found.accuracy.value == pytest.approx(float(right.mean()))
    assert found.ece == pytest.approx(float(sum(gaps)))
    truth = nn.functional.one_hot(y, p.shape[1])
    assert found.brier == pytest.approx(float((p - truth).square().sum(dim=1).mean()))


@cell("audit", "own object")
def test_whole_numbers_of_a_table_are_not_taken_for_pixels() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randint(0, 60, (80, 3), dtype=torch.uint8)
    y = module(x.float()).argmax(dim=1)
    performance = bl.audit(module, data=(x.numpy(), y.numpy()), null_samples=3).record.performance
    assert performance is not None
    assert performance.classification is not None
    assert performance.classification.accuracy.value == 1


@cell("explain", "own object", "other units")
def test_a_row_of_a_table_is_explained_from_the_mean_of_the_training() -> None:
    model = compared_models.table(3)
    mean, scale = (torch.tensor(part).double() for part in (model.input_mean, model.input_scale))
    x = mean + 2 * scale * torch.randn(5, 4, generator=compared_models.generator_of(1))
    data = pd.DataFrame(x.numpy(), columns=list(compared_models.COLUMNS))
    record = explain_predictions(model, (data, np.array(["ape"] * 5)), [0, 3], baseline="mean")
    with torch.no_grad():
        start, answers = model.module(mean[None])[0], model.module(x)
    for row, item in zip((0, 3), record.explanations, strict=True):
        logits = answers[row]
        moved = logits - logits.mean() - (start - start.mean())
        told = sum(item.attributions[0].values)
        assert told == pytest.approx(float(moved[item.predicted]), rel=1e-4)


@cell("audit", "own object", "other function")
def test_the_eigenvectors_that_are_enough_are_counted_by_hand() -> None:
    module = compared_models.classifier(4, (6, 9, 3))
    x = torch.randn(300, 6, generator=compared_models.generator_of(2)).double()
    labels = module(x).argmax(dim=1)
    f = module.quadratic_map()
    zero = torch.zeros(6).double()
    forms = [torch.autograd.functional.hessian(lambda v, c=c: f(v)[c], zero) / 2 for c in range(3)]
    slopes = torch.autograd.functional.jacobian(f, zero)
    stacked = torch.stack(forms)
    values, vectors = torch.linalg.eigh(stacked - stacked.mean(dim=0))
    shares = []
    for k in range(7):
        scores = f(zero) + x @ slopes.T - (f(zero) + x @ slopes.T).mean(dim=1, keepdim=True)
        for c in range(3):
            kept = values[c].abs().argsort(descending=True)[:k]
            scores[:, c] += (x @ vectors[c][:, kept]).square() @ values[c][kept]
        shares.append(float((scores.argmax(dim=1) == labels).double().mean()))
    record = bl.audit(module, data=(x, labels), null_samples=39).record
    assert {p.k: p.accuracy for p in record.classes.truncation} == pytest.approx(
        dict(enumerate(shares))
    )
    enough = next(k for k in range(7) if min(shares[k:]) >= shares[-1] - 0.01)
    (found,) = (one for one in record.verdict if one.rule == "few_directions")
    assert found.values["k"] == enough
