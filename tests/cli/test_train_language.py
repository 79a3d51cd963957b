"""`bilens train language`: from a corpus to a folder that other commands open, and bad input."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import runs
import tiny
from bilens.train.corpus import open_model_bundle
from bilens.train.tasks.language import GRAMMAR_RECIPE
from commands import FILE, NUMERICAL, USAGE, Shell, assert_one_line

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
    history = [json.loads(text) for text in (tmp_path / "run/history.jsonl").open()]
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
    "an empty file": (written("a.txt", b""), FILE, ["a.txt: is empty"]),
    "not UTF-8": (written("a.txt", b"Anna \xff."), FILE, ["not UTF-8", "0xff"]),
    "one document": (written("a.txt", b"Anna had a ball."), FILE, ["at least 2 were expected"]),
    "a vocabulary that is too large": (
        lambda folder: [*written("a.txt", STORIES)(folder), "--vocabulary", 9000],
        *(FILE, ["9,000 were asked for", "ask for at most"]),
    ),
    "a context that is too long": (
        lambda _folder: [*SMALL, "--context-length", 9000],
        *(FILE, ["one block of 9001", "make the context shorter"]),
    ),
    "a batch that is too large": (
        lambda _folder: [*SMALL, "--batch-size", 9000],
        *(USAGE, ["batch_size is 9000", "choose a smaller"]),
    ),
    "heads that do not fit": (lambda _folder: [*SMALL, "--heads", 3], USAGE, ["multiple of 6"]),
    "all held out": (lambda _folder: [*SMALL, "--held-out", 1.0], USAGE, ["held_out"]),
    "a loss without end": (
        lambda _folder: [*SMALL, "--learning-rate", 1e30],
        *(NUMERICAL, ["no longer finite at step", "lower the learning rate"]),
    ),
    "no step": (lambda _folder: [*SMALL, "--epochs", 0], USAGE, ["epochs must be above 0"]),
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
