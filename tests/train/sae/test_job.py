"""Autoencoders in a run folder: several in one pass, resumed bit for bit, set aside as a whole.

Broken once: the folders of the hook points left out of `own_folders`; --overwrite lost the earlier
autoencoders. And the learning rate taken from the last step done: a run that was broken off at the
end of a buffer could not go on.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import runs
import sae_runs
import tiny
from bilens.base.errors import CheckpointError, InterruptedRunError, NumericalError, UsageError
from bilens.io.load import load
from bilens.nn import TopKSAE
from bilens.train.sae import loop
from bilens.train.sae.job import SAEJob
from bilens.train.sae.metrics import measure_sae

FILES = {"config.json", "model.safetensors"}


def saes(folder: Path) -> list[torch.nn.Module]:
    return [load(folder / hook).module for hook in sae_runs.HOOKS]


@cache
def uninterrupted() -> tuple[list[torch.nn.Module], list[dict[str, Any]]]:
    """Weights and history of the run that nothing disturbs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        sae_runs.go(Path(folder))
        return saes(Path(folder)), sae_runs.history(Path(folder))


def test_each_hook_point_has_a_model_folder(tmp_path: Path) -> None:
    result = sae_runs.go(tmp_path, provenance={"command": "here"})
    assert len(result.history) == 5
    assert {item.name for item in tmp_path.iterdir()} == {
        *("run.json", "history.jsonl", "checkpoints", *sae_runs.HOOKS)
    }
    for hook in sae_runs.HOOKS:
        assert {item.name for item in (tmp_path / hook).iterdir()} == FILES
        model = load(tmp_path / hook)
        said = model.provenance
        assert (said["hook"], said["model"], said["model_sha256"]) == (hook, "here", "0" * 64)
        assert (said["command"], said["data_source"]) == ("here", "random tokens")
        assert json.loads(said["recipe"]) == sae_runs.RECIPE.to_dict()
        read = sae_runs.read_model()
        assert isinstance(model.module, TopKSAE)
        measured = measure_sae(read.model, model.module, hook, read.held_out)
        assert json.loads(said["metrics"]) == pytest.approx(measured.to_dict())
    job = SAEJob(sae_runs.RECIPE, sae_runs.read_model())
    assert [*job.measured(tmp_path)] == [*sae_runs.HOOKS]


def test_the_run_folder_of_several_says_which_there_are(tmp_path: Path) -> None:
    sae_runs.go(tmp_path)
    with pytest.raises(CheckpointError, match=r"one autoencoder a hook point: load .*blocks\.0\."):
        load(tmp_path)


def test_with_one_hook_point_the_run_folder_is_the_model_folder(tmp_path: Path) -> None:
    hook = sae_runs.HOOKS[1]
    sae_runs.go(tmp_path, sae_runs.changed(hooks=(hook,)))
    assert {item.name for item in tmp_path.iterdir()} == {
        *("run.json", "history.jsonl", "checkpoints", *FILES)
    }
    assert load(tmp_path).provenance["hook"] == hook


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 14, 15])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, steps: int) -> None:
    """Broken off within a buffer, at its end, in the first and in the last one."""
    with runs.interrupted_after(steps), pytest.raises(InterruptedRunError, match=r"buffer . of 5"):
        sae_runs.go(tmp_path)
    sae_runs.go(tmp_path, resume=True)
    expected, lines = uninterrupted()
    for ours, theirs in zip(saes(tmp_path), expected, strict=True):
        assert tiny.same_weights(ours, theirs)
    assert sae_runs.history(tmp_path) == lines


def test_trained_together_they_are_as_trained_alone(tmp_path: Path) -> None:
    """The first one draws the same start; the other's gradient is clipped on its own."""
    sae_runs.go(tmp_path, sae_runs.changed(hooks=sae_runs.HOOKS[:1]))
    assert tiny.same_weights(load(tmp_path).module, uninterrupted()[0][0])


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    sae_runs.go(tmp_path)
    before = (tmp_path / sae_runs.HOOKS[0] / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    result = sae_runs.go(tmp_path, resume=True, say=said.append)
    assert any("is finished" in text for text in said)
    assert len(result.history) == 5
    assert (tmp_path / sae_runs.HOOKS[0] / "model.safetensors").stat().st_mtime_ns == before


def test_an_earlier_run_is_kept_until_the_new_one_is_done(tmp_path: Path) -> None:
    sae_runs.go(tmp_path)
    other = sae_runs.changed(hooks=sae_runs.HOOKS[:1], seed=1)
    with pytest.raises(runs.Break):
        sae_runs.go(tmp_path, other, overwrite=True, on_epoch=runs.break_at(2))
    for ours, theirs in zip(saes(tmp_path), uninterrupted()[0], strict=True):
        assert tiny.same_weights(ours, theirs)
    sae_runs.go(tmp_path, other, overwrite=True)
    assert load(tmp_path).provenance["hook"] == sae_runs.HOOKS[0]
    assert not (tmp_path / sae_runs.HOOKS[1]).exists()


def test_other_texts_or_another_model_are_not_resumed(tmp_path: Path) -> None:
    with runs.interrupted_after(2), pytest.raises(InterruptedRunError):
        sae_runs.go(tmp_path)
    read = sae_runs.read_model()
    object.__setattr__(read, "weights_sha256", "1" * 64)
    with pytest.raises(UsageError, match="was started on other activations"):
        sae_runs.go(tmp_path, resume=True, read=read)
    with pytest.raises(UsageError, match="was started with k=3; this command says k=4"):
        sae_runs.go(tmp_path, sae_runs.changed(k=4), resume=True)


def test_a_loss_that_is_no_number_names_the_state_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.losses
    steps: list[int] = []

    def losses(*given: Any) -> Any:
        loss, *others = original(*given)
        steps.append(1)
        return (loss * float("nan") if len(steps) > 16 else loss, *others)

    monkeypatch.setattr(loop, "losses", losses)
    with (
        runs.checkpoint_every_epoch(),
        pytest.raises(NumericalError, match=r"at step 9 .*kept: .*ckpt-000002-000000"),
    ):
        sae_runs.go(tmp_path)
    monkeypatch.setattr(loop, "losses", original)
    sae_runs.go(tmp_path, resume=True)
    for ours, theirs in zip(saes(tmp_path), uninterrupted()[0], strict=True):
        assert tiny.same_weights(ours, theirs)


def test_what_cannot_be_trained_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    for changes, message in (
        ({"hooks": ("blocks.9.mlp_out",)}, r"'blocks\.9\.mlp_out' is no hook point"),
        ({"k": 24}, "k is 24 and num_latents is 24"),
        ({"batch_size": 1000}, "batch_size is 1000, but a buffer holds 110 activations"),
    ):
        with pytest.raises(UsageError, match=message):
            sae_runs.go(tmp_path / "run", sae_runs.changed(**changes))
    assert not (tmp_path / "run").exists()
