"""Guards against a word or a number that counts for another run than the one it is of.

Damage that it notices: a withdrawal passed over; an audit on layers fitted to one text that has the
identity of one on another text; a decomposition that does not say what it is of taken for this one.
"""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import bilens as bl
import tiny
from commands import USAGE, Shell, model_folder
from contract.table import cell

WORDS = ("accept", "withdraw", "reject", "note")


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


@pytest.fixture
def failing(tmp_path: Path) -> Any:
    """An audit that fails by a condition."""
    model = bl.load(model_folder(tmp_path / "m", tiny.classifier()))
    return bl.audit(model, null_samples=tiny.ROTATIONS, fail_on=["beyond_null<100"]).record


@cell("audit", "saved")
def test_the_last_judgement_of_a_rule_counts(failing: Any, tmp_path: Path) -> None:
    """What was accepted, and taken back or rejected later, fails again; a note is no judgement."""
    history = bl.History(tmp_path)
    kept, judgement = history.add(failing), ""
    for word in (word for pair in product(WORDS, repeat=2) for word in pair):
        history.say(word, kept.model, "rule:beyond_null", "so", author="Ada")
        judgement = judgement if word == "note" else word
        fails = history.still_fails(failing, history.accepted(kept.model))
        assert fails is (judgement != "accept")


# ---- what an audit is of


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)
    return nn.Sequential(*parts).eval()


def rows(seed: int, size: float = 1.0) -> Tensor:
    return size * torch.randn(300, 4, generator=torch.Generator().manual_seed(seed))


def seen(x: Tensor, **how: Any) -> dict[str, Any]:
    return {"inputs": bl.layer_inputs(network(), x, **how)}


RUNS: dict[str, Callable[[], dict[str, Any]]] = {
    "no rows": dict,
    "rows": lambda: seen(rows(1)),
    "other rows": lambda: seen(rows(2)),
    "larger rows": lambda: seen(rows(1, 3.0)),
    "fewer rows": lambda: seen(rows(1)[:-1]),
    "others held out": lambda: seen(rows(1), held_out=0.5),
    "another seed": lambda: seen(rows(1), seed=1),
    "threshold": lambda: {**seen(rows(1)), "threshold": 0.5},
    "null": lambda: {**seen(rows(1)), "null_samples": 4},
}


@cell("audit", "other function", "same function")
def test_an_audit_is_of_all_that_decides_its_numbers() -> None:
    """Two that differ in what layers were fitted to, or how, are two audits; repeated it is one."""

    def identity(run: str) -> str:
        options = {"null_samples": 3, "command": "here", **RUNS[run]()}
        return str(bl.audit(bl.from_module(network()), **options).record.reproduce.identity)

    found = {run: identity(run) for run in RUNS}
    assert len({*found.values()}) == len(RUNS)
    assert identity("rows") == found["rows"]


# ---- what a folder of decompositions is of


@cell("decompose", "resumed", "other function")
def test_a_decomposition_that_does_not_say_what_it_is_of_is_not_this_one(
    bilens: Shell, tmp_path: Path
) -> None:
    """As one of an earlier release does not, or of one that was read without data."""
    folder = tmp_path / "out"
    line = ["decompose", model_folder(tmp_path / "m", tiny.classifier()), "--out", folder]
    line += ["--top", "2", "--null-samples", "0"]
    assert bilens(*line).code == 0
    (record_file,), (pairs_file,) = folder.glob("*.json"), folder.glob("*.safetensors")
    record = json.loads(record_file.read_text())
    with safe_open(pairs_file, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert bilens(*line).code == 0
    for key in ("weights_sha256", "request", "bilens", "identity"):
        less = {name: value for name, value in record.items() if name != key}
        record_file.write_text(json.dumps(less))
        save_file(tensors, pairs_file, {"format": "pt", "bilens": json.dumps(less)})
        assert bilens(*line).code == USAGE, key
