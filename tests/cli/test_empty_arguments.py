"""An empty argument, as of a variable that is not set, is refused, and never is this folder.

Broken once: with the command line and `check_path` of before, for which it was this folder.
"""

from pathlib import Path

import pytest

import bilens as bl
import tiny
from bilens.base.errors import UsageError
from bilens.pytest_plugin import audit_or_fail
from commands import USAGE, Shell, model_folder
from test_pytest_plugin import run_pytest

TESTS = """
import tiny

def test_baseline(assert_audit):
    assert_audit(tiny.classifier(), baseline="", null_samples=39)

def test_model(assert_audit):
    assert_audit("", null_samples=39)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that is a model itself, which is what an empty path would be."""
    model_folder(tmp_path)
    model_folder(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        ["audit", ""],
        ["audit", "m", ""],
        ["audit", "m", "--baseline", ""],
        ["audit", "m", "--baseline="],
        ["audit", "m", "--html", ""],
        ["inspect", ""],
        ["decompose", ""],
        ["watch", "", "--once"],
        ["fit", "m", "--data="],
        ["certify", "m", "--html="],
    ],
    ids=" ".join,
)
def test_an_empty_argument_is_one_error(bilens: Shell, here: Path, line: list[str]) -> None:
    before = sorted(here.rglob("*"))
    result = bilens(*line)
    assert result.code == USAGE
    said = result.error()
    assert f"an argument of `bilens {line[0]}` is empty" in said
    assert "is a variable of the shell not set?" in said
    assert "=" not in line[-1] or line[-1] in said
    assert result.out == ""
    assert sorted(here.rglob("*")) == before


def test_a_dot_is_the_current_folder(bilens: Shell) -> None:
    assert bilens("audit", ".", "--null-samples", tiny.ROTATIONS).code == 0


@pytest.mark.parametrize("name", ["load", "inventory", "History"])
def test_an_empty_path_is_refused_from_python(name: str) -> None:
    with pytest.raises(UsageError, match=r"is empty; expected a path, and \. for the current"):
        getattr(bl, name)("")


@pytest.mark.parametrize("given", [{"model": ""}, {"model": "m", "baseline": ""}])
def test_a_gate_in_a_test_refuses_an_empty_path(given: dict[str, str]) -> None:
    (name,) = (name for name, path in given.items() if not path)
    with pytest.raises(UsageError, match=f"{name} is empty; expected a path"):
        audit_or_fail(**given)


def test_pytest_says_so_in_one_line(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path / "m", TESTS)
    assert ended.keys() == {"test_baseline", "test_model"}
    for name, said in ended.items():
        (line,) = (line for line in said.splitlines() if line.startswith("E "))
        assert f"UsageError: {name.removeprefix('test_')} is empty; expected a path" in line
