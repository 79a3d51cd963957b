"""A row with gaps in the playground of a table: its form says them, and its answer is the model's.

Damage that it notices: an empty category read as no category at all, an empty date taken apart
anew from its mean day, a text that the training did not hold read as an empty cell.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
from bilens.api.given_data import interface_of
from bilens.data.labelled_data import read_labelled
from bilens.data.table_file import read_table
from bilens.data.table_rows import training_table
from bilens.train.run_folder import TEST_NAME
from bilens.train.table_fit import TableRecipe
from bilens.train.tasks.table import TableTask, train_table_in_folder
from bilens_explorer.folder import id_of
from chromium import needs_browser
from explorer_server import opened_page, served

pytestmark = needs_browser
NAMES = ("size", "age", "city", "town", "day", "since", "y")
PARTS = """async (name) => {
    const { get } = await import("/static/lib.js");
    const { decode, encode } = await import("/static/table_columns.js");
    const { unpacked } = await import("/static/quadratic.js");
    const given = await get(`/models/${name}/playground`);
    const [all, width] = [unpacked(given.rows), given.input_mean.length];
    return given.row_numbers.map((_, at) => {
        const row = all.subarray(at * width, (at + 1) * width);
        const z = new Float64Array(width);
        for (const [place, column] of given.columns.entries()) {
            const value = decode(column, row, given.empty?.[at].includes(place));
            encode(column, value, given.input_mean, given.input_scale, z);
        }
        return [...z].map((one, i) => one * given.input_scale[i] + given.input_mean[i]);
    });
}"""


def whole_row(row: int) -> list[str]:
    days = [f"20{22 + row % 2}-{1 + row % 12:02}-{1 + row % start:02}" for start in (27, 25)]
    texts = ("Berlin", "Bonn", "Kiel")[row % 3], ("Ōtsu", "Uji")[row % 2]
    clock = f"{row % 24:02}:30"
    answer = row % 7 * 1.5 + row % 3 * 4 + row % 5
    return [f"{row % 7}", f"{20 + row % 40}", *texts, days[0], f"{days[1]} {clock}", f"{answer}"]


def cells(row: int) -> list[str]:
    """A row of the training: age, town and since are empty in some."""
    found = whole_row(row)
    for place, name in enumerate(NAMES):
        if name in ("age", "town", "since") and row % 11 == place:
            found[place] = ""
    return found


def odd_rows() -> list[list[str]]:
    """Each column empty, and texts that no training row held; one row is as usual."""
    found = [whole_row(row) for row in range(40, 40 + len(NAMES) + 2)]
    for place in range(len(NAMES) - 1):
        found[place][place] = ""
    found[-3][2], found[-2][3] = "Ulm", "Ulm"
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gaps")
    write(root / "t.csv", [cells(row) for row in range(120)])
    plain = training_table(read_table(root / "t.csv"), "y", task="regression")
    task = TableTask(plain, TableRecipe(column_scale="standard"), "y", 0.0)
    train_table_in_folder(root / "runs" / "m", task, about_data={}, provenance={})
    write(root / "runs" / "m" / TEST_NAME, odd_rows())
    return root / "runs"


def write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *rows])


@pytest.fixture
def page(browser: Any, root: Path) -> Iterator[Any]:
    with served(root) as address, opened_page(browser, base_url=address) as found:
        yield found


def opened(page: Any, lang: str = "en") -> None:
    page.goto(f"/models/{id_of('m')}/playground?lang={lang}")
    page.get_by_role("table").first.wait_for()


def test_the_form_of_a_row_holds_the_inputs_that_the_model_is_given(page: Any, root: Path) -> None:
    opened(page)
    given = read_labelled(root / "m" / TEST_NAME, None, interface_of(bl.load(root / "m")))
    found = page.evaluate(PARTS, id_of("m"))
    assert len(found) == len(odd_rows())
    for row, inputs in zip(found, given.inputs.tolist(), strict=True):
        assert row == pytest.approx(inputs, abs=1e-8)


@pytest.mark.parametrize(
    ("lang", "empty", "unseen"),
    [("en", "(empty)", "(unknown)"), ("ja", "（空欄）", "（学習時にない値）")],
)
def test_the_form_says_what_a_row_lacks_and_the_answer_is_that_of_the_model(
    page: Any, root: Path, lang: str, empty: str, unseen: str
) -> None:
    opened(page, lang)
    model = bl.load(root / "m")
    given = read_labelled(root / "m" / TEST_NAME, None, interface_of(model))
    answers = model.module(given.inputs.double())[:, 0].tolist()
    pick = page.locator(".play select").first
    for place, (row, answer) in enumerate(zip(odd_rows(), answers, strict=True)):
        pick.select_option(str(place))
        shown = page.locator(".answer").inner_text().split(": ")[1].replace("−", "-")
        assert float(shown) == pytest.approx(answer, rel=1e-4)
        for name, cell in zip(NAMES[:-1], row, strict=False):
            field = page.get_by_label(name, exact=True)
            chosen, said = field.input_value(), field.locator("xpath=../..").inner_text()
            if cell == "":
                assert empty in (said if name in ("size", "age", "day", "since") else chosen)
            elif name in ("city", "town"):
                assert chosen == (unseen if cell == "Ulm" else cell)
            else:
                assert re.split(r"[.T]", chosen)[0] == re.split(r"[ .]", cell)[0]
                assert empty not in said
    page.get_by_label("city", exact=True).select_option("Kiel")
    assert page.locator(".answer").inner_text().startswith("y")
