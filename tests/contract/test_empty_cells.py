"""Guards against an empty cell that is shown as a value of its row, or that hides another row.

Damage that it notices: "day = 2022-11-17" told of a row whose day is empty; the right answer of a
row dropped as another row that was asked for has none.
"""

import csv
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import bilens as bl
from bilens.api.audit_model import examine_subject
from bilens.api.audit_subject import AuditSubject
from bilens.api.classifier import explain_predictions
from bilens.api.given_data import given_data
from bilens.data.table_file import read_table
from bilens.data.table_rows import training_table
from bilens.io.loaded_model import LoadedModel
from bilens.records.audit import Audit
from bilens.report.reports import AuditReport
from bilens.train.table_fit import TableRecipe
from bilens.train.tasks.table import TableTask, train_table_in_folder
from contract.table import cell

NAMES = ("x", "day", "city", "age", "y")
ROWS = 80


def cells(row: int, gaps: bool) -> list[str]:
    """A row of a table: its age is unknown in some, all else where there are to be gaps alone."""
    rng = np.random.default_rng(row)
    x, day = f"{rng.normal(50, 10):.1f}", f"2022-{1 + row % 12:02}-{1 + row % 27:02}"
    age = "" if row % 9 == 4 else str(20 + row % 40)
    found = [x, day, ("Berlin", "Bonn", "Kiel")[row % 3], age, f"{row % 7 + float(x):.2f}"]
    if gaps and row < len(NAMES):
        found[row] = ""
    return found


def written(path: Path, gaps: bool) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *(cells(row, gaps) for row in range(ROWS))])
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("t")
    plain = training_table(read_table(written(folder / "t.csv", gaps=False)), "y")
    task = TableTask(plain, TableRecipe(), "y", 0.0)
    train_table_in_folder(folder / "run", task, about_data={}, provenance={})
    return bl.load(folder / "run")


def record(model: LoadedModel, path: Path, *asked: int) -> Audit:
    given = given_data(model, path)
    assert given is not None
    return examine_subject(AuditSubject(model, given, rows=asked))


@cell("explain", "own object")
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_an_empty_cell_is_shown_empty_and_what_stands_in_is_said(
    lang: str, model: LoadedModel, tmp_path: Path
) -> None:
    word = {"en": "(empty)", "ja": "（空欄）"}[lang]
    mean = dict(zip(model.input_names or (), model.input_mean or (), strict=True))
    shown = {"x": f"{mean['x']:.2f}", "day": "2022-", "city": "city", "age": f"{mean['age']:.2f}"}
    path = written(tmp_path / "new.csv", gaps=True)
    for place, name in enumerate(NAMES[:-1]):
        found = record(model, path, place + 2)
        assert found.columns.rows[0].empty == (name,)
        again = AuditReport(json.loads(AuditReport(found).to_json()))
        again.to_html(tmp_path / "p.html", lang=lang)
        page = unescape(re.sub(r"<[^>]+>", "\n", (tmp_path / "p.html").read_text()))
        assert f"{name} = {word}" in page
        assert page.count(f"= {word}") == page.count(f"{name} = {word}")
        (line,) = {one for one in page.splitlines() if one.startswith(EMPTY[lang])}
        assert shown[name] in line
    whole = record(model, path, ROWS)
    assert whole.columns.rows[0].empty == ()


EMPTY = {"en": "Empty in this row", "ja": "この行では空欄"}


@cell("explain", "own object")
def test_a_row_without_a_right_answer_leaves_that_of_another(
    model: LoadedModel, tmp_path: Path
) -> None:
    path = written(tmp_path / "new.csv", gaps=True)
    alone = explain_predictions(model, path, [4]).explanations[0]
    with_another = explain_predictions(model, path, [4, 6]).explanations  # row 6 has no answer
    assert alone.target == float(cells(2, gaps=True)[-1])
    assert [one.target for one in with_another] == [alone.target, None]
    assert with_another[0].scores == alone.scores
