"""What the commands do: the result on stdout and nothing else, one JSON document with --json."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import bilens as bl
import tiny
from bilens.api import given_data, train
from bilens.data import images
from commands import DATA, TRAINING, Shell, model_folder

SCHEMAS: dict[str, list[str]] = {  # kind -> the keys that a program may rely on
    "audit": ["schema_version", "kind", "passed", "model", "exactness", "classes", "verdict"],
    "decomposition": ["schema_version", "kind", "layers"],
    "explanation": ["schema_version", "kind", "model", "explanations", "data", "reproduce"],
    "training": ["schema_version", "kind", "folder", "epoch", "train_loss", "test_accuracy"],
}


@pytest.fixture
def trained(bilens: Shell, idx: Path, tmp_path: Path) -> Path:
    """A run that `bilens train image` made."""
    folder = tmp_path / "run"
    assert bilens("train", "image", "--data-dir", idx, "--out", folder, *TRAINING).code == 0
    return folder


def test_train_says_how_good_the_model_is_and_what_comes_next(
    bilens: Shell, idx: Path, tmp_path: Path
) -> None:
    result = bilens("train", "image", "--data-dir", idx, "--out", tmp_path / "run", *TRAINING)
    assert result.code == 0
    last = json.loads((tmp_path / "run" / "history.jsonl").read_text().splitlines()[-1])
    assert result.out.startswith(f"Test accuracy {last['test_accuracy']:.4f} after 2 epochs")
    assert f"Model: {tmp_path / 'run'}\n" in result.out
    assert f"Next:  bilens audit {tmp_path / 'run'} --data-dir {idx}\n" in result.out
    assert "training loss" in result.err
    provenance = bl.load(tmp_path / "run").provenance
    assert provenance["command"].startswith("bilens train image --data-dir ")
    assert set(provenance) >= {"bilens", "torch", "python", "numpy", "seed", "data_sha256"}


def test_watched_weights_are_told_and_small_images_refused(
    bilens: Shell, idx: Path, tmp_path: Path
) -> None:
    larger = dataclasses.replace(
        DATA,
        **{f"{part}_images": torch.rand(64, 196) for part in ("train", "test")},
        **{f"{part}_labels": torch.arange(64) % 3 for part in ("train", "test")},
        image_shape=(14, 14),
    )
    line = ["train", "image", *TRAINING, "--watch", "--out", tmp_path / "run", "--data-dir"]
    result = bilens(*line, tiny.write_idx(tmp_path / "images", larger))
    assert result.code == 0
    last = json.loads((tmp_path / "run" / "history.jsonl").read_text().splitlines()[-1])
    left = last["weights"]["left"]
    assert f", left {left:.3g}.\n" in result.out
    assert f"left to learn {left:.2f}" in result.err
    result = bilens(*line, idx, "--overwrite")
    assert result.code == 2
    assert "at least 14 rows and columns; these have 6 × 6" in result.err


def test_every_option_of_train_reaches_the_recipe(bilens: Shell, idx: Path, tmp_path: Path) -> None:
    options = [
        *("--hidden=4", "--layers=2", "--bias", "--residual", "--gate=silu", "--epochs=1"),
        *("--batch-size=50", "--learning-rate=0.03", "--weight-decay=0.2", "--noise=0.3"),
        *("--model-noise=0.4", "--dropout=0.5", "--augment=rotation:5", "--augment=blur:0.5"),
        *("--precision=float32", "--seed=6"),
    ]
    line = ["train", "image", "--data-dir", idx, "--out", tmp_path / "run", *options]
    assert bilens(*line).code == 0
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert recipe == {
        "d_hidden": 4,
        "n_layers": 2,
        "bias": True,
        "residual": True,
        "gate": "silu",
        "epochs": 1,
        "batch_size": 50,
        "learning_rate": 0.03,
        "weight_decay": 0.2,
        "noise": 0.3,
        "model_noise": 0.4,
        "dropout": 0.5,
        "augmentations": ["rotation:5", "blur:0.5"],
        "precision": "float32",
        "seed": 6,
        "stop": None,
    }


def command_lines(folder: Path, idx: Path, out: Path) -> dict[str, list[Any]]:
    data = ["--data-dir", idx]
    return {
        "training": ["train", "image", *data, "--out", out / "another", *TRAINING],
        "audit": ["audit", folder, *data, "--null-samples", 39],
        "decomposition": ["decompose", folder],
        "explanation": ["explain", folder, *data, "--index", 0, "--index", 5],
    }


@pytest.mark.parametrize("kind", SCHEMAS)
def test_json_is_one_document_on_stdout_and_nothing_else(
    kind: str, bilens: Shell, trained: Path, idx: Path, tmp_path: Path
) -> None:
    line = command_lines(trained, idx, tmp_path)[kind]
    result = bilens(*line, "--json")
    assert result.code == 0
    document = result.json()  # nothing before it, nothing behind it
    assert set(SCHEMAS[kind]) <= set(document)
    version = 2 if kind == "audit" else 1
    assert (document["schema_version"], document["kind"]) == (version, kind)
    assert "NaN" not in result.out
    assert "\x1b" not in result.out


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_result_is_on_stdout_and_quiet_leaves_nothing_else(
    kind: str, bilens: Shell, trained: Path, idx: Path, tmp_path: Path
) -> None:
    result = bilens("--quiet", *command_lines(trained, idx, tmp_path)[kind])
    assert result.code == 0
    assert result.err == ""
    assert result.out.strip()
    assert "\x1b" not in result.out  # no colours where there is no terminal


def test_the_json_of_an_audit_is_the_document_of_the_library(
    bilens: Shell, trained: Path, idx: Path
) -> None:
    document = bilens("audit", trained, "--data-dir", idx, "--null-samples", 39, "--json").json()
    expected = bl.audit(bl.load(trained), DATA, null_samples=39).to_dict()
    assert document["classes"] == expected["classes"]
    assert document["performance"] == expected["performance"]
    assert document["source"] == expected["source"]
    assert document["reproduce"]["command"].startswith("bilens audit ")


def test_an_audit_writes_the_page_in_the_language_asked_for(
    bilens: Shell, model: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    result = bilens("audit", model, "--null-samples", 39, "--html", page, "--lang", "ja")
    assert result.code == 0
    assert result.out.splitlines()[-1] == f"Report: {page}"
    assert 'lang="ja"' in page.read_text()
    assert bilens("audit", model, "--null-samples", 39, "--html", page).code == 2
    assert bilens("audit", model, "--null-samples", 39, "--html", page, "--overwrite").code == 0
    assert 'lang="en"' in page.read_text()


def test_an_audit_without_data_says_so_on_stderr(bilens: Shell, model: Path) -> None:
    result = bilens("audit", model, "--null-samples", 39, "--json")
    assert "No data given (--dataset, --data-dir): only the weights are read." in result.err
    assert result.json()["performance"] is None


def test_progress_is_a_dozen_lines_at_most(bilens: Shell, model: Path) -> None:
    """Where stderr is no terminal; 39 and 99 rotations."""
    for samples in (39, 99):
        result = bilens("audit", model, "--null-samples", samples, "--json")
        lines = [line for line in result.err.splitlines() if line.startswith("null distribution")]
        assert lines[-1] == f"null distribution: {samples}/{samples}"
        assert len(lines) <= 12


def test_decompose_shows_and_saves_what_is_asked_for(
    bilens: Shell, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "folders"
    line = ["decompose", model, "--top", 2, "--basis", "embedding", "--out", out]
    result = bilens(*line, "--contrast", 2, 0)
    assert result.code == 0
    assert "layers.0: logits, contrast, embedding basis, 8 inputs, dense" in result.out
    assert f"Pairs and records: {out}" in result.err
    with safe_open(out / "layers.0.safetensors", framework="pt") as file:
        assert file.get_tensor("eigenvectors").shape == (1, 2, 8)
    result = bilens(*line)
    assert result.code == 2
    assert "layers.0.json holds a decomposition of another model, or with other" in result.error()
    assert bilens(*line, "--overwrite").code == 0
    (record,) = bilens(*line, "--json").json()["layers"]  # read from the folder
    assert [item["name"] for item in record["outputs"]] == ["0", "1", "2"]


def test_decompose_reads_the_outputs_that_are_named(bilens: Shell, model: Path) -> None:
    result = bilens("decompose", model, "--outputs", "2, 0", "--method", "lanczos", "--json")
    assert result.code == 0, result.err
    (record,) = result.json()["layers"]
    assert [item["name"] for item in record["outputs"]] == ["2", "0"]
    assert record["method"] == "lanczos"


def test_effective_ranks_stand_beside_their_null_interval(bilens: Shell, model: Path) -> None:
    for top in (1, 2):
        line = ["decompose", model, "--outputs", "1", "--top", top]
        (record,) = bilens(*line, "--null-samples", 39, "--json").json()["layers"]
        (output,) = record["outputs"]
        level = output["effective_rank_null"]
        text = bilens(*line, "--null-samples", 39).out
        rows = [row.split("│")[1].strip() for row in text.splitlines() if "│" in row]
        assert rows == [
            f"{output['effective_rank']:.2f}",
            f"{level['low']:.2f}–{level['high']:.2f}",
        ]
        assert "95% of 39 random rotations" in " ".join(text.split())
    text = bilens("decompose", model, "--null-samples", 0).out
    assert "eff. rank: without its null interval" in " ".join(text.split())
    assert "null interval" not in bilens("decompose", model, "--spectrum", "top").out


def test_a_plan_is_what_is_done_then_and_does_nothing_itself(
    bilens: Shell, model: Path, tmp_path: Path
) -> None:
    f = bl.load(model).layers["layers.0"].quadratic_map
    eye = bl.raw_directions(3)
    line = ["decompose", model, "--out", tmp_path / "pairs"]
    for options, k in (([], None), (["--spectrum", "top", "--top", 3], 3)):
        expected = bl.plan_eigendecomposition(f.to(torch.float64), eye, k)
        (plan,) = bilens(*line, *options, "--plan", "--json").json()["layers"]
        for name in ("method", "precision", "batch", "limit_bytes", "reason"):
            assert plan[name] == getattr(expected, name)
        assert plan["peak_bytes"] >= expected.peak_bytes
        assert plan["num_pairs"] == (tiny.PIXELS if k is None else 3)
        assert plan["null_samples"] == (99 if k is None else 0)
        (done,) = bilens("decompose", model, *options, "--json").json()["layers"]
        for name in ("layer", "reading", "spectrum", "method", "null_samples", "d_in"):
            assert plan[name] == done[name]
        assert len(done["outputs"]) == plan["num_outputs"]
    text = bilens(*line, "--plan").out
    assert "layers.0: factored in float64, the fastest" in text
    assert not (tmp_path / "pairs").exists()


def test_the_tables_of_a_decomposition_fit_80_columns(
    bilens: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("upright strokes", "level strokes", "slanting strokes")
    model = model_folder(tmp_path / "deep", tiny.classifier(n_layers=3), output_names=names)
    monkeypatch.setenv("COLUMNS", "80")
    for options in ([], ["--plan"]):
        text = bilens("decompose", model, "--spectrum", "whole", *options).out
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text


def test_a_whitened_decomposition_reads_the_training_images(
    bilens: Shell, model: Path, trained: Path, idx: Path
) -> None:
    line = ["decompose", trained, "--basis", "whitened"]
    text = bilens(*line, "--data-dir", idx).out
    assert "layers.0: logits, class-centred, whitened basis" in text
    assert "λ in units of the output for inputs of unit variance" in " ".join(text.split())
    (record,) = bilens(*line, "--data-dir", idx, "--json").json()["layers"]
    assert (record["basis"], record["data"]["num_images"]) == ("whitened", tiny.NUM_TRAIN)
    (plan,) = bilens(*line, "--data-dir", idx, "--plan", "--json").json()["layers"]
    assert plan["basis"] == "whitened"
    for options, words in (
        (line, "need the images that the model was trained on: pass --data"),
        (["decompose", model, "--data-dir", idx], "only with basis whitened"),
        (["decompose", model, "--dataset", "mnist"], "only with basis whitened"),
    ):
        result = bilens("--quiet", *options)
        assert result.code == 2
        assert words in result.error()


def test_a_contrast_of_classes_by_name(bilens: Shell, tmp_path: Path) -> None:
    names = ("upright", "level", "slanting")
    model = model_folder(tmp_path / "deep", tiny.classifier(n_layers=2), output_names=names)
    line = ["decompose", model, "--contrast", "slanting", "level"]
    result = bilens(*line)
    assert result.code == 2
    assert "layers.0 are neurons" in result.error()
    result = bilens(*line, "--layer", "layers.1")
    assert "layers.1: logits, contrast, input basis, 8 inputs" in result.out
    assert "slanting − level" in result.out


def test_explain_shows_one_table_an_image(bilens: Shell, trained: Path, idx: Path) -> None:
    result = bilens("explain", trained, "--data-dir", idx, "--index", 3, "--index", 4)
    assert result.code == 0
    assert result.out.count("Test input ") == 2
    label = int(DATA.test_labels[3])
    assert f"Test input 3: label {label}, predicted " in result.out
    assert "What the entries of input 4 add, from the baseline (zeros)" in result.out


def test_explain_draws_what_each_pixel_adds(
    bilens: Shell, trained: Path, idx: Path, tmp_path: Path
) -> None:
    plate = tmp_path / "pixels.svg"
    line = ["explain", trained, "--data-dir", idx, "--index", 3, "--plate", plate, "--lang", "ja"]
    result = bilens(*line, "--baseline", "mean")
    assert result.out.splitlines()[-1] == f"Drawing: {plate}"
    assert "各入力が加えた分" in plate.read_text("utf-8")
    assert "pixels.svg exists already" in bilens("--quiet", *line).error()
    document = bilens(*line, "--overwrite", "--json").json()
    assert document["baseline"] == "zeros"
    for part in document["explanations"][0]["attributions"]:
        assert sum(part["values"]) == pytest.approx(part["score"] - part["score_at_baseline"])


def test_a_demo_of_digits_that_are_at_hand(
    bilens: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe is cut short, and the digits are tiny ones."""
    monkeypatch.setattr(train, "DEMO_RECIPE", tiny.RECIPE)
    monkeypatch.setattr(images, "embedded_digits", lambda: DATA)
    monkeypatch.setattr(given_data, "embedded_digits", lambda: DATA)
    out = tmp_path / "demo"
    result = bilens("demo", "--out", out, "--seed", 3)
    assert result.code == 0, result.err
    assert f"Report: {out / 'report.html'}" in result.out
    assert json.loads((out / "run.json").read_text())["recipe"]["seed"] == 3
    result = bilens("audit", out, "--null-samples", 39, "--json")  # knows its own data
    answers = result.json()["performance"]["classification"]
    assert answers["accuracy"]["total"] == tiny.NUM_TEST
    result = bilens("demo", "--out", out, "--json")
    assert result.json()["kind"] == "audit"
    assert "holds an earlier demo" in result.err


def colours(text: str) -> set[int]:
    """The codes that choose a colour: 30 to 48 and 90 to 107; bold and italic are none."""
    codes = {
        int(code) for codes in re.findall(r"\x1b\[([0-9;]+)m", text) for code in codes.split(";")
    }
    return codes & {*range(30, 49), *range(90, 108)}


def test_no_color_is_honoured_on_a_terminal(bilens: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The help is the most colourful thing there is."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colours(bilens("audit", "--help").out)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours(bilens("audit", "--help").out)


def test_a_model_name_cannot_write_markup_into_the_terminal(
    bilens: Shell, idx: Path, tmp_path: Path
) -> None:
    names = ["[red]zero[/red]", "[/bold]one", "t\x1b[31mw\ud800o"]
    folder = model_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "output_names": names}))
    data = ["--dataset", "mnist", "--data-dir", idx]
    for line in (
        ["audit", folder, "--null-samples", 39],
        ["decompose", folder],
        ["explain", folder, "--index", 0, "--index", 1, "--index", 2, *data],
    ):
        result = bilens(*line)
        assert result.code == 0, result.err
        assert "[red]zero[/red]" in result.out
        assert "[/bold]one" in result.out
        assert "t\ufffd[31mw\ufffdo" in result.out
        assert "\x1b" not in result.out
        assert "two" not in bilens(*line, "--json").out  # and machines get it escaped
