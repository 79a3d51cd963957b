"""The exit codes, one by one; what a script around bilens relies on."""

from pathlib import Path

import pytest

import tiny
from bilens.api import layer_decomposition, train
from bilens.base import errors
from bilens.findings import subject as exactness
from commands import Shell, model_folder
from raising import raising

TABLE = {
    "UsageError": 2,
    "UnknownOptionError": 2,
    "ShapeError": 2,
    "OutputExistsError": 2,
    "MissingExtraError": 2,
    "NotQuadraticError": 3,
    "FileError": 3,
    "DataError": 3,
    "CheckpointError": 3,
    "NoLayersError": 3,
    "NonFiniteError": 4,
    "NumericalError": 4,
    "MemoryLimitError": 5,
    "DiskError": 5,
    "InterruptedRunError": 130,
}


@pytest.mark.parametrize("name", TABLE)
def test_an_error_has_its_code(
    name: str, bilens: Shell, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = getattr(errors, name)
    raised = error("p", "e", "This") if name == "MissingExtraError" else error("What came, why.")

    monkeypatch.setattr(layer_decomposition, "decompose_layers", raising(raised))
    result = bilens("decompose", model)
    assert result.code == TABLE[name]
    assert result.error() == f"error: {raised}"


def test_no_error_is_missing_from_the_table() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.BilensError)
    }
    assert found - {"BilensError"} == set(TABLE)


def test_0_when_all_conditions_hold(bilens: Shell, model: Path) -> None:
    assert bilens("audit", model, "--null-samples", 39).code == 0


@pytest.mark.parametrize("json", [False, True])
def test_1_when_a_condition_fails_and_the_result_is_there_all_the_same(
    json: bool, bilens: Shell, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reading is exact to 10⁻²⁰."""
    monkeypatch.setitem(exactness.TOLERANCES, "float64", 1e-20)
    page = tmp_path / "report.html"
    line = ["audit", model, "--null-samples", 39, "--html", page]
    result = bilens("--quiet", *line, *["--json"] * json)
    assert result.code == 1
    assert result.err == ""
    assert page.exists()
    if json:
        document = result.json()
        assert not document["passed"]
        assert "fail" in [finding["outcome"] for finding in document["verdict"]]
    else:
        assert "✗" in result.out


def test_1_from_a_demo_that_does_not_pass(
    bilens: Shell, idx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exactness.TOLERANCES, "float64", 1e-20)
    monkeypatch.setattr(train, "DEMO_RECIPE", tiny.RECIPE)
    result = bilens("--quiet", "demo", "--out", tmp_path / "demo", "--data-dir", idx)
    assert result.code == 1
    assert (tmp_path / "demo" / "report.html").exists()


def test_4_when_no_output_can_be_decomposed_and_the_table_says_why(
    bilens: Shell, tmp_path: Path
) -> None:
    """Each weight is finite in float64, their products are not."""
    model = model_folder(tmp_path / "model", tiny.enlarged(1e150))
    result = bilens("decompose", model)
    assert result.code == 4
    assert "3 of 3 outputs were not decomposed: rescale the weights" in result.error()
    assert result.out.count("holds NaN or infinity") == 3


@pytest.mark.parametrize("command", [["audit", "--null-samples", 39], ["decompose"]])
def test_5_when_the_memory_limit_is_too_low(
    command: list[object], bilens: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of 900 inputs take 60 kB, and one dense matrix 6.5 MB."""
    model = model_folder(tmp_path / "model", tiny.classifier(d_input=900))
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1M")
    result = bilens("--quiet", command[0], model, *command[1:])
    assert result.code == 5
    assert "the limit is 1.00 MiB" in result.error()


def test_2_when_the_memory_limit_is_no_size(
    bilens: Shell, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "plenty")
    result = bilens("--quiet", "decompose", model)
    assert result.code == 2
    assert "'plenty' is not a memory size" in result.error()


ALLOCATION = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 TB"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 5, "out of memory"),
        (RuntimeError(ALLOCATION), 5, "out of memory"),
        (KeyboardInterrupt(), 130, "error: Interrupted."),
    ],
)
def test_5_when_memory_runs_out_and_130_when_there_is_nothing_to_save(
    error: BaseException,
    code: int,
    words: str,
    bilens: Shell,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layer_decomposition, "decompose_layers", raising(error))
    result = bilens("decompose", model)
    assert result.code == code
    assert words in result.error()


@pytest.mark.parametrize("error", [KeyError("pixels"), RuntimeError("shapes"), AssertionError()])
def test_70_and_a_traceback_when_bilens_itself_is_at_fault(
    error: Exception, bilens: Shell, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_decomposition, "decompose_layers", raising(error))
    result = bilens("decompose", model)
    assert (result.code, result.out) == (70, "")
    *lines, cause, last = result.err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert cause.startswith(type(error).__name__)
    assert last == "error: this is a fault of bilens: please report it with the lines above."
