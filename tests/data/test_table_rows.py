"""Tables: a CSV file, rows for a model, and arrays of rows."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bilens.base.errors import DataError
from bilens.data.cells import parse_number
from bilens.data.idx import read_idx
from bilens.data.labelled_data import read_labelled
from bilens.data.model_interface import ModelInterface
from bilens.data.table_file import read_table
from bilens.data.table_rows import columns_of
from bilens.data.text import read_documents, read_table as read_text_table
from bilens.data.tokenizer import load_tokenizer

READERS: dict[str, Callable[[Path], Any]] = {
    "table": read_table,
    "labelled data": lambda path: read_labelled(path, None, ModelInterface(1, 1)),
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
    assert parse_number(cell, ".") == (float(cell), "")


@pytest.mark.parametrize(
    "cell",
    ["1_0", "٣", "inf", "nan", "0x1", "1e", ".", "", "1 0", "1,5", "1e101", "--1", "1" * 500],
)
def test_nothing_else_is_a_number(cell: str) -> None:
    assert parse_number(cell, ".") is None


def table(folder: Path, content: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content)
    return path


def test_columns_come_in_the_order_of_the_names(tmp_path: Path) -> None:
    path = table(tmp_path, '\ufeffb, a ,"c, d"\n1,2,x\n\n3,4e0,y\n'.encode())
    rows = columns_of(read_table(path), ["a", "b"], None, None)
    assert rows.values.tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert rows.columns == ("a", "b")


REFUSED = {
    "empty": (b"", "is empty"),
    "header alone": (b"a,b\n", "holds no rows"),
    "text": (b"a,b\n1,x\n", "row 2 has 'x' in column 'b'; expected a number"),
    "missing": (b"a,b\n1,2\n3,\n", "row 3 has no value that can be read for 'b'"),
    "short": (b"a,b\n1\n", "row 2 has 1 cells; row 1 names 2 columns"),
    "infinite": (b"a,b\ninf,2\n", "row 2 has 'inf' in column 'a'"),
    "an underscore": (b"a,b\n1_0,2\n", "row 2 has '1_0' in column 'a'"),
    "no column": (b"a,c\n1,2\n", "no column, or two, of the name 'b'; .* the table has a, c"),
    "two of a name": (b"a,b,b\n1,2,3\n", "of the name 'b'"),
    "binary": (b"a,b\n1,\0\n", "its content is binary"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        columns_of(read_table(table(tmp_path, content)), ["a", "b"], None, None)
