"""Guards against inputs that are told as columns, and values that an input cannot have.

Damage that it notices: 8 inputs told as 8 columns of a table of 3; a text or a yes three standard
deviations away from its mean among the worst-case inputs.
"""

import re
from html import unescape
from pathlib import Path

import pytest

import bilens as bl
from bilens.data.table_file import read_table
from bilens.data.table_rows import training_table
from bilens.io.loaded_model import LoadedModel
from bilens.train.table_fit import TableRecipe
from bilens.train.tasks.table import TableTask, train_table_in_folder
from contract.table import cell

CITIES = ("Berlin", "Bonn", "Kiel", "Ulm", "Jena")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A text decides most, then a yes or no, then a number with gaps."""
    folder, lines = tmp_path_factory.mktemp("t"), ["size,city,smoker,y"]
    for row in range(120):
        smoker, city = row % 7 == 0, row * row % 5
        size = "" if row % 13 == 5 else f"{row * 37 % 101}"
        lines.append(
            f"{size},{CITIES[city]},{int(smoker)},{9 * city + 5 * smoker + row % 101 / 50}"
        )
    (folder / "t.csv").write_text("\n".join(lines))
    plain = training_table(read_table(folder / "t.csv"), "y", task="regression")
    task = TableTask(plain, TableRecipe(), "y", 0.0)
    train_table_in_folder(folder / "run", task, about_data={}, provenance={})
    return bl.load(folder / "run")


@cell("audit", "own object")
def test_worst_case_inputs_are_values_that_an_input_can_have(model: LoadedModel) -> None:
    found = bl.audit(model).to_dict()
    names = model.input_names or ()
    (worst,) = found["columns"]["worst_case_inputs"]
    assert [names[column] for column in worst["one"]["columns"]] == ["size"]
    assert worst["two"] is None  # no other input is a number of more than two values


@cell("audit", "own object")
@pytest.mark.parametrize(
    ("lang", "said"),
    [
        ("en", "there are 3 columns, read as {inputs} inputs, and {pairs} pairs of inputs"),
        ("ja", "列は3個で、{inputs}個の入力として読み取ります。入力の組は{pairs}個あります"),
    ],
)
def test_columns_are_counted_as_columns(
    lang: str, said: str, model: LoadedModel, tmp_path: Path
) -> None:
    bl.audit(model).to_html(tmp_path / "p.html", lang=lang)
    page = unescape(re.sub(r"<[^>]+>", "\n", (tmp_path / "p.html").read_text()))
    count = len(model.input_names or ())
    assert count > 3
    assert said.format(inputs=count, pairs=count * (count - 1) // 2) in page
    head = {"en": "Columns", "ja": "列"}[lang]
    assert re.search(rf"\n{head}\n+3\n", page)
