"""Results in a notebook: every public result has a short table, and texts in it stay texts."""

from dataclasses import dataclass, is_dataclass
from enum import Enum
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

import bilens
import trace_documents
from bilens.base.notebook import MOST, described, html_summary
from builders import random_map


class State(Enum):
    """How something ended."""

    OK = "ok"
    NOT_FOUND = "not found"


@dataclass(frozen=True)
class Part:
    """A part of a result."""

    value: float
    name: str = "part"


class Sizes(NamedTuple):
    """Two numbers."""

    d_out: int
    d_in: int


@dataclass(frozen=True)
class Result:
    """A result."""

    name: str
    bound: torch.Tensor
    part: Part
    _hidden: int = 0

    _repr_html_ = html_summary()


@dataclass(frozen=True)
class Chosen:
    """A result that says what is shown."""

    name: str
    part: Part

    _repr_html_ = html_summary("name", number="part.value")


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
        ((Part(0.5),), "value 0.5"),
        ((Part(0.5), Part(1.5), Part(2.0)), "3 × Part"),
        (Sizes(2, 3), "d out 2, d in 3"),
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


@pytest.mark.parametrize("module", [bilens, bilens.certify], ids=["bilens", "certify"])
def test_every_public_result_has_a_table(module: ModuleType) -> None:
    public = [getattr(module, name) for name in module.__all__ if name != "sklearn"]
    options = ("Options", "Roles")  # what goes in is no result
    results = [one for one in public if is_dataclass(one) and not one.__name__.endswith(options)]
    assert len(results) > 10
    tables = {result.__name__: getattr(result, "_repr_html_", None) for result in results}
    assert not [name for name, table in tables.items() if not callable(table)]


def test_the_table_of_a_decomposition_says_what_is_proven() -> None:
    factors = torch.eye(3), torch.ones(3, 3), torch.ones(3, 3)
    f = bilens.QuadraticMap(bilens.BilinearTensor(*factors))
    assert "d out 3, d hidden 3, d in 3" in f._repr_html_()
    table = bilens.eigendecompose(f.form(torch.ones(3)), k=1)._repr_html_()
    assert '>complete</th><td style="text-align:left">yes</td>' in table


def test_a_result_is_one_line_without_its_tensors() -> None:
    """A map, a decomposition and a whole document: a terminal is not filled with numbers."""
    f = random_map(d_out=40, d_in=50)
    assert repr(f) == (
        "QuadraticMap(sizes: d out 40, d hidden 4, d in 50; dtype: torch.float64; basis: input; "
        "linear: 40 × 50, float64; constant: 40, float64)"
    )
    form, whole = f.form(torch.ones(40).double()), bilens.eigendecompose_all(f)
    for result in (form, whole, Result("a", torch.zeros(9, 9), Part(0.5))):
        assert len(repr(result)) < 400, repr(result)[:400]
    trace = bilens.TraceReport(trace_documents.make_trace())
    assert repr(trace).startswith("TraceReport(Trace(")
    assert "ranking: 12 × RankedLatent" in repr(trace)
    assert len(repr(trace)) < 1000, repr(trace)


@pytest.mark.parametrize("module", [bilens, bilens.nn, bilens.certify, bilens.plot, bilens.sklearn])
def test_a_module_lists_its_public_names_alone(module: ModuleType) -> None:
    assert {*dir(module)} - {"sklearn", "load_converted"} == {*module.__all__} - {"load_converted"}
