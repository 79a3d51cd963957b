"""What a reader of data refuses: files without an end, and cells that only Python calls numbers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bilens.base.errors import DataError
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
