"""Guards against sentences and numbers on columns read by rank that hold of columns as they come.

Damage that each notices: nearly equal models "decide from other columns"; a worst case at a rank
that no value has, twice the possible effect; what a row is compared with, and what stands in an
empty cell, told as the mean row; a coefficient for each unit of rank told as one of the column.
"""

from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bilens as bl
from bilens.api.provenance import reading_of
from bilens.data.table_file import read_table
from bilens.data.table_rows import training_table
from bilens.findings.column_effects import exact_layer
from bilens.io.loaded_model import LoadedModel
from bilens.report.text import load_catalogue
from bilens.train.recipes import TableRecipe
from bilens.train.tasks.table import TableTask, train_table_in_folder
from contract.compared_models import compared
from contract.table import cell

Train = Callable[..., LoadedModel]
LANGUAGES = ("en", "ja")


def skewed(count: int = 160, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    income, age = np.exp(2 * rng.normal(size=count)) * 1000, rng.normal(10, 3, count)
    y = 5 * np.log(income) + 2 * age + 0.3 * np.log(income) * age + rng.normal(size=count)
    return pd.DataFrame({"income": income.round(2), "age": age.round(3), "y": y.round(3)})


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Train a model of all rows of a table, its last column the target."""

    def trained(name: str, frame: pd.DataFrame, **recipe: Any) -> LoadedModel:
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        table = training_table(read_table(tmp_path / f"{name}.csv"), str(frame.columns[-1]))
        chosen = {"alpha": 3.0, "column_scale": "rank", "quadratic_scale": 0.1} | recipe
        task = TableTask(table, TableRecipe(**chosen), str(frame.columns[-1]), 0.0)
        train_table_in_folder(tmp_path / name, task, about_data={}, provenance={})
        return bl.load(tmp_path / name)

    return trained


# ---- two models


@cell("compare", "other units", "other function")
@pytest.mark.parametrize("scale", ["rank", "standard"])
def test_ranks_of_other_rows_are_no_other_columns(train: Train, tmp_path: Path, scale: str) -> None:
    frame = skewed()
    model, baseline = train("a", frame), train("b", frame[:-9], column_scale=scale)
    for one, other in ((model, baseline), (baseline, model)):
        found = compared(one, other, tmp_path / "a.csv")
        changes = found["column_changes"]
        assert (changes["added"], changes["removed"]) == ([], [])
        assert changes["reread"] == ["income", "age"]
        assert (changes["change"], changes["outputs"]) == (None, [])
        assert changes["rows"] == len(frame)
        assert found["difference"]["aligned"] == []
        assert "income, age" in found["difference"]["layers"][0]["refused"]
        outcomes = {each["rule"]: each["outcome"] for each in found["verdict"]}
        assert outcomes["changed_columns"] == "pass"
    for lang in LANGUAGES:
        text = bl.audit(model, baseline=baseline).to_markdown(lang=lang)
        said = load_catalogue(lang)("difference.columns.reread", names="income, age")
        assert said in text


@cell("compare", "same function")
def test_ranks_of_the_same_rows_are_compared(train: Train) -> None:
    model = train("a", skewed())
    changes = compared(model, train("b", skewed(), alpha=30.0))["column_changes"]
    assert (changes["reread"], len(changes["outputs"])) == ([], 1)
    assert 0 < changes["change"] < 1


@cell("compare", "other units", "other names")
def test_a_column_of_one_model_alone_is_told_beside_other_ranks(train: Train) -> None:
    frame = skewed()
    changes = compared(train("a", frame), train("b", frame[:-9].rename(columns={"age": "years"})))[
        "column_changes"
    ]
    assert (changes["added"], changes["removed"]) == (["age (rank)"], ["years (rank)"])
    assert (changes["reread"], changes["change"]) == (["income"], None)


# ---- one model


@cell("audit", "own object")
def test_worst_cases_are_ranks_that_a_value_has(train: Train) -> None:
    model = train("a", skewed())
    (worst,) = bl.audit(model).to_dict()["columns"]["worst_case_inputs"]
    f, mean = exact_layer(model).quadratic_map().detach().to(torch.float64), model.input_mean
    reading = reading_of(model)
    assert mean is not None
    assert reading is not None
    grids = [
        torch.linspace(one.curve[0][1], one.curve[-1][1], 201, dtype=torch.float64)
        for one in reading.columns
    ]
    base = float(f(torch.tensor([mean], dtype=torch.float64)))
    raised = []
    for at, grid in enumerate(grids):
        x = torch.tensor([mean], dtype=torch.float64).repeat(len(grid), 1)
        x[:, at] = grid
        raised.append(float(f(x).max()) - base)
    assert worst["one"]["effect"] == pytest.approx(max(raised), rel=1e-4)
    both = float(f(torch.cartesian_prod(*grids)).max()) - base
    assert worst["two"]["effect"] == pytest.approx(both, rel=1e-4)


SENTENCES = ("table.unit.standard", "table.worst_case.lead", "table.limits.outside")
SENTENCES += ("table.columns.mean", "table.rows.lead_standard", "table.rows.filled")


@cell("audit", "own object")
@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_page_says_which_mean_and_range_is_that_of_ranks(
    train: Train, tmp_path: Path, lang: str
) -> None:
    frame, t = skewed(), load_catalogue(lang)
    frame.loc[7, "income"] = np.nan
    frame[5:8].drop(columns="y").to_csv(tmp_path / "row.csv", index=False)
    pages = {
        scale: unescape(
            bl.audit(train(scale, frame, column_scale=scale), tmp_path / "row.csv").to_html(
                lang=lang
            )
        )
        for scale in ("rank", "standard")
    }
    for key in SENTENCES:
        plain, of_ranks = (t(name, cells="\0").split("\0")[0] for name in (key, f"{key}_rank"))
        assert [one for one, page in pages.items() if plain in page] == ["standard"], key
        assert [one for one, page in pages.items() if of_ranks in page] == ["rank"], key


@cell("audit", "own object")
def test_a_pair_of_few_values_is_drawn(train: Train) -> None:
    """A rank of three values has a curve of three points; it ended in an IndexError."""
    frame = skewed()
    frame["age"] = np.arange(len(frame)) % 3
    frame["y"] = np.log(frame["income"]) * frame["age"]
    page = bl.audit(train("few", frame)).to_html(lang="en")
    assert "income (rank) and age (rank) together" in page


@cell("audit", "own object")
def test_coefficients_of_ranks_are_none_of_the_columns() -> None:
    frame = skewed()
    x, y = frame[["income", "age"]], frame["y"]
    known = {"alpha": 3.0, "quadratic_scale": 0.1}
    model = bl.sklearn.BilinearRegressor(column_scale="rank", **known).fit(x, y)
    (pair,) = model.interactions_.to_dict("records")
    assert (pair["first"], pair["second"]) == ("income (rank)", "age (rank)")
    assert np.isnan(pair["raw_coefficient"])
    assert pair["coefficient"] != 0
    assert {*model.effects_["column"]} == {"income (rank)", "age (rank)"}
    base = model.quadratic_map_(torch.from_numpy(model.encode(x).mean(axis=0, keepdims=True)))
    parts = model.attribute(x).sum(axis=(1, 2))
    np.testing.assert_allclose(parts, model.predict(x) - float(base))
    plain = bl.sklearn.BilinearRegressor(column_scale="standard", **known).fit(x, y)
    (pair,) = plain.interactions_.to_dict("records")
    assert (pair["first"], pair["second"]) == ("income", "age")
    assert pair["raw_coefficient"] == pytest.approx(
        pair["coefficient"] / (plain.scale_[0] * plain.scale_[1])
    )


# ---- the training


@cell("train table", "other function")
def test_principal_directions_without_products_are_said_to_do_nothing(train: Train) -> None:
    frame = skewed()
    frame["y"] = frame["age"] + np.random.default_rng(1).normal(size=len(frame))
    for scale, components, said in ((None, 1, 1), (None, None, 0), (0.1, 1, 0)):
        known = {"column_scale": "standard", "quadratic_scale": scale, "n_components": components}
        model = train(f"{scale}{components}", frame, **known)
        reading = reading_of(model)
        assert reading is not None
        told = [one for one in reading.done if one.kind == "unused_components"]
        assert [one.values for one in told] == [{"count": 1}] * said
