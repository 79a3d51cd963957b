"""What only a process of its own can show: imports, closed pipes, signals."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

import runs
import tiny
from bilens.io.load import load
from bilens.version import VERSION
from commands import Shell, model_folder, train

PROGRAM = [sys.executable, "-m", "bilens"]


def start(*arguments: object, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=tiny.environment(),
    )


def run_code(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=tiny.environment(),
        check=True,
        timeout=60,
    )
    return result.stdout


HELP = """
import sys
from bilens.cli import main
sys.argv = ["bilens", "--help"]
try:
    main()
except SystemExit as end:
    assert end.code == 0
heavy = {"torch", "numpy", "scipy", "jinja2", "safetensors"} & set(sys.modules)
print("loaded:", *sorted(heavy))
"""


def test_help_loads_neither_torch_nor_what_draws_pages() -> None:
    text = run_code(HELP)
    assert text.splitlines()[-1] == "loaded:"
    assert "Usage:" in text


def test_importing_bilens_alone_does_not_load_torch() -> None:
    code = "import sys, bilens; print(bilens.__version__, 'torch' in sys.modules)"
    assert run_code(code).split() == [VERSION, "False"]


def test_python_m_bilens_is_the_program() -> None:
    process = start("--version")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, f"bilens {VERSION}\n", "")


@pytest.mark.parametrize("options", [["--json"], pytest.param([], marks=pytest.mark.slow)])
def test_a_reader_that_leaves_is_no_error(options: list[str], model: Path) -> None:
    """As `bilens decompose … | head -c 10`, with a reader that is gone before the first word."""
    process = start("decompose", model, "--top", 36, *options)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0


def test_help_for_a_reader_that_leaves_is_quiet() -> None:
    process = start("--help")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(timeout=60)


@pytest.mark.parametrize(
    "line", [["decompose", "model", "--json"], pytest.param(["--help"], marks=pytest.mark.slow)]
)
def test_a_result_that_finds_no_space_is_one_line(
    line: list[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    with Path("/dev/full").open("w") as full:
        process = start("--quiet", *line, stdout=full)
        _, err = process.communicate(timeout=60)
    reason = "the result cannot be written (No space left on device): free some space."
    assert err == f"error: {reason}\n"
    assert process.returncode == 5


@pytest.mark.parametrize(
    "line", ["decompose {} --json", pytest.param("audit {}", marks=pytest.mark.slow), "--version"]
)
def test_a_result_that_would_go_nowhere_is_refused_before_any_work(line: str, model: Path) -> None:
    """A closed stdout; `nohup` and `cron` leave it open."""
    command = f"{shlex.join(PROGRAM)} {line.format(shlex.quote(str(model)))} >&-"
    result = subprocess.run(
        ["/bin/sh", "-c", command], env=tiny.environment(), check=False, capture_output=True
    )
    assert result.returncode == 5
    expected = "stdout is closed, and the result goes there: leave it open, or to /dev/null."
    assert result.stderr.decode() == f"error: {expected}\n"


@pytest.mark.parametrize("option", ["--html", "--out"])
def test_a_path_that_is_no_text_is_one_line(option: str, model: Path) -> None:
    command = "decompose" if option == "--out" else "audit"
    name = os.fsencode(model.parent) + b"/caf\xe9.html"
    result = subprocess.run(
        [*PROGRAM, command, str(model), option, name],
        env=tiny.environment(),
        check=False,
        capture_output=True,
    )
    assert (result.returncode, result.stdout) == (2, b"")
    (line,) = result.stderr.decode().splitlines()
    assert "caf\\udce9.html' is not UTF-8" in line


@pytest.mark.parametrize("stderr", ["/dev/full", pytest.param("&-", marks=pytest.mark.slow)])
def test_an_error_that_cannot_be_told_keeps_its_code(stderr: str) -> None:
    command = f"{shlex.join(PROGRAM)} audit nowhere 2>{stderr}"
    result = subprocess.run(["/bin/sh", "-c", command], env=tiny.environment(), check=False)
    assert result.returncode == 3


def wait_for_epochs(number: int, process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until a training in a folder has done a number of epochs."""
    deadline = time.monotonic() + 60
    while not (folder / "history.jsonl").exists() or len(runs.history(folder)) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_an_overwriting_training_that_is_ended_leaves_the_earlier_model(
    number: signal.Signals, bilens: Shell, idx: Path, tmp_path: Path
) -> None:
    """It can be read where it is, and comes back when another overwriting run fails."""
    line, folder = train(tmp_path, idx), tmp_path / "run"
    aside = folder / ".earlier"
    assert bilens("--quiet", *line).code == 0
    earlier = load(folder)
    process = start(*line, "--overwrite", "--epochs=1000000")
    wait_for_epochs(3, process, folder)  # the earlier run has two
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number is signal.SIGINT:
        assert process.returncode == 130
        assert err.endswith(f" Until then {aside} keeps the run that it overwrites.\n")
    assert bilens("--quiet", "decompose", aside).code == 0
    assert load(aside).weights_sha256 == earlier.weights_sha256

    assert bilens("--quiet", *line, "--overwrite", "--learning-rate=1e30").code == 4
    assert load(folder).weights_sha256 == earlier.weights_sha256
    assert not aside.exists()
    result = bilens(*line, "--resume")
    assert result.code == 0
    assert f"{folder} is finished: nothing is left to do." in result.err
    assert load(folder).weights_sha256 == earlier.weights_sha256


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_training_that_resume_finishes(
    number: signal.Signals, bilens: Shell, idx: Path, tmp_path: Path
) -> None:
    line = [*train(tmp_path, idx), "--epochs=100"]
    folder = tmp_path / "run"
    process = start(*line)
    wait_for_epochs(2, process, folder)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("error: Interrupted in epoch ")
    assert last.endswith(f"{folder} is saved: repeat the command with --resume to go on.")
    assert not (folder / "config.json").exists()
    assert not (folder / ".lock").exists()
    result = bilens("audit", folder)
    assert result.code == 3
    assert "command with --resume" in result.err

    result = bilens(*line, "--resume")
    assert result.code == 0, result.err
    assert f"Continuing {folder} after epoch " in result.err
    whole = [*train(tmp_path / "whole", idx), "--epochs=100"]
    assert bilens("--quiet", *whole).code == 0
    assert tiny.same_weights(load(folder).module, load(tmp_path / "whole" / "run").module)
    assert runs.history(folder) == runs.history(tmp_path / "whole" / "run")


def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    """As by `nohup`."""
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "from bilens.cli.app import interrupt_on_signals as catch; catch(); "
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, "
        "signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    )
    assert run_code(code).split() == ["True", "False"]


@pytest.mark.slow  # of Ctrl-C see also tests/api/test_layer_decomposition.py
def test_ctrl_c_ends_a_decomposition_that_the_same_command_finishes(
    bilens: Shell, tmp_path: Path
) -> None:
    """The rotations of each layer take a second or two."""
    model = model_folder(tmp_path / "deep", tiny.classifier(n_layers=2))
    out = tmp_path / "pairs"
    line = ["decompose", model, "--null-samples", 4000, "--out", out]
    process = start(*line)
    while not (out / "layers.0.safetensors").exists():  # the second of its two files
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    kept = f"error: Interrupted: layers.0 is kept in {out}; the same command goes on with layers.1."
    assert (stdout, err.splitlines()[-1]) == ("", kept)
    assert "Traceback" not in err
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"layers.0.json", "layers.0.safetensors"}

    records = bilens("--quiet", *line, "--json").json()["layers"]
    assert [record["layer"] for record in records] == ["layers.0", "layers.1"]
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(after) == {*before, "layers.1.json", "layers.1.safetensors"}
    assert {name: after[name] for name in before} == before
