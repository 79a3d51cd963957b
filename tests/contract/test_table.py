"""Guards against a verb that is tested under no relation: a cell is filled, or says why not."""

import importlib.util
import inspect
from pathlib import Path

import bilens as bl
import bilens.sklearn as bls
from bilens.io.load import FORMATS
from commands import commands
from contract.table import CALLS, EMPTY, OF_NO_VERB, RELATIONS, VERBS
from tools.plant import ROOT, read_errors


def filled() -> dict[tuple[str, str], list[str]]:
    """Return the tests of each cell of the table."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path == Path(__file__):
            continue
        spec = importlib.util.spec_from_file_location(f"contract_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, test in vars(module).items():
            for one in getattr(test, "cells", ()):
                found.setdefault(one, []).append(f"{path.stem}.{name}")
    return found


def test_every_cell_of_the_table_is_filled_or_says_why_not() -> None:
    cells = {(verb, relation) for verb in VERBS for relation in RELATIONS}
    tests = filled()
    assert EMPTY.keys() <= cells
    assert not tests.keys() & EMPTY.keys(), "filled, and said to be empty"
    assert tests.keys() | EMPTY.keys() == cells


def what_a_user_calls() -> list[str]:
    """Return functions of the package and its estimators, commands, and readers of files."""
    found = [f"bl.sklearn.{name}" for name in bls.__all__]
    for prefix, package in (("bl", bl), ("bl.certify", bl.certify)):
        parts = ((name, getattr(package, name)) for name in package.__all__)
        found += [f"{prefix}.{name}" for name, part in parts if inspect.isfunction(part)]
    found += [f"bilens {name}" for name, one in commands().items() if not hasattr(one, "commands")]
    return found + [f"reader {one.name}" for one in FORMATS]


def test_all_that_a_user_calls_stands_in_a_row_of_the_table_or_says_why_not() -> None:
    known = [*OF_NO_VERB, *(name for names in CALLS.values() for name in names)]
    assert CALLS.keys() == {*VERBS}
    assert len(known) == len({*known}), "in two rows"
    found = {*what_a_user_calls(), "bilens reproduce"}  # of another package, perhaps not installed
    assert found - {*known} == set(), "new: name its verb in CALLS, or a reason in OF_NO_VERB"
    assert {*known} - found == set(), "gone: take it out"


def test_each_error_of_the_planter_has_its_place_in_the_source() -> None:
    lost = [e for e in read_errors() if (ROOT / e.path).read_text().count(e.old) != 1]
    assert not lost
