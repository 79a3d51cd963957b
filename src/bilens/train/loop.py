"""The training loop, and what a task gives to it: batches, losses and metrics."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from bilens.base import silent
from bilens.base.errors import NumericalError
from bilens.base.memory import check_memory
from bilens.io.model_folder import CONFIG_NAME, WEIGHTS_NAME

Model = TypeVar("Model", bound=nn.Module)
LineT = TypeVar("LineT", bound="Line")
Schedule = Literal["linear", "cosine"]


@dataclass(frozen=True)
class Line:
    """One line of a history: the metrics of an epoch. Fields come with the task."""

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return asdict(self)


@dataclass(eq=False)
class TrainingRun(Generic[Model]):
    """A training run in progress: the one mutable object of this layer."""

    model: Model
    optimizer: torch.optim.Optimizer  # Adam or AdamW
    sums: Tensor  # what the task adds up over the current epoch, float64
    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished in the current epoch
    seconds: float = 0.0  # wall time of the current epoch, evaluation excluded
    extra: dict[str, Tensor] = field(default_factory=dict)  # more that a resumed run needs


class Task(ABC, Generic[Model, LineT]):
    """What is trained: the loop and the run folder ask it for everything that is particular."""

    epochs: int
    about: Mapping[str, Any]
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

    def finished(self, folder: Path) -> bool:
        """Tell whether a run folder holds a finished model."""
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
        while run.epoch < task.epochs:
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
    """Return the rate of a step: up to the peak over the warm-up, then down towards zero."""
    rising = math.ceil(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    done, falling = step - rising, total - rising
    if schedule == "linear":
        return peak * (1 - done / falling)
    return peak * (1 + math.cos(math.pi * done / falling)) / 2


def clip_gradient(module: nn.Module, loss: Tensor, limit: float, where: str, peak: float) -> float:
    """Limit the norm of a gradient to `limit`, and return the loss as a number."""
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
