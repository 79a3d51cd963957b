"""Results in a notebook: every public result has a short table, and texts in it stay texts.

Broken once: a name put in without `escape`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import pytest
import torch

from bilens.base.notebook import MOST, described, shown


class State(Enum):
    """How something ended."""

    OK = "ok"
    NOT_FOUND = "not found"


@dataclass(frozen=True)
class Part:
    """A part of a result."""

    value: float
    name: str = "part"


@dataclass(frozen=True)
class Result:
    """A result."""

    name: str
    bound: torch.Tensor
    part: Part
    _hidden: int = 0

    _repr_html_ = shown()


@dataclass(frozen=True)
class Chosen:
    """A result that says what is shown."""

    name: str
    part: Part

    _repr_html_ = shown("name", number="part.value")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (True, "yes"),
        (3, "3"),
        (0.123456789, "0.123457"),
        (State.NOT_FOUND, "not found"),
        ((State.OK, State.NOT_FOUND, State.OK), "ok: 2, not found: 1"),
        (torch.zeros(3, 5), "3 × 5, float32"),
        (torch.tensor([1.0, -2.5], dtype=torch.float64), "1, -2.5"),
        (torch.tensor(7), "7"),
        (torch.tensor([]), "none"),
        (torch.tensor([[True, False], [True, True]]), "3 of 4"),
        (torch.tensor(True), "yes"),
        (("a", "b"), "a, b"),
        ((), "none"),
        (tuple(range(9)), "0, 1, 2, 3, 4, 5, … (9)"),
        ({"layer": 1}, "layer"),
        (Part(0.5), "value 0.5"),
        ("x" * 200, "x" * 119 + "…"),
    ],
)
def test_a_value_in_few_words(value: object, text: str) -> None:
    assert described(value) == text


def test_all_fields_of_a_record_are_rows_and_texts_are_escaped() -> None:
    page = Result("<b>&", torch.zeros(MOST + 1), Part(2.0))._repr_html_()
    assert "<strong>Result</strong>" in page
    assert page.count("<tr>") == 3
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page
    assert "7, float32" in page
    assert "hidden" not in page


def test_chosen_rows_have_labels_of_their_own() -> None:
    page = Chosen("one", Part(2.0))._repr_html_()
    assert ">name</th>" in page
    assert ">number</th>" in page
    assert ">2</td>" in page
