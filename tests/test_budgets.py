"""Guards the weight of the house: lines of each folder, and of each file, in one table."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 400  # lines of a file of source
FILES = 431  # of the library; the last three are the hub's: cards, push, its command
# Folder, what is counted → most lines, and what they are for. Who goes over it cuts elsewhere, or
# raises the number here with the reason.
BUDGETS: dict[tuple[str, str], tuple[int, str]] = {
    ("src/bilens/base", "py"): (
        1_375,
        "errors, checks, options as keywords, files, tables of results, cards of models",
    ),
    ("src/bilens/records", "py"): (3_630, "every field of every document with its description"),
    ("src/bilens/algebra", "py"): (10_265, "maps, spectra, decompositions, fits, interactions"),
    ("src/bilens/polynomial", "py"): (3_040, "networks past one layer, attention, texts"),
    ("src/bilens/certify", "py"): (2_675, "proofs"),
    ("src/bilens/nn", "py"): (5_850, "modules, polynomial ones too, and MLPs found in any module"),
    ("src/bilens/io", "py"): (
        13_935,
        "sixteen formats of files, read safely; attention of 16 families; graphs of TorchScript, "
        "bodies and functions of ONNX, state dicts in a class that is named; what stands beside "
        "tensors in GGUF, checkpoints, TensorFlow Lite and HDF5, which is compared",
    ),
    ("src/bilens/data", "py"): (
        4_245,
        "images, tables, text, files that models run on; the interface of a model",
    ),
    ("src/bilens/train", "py"): (
        5_455,
        "one loop, four tasks, a penalty, conversion; layers' inputs",
    ),
    ("src/bilens/interp", "py"): (1_645, "circuits and interventions"),
    ("src/bilens/findings", "py"): (
        8_820,
        "what weights and data say; which tensor is which; the rules",
    ),
    ("src/bilens/report", "py"): (9_450, "pages, charts, tables, evidence in two languages"),
    ("src/bilens/api", "py"): (
        10_105,
        "whole jobs, comparison, history, provenance; networks; push to the hub",
    ),
    ("src/bilens/sweep", "py"): (1_655, "jobs over thousands of layers"),
    ("src/bilens/cli", "py"): (2_910, "a file a command, the watch too"),
    ("src/bilens/sklearn", "py"): (545, "estimators for tables"),
    ("explorer/src", "py"): (5_615, "the explorer, with its register; the aim is 4,000"),
    ("explorer/src", "js"): (3_675, "its pages; the aim is 3,500"),
    ("studies/src", "py"): (7_380, "22 studies; the aim is 5,000"),
    ("tests", "py"): (93_310, "1.04 times what is tested; the aim is .8"),
    ("explorer/tests", "py"): (7_320, "of the explorer"),
    ("studies/tests", "py"): (3_240, "of the studies"),
}


def lines_of(folder: str, ending: str) -> dict[Path, int]:
    files = sorted((ROOT / folder).rglob(f"*.{ending}"))
    return {file: len(file.read_text("utf-8").splitlines()) for file in files}


@pytest.mark.parametrize(("folder", "ending"), BUDGETS)
def test_a_folder_keeps_to_its_budget(folder: str, ending: str) -> None:
    most, _ = BUDGETS[folder, ending]
    count = sum(lines_of(folder, ending).values())
    assert count <= most, f"{folder}: {count:,} lines; cut as much elsewhere, or say why here"
    assert count > 0.9 * most, f"{folder}: {count:,} lines; lower its budget"


def test_every_folder_of_the_library_has_a_budget() -> None:
    folders = {path.parent for path in (ROOT / "src/bilens").glob("*/__init__.py")}
    known = {ROOT / folder for folder, _ in BUDGETS}
    assert not folders - known


def test_no_file_is_too_long_and_there_are_not_too_many() -> None:
    found = {folder: lines_of(folder, "py") for folder in ("src", "explorer/src", "studies/src")}
    long = [path.name for files in found.values() for path, n in files.items() if n > LONGEST]
    assert not long
    assert len(found["src"]) <= FILES
