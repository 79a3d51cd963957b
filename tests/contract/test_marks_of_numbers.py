"""Guards against numbers that are silently read a thousand times too large, or as two classes.

Damage that it notices: `12,288` of a German file read as 12288, and `1` and `1.0` as two classes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bilens as bl
from bilens.data.table_file import read_table
from bilens.data.table_rows import TrainingTable, columns_of, training_table
from bilens.train.table_fit import TableRecipe
from bilens.train.tasks.table import TableTask, train_table_in_folder
from contract.table import cell

WEIGHTS = np.random.default_rng(1).normal(30, 6, 60).clip(11, 99).round(3)
Style = Callable[[float], str]


def english(value: float) -> str:
    return f"{value:.3f}"


def german(value: float) -> str:
    return english(value).replace(".", ",")


def thousands(value: float) -> str:
    """The value in thousandths, such as 12,288, as if decimals there were none."""
    return f"{round(1000 * value):,}"


def quoted(style: Style) -> Style:
    return lambda value: f'"{style(value)}"'


def read(path: Path, separator: str, style: Style, more: str = "") -> TrainingTable:
    lines = [separator.join(("weight", "y"))]
    lines += [f"{style(w)}{separator}{'ab'[at % 2]}" for at, w in enumerate(WEIGHTS)]
    path.write_text("\n".join(lines) + (f"\n{more}" if more else ""))
    return training_table(read_table(path), "y")


@cell("train table", "other units")
@pytest.mark.parametrize(
    ("trained", "new", "factor", "is_told"),
    [
        ((",", english), (";", german), 1, True),
        ((";", german), (",", english), 1, True),
        ((",", english), (";", english), 1, True),
        ((";", german), (";", german), 1, False),
        ((",", english), (",", english), 1, False),
        ((",", english), (",", quoted(german)), 1000, True),
        ((",", quoted(thousands)), (",", quoted(thousands)), 1000, False),
        ((",", quoted(thousands)), (";", thousands), 1000, True),
    ],
)
def test_three_digits_behind_a_mark_are_what_they_were_or_it_is_told(
    tmp_path: Path, trained: tuple[str, Style], new: tuple[str, Style], factor: int, is_told: bool
) -> None:
    table = read(tmp_path / "t.csv", *trained, '"1,234.5",a' if trained[1] == thousands else "")
    read(tmp_path / "new.csv", *new)
    rows = columns_of(read_table(tmp_path / "new.csv"), table.names, table.reading, None)
    np.testing.assert_allclose(rows.values[:, 0], factor * WEIGHTS, rtol=1e-9)
    told = [one for one in rows.done if one.kind == "mark_guess"]
    assert bool(told) is is_told
    assert {one.values["column"] for one in told} <= {"weight"}


@cell("train table", "other units")
def test_right_answers_with_a_mark_are_not_a_thousand_times_too_large(tmp_path: Path) -> None:
    x = np.arange(60)
    for name, separator, style in (("t", ",", english), ("new", ";", german)):
        cells = [f"{at}{separator}{style(w)}" for at, w in zip(x, WEIGHTS, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join([separator.join("xy"), *cells]))
    plain = training_table(read_table(tmp_path / "t.csv"), "y")
    task = TableTask(plain, TableRecipe(), "y", 0.0)
    train_table_in_folder(tmp_path / "run", task, about_data={}, provenance={})
    model = bl.load(tmp_path / "run")
    one, other = (bl.audit(model, tmp_path / f"{name}.csv").to_dict() for name in ("t", "new"))
    assert one["performance"]["regression"] == other["performance"]["regression"]
    assert "mark_guess" in [said["kind"] for said in other["columns"]["done"]]


@cell("train table", "other units")
@pytest.mark.parametrize("separator", [",", ";"])
def test_one_number_written_in_two_ways_is_one_class(tmp_path: Path, separator: str) -> None:
    tenth = ".0" if separator == "," else ",0"
    ways = ("0", "1", f"1{tenth}", "2", "2", f"0{tenth}", "1", "0", "2")
    lines = [f"{at}{separator}{way}" for at, way in enumerate(ways * 4)]
    (tmp_path / "t.csv").write_text("\n".join([separator.join("xy"), *lines]))
    table = training_table(read_table(tmp_path / "t.csv"), "y")
    assert table.class_names == ("0", "1", "2")
    assert table.target.tolist() == [0, 1, 1, 2, 2, 0, 1, 0, 2] * 4
    (said,) = (one for one in table.reading.done if one.kind == "merged.number")
    assert said.values["count"] == 8
