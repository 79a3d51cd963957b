"""`bilens audit` beyond one classifier: layers, a baseline, conditions, Markdown."""

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bilens as bl
import tiny
from bilens.api.register_state import AuditedFiles, compare_with_audit
from bilens.base.errors import NonFiniteError
from commands import FILE, USAGE, Line, Shell, assert_one_line, model_folder
from layer_audit_documents import transformer

FEW = ("--null-samples", 3)


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "deep", tiny.classifier(n_layers=2, gate="silu"))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    base, tuned = transformer(), transformer()
    with torch.no_grad():
        tuned.mlps[1].left.weight[0] += 0.2  # type: ignore[index,union-attr]
    return bl.save(base, tmp_path / "base"), bl.save(tuned, tmp_path / "tuned")


def test_a_deep_gated_classifier_is_read_layer_by_layer(bilens: Shell, deep: Path) -> None:
    result = bilens("audit", deep, *FEW)
    assert result.code == 0
    assert "layers.0" in result.out
    assert "layers.1" in result.out
    assert "R²" in result.out
    document = bilens("audit", deep, *FEW, "--json").json()
    assert document["read_as"] == "layers"
    assert document == bl.audit(bl.load(deep), null_samples=3, command="").to_dict() | {
        "reproduce": document["reproduce"]
    }


def test_data_give_the_accuracy_of_a_deep_classifier(bilens: Shell, tmp_path: Path) -> None:
    data = tiny.images(name="mnist")
    folder = model_folder(tmp_path / "deep", tiny.classifier(n_layers=2))
    idx = tiny.write_idx(tmp_path / "idx", data)
    line = ("audit", folder, "--dataset", "mnist", "--data-dir", idx, *FEW, "--json")
    document = bilens("-q", *line).json()
    share = document["performance"]["classification"]["accuracy"]
    assert share["total"] == tiny.NUM_TEST
    assert "accuracy" in [finding["rule"] for finding in document["verdict"]]


def test_every_format_is_written(bilens: Shell, deep: Path, tmp_path: Path) -> None:
    html, markdown = tmp_path / "a.html", tmp_path / "a.md"
    files = ("--html", html, "--markdown", markdown, "--lang", "ja")
    result = bilens("audit", deep, *FEW, *files)
    assert f"Report: {html}" in result.out
    assert f"Report: {markdown}" in result.out
    assert 'lang="ja"' in html.read_text("utf-8")
    assert "層" in markdown.read_text("utf-8")
    assert_one_line(bilens("-q", "audit", deep, *FEW, *files), USAGE, ["exists already"])
    printed = bilens("-q", "audit", deep, *FEW, "--markdown", "-")
    assert printed.out.startswith("## bilens audit: ")
    assert printed.err == ""


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"--html": "x", "--markdown": "x"}, USAGE, ["--html", "--markdown", "both"]),
        ({"--html": "x", "--pdf": "./y/../x"}, USAGE, ["--html", "--pdf", "both"]),
        ({"--html": "x", "--markdown": "x/p.md"}, USAGE, ["--html", "--markdown", "both"]),
        ({"--evidence": "e", "--markdown": "e/audit.json"}, USAGE, ["--evidence", "both"]),
        ({"--html": "e", "--evidence": "e"}, USAGE, ["--html", "--evidence", "both"]),
        ({"--html": "x", "--markdown": "file/p.md"}, FILE, ["file: ", "Not a directory"]),
        ({"--html": "x", "--markdown": "file/new/p.md"}, FILE, ["file/new", "Not a directory"]),
    ],
)
def test_all_files_are_checked_before_one_is_written(
    bilens: Shell, deep: Path, tmp_path: Path, options: dict[str, str], code: int, words: list[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    before = {*tmp_path.iterdir()}
    paths = [part for option, name in options.items() for part in (option, tmp_path / name)]
    assert_one_line(bilens("-q", "audit", deep, *FEW, *paths), code, words)
    assert {*tmp_path.iterdir()} == before


def test_what_an_audit_writes_into_a_model_changes_nothing_of_it(
    bilens: Shell, deep: Path, tmp_path: Path
) -> None:
    """Seen red: changed since the audit that wrote it."""
    model = tmp_path / "m"
    shutil.copytree(deep, model)
    pages = ("--html", model / "r.html", "--markdown", model / "r.md", "--evidence", model / "e")
    assert bilens("audit", model, *FEW, "--history", tmp_path, *pages).code == 0
    last = bl.History(tmp_path).audits("m")[0]
    assert compare_with_audit(AuditedFiles(model, "", last.files)).state == "audited"
    wrong = bilens("-q", "audit", model, *FEW, "--markdown", model / "in" / "r.txt")
    assert_one_line(wrong, USAGE, ["--markdown", "count as one of its files", "elsewhere"])


def test_a_condition_fails_a_build(bilens: Shell, deep: Path) -> None:
    result = bilens("audit", deep, *FEW, "--fail-on", "r2<0.9999", "--fail-on", "non_finite")
    assert result.code == 1
    assert "Failed: r2<0.9999" in result.err
    assert "non_finite" not in result.err
    assert "Nothing to judge" not in result.err
    assert bilens("audit", deep, *FEW, "--fail-on", "non_finite").code == 0


def test_what_was_not_searched_for_is_said(bilens: Shell, deep: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = bilens("audit", deep, *FEW, "--fail-on", "trigger", "--html", page)
    assert result.code == 1
    assert "or not in all of it, so counted as failed: trigger" in result.err
    assert "No trigger and no overfitting is searched for" in page.read_text("utf-8")


def test_a_baseline_says_what_changed(bilens: Shell, pair: tuple[Path, Path]) -> None:
    base, tuned = pair
    line = ("audit", tuned, "--baseline", base, *FEW)
    result = bilens(*line)
    assert result.code == 0
    assert "1 of the 5 layers that are read is not as in the baseline" in result.out
    document = bilens(*line, "--json").json()
    same = [layer["identical"] for layer in document["difference"]["layers"]]
    assert same == [True, False, True, True, True]
    assert document["difference"]["baseline"]["path"] == str(base)
    assert bilens(*line, "--fail-on", "changed_layers>1").code == 0
    assert bilens(*line, "--fail-on", "changed_layers").code == 1
    failed = bilens(*line, "--fail-on", "similarity<0.5")  # R² of the changed layer is too low
    assert failed.code == 1
    assert "similarity<0.5" in failed.err


def test_the_report_of_a_classifier_has_the_difference(bilens: Shell, tmp_path: Path) -> None:
    old, new = tiny.classifier(), tiny.classifier()
    with torch.no_grad():
        new.head.weight[0, 0] += 0.1
    folders = [model_folder(tmp_path / name, model) for name, model in (("a", old), ("b", new))]
    page = tmp_path / "b.html"
    line = ("audit", folders[1], "--baseline", folders[0], "--null-samples", 39, "--html", page)
    document = bilens(*line, "--json").json()
    (layer,) = document["difference"]["layers"]
    assert (layer["identical"], layer["changed_units"]) == (False, 1)
    assert len(layer["triggers"][0]["vector"]) == tiny.PIXELS
    text = page.read_text("utf-8")
    assert 'id="difference"' in text
    rules = [finding["rule"] for finding in document["verdict"]]
    assert {"dead_units", "unused_inputs", "similarity"} <= {*rules}


def test_nan_in_a_classifier_of_one_layer_is_refused() -> None:
    model = tiny.classifier()
    model.head.weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteError):
        bl.audit(model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fail-on", "speed"), ["no rule 'speed'", "r2, dead_units"]),
        (("--markdown", "-", "--json"), ["both print on stdout"]),
        (("--null-samples", 2), ["null_samples", "at least 3"]),
    ],
)
def test_bad_options_are_one_line(
    options: tuple[object, ...], words: list[str], bilens: Shell, deep: Path
) -> None:
    assert_one_line(bilens("-q", "audit", deep, *options), USAGE, words)


def test_models_that_do_not_match_are_compared_as_far_as_they_do(
    bilens: Shell, deep: Path, pair: tuple[Path, Path]
) -> None:
    found = bilens("audit", deep, *FEW, "--baseline", pair[0], "--json").json()["difference"]
    assert all("no such layer" in one["refused"] for one in found["layers"])
    assert "embed.weight" in found["whole"]["other_shape"]
    assert "layers.0.left.weight" in found["whole"]["model_alone"]


def test_training_inputs_are_read_beside_the_weights(bilens: Shell, tmp_path: Path) -> None:
    data, folder = tiny.images(name="mnist"), tmp_path / "model"
    module = bl.save(deepcopy(tiny.trained()).float(), folder, input_shape=(6, 6))
    test, training = tmp_path / "test.npy", tmp_path / "training.npz"
    np.save(test, data.test_images.numpy())
    np.savez(training, x=data.train_images.numpy(), mine=data.train_labels.numpy())
    given = ("--data", test, "--train-data", training, "--train-labels", "mine")
    result = bilens("audit", module, "--null-samples", tiny.ROTATIONS, *given)
    assert result.code == 0
    assert "200 training inputs with labels and 60 test inputs without labels" in result.out
    assert "look most learnt by heart: row " in result.out
    assert "Labels are missing" in result.out


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (("--train-labels", "y"), USAGE, ["--train-labels", "--train-data"]),
        (("--train-data", "nowhere.npz"), FILE, ["nowhere.npz", "no such file"]),
        (("--train-data", "wide.npy"), USAGE, ["wide.npy", "37", "36"]),
    ],
)
def test_training_inputs_that_are_no_good_are_one_line(
    bilens: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: Line,
    code: int,
    words: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("wide.npy", np.zeros((40, 37)))
    model = bl.save(tiny.classifier(), "model", input_shape=(6, 6))
    assert_one_line(bilens("-q", "audit", model, *given), code, words)
