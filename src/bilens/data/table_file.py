"""A file as a table of cells: what kind it is, its encoding and separator, its header and its end.

The content decides, not the name; what was decided or left out is said as a `CellConversion`.
"""

import codecs
import csv
import io
import re
import statistics
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from itertools import accumulate, filterfalse, pairwise
from pathlib import Path
from typing import Self

from bilens.base.errors import BilensError, DataError, MissingExtraError, UsageError
from bilens.base.files import check_regular_file
from bilens.base.memory import check_memory
from bilens.base.option_rules import refuse_idle
from bilens.data.cells import is_missing, is_nearly_all, parse_number
from bilens.records.column_readings import CellConversion

SNIFFED = 200  # lines that decide on the separator
MOST_TOTALS = 3  # rows below a table
PREAMBLE = 30  # rows that may stand before the names of columns
TOTAL = re.compile(
    r"総?合\s*計|[総小]計|平均|(sub)?totals?|sum|average|summe|gesamt", re.IGNORECASE
)
REMARK = re.compile(r"※|\*|注|出典|source\b|note\b|quelle\b|hinweis\b", re.IGNORECASE)
MERGED = re.compile(rb'<mergeCell ref="([A-Z]+\d+:[A-Z]+\d+)"')
FORMULA = re.compile(rb'(?s)<c r="([A-Z]+\d+)"(?![^>]*"str")[^>]*>\s*<f(?:(?!</c>|<v>[^<]).)*</c>')
KINDS = {".csv": "text", ".xlsx": "Excel", ".parquet": "Parquet"}
Grid = list[tuple[int, list[str]]]  # the number of a row as a spreadsheet shows it, and its cells


@dataclass(frozen=True)
class RawTable:
    """The cells of a table, as text without spaces around it; all rows are equally long."""

    path: Path
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]  # of the rows, as a spreadsheet shows them
    done: tuple[CellConversion, ...]
    separator: str

    @cached_property
    def positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def column(self, name: str) -> list[str]:
        return [row[self.positions[name]] for row in self.rows]

    def with_rows(self, rows: Sequence[int]) -> Self:
        """Return some of the rows as a table of their own."""
        kept = tuple(self.rows[at] for at in rows), tuple(self.numbers[at] for at in rows)
        return replace(self, rows=kept[0], numbers=kept[1])

    def to_text(self, rows: Sequence[int]) -> str:
        """Return some of the rows as the text of a CSV file, the names first."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.separator, lineterminator="\n")
        writer.writerow(self.names)
        writer.writerows(self.rows[row] for row in rows)
        return text.getvalue()


def read_table(path: Path, encoding: str | None = None) -> RawTable:
    """Return the table in a CSV, Excel or Parquet file: names of its own, and rows that fit."""
    status = check_regular_file(path, "expected a CSV, Excel or Parquet table", DataError)
    with path.open("rb") as file:
        kind = {b"PK\3\4": "Excel", b"PAR1": "Parquet"}.get(file.read(4), "text")
    done, separator = [], ","
    if kind == "text":
        check_memory(20 * status.st_size, f"{path}", "pass fewer rows")
        name, text = decoded(path, path.read_bytes(), encoding)
        separator = separator_of(text)
        if encoding is None and name != "utf-8-sig":
            done.append(CellConversion.of_kind("encoding", encoding=name))
        if separator != ",":
            done.append(CellConversion.of_kind("separator", separator=repr(separator).strip("'")))
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        try:
            grid = [(row, [*map(str.strip, line)]) for row, line in enumerate(lines, 1)]
        except csv.Error as error:
            raise DataError(
                f"{path}: is not a CSV table (line {lines.line_num}: {error}): the file may be cut "
                "off, or a quotation mark be open."
            ) from error
    else:
        refuse_idle("data", {"encoding": encoding})
        grid = frame_grid(path, kind, done)
    if KINDS.get(path.suffix.lower(), kind) != kind:
        done.append(CellConversion.of_kind("mislabelled", suffix=path.suffix, kind=kind))
    return tidied(path, [line for line in grid if any(line[1])], done, separator)


def decoded(path: Path, content: bytes, encoding: str | None) -> tuple[str, str]:
    """Return the encoding and the text of a file: UTF-8 and -16, Japanese, or Western European."""
    is_wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    wanted = encoding or ("utf-16" if is_wide else None)
    for name in (wanted,) if wanted else ("utf-8-sig", "cp932", "cp1252", "latin-1"):
        try:
            text = content.decode(name)
        except LookupError:
            raise UsageError(f"there is no encoding {name!r}: use for instance cp932.") from None
        except UnicodeDecodeError as error:
            if name == wanted:
                raise DataError(
                    f"{path}: byte {error.start} is not {name}: the file is damaged or cut off, or "
                    "has another encoding (--encoding)."
                ) from error
            continue
        if name != "cp932" or is_japanese(text):
            break
    if "\0" in text:
        raise DataError(f"{path}: its content is binary, as of an old .xls or a locked .xlsx file.")
    return name, text


def is_japanese(text: str) -> bool:
    """Tell whether a text that was read as cp932 is not one of letters with accents."""
    # Those leave wide letters next to Latin ones, half-width kana, private ones: lead bytes from A0
    wide = len(re.findall(r"[\u3040-\u30ff\u3400-\u9fff]", text))
    apart = re.findall(r"(?<![A-Za-z])[\u3040-\u30ff\u3400-\u9fff]", text)
    sure = any(letter.encode("cp932") < b"\xa0" for letter in apart)
    odd = r"[\ue000-\uf8ff]" if sure else r"[\uff61-\uff9f\ue000-\uf8ff]"
    return wide > 2 * len(re.findall(rf"[A-Za-z][\u3040-\u9fff]|{odd}", text))


def separator_of(text: str) -> str:
    """Return the separator that cuts most lines into as many cells; the first line counts twice."""
    lines, found = text.splitlines()[:SNIFFED], {}
    for mark in ",;\t|":
        try:
            widths = Counter(len(row) for row in csv.reader([*lines[:1], *lines], delimiter=mark))
        except csv.Error:  # it leaves a cell that is too long
            widths = Counter()
        found[mark] = max(((n, w) for w, n in widths.items() if w > 1), default=(0, 0))
    return max(found, key=lambda mark: found[mark])


def frame_grid(path: Path, kind: str, done: list[CellConversion]) -> Grid:
    """Return the rows of an Excel sheet, or of a Parquet file, whose names have no row."""
    try:
        if kind == "Excel":
            head, body = Grid(), excel_rows(path, done)
        else:
            import pandas as pd
            from pyarrow import parquet

            about = parquet.read_metadata(path)
            check_memory(100 * about.num_rows * about.num_columns, f"{path}", "pass fewer rows")
            frame = pd.read_parquet(path)
            head = [(0, [*map(cell_text, frame.columns)])]
            body = [*frame.astype(object).itertuples(index=False, name=None)]
    except ImportError as error:
        raise MissingExtraError(error.name or "pandas", "tables", f"{path}: {kind}") from None
    except BilensError:
        raise
    except Exception as error:  # whatever the readers make of a damaged file
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path}: is no {kind} file that can be read ({reason}): it may be cut off."
        ) from error
    return [*head, *((row, [*map(cell_text, cells)]) for row, cells in enumerate(body, 1))]


def excel_rows(path: Path, done: list[CellConversion]) -> Sequence[Sequence[object]]:
    """Return the first sheet that is shown and holds anything; merged cells say it in each row."""
    import openpyxl

    with zipfile.ZipFile(path) as parts:
        check_memory(10 * sum(part.file_size for part in parts.infolist()), f"{path}", "split it")
        text = b"".join(parts.read(n) for n in parts.namelist() if n.startswith("xl/worksheets/"))
    areas = map(openpyxl.utils.range_boundaries, map(bytes.decode, MERGED.findall(text)))
    if sum((right - left + 1) * (low - top + 1) for left, top, right, low in areas) > 10**6:
        raise DataError(f"{path}: merges more than a million cells: unmerge them.")
    with path.open("rb") as file:
        book = openpyxl.load_workbook(file, data_only=True, keep_links=False)
    sheets = sorted(book.worksheets, key=lambda sheet: sheet.sheet_state != "visible")
    filled = [one for one in sheets if one.dimensions != "A1:A1" or one["A1"].value is not None]
    if not filled:
        return []
    sheet, others = filled[0], ", ".join(one.title for one in filled[1:5])
    if others or sheet.sheet_state != "visible":
        done.append(CellConversion.of_kind("sheet", sheet=sheet.title, others=others or "—"))
    size = 200 * sheet.max_row * sheet.max_column
    check_memory(size, f"{path}, with cells {sheet.dimensions},", "delete those that are far away")
    rows = [[*cells] for cells in sheet.iter_rows(values_only=True)]
    for area in sheet.merged_cells.ranges:
        for row in range(area.min_row, area.max_row):
            rows[row][area.min_col - 1] = rows[area.min_row - 1][area.min_col - 1]
    if sheet.merged_cells.ranges:
        done.append(CellConversion.of_kind("merged_cells", count=len(sheet.merged_cells.ranges)))
    empty = [c for c in map(bytes.decode, FORMULA.findall(text)) if sheet[c].value is None]
    if empty:
        raise DataError(
            f"{path}: {len(empty)} formulas, the first in cell {empty[0]}, hold no values, as no "
            "spreadsheet has computed them: open the file in one, and save it."
        )
    return rows


def cell_text(value: object) -> str:
    """Return a typed cell as the text that a CSV file would hold."""
    if value is None or str(value) in ("nan", "NaN", "NaT", "<NA>"):
        return ""
    if isinstance(value, datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    if isinstance(value, float | Decimal):  # never taken for thousands: 7.394 is longer here
        number = float(value)
        whole = number.is_integer() and abs(number) < 1e15
        return str(int(number)) if whole else re.sub(r"(\.\d{3})$", r"\g<1>0", str(number))
    return str(value).strip()


def tidied(path: Path, grid: Grid, done: list[CellConversion], separator: str) -> RawTable:
    """Return the rows below the names, without what stands around a table."""
    top = header_position(grid)
    if top:
        done.append(CellConversion.of_kind("preamble", count=top, row=grid[top][0]))
    names, start = header(grid, top, done) if grid else ([], 0)
    body = without_footers(grid[start:], done)
    if not body:
        raise DataError(f"{path}: holds no rows; expected a line of column names and rows below.")
    for row, cells in body:
        if len(cells) < len(names) or any(cells[len(names) :]):
            raise DataError(
                f"{path}: row {row} has {len(cells)} cells; row {grid[top][0]} names {len(names)} "
                "columns: repair the row; the file may be cut off."
            )
    kept = [at for at, name in enumerate(names) if name or any(cells[at] for _, cells in body)]
    found: dict[str, None] = {}
    for position, given in enumerate([" ".join(names[at].split()) for at in kept], 1):
        name, number = given or f"column {position}", 2
        while name in found:
            name, number = f"{given} ({number})", number + 1
        if name != given:
            done.append(CellConversion.of_kind("renamed", old=given, new=name, position=position))
        found[name] = None
    rows = tuple(tuple(cells[at] for at in kept) for _, cells in body)
    return RawTable(path, tuple(found), rows, tuple(n for n, _ in body), tuple(done), separator)


def header_position(grid: Grid) -> int:
    """Return where the names of the columns stand: lines before are shorter, or a gap follows."""
    filled = [sum(map(bool, cells)) for _, cells in grid]
    usual = statistics.median_high(filled or [0])
    enough = max(2.0, usual / 2) if usual > 1 else 1.0
    first = next((at for at, count in enumerate(filled[:PREAMBLE]) if count >= enough), 0)
    for at in range(first + 1, min(PREAMBLE, len(grid) - 1)):
        gap = grid[at][0] > grid[at - 1][0] + 1
        if gap and max(filled[first:at]) < filled[at] >= usual:
            return at
    return first


def header(grid: Grid, top: int, done: list[CellConversion]) -> tuple[list[str], int]:
    """Return the names of the columns and where the rows begin: two, one or no row of names."""
    (row, first), *below = grid[top : top + SNIFFED]
    columns = [[cells[at] for _, cells in below if cells[at:]] for at in range(len(first))]
    parsed = [[*map(as_number, filterfalse(is_missing, cells[1:] or cells))] for cells in columns]
    numbers = [at for at, cells in enumerate(parsed) if is_nearly_all(cells)]
    named = [at for at, name in enumerate(first) if not is_missing(name)]
    known = {at: found for at in named if (found := as_number(first[at])) is not None}
    values, both = [*known.values()], known.keys() & {*numbers}
    alike = [at for at in named if first[at] in columns[at] or at in both]
    mixed = 1 < len(numbers) == len(known) and values != sorted(values)
    counts = len(known) > 1 and all(after - before == 1 for before, after in pairwise(values))
    if row and named and (alike == named or mixed) and not counts:
        done.append(CellConversion.of_kind("no_header", row=row, text=first[named[0]][:40]))
        return [f"column {at}" for at in range(1, len(first) + 1)], top
    second = [next(iter(cells), "") for cells in columns]
    words = [second[at] for at in numbers if not is_missing(second[at])]
    if len(words) < 2 or any(as_number(word) is not None for word in words):
        return first, top + 1
    groups = [*accumulate(first, lambda group, name: name or group, initial="")][1:]
    lines = zip(first, groups, second, strict=True)
    names = [" ".join({group: 0, word: 0}) if word else name for name, group, word in lines]
    done.append(CellConversion.of_kind("two_headers", row=row, text=names[numbers[0]][:40]))
    return names, top + 2


def as_number(cell: str) -> float | None:
    if ":" in cell:  # times are good names of columns
        return None
    found = parse_number(cell, ".") or parse_number(cell, ",")
    return found and found[0]


def without_footers(body: Grid, done: list[CellConversion]) -> Grid:
    """Leave out totals and remarks below a table."""
    starts = [next(filter(None, cells)).rstrip(": ：") for _, cells in body]
    end, totals = len(body), 0
    while end > 1:
        row, cells = body[end - 1]
        alone = sum(map(bool, cells)) == 1 and len(cells) > 2
        is_apart = row > body[end - 2][0] + 1 or REMARK.match(starts[end - 1])
        is_total = totals < MOST_TOTALS and bool(TOTAL.fullmatch(starts[end - 1]))
        if is_total:  # a word that stands above, too, is a class
            at = next(at for at, cell in enumerate(cells) if cell)
            above = (row[at].rstrip(": ：").casefold() for _, row in body[: end - 1] if row[at:])
            is_total = starts[end - 1].casefold() not in above
        if not (is_total or (alone and is_apart)):
            break
        end, totals = end - 1, totals + is_total
    if end < len(body):
        count, text = len(body) - end, starts[end][:40]
        done.append(CellConversion.of_kind("footer", count=count, row=body[end][0], text=text))
    return body[:end]
