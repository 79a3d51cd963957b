"""`bilens attack`: the result on stdout, one line for each mistake, the page where asked."""

from pathlib import Path
from typing import Any

import pytest

import tiny
from bilens.api import classifier as action
from bilens.report.reports import AttackReport
from commands import Shell, model_folder

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
    assert "Proven: over the training images" in words
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
        (["--epsilon", "nan"], "finite"),
        (["--target", 5], "target is 5; the model has classes 0 to 2"),
        (["--target", "cat"], "'cat' names no output"),
        (["--source", -3], "-3"),
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
    assert "an attack needs training and test images: pass --data-dir" in result.error()
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
