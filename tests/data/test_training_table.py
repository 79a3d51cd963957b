"""A table to train on: one outcome for whatever a file may hold."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bilens.base.errors import BilensError, DataError, UsageError
from bilens.data.tables import read_columns, read_table
from bilens.data.training_table import TrainingTable, training_table

GOOD = "size,colour,same,y\n1.5,red,7,a\n2,blue,7,b\n-3,red,7,a\n4,blue,7,b\n"


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
    assert table.notes == ("Left out, as they have one value throughout: same.",)


def test_the_model_reads_the_same_inputs_from_the_file_again(tmp_path: Path) -> None:
    table = from_text(tmp_path, GOOD)
    rows = read_columns(tmp_path / "t.csv", table.names)
    torch.testing.assert_close(rows.values, table.values)
    (tmp_path / "new.csv").write_text("colour,size\ngreen,1\n")
    with pytest.raises(DataError, match=r"'green' in column 'colour'; the model knows blue, red"):
        read_columns(tmp_path / "new.csv", table.names)


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
    mean = from_text(tmp_path, text, missing="mean")
    assert torch.isnan(mean.values).sum() == 3  # x once, and both indicators of c
    dropped = from_text(tmp_path, text, missing="drop")
    assert dropped.values[:, 0].tolist() == [1, 4, 5, 6]
    assert "2 of 6 rows lack a value" in dropped.notes[0]
    assert from_text(tmp_path, text, missing="drop", drop=["c"]).values.tolist() == [
        [1],
        [3],
        [4],
        [5],
        [6],
    ]


MANY = "x,c,y\n" + "".join(f"{i},t{i},{i % 2}\n" for i in range(30))
REFUSED: list[tuple[str, dict[str, Any], type[BilensError], str]] = [
    ("", {}, DataError, "is empty"),
    ("x,y\n", {}, DataError, "holds no rows"),
    ("x,x,y\n1,2,3\n", {}, DataError, "more than one column of the name 'x'"),
    ("x,,y\n1,2,3\n", {}, DataError, "column 2 of 3 has no name"),
    ("x,y\n1,2\n1\n", {}, DataError, "row 1 has 1 cells; the first line names 2"),
    (GOOD, {"target": "z"}, DataError, "has no column 'z'; it has size, colour"),
    (GOOD, {"drop": ["z"]}, UsageError, "has no column 'z'"),
    (GOOD, {"drop": ["y"]}, UsageError, "'y' is the target"),
    (GOOD, {"drop": ["size", "colour"]}, DataError, "no column is left"),
    ("x,y\n1,a\n,b\n", {}, DataError, "row 1 has no value in column 'x'"),
    ("x,y\n1,a\n2,\n", {"missing": "mean"}, DataError, "row 1 has no value in column 'y'"),
    ("x,y\n,a\n,b\n", {"missing": "drop"}, DataError, "every row lacks a value"),
    ("x,y\n1,a\n2,a\n", {}, DataError, "holds one class, 'a'"),
    ("x,y\n1,a\n2,b\n", {}, DataError, "2 different values in 2 rows"),
    ("x,y\n1,a\n2,3\n", {"task": "regression"}, DataError, "row 0 has 'a' in the target"),
    ("x,y\n1,a\n2,b\n", {}, DataError, "too many for classes: choose another target"),
    ("x,y\n1,0\n2,1\n", {}, DataError, "too many for classes: use --task regression, or choose"),
    ("x,y\n1,2.5\n2,2.5\n", {}, DataError, "the target 'y' is 2.5 in every row"),
    ("x,y\n1,2\n2,1e400\n", {}, DataError, "row 1 has '1e400' in column 'y'; expected a num"),
    ("x,y\n1,a\ninf,b\n2,b\n3,a\n", {}, DataError, "row 1 has 'inf' in column 'x'; expected a"),
    ("x,y\n1,a\n1e200,b\n2,b\n3,a\n", {}, DataError, r"of at most 1e\+100: .* --drop 'x'"),
    ("x;y\n1;a\n", {}, DataError, "has no column 'y'; it has x;y. .* separated by ';'"),
    ("x;y\n1,5;2\n", {}, DataError, "row 0 has 2 cells; .* separated by ';'"),
    ("x,y\n1,a\n1_0,b\n2,b\n3,a\n", {}, DataError, "row 1 has '1_0' in column 'x'; .* digits"),
    ("x,y\n1,a\n٣,b\n2,b\n3,a\n", {}, DataError, "row 1 has '٣' in column 'x'; .* digits"),
    ("x,y\n٣,a\n٤,b\n٣,b\n٤,a\n", {}, DataError, "row 0 has '٣' in column 'x'; .* digits"),
    ("x,y\n1,1_0\n2,1\n3,2\n", {}, DataError, "row 0 has '1_0' in column 'y'; .* another target"),
    ("x,y\n1e-310,a\n0,b\n2e-310,b\n0,a\n", {}, DataError, "column 'x' holds numbers of at most"),
    ("x,y\n1,1e-310\n2,0\n3,2e-310\n", {}, DataError, "column 'y' holds numbers of .* another tar"),
    ("c=d,c,y\n1,d,0\n2,e,1\n3,d,0\n4,e,1\n", {}, DataError, "would have the name 'c=d'"),
    (MANY, {}, DataError, r"column 'c' is text \('t0' in row 0\) with 30 different values"),
]


@pytest.mark.parametrize(("text", "options", "error", "message"), REFUSED)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, text: str, options: dict[str, Any], error: type[BilensError], message: str
) -> None:
    with pytest.raises(error, match=message):
        from_text(tmp_path, text, **options)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; expected a CSV table"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "latin.csv").write_bytes("x,y\né,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        read_table(tmp_path / "latin.csv")
