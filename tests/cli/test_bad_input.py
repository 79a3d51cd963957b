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


def empty_data(folder: Path) -> Line:
    (folder / "idx").mkdir()
    return train(folder, folder / "idx")


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


def labels_of_other_images(folder: Path) -> Line:
    idx = with_data(folder / "idx")
    (idx / FILES[1]).write_bytes((idx / FILES[3]).read_bytes())  # 60 labels for 200 images
    return train(folder, idx)


def data_for_another_model(folder: Path) -> Line:
    model_folder(folder / "model", tiny.classifier(d_input=9))
    return audit(folder, "--dataset", "mnist", "--data-dir", with_data(folder / "idx"))


def data_that_nothing_names(folder: Path) -> Line:
    model_folder(folder / "model")
    return audit(folder, "--data-dir", with_data(folder / "idx"))


DATA_CASES: Cases = {
    "missing data folder": (missing_data, FILE, ["/nowhere does not exist", "expected", "check"]),
    "empty data folder": (empty_data, FILE, ["/idx lacks train-images", "expected", "add the mis"]),
    "truncated IDX": (
        changed(FILES[0], lambda content: content[:-1]),
        FILE,
        [FILES[0], "only 7,199 bytes", "exactly 7,200 were expected", "download it again"],
    ),
    "IDX with more than it declares": (
        changed(FILES[2], lambda content: content + b"x"),
        FILE,
        [FILES[2], "exactly 2,160 were expected", "download it again"],
    ),
    "labels for images": (
        labels_for_images,
        FILE,
        [FILES[0], "is a label file", "an image file (3 axes) was expected", "not swapped"],
    ),
    "wrong magic number": (
        changed(FILES[1], lambda content: b"\x00\x00\x0d" + content[3:]),
        FILE,
        [FILES[1], "00 00 0d 01", "expected", "check that this is the right file"],
    ),
    "an empty IDX": (changed(FILES[3], lambda _: b""), FILE, [FILES[3], "is empty", "download"]),
    "labels of other images": (
        labels_of_other_images,
        FILE,
        [f"/idx/{FILES[0]} holds 200", f"/idx/{FILES[1]} 60 labels", "check that the two files"],
    ),
    "a label that is no class": (
        changed(FILES[1], lambda content: content[:-1] + b"\x0a"),
        FILE,
        ["/idx", "run from 0 to 10; values from 0 to 9 were expected", "right label file"],
    ),
    "data for another model": (
        data_for_another_model,
        USAGE,
        ["shape (60, 6, 6); the model reads 9 inputs", "expected (rows, 9)"],
    ),
    "data that nothing names": (
        data_that_nothing_names,
        USAGE,
        ["/model does not say what it was trained on", "--dataset mnist or"],
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


def text_as_safetensors(folder: Path) -> Line:
    (folder / "weights.safetensors").write_text("version https://git-lfs.example/spec/v1\n")
    return ["audit", folder / "weights.safetensors"]


def pickle(folder: Path) -> Line:
    torch.save(official_state(), folder / "weights.pt")
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


MODEL_CASES: Cases = {
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
    "a pickle": (pickle, FILE, ["weights.pt", "can hold code", "--allow-pickle --residual"]),
    "a damaged pickle": (damaged_pickle, FILE, ["weights.pt", "save the state dict as"]),
    "a picture": (a_picture, FILE, ["cat.png", "not a supported model file; expected a model"]),
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
