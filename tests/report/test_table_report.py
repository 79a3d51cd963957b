"""The report of a table: a document that is checked, and a page of bars with the columns' names."""

import copy
import re
from typing import Any

import pytest
from msgspec import structs

from bilens.base.errors import NonFiniteError, UsageError
from bilens.records.column_readings import PairEffect, TableColumn, TableReading
from bilens.report.reports import AuditReport
from bilens.report.sections.table_cells import conversion_lines
from bilens.report.sections.table_page import by_column, pair_label
from bilens.report.text import load_catalogue
from table_documents import conversions, finding_of, make_table, read_table_document, variants

DOCUMENT = make_table()


def test_the_strongest_columns_and_pairs_stand_in_the_page() -> None:
    page = AuditReport(DOCUMENT).to_html(lang="en")
    for item in DOCUMENT["columns"]["outputs"]:
        pair = item["pairs"][0]
        assert f"column {pair['first']} × column {pair['second']}" in page
    first = DOCUMENT["columns"]["rows"][0]
    assert f"Row no. {first['index']}" in page
    assert "<img" not in page  # bars, not pictures


def test_the_worst_case_inputs_stand_in_the_page_where_units_are_known() -> None:
    two = DOCUMENT["columns"]["worst_case_inputs"][1]["two"]
    page = AuditReport(DOCUMENT).to_html(lang="en")
    assert "Worst-case inputs: what one or two values can do" in page
    assert f"column {two['columns'][0]} at " in page
    assert "Worst-case inputs" not in AuditReport(variants()["raw"]).to_html(lang="en")


def test_names_are_shown_as_they_are_and_never_as_markup() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["model"]["input_names"][1] = "<b>bold</b> & co"
    document["model"]["output_names"][0] = "<script>alert(1)</script>"
    page = AuditReport(document).to_html(lang="en")
    assert "<script>alert" not in page
    assert "&lt;b&gt;bold" in page


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


@pytest.mark.parametrize("name", ["classes", "two classes", "numbers", "numbers, no better"])
def test_what_columns_add_to_a_row_adds_up_as_shown(name: str) -> None:
    """To the last digit, bar by bar, and from the comparison row to this one."""
    document = variants()[name]
    page = AuditReport(document).to_html(lang="en")
    scores = [part["score"] for row in document["columns"]["rows"] for part in row["attributions"]]
    figures = re.findall(r"<figure>(?:(?!</figure>).)*Together.*?</figure>", page, re.DOTALL)
    for score, figure in zip(scores, figures, strict=True):
        bars = re.findall(r">([+−]?[\d,]+\.\d+)</text>", figure)
        sums = re.search(r"Together (\S+): from (\S+) to (\S+)\.</p>", figure)
        assert sums is not None
        change, start, end = map(number, sums.groups())
        assert sum(map(number, bars)) == pytest.approx(change, abs=1e-9)
        assert start + change == pytest.approx(end, abs=1e-9)
        unit = 10.0 ** -len(sums[3].partition(".")[2])
        assert end == pytest.approx(score, abs=unit * 0.501)


def test_labels_fit_beside_a_bar_and_keep_what_matters() -> None:
    names = ["a column of quite a long name, 1", "b", "another column of a long name"]
    assert pair_label(names, PairEffect(0, 1, 1.0)) == "a column of qui…a long name, 1 × b"
    assert pair_label(names, PairEffect(1, 0, 1.0)) == "b × a column of qui…a long name, 1"
    assert pair_label(names, PairEffect(0, 2, 1.0)) == "a colum…name, 1 × another …ng name"


def edited(change: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    return document


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(read_as="classes"),
        lambda d: d["model"].pop("task"),
        lambda d: d["model"].update(task="regression"),
        lambda d: d["model"]["input_names"].pop(),
        lambda d: d["columns"]["outputs"].pop(),
        lambda d: d["columns"]["outputs"][0]["columns"][0].update(column=99),
        lambda d: d["columns"]["outputs"][0]["pairs"][0].update(second=99),
        lambda d: d["columns"]["worst_case_inputs"].pop(),
        lambda d: d["columns"]["worst_case_inputs"][0]["one"].update(columns=[99]),
        lambda d: d["columns"]["worst_case_inputs"][0]["one"].update(z=[]),
        lambda d: d["columns"]["rows"][0].update(predicted=3),
        lambda d: d["columns"]["rows"][0]["scores"].pop(),
        lambda d: d["columns"]["rows"][0]["attributions"][0]["values"].pop(),
        lambda d: d["columns"]["rows"][0]["attributions"].clear(),
        lambda d: finding_of(d, "exact")["values"].pop("error"),
        lambda d: d["exactness"].clear(),
    ],
)
def test_a_document_that_does_not_fit_together_is_refused(change: Any) -> None:
    with pytest.raises(UsageError):
        AuditReport(edited(change))


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(NonFiniteError):
        AuditReport(edited(lambda d: d["columns"]["outputs"][0].update(constant=float("nan"))))


def test_columns_of_a_table_are_shown_in_their_own_units() -> None:
    page = AuditReport(read_table_document()).to_html(lang="en")
    assert "column 0 (€)" in page  # where it is an axis, a bar and a value
    assert "column 12 alone" in page
    assert "Row 7, as in the spreadsheet" in page
    assert page.index('id="rows"') < page.index('id="columns"')  # what was asked for comes first
    assert "How the tables were read" in page


def test_the_inputs_of_a_column_are_one_bar_and_add_up() -> None:
    record = AuditReport(DOCUMENT).record
    whole = TableColumn("all", "category", record.model.input_names, levels=("a",))
    shown = structs.replace(record.columns, reading=TableReading((whole,), ()))
    row, part = shown.rows[0], shown.rows[0].attributions[0]
    ((name, added),) = by_column(load_catalogue("en"), record, shown, row, part)
    assert name.startswith("all = ")
    assert added == pytest.approx(sum(part.values))


def test_a_column_of_which_only_its_gaps_were_kept_shows_no_number_that_is_not_its_own() -> None:
    """It said "flag = 0", the value of the input that tells whether the cell is missing."""
    record = AuditReport(DOCUMENT).record
    others = record.model.input_names[1:]
    flag = TableColumn("flag", "number", ("flag=(missing)",))
    model = structs.replace(record.model, input_names=("flag=(missing)", *others))
    rest = TableColumn("rest", "category", others, levels=("a",))
    columns = structs.replace(record.columns, reading=TableReading((flag, rest), ()))
    shown, first = structs.replace(record, model=model, columns=columns), columns.rows[0]
    row = structs.replace(first, inputs=(0.0, *first.inputs[1:]))
    (said, _), _ = by_column(load_catalogue("en"), shown, columns, row, row.attributions[0])
    assert said == "flag"


def test_what_was_done_is_said_in_both_languages() -> None:
    for lang in ("en", "ja"):
        lines = conversion_lines(load_catalogue(lang), conversions())
        assert len(lines) == len(conversions())
        assert not [line for line in lines if "{" in line]
