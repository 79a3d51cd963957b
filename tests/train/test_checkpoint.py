"""Checkpoints: a resumed run is the uninterrupted one, bit for bit, also after a damage."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import runs
import tiny
from bilens.base.errors import InterruptedRunError
from bilens.train import loop, run_folder
from bilens.train.tasks.image import ImageRecipe


def interrupt(folder: Path, recipe: ImageRecipe, steps: int, **options: Any) -> None:
    with runs.interrupted_after(steps), pytest.raises(InterruptedRunError):
        runs.go(folder, recipe, **options)


def in_the_middle(folder: Path, recipe: ImageRecipe) -> None:
    interrupt(folder, recipe, 9)  # the third of the six steps of the second epoch


def at_the_last_step(folder: Path, recipe: ImageRecipe) -> None:
    interrupt(folder, recipe, 12)  # the second epoch is done but not yet finished


def between_epochs(folder: Path, recipe: ImageRecipe) -> None:
    with runs.checkpoint_every_epoch(), pytest.raises(runs.Break):
        runs.go(folder, recipe, on_epoch=runs.break_at(3))
    assert runs.checkpoints(folder) == ["ckpt-000001-000000", "ckpt-000002-000000"]
    assert len(runs.history(folder)) == 3  # one line more than the checkpoint knows of


def twice(folder: Path, recipe: ImageRecipe) -> None:
    interrupt(folder, recipe, 4)
    interrupt(folder, recipe, 4, resume=True)
    assert runs.checkpoints(folder) == ["ckpt-000000-000004", "ckpt-000001-000002"]


def before_any_checkpoint(folder: Path, recipe: ImageRecipe) -> None:
    with pytest.raises(runs.Break):
        runs.go(folder, recipe, on_epoch=runs.break_at(1))
    assert not (folder / "checkpoints").exists()


BREAKS = [in_the_middle, at_the_last_step, between_epochs, twice, before_any_checkpoint]


@pytest.mark.parametrize("broken_off", BREAKS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_resumed_run_is_the_uninterrupted_one(
    broken_off: Callable[[Path, ImageRecipe], None], precision: Any, seed: int, tmp_path: Path
) -> None:
    """Dropout, noise on activations and augmentations are on."""
    recipe = dataclasses.replace(runs.RECIPE, seed=seed, precision=precision)
    broken_off(tmp_path / "run", recipe)
    assert not (tmp_path / "run" / "config.json").exists()
    result = runs.go(tmp_path / "run", recipe, resume=True)
    runs.assert_as_uninterrupted(tmp_path / "run", recipe)
    assert [line.epoch for line in result.history] == [1, 2, 3, 4]


def test_a_finished_run_may_be_resumed_and_stays_as_it_is(tmp_path: Path) -> None:
    with runs.checkpoint_every_epoch():
        runs.go(tmp_path / "run")
    said: list[str] = []
    result = runs.go(tmp_path / "run", resume=True, say=said.append)
    assert said == [
        f"Continuing {tmp_path / 'run'} after epoch 4, step 0.",
        f"{tmp_path / 'run'} is finished: nothing is left to do.",
    ]
    assert len(result.history) == 4
    runs.assert_as_uninterrupted(tmp_path / "run")


def test_a_run_that_has_ended_is_not_saved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.go(tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    monkeypatch.setattr(run_folder, "save_checkpoint", None)
    runs.go(tmp_path / "run", resume=True)
    runs.assert_as_uninterrupted(tmp_path / "run")


def test_a_save_that_fails_leaves_the_checkpoint_that_it_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(2, 1)
    run = loop.TrainingRun(model, torch.optim.Adam(model.parameters()), torch.zeros(1))
    target = loop.save_checkpoint(tmp_path, run)
    monkeypatch.setattr(loop, "finish_checkpoint", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.save_checkpoint(tmp_path, run)
    assert loop.manifest_of(target)["step"] == 0


def test_the_two_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    with runs.checkpoint_every_epoch():
        runs.go(tmp_path / "run")
    assert runs.checkpoints(tmp_path / "run") == ["ckpt-000003-000000", "ckpt-000004-000000"]


def flip_a_byte(checkpoint: Path) -> None:
    path = checkpoint / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(checkpoint: Path) -> None:
    path = checkpoint / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def rewrite_manifest(old: str, new: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        path = checkpoint / "manifest.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a byte of the state": flip_a_byte,
    "the end of the state": cut_short,
    "no state": lambda checkpoint: (checkpoint / "state.safetensors").unlink(),
    "no manifest": lambda checkpoint: (checkpoint / "manifest.json").unlink(),
    "an empty manifest": lambda checkpoint: (checkpoint / "manifest.json").write_text(""),
    "a manifest that is a list": lambda checkpoint: (checkpoint / "manifest.json").write_text("[]"),
    "a byte of a key": rewrite_manifest('"epoch"', '"epocj"'),
    "a byte of the place": rewrite_manifest('"step": 3', '"step": 1'),
    "a byte of the hash": rewrite_manifest('"sha256": "', '"sha256": "x'),
    "a state that is no file": lambda checkpoint: (
        (checkpoint / "state.safetensors").unlink() or (checkpoint / "state.safetensors").mkdir()
    ),
    "an empty folder": lambda checkpoint: [item.unlink() for item in checkpoint.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with runs.checkpoint_every_epoch():
        interrupt(folder, runs.RECIPE, 9)
    assert runs.checkpoints(folder) == ["ckpt-000001-000000", "ckpt-000001-000003"]
    newest = folder / "checkpoints" / "ckpt-000001-000003"
    DAMAGES[damage](newest)
    said: list[str] = []
    runs.go(folder, resume=True, say=said.append)
    assert str(newest) in said[0]
    assert said[0].endswith("Trying the checkpoint before it.")
    assert said[1] == f"Continuing {folder} after epoch 1, step 0."
    runs.assert_as_uninterrupted(folder)


def test_a_place_that_was_damaged_is_saved_anew(tmp_path: Path) -> None:
    """Else the damaged checkpoint would count as saved, and the run could not be resumed."""
    folder = tmp_path / "run"
    interrupt(folder, runs.RECIPE, 9)
    flip_a_byte(folder / "checkpoints" / "ckpt-000001-000003")
    interrupt(folder, runs.RECIPE, 3, resume=True)  # from the end of the first epoch
    said: list[str] = []
    runs.go(folder, resume=True, say=said.append)
    assert said == [f"Continuing {folder} after epoch 1, step 3."]
    runs.assert_as_uninterrupted(folder)


def test_damaged_checkpoints_do_not_crowd_out_a_sound_one(tmp_path: Path) -> None:
    """Both are damaged and lie further on than what is saved next."""
    folder = tmp_path / "run"
    with runs.checkpoint_every_epoch():
        interrupt(folder, runs.RECIPE, 15)
    for name in runs.checkpoints(folder):
        flip_a_byte(folder / "checkpoints" / name)
    said: list[str] = []
    with runs.interrupted_after(2), pytest.raises(InterruptedRunError):
        runs.go(folder, resume=True, say=said.append)
    assert said[-1] == f"{folder} has no checkpoint yet: starting at the beginning."
    assert runs.checkpoints(folder) == ["ckpt-000000-000002"]
    runs.go(folder, resume=True, say=said.append)
    assert said[-1] == f"Continuing {folder} after epoch 0, step 2."
    runs.assert_as_uninterrupted(folder)


def test_what_a_killed_save_left_over_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    interrupt(folder, runs.RECIPE, 9)
    stale = folder / "checkpoints" / ".ckpt-000002-000001.x1y2"
    shutil.copytree(folder / "checkpoints" / "ckpt-000001-000003", stale)
    for name in (".model.safetensors.abc", ".run.json.abc", ".history.jsonl.abc"):
        (folder / name).write_text("half of it")
    runs.go(folder, resume=True)
    assert not stale.exists()
    runs.assert_as_uninterrupted(folder)


def test_a_line_of_the_history_that_was_cut_off_ends_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with runs.checkpoint_every_epoch(), pytest.raises(runs.Break):
        runs.go(folder, on_epoch=runs.break_at(3))
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"epoch": 4, "learning_')
    runs.go(folder, resume=True)
    runs.assert_as_uninterrupted(folder)


def test_the_uninterrupted_run_really_learns(tmp_path: Path) -> None:
    """Else equal weights could be equal nothing."""
    _, lines = runs.uninterrupted()
    assert lines[-1]["test_accuracy"] > 0.8
    runs.go(tmp_path / "run", dataclasses.replace(runs.RECIPE, seed=1))
    assert not tiny.same_weights(runs.weights(tmp_path / "run"), runs.uninterrupted()[0])
