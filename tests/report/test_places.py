"""Places in words: where a bright spot is put is where it is said to be.

Damage seen to fail: rows and columns exchanged; the sign of weights not dropped.
"""

import pytest

from bilens.records.audit import Audit
from bilens.records.common import ModelSummary
from bilens.report.reports import AuditReport
from bilens.report.sections.overview import place
from bilens.report.text import load_catalogue
from report_documents import make_document

T = load_catalogue("en")
ROWS, COLUMNS = 12, 18


def model(**more: object) -> ModelSummary:
    document = make_document(shape=(ROWS, COLUMNS), data=False)
    document["model"] |= more
    record: Audit = AuditReport(document).record
    return record.model


def box(top: int, bottom: int, left: int, right: int, weight: float = 1.0) -> list[float]:
    return [
        weight * (top <= row <= bottom and left <= column <= right)
        for row in range(ROWS)
        for column in range(COLUMNS)
    ]


@pytest.mark.parametrize(
    ("corners", "name"),
    [
        ((0, 3, 0, 5), "upper left"),
        ((0, 2, 8, 9), "top"),
        ((1, 3, 14, 17), "upper right"),
        ((5, 6, 0, 4), "left"),
        ((4, 7, 7, 10), "centre"),
        ((5, 6, 13, 17), "right"),
        ((9, 11, 1, 4), "lower left"),
        ((9, 11, 7, 9), "bottom"),
        ((10, 11, 15, 17), "lower right"),
        ((0, 11, 0, 17), "whole image"),
    ],
)
def test_a_part_of_an_image_has_its_name(corners: tuple[int, int, int, int], name: str) -> None:
    """Faint everywhere, so that the whole image counts, and strong in one place."""
    weights = [a + 1e-6 for a in box(*corners)]
    assert place(T, model(), weights, brief=True) == name


@pytest.mark.parametrize("weight", [1.0, -2.0])
def test_a_part_is_one_of_what_is_drawn(weight: float) -> None:
    """A figure of 6 × 9 pixels in the lower right: its own upper left is heaviest."""
    figure = [0.1 * a for a in box(6, 11, 9, 17, weight)]
    heavy = box(6, 7, 9, 11, weight)
    against = [-2 * a for a in box(10, 11, 15, 17, weight)]
    weights = [a + b + c for a, b, c in zip(figure, heavy, against, strict=True)]
    expected = "upper left (rows 6–7, columns 9–11)"
    drawn = [a + b for a, b in zip(figure, heavy, strict=True)]
    assert place(T, model(), drawn, brief=False) == expected
    if abs(sum(weights)) > 0 and (sum(weights) > 0) == (weight > 0):
        assert place(T, model(), weights, brief=False) == expected


def test_inputs_with_names_are_named_the_heaviest_first() -> None:
    names = [f"column {index}" for index in range(ROWS * COLUMNS)]
    weights = [0.0] * len(names)
    weights[3], weights[7], weights[9], weights[11] = 1.0, 5.0, 3.0, -6.0
    found = place(T, model(input_names=names), weights, brief=False)
    assert found == "column 7, column 9 and column 3"
    assert place(T, model(input_names=names), weights, brief=True) == "column 7"


def test_nothing_at_all_is_everywhere() -> None:
    assert place(T, model(), [0.0] * ROWS * COLUMNS, brief=True) == "whole image"
