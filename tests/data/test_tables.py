"""Tables: a CSV file, rows for a model, and arrays of rows."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bilens.base.errors import DataError, UsageError
from bilens.data.idx import read_idx
from bilens.data.tables import as_number, read_columns, read_rows, read_table, read_targets
from bilens.data.text import read_documents, read_table as read_text_table
from bilens.data.tokenizer import load_tokenizer

READERS: dict[str, Callable[[Path], Any]] = {
    "table": read_table,
    "columns": lambda path: read_columns(path, ["a"]),
    "targets": lambda path: read_targets(path, "a", ["a"]),
    "rows": lambda path: read_rows(path.rename(path.with_suffix(".csv")), 1),
    "documents": lambda path: list(read_documents(path)),
    "text table": lambda path: list(read_text_table(path, None)),
    "images": read_idx,
    "tokenizer": load_tokenizer,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is not a regular file; expected"):
        READERS[name](tmp_path / "pipe")


@pytest.mark.parametrize("name", READERS)
def test_a_device_without_an_end_is_not_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is not a regular file; expected"):
        READERS[name](tmp_path / "zero")


@pytest.mark.parametrize("cell", ["1", "-0.5", "+2.", ".5", "1e3", "2.5E-7", "007", "1e100"])
def test_decimal_and_scientific_notation_are_numbers(cell: str) -> None:
    assert as_number(cell) == float(cell)


@pytest.mark.parametrize(
    "cell", ["1_0", "٣", "１", "inf", "nan", "0x1", "1e", ".", "", "1 0", "1,5", "1e101", "--1"]
)
def test_nothing_else_is_a_number(cell: str) -> None:
    assert as_number(cell) is None


def table(folder: Path, content: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content)
    return path


def test_columns_come_in_the_order_of_the_names(tmp_path: Path) -> None:
    path = table(tmp_path, '\ufeffb, a ,"c, d"\n1,2,x\n\n3,4e0,y\n'.encode())
    rows = read_columns(path, ["a", "b"])
    assert rows.values.tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert (rows.names, rows.source) == (("a", "b"), str(path))


REFUSED = {
    "empty": (b"", "is empty"),
    "header alone": (b"a,b\n", "holds no rows"),
    "text": (b"a,b\n1,x\n", "row 0 has 'x' in column 'b'; expected a finite number"),
    "missing": (b"a,b\n1,2\n3,\n", "row 1 has '' in column 'b'"),
    "short": (b"a,b\n1\n", "row 0 has '' in column 'b'"),
    "infinite": (b"a,b\ninf,2\n", "row 0 has 'inf' in column 'a'"),
    "an underscore": (b"a,b\n1_0,2\n", "row 0 has '1_0' in column 'a'"),
    "no column": (b"a,c\n1,2\n", "no column, or two, of the name 'b'; .* the table has a, c"),
    "two of a name": (b"a,b,b\n1,2,3\n", "of the name 'b'"),
    "not UTF-8": (b"a,b\n1,\xff\n", "byte 6 is not UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        read_columns(table(tmp_path, content), ["a", "b"])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_columns(tmp_path / "nothing.csv", ["a"])


ROWS = torch.arange(12.0).double().reshape(4, 3)
TABLE = b"b, a,c\n0,1,2\n3,4,5\n6,7,8\n9,10,11\n"


def test_every_kind_of_file_gives_the_rows(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(TABLE)
    np.save(tmp_path / "x.npy", ROWS.float().numpy())
    save_file({"any": ROWS.bfloat16()}, tmp_path / "x.safetensors")
    for kind in (".csv", ".npy", ".safetensors"):
        found = read_rows(tmp_path / f"x{kind}", 3)
        assert found.dtype == torch.float64
        assert torch.equal(found, ROWS)


def test_named_columns_are_taken_in_the_order_of_the_names(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(TABLE)
    assert torch.equal(read_rows(tmp_path / "x.csv", 2, ("a", "b")), ROWS[:, [1, 0]])


def saved(array: np.ndarray) -> Callable[[Path], object]:
    return lambda path: np.save(path, array, allow_pickle=True)


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


BAD: dict[str, tuple[str, Callable[[Path], object], type[Exception], str]] = {
    "missing": ("x.npy", lambda _: None, DataError, "no such file; expected rows of 3 numbers"),
    "another kind": ("x.json", written(b"[]"), UsageError, "expected a .csv, .npy or .safetensors"),
    "objects": ("x.npy", saved(np.array([{}, 1])), DataError, "not an array of numbers"),
    "text": ("x.npy", saved(np.array(["a"])), DataError, "holds <U1; expected real numbers"),
    "complex": ("x.npy", saved(np.ones((2, 3)) * 1j), DataError, "holds complex128"),
    "three axes": ("x.npy", saved(np.ones((2, 3, 3))), DataError, r"holds \(2, 3, 3\) numbers"),
    "none": ("x.npy", saved(np.ones((0, 3))), DataError, r"holds \(0, 3\) numbers"),
    "NaN": ("x.npy", saved(np.array([[0, 1, np.nan]])), DataError, "row 0 and 0 more hold NaN"),
    "empty file": ("x.npy", written(b""), DataError, "is empty"),
    "cut file": ("x.safetensors", written(b"\x10"), DataError, "not a readable safetensors file"),
    "empty table": ("x.csv", written(b"\n"), DataError, "holds no rows"),
    "not UTF-8": ("x.csv", written(b"\xff\xfe,\x00"), DataError, "UTF-8"),
    "a word": ("x.csv", written(b"a,b,c\n1,2,x\n"), DataError, "row 0 has 'x' in column 'c'"),
    "two tensors": (
        "x.safetensors",
        lambda path: save_file({"a": ROWS, "b": ROWS + 1}, path),
        DataError,
        "holds 2 tensors; expected one",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_are_no_rows_is_refused(name: str, tmp_path: Path) -> None:
    file, write, error, words = BAD[name]
    write(tmp_path / file)
    with pytest.raises(error, match=words):
        read_rows(tmp_path / file, 3)
