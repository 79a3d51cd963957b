"""Guards against class names of a file or module of others that count by another class, or nowhere.

They could be given by `dataclasses.replace` alone, which checked neither their number nor that the
model named its classes otherwise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
import keras_files
import onnx_files
from bilens.base.errors import UsageError
from commands import Shell
from contract.table import cell

NAMES = ["ape", "bee", "cat"]
FEW = {"null_samples": 3}


def network(out: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, out)).eval()


def answered(model: Any) -> tuple[Tensor, list[str]]:
    """Rows, and the names of the answers of a model to them."""
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(3))
    y = x.double()
    for view in model.network:
        y = view.weights(torch.float64)(y)
    return x, [NAMES[place] for place in y.argmax(dim=1).tolist()]


def file_of(kind: str, folder: Path) -> Path:
    if kind == "Keras":
        layers = keras_files.library().layers
        model = keras_files.sequential(layers.Dense(12, "relu"), layers.Dense(3), width=6)
        model.save(folder / "model.keras")
        return folder / "model.keras"
    return onnx_files.export(network(), torch.zeros(1, 6), folder / "model.onnx")


def opened(kind: str, folder: Path, names: Sequence[str] | None) -> Any:
    if kind == "module":
        return bl.from_module(network(), output_names=names)
    return bl.load(file_of(kind, folder), output_names=names)


KINDS = ["module", "ONNX", "Keras"]


@cell("load file", "other names", "other function")
@cell("load module", "other names", "other function")
@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_count_by_the_names_that_were_given(kind: str, tmp_path: Path) -> None:
    model = opened(kind, tmp_path, NAMES)
    x, named = answered(model)
    right = bl.audit(model, (x, np.array(named)), **FEW).record.performance
    assert right.classification.accuracy.value == 1
    (tmp_path / "other").mkdir()  # a file that changed since it was opened is refused
    swapped = opened(kind, tmp_path / "other", ["bee", "ape", "cat"])
    wrong = bl.audit(swapped, (x, np.array(named)), **FEW).record
    share = named.count("cat") / 60
    assert wrong.performance.classification.accuracy.value == pytest.approx(share)
    assert share < 1
    compared = bl.audit(swapped, (x, np.array(named)), baseline=model, **FEW).record.difference
    assert compared.answers.changed == 60 - named.count("cat")
    found = bl.audit(opened(kind, tmp_path, None), (x, torch.tensor([0] * 30 + [1] * 30)), **FEW)
    assert found.record.reproduce.identity != wrong.reproduce.identity


WRONG: dict[str, tuple[Any, str]] = {
    "one too few": (NAMES[:2], "2 names, and the model has 3 outputs"),
    "one too many": ([*NAMES, "dog"], "4 names, and the model has 3 outputs"),
    "twice": (["ape", "bee", "ape"], "'ape' twice"),
    "twice but for spaces": (["ape", "bee", "ape "], "'ape' twice"),
    "a text": ("ape", "expected a list of texts"),
    "numbers": ([0, 1, 2], "expected a list of texts"),
    "nothing": (["ape", "", "cat"], "expected a list of texts"),
}


@cell("load file", "without effect")
@cell("load module", "without effect")
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", KINDS[:2])
def test_names_that_cannot_be_those_of_the_outputs_are_refused(
    kind: str, wrong: str, tmp_path: Path
) -> None:
    names, why = WRONG[wrong]
    with pytest.raises(UsageError, match=why):
        opened(kind, tmp_path, names)


@cell("load file", "without effect")
def test_names_of_classes_that_have_some_are_refused(tmp_path: Path) -> None:
    bl.save(bl.nn.BilinearClassifier(6, 5, 3), tmp_path / "m", output_names=NAMES)
    with pytest.raises(UsageError, match="names its outputs itself"):
        bl.load(tmp_path / "m", output_names=["bee", "ape", "cat"])


@cell("load module", "without effect")
def test_names_of_a_part_of_a_model_are_refused() -> None:
    with pytest.raises(UsageError, match="not its layers one behind the other"):
        bl.from_module(nn.Sequential(network(6), nn.LayerNorm(6)), output_names=[*"abcdef"])


@cell("audit", "other names", "other function")
@pytest.mark.parametrize("as_file", [False, True])
def test_the_command_line_takes_the_names(
    tmp_path: Path, as_file: bool, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    bilens = Shell(capsys, monkeypatch)
    model = file_of("ONNX", tmp_path)
    x, named = answered(bl.load(model))
    np.savez(tmp_path / "rows.npz", inputs=x.numpy(), labels=np.array(named))
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    said = str(tmp_path / "names.txt") if as_file else ",".join(NAMES)
    command = ["audit", model, "--data", tmp_path / "rows.npz", "--labels", "labels"]
    limit = ["--null-samples", 3, "--fail-on", "accuracy<1"]
    run = bilens(*command, *limit, "--classes", said)
    assert run.code == 0, run.err
    run = bilens(*command, *limit, "--classes", "bee,ape,cat")
    assert run.code == 1, run.err


@cell("explain", "other names")
@cell("certify", "other names")
@pytest.mark.parametrize("command", ["explain", "certify"])
def test_the_other_commands_on_labels_take_them_too(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    bilens = Shell(capsys, monkeypatch)
    torch.manual_seed(0)
    model = bl.nn.BilinearClassifier(6, 5, 3)
    bl.save(model, tmp_path / "m")
    x = torch.randn(40, 6)
    best = model(x).argmax(dim=1)
    np.savez(tmp_path / "rows.npz", inputs=x.numpy(), labels=np.array(NAMES)[best.numpy()])
    line = [command, tmp_path / "m", "--data", tmp_path / "rows.npz", "--labels", "labels"]
    line += ["--index", 0] if command == "explain" else []
    assert bilens(*line).code != 0  # nothing says which name is which output
    run = bilens(*line, "--classes", ",".join(NAMES))
    assert run.code == 0, run.err
    assert {"explain": "(right)", "certify": "40 of 40 test inputs"}[command] in run.out


@cell("audit", "other names")
def test_a_file_of_names_is_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    bilens = Shell(capsys, monkeypatch)
    bl.save(bl.nn.BilinearClassifier(6, 5, 3), tmp_path / "m")
    (tmp_path / "old.txt").write_bytes("猫\n犬\n鳥\n".encode("shift_jis"))
    assert "is not UTF-8" in bilens("audit", tmp_path / "m", "--classes", tmp_path / "old.txt").err
    (tmp_path / "new.txt").write_text("猫\n犬\n鳥\n\n", "utf-8")
    line = ["audit", tmp_path / "m", "--null-samples", 39, "--json"]
    found = bilens(*line, "--classes", tmp_path / "new.txt")
    assert found.json()["model"]["output_names"] == ["猫", "犬", "鳥"]


@cell("certify", "own object")
def test_a_logistic_regression_gives_classes(tmp_path: Path) -> None:
    model = bl.nn.BilinearClassifier(6, 5, 2)
    bl.save(model, tmp_path / "m", provenance={"task": "logistic regression"})
    assert bl.certify_model(bl.load(tmp_path / "m")).record.model.d_output == 2
