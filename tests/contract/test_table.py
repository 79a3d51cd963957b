"""Guards against a verb that is tested under no relation: a cell is filled, or says why not."""

import importlib.util
from pathlib import Path

from contract.table import EMPTY, RELATIONS, VERBS
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


def test_each_error_of_the_planter_has_its_place_in_the_source() -> None:
    lost = [e for e in read_errors() if (ROOT / e.path).read_text().count(e.old) != 1]
    assert not lost
