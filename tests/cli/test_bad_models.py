"""Models that are missing, damaged or not quadratic end in one line that helps."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tiny
from commands import FILE, NUMERICAL, Cases, Line, Shell, assert_one_line, audit, model_folder


def no_model(folder: Path) -> Line:
    return audit(folder)


def a_run_that_is_not_done(folder: Path) -> Line:
    (folder / "model" / "checkpoints").mkdir(parents=True)
    return audit(folder)


def rewritten(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], Line]:
    def prepare(folder: Path) -> Line:
        path = model_folder(folder / "model") / "model.safetensors"
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        change(tensors)
        save_file(tensors, path, metadata)
        return audit(folder)

    return prepare


def reconfigured(**fields: Any) -> Callable[[Path], Line]:
    def prepare(folder: Path) -> Line:
        path = model_folder(folder / "model") / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
        return audit(folder)

    return prepare


def text_as_safetensors(folder: Path) -> Line:
    (folder / "weights.safetensors").write_text("version https://git-lfs.example/spec/v1\n")
    return ["audit", folder / "weights.safetensors"]


def pickle(folder: Path) -> Line:
    torch.save({"embed.weight": torch.zeros(2, 2)}, folder / "weights.pt")
    return ["audit", folder / "weights.pt"]


def damaged_pickle(folder: Path) -> Line:
    (folder / "weights.pt").write_bytes(b"\x80\x02no pickle")
    return ["audit", folder / "weights.pt", "--allow-pickle"]


def a_picture(folder: Path) -> Line:
    (folder / "cat.png").write_bytes(b"\x89PNG")
    return ["decompose", folder / "cat.png"]


def gated(folder: Path) -> Line:
    model_folder(folder / "model", tiny.classifier(gate="gelu"))
    return ["certify", folder / "model"]


def deep(folder: Path) -> Line:
    model_folder(folder / "model", tiny.classifier(n_layers=2))
    return ["certify", folder / "model"]


def enlarged(folder: Path) -> Line:
    model_folder(folder / "model", tiny.enlarged(1e150))
    return audit(folder)


def poison(value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors["head.weight"].__setitem__((1, 2), value)


def swap(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.__setitem__(new, tensors.pop(old))


CASES: Cases = {
    "no model": (no_model, FILE, ["/model: no such file or folder; expected a model folder"]),
    "a run that is not done": (a_run_that_is_not_done, FILE, ["holds no model", "--resume"]),
    "NaN in the weights": (
        rewritten(poison(math.nan)),
        NUMERICAL,
        ["model.safetensors", "'head.weight' holds 1 non-finite", "(1, 2)", "train again"],
    ),
    "infinity in the weights": (
        rewritten(poison(math.inf)),
        NUMERICAL,
        ["model.safetensors", "'head.weight' holds 1 non-finite", "(1, 2)", "train again"],
    ),
    "a missing tensor": (
        rewritten(lambda tensors: tensors.pop("embed.weight")),
        FILE,
        ["model.safetensors", "missing 'embed.weight'", "saved together"],
    ),
    "an extra tensor": (
        rewritten(lambda tensors: tensors.update(more=torch.zeros(1))),
        FILE,
        ["model.safetensors", "unexpected 'more'", "saved together"],
    ),
    "a renamed tensor": (
        rewritten(swap("head.weight", "head.weights")),
        FILE,
        ["missing 'head.weight'", "unexpected 'head.weights'"],
    ),
    "a misshaped tensor": (
        rewritten(lambda tensors: tensors.update({"head.weight": torch.zeros(4, 8).double()})),
        FILE,
        ["'head.weight' has shape (4, 8)", "(3, 8)", "saved together"],
    ),
    "a config with an unknown field": (
        reconfigured(dropout=0.5),
        FILE,
        ["config.json", "unexpected 'dropout'; expected", "restore the file"],
    ),
    "a config of the future": (
        reconfigured(format_version=2),
        FILE,
        ["config.json", "has format version 2, this bilens reads up to 1", "pip install -U"],
    ),
    "a config of something else": (
        reconfigured(format="keras"),
        FILE,
        ["config.json", "'keras'", "expected 'bilens-model'"],
    ),
    "another config": (
        reconfigured(output_names=["one"]),
        FILE,
        ["config.json", "1 names", "3 outputs"],
    ),
    "a text file as safetensors": (
        text_as_safetensors,
        FILE,
        ["weights.safetensors", "not a readable safetensors file", "check that the download"],
    ),
    "a pickle": (pickle, FILE, ["weights.pt", "can run code", "Convert", "--allow-pickle"]),
    "a damaged pickle": (damaged_pickle, FILE, ["weights.pt", "save the state dict as"]),
    "a picture": (a_picture, FILE, ["cat.png", "not a supported model file; expected a model"]),
    "a gated model": (gated, FILE, ["gelu gate", "bl.quadratic_fit(model)"]),
    "weights beyond float32": (enlarged, NUMERICAL, ["range of float32", "scale the weights"]),
    "a deep model": (deep, FILE, ["2 layers", "bl.quadratic_fit(model)"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_model_is_one_line_that_helps(name: str, bilens: Shell, tmp_path: Path) -> None:
    prepare, code, words = CASES[name]
    assert_one_line(bilens("--quiet", *prepare(tmp_path)), code, words)
