"""The contract: every verb of bilens under every relation that a user would take for granted.

A *verb* is something that a user does with a model; a *relation* is a change of the model, its
data or the run whose effect on the answer is known without bilens. A test says with `cell` which
cells of the table it fills. Cells that no test fills stand in `EMPTY`, each with its reason.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

VERBS = (
    "load module",
    "load file",
    "load estimator",
    "audit",
    "certify",
    "attack",
    "explain",
    "attribute",
    "compare",
    "fit",
    "decompose",
    "convert",
    "train table",
    "trace",
    "sweep",
    "explore",
)
RELATIONS = {
    "own object": "what was read equals the object that was given, called as its owner calls it",
    "permuted units": "hidden units in another order",
    "permuted inputs": "inputs in another order, names and data with them",
    "permuted outputs": "outputs in another order, names and labels with them",
    "other names": "names of classes or columns, and what bears them, changed together or alone",
    "scaled branches": "one branch times a number, the other divided by it",
    "common function": "the same function added to all logits",
    "other units": "an input or an answer written in another unit",
    "other dtype": "the same numbers in another type",
    "repeated rows": "each row of the data twice",
    "shuffled rows": "rows of the data in another order",
    "sorted rows": "rows of the data sorted by their right answer",
    "threads": "two threads of computation in place of one",
    "resumed": "interrupted and gone on with",
    "saved": "saved and loaded, or read again from its file",
    "same function": "the function written otherwise: the same verdict",
    "other function": "another function, reading, data or option: another verdict",
    "without effect": "an option that would do nothing is refused",
}
EMPTY: dict[tuple[str, str], str] = {}


def cell(verb: str, *relations: str) -> Callable[[Test], Test]:
    """Say which cells of the table a test fills."""
    assert verb in VERBS, f"{verb!r} is no verb of the table"
    assert relations, "name at least one relation"
    assert {*relations} <= RELATIONS.keys(), f"{relations} are not all relations of the table"

    def marked(test: Test) -> Test:
        cells = getattr(test, "cells", ())
        test.cells = (*cells, *((verb, one) for one in relations))  # type: ignore[attr-defined]
        return test

    return marked
