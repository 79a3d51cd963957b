"""Checkpoints of a run: written whole or not at all, verified when they are read."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors

from bilens.base.errors import CheckpointError, NonFiniteError
from bilens.base.files import file_sha256, new_folder, read_json, write_file
from bilens.io.tensors import check_names, read_safetensors
from bilens.train.loop import Model, TrainingRun
from bilens.train.run_files import CHECKPOINTS

STATE_NAME, MANIFEST_NAME = "state.safetensors", "manifest.json"
MANIFEST_FIELDS = {"epoch", "step", "seconds", "sha256"}
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what Adam keeps of a weight
KEPT = 2  # so that one damaged checkpoint does not end a run


def save_checkpoint(run_folder: Path, run: TrainingRun[Model]) -> Path:
    """Write a checkpoint of the run; then remove all but the newest ones up to this step."""
    target = run_folder / CHECKPOINTS / step_name(run.epoch, run.step)
    shutil.rmtree(target, ignore_errors=True)
    data = to_safetensors(state_tensors(run))
    manifest = {
        "epoch": run.epoch,
        "step": run.step,
        "seconds": run.seconds,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with new_folder(target) as folder:
        write_file(folder / STATE_NAME, data)
        write_file(folder / MANIFEST_NAME, json.dumps(manifest, indent=2).encode())
    found = found_checkpoints(run_folder)
    kept = [folder for folder in found if folder.name <= target.name][:KEPT]
    for folder in set(found) - set(kept):
        shutil.rmtree(folder, ignore_errors=True)
    return target


def state_tensors(run: TrainingRun[Model]) -> dict[str, torch.Tensor]:
    """Return all tensors of a run under one name each."""
    tensors = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    for name, parameter in run.model.named_parameters():
        for key, value in run.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = value
    tensors |= {f"extra.{name}": value for name, value in run.extra.items()}
    return {name: value.contiguous() for name, value in tensors.items()} | {"sums": run.sums}


def load_checkpoint(run_folder: Path, run: TrainingRun[Model], say: Callable[[str], None]) -> bool:
    """Put a new run where its newest readable checkpoint left off; tell whether there was one."""
    for left_over in (run_folder / CHECKPOINTS).glob(".ckpt-*"):  # of a save that was cut off
        shutil.rmtree(left_over, ignore_errors=True)
    for folder in found_checkpoints(run_folder):
        try:
            _restore(folder, run)
        except (CheckpointError, NonFiniteError, OSError) as error:
            say(f"{error} Trying the checkpoint before it.")
        else:
            return True
    return False


def step_name(epoch: object, step: object) -> str:
    """Return the name of the folder for a step of a run; sorted by name is sorted by step."""
    return f"ckpt-{epoch!s:>06}-{step!s:>06}"


def found_checkpoints(run_folder: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    return sorted((run_folder / CHECKPOINTS).glob("ckpt-*"), reverse=True)


def _restore(folder: Path, run: TrainingRun[Model]) -> None:
    manifest = read_json(folder / MANIFEST_NAME)
    fits = set(manifest) == MANIFEST_FIELDS
    if not fits or step_name(manifest["epoch"], manifest["step"]) != folder.name:
        raise CheckpointError(f"{folder / MANIFEST_NAME}: is damaged (it does not fit its folder).")
    path = folder / STATE_NAME
    if not path.is_file() or file_sha256(path) != manifest["sha256"]:
        raise CheckpointError(f"{path}: is missing or damaged (its SHA-256 is not the manifest's).")
    tensors, _ = read_safetensors(path)
    parameters = dict(run.model.named_parameters())
    state = [*run.model.state_dict()]
    expected = {f"model.{name}" for name in state} | {f"extra.{name}" for name in run.extra}
    started = any(name.startswith("optimizer.") for name in tensors)
    if started:
        expected |= {f"optimizer.{name}.{key}" for name in parameters for key in MOMENTS}
    check_names(path, tensors, expected | {"sums"})
    run.model.load_state_dict({name: tensors[f"model.{name}"] for name in state}, strict=True)
    for name, parameter in parameters.items() if started else ():
        run.optimizer.state[parameter] = {
            key: tensors[f"optimizer.{name}.{key}"].to(parameter.device) for key in MOMENTS
        }
    run.epoch, run.step = int(manifest["epoch"]), int(manifest["step"])
    run.seconds = float(manifest["seconds"])
    run.sums = tensors["sums"].to(run.sums.device)
    run.extra = {
        name: tensors[f"extra.{name}"].to(value.device) for name, value in run.extra.items()
    }
