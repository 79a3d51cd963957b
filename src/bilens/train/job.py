"""What a run folder needs to know of a training run, whatever is trained.

A kind of training is a loop and a `TrainingJob`; checkpoints, interruption, resuming and
overwriting are the same for all of them (`run_folder`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from bilens.io.model_folder import CONFIG_NAME, WEIGHTS_NAME

Model = TypeVar("Model", bound=nn.Module)
LineT = TypeVar("LineT", bound="Line")


class Line(Protocol):
    """One line of a history: the metrics of an epoch, as JSON values."""

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON values."""


@dataclass(eq=False)
class TrainingRun(Generic[Model]):
    """A training run in progress: the one mutable object of this layer.

    An epoch is what lies between two lines of the history.

    Attributes:
        model: what is trained.
        optimizer: its Adam or AdamW.
        epoch: epochs finished.
        step: steps finished in the current epoch.
        sums: what the loop sums over the current epoch, float64.
        seconds: wall time of the current epoch so far.
        extra: further tensors that a resumed run needs, under names that never change.
    """

    model: Model
    optimizer: torch.optim.Optimizer
    epoch: int
    step: int
    sums: Tensor
    seconds: float
    extra: dict[str, Tensor] = field(default_factory=dict)


class TrainingJob(ABC, Generic[Model, LineT]):
    """A training run from its beginning to its model, for `run_in_folder`.

    Attributes:
        epochs: after which the run is done.
        about: {"recipe": ..., "data": fingerprint}; a run is resumed only where both are the same.
        data_noun: what the data are, for messages: "images".
    """

    epochs: int
    about: Mapping[str, Any]
    data_noun: str

    @abstractmethod
    def start(self) -> TrainingRun[Model]:
        """Return the run at its beginning; the same one whenever it is called."""

    @abstractmethod
    def train(
        self, run: TrainingRun[Model], after_step: Callable[[TrainingRun[Model]], None]
    ) -> Iterator[LineT]:
        """Continue a run to its end, yielding a line an epoch.

        `after_step` is called after each step; what it raises ends the run in a consistent state.
        A step is a function of its place: wherever the run was broken off, it goes on as if not.
        """

    @abstractmethod
    def line(self, content: dict[str, Any]) -> LineT:
        """Return the line of `to_dict`; TypeError if it is none."""

    @abstractmethod
    def save(self, run: TrainingRun[Model], folder: Path, provenance: Mapping[str, str]) -> None:
        """Write the finished model into the run folder, over one that may be there."""

    def finished(self, folder: Path) -> bool:
        """Tell whether a run folder holds a finished model."""
        return (folder / CONFIG_NAME).exists() and (folder / WEIGHTS_NAME).exists()

    def current(self, run: TrainingRun[Model]) -> str:
        """Name the place where a run is."""
        return f"epoch {run.epoch + 1}"

    def reached(self, run: TrainingRun[Model]) -> str:
        """Name what a run has behind it."""
        return f"epoch {run.epoch}, step {run.step}"
