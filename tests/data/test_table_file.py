"""A file as a table of cells: what kind it is, its header and its end.

Damage seen to fail: no look for a gap above the header; letters with accents read as Japanese;
totals kept; the number of a row one off.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bilens.base.errors import BilensError, DataError, UsageError
from bilens.base.memory import MEMORY_LIMIT_VARIABLE
from bilens.data.cells import parse_number
from bilens.data.table_file import read_table

JAPANESE = "店舗,売上\n東京,120\n大阪,80\nトウキョウ,90\n"
GERMAN = "Straße;Größe;Prämie\nMüllerstraße;1,5;äöüß\nGänseweg;2,5;Öl\n"


def read(folder: Path, content: bytes, name: str = "t.csv", **options: Any) -> Any:
    (folder / name).write_bytes(content)
    return read_table(folder / name, **options)


def kinds(table: Any) -> list[str]:
    return [one.kind for one in table.done]


@pytest.mark.parametrize(
    ("encoding", "text", "found"),
    [
        ("utf-8", JAPANESE, None),
        ("utf-8-sig", JAPANESE, None),
        ("utf-16", JAPANESE, "utf-16"),
        ("cp932", JAPANESE, "cp932"),
        ("cp932", "性別,値\n男,1\n女,2\n", "cp932"),
        ("cp932", "氏名,ｶﾅ\n田中,ﾀﾅｶ ﾀﾛｳ\n鈴木,ｽｽﾞｷ ｼﾞﾛｳ\n", "cp932"),
        ("cp1252", "Maß,Änderung\nÜbermaß,Ärger\nGröße,°C\n", "cp1252"),
        ("cp1252", GERMAN, "cp1252"),
        ("cp1252", "ville,prix €\nÉvreux,1\nNîmes,2\nçà,3\n", "cp1252"),
        ("latin-1", "name,x\nMüller,1\nJäger,2\n", "cp1252"),
    ],
)
def test_encodings(tmp_path: Path, encoding: str, text: str, found: str | None) -> None:
    table = read(tmp_path, text.encode(encoding))
    lines = [line.split(table.separator) for line in text.splitlines()]
    assert [list(table.names), *map(list, table.rows)] == lines
    said = [one.values["encoding"] for one in table.done if one.kind == "encoding"]
    assert said == ([found] if found else [])
    assert read(tmp_path, text.encode(encoding), encoding=encoding).rows == table.rows


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_separators(tmp_path: Path, mark: str) -> None:
    lines = [["a", "b", "c"], ["1,5", "x; y", "z"], ["2,5", "p|q", "r"]]
    text = "\n".join(
        mark.join(f'"{cell}"' if mark in cell else cell for cell in line) for line in lines
    )
    table = read(tmp_path, text.encode())
    assert [list(table.names), *map(list, table.rows)] == lines
    assert ("separator" in kinds(table)) == (mark != ",")


def test_what_stands_around_a_table_is_left_out_and_said(tmp_path: Path) -> None:
    text = (
        "月次報告,,,\n作成日,2024年4月1日,,\n\n店舗,売上,,担当\n東京,1,,佐藤\n大阪,2,,鈴木\n"
        "京都,4,,田中\n合計,7,,\n\n※ 税込み,,,\n"
    )
    table = read(tmp_path, text.encode())
    assert table.names == ("店舗", "売上", "担当")
    assert [row[0] for row in table.rows] == ["東京", "大阪", "京都"]
    assert table.numbers == (5, 6, 7)
    assert kinds(table) == ["preamble", "footer"]
    assert table.done[1].values == {"count": 2, "row": 8, "text": "合計"}


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["good", "average", "bad", "average", "average"], 5),
        (["average", "good", "bad", "Average"], 4),
        (["good", "bad", "good", "total", "average"], 3),
        (["good", "bad", "sum", "subtotal", "total", "average"], 3),
    ],
)
def test_a_class_that_is_named_like_a_total_keeps_its_rows(
    tmp_path: Path, words: list[str], kept: int
) -> None:
    table = read(
        tmp_path, "".join(f"{row}\n" for row in ["class,x", *(f"{w},1" for w in words)]).encode()
    )
    assert len(table.rows) == kept
    assert ("footer" in kinds(table)) == (kept < len(words))


def test_a_long_line_of_short_cells_is_read(tmp_path: Path) -> None:
    line = b"\t".join([b"12345"] * 30_000)
    assert len(read(tmp_path, b"\n".join([line] * 2)).names) == 30_000


def test_names_of_columns_are_told_apart(tmp_path: Path) -> None:
    table = read(tmp_path, b",a,a,a (2)\n0,1,2,3\n1,2,3,4\n")
    assert table.names == ("column 1", "a", "a (2)", "a (2) (2)")
    assert kinds(table) == ["renamed", "renamed", "renamed"]


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "day": pd.to_datetime(["2024-03-01", "2024-03-02", None]),
            "x": [1.0, None, 2.5],
            "n": [1, 2, 3],
            "ok": [True, False, True],
            "t": ["a", None, "c"],
        }
    )


def test_parquet(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.names == ("day", "x", "n", "ok", "t")
    assert table.rows[0] == ("2024-03-01", "1", "1", "True", "a")
    assert table.rows[1] == ("2024-03-02", "", "2", "False", "")
    assert table.numbers == (1, 2, 3)


def test_excel(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    with pd.ExcelWriter(path) as writer:
        pd.DataFrame().to_excel(writer, sheet_name="empty")
        frame().to_excel(writer, sheet_name="data", startrow=3, startcol=1, index=False)
        frame().to_excel(writer, sheet_name="more")
        writer.book["data"]["B1"] = "Report"
    table = read_table(path)
    assert table.names == ("day", "x", "n", "ok", "t")
    assert table.rows[2] == ("", "2.5", "3", "True", "c")
    assert table.numbers == (5, 6, 7)
    assert kinds(table) == ["sheet", "preamble"]


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    table = read(tmp_path, b"a,b\n1,2\n", "t.xlsx")
    assert (table.rows, kinds(table)) == ((("1", "2"),), ["mislabelled"])
    frame().to_parquet(tmp_path / "t.csv")
    assert kinds(read_table(tmp_path / "t.csv")) == ["mislabelled"]


def cut(write: Callable[[Path], object], share: float = 0.6) -> Callable[[Path], bytes]:
    def content(path: Path) -> bytes:
        write(path)
        whole = path.read_bytes()
        return whole[: int(share * len(whole))]

    return content


BAD: dict[str, tuple[bytes | Callable[[Path], bytes], dict[str, Any], type[BilensError], str]] = {
    "empty": (b"", {}, DataError, "is empty"),
    "blank": (b"\n\n , \n", {}, DataError, "holds no rows"),
    "names alone": (b"a,b\n", {}, DataError, "holds no rows"),
    "cut row": (b"a,b,c\n1,2,3\n4,5", {}, DataError, "row 3 has 2 cells; row 1 names 3 columns"),
    "long row": (b"a,b\n1,2\n1,2,3\n", {}, DataError, "row 3 has 3 cells"),
    "open quotation": (b'a,b\n1,"2\n3,4\n', {}, DataError, "cut off, or a quotation mark"),
    "long cell": (
        b"a,b\n1," + b"x" * 200_000,
        {},
        DataError,
        "row 2 has a cell of more than 131,072",
    ),
    "binary": (b"a,b\n1,\0\n", {}, DataError, "its content is binary"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), {}, DataError, r"an old \.xls"),
    "another zip": (b"PK\3\4" + bytes(99), {}, DataError, "no Excel file that can be read"),
    "cut Excel": (
        cut(
            lambda path: (
                frame().to_excel(path.with_suffix(".xlsx"))
                or path.with_suffix(".xlsx").rename(path)
            )
        ),
        {},
        DataError,
        "no Excel file that can be read .* cut off",
    ),
    "cut Parquet": (cut(frame().to_parquet), {}, DataError, "no Parquet file that can be read"),
    "another encoding": (
        "é,b\n1,2\n".encode("latin-1"),
        {"encoding": "utf-8"},
        DataError,
        "byte 0",
    ),
    "no encoding": (b"a,b\n1,2\n", {"encoding": "utf-99"}, UsageError, "no encoding 'utf-99'"),
    "odd UTF-16": (b"\xff\xfea\0,", {}, DataError, "is not utf-16: the file is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_table_is_refused(name: str, tmp_path: Path) -> None:
    content, options, error, words = BAD[name]
    if callable(content):
        content = content(tmp_path / "whole")
    with pytest.raises(error, match=words):
        read(tmp_path, content, **options)


def test_a_table_that_does_not_fit_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame().to_parquet(tmp_path / "t.parquet")
    frame().to_excel(tmp_path / "t.xlsx")
    frame().to_csv(tmp_path / "t.csv")
    monkeypatch.setenv(MEMORY_LIMIT_VARIABLE, "100")
    for name in ("t.parquet", "t.xlsx", "t.csv"):
        with pytest.raises(BilensError, match="the limit is"):
            read_table(tmp_path / name)


def test_a_typed_number_is_never_taken_for_thousands(tmp_path: Path) -> None:
    path = tmp_path / "typed.xlsx"
    pd.DataFrame({"a": [7.394, 450.0], "b": ["0,5", "-0,482"]}).to_excel(path, index=False)
    (first, _), (second, _) = read_table(path).rows
    assert (parse_number(first, ","), parse_number(first, ".")) == (None, (7.394, ""))
    assert second == "450"
