"""Guards against the same cells, as another office writes them, that are read as other numbers.

Damage that it notices: half past midnight with AM behind it read as half past noon.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch import Tensor

import bilens as bl
from bilens.api.given_data import given_data
from bilens.data.table_file import read_table
from bilens.data.table_rows import training_table
from bilens.io.loaded_model import LoadedModel
from bilens.train.table_fit import TableRecipe
from bilens.train.tasks.table import TableTask, train_table_in_folder
from contract.table import cell

FIRST = datetime(2023, 11, 28, 0, 30)
TIMES = [FIRST + timedelta(days=at % 90, minutes=37 * at) for at in range(120)]
NUMBERS = [round(1234.5 * ((-1) ** at) * (at + 1) / 7, 2) for at in range(120)]
Style = Callable[[datetime], str]


def half(time: datetime) -> str:
    """A clock of twelve hours, whose first is called 12."""
    return f"{(time.hour + 11) % 12 + 1}:{time.minute:02d}"


CLOCKS: dict[str, Style] = {
    "PM": lambda time: f"{half(time)} {'AM' if time.hour < 12 else 'PM'}",
    "p.m.": lambda time: f"{half(time)} {'a.m.' if time.hour < 12 else 'p.m.'}",
    "pm": lambda time: f"{half(time).zfill(5)}{'am' if time.hour < 12 else 'pm'}",
    "seconds": lambda time: f"{time:%H:%M}:00",
}
MOMENTS: dict[str, Style] = {**CLOCKS, "Japanese": lambda time: f"{time.hour}時{time.minute:02d}分"}
DAYS: dict[str, Style] = {
    "German": lambda time: f"{time.day}.{time.month}.{time.year}",
    "Japanese": lambda time: f"{time.year}年{time.month}月{time.day}日",
    "an era": lambda time: f"令和{time.year - 2018}年{time.month}月{time.day}日",
    "digits": lambda time: f"{time:%Y%m%d}",
    "T": lambda time: f"{time:%Y-%m-%d}T00:00",
}
AMOUNTS: dict[str, Callable[[float], str]] = {
    "groups": lambda value: f"{value:,.2f}",
    "wide": lambda value: f"{value}".translate({**{48 + d: 0xFF10 + d for d in range(10)}}),
    "another minus": lambda value: f"{value}".replace("-", "−"),
    "minus behind": lambda value: f"{abs(value)}{'-' if value < 0 else ''}",
    "brackets": lambda value: f"({-value})" if value < 0 else f"{value}",
    "power": lambda value: f"{value:.6e}",
}
WAYS = [("clock", one) for one in CLOCKS] + [("day", one) for one in DAYS]
WAYS += [("amount", one) for one in AMOUNTS] + [("moment", one) for one in MOMENTS]


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "clock": [f"{time:%H:%M}" for time in TIMES],
            "day": [f"{time:%Y-%m-%d}" for time in TIMES],
            "moment": [f"{time:%Y-%m-%d %H:%M}" for time in TIMES],
            "amount": [f"{value}" for value in NUMBERS],
            "y": rng.normal(size=len(TIMES)).round(4),
        }
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("t")
    table().to_csv(folder / "t.csv", index=False)
    plain = training_table(read_table(folder / "t.csv"), "y")
    task = TableTask(plain, TableRecipe(), "y", 0.0)
    train_table_in_folder(folder / "run", task, about_data={}, provenance={})
    return bl.load(folder / "run")


def inputs(model: LoadedModel, path: Path, rows: pd.DataFrame) -> Tensor:
    rows.to_csv(path, index=False)
    found = given_data(model, path)
    assert found is not None
    return found.inputs


@cell("train table", "other units")
def test_hours_and_amounts_are_those_that_were_written(model: LoadedModel, tmp_path: Path) -> None:
    read = inputs(model, tmp_path / "a.csv", table()).double().numpy()
    names = [*(model.input_names or ())]
    hours = [time.hour + time.minute / 60 for time in TIMES]
    for name, truth in (("clock", hours), ("moment: hour", hours), ("amount", NUMBERS)):
        np.testing.assert_allclose(read[:, names.index(name)], truth, rtol=1e-6)


@cell("train table", "other units")
@pytest.mark.parametrize(("column", "way"), WAYS)
def test_the_same_cells_written_otherwise_are_the_same_inputs(
    column: str, way: str, model: LoadedModel, tmp_path: Path
) -> None:
    written = {
        "clock": lambda: [CLOCKS[way](time) for time in TIMES],
        "day": lambda: [DAYS[way](time) for time in TIMES],
        "moment": lambda: [f"{time:%Y-%m-%d} {MOMENTS[way](time)}" for time in TIMES],
        "amount": lambda: [AMOUNTS[way](value) for value in NUMBERS],
    }[column]()
    plain = inputs(model, tmp_path / "a.csv", table())
    assert inputs(model, tmp_path / "b.csv", table().assign(**{column: written})).equal(plain)
