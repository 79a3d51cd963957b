"""Guards against rules that say of a table's model what is not so: each sentence has columns and
rows of which it is true by construction, and whose numbers are counted here."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bilens as bl
from bilens.data.table_file import read_table
from bilens.data.table_rows import training_table
from bilens.io.loaded_model import LoadedModel
from bilens.nn.classifier import classifier_of_map
from bilens.train.recipes import TableRecipe
from bilens.train.tasks.table import TableTask, train_table_in_folder
from contract.rule_cases import (
    Between,
    Case,
    Cases,
    Counts,
    Shown,
    answers_by_hand,
    check,
    named_rightly,
)
from contract.table import cell
from tiny import planted

CASES = Cases()
ROWS = 200
Frame = pd.DataFrame


def drawn(seed: int = 0, rows: int = ROWS) -> np.random.Generator:
    return np.random.default_rng([seed, rows])


def written(folder: Path, frame: Frame, name: str = "t") -> Path:
    frame.to_csv(folder / f"{name}.csv", index=False)
    return folder / f"{name}.csv"


def trained(folder: Path, frame: Frame, *drop: str, name: str = "run", **recipe: Any) -> Any:
    """The model that `bilens train table` makes of all rows; the last column is the target."""
    path = written(folder, frame, f"{name}_all")
    table = training_table(read_table(path), str(frame.columns[-1]), drop=[*drop])
    task = TableTask(table, TableRecipe(**recipe), str(frame.columns[-1]), 0.0)
    train_table_in_folder(folder / name, task, about_data={}, provenance={})
    return bl.load(folder / name)


def measured(seed: int = 0, rows: int = ROWS) -> Frame:
    """Two columns that tell y but for a tenth of its variance, and one that tells nothing."""
    generator = drawn(seed, rows)
    a, b, idle = generator.normal(size=(3, rows))
    noise = generator.normal(size=rows)
    return pd.DataFrame({"a": a, "b": b, "idle": idle, "y": a + b + noise * np.sqrt(2 / 9)})


# ---- models by hand: what they say of a row is known


def by_hand(*terms: tuple[list[float], list[float], list[float]], **more: Any) -> LoadedModel:
    """A model of three columns with means and deviations of 0 and 1."""
    known = {"input_mean": (0.0,) * 3, "input_scale": (1.0,) * 3, "input_names": ("a", "b", "c")}
    return LoadedModel(planted([*terms], 3), "", "", **{**known, **more})


def axis(at: int) -> list[float]:
    return [float(place == at) for place in range(3)]


SQUARES = tuple((axis(at), axis(at), axis(at)) for at in range(3))
KINDS = ("ape", "bee", "cat")


def classified(folder: Path, counts: Counts, ending: str, worst: str) -> Shown:
    """Of a model that names the largest column."""
    x = named_rightly(counts)
    kind = [name for name, (_, count) in zip(KINDS, counts, strict=True) for _ in range(count)]
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(kind=kind)
    model = by_hand(*SQUARES, output_names=KINDS)
    told = answers_by_hand(counts, x**2, KINDS)
    return bl.audit(model, written(folder, frame), labels="kind"), {
        f"table_accuracy.{ending}": told["accuracy"],
        f"worst_class_recall.{worst}": told["worst"],
        "calibration.info": told["calibration"],
    }


@CASES.say("columns", "table_accuracy.info", "worst_class_recall.pass", "calibration.info")
def nine_of_ten(folder: Path) -> Shown:
    return classified(folder, ((36, 40), (36, 40), (18, 20)), "info", "pass")


@CASES.say("columns", "table_accuracy.info", "worst_class_recall.warn", "calibration.info")
def a_class_that_is_missed(folder: Path) -> Shown:
    return classified(folder, ((40, 40), (40, 40), (5, 20)), "info", "warn")


@CASES.say("columns", "table_accuracy.warn", "worst_class_recall.pass", "calibration.info")
def no_better_than_one_class(folder: Path) -> Shown:
    return classified(folder, ((20, 50),) * 3, "warn", "pass")


def of_a_number(folder: Path, shift: float, ending: str) -> Shown:
    """A model that says a·b of rows where a·b and more is right."""
    generator = drawn(1)
    a, b, c = generator.normal(size=(3, ROWS))
    y = a * b + shift + 0.5 * generator.normal(size=ROWS)
    frame = pd.DataFrame({"a": a, "b": b, "c": c, "y": y})
    model = by_hand((axis(0), axis(1), [1.0]), output_names=("y",), provenance={"target": "y"})
    told = 1 - float(np.mean((a * b - y) ** 2) / np.var(y))
    report = bl.audit(model, written(folder, frame), labels="y")
    return report, {f"r_squared.{ending}": {"value": told, "total": ROWS}}


@CASES.say("columns", "r_squared.info")
def a_number_with_noise(folder: Path) -> Shown:
    return of_a_number(folder, 0.0, "info")


@CASES.say("columns", "r_squared.warn")
def a_number_that_is_off_by_five(folder: Path) -> Shown:
    return of_a_number(folder, 5.0, "warn")


# ---- read rightly, and what it is made of


def standard(linear: list[float], square: list[float], pair: list[float]) -> LoadedModel:
    """A number Σ b_i z_i + q_i z_i² + p_0 z_0 z_1 + p_1 z_1 z_2, of columns in standard units."""
    terms = [(axis(at), axis(at), [square[at]]) for at in range(3)]
    terms += [(axis(0), axis(1), [pair[0]]), (axis(1), axis(2), [pair[1]])]
    f = planted(terms, 3).quadratic_map().detach()
    f = type(f)(f.tensor, torch.tensor([linear]).double(), torch.zeros(1).double())
    known = {"input_mean": (7.0, -2.0, 0.5), "input_scale": (3.0, 0.1, 40.0)}
    mean, scale = (torch.tensor(part).double() for part in known.values())
    return LoadedModel(
        classifier_of_map(f, mean, scale),
        "",
        "",
        input_names=("a", "b", "c"),
        output_names=("y",),
        provenance={"target": "y", "reading": READING},
        **known,
    )


READING = (
    '{"columns": ['
    + ", ".join(f'{{"name": "{n}", "kind": "number", "inputs": ["{n}"]}}' for n in "abc")
    + '], "done": []}'
)


def parts_of(linear: list[float], square: list[float], pair: list[float]) -> dict[str, float]:
    """Of independent columns of deviation 1, z has variance 1, z² has 2 and a product 1."""
    sizes = {
        "linear": sum(b**2 for b in linear),
        "square": sum(2 * q**2 for q in square),
        "pair": sum(p**2 for p in pair),
    }
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


READ = ("exact.pass", "coverage.pass_whole", "layout.pass")


@CASES.say("columns", *READ, "shares.info", "dominant.pass")
def several_parts() -> Shown:
    parts = [1.0, 2.0, 0.5], [0.5, 0.0, 1.0], [1.0, 0.5]
    largest = (2.0**2) / (5.25 + 2.5 + 1.25)
    return bl.audit(standard(*parts)), {
        "exact.pass": {"inputs": 1000, "error": Between(0, 1e-12)},
        "coverage.pass_whole": {"exact": 1.0, "approximate": 0.0},
        "layout.pass": {"source": "its forward pass"},
        "shares.info": {**parts_of(*parts), "said": "58% comes from single columns alone, 28%"},
        "dominant.pass": {"columns": "b", "value": largest},
    }


@CASES.say("columns", "shares.info", "dominant.warn")
def one_pair() -> Shown:
    parts = [0.1, 0.0, 0.1], [0.0, 0.1, 0.0], [2.0, 0.2]
    total = 0.02 + 0.02 + 4.04
    return bl.audit(standard(*parts)), {
        "shares.info": parts_of(*parts),
        "dominant.warn": {"columns": "a × b", "value": 4 / total},
    }


UNKNOWN: dict[str, Any] = {"input_mean": None, "input_scale": None, "output_names": ("y",)}
PAIR_AND_SQUARE = (axis(0), axis(1), [2.0]), (axis(2), axis(2), [1.0])  # 2ab + c²


@CASES.say("columns", "shares.info_raw")
def columns_whose_units_nobody_knows() -> Shown:
    model = by_hand(*PAIR_AND_SQUARE, **UNKNOWN, provenance={"target": "y"})
    numbers = {"linear": 0.0, "square": 2 / 6, "pair": 4 / 6, "said": "would have over independent"}
    return bl.audit(model), {"shares.info_raw": numbers}


@CASES.say("columns", "shares.info_rows")
def columns_in_the_units_of_the_rows(folder: Path) -> Shown:
    x = drawn(4).normal(size=(ROWS, 3)) * [3.0, 0.5, 2.0] + [1.0, 4.0, -3.0]
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(y=2 * x[:, 0] * x[:, 1] + x[:, 2] ** 2)
    model = by_hand(*PAIR_AND_SQUARE, **UNKNOWN, provenance={"target": "y"})
    (ma, mb, mc), (sa, sb, sc) = x.mean(axis=0), x.std(axis=0, ddof=1)
    linear = [2 * mb * sa, 2 * ma * sb, 2 * mc * sc]
    numbers = parts_of(linear, [0.0, 0.0, sc**2], [2 * sa * sb])
    return bl.audit(model, written(folder, frame), labels="y"), {"shares.info_rows": numbers}


@CASES.say("columns", "exact.fail")
def columns_far_from_zero() -> Shown:
    """Means of 10⁷ deviations: in float32 nothing is left of a row."""
    model = standard([1.0, 1.0, 1.0], [0.0] * 3, [1.0, 0.0])
    far = {"input_mean": (1e7, 1e7, 1e7), "input_scale": (1.0, 1.0, 1.0)}
    f = planted([(axis(0), axis(1), [1.0])], 3).quadratic_map().detach()
    mean, scale = (torch.tensor(part).double() for part in far.values())
    module = classifier_of_map(f, mean, scale).float()
    known = {"input_names": model.input_names, "output_names": ("y",)}
    lost = {"inputs": 1000, "error": Between(0.01, 100)}
    return bl.audit(LoadedModel(module, "", "", **known, **far)), {"exact.fail": lost}


# ---- columns that give the answer away, or only number the rows


@CASES.say("columns", "leak.warn", "identifier.pass_none")
def a_column_that_is_the_answer(folder: Path) -> Shown:
    frame = measured()
    frame.insert(0, "told", frame.y * 3 + 1)
    numbers = {"column": "told", "value": Between(0.98, 1), "null": Between(-0.1, 0.3)}
    return bl.audit(trained(folder, frame)), {"leak.warn": numbers, "identifier.pass_none": {}}


@CASES.say("columns", "leak.pass", "identifier.pass")
def a_column_that_is_half_of_it(folder: Path) -> Shown:
    """Of variance 9/4 + 1 + 2/9 it takes away 9/4, were its mean answers known exactly."""
    frame = measured(rows=3000)
    frame["y"] += frame.a / 2
    frame.insert(1, "code", [f"C-{at:05d}" for at in drawn(2, 3000).permutation(3000)])
    part = (9 / 4) / (13 / 4 + 2 / 9)
    numbers = {"column": "a", "value": Between(part - 0.25, part + 0.02), "null": Between(-1, 0.1)}
    left_out = {"columns": "code", "said": "(left out as such: code)"}
    return bl.audit(trained(folder, frame)), {"leak.pass": numbers, "identifier.pass": left_out}


@CASES.say("columns", "identifier.warn")
def a_number_of_the_row(folder: Path) -> Shown:
    frame = measured()
    frame.insert(1, "running", np.arange(ROWS) + 7)
    frame.insert(0, "serial_no", drawn(3).permutation(ROWS) * 13)
    numbers = {"value": 2, "columns": "serial_no, running"}
    return bl.audit(trained(folder, frame)), {"identifier.warn": numbers}


def test_of_a_table_too_small_to_look_at_its_columns_nothing_is_said(tmp_path: Path) -> None:
    """Of 20 rows none is looked at, and one of the columns numbers them."""
    frame = measured(rows=20).assign(running=np.arange(20) + 7)
    frame = frame[["a", "b", "running", "y"]]
    verdict = bl.audit(trained(tmp_path, frame)).record.verdict
    assert not {"identifier", "leak"} & {one.rule for one in verdict}


# ---- rows of the training, and others


@CASES.say("columns", "seen_rows.warn")
def rows_of_the_training(folder: Path) -> Shown:
    frame = measured()
    report = bl.audit(trained(folder, frame), written(folder, frame[:50]))
    return report, {"seen_rows.warn": {"value": 50, "total": 50, "said": "All of these 50 rows"}}


@CASES.say("columns", "seen_rows.warn_partly")
def forty_rows_of_the_training(folder: Path) -> Shown:
    model = trained(folder, measured())
    both = pd.concat([measured()[:40], measured(1)[:60]])
    numbers = {"value": 40, "total": 100, "said": "40 of the 100 rows equal training rows"}
    return bl.audit(model, written(folder, both)), {"seen_rows.warn_partly": numbers}


@CASES.say("columns", "seen_rows.pass")
def four_rows_of_the_training(folder: Path) -> Shown:
    """No two rows of such numbers are the same by chance."""
    model = trained(folder, measured())
    both = pd.concat([measured()[:4], measured(1)[:96]])
    numbers = {"total": 100, "said": "at most 5% more of them than chance gives equal one"}
    return bl.audit(model, written(folder, both)), {"seen_rows.pass": numbers}


@CASES.say("columns", "seen_rows.pass", "train_test_gap.pass")
def rows_of_the_same_kind(folder: Path) -> Shown:
    """The sums of three columns are linear: what it scores here is what it scored there."""
    report, train, here = scored(folder, measured(1, 100))
    return report, {
        "seen_rows.pass": {"total": 100},
        "train_test_gap.pass": {"train": train, "high": here},
    }


def scored(folder: Path, rows: Frame, **recipe: Any) -> tuple[Any, float, float]:
    """A report, R² of its model on its training rows and on others, by its formula."""
    model = trained(folder, measured(), **recipe)
    scores = [r_squared(model, one) for one in (measured(), rows.dropna())]
    return bl.audit(model, written(folder, rows)), *scores


def r_squared(model: LoadedModel, frame: Frame) -> float:
    x = torch.from_numpy(frame[["a", "b", "idle"]].to_numpy(copy=True))
    module: Any = model.module
    y, said = frame.y.to_numpy(), module.double()(x).detach().numpy()[:, 0]
    return 1 - float(np.mean((y - said) ** 2) / np.var(y))


@CASES.say("columns", "train_test_gap.warn")
def rows_of_another_kind(folder: Path) -> Shown:
    rows = measured(1, 100)
    report, train, here = scored(folder, rows.assign(y=rows.y + rows.idle * 2))
    return report, {"train_test_gap.warn": {"train": train, "high": here}}


@CASES.say("columns", "train_test_gap.warn_filled", "filled_cells.warn")
def rows_with_gaps(folder: Path) -> Shown:
    """Where b is empty, the mean of the training stands: half of y is lost there."""
    rows = measured(1, 100)
    filled = rows.assign(b=measured().b.mean())
    model = trained(folder, measured())
    report = bl.audit(model, written(folder, rows.assign(b=rows.b.where(rows.index >= 90))))
    mixed = rows.assign(b=rows.b.where(rows.index >= 90, filled.b))
    numbers = {"train": r_squared(model, measured()), "high": r_squared(model, mixed), "filled": 90}
    cells = {"value": 90, "column": "b", "said": "In column “b” 90 cells hold no value"}
    return report, {"train_test_gap.warn_filled": numbers, "filled_cells.warn": cells}


def with_towns(seed: int, *names: str) -> Frame:
    frame = measured(seed, 100)
    frame.insert(0, "town", drawn(seed, 9).choice([*names], 100))
    return frame


@CASES.say("columns", "unseen_categories.warn")
def a_town_that_was_never_seen(folder: Path) -> Shown:
    rows = with_towns(1, "Bern", "Genf")
    rows.loc[[7, 20, 31], "town"] = "Oslo"
    report = bl.audit(trained(folder, with_towns(0, "Bern", "Genf")), written(folder, rows))
    numbers = {"value": 3, "column": "town", "text": "Oslo", "row": 9}  # below the names
    return report, {"unseen_categories.warn": {**numbers, "said": "3 cells hold a text"}}


@CASES.say("columns", "unseen_categories.pass", "filled_cells.pass")
def towns_and_gaps_that_the_training_had(folder: Path) -> Shown:
    """Where b was empty in the training, an input of the model says so."""
    known, rows = (
        frame.assign(b=frame.b.where(frame.index % 4 > 0))
        for frame in (with_towns(0, "Bern", "Genf"), with_towns(1, "Genf"))
    )
    report = bl.audit(trained(folder, known), written(folder, rows))
    return report, {"unseen_categories.pass": {}, "filled_cells.pass": {}}


# ---- beside another model


def beside(folder: Path, baseline: Frame, *data: Path, drop: tuple[str, ...] = ()) -> Any:
    model, other = trained(folder, measured()), trained(folder, baseline, *drop, name="old")
    return bl.audit(model, *data, baseline=other)


@CASES.say("columns", "changed_columns.warn")
def a_column_more_and_one_less(folder: Path) -> Shown:
    frame = measured().rename(columns={"idle": "gone"})
    names = {"value": 2, "columns": "+ idle, − gone"}
    return beside(folder, frame), {"changed_columns.warn": names}


@CASES.say("columns", "changed_columns.pass", "changed_answers.pass")
def the_same_table(folder: Path) -> Shown:
    rows = written(folder, measured(1, 60))
    report = beside(folder, measured(), rows)
    return report, {"changed_columns.pass": {}, "changed_answers.pass": {"total": 60}}


@CASES.say("columns", "changed_columns.pass", "changed_answers.info")
def a_column_that_counts_where_it_is_large(folder: Path) -> Shown:
    """The baseline has no a²: answers move by a hundredth of their spread where a is large."""
    names = {"input_names": ("a", "b", "c"), "output_names": ("y",)}
    known = {**names, "input_mean": (0.0,) * 3, "input_scale": (1.0,) * 3}
    known["provenance"] = {"target": "y"}
    pair, square = (axis(0), axis(1), [1.0]), (axis(0), axis(0), [0.02])
    both = planted([pair, square], 3), planted([pair], 3)
    model, before = (LoadedModel(one, "", "", **known) for one in both)
    x = drawn(5, 80).normal(size=(80, 3))
    rows = written(folder, pd.DataFrame(x, columns=["a", "b", "c"]).assign(y=x[:, 0]))
    moved = 0.02 * x[:, 0] ** 2 > 0.01 * np.std(x[:, 0] * x[:, 1])
    numbers = {"count": int(moved.sum()), "total": 80, "value": float(moved.mean())}
    assert 0 < moved.sum() < 80
    report = bl.audit(model, rows, labels="y", baseline=before)
    return report, {"changed_columns.pass": {}, "changed_answers.info": numbers}


@cell("audit", "other function")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sentence_on_a_table_is_true_of_its_model(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
