"""Guards against rows of the test that decide how the table of a training is read.

Damage that it notices: levels, rare texts, units or the scores of single columns taken of all rows.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies as st

import bilens as bl
from bilens.api.provenance import reading_of
from bilens.data.table_columns import text_hash
from bilens.data.table_file import read_table
from bilens.data.table_rows import training_table
from bilens.train.run_folder import TEST_NAME
from bilens.train.table_fit import TableRecipe
from bilens.train.tasks.table import TableTask, train_table_in_folder
from contract.drawn import fewer
from contract.table import cell

ROWS = 120


def frame_of(seed: int, levels: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": rng.normal(size=ROWS).round(6), "id": np.arange(ROWS) * 1.5})
    frame["town"] = [f"t{at}" for at in rng.integers(levels, size=ROWS)]
    frame["goal"] = rng.choice(["no", "yes"], size=ROWS)
    return frame


def trained(frame: pd.DataFrame, folder: Path, **recipe: Any) -> tuple[Any, pd.DataFrame]:
    """The model of a table, and the rows that were held out."""
    folder.mkdir()
    frame.to_csv(folder / "t.csv", index=False)
    table = training_table(read_table(folder / "t.csv"), "goal", drop=["id"])
    task = TableTask(table, TableRecipe(**recipe), "goal", 0.25)
    train_table_in_folder(folder / "run", task, about_data={}, provenance={})
    return bl.load(folder / "run"), pd.read_csv(folder / "run" / TEST_NAME)


@pytest.mark.parametrize("levels", [6, 50])
@fewer(2)
@given(seed=st.integers(0, 1000))
@cell("train table", "other names")
def test_what_the_test_rows_say_decides_nothing(
    tmp_path_factory: pytest.TempPathFactory, levels: int, seed: int
) -> None:
    """Indicators of texts, and the texts that share one, were counted in the rows of the test."""
    root, frame = tmp_path_factory.mktemp("a"), frame_of(seed, levels)
    model, held_out = trained(frame, root / "one")
    read = reading_of(model)
    assert read is not None
    (town,) = (one for one in read.columns if one.name == "town")
    known = frame[~frame["id"].isin(held_out["id"])]
    assert len(known) + len(held_out) == ROWS
    assert {*town.levels} <= {*known["town"], "(other)"}
    assert {*(town.merged or ())} <= {*map(text_hash, known["town"])}
    other = frame.copy()
    tested = other["id"].isin(held_out["id"])
    other.loc[tested, "town"] = [f"new{at}" for at in range(tested.sum())]
    again, _ = trained(other, root / "two")
    told = reading_of(again)
    assert told is not None
    assert told.columns == read.columns
    for one, two in zip(model.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(one, two)


@cell("train table", "other function")
def test_another_option_or_other_rows_are_another_model(tmp_path: Path) -> None:
    frame = frame_of(1, 6)
    one, held_out = trained(frame, tmp_path / "one")
    again, same = trained(frame, tmp_path / "again")
    assert again.weights_sha256 == one.weights_sha256
    assert [*same["id"]] == [*held_out["id"]]
    stiff, _ = trained(frame, tmp_path / "stiff", alpha=30.0)
    _, others = trained(frame, tmp_path / "seed", seed=1)
    turned = frame.assign(age=-(frame["age"] ** 3))
    assert len({one.weights_sha256, stiff.weights_sha256}) == 2
    assert {*others["id"]} != {*held_out["id"]}
    assert trained(turned, tmp_path / "turned")[0].weights_sha256 != one.weights_sha256


@cell("audit", "repeated rows", "shuffled rows", "own object")
@pytest.mark.parametrize("twins", [False, True])
def test_each_row_that_was_trained_on_is_counted(twins: bool, tmp_path: Path) -> None:
    """By hand: rows that are given three times count three times, those of the training once."""
    frame = frame_of(1, 6)
    table = pd.concat([frame, frame[frame["id"] < 30]]) if twins else frame
    model, held_out = trained(table, tmp_path / "a")
    known = frame[~frame["id"].isin(held_out["id"])]
    new = frame.assign(age=frame["age"] + 100)

    def counted(*parts: pd.DataFrame) -> tuple[int, int | None]:
        path = tmp_path / "rows.csv"
        pd.concat([*parts]).sample(frac=1.0, random_state=0).to_csv(path, index=False)
        found = bl.audit(model, path).record.performance
        assert found is not None
        return found.rows, found.trained

    few = known[:1]
    assert counted(few, few, few) == (3, 3)
    assert counted(known, new) == (len(known) + ROWS, len(known))
    assert counted(new, known[3:8], few, new) == (2 * ROWS + 6, 6)
    assert counted(new) == (ROWS, 0)
    assert counted(held_out) == (len(held_out), 0)
