"""`bilens attack` and `bilens certify`: results, pages, and one line for each mistake."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import tiny
from bilens.api import classifier as action
from bilens.data.idx import FILES
from bilens.report.reports import AttackReport
from commands import DATA, FILE, USAGE, Cases, Line, Shell, assert_one_line, model_folder, with_data

QUICK = ["--epsilon", 0, "--epsilon", 1.5]


def test_json_is_one_document_on_stdout(bilens: Shell, model: Path, idx: Path) -> None:
    line = ["--quiet", "attack", model, "--dataset", "mnist", "--data-dir", idx, *QUICK, "--json"]
    result = bilens(*line)
    assert (result.code, result.err) == (0, "")
    document = result.json()
    assert (document["schema_version"], document["kind"], document["holds"]) == (1, "attack", True)
    assert document["epsilons"] == [0.0, 1.5]
    assert len(document["objectives"]) == tiny.CLASSES
    assert document["reproduce"]["command"].startswith("bilens --quiet attack ")
    assert bilens(*line).json()["curves"] == document["curves"]


def test_tables_fit_80_columns_and_say_what_is_proven(
    bilens: Shell, model: Path, idx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = bilens("attack", model, "--dataset", "mnist", "--data-dir", idx, "--target", 1)
    assert result.code == 0
    tables, _, words = result.out.partition("Checked: ")
    assert max(map(len, tables.splitlines())) <= 80
    assert "…" not in tables
    rows = [row for row in tables.splitlines() if row.startswith("gradient descent ")]
    assert len(rows) == 4
    assert "Proven: over the inputs that the class means are of" in words
    assert "Not proven: the error rate" in words


def test_options_reach_the_attack(bilens: Shell, model: Path, idx: Path, tmp_path: Path) -> None:
    line = ["attack", model, "--dataset", "mnist", "--data-dir", idx, *QUICK]
    page = tmp_path / "attack.html"
    document = bilens(*line, "--json", "--pairs", "--target", 0, "--seed", 7).json()
    assert [item["source"] for item in document["objectives"]] == [1, 2]
    assert document["seed"] == 7
    result = bilens(*line, "--source", 2, "--html", page, "--lang", "ja")
    assert result.code == 0
    assert result.out.splitlines()[-1] == f"Report: {page}"
    assert 'lang="ja"' in page.read_text()
    assert bilens(*line, "--html", page).code == 2
    assert bilens(*line, "--html", page, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epsilon", -1], "epsilon must be one or several finite numbers of at least 0"),
        (["--target", "cat"], "'cat' names no output"),
        (["--source", 1, "--target", 1], "source and target are both 1"),
    ],
)
def test_each_mistake_is_one_clear_line(
    options: list[Any], words: str, bilens: Shell, model: Path, idx: Path
) -> None:
    result = bilens("--quiet", "attack", model, "--dataset", "mnist", "--data-dir", idx, *options)
    assert result.code == 2
    assert words in result.error()
    assert result.out == ""


def test_without_images_or_with_a_deep_model_the_reason_is_said(
    bilens: Shell, model: Path, idx: Path, tmp_path: Path
) -> None:
    result = bilens("--quiet", "attack", model)
    assert result.code == 2
    assert "an attack needs training and test images: pass --data" in result.error()
    deep = model_folder(tmp_path / "deep", tiny.classifier(n_layers=2))
    gated = model_folder(tmp_path / "gated", tiny.classifier(gate="relu"))
    for folder, words in ((deep, "2 layers"), (gated, "relu")):
        result = bilens("--quiet", "attack", folder, "--dataset", "mnist", "--data-dir", idx)
        assert result.code == 3
        assert words in result.error()


def test_a_proof_that_does_not_hold_ends_with_1(
    bilens: Shell, model: Path, idx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = action.attack_model

    def wrong(*arguments: Any, **options: Any) -> AttackReport:
        return AttackReport({**right(*arguments, **options).to_dict(), "holds": False})

    monkeypatch.setattr(action, "attack_model", wrong)
    result = bilens("attack", model, "--dataset", "mnist", "--data-dir", idx, *QUICK)
    assert result.code == 1
    assert "FAILED: a perturbation lowers the mean margin" in result.out


def certify(*more: Any, **options: Any) -> Callable[[Path], Line]:
    def prepare(folder: Path) -> Line:
        model = tiny.classifier(**options) if options else None
        return ["certify", model_folder(folder / "model", model), *more]

    return prepare


def on_data(*more: Any, data: Any = DATA, **options: Any) -> Callable[[Path], Line]:
    def prepare(folder: Path) -> Line:
        line = certify(**options)(folder)
        idx = ["--dataset", "mnist", "--data-dir", with_data(folder / "idx", data)]
        return [*line, *idx, *more]

    return prepare


def no_images(folder: Path) -> Line:
    line = on_data()(folder)
    (folder / "idx" / FILES[2]).write_bytes(struct.pack(">4I", 0x803, 0, 6, 6))
    (folder / "idx" / FILES[3]).write_bytes(struct.pack(">2I", 0x801, 0))
    return line


def no_data_there(folder: Path) -> Line:
    (folder / "empty").mkdir()
    return [*certify()(folder), "--dataset", "mnist", "--data-dir", folder / "empty"]


def a_page_is_there(folder: Path) -> Line:
    (folder / "page.html").write_text("mine")
    return certify("--html", folder / "page.html")(folder)


CASES: Cases = {
    "more labels than classes": (on_data(d_output=2), FILE, ["has the label '2'", "(0, 1)"]),
    "images of another width": (on_data(d_input=9), USAGE, ["the model reads 9 inputs"]),
    "no images": (no_images, FILE, ["test images"]),
    "no data": (no_data_there, FILE, ["empty"]),
    "a page is there": (a_page_is_there, USAGE, ["page.html exists already", "--overwrite"]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_certified_ends_in_one_line(
    name: str, bilens: Shell, tmp_path: Path
) -> None:
    prepare, code, words = CASES[name]
    assert_one_line(bilens("--quiet", *prepare(tmp_path)), code, words)


def test_the_json_is_the_document_of_the_library(bilens: Shell, tmp_path: Path) -> None:
    line = on_data("--samples", 12, "--truncate", 3, "--radius", 2)(tmp_path)
    document = bilens(*line, "--json").json()
    model = bl.load(tmp_path / "model")
    expected = bl.certify_model(model, DATA, samples=12, truncate=3, radius=2).to_dict()
    for key in ("l2", "linf", "truncation", "input_use", "stability", "box", "model"):
        assert document[key] == expected[key]
    assert (document["kind"], document["l2"]["num_inputs"]) == ("certificate", 12)
    assert document["truncation"]["chosen_by"] == "asked"


def test_without_data_the_weights_alone_are_certified(bilens: Shell, model: Path) -> None:
    result = bilens("certify", model)
    assert result.code == 0
    assert "only the weights are read" in result.err
    assert "• Scores with fewer eigenvectors: " in result.out
    assert "Distance to another answer" not in result.out
    assert bilens("certify", model, "--json").json()["l2"] is None


def test_a_page_is_written_in_the_language_asked_for(
    bilens: Shell, model: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    result = bilens("certify", model, "--html", page, "--lang", "ja")
    assert result.code == 0
    assert result.out.splitlines()[-1] == f"Report: {page}"
    assert "証明されたこと" in page.read_text("utf-8")


def test_a_misclassified_image_has_radius_0_and_is_counted(bilens: Shell, tmp_path: Path) -> None:
    document = bilens(*on_data("--samples", 60)(tmp_path), "--json").json()
    inputs = document["l2"]["inputs"]
    wrong = [item for item in inputs if item["status"] == "misclassified"]
    assert wrong
    assert all(item["radius"] == 0 and item["margin"] < 0 for item in wrong)
    text = bilens(*on_data("--samples", 60)(tmp_path / "again")).out
    assert f"{60 - len(wrong)} of 60 test inputs are classified correctly" in text
