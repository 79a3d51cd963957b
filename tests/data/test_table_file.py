"""A file as a table of cells: what kind it is, its header and its end.

Damage seen to fail: no look for a gap above the header; letters with accents read as Japanese;
totals kept; the number of a row one off; any first row taken for names; hidden sheets first.
"""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from openpyxl.worksheet.cell_range import CellRange

from bilens.base.errors import BilensError, DataError, UsageError
from bilens.base.memory import MEMORY_LIMIT_VARIABLE
from bilens.data.cells import parse_number
from bilens.data.table_file import FORMULA, RawTable, read_table

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


@pytest.mark.parametrize(
    ("text", "is_data"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n7.0,3.2,virginica\n", True),
        ("5.1,3.5\n4.9,3.0\n", True),
        ("Smith,34,500\nJones,31,400\n", False),  # numbers that grow may be names
        ("Smith,500,34\nJones,400,31\n", True),
        ("red,small\nred,big\nblue,small\n", True),
        ("0,1,2,3\n4,5,6.5,2\n7,8,9,1\n", False),
        ("country,2019,2020,2022\nA,5,6.5,2\nB,8,9,1\n", False),
        ("9:00,12:00,15:00\n1,2,3\n4,5,6\n", False),
        ("city,sales\nA,5\nB,city\n", False),
        ("a,b\n1,2\n", False),
        ("a,b\nx,y\n", False),
    ],
)
def test_a_first_row_like_the_others_is_data(tmp_path: Path, text: str, is_data: bool) -> None:
    table = read(tmp_path, text.encode())
    assert len(table.rows) == text.count("\n") - (not is_data)
    assert kinds(table) == ["no_header"] * is_data
    assert table.names[0] == ("column 1" if is_data else text.split(",")[0])
    assert table.numbers[0] == 2 - is_data


def test_names_in_two_rows_are_read_together(tmp_path: Path) -> None:
    table = read(tmp_path, b"city,sales,,y\n,Q1,Q2,\nA,1,2.5,p\nB,3,4,q\n")
    assert table.names == ("city", "sales Q1", "sales Q2", "y")
    assert (table.numbers, kinds(table)) == ((3, 4), ["two_headers"])
    table = read(tmp_path, b"weight,height,y\nkg,cm,\n1,2,p\n3,4,q\n")
    assert table.names == ("weight kg", "height cm", "y")


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


def test_parquet_of_types_that_a_text_has_not(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01 09:00", periods=3, tz="Asia/Tokyo")
    odd = {
        "list": [[1, 2], [3], []],
        "record": [{"a": 1}, {"a": 2}, {"a": 3}],
        "price": [Decimal("1.234"), Decimal("5.000"), None],
        "count": pd.array([1, None, 3], "Int64"),
        "big": [2**63 - 1, 1, 2],
        "day": days,
        "long": pd.to_timedelta([1, 2, None], "h"),
    }
    pd.DataFrame(odd).to_parquet(tmp_path / "t.parquet")
    first, second, third = read_table(tmp_path / "t.parquet").rows
    assert first[2:6] == ("1.2340", "1", str(2**63 - 1), "2024-01-01 09:00:00+09:00")
    assert (second[3], third[2], third[6]) == ("", "", "")
    assert "2" in first[0]


def workbook(path: Path, change: Callable[[Any], object]) -> RawTable:
    """The table of a workbook of one sheet, which is changed before it is saved."""
    book = openpyxl.Workbook()
    for line in [["city", "x", "y"], *([c, i, "ab"[i % 2]] for i, c in enumerate("pppqqq"))]:
        book.active.append(line)
    change(book)
    book.save(path)
    return read_table(path)


def test_merged_cells_say_their_value_in_each_row(tmp_path: Path) -> None:
    table = workbook(tmp_path / "t.xlsx", lambda book: book.active.merge_cells("A2:A4"))
    assert table.column("city") == [*"pppqqq"]
    assert kinds(table) == ["merged_cells"]


def test_a_sheet_that_is_shown_goes_before_a_hidden_one(tmp_path: Path) -> None:
    def hidden(book: Any) -> None:
        book.active.sheet_state = "hidden"
        shown = book.create_sheet("shown")
        for line in (["u", "v"], [1, "k"], [2, "l"]):
            shown.append(line)
        book.active = 1

    table = workbook(tmp_path / "t.xlsx", hidden)
    assert (table.names, table.done[0].values["others"]) == (("u", "v"), "Sheet")


def far(book: Any) -> None:
    book.active["XFD1048576"] = 1


def formula(book: Any) -> None:
    book.active["D1"], book.active["D2"] = "z", "=B2*2"


HOSTILE: dict[str, tuple[Callable[[Any], object], str]] = {
    "formulas": (formula, "1 formulas, the first in cell D2, hold no values"),
    "far away": (far, "XFD1048576, needs .*: delete those that are far away"),
    "merged": (
        lambda book: setattr(book.active.merged_cells, "ranges", {CellRange("A1:ZZ9999")}),
        "merges more than a million cells: unmerge them",
    ),
    "blank": (lambda book: book.active.delete_rows(1, 99), "holds no rows"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_workbook_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    change, words = HOSTILE[name]
    with pytest.raises(BilensError, match=words) as caught:
        workbook(tmp_path / "t.xlsx", change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "cell", ['<c r="D2" t="str"><f>A2</f><v></v></c>', '<c r="D2"><f>A2</f><v>3</v></c>']
)
def test_a_formula_with_a_value_is_its_value(cell: str) -> None:
    assert not FORMULA.findall(cell.encode())
    assert FORMULA.findall(b'<c r="D2" s="1"><f t="shared" si="0"/><v/></c>') == [b"D2"]


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
        r"line 2: field larger than field limit \(131072\)",
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
