"""A table to train on: one outcome for whatever a file may hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bilens.base.errors import BilensError, DataError, UsageError
from bilens.data.cells import VOTERS
from bilens.data.table_checks import MOST_ROWS, checked
from bilens.data.table_file import read_table
from bilens.data.table_rows import NamedRows, TrainingTable, columns_of, training_table, with_target
from bilens.records.column_readings import TableColumn

GOOD = "size,colour,same,y\n1.5,red,7,a\n2,blue,7,b\n-3,red,7,a\n4,blue,7,b\n"


def read_columns(path: Path, names: Any, reading: Any = None) -> NamedRows:
    return columns_of(read_table(path), names, reading, None)


def from_text(folder: Path, text: str, **options: Any) -> TrainingTable:
    path = folder / "t.csv"
    path.write_text(text, encoding="utf-8")
    return training_table(read_table(path), options.pop("target", "y"), **options)


def test_numbers_indicators_and_classes(tmp_path: Path) -> None:
    table = from_text(tmp_path, GOOD)
    assert table.names == ("size", "colour=blue", "colour=red")
    assert table.values.tolist() == [[1.5, 0, 1], [2, 1, 0], [-3, 0, 1], [4, 1, 0]]
    assert table.class_names == ("a", "b")
    assert table.target.tolist() == [0, 1, 0, 1]
    assert [(one.kind, one.values["column"]) for one in table.reading.done] == [
        ("constant", "same")
    ]
    assert [bool(column.inputs) for column in table.reading.columns] == [True, True, False]


def test_the_model_reads_the_same_inputs_from_the_file_again(tmp_path: Path) -> None:
    table = from_text(tmp_path, GOOD)
    for reading in (None, table.reading):
        rows = read_columns(tmp_path / "t.csv", table.names, reading)
        torch.testing.assert_close(rows.values, table.values)
    (tmp_path / "new.csv").write_text("colour,size\ngreen,1\n")
    for reading in (None, table.reading):
        rows = read_columns(tmp_path / "new.csv", table.names, reading)
        assert rows.values.tolist() == [[1, 0, 0]]
        assert [one.kind for one in rows.done] == ["unseen"]


def test_a_name_may_hold_an_equals_sign(tmp_path: Path) -> None:
    text = "a=b,a,c=2,y\nu,b=x,1,p\nv,w,2,q\nu,b=x,3,p\nv,w,5,q\n"
    table = from_text(tmp_path, text)
    assert table.names == ("a=b=u", "a=b=v", "a=b=x", "a=w", "c=2")
    torch.testing.assert_close(read_columns(tmp_path / "t.csv", table.names).values, table.values)


def test_a_column_of_texts_with_underscores_is_text(tmp_path: Path) -> None:
    table = from_text(tmp_path, "x,y\n1_0,a\n2_0,b\n1_0,a\n2_0,b\n")
    assert table.names == ("x=1_0", "x=2_0")


@pytest.mark.parametrize(
    ("cells", "task", "classes"),
    [
        ("0 1 0 1 2 2", "auto", ("0", "1", "2")),
        ("10 9 10 9 10 9", "auto", ("9", "10")),  # as numbers, not as texts
        ("0.5 1 0 1 2 2", "auto", None),
        ("0 1 0 1 2 2", "regression", None),
        ("0.5 0.5 1 1 2 2", "classification", ("0.5", "1", "2")),
        ("no yes no yes no yes", "auto", ("no", "yes")),
    ],
)
def test_what_the_target_is(
    tmp_path: Path, cells: str, task: Any, classes: tuple[str, ...] | None
) -> None:
    text = "x,y\n" + "".join(f"{place},{cell}\n" for place, cell in enumerate(cells.split()))
    table = from_text(tmp_path, text, task=task)
    assert table.class_names == classes
    assert table.target.is_floating_point() == (classes is None)


def test_missing_values(tmp_path: Path) -> None:
    text = "x,c,y\n1,p,0\n,q,1\n3,NA,0\n4,q,1\n5,p,1\n6,q,0\n"
    own = from_text(tmp_path, text)
    assert own.names == ("x", "x=(missing)", "c=p", "c=q", "c=(missing)")
    assert torch.isnan(own.values).sum() == 1
    assert own.values[:, 1].tolist() == [0, 1, 0, 0, 0, 0]
    assert own.values[2, 2:].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("answers", "said", "rows"),
    [
        (["a"] * 20 + ["b"] * 20 + ["None"] * 5, {"class_word": ("None", 5)}, 45),
        (["EU"] * 20 + ["APAC"] * 20 + ["NA"] * 9, {"class_word": ("NA", 9)}, 49),
        (
            ["a"] * 20 + ["b"] * 20 + ["None"] * 4,
            {"no_target": 4, "no_target_word": ("None", 4)},
            40,
        ),
        (["a"] * 20 + ["b"] * 20 + ["?"] * 9, {"no_target": 9, "no_target_word": ("?", 9)}, 40),
        (["a"] * 20 + ["b"] * 20 + [""] * 9, {"no_target": 9}, 40),
        (["1"] * 20 + ["0"] * 20 + ["NA"] * 9, {"no_target": 9, "no_target_word": ("NA", 9)}, 40),
        (["a"] + ["None"] * 30 + ["a"], {"class_word": ("None", 30)}, 32),
    ],
)
def test_a_class_may_have_a_word_for_no_value(
    tmp_path: Path, answers: list[str], said: dict[str, Any], rows: int
) -> None:
    table = from_text(tmp_path, "x,y\n" + "".join(f"{i},{y}\n" for i, y in enumerate(answers)))
    about = {one.kind: one.values for one in table.reading.done}
    keys = {
        "no_target": ("count",),
        "no_target_word": ("text", "count"),
        "class_word": ("text", "count"),
    }
    found = {kind: tuple(about[kind][key] for key in keys[kind]) for kind in about}
    assert found == {kind: v if isinstance(v, tuple) else (v,) for kind, v in said.items()}
    assert len(table.values) == rows
    if "class_word" in said:
        assert said["class_word"][0] in (table.class_names or ())
        (tmp_path / "new.csv").write_text("x,y\n1,a\n2,none\n3,EU\n4,NA\n5,\n")
        new = with_target(read_table(tmp_path / "new.csv"), "y", table.class_names)
        assert len(new.rows) == 3


MANY = "x,c,y\n" + "".join(f"{i},t{i},{i % 2}\n" for i in range(30))
REFUSED: list[tuple[str, dict[str, Any], type[BilensError], str]] = [
    ("", {}, DataError, "is empty"),
    ("x,y\n", {}, DataError, "holds no rows"),
    ("x,y\n1,2\n1\n", {}, DataError, "row 3 has 1 cells; row 1 names 2"),
    (GOOD, {"target": "z"}, DataError, "has no column 'z'; it has size, colour"),
    (GOOD, {"drop": ["z"]}, UsageError, "has no column 'z'"),
    (GOOD, {"drop": ["y"]}, UsageError, "'y' is the target"),
    (GOOD, {"drop": ["size", "colour"]}, DataError, "no column is left"),
    ("x,y\n1,a\n2,\n", {}, DataError, "holds 1 rows with a target"),
    ("x,y\n1,a\n2,a\n", {}, DataError, "holds one class, 'a'"),
    ("x,y\n1,a\n2,b\n", {}, DataError, "2 different values in 2 rows"),
    (
        "x,y\n1,a\n2,3\n",
        {"task": "regression"},
        DataError,
        "row 2 has 'a' in column 'y'; expected a finite number",
    ),
    ("x,y\n1,a\n2,b\n", {}, DataError, "too many for classes: choose another target"),
    ("x,y\n1,0\n2,1\n", {}, DataError, "too many for classes: use --task regression, or choose"),
    ("x,y\n1,2.5\n2,2.5\n", {}, DataError, "the target 'y' is 2.5 in every row"),
    ("x,y\n1,2\n2,1e400\n", {}, DataError, "row 3 has '1e400' in column 'y'; expected a num"),
    ("x,y\n1,a\ninf,b\n2,b\n3,a\n", {}, DataError, "row 3 has 'inf' in column 'x'; expected a"),
    ("x,y\n1,a\n1e200,b\n2,b\n3,a\n", {}, DataError, r"of at most 1e\+100: .* --drop 'x'"),
    ("x,y\n1,a\n1_0,b\n2,b\n3,a\n", {}, DataError, "row 3 has '1_0' in column 'x'; .* digits"),
    ("x,y\n1,a\n٣,b\n2,b\n3,a\n", {}, DataError, "row 3 has '٣' in column 'x'; .* digits"),
    ("x,y\n٣,a\n٤,b\n٣,b\n٤,a\n", {}, DataError, "row 2 has '٣' in column 'x'; .* digits"),
    ("x,y\n1,1_0\n2,1\n3,2\n", {}, DataError, "row 2 has '1_0' in column 'y'; .* another target"),
    ("c=d,c,y\n1,d,0\n2,e,1\n3,d,0\n4,e,1\n", {}, DataError, "would have the name 'c=d'"),
    ("x,y\n1 kg,0\n2 m,1\n3 kg,0\n", {}, DataError, "row 3 has '2 m' in .* the same unit, kg"),
    ("x,y\n1%,0\n2,1\n3%,0\n", {}, DataError, "row 3 has '2' in .* the same unit, %"),
]


@pytest.mark.parametrize(("text", "options", "error", "message"), REFUSED)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, text: str, options: dict[str, Any], error: type[BilensError], message: str
) -> None:
    with pytest.raises(error, match=message):
        from_text(tmp_path, text, **options)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; expected a CSV, Excel or Parquet table"):
        read_table(tmp_path / "absent.csv")


def test_a_target_may_be_absent_for_a_wrong_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("ﾅﾏｴ,x\nｱｲ,1\n".encode("cp932"))
    with pytest.raises(DataError, match=r"encoding is guessed to be cp1252: .* with --encoding"):
        training_table(read_table(tmp_path / "t.csv"), "ﾅﾏｴ")


def test_a_text_of_many_kinds(tmp_path: Path) -> None:
    """One that names rows is left out; of others the rare ones share an input."""
    codes = from_text(tmp_path, MANY)
    assert (codes.names, codes.reading.columns[1].identifier) == (("x",), True)
    text = "c,y\n" + "".join(f"t{i % 30},{i % 2}\n" for i in range(90))
    grouped = from_text(tmp_path, text)
    assert len(grouped.names) == 20
    assert grouped.names[-1] == "c=(other)"
    assert grouped.values[:, -1].sum() == 3 * 11
    rows = read_columns(tmp_path / "t.csv", grouped.names, grouped.reading)
    torch.testing.assert_close(rows.values, grouped.values)


@pytest.mark.parametrize(
    "cells", [("0.50", "1"), ("50", "100%", "100"), ("0", "100%", "50%", "75%")]
)
def test_a_percentage_without_its_mark_is_another_unit(
    tmp_path: Path, cells: tuple[str, ...]
) -> None:
    table = from_text(tmp_path, "x,y\n50%,0\n100%,1\n75 %,0\n20%,1\n")
    (tmp_path / "new.csv").write_text("x\n" + "\n".join(cells))
    with pytest.raises(DataError, match=f"has '{cells[0]}' in .* a number in %, as in the train"):
        read_columns(tmp_path / "new.csv", table.names, table.reading)


def test_a_few_words_among_numbers_are_no_values(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{i if i else 'about 7'},{i % 2}\n" for i in range(20))
    table = from_text(tmp_path, text)
    assert table.names == ("x", "x=(missing)")
    said = {one.kind: one.values for one in table.reading.done}
    assert (said["no_number"]["row"], said["no_number"]["text"]) == (2, "about 7")


def test_dates_are_taken_apart(tmp_path: Path) -> None:
    text = "d,y\n2024-03-01,0\n1.4.2024,1\n2025年3月1日,0\n2024/4/30,1\n"
    table = from_text(tmp_path, text)
    assert table.names == ("d: year", "d: month", "d: weekday", "d: days since 2024-03-01")
    assert table.values.tolist() == [
        [2024, 3, 5, 0],
        [2024, 4, 1, 31],
        [2025, 3, 6, 365],
        [2024, 4, 2, 60],
    ]


@pytest.mark.parametrize(
    ("cells", "days", "said"),
    [
        (["1/5/2024", "1/13/2024", "12/1/2024", "2/2/2024"], [0, 8, 331, 28], "dates"),
        (["1-5-2024", "13-5-2024", "1-12-2024", "2-2-2024"], [89, 101, 303, 0], "dates"),
        (["1/5/2024", "2/5/2024", "3/5/2024", "1/5/2024"], [0, 31, 60, 0], "date_guess"),
        (["1/2/2024", "1/3/2024", "1/4/2024", "1/2/2024"], [0, 29, 60, 0], "date_guess"),
        (["1/2/2024", "3/3/2024", "3/4/2024", "1/2/2024"], [0, 61, 62, 0], "date_guess"),
        (["20240105", "20240113", "20241201", "20240202"], [0, 8, 331, 28], "dates"),
        (["R6.1.5", "令和6年1月13日", "2024年12月1日", "2024-02"], [0, 8, 331, 27], "dates"),
    ],
)
def test_a_column_of_dates_decides_what_stands_first(
    tmp_path: Path, cells: list[str], days: list[int], said: str
) -> None:
    text = "d,y\n" + "".join(f"{cell},{at % 2}\n" for at, cell in enumerate(cells))
    table = from_text(tmp_path, text)
    at = next(at for at, name in enumerate(table.names) if "days since" in name)
    assert table.values[:, at].tolist() == days
    assert table.reading.done[0].kind == said
    (tmp_path / "new.csv").write_text(f"d\n{cells[2]}\n")  # nothing of its own settles it
    rows = read_columns(tmp_path / "new.csv", table.names, table.reading)
    assert rows.values[0, at] == days[2]
    assert rows.done == ()


@pytest.mark.parametrize(
    ("trained", "new", "wanted"),
    [
        (["2023/4/7", "2023/5/8"], "d,y\n4/7/2023,0\n8/9/2023,1\n", [0, 124]),
        (["2023/4/7", "2023/5/8"], "d,y\n4/7/2023,0\n", [0]),
        (["2023/4/7", "2023/5/8"], "d;y\n4/7/2023;0\n8/9/2023;1\n", [88, 154]),
        (["450", "451"], "d;y\n1.394;0\n2;1\n", [1394, 2]),
    ],
)
def test_what_no_training_cell_shows_is_guessed_as_in_training_and_said(
    tmp_path: Path, trained: list[str], new: str, wanted: list[int]
) -> None:
    first, second = trained
    model = from_text(tmp_path, f"d,y\n{first},0\n{second},1\n" + f"{second},0\n{first},1\n")
    (tmp_path / "new.csv").write_text(new)
    rows = read_columns(tmp_path / "new.csv", model.names, model.reading)
    assert rows.values[:, -1].tolist() == wanted
    assert [one.kind[-6:] for one in rows.done if "column" in one.values] == ["_guess"]


def test_days_and_months_in_both_orders_are_refused(tmp_path: Path) -> None:
    """None of them is thrown away; the two cells are named."""
    mixed = "d,y\n14/2/2024,0\n3/4/2024,1\n11/22/2024,0\n4/5/2024,1\n"
    said = r"row 4 has '11/22/2024' in column 'd'; expected the day first, as in row 2 \('14/2/"
    with pytest.raises(DataError, match=said + r".*--drop 'd'"):
        from_text(tmp_path, mixed)
    model = from_text(tmp_path, "d,y\n1/13/2024,0\n1/14/2024,1\n1/15/2024,0\n1/16/2024,1\n")
    (tmp_path / "new.csv").write_text(mixed)
    with pytest.raises(DataError, match=said):
        read_columns(tmp_path / "new.csv", model.names, model.reading)


def test_the_hour_is_an_input_where_it_varies(tmp_path: Path) -> None:
    rows = ["2024-03-01 00:00", "2024-03-01 13:30", "2024-03-02 06:15 PM", "2024-03-02 00:00"]
    table = from_text(tmp_path, "d,y\n" + "".join(f"{r},{i % 2}\n" for i, r in enumerate(rows)))
    assert table.names == ("d: weekday", "d: hour", "d: days since 2024-03-01")
    assert table.values[:, 1].tolist() == [0, 13.5, 18.25, 0]


def test_the_training_or_one_cell_below_many_others_settles_what_is_the_day(tmp_path: Path) -> None:
    lines = ["2023/4/7,20/5/2024,0", "2023/5/8,21/5/2024,1", "2023/4/7,22/5/2024,0"]
    model = from_text(tmp_path, "d,e,y\n" + "\n".join([*lines, "2023/5/9,23/5/2024,1\n"]))
    open_days = "".join(f"{i % 12 + 1}/7/2023,2024-05-01\n" for i in range(VOTERS))
    for last, days in (("", 85), ("7/13/2023,2024-05-01\n", -90)):
        (tmp_path / "new.csv").write_text("d,e\n" + open_days + last)
        rows = read_columns(tmp_path / "new.csv", model.names, model.reading)
        at = model.names.index("d: days since 2023-04-07")
        assert rows.values[0, at] == days
        assert rows.done == ()


def test_times_are_hours(tmp_path: Path) -> None:
    times = ["14:30", "8:45", "02:15 PM", "00:00", "8:06:00"] * 6
    times[-1] = "25:00"
    table = from_text(tmp_path, "t,y\n" + "".join(f"{t},{i % 2}\n" for i, t in enumerate(times)))
    assert table.names == ("t", "t=(missing)")
    assert table.values[:5, 0].tolist() == [14.5, 8.75, 14.25, 0, 8.1]
    assert table.values[-1, 0].isnan()


BIG = [7394, 450, 1250, 450]


@pytest.mark.parametrize(
    ("text", "x", "said"),
    [
        ("x;z;y\n7.394;-0,482;a\n450;0,330;b\n1.250;0,125;b\n450;1;a\n", BIG, "number"),
        ('x,z,y\n"0,125",1,a\n"1,500",2,b\n"0,250",4,b\n2,7,a\n', [0.125, 1.5, 0.25, 2], "number"),
        ("x;z;y\n7.394;1;a\n450;2;b\n1.250;4;b\n450;7;a\n", BIG, "mark_guess"),
        ('x,z,y\n"7,394",1,a\n450,2,b\n"1,250",4,b\n450,7,a\n', BIG, "mark_guess"),
        ("x,z,y\n7.394,1,a\n450,2,b\n1.250,4,b\n450,7,a\n", [7.394, 450, 1.25, 450], "mark_guess"),
    ],
)
def test_thousands_and_decimals(tmp_path: Path, text: str, x: list[float], said: str) -> None:
    table = from_text(tmp_path, text)
    assert table.values[:, 0].tolist() == x
    assert said in [one.kind for one in table.reading.done if one.values.get("column") == "x"]
    (tmp_path / "again.csv").write_text(table.cells.to_text([0, 2]))
    rows = read_columns(tmp_path / "again.csv", table.names, table.reading)
    assert rows.values[:, 0].tolist() == [x[0], x[2]]


def test_a_new_table_of_another_country(tmp_path: Path) -> None:
    """Its own columns decide, and what differs from the training is said."""
    model = from_text(tmp_path, "x,z,y\n7.394,0.5,a\n450,1.5,b\n1.25,2.5,b\n3,3.5,a\n")
    (tmp_path / "new.csv").write_text("x;z\n7.394;0,5\n450;1,25\n")
    rows = read_columns(tmp_path / "new.csv", model.names, model.reading)
    assert rows.values.tolist() == [[7394, 0.5], [450, 1.25]]
    assert "mark_guess" in [one.kind for one in rows.done]


def test_a_guessed_target_is_said(tmp_path: Path) -> None:
    text = "x;y\n" + "".join(f"{i};{i}.394\n" for i in range(1, 30))
    table = from_text(tmp_path, text)
    assert table.target[0] == 1394
    assert [one.kind for one in table.reading.done][-1] == "mark_guess"


def test_spellings_of_one_class_are_one(tmp_path: Path) -> None:
    table = from_text(tmp_path, "x,y\n1,Yes\n2,no\n3,yes \n4,Yes\n5,ＮＯ\n6,no\n")
    assert table.class_names == ("Yes", "no")
    assert table.target.tolist() == [0, 1, 0, 0, 1, 1]


def test_without_a_second_class_in_the_rows_looked_at_columns_have_no_score() -> None:
    rows = np.random.default_rng(0).permutation(MOST_ROWS + 1)
    target = torch.zeros(len(rows), dtype=torch.int64)
    target[rows[-1]] = 1
    column = TableColumn("x", "number", ("x",))
    (found,) = checked([column], torch.arange(len(rows))[:, None].double(), ["x"], target)
    assert (found.alone, found.identifier) == (None, True)
