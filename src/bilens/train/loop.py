"""The training loop, what a task gives to it, and the checkpoints of a run."""

import hashlib
import json
import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from bilens.base import silent
from bilens.base.errors import CheckpointError, NonFiniteError, NumericalError
from bilens.base.files import file_sha256, new_folder, read_json, write_file
from bilens.base.memory import check_memory
from bilens.io.model_folder import CONFIG_NAME, WEIGHTS_NAME
from bilens.io.tensors import check_names, read_safetensors

Model = TypeVar("Model", bound=nn.Module)
LineT = TypeVar("LineT", bound="Line")
Schedule = Literal["linear", "cosine"]
CHECKPOINTS = "checkpoints"
STATE_NAME, MANIFEST_NAME = "state.safetensors", "manifest.json"
MANIFEST_FIELDS = {"epoch", "step", "seconds", "sha256"}
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what Adam keeps of a weight
MOMENTUM = ("momentum_buffer",)  # what Muon keeps
KEPT = 2  # so that one damaged checkpoint does not end a run


@dataclass(frozen=True)
class Line:
    """One line of a history: the metrics of an epoch."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(eq=False)
class TrainingRun(Generic[Model]):
    """A run in progress, mutable; an epoch is what lies between two lines of the history."""

    model: Model
    optimizer: torch.optim.Optimizer  # Adam, AdamW or Muon
    sums: Tensor  # what the task adds up over the current epoch, float64
    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished in the current epoch
    seconds: float = 0.0  # wall time of the current epoch, evaluation excluded
    extra: dict[str, Tensor] = field(default_factory=dict)  # more that a resumed run needs


class Task(ABC, Generic[Model, LineT]):
    """What is trained: the loop and the run folder ask it for everything that is particular."""

    epochs: int
    about: Mapping[str, Any]  # "recipe" and "data", a fingerprint: only the same run is resumed
    data_noun = "data"  # for messages: "images"
    epoch_noun = "epoch"
    line_type: type[LineT]

    @abstractmethod
    def start(self) -> TrainingRun[Model]:
        """Return the run at its beginning; the same one whenever it is called."""

    @abstractmethod
    def num_steps(self, epoch: int) -> int:
        """Return how many steps an epoch has."""

    @abstractmethod
    def learning_rate(self, epoch: int, step: int) -> float:
        """Return the learning rate of a step, counted from 0 in its epoch."""

    @abstractmethod
    def open_epoch(self, run: TrainingRun[Model]) -> Callable[[], None]:
        """Return what takes step `run.step` of the epoch: update the model, add to `sums`."""

    @abstractmethod
    def metrics(self, run: TrainingRun[Model], rate: float) -> LineT:
        """Return the line of the epoch that has just ended, with the rate of its last step."""

    @abstractmethod
    def save(self, run: TrainingRun[Model], folder: Path, provenance: Mapping[str, str]) -> None:
        """Write the finished model into the run folder, over one that may be there."""

    def disturbed(self, run: TrainingRun[Model]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Return the context in which the model is trained."""
        return nullcontext()

    def stopped(self, run: TrainingRun[Model]) -> bool:  # noqa: ARG002
        """Return whether a run ends before its last epoch."""
        return False

    def finished(self, folder: Path) -> bool:
        return (folder / CONFIG_NAME).exists() and (folder / WEIGHTS_NAME).exists()

    def position(self, epoch: int) -> str:
        """Name an epoch, counted from 1."""
        return f"{self.epoch_noun} {epoch} of {self.epochs}"


def train(
    run: TrainingRun[Model],
    task: Task[Model, LineT],
    after_step: Callable[[TrainingRun[Model]], None] = silent,
) -> Iterator[LineT]:
    """Continue a run to its end; yields a line an epoch."""
    with task.disturbed(run):
        while run.epoch < task.epochs and not task.stopped(run):
            began = time.perf_counter()
            num_steps, take_step = task.num_steps(run.epoch), task.open_epoch(run)
            run.model.train()
            while run.step < num_steps:
                rate = task.learning_rate(run.epoch, run.step)
                for group in run.optimizer.param_groups:
                    group["lr"] = rate
                take_step()
                run.step += 1
                run.seconds += time.perf_counter() - began
                after_step(run)
                began = time.perf_counter()
            line = task.metrics(run, task.learning_rate(run.epoch, num_steps - 1))
            run.epoch, run.step, run.seconds = run.epoch + 1, 0, 0.0
            run.sums = torch.zeros_like(run.sums)
            yield line


def learning_rate(peak: float, schedule: Schedule, warmup: float, step: int, total: int) -> float:
    """Return the rate of a step: up to the peak in the warm-up, a share, then down to zero."""
    rising = math.ceil(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    done, falling = step - rising, total - rising
    if schedule == "linear":
        return peak * (1 - done / falling)
    return peak * (1 + math.cos(math.pi * done / falling)) / 2


def clip_gradient(module: nn.Module, loss: Tensor, limit: float, where: str, peak: float) -> float:
    """Limit the norm of a gradient and return the loss; refuse the step if one is not finite."""
    norm = float(torch.nn.utils.clip_grad_norm_(module.parameters(), limit))
    value = float(loss.detach())
    if not math.isfinite(value) or not math.isfinite(norm):
        raise NumericalError(
            f"the loss {where} (loss {value:g}, gradient {norm:g}): lower the learning rate (it "
            f"is {peak:g})."
        )
    return value


def check_training_memory(num_weights: int, instead: str) -> None:
    """Refuse a model whose weights, gradients and moments, four float32 each, would not fit."""
    check_memory(4 * 4 * num_weights, f"training {num_weights} weights", instead)


def save_checkpoint(run_folder: Path, run: TrainingRun[Model]) -> Path:
    """Write a checkpoint of the run; then remove all but the newest ones up to this step."""
    target = run_folder / CHECKPOINTS / step_name(run.epoch, run.step)
    shutil.rmtree(target, ignore_errors=True)
    tensors = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    for name, parameter in run.model.named_parameters():
        for key, value in run.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = value
    tensors |= {f"extra.{name}": value for name, value in run.extra.items()} | {"sums": run.sums}
    data = to_safetensors({name: value.contiguous() for name, value in tensors.items()})
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


def step_name(epoch: object, step: object) -> str:
    """Return the name of a step's folder: sorted by name is sorted by step."""
    return f"ckpt-{epoch!s:>06}-{step!s:>06}"


def found_checkpoints(run_folder: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    return sorted((run_folder / CHECKPOINTS).glob("ckpt-*"), reverse=True)


def load_checkpoint(run_folder: Path, run: TrainingRun[Model], say: Callable[[str], None]) -> bool:
    """Put a new run where its newest readable checkpoint left off; tell whether there was one."""
    for left_over in (run_folder / CHECKPOINTS).glob(".ckpt-*"):  # of a save that was cut off
        shutil.rmtree(left_over, ignore_errors=True)
    for folder in found_checkpoints(run_folder):
        try:
            restore(folder, run)
        except (CheckpointError, NonFiniteError, OSError) as error:
            say(f"{error} Trying the checkpoint before it.")
        else:
            return True
    return False


def restore(folder: Path, run: TrainingRun[Model]) -> None:
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
    kept = MOMENTUM if isinstance(run.optimizer, torch.optim.Muon) else MOMENTS
    if started:
        expected |= {f"optimizer.{name}.{key}" for name in parameters for key in kept}
    check_names(path, tensors, expected | {"sums"})
    run.model.load_state_dict({name: tensors[f"model.{name}"] for name in state}, strict=True)
    run.optimizer.state.clear()  # of an attempt that was given up
    for name, parameter in parameters.items() if started else ():
        run.optimizer.state[parameter] = {
            key: tensors[f"optimizer.{name}.{key}"].to(parameter.device) for key in kept
        }
    run.epoch, run.step = int(manifest["epoch"]), int(manifest["step"])
    run.seconds = float(manifest["seconds"])
    run.sums = tensors["sums"].to(run.sums.device)
    run.extra = {
        name: tensors[f"extra.{name}"].to(value.device) for name, value in run.extra.items()
    }
