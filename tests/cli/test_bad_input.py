"""Data, models, options and outputs that are no good end in one line that helps."""

import errno
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tiny
from bilens.data.idx import FILES
from checkpoints import official_state
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
from raising import raising


def missing_data(folder: Path) -> Line:
    return train(folder, folder / "nowhere")


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Line]:
    def prepare(folder: Path) -> Line:
        path = with_data(folder / "idx") / name
        path.write_bytes(change(path.read_bytes()))
        return train(folder, folder / "idx")

    return prepare


def labels_for_images(folder: Path) -> Line:
    idx = with_data(folder / "idx")
    (idx / FILES[0]).write_bytes((idx / FILES[1]).read_bytes())
    return train(folder, idx)


def data_for_another_model(folder: Path) -> Line:
    model_folder(folder / "model", tiny.classifier(d_input=9))
    return audit(folder, "--dataset", "mnist", "--data-dir", with_data(folder / "idx"))


def data_that_nothing_names(folder: Path) -> Line:
    model_folder(folder / "model")
    return audit(folder, "--data-dir", with_data(folder / "idx"))


DATA_CASES: Cases = {
    "missing data folder": (missing_data, FILE, ["/nowhere does not exist", "expected", "check"]),
    "truncated IDX": (
        changed(FILES[0], lambda content: content[:-1]),
        FILE,
        [FILES[0], "only 7,199 bytes", "exactly 7,200 were expected", "download it again"],
    ),
    "labels for images": (
        labels_for_images,
        FILE,
        [FILES[0], "is a label file", "an image file (3 axes) was expected", "not swapped"],
    ),
    "data for another model": (
        data_for_another_model,
        USAGE,
        ["shape (60, 6, 6); the model reads 9 inputs", "expected (rows, 9)"],
    ),
    "data that nothing names": (
        data_that_nothing_names,
        USAGE,
        ["/model does not say which data set it was trained on", "--dataset mnist or"],
    ),
}


def test_an_image_that_is_not_there(bilens: Shell, tmp_path: Path) -> None:
    idx = with_data(tmp_path / "idx")
    line = ["explain", model_folder(tmp_path / "model"), "--index", 60, "--data-dir", idx]
    words = ["no row 60: there are 60, numbered from 0 to 59"]
    assert_one_line(bilens(*line, "--dataset", "mnist"), USAGE, words)


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


def pickle(folder: Path) -> Line:
    torch.save(official_state(), folder / "weights.pt")
    return ["certify", folder / "weights.pt"]


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


MODEL_CASES: Cases = {
    "no model": (no_model, FILE, ["/model: no such file or folder; expected a model folder"]),
    "a run that is not done": (a_run_that_is_not_done, FILE, ["holds no model", "--resume"]),
    "NaN in the weights": (
        rewritten(poison(math.nan)),
        NUMERICAL,
        ["model.safetensors", "'head.weight' holds 1 non-finite", "(1, 2)", "train again"],
    ),
    "a renamed tensor": (
        rewritten(swap("head.weight", "head.weights")),
        FILE,
        ["missing 'head.weight'", "unexpected 'head.weights'"],
    ),
    "a config of the future": (
        reconfigured(format_version=2),
        FILE,
        ["config.json", "has format version 2, this bilens reads up to 1", "pip install -U"],
    ),
    "a pickle": (pickle, FILE, ["weights.pt", "can hold code", "--allow-pickle --residual"]),
    "a gated model": (gated, FILE, ["gelu gate", "bl.quadratic_fit(model)"]),
    "weights beyond float64": (enlarged, NUMERICAL, ["range of float64", "scale the weights"]),
    "a deep model": (deep, FILE, ["2 layers", "bl.quadratic_fit(model)"]),
}


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
OPTION_CASES: Cases = {
    "a run is there": (a_run_is_there, USAGE, ["/run already holds files", "--overwrite"]),
    "a report is there": (a_report_is_there, USAGE, ["report.html exists already", "--overwrite"]),
    "nothing to resume": (
        options("--resume"),
        FILE,
        ["/run: holds no run to resume", "without --r"],
    ),
    "both flags": (options("--resume", "--overwrite"), USAGE, ["give one of them"]),
    "a negative amount": (options("--noise=-1"), USAGE, ["noise must be a finite number"]),
    "an unknown augmentation": (options("--augment=spin:3"), USAGE, ["'spin:3'", "use one of"]),
    "a rate that diverges": (options("--learning-rate=1e30"), NUMERICAL, ["no longer finite"]),
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
    "memory for nothing": (
        of_model("decompose", "--memory-limit", "1k"),
        LIMIT,
        ["allow more with memory_limit"],
    ),
    "a report over a folder": (
        a_folder_for_a_file("audit", "--overwrite", "--html"),
        USAGE,
        A_FOLDER,
    ),
    "a model beyond memory": (options("--hidden=1000000000"), LIMIT, ["choose a smaller model"]),
    "labels of no data": (of_model("audit", "--labels", "y"), USAGE, ["only with data at a path"]),
    "an image without data": (of_model("explain", "--index", 0), USAGE, ["pass --data"]),
    "a residual that is known": (of_model("decompose", "--residual"), USAGE, ["leave the option"]),
}


CASES = DATA_CASES | MODEL_CASES | OPTION_CASES


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_good_is_one_line_that_helps(name: str, bilens: Shell, tmp_path: Path) -> None:
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

    monkeypatch.setattr(tempfile, "mkstemp", raising(OSError(number, os.strerror(number))))
    expected = [str(tmp_path), os.strerror(number), advice]
    assert_one_line(bilens("--quiet", *words), code, expected)
    left = {"model", "idx"}
    files = [item.relative_to(tmp_path) for item in tmp_path.rglob("*") if item.is_file()]
    assert {path.parts[0] for path in files} <= left  # no half of a file
