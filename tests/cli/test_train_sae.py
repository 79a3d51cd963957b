"""`bilens train sae`: from a language model to folders that other commands open, and bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

import language_runs
import runs
import tiny
from bilens.cli.app import app
from bilens.io.load import load
from bilens.io.model_folder import save
from bilens.nn import BilinearMLP, TopKSAE
from bilens.train.tasks.sae import SAERecipe
from commands import FILE, NUMERICAL, USAGE, Shell, assert_one_line

HOOKS = ("blocks.0.mlp_in", "blocks.1.mlp_out")
SMALL = ["--latents", 20, "--k", 3, "--tokens", 2000, "--batch-size", 64, "--buffer-size", 700]
ONE = ["--hook", HOOKS[1], *SMALL]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of two blocks, in its run folder."""
    folder = tmp_path_factory.mktemp("language") / "run"
    language_runs.go(folder)
    return folder


def test_a_run_leaves_an_autoencoder_for_each_hook_point(
    bilens: Shell, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "saes"
    hooks = [word for hook in HOOKS for word in ("--hook", hook)]
    result = bilens("train", "sae", model, *hooks, *SMALL, "--out", out)
    assert result.code == 0, result.err
    assert "20 latents, 3 an input; 4 buffers of 700 activations." in result.err
    assert "tokens/s: 4/4" in result.err
    for hook in HOOKS:
        loaded = load(out / hook)
        assert isinstance(loaded.module, TopKSAE)
        assert loaded.provenance["hook"] == hook
        assert loaded.provenance["model_sha256"] == load(model).weights_sha256
        assert loaded.provenance["data_source"].startswith("the story grammar, seed 0")
        assert f"{hook}: normalised MSE " in result.out
        assert f"SAE: {out / hook}" in result.out
    assert result.out.count("loss recovered") == 2
    assert "against zero-ablation" in result.out
    assert "against mean-ablation" in result.out


def test_the_result_is_one_json_document(bilens: Shell, model: Path, tmp_path: Path) -> None:
    line = ["--quiet", "train", "sae", model, *ONE, "--out", tmp_path / "sae", "--json"]
    document = bilens(*line).json()
    assert document["kind"] == "sae training"
    assert document["tokens"] == 2560
    (sae,) = document["saes"]
    assert sae["hook"] == HOOKS[1]
    assert sae["folder"] == str(tmp_path / "sae")
    assert sae["loss_added"] == pytest.approx(sae["loss_patched"] - sae["loss"])
    assert 0 <= sae["nmse"] <= sae["fvu"]
    said = json.loads(load(tmp_path / "sae").provenance["metrics"])
    assert {name: sae[name] for name in said} == said
    assert bilens(*line, "--resume").json()["saes"] == document["saes"]  # nothing is left to do


def test_a_run_that_was_interrupted_goes_on(bilens: Shell, model: Path, tmp_path: Path) -> None:
    line = ["--quiet", "train", "sae", model, *ONE, "--out"]
    with runs.interrupted_after(13):
        result = bilens(*line, tmp_path / "run")
    assert result.code == 130
    assert result.error().startswith("error: Interrupted in buffer 2 of 4; ")
    assert bilens(*line, tmp_path / "run", "--resume").code == 0
    assert bilens(*line, tmp_path / "whole").code == 0
    first, second = (load(tmp_path / name).module for name in ("run", "whole"))
    assert tiny.same_weights(first, second)


def test_another_corpus_may_be_read(bilens: Shell, model: Path, tmp_path: Path) -> None:
    """A model without a description of its corpus, as an imported one, needs it."""
    shutil.copytree(model, tmp_path / "bare")
    (tmp_path / "bare" / "corpus.json").unlink()
    line = ["--quiet", "train", "sae", tmp_path / "bare", *ONE, "--out", tmp_path / "sae"]
    assert_one_line(bilens(*line), USAGE, ["does not say which text", "--corpus"])
    assert bilens(*line, "--corpus", "grammar", "--limit", 80).code == 0
    said = load(tmp_path / "sae").provenance["data_source"]
    assert said.startswith("the story grammar, seed 0: 80 documents")


def mlp(folder: Path) -> Path:
    return save(BilinearMLP(4, 3), folder / "mlp")


BAD: dict[str, tuple[list[Any], int, list[str]]] = {
    "no such point": (["--hook", "blocks.0.nowhere"], USAGE, ["no hook point", "mlp_in, mlp_out"]),
    "no such block": (["--hook", "blocks.2.mlp_in"], USAGE, ["with i below 2"]),
    "a point twice": ([*ONE, "--hook", HOOKS[1]], USAGE, ["given twice"]),
    "as many as latents": ([*ONE, "--k", 20], USAGE, ["k is 20 and num_latents is 20"]),
    "a batch that is too large": ([*ONE, "--batch-size", 9000], USAGE, ["a buffer holds 700"]),
    "a column of nothing": ([*ONE, "--column", "text"], USAGE, ["about --corpus: give it"]),
    "a rate of zero": ([*ONE, "--learning-rate", 0], USAGE, ["learning_rate must be above 0"]),
    "a rate without end": (
        [*ONE, "--learning-rate", 1e38],
        *(NUMERICAL, ["no longer finite at step", "lower the learning rate"]),
    ),
    "no such corpus": ([*ONE, "--corpus", "no.txt"], FILE, ["no.txt"]),
    "nothing to resume": ([*ONE, "--resume"], FILE, ["holds no run to resume"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_sentence(
    case: str, bilens: Shell, model: Path, tmp_path: Path
) -> None:
    arguments, code, words = BAD[case]
    result = bilens("--quiet", "train", "sae", model, *arguments, "--out", tmp_path / "run")
    assert_one_line(result, code, words)
    assert not (tmp_path / "run" / "config.json").exists()


def test_what_is_no_language_model_is_refused(bilens: Shell, model: Path, tmp_path: Path) -> None:
    line = ["--quiet", "train", "sae", mlp(tmp_path), *ONE, "--out", tmp_path / "run"]
    assert_one_line(bilens(*line), USAGE, ["holds a BilinearMLP; expected a language model"])
    shutil.copytree(model, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    line[3] = tmp_path / "bare"
    assert_one_line(bilens(*line), FILE, ["tokenizer.json"])


def test_the_defaults_are_those_of_the_recipe() -> None:
    command = typer.main.get_command(app).commands["train"].commands["sae"]  # type: ignore[attr-defined]
    found = {parameter.name: parameter.default for parameter in command.params}
    recipe = SAERecipe(hooks=("a",)).to_dict()
    for name in ("hooks", "expansion"):
        del recipe[name]
    assert {name: found[name] for name in recipe} == recipe
