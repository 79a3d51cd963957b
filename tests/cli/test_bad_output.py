"""Options that make no sense and output that cannot be written end in one line that helps."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import (
    FILE,
    LIMIT,
    NUMERICAL,
    USAGE,
    Cases,
    Line,
    Shell,
    assert_one_line,
    audit,
    model_folder,
    train,
    with_data,
)


def run(folder: Path) -> Line:
    return train(folder, with_data(folder / "idx"))


def a_run_is_there(folder: Path) -> Line:
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text("{}")
    return run(folder)


def a_report_is_there(folder: Path) -> Line:
    model_folder(folder / "model")
    (folder / "report.html").write_text("mine")
    return audit(folder, "--html", folder / "report.html")


def options(*more: Any) -> Callable[[Path], Line]:
    return lambda folder: [*run(folder), *more]


def of_model(*words: Any) -> Callable[[Path], Line]:
    def prepare(folder: Path) -> Line:
        model_folder(folder / "model")
        return [words[0], folder / "model", *words[1:]]

    return prepare


def a_folder_for_a_file(*words: Any) -> Callable[[Path], Line]:
    return lambda folder: of_model(*words, folder)(folder)


A_FOLDER = ["is a folder; expected a file: add a name in it"]
CASES: Cases = {
    "a run is there": (a_run_is_there, USAGE, ["/run already holds files", "--overwrite"]),
    "a report is there": (a_report_is_there, USAGE, ["report.html exists already", "--overwrite"]),
    "nothing to resume": (
        options("--resume"),
        FILE,
        ["/run: holds no run to resume", "without --r"],
    ),
    "both flags": (options("--resume", "--overwrite"), USAGE, ["give one of them"]),
    "a batch too large": (options("--batch-size=500"), USAGE, ["500", "200 training images"]),
    "a negative amount": (options("--noise=-1"), USAGE, ["noise must be a finite number"]),
    "an unknown augmentation": (options("--augment=spin:3"), USAGE, ["'spin:3'", "use one of"]),
    "a rate that diverges": (options("--learning-rate=1e30"), NUMERICAL, ["no longer finite"]),
    "an unknown layer": (of_model("decompose", "--layer", "x"), USAGE, ["layers.0", "'x'"]),
    "an impossible contrast": (of_model("decompose", "--contrast", 0, 7), USAGE, ["0 and 2"]),
    "a contrast below 0": (
        of_model("decompose", "--contrast", -1, 2),
        USAGE,
        ["a contrast needs two different outputs between 0 and 2, got -1 and 2"],
    ),
    "pairs into a file": (
        lambda folder: of_model("decompose", "--out", folder / "model" / "config.json")(folder),
        USAGE,
        ["config.json is a file; expected a folder"],
    ),
    "an output that is not there": (
        of_model("decompose", "--outputs", "0,7"),
        USAGE,
        ["'7' in '0,7' names no output", "from 0 to 2"],
    ),
    "memory for nothing": (
        of_model("decompose", "--memory-limit", "1k"),
        LIMIT,
        ["allow more with memory_limit"],
    ),
    "a size that is none": (
        of_model("decompose", "--memory-limit", "much"),
        USAGE,
        ["'much' is not a memory size"],
    ),
    "a report over a folder": (
        a_folder_for_a_file("audit", "--overwrite", "--html"),
        USAGE,
        A_FOLDER,
    ),
    "a model beyond memory": (options("--hidden=1000000000"), LIMIT, ["choose a smaller model"]),
    "two readings at once": (
        of_model("decompose", "--contrast", 0, 1, "--reading", "raw"),
        USAGE,
        ["leave reading and outputs out"],
    ),
    "too few rotations": (of_model("audit", "--null-samples", 5), USAGE, ["at least 39, got 5"]),
    "a seed too large": (of_model("audit", "--seed", 10**30), USAGE, ["seed must be below"]),
    "an image without data": (of_model("explain", "--index", 0), USAGE, ["--data-dir"]),
    "a residual that is known": (of_model("decompose", "--residual"), USAGE, ["leave the option"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_option_is_one_line_that_helps(name: str, bilens: Shell, tmp_path: Path) -> None:
    prepare, code, words = CASES[name]
    assert_one_line(bilens("--quiet", *prepare(tmp_path)), code, words)


def html(folder: Path) -> Line:
    return audit(folder, "--html", folder / "report.html")


def pairs(folder: Path) -> Line:
    return ["decompose", folder / "model", "--out", folder / "pairs"]


@pytest.mark.parametrize("line", [html, pairs, run])
@pytest.mark.parametrize(
    ("number", "code", "advice"),
    [
        (errno.ENOSPC, LIMIT, "free some space or choose another output folder"),
        (errno.EACCES, FILE, "choose an output folder that you may write to"),
        (errno.EROFS, FILE, "choose an output folder that you may write to"),
    ],
)
def test_a_disk_that_takes_nothing_is_named(
    line: Callable[[Path], Line],
    number: int,
    code: int,
    advice: str,
    bilens: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Permissions do not stop a superuser, so the error is made where the system would raise it."""
    model_folder(tmp_path / "model")
    words = line(tmp_path)

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    expected = [str(tmp_path), os.strerror(number), advice]
    assert_one_line(bilens("--quiet", *words), code, expected)
    left = {"model", "idx"}
    files = [item.relative_to(tmp_path) for item in tmp_path.rglob("*") if item.is_file()]
    assert {path.parts[0] for path in files} <= left  # no half of a file
