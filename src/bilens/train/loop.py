"""The training loop, what a task gives to it, and the checkpoints of a run."""

import json
import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from bilens.base import silent
from bilens.base.errors import CheckpointError, NonFiniteError, NumericalError
from bilens.base.files import file_sha256, new_folder, read_json, write_file
from bilens.base.memory import check_memory
from bilens.base.option_rules import Schedule
from bilens.io.model_folder import CONFIG_NAME, WEIGHTS_NAME
from bilens.io.tensors import check_names, read_safetensors
from bilens.train.processes import ALONE, Processes, whole_tensor

Model = TypeVar("Model", bound=nn.Module)
LineT = TypeVar("LineT", bound="Line")
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

    @property
    def place(self) -> int:
        """The step that it was taken at, or the epoch where steps are not counted."""
        known = self.to_dict()
        return int(known.get("step", known.get("epoch", 0)))


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
    group: Processes = ALONE
    losses: Sequence[Callable[..., Any]] = ()  # of the group's `learner`
    blank: Model | None = None  # for the weights at the end, of a model that was divided


class TrainingTask(ABC, Generic[Model, LineT]):
    """A kind of training: all that the loop and the run folder do not know themselves."""

    epochs: int
    steps: int  # of an epoch
    about: Mapping[str, Any]  # "recipe" and "data", a fingerprint: only the same run is resumed
    data_noun = "data"  # for messages: "images"
    epoch_noun = "epoch"
    line_type: type[LineT]
    group: Processes = ALONE

    @abstractmethod
    def start(self) -> TrainingRun[Model]:
        """Return the run at its beginning; the same one whenever it is called."""

    def num_steps(self, epoch: int) -> int:  # noqa: ARG002 - all the same, where there are `steps`
        """Return how many steps an epoch has."""
        return self.steps

    @abstractmethod
    def learning_rate(self, epoch: int, step: int) -> float:
        """Return the learning rate of a step, counted from 0 in its epoch."""

    def prepare_epoch(self, run: TrainingRun[Model]) -> Any:
        """Draw the order of an epoch, or all else that its steps share; the same when resumed."""

    @abstractmethod
    def take_step(self, run: TrainingRun[Model], prepared: Any) -> None:
        """Update the model at step `run.step` of an epoch that was prepared, and add to `sums`."""

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
    task: TrainingTask[Model, LineT],
    after_step: Callable[[TrainingRun[Model]], None] = silent,
) -> Iterator[LineT]:
    """Continue a run to its end; yields a line an epoch."""
    with task.disturbed(run):
        while run.epoch < task.epochs and not task.stopped(run):
            began = time.perf_counter()
            num_steps, prepared = task.num_steps(run.epoch), task.prepare_epoch(run)
            run.model.train()
            while run.step < num_steps:
                rate = task.learning_rate(run.epoch, run.step)
                for group in run.optimizer.param_groups:
                    group["lr"] = rate
                task.take_step(run, prepared)
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


def in_parts(batch: Tensor, at_once: int, loss: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yield what adds up to the loss of a batch, of so many texts at once; 0 for all."""
    for part in torch.split(batch, at_once or len(batch)):
        yield loss(part) * (len(part) / len(batch))


def clip_gradient(module: nn.Module, limit: float) -> float:
    """Limit the norm of a gradient and return it."""
    return float(whole_tensor(torch.nn.utils.clip_grad_norm_(module.parameters(), limit)))


def check_step(loss: float, gradient: float, where: str, peak: float) -> None:
    """Refuse a step whose loss or gradient is not finite."""
    if not math.isfinite(loss) or not math.isfinite(gradient):
        raise NumericalError(
            f"the loss {where} (loss {loss:g}, gradient {gradient:g}): lower the learning rate (it "
            f"is {peak:g})."
        )


def check_training_memory(
    num_weights: int, instead: str, device: torch.device | None = None
) -> None:
    """Refuse a model whose weights, gradients and moments, four float32 each, would not fit."""
    what = f"training {num_weights} weights"
    check_memory(4 * 4 * num_weights, what, instead, device=device)


def save_checkpoint(run_folder: Path, run: TrainingRun[Model]) -> Path:
    """Write a checkpoint of the run; then remove all but the newest ones up to this step."""
    target, group = run_folder / CHECKPOINTS / step_name(run.epoch, run.step), run.group
    tensors = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    for name, parameter in run.model.named_parameters():
        for key, value in run.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = value
    tensors |= {f"extra.{name}": value for name, value in run.extra.items()} | {"sums": run.sums}
    with ExitStack() as stack:
        folder = group.on_first(lambda: stack.enter_context(new_folder(target)))
        if group.shard:
            from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
            from torch.distributed.checkpoint.state_dict_saver import save

            save(
                tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True)
            )
        group.on_first(lambda: finish_checkpoint(folder, run, {} if group.shard else tensors))
    group.on_first(lambda: remove_older(run_folder, target))
    return target


def finish_checkpoint(folder: Path, run: TrainingRun[Model], tensors: Mapping[str, Tensor]) -> None:
    """Write what is not in files yet, and the manifest of all."""
    if tensors:
        data = to_safetensors({name: value.contiguous() for name, value in tensors.items()})
        write_file(folder / STATE_NAME, data)
    manifest = {
        "epoch": run.epoch,
        "step": run.step,
        "seconds": run.seconds,
        "sha256": file_sha256(*files_of(folder)),
    }
    write_file(folder / MANIFEST_NAME, json.dumps(manifest, indent=2).encode())


def files_of(folder: Path) -> list[Path]:
    """Return the files of a checkpoint: one, or a part from each process."""
    return sorted(folder.glob("*.safetensors"))


def remove_older(run_folder: Path, target: Path) -> None:
    found = found_checkpoints(run_folder)
    kept = [folder for folder in found if folder.name <= target.name][:KEPT]
    for folder in set(found) - set(kept):
        shutil.rmtree(folder, ignore_errors=True)


def step_name(epoch: object, step: object) -> str:
    """Return the name of a step's folder: sorted by name is sorted by step."""
    return f"ckpt-{epoch!s:>06}-{step!s:>06}"


def found_checkpoints(run_folder: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    return sorted((run_folder / CHECKPOINTS).glob("ckpt-*"), reverse=True)


def load_checkpoint(run_folder: Path, run: TrainingRun[Model], say: Callable[[str], None]) -> bool:
    """Put a new run where its newest readable checkpoint left off; tell whether there was one."""
    for folder in run.group.on_first(lambda: readable_checkpoints(run_folder)):
        try:
            restore(folder, run)
        except (CheckpointError, NonFiniteError, OSError) as error:
            say(f"{error} Trying the checkpoint before it.")
        else:
            return True
    return False


def readable_checkpoints(run_folder: Path) -> list[Path]:
    """Return the checkpoints of a run, without what a save that was cut off has left."""
    for left_over in (run_folder / CHECKPOINTS).glob(".ckpt-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    return found_checkpoints(run_folder)


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint whose files are what it says."""
    manifest = read_json(folder / MANIFEST_NAME)
    fits = set(manifest) == MANIFEST_FIELDS
    if not fits or step_name(manifest["epoch"], manifest["step"]) != folder.name:
        raise CheckpointError(f"{folder / MANIFEST_NAME}: is damaged (it does not fit its folder).")
    paths = files_of(folder)
    try:
        whole = bool(paths) and file_sha256(*paths) == manifest["sha256"]
    except OSError:
        whole = False
    if not whole:
        path = paths[0] if len(paths) == 1 else folder / STATE_NAME
        raise CheckpointError(f"{path}: is missing or damaged (its SHA-256 is not the manifest's).")
    return manifest


def restore(folder: Path, run: TrainingRun[Model]) -> None:
    manifest = run.group.on_first(lambda: manifest_of(folder))
    parameters, state = dict(run.model.named_parameters()), [*run.model.state_dict()]
    kept = MOMENTUM if isinstance(run.optimizer, torch.optim.Muon) else MOMENTS
    tensors = read_state(folder, run, kept)
    started = any(name.startswith("optimizer.") for name in tensors)
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


def read_state(folder: Path, run: TrainingRun[Model], kept: Sequence[str]) -> Mapping[str, Tensor]:
    """Return the tensors of a checkpoint, of this process's part where the run is divided."""
    path, whole = folder / STATE_NAME, {"sums": run.sums}
    whole |= {f"model.{name}": value for name, value in run.model.state_dict().items()}
    whole |= {f"extra.{name}": value for name, value in run.extra.items()}
    moments = {
        f"optimizer.{name}.{key}": torch.zeros(()) if key == "step" else parameter
        for name, parameter in run.model.named_parameters()
        for key in kept
    }
    if plain := path.exists() and not run.group.shard:
        found, _ = read_safetensors(path)
    else:  # parts, of as many processes as there were; or for as many as there are
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
        from torch.distributed.checkpoint.state_dict_loader import load

        reader = HuggingFaceStorageReader(str(folder))
        found = dict.fromkeys(reader.read_metadata().state_dict_metadata, run.sums)
    if any(name.startswith("optimizer.") for name in found):
        whole |= moments
    check_names(path, found, whole)
    if not plain:
        found = {name: torch.zeros_like(value) for name, value in whole.items()}
        load(found, storage_reader=reader, no_dist=not run.group.shard)
    return found
