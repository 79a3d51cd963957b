"""The notebooks run from top to bottom, and what they show was shown by these very cells.

Broken once: with a name that no cell defines, and with a cell that was changed and not run.
"""

import ast
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
SLOW = ("a_language_models_circuit", "read_a_network", "reproduce_the_paper")  # they train models
NEEDS = {"ablate_a_direction": "transformer_lens"}  # `make test-peers` installs it
MOST_BYTES = 300_000
FOLDERS = re.compile(r"/(tmp|home|root|work|Users)/")


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def named(path: Path) -> Any:
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW))


@pytest.mark.parametrize("path", [*map(named, NOTEBOOKS)])
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem], reason="`make test-peers` installs it")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pyplot.switch_backend("Agg")
    namespace: dict[str, Any] = {}
    for number, cell in enumerate(code_cells(path), start=1):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{path.name}, cell {number}", "exec"), namespace)  # noqa: S102
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), namespace)  # noqa: S307
            getattr(value, "_repr_html_", str)()
    pyplot.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path: Path) -> None:
    """In order, without an error, small, and without the folders of a machine."""
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert path.stat().st_size < MOST_BYTES
    texts = [output.get("text") or output.get("data", {}).get("text/plain") for output in outputs]
    assert not FOLDERS.search("".join("".join(text or ()) for text in texts))
