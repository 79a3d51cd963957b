"""Image data that are missing, damaged or of something else end in one line that helps."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from bilens.data.idx import FILES
from commands import (
    FILE,
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


CASES: Cases = {
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
        ["shape (60, 36); the model reads 9 inputs", "was expected"],
    ),
    "data that nothing names": (
        data_that_nothing_names,
        USAGE,
        ["/model does not say what it was trained on", "--dataset mnist or"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_data_is_one_line_that_helps(name: str, bilens: Shell, tmp_path: Path) -> None:
    prepare, code, words = CASES[name]
    assert_one_line(bilens("--quiet", *prepare(tmp_path)), code, words)


def test_an_image_that_is_not_there(bilens: Shell, tmp_path: Path) -> None:
    idx = with_data(tmp_path / "idx")
    line = ["explain", model_folder(tmp_path / "model"), "--index", 60, "--data-dir", idx]
    words = ["no test image 60: there are 60, counted from 0"]
    assert_one_line(bilens(*line, "--dataset", "mnist"), USAGE, words)
