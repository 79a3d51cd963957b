"""A language model in a run folder: resumed bit for bit, opened again, with all that it needs.

Broken once: `disturb.start_step` left out; a resumed run dropped other entries than the
uninterrupted one.
"""

from __future__ import annotations

import json
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import language_runs
import runs
import tiny
from bilens.base.errors import (
    CheckpointError,
    DataError,
    InterruptedRunError,
    NumericalError,
    UsageError,
)
from bilens.train.language import loop
from bilens.train.language.corpus import CorpusDescription
from bilens.train.language.job import open_language_run


@cache
def uninterrupted(precision: str = "float32") -> tuple[Any, list[dict[str, Any]]]:
    """Weights and history of the run that nothing disturbs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        language_runs.go(Path(folder), language_runs.changed(precision=precision))
        return open_language_run(Path(folder)).model, language_runs.history(Path(folder))


@pytest.mark.parametrize("steps", [1, 3, 5, 9, 13, 14])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_is_the_uninterrupted_one(steps: int, precision: str, tmp_path: Path) -> None:
    """Wherever it is broken off: within a line of the history, at its end, in the second pass."""
    recipe = language_runs.changed(precision=precision)
    with runs.interrupted_after(steps), pytest.raises(InterruptedRunError):
        language_runs.go(tmp_path, recipe)
    language_runs.go(tmp_path, recipe, resume=True)
    model, lines = uninterrupted(precision)
    assert tiny.same_weights(open_language_run(tmp_path).model, model)
    assert language_runs.history(tmp_path) == lines


def test_ctrl_c_says_where_it_was_and_how_to_go_on(tmp_path: Path) -> None:
    def interrupt(line: Any) -> None:
        if line.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError, match=r"in part 3 of 4; .*--resume") as caught:
        language_runs.go(tmp_path, on_epoch=interrupt)
    assert caught.value.exit_code == 130
    said: list[str] = []
    language_runs.go(tmp_path, resume=True, say=said.append)
    assert said == [f"Continuing {tmp_path} after part 2 of 4, step 1."]
    assert tiny.same_weights(open_language_run(tmp_path).model, uninterrupted()[0])


def test_a_loss_that_is_no_longer_finite_keeps_the_state_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.train_step

    def bad(run: Any, texts: Any, recipe: Any, number: int) -> None:
        if number == 8:
            with torch.no_grad():
                run.model.embed.weight[0, 0] = float("nan")
        step(run, texts, recipe, number)

    monkeypatch.setattr(loop, "train_step", bad)
    with runs.checkpoint_every_epoch(), pytest.raises(NumericalError) as caught:
        language_runs.go(tmp_path)
    kept = tmp_path / "checkpoints" / "ckpt-000002-000000"
    assert "no longer finite at step 9 (loss nan" in str(caught.value)
    assert str(caught.value).endswith(f"The state before it is kept: {kept}.")
    assert runs.checkpoints(tmp_path)[-1] == kept.name
    assert not (tmp_path / "config.json").exists()
    monkeypatch.undo()
    language_runs.go(tmp_path, resume=True)
    assert tiny.same_weights(open_language_run(tmp_path).model, uninterrupted()[0])


def test_a_short_run_keeps_its_first_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time between checkpoints is not up when the loss stops being a number."""
    step = loop.train_step

    def bad(run: Any, texts: Any, recipe: Any, number: int) -> None:
        if number == 8:
            raise NumericalError("not finite.")
        step(run, texts, recipe, number)

    monkeypatch.setattr(loop, "train_step", bad)
    with pytest.raises(NumericalError, match=r"state before it is kept: .*ckpt-000001-000000"):
        language_runs.go(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    language_runs.go(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    words = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    words[-1], words[-2] = words[-2], words[-1]
    content["model"]["vocab"] = {word: place for place, word in enumerate(words)}
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is not the one that the model was trained with"):
        open_language_run(tmp_path)


def test_a_finished_folder_holds_all_that_later_commands_need(tmp_path: Path) -> None:
    language_runs.go(tmp_path, provenance={"command": "here"})
    opened = open_language_run(tmp_path)
    assert opened.tokenizer.sha256 == language_runs.tokenizer().sha256
    assert opened.corpus.load() == language_runs.corpus()
    assert not opened.model.training
    content = json.loads((tmp_path / "corpus.json").read_text())
    assert content["options"]["corpus"] == "grammar"
    assert content["num_held_out"] == len(language_runs.corpus().held_out)
    assert {item.name for item in tmp_path.iterdir()} - {"checkpoints"} == {
        *("config.json", "model.safetensors", "tokenizer.json", "corpus.json"),
        *("run.json", "history.jsonl"),
    }


def test_other_text_is_not_gone_on_with(tmp_path: Path) -> None:
    with runs.interrupted_after(2), pytest.raises(InterruptedRunError):
        language_runs.go(tmp_path)
    about = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**about, "data": "0" * 64}))
    with pytest.raises(UsageError, match="was started on other text"):
        language_runs.go(tmp_path, resume=True)


def test_overwriting_takes_the_files_of_a_language_model_away_too(tmp_path: Path) -> None:
    language_runs.go(tmp_path)
    runs.go(tmp_path, overwrite=True)
    runs.assert_as_uninterrupted(tmp_path)


def test_a_folder_of_images_is_no_language_model(tmp_path: Path) -> None:
    runs.go(tmp_path)
    with pytest.raises(UsageError, match="holds a BilinearClassifier; expected a language model"):
        open_language_run(tmp_path)


def test_a_corpus_that_changed_or_moved_is_noticed(tmp_path: Path) -> None:
    language_runs.go(tmp_path)
    path = tmp_path / "corpus.json"
    content = json.loads(path.read_text())
    content["options"]["seed"] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="grammar holds other documents than the model was trained"):
        CorpusDescription.read(tmp_path).load()
    path.write_text('{"options": {"corpse": "grammar"}}')
    with pytest.raises(CheckpointError, match="not the description of a corpus"):
        CorpusDescription.read(tmp_path)


def test_a_corpus_of_a_file_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stories = [f"Anna had {number} balls." for number in range(30)]
    (tmp_path / "stories.txt").write_text("\n\n".join(stories))
    monkeypatch.chdir(tmp_path)
    options = language_runs.CorpusOptions("stories.txt")
    corpus = options.load()
    CorpusDescription.of(options, corpus).write(tmp_path)
    (tmp_path / "moved").mkdir()
    monkeypatch.chdir(tmp_path / "moved")
    assert CorpusDescription.read(tmp_path).load().documents == corpus.documents
    moved = (tmp_path / "stories.txt").rename(tmp_path / "moved" / "stories.txt")
    with pytest.raises(DataError, match="does not exist"):
        CorpusDescription.read(tmp_path).load()
    assert CorpusDescription.read(tmp_path).load(str(moved)).documents == corpus.documents
