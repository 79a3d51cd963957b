"""The command line in this process: as a shell would see it, without starting Python anew."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import tiny
from bilens.cli.app import app, main
from bilens.cli.command_group import build_all_commands
from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier

DATA = tiny.images(name="mnist")


@cache  # all commands are built, which takes a second
def commands() -> dict[str, Any]:
    """Every command by its full name."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        yield name, command
        for part, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {part}".strip())

    return dict(walk(build_all_commands(app), ""))


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one document on stdout."""
        document: dict[str, Any] = json.loads(self.out)
        return document

    def error(self) -> str:
        """The one line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        assert "Traceback" not in self.out
        return lines[0]


class Shell:
    """Runs commands of bilens."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capsys, self.patch = capsys, patch
        patch.setenv("COLUMNS", "200")

    def __call__(self, *arguments: object) -> Result:
        """`bilens ARGUMENTS`."""
        self.capsys.readouterr()
        self.patch.setattr(sys, "argv", ["bilens", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        captured = self.capsys.readouterr()
        return Result(code, captured.out, captured.err)


TRAINING = [  # a run that takes a moment
    "--hidden=8",
    "--epochs=2",
    "--batch-size=32",
    "--learning-rate=0.02",
    "--weight-decay=0.1",
    "--noise=0.1",
]


FILE, NUMERICAL, USAGE, LIMIT = 3, 4, 2, 5  # exit codes
Line = list[Any]
Cases = dict[str, tuple[Callable[[Path], Line], int, list[str]]]  # what to run, code, words


def train(folder: Path, idx: Path) -> Line:
    """`bilens train image` into folder/run."""
    return ["train", "image", "--data-dir", idx, "--out", folder / "run", *TRAINING]


def audit(folder: Path, *more: Any) -> Line:
    """`bilens audit` of folder/model."""
    return ["audit", folder / "model", "--null-samples", tiny.ROTATIONS, *more]


def assert_one_line(result: Result, code: int, words: list[str]) -> None:
    """A command failed as it should: one line on stderr with these words, nothing on stdout."""
    line = result.error()
    for word in words:
        assert word in line, line
    assert result.code == code, line
    assert result.out == ""


def model_folder(folder: Path, model: BilinearClassifier | None = None, **options: Any) -> Path:
    """A saved model of the tiny images: ten classes, as MNIST has."""
    model = tiny.classifier(d_output=3) if model is None else model
    return bl.save(model, folder, **options)


def with_data(folder: Path, data: ImageDataset = DATA) -> Path:
    """A folder with the four IDX files."""
    return tiny.write_idx(folder, data)
