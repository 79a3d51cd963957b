"""`bilens train language` and `train sae`: folders that other commands open, and bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import language_runs
import runs
import tiny
from bilens.cli.app import app
from bilens.io.load import load
from bilens.io.model_folder import save
from bilens.nn import BilinearMLP, TopKSAE
from bilens.train.corpus import open_model_bundle
from bilens.train.recipes import GRAMMAR_RECIPE
from bilens.train.tasks.sae import SAERecipe
from commands import FILE, USAGE, Shell, assert_one_line

SMALL = [
    *("--corpus", "grammar", "--limit", 150, "--held-out", 0.2, "--model-width", 8, "--hidden", 12),
    *("--heads", 2, "--context-length", 15, "--steps", 6, "--evaluations", 3, "--batch-size", 32),
]


def test_a_run_leaves_a_model_that_writes(bilens: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = bilens("train", "language", *SMALL, "--out", folder)
    assert result.code == 0, result.err
    assert "tokens/s: 3/3" in result.err
    assert "6 steps." in result.err
    first, _, rest = result.out.partition("\n")
    assert first.startswith("Held-out loss ")
    assert "bits per byte" in first
    assert rest.rstrip().endswith(f"Model: {folder}")
    opened = open_model_bundle(folder)
    assert opened.model.config.n_ctx == 15
    assert opened.corpus.options.limit == 150
    svg = (folder / "loss.svg").read_text()
    assert svg.startswith("<svg")
    recipe = json.loads((folder / "run.json").read_text())["recipe"]
    assert recipe["learning_rate"] == GRAMMAR_RECIPE.learning_rate  # what is not given is its own
    assert recipe["vocab_size"] is None


def test_the_result_is_one_json_document(bilens: Shell, tmp_path: Path) -> None:
    line = ["train", "language", *SMALL, "--out", tmp_path / "run", "--json"]
    document = bilens("--quiet", *line).json()
    assert document["kind"] == "language training"
    assert document["step"] == 6
    assert document["best_held_out_loss"] <= document["held_out_loss"]
    assert document["num_weights"] > 0
    history = [
        json.loads(text) for text in (tmp_path / "run/history.jsonl").read_text().splitlines()
    ]
    assert document["held_out_loss"] == history[-1]["held_out_loss"]
    assert bilens("--quiet", *line, "--resume").json()["sample"] == document["sample"]


def test_a_run_that_was_interrupted_goes_on(bilens: Shell, tmp_path: Path) -> None:
    line = ["--quiet", "train", "language", *SMALL, "--out"]
    with runs.interrupted_after(3):
        result = bilens(*line, tmp_path / "run")
    assert result.code == 130
    assert result.error().startswith("error: Interrupted in part 2 of 3; ")
    assert result.error().endswith("repeat the command with --resume to go on.")
    assert bilens(*line, tmp_path / "run", "--resume").code == 0
    assert bilens(*line, tmp_path / "whole").code == 0
    first, second = (open_model_bundle(tmp_path / name).model for name in ("run", "whole"))
    assert tiny.same_weights(first, second)


def written(name: str, content: bytes) -> Any:
    def corpus(folder: Path) -> list[Any]:
        (folder / name).write_bytes(content)
        return ["--corpus", folder / name]

    return corpus


STORIES = "\n\n".join(f"Anna had {number} balls." for number in range(50)).encode()
BAD: dict[str, tuple[Any, int, list[str]]] = {
    "no such file": (lambda folder: ["--corpus", folder / "no.txt"], FILE, ["no.txt", "not exist"]),
    "a vocabulary that is too large": (
        lambda folder: [*written("a.txt", STORIES)(folder), "--vocabulary", 9000],
        *(FILE, ["9,000 were asked for", "ask for at most"]),
    ),
    "all held out": (lambda _folder: [*SMALL, "--held-out", 1.0], USAGE, ["held_out"]),
    "steps and passes": (lambda _: [*SMALL, "--epochs", 6], USAGE, ["--epochs): only without"]),
    "no such device": (
        lambda _folder: [*SMALL, "--device", "cuda"],
        *(USAGE, ["torch sees no GPU"]),
    ),
    "nothing to resume": (lambda _folder: [*SMALL, "--resume"], FILE, ["holds no run to resume"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_sentence(
    case: str, bilens: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line, code, words = BAD[case]
    (tmp_path / "in").mkdir()
    arguments = line(tmp_path / "in")
    result = bilens("--quiet", "train", "language", *arguments, "--out", tmp_path / "run")
    assert_one_line(result, code, words)
    assert not (tmp_path / "run" / "config.json").exists()


def test_another_option_is_not_gone_on_with(bilens: Shell, tmp_path: Path) -> None:
    line = ["--quiet", "train", "language", *SMALL, "--out", tmp_path / "run"]
    assert bilens(*line).code == 0
    result = bilens(*line, "--resume", "--gate", "silu")
    assert_one_line(result, USAGE, ["started with gate=None; this command says gate='silu'"])


HOOKS = ("blocks.0.mlp_in", "blocks.1.mlp_out")
SAE = ["--num-latents", 20, "--k", 3, "--tokens", 2000, "--batch-size", 64, "--buffer-size", 700]
ONE = ["--hook", HOOKS[1], *SAE]


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
    result = bilens("train", "sae", model, *hooks, *SAE, "--out", out)
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


def test_the_result_of_autoencoders_is_one_json_document(
    bilens: Shell, model: Path, tmp_path: Path
) -> None:
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


def test_an_interrupted_run_of_autoencoders_goes_on(
    bilens: Shell, model: Path, tmp_path: Path
) -> None:
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


BAD_SAE: dict[str, tuple[list[Any], int, list[str]]] = {
    "no such point": (["--hook", "blocks.0.nowhere"], USAGE, ["no hook point", "mlp_in, mlp_out"]),
    "a column of nothing": ([*ONE, "--column", "text"], USAGE, ["only with --corpus"]),
    "nothing to resume": ([*ONE, "--resume"], FILE, ["holds no run to resume"]),
}


@pytest.mark.parametrize("case", BAD_SAE)
def test_bad_input_of_autoencoders_ends_in_one_sentence(
    case: str, bilens: Shell, model: Path, tmp_path: Path
) -> None:
    arguments, code, words = BAD_SAE[case]
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


def test_the_defaults_of_autoencoders_are_those_of_the_recipe() -> None:
    command = typer.main.get_command(app).commands["train"].commands["sae"]  # type: ignore[attr-defined]
    found = {parameter.name: parameter.default for parameter in command.params}
    recipe = SAERecipe(hooks=("a",)).to_dict()
    for name in ("hooks", "expansion"):
        del recipe[name]
    assert {name: found[name] for name in recipe} == recipe
