"""Ten files as offices write them, whose columns tell their target, and what must be said."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 80
RNG = np.random.default_rng(7)
X, Z = RNG.normal(size=(2, ROWS))
KIND = RNG.integers(0, 3, ROWS)
DAYS = [date(2024, 3, 1) + timedelta(days=int(day)) for day in RNG.permutation(300)[:ROWS]]
SIGNAL = X + (KIND == 1) * 1.5 + 0.3 * Z
CLASS = (np.median(SIGNAL) < SIGNAL).astype(int)
PLACES = ["東京", "大阪", "名古屋"]


@dataclass(frozen=True)
class Messy:
    """A file, its target, and kinds of conversions that are said of it."""

    write: Callable[[Path], object]
    name: str
    target: str
    said: set[str]
    inputs: int


def lines(rows: Sequence[Sequence[object]], mark: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=mark, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def german(value: float, digits: int = 2) -> str:
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def japanese(path: Path) -> None:
    rows = [["日付", "店舗", "売上", "気温", "評価"]]
    for day, kind, x, z, good in zip(DAYS, KIND, X, Z, CLASS, strict=True):
        when = f"{day.year}年{day.month}月{day.day}日"
        rows.append(
            [when, PLACES[kind], f"￥{5000 + 1000 * x:,.0f}", f"{z:.1f}", "良" if good else "否"]
        )
    path.write_bytes(lines(rows).encode("cp932"))


def with_semicolons(path: Path) -> None:
    rows = [["Straße", "Größe", "Datum", "Preis"]]
    for day, kind, x, total in zip(DAYS, KIND, X, SIGNAL, strict=True):
        street = ["Müllerweg", "Gänsemarkt", "Öderplatz"][kind]
        rows.append([street, german(x, 3), f"{day:%d.%m.%Y}", f"{german(2000 + 500 * total)} €"])
    path.write_bytes(lines(rows, ";").encode("cp1252"))


def with_preamble(path: Path) -> None:
    body = [
        [d, PLACES[k], 100 + x, z, "yes" if c else "no"]
        for d, k, x, z, c in zip(DAYS, KIND, X, Z, CLASS, strict=True)
    ]
    frame = pd.DataFrame(body, columns=["day", "place", "amount", "rate", "paid"])
    with pd.ExcelWriter(path) as writer:
        frame.to_excel(writer, sheet_name="2024", startrow=4, index=False)
        sheet = writer.book["2024"]
        sheet["A1"], sheet["A2"], sheet["B2"] = "Monthly report", "Made on", "2024-04-01"
        sheet.cell(row=ROWS + 6, column=1, value="合計")
        sheet.cell(row=ROWS + 6, column=3, value=12345)


def with_nan(path: Path) -> None:
    x = np.where(np.arange(ROWS) % 7 == 0, np.nan, X)
    frame = pd.DataFrame({"x": x, "z": Z, "kind": pd.Categorical(np.array(list("abc"))[KIND])})
    frame.assign(day=pd.to_datetime(DAYS), good=CLASS).to_parquet(path)


def with_tabs(path: Path) -> None:
    rows = [["x", "z", "kind", "y"]]
    for i, (x, z, kind, y) in enumerate(zip(X, Z, KIND, CLASS, strict=True)):
        rows.append(["N/A" if i % 5 == 0 else f"{x:.3f}", f"{z:.2f}", "abc"[kind], "ny"[y]])
    path.write_text(lines(rows, "\t"))


def with_money(path: Path) -> None:
    rows = [["price", "discount", "weight", "y"]]
    for x, z, kind, total in zip(X, Z, KIND, SIGNAL, strict=True):
        rows.append([f"${1500 + 300 * x:,.2f}", f"{10 + z:.1f}%", f"{kind + 1} kg", f"{total:.3f}"])
    path.write_text(lines(rows))


def with_many_dates(path: Path) -> None:
    forms = [
        "{:%Y-%m-%d}",
        "{0.day}.{0.month}.{0.year}",
        "{0.year}年{0.month}月{0.day}日",
        "{:%Y/%m/%d}",
    ]
    rows = [["day", "x", "y"]]
    for i, (day, x) in enumerate(zip(DAYS, X, strict=True)):
        late = (day - date(2024, 3, 1)).days > 150
        rows.append([forms[i % 4].format(day), f"{x:.3f}", "late" if late else "early"])
    path.write_text(lines(rows), encoding="utf-8")


def with_slips(path: Path) -> None:
    spellings = [
        ["Tokyo", "Tokyo ", "tokyo", "ＴＯＫＹＯ"],
        ["Osaka", "Osaka  ", "OSAKA"],
        ["Nagoya"],
    ]
    rows = [["city", "x", "y"]]
    for i, (kind, x, y) in enumerate(zip(KIND, X, CLASS, strict=True)):
        city = spellings[kind][i % len(spellings[kind])] if i else "Nagoyaa"
        rows.append([city, f"{x:.3f}", ["No", "no ", "Yes", "yes"][2 * y + i % 2]])
    path.write_text(lines(rows), encoding="utf-8-sig")


def with_wide_letters(path: Path) -> None:
    rows = [["名称", "値", "値", "", "区分"]]
    for kind, x, z, y in zip(KIND, X, Z, CLASS, strict=True):
        rows.append([PLACES[kind], f"{x:.2f}", f"{z:.2f}", "", "AB"[y]])
    path.write_bytes(lines(rows, "\t").encode("utf-16"))


def with_gaps(path: Path) -> None:
    words = ["", "-", "欠損", "NULL", "?"]
    rows = [["x", "z", "kind", "y"]]
    for i, (x, z, kind, y) in enumerate(zip(X, Z, KIND, SIGNAL, strict=True)):
        cells = [f"{x:.3f}", f"{z:.3f}", "abc"[kind], f"{y:.3f}"]
        rows.append(
            [
                words[(i + j) % 5] if (3 * i + 5 * j) % 8 < 3 and j < 3 else c
                for j, c in enumerate(cells)
            ]
        )
    rows[9][3] = ""
    path.write_text(lines(rows), encoding="utf-8")


MESSY = {
    "Japanese": Messy(japanese, "t.csv", "評価", {"encoding", "dates", "number.unit"}, 8),
    "German": Messy(
        with_semicolons, "t.csv", "Preis", {"encoding", "separator", "number", "dates"}, 7
    ),
    "preamble": Messy(with_preamble, "t.xlsx", "paid", {"preamble", "footer", "dates"}, 8),
    "NaN": Messy(with_nan, "t.parquet", "good", {"missing", "dates"}, 9),
    "tabs": Messy(with_tabs, "t.tsv", "y", {"separator", "missing"}, 6),
    "money": Messy(with_money, "t.csv", "y", {"number.unit"}, 3),
    "dates": Messy(with_many_dates, "t.csv", "y", {"dates"}, 4),
    "slips": Messy(with_slips, "t.csv", "y", {"merged"}, 5),
    "UTF-16": Messy(with_wide_letters, "t.txt", "区分", {"encoding", "separator", "renamed"}, 5),
    "gaps": Messy(with_gaps, "t.csv", "y", {"missing", "no_target"}, 8),
}
