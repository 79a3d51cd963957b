"""Guards against what was kept, accepted or shown of one model and read as if it were another's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
from commands import Shell
from contract.table import cell

INPUTS, HIDDEN, CLASSES, ROWS = 5, 7, 3, 120
Line = list[Any]


def write_mlp(path: Path, seed: int = 0) -> Path:
    """An MLP whose file says neither its activation nor which of two matrices is the gate."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"a": (HIDDEN, INPUTS), "b": (HIDDEN, INPUTS), "c": (CLASSES, HIDDEN)}
    save_file({name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}, path)
    return path


def write_rows(path: Path) -> Path:
    """Rows with labels of which the model knows nothing."""
    draw = np.random.default_rng(0)
    x, labels = draw.normal(size=(ROWS, INPUTS)), draw.integers(0, CLASSES, ROWS)
    lines = [",".join([*(f"x{index}" for index in range(INPUTS)), "label"])]
    for row, label in zip(x.tolist(), labels.tolist(), strict=True):
        lines.append(",".join([*map(repr, row), str(label)]))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


@pytest.fixture
def line(tmp_path: Path) -> dict[str, Line]:
    """The command of an audit by its parts; each may be replaced by another one."""
    write_mlp(tmp_path / "m.safetensors")
    write_mlp(tmp_path / "base.safetensors", seed=1)
    write_rows(tmp_path / "d.csv")
    return {
        "model": ["audit", tmp_path / "m.safetensors"],
        "map": ["--map", "gate=a", "--map", "up=b", "--map", "down=c"],
        "activation": ["--activation", "relu"],
        "data": ["--data", tmp_path / "d.csv"],
        "baseline": ["--baseline", tmp_path / "base.safetensors"],
        "options": ["--null-samples", "3"],
        "asked": ["--fail-on", "accuracy<0.99", "--history", tmp_path],
    }


def others(folder: Path) -> dict[str, dict[str, Line]]:
    """What a run may be of instead: by the part of the identity that is another then."""
    write_mlp(folder / "base2.safetensors", seed=2)
    lines = (folder / "d.csv").read_text().splitlines()
    (folder / "fewer.csv").write_text("\n".join(lines[:-9]))
    moved = [row.rpartition(",")[0] + "," + str((int(row[-1]) + 1) % 3) for row in lines[1:]]
    (folder / "labels.csv").write_text("\n".join([lines[0], *moved]))
    return {
        "activation": {"activation": ["--activation", "tanh"]},
        "map": {"map": ["--map", "gate=b", "--map", "up=a", "--map", "down=c"]},
        "rows": {"data": ["--data", folder / "fewer.csv"]},
        "labels": {"data": ["--data", folder / "labels.csv"]},
        "baseline": {"baseline": ["--baseline", folder / "base2.safetensors"]},
        "no baseline": {"baseline": []},
        "options": {"options": ["--null-samples", "4"]},
        "seed": {"options": ["--null-samples", "3", "--seed", "1"]},
    }


def run(bilens: Shell, line: dict[str, Line]) -> Any:
    return bilens(*[word for part in line.values() for word in part])


def accept_everything(folder: Path) -> None:
    history = bl.History(folder)
    last = history.audits()[0]
    for rule in last.failed:
        history.say("accept", last.model, f"rule:{rule}", "known", "Ada")


@cell("audit", "other function", "saved")
def test_an_acceptance_is_of_one_identity(
    bilens: Shell, tmp_path: Path, line: dict[str, Line]
) -> None:
    assert run(bilens, line).code == 1
    accept_everything(tmp_path)
    assert run(bilens, line).code == 0, "the same audit again"
    for part, change in others(tmp_path).items():
        ended = run(bilens, line | change)
        assert ended.code == 1, part
        assert "that does not count here" in ended.err, part
    assert run(bilens, line).code == 0, "and the same once more"
    write_mlp(tmp_path / "m.safetensors", seed=5)
    assert run(bilens, line).code == 1, "weights"
