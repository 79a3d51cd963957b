"""Named columns of a CSV table.

Broken once: columns taken by their place in the table; the first test failed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bilens.base.errors import DataError
from bilens.data.columns import read_columns


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
    "empty": (b"", "holds no rows"),
    "header alone": (b"a,b\n", "holds no rows"),
    "text": (b"a,b\n1,x\n", "row 0 has 'x' in column 'b'; expected a finite number"),
    "missing": (b"a,b\n1,2\n3,\n", "row 1 has '' in column 'b'"),
    "short": (b"a,b\n1\n", "row 0 has '' in column 'b'"),
    "infinite": (b"a,b\ninf,2\n", "row 0 has 'inf' in column 'a'"),
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
    with pytest.raises(DataError, match="cannot be read"):
        read_columns(tmp_path / "nothing.csv", ["a"])
