"""Tables of many kinds, some with a column that gives the answer away or that names the rows."""

from pathlib import Path

import numpy as np
import pandas as pd

Draw = np.random.Generator
CITIES = np.array(["Tokyo", "Osaka", "Nagoya", "Sapporo"])


def clean(number: int, seed: int) -> pd.DataFrame:
    """One of twenty kinds of tables whose columns describe, and tell y in part."""
    rng = np.random.default_rng([seed, number])
    rows = [60, 150, 400, 1000][number % 4]
    x = rng.normal(size=(rows, 3))
    city, day = rng.integers(0, 4, rows), rng.integers(0, 700, rows)
    income = np.exp(rng.normal(10, 0.5, rows)).round(-2).astype(int)
    age = rng.integers(18, 80, rows)
    signal = x[:, 0] + 0.5 * x[:, 1] * x[:, 2] + 0.5 * city + (income > 22000)
    frame = pd.DataFrame(
        {
            "width": x[:, 0].round(2),
            "height": (100 + 15 * x[:, 1]).round(1),
            "depth": x[:, 2],
            "city": CITIES[city],
            "income": income,
            "age": age,
            "member": rng.choice(["yes", "no"], rows, p=[0.2, 0.8]),
        }
    )
    if number % 3 == 0:
        frame["since"] = (pd.Timestamp("2022-01-01") + pd.to_timedelta(day, "D")).strftime(
            "%Y-%m-%d"
        )
    own = np.random.default_rng([seed, number, 2])  # numbers that differ in every row, and describe
    seconds = own.integers(1_700_000_000, 1_730_000_000, rows)
    measured = [
        {
            "salary": own.integers(1_000_000, 9_999_999, rows),
            "number_sold": age * 100_000 + seconds % 7,
        },
        {
            "price": own.uniform(1, 999, rows),
            "population": np.exp(own.normal(11, 1, rows)).astype(int),
        },
        {"last seen": seconds, "price": own.integers(10_000, 99_999, rows)},
        {"seen": pd.to_datetime(seconds, unit="s").strftime("%Y-%m-%d %H:%M:%S")},
        {
            "年収": own.integers(3_000_000, 9_000_000, rows).round(-4),
            "paid": own.uniform(0, 1e6, rows),
        },
    ][number % 5]
    frame = frame.assign(**measured)
    if number % 5 == 0:
        frame.loc[rng.random(rows) < 0.15, "height"] = np.nan
    noisy = signal + rng.normal(0, [0.3, 1.0][number % 2], rows)
    if number % 2:
        frame["y"] = noisy.round(3)
    else:
        cuts = {0: [0.5], 1: [0.9], 2: [0.3, 0.7]}[number // 2 % 3]
        levels = np.searchsorted(np.quantile(noisy, cuts), noisy)
        frame["y"] = np.array(["low", "mid", "high"])[levels]
    order = ["width", "income", None][number % 3]  # sorted by a column, or as drawn
    return frame if order is None else frame.sort_values(order, ignore_index=True)


def leaks(frame: pd.DataFrame, rng: Draw) -> list[pd.Series]:
    """Columns that say what y is, each in its own way."""
    y, rows = frame["y"], len(frame)
    if y.dtype == object or not pd.api.types.is_numeric_dtype(y):
        code = y.map({"low": 0, "mid": 1, "high": 2}).to_numpy()
        wrong = rng.random(rows) < 0.01
        return [
            y.str.upper() + "!",
            pd.Series(code * 10 + rng.normal(0, 0.5, rows)).round(2),
            pd.Series(np.where(code == 0, "", "2024-03-01"))
            if y.nunique() == 2
            else pd.Series(-code),
            pd.Series(np.where(wrong, 0, code)).map({0: "a", 1: "b", 2: "c"}),
        ]
    spread = y.std()
    return [
        (y * 1.1).round(2),
        y + rng.normal(0, 0.03 * spread, rows),
        np.exp(y / spread),
        (-1000 * y).round(0),
    ]


def identifiers(rows: int, rng: Draw) -> list[pd.Series]:
    """Columns that name the rows, each in its own way, those of random numbers by their names."""
    days = pd.Series(pd.date_range("2023-01-01", periods=rows, freq="D")).dt.strftime("%Y/%m/%d")
    return [
        pd.Series(np.cumsum(rng.integers(1, 6, rows))),  # in order, with gaps
        pd.Series(rng.permutation(rows) + 10_000),
        pd.Series([f"C-{number:05d}" for number in rng.permutation(rows)]),
        pd.Series(np.sort(rng.choice(9_000_000, rows, replace=False) + 1_000_000)),
        pd.Series(rng.choice(90_000_000, rows, replace=False) + 10_000_000, name="planted Nr."),
        pd.Series(rng.permutation(np.cumsum(rng.integers(1, 6, rows))), name="planted_id"),
        days,
        pd.Series(0.5 * np.arange(rows)),
        pd.Series([f"{number:032x}" for number in rng.integers(0, 2**60, rows)]),
    ]


def planted(number: int, seed: int) -> tuple[pd.DataFrame, str]:
    """A clean table with one more column, and which rule has to name it."""
    frame, rng = clean(number, seed), np.random.default_rng([seed, number, 1])
    kind = ["leak", "identifier"][number // 2 % 2]
    found = leaks(frame, rng) if kind == "leak" else identifiers(len(frame), rng)
    place = number // 4 if kind == "leak" else number // 4 * 2 + number % 2
    column = found[place % len(found)]
    name = str(column.name) if "planted" in str(column.name) else "planted"
    frame.insert(number % 4, name, column.to_numpy())
    return frame, kind


def written(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"
