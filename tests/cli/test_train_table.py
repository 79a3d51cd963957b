"""`bilens train table`, and the commands that read what it leaves."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bilens as bl
from commands import Shell


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    """A table of two classes with a product in it, and one of numbers with a text column."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)) * [1, 20, 0.1] + [5, 300, 0]
    kind = np.where(rng.random(120) < 0.5, "red", "blue")
    z = (x - x.mean(0)) / x.std(0)
    frame = pd.DataFrame(x, columns=["width", "height", "depth"]).assign(colour=kind)
    frame.assign(y=np.where(z[:, 0] * z[:, 1] > 0, "yes", "no")).to_csv(
        tmp_path / "classes.csv", index=False
    )
    number = 1000 + 50 * z[:, 0] * z[:, 1] + 30 * (kind == "red")
    frame.assign(y=number).to_csv(tmp_path / "numbers.csv", index=False)
    return {name: tmp_path / f"{name}.csv" for name in ("classes", "numbers")}


def test_classes(bilens: Shell, tables: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    line = ("train", "table", tables["classes"], "--target", "y", "--out", run, "--json")
    result = bilens(*line)
    assert result.code == 0, result.err
    document = result.json()
    assert document["kind"] == "table training"
    assert document["task"] == "classification"
    assert document["test_score"] > 0.7 > document["chance_score"]
    assert (document["train_rows"], document["test_rows"], document["inputs"]) == (96, 24, 5)
    model = bl.load(run)
    assert model.input_names == ("width", "height", "depth", "colour=blue", "colour=red")
    assert model.output_names == ("no", "yes")
    assert json.loads((run / "metrics.json").read_text())["score"] == "accuracy"
    assert bilens(*line).code == 2  # the folder holds a run
    assert bilens(*line, "--overwrite").code == 0
    explained = bilens("explain", run, "--table", tables["classes"], "--index", "3")
    assert explained.code == 0, explained.err
    assert "from the baseline (mean)" in explained.out
    for command in (("decompose", run), ("certify", run)):
        assert bilens(*command, "--json").code == 0


def test_numbers_come_in_the_unit_of_the_target(
    bilens: Shell, tables: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    line = ("train", "table", tables["numbers"], "--target", "y", "--out", run, "--test", "0.25")
    result = bilens(*line, "--column-scale", "standard")
    assert result.code == 0, result.err
    assert "Test R² " in result.out
    model = bl.load(run)
    assert model.output_names == ("y",)
    frame = pd.read_csv(tables["numbers"])
    x = frame[["width", "height", "depth"]].assign(blue=frame.colour == "blue")
    x = torch.tensor(x.assign(red=frame.colour == "red").to_numpy(float))
    predicted = model.module(x)[:, 0].detach().numpy()  # type: ignore[union-attr, operator]
    assert np.corrcoef(predicted, frame.y)[0, 1] > 0.9
    assert abs(predicted.mean() - frame.y.mean()) < 10
    explained = bilens("explain", run, "--table", tables["numbers"], "--index", "2", "--json")
    item = explained.json()["explanations"][0]
    assert item["scores"][0] == pytest.approx(predicted[0])
    part = item["attributions"][0]
    assert (part["kind"], part["rival"]) == ("output", None)
    assert sum(part["values"]) == pytest.approx(part["score"] - part["score_at_baseline"])
    assert "y = " in bilens("explain", run, "--table", tables["numbers"], "--index", "2").out


def test_a_seed_decides_the_split_and_nothing_else_is_random(
    bilens: Shell, tables: dict[str, Path], tmp_path: Path
) -> None:
    line = ("train", "table", tables["numbers"], "--target", "y")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert bilens(*line, "--out", tmp_path / name, "--seed", seed).code == 0
    first, again, other = (bl.load(tmp_path / name).weights_sha256 for name in "abc")
    assert first == again or torch.equal(
        bl.load(tmp_path / "a").module.embed.weight,  # type: ignore[union-attr]
        bl.load(tmp_path / "b").module.embed.weight,  # type: ignore[union-attr]
    )
    assert first != other


def test_what_is_wrong_is_said(bilens: Shell, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,y\n1,2.5\n")
    line = ("train", "table", path, "--out", tmp_path / "run", "--target")
    assert (bilens(*line, "y").code, bilens(*line, "z").code) == (3, 3)
    assert "holds 1 rows with a target; expected at least 2" in bilens(*line, "y").error()
    path.write_text("x,y\n1,2\n2,3\n3,2.5\n")
    assert bilens(*line, "y", "--alpha", "0").code == 2
    wide = "a,b,c,d,y\n1,2,3,4,1.5\n2,1,5,3,2.5\n0,1,4,4,0.5\n"
    path.write_text(wide)
    result = bilens(*line, "y", "--test", "0")
    assert result.code == 0
    assert "more inputs (4) than rows (3)" in result.err
    assert "on the 3 training rows" in result.out


@pytest.mark.parametrize("name", ["classes", "numbers"])
def test_an_audit_reads_columns(
    bilens: Shell, tables: dict[str, Path], tmp_path: Path, name: str
) -> None:
    run, page = tmp_path / "run", tmp_path / "page.html"
    assert bilens("train", "table", tables[name], "--target", "y", "--out", run).code == 0
    assert (run / "test.csv").read_text().splitlines()[0] == "width,height,depth,colour,y"
    result = bilens("audit", run, "--table", run / "test.csv", "--html", page, "--lang", "ja")
    assert result.code == 0, result.err
    assert "height × width" in result.out or "width × height" in result.out
    assert "<img" not in page.read_text()
    assert "width × height" in page.read_text()
    document = bilens("audit", run, "--table", tables[name], "--json").json()
    assert document["read_as"] == "columns"
    assert "seen_rows" in [finding["rule"] for finding in document["verdict"]]
    assert bilens("audit", run).code == 0
    assert bilens("audit", run, "--table", run / "test.csv", "--dataset", "mnist").code == 3
    (run / "test.csv").write_text("width,height,depth,colour,y\n1,2,3,red,maybe\n")
    assert "'maybe'" in bilens("audit", run, "--table", run / "test.csv").error()


def test_the_rows_of_the_test_are_not_fitted(bilens: Shell, tmp_path: Path) -> None:
    """A target of pure noise can be learnt by heart, and not be foreseen."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(80, 12))).add_prefix("c")
    frame.assign(y=rng.choice(["a", "b"], 80)).to_csv(tmp_path / "noise.csv", index=False)
    line = ("train", "table", tmp_path / "noise.csv", "--target", "y", "--out", tmp_path / "run")
    fixed = ("--alpha", "0.001", "--quadratic-scale", "0.3", "--column-scale", "standard")
    document = bilens(*line, *fixed, "--test", "0.5", "--json").json()
    assert document["train_score"] == 1.0
    assert document["test_score"] < 0.8


def test_a_drawing_of_pixels_is_not_made_of_columns(
    bilens: Shell, tables: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert bilens("train", "table", tables["classes"], "--target", "y", "--out", run).code == 0
    line = ("explain", run, "--table", run / "test.csv", "--index", "2")
    result = bilens(*line, "--plate", tmp_path / "plate.svg")
    assert result.code == 2
    assert "bilens audit" in result.error()


def test_options_that_an_explanation_or_a_certificate_would_ignore_are_refused(
    bilens: Shell, tables: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert bilens("train", "table", tables["numbers"], "--target", "y", "--out", run).code == 0
    line = ("explain", run, "--data", tables["numbers"], "--index", "3")
    page = ("--html", tmp_path / "page.html")
    refused = bilens(*line, *page, "--baseline", "zeros")
    assert refused.code == 2
    assert "leave --baseline out" in refused.err
    shown = bilens(*line, *page, "--baseline", "mean")
    assert shown.code == 0, shown.err
    assert "Row 3: y = " in shown.out
    number = pd.read_csv(tables["numbers"]).y[1]
    assert f"right answer {number:.6g}" in shown.out
    assert "行3：y = " in bilens(*line, "--lang", "ja").out
    classes = tmp_path / "classes"
    assert bilens("train", "table", tables["classes"], "--target", "y", "--out", classes).code == 0
    assert "only with data" in bilens("certify", classes, "--samples", "3").err
    pairs = ("attack", classes, "--data", tables["classes"], "--pairs", "--source", "yes")
    assert "leave one out" in bilens(*pairs).err
