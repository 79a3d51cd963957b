"""Weights that are read at the end of each epoch of a training with another library.

Each function returns a callback of that library. It logs numbers of the layers that bilens reads to
the library's own loggers, or to a tracker, and leaves the training as it would be without it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bilens.base.checks import check_count
from bilens.base.errors import UsageError, first_line, optional_package
from bilens.findings.layer_reading import layer_numbers
from bilens.io.load import from_module, load
from bilens.io.loaded_model import LoadedModel
from bilens.train.trackers import Tracker

__all__ = ["keras", "lightning", "transformers"]


def __dir__() -> list[str]:
    return __all__


@dataclass(eq=False)
class EpochReader:
    """Reads layers at the end of an epoch; it raises nothing, and leaves random numbers alone."""

    layers: Sequence[str] | None
    every: int
    tracker: Tracker | None
    open_model: Callable[[Any], LoadedModel]
    again: bool  # whether a model is opened each time, or its layers are those of the moment
    opened: LoadedModel | None = None
    seen: list[Any] = field(default_factory=list)  # the model that was opened, and its parameters
    said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.every = check_count("every", self.every, 1)
        if isinstance(self.layers, str):
            self.layers = [self.layers]

    def read_epoch(
        self, model: Any, epoch: int, step: int, log: Callable[[dict[str, float]], Any]
    ) -> None:
        """Read a model after an epoch, counted from 1, and log its numbers."""
        if epoch % self.every or type(model).__name__ in self.said:
            return
        devices = [*range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):
                numbers = self.numbers_of(model)
            if numbers and self.tracker is not None:
                self.tracker.log(step, numbers, {})
            elif numbers:
                log(numbers)
        except Exception as error:  # a training is worth more than a look at it
            self.say_once(type(model).__name__, f"is not read: {first_line(error)}")

    def numbers_of(self, model: Any) -> dict[str, float]:
        seen = [model] if self.again else [model, *model.parameters()]
        if self.opened is None or self.again or [*map(id, seen)] != [*map(id, self.seen)]:
            self.opened, self.seen = self.open_model(model), seen
        known, found = self.opened.layers, dict[str, float]()
        wanted = [*known] if self.layers is None else self.layers
        if missing := [name for name in wanted if name not in known]:
            there = ", ".join(known) or "none"
            raise UsageError(f"there is no layer {', '.join(missing)}; its layers are {there}")
        for name in wanted:
            try:
                numbers = layer_numbers(known[name])
            except Exception as error:  # the others are read all the same
                self.say_once(name, f"is not read: {first_line(error)}")
            else:
                found |= {f"bilens/{name}/{key}": value for key, value in numbers.items()}
        return found

    def say_once(self, name: str, sentence: str) -> None:
        if name not in self.said:
            logging.getLogger("bilens").warning("%s %s. The training goes on.", name, sentence)
        self.said.add(name)


def transformers(
    trainer: Any,
    *,
    layers: Sequence[str] | None = None,
    every: int = 1,
    tracker: Tracker | None = None,
) -> Any:
    """Return a callback for the `Trainer` of transformers: `trainer.add_callback(...)`.

    Args:
        trainer: whose `log` is told the numbers, and with it all that it reports to.
        layers: names of those that are read, as in `bl.from_module(model).layers`; None is all.
        every: epochs between two readings; each takes a decomposition of every layer.
        tracker: is told instead, by `log(step, numbers, figures)`.
    """
    library = optional_package("transformers", "huggingface", "bl.callbacks.transformers")
    reader = EpochReader(layers, every, tracker, from_module, again=False)

    class TransformersWeights(library.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_epoch_end(
            self, _args: Any, state: Any, control: Any, model: Any = None, **_: Any
        ) -> None:
            wanted = control.should_log  # a log takes it back, and the loss of the epoch is behind
            if state.is_world_process_zero:
                reader.read_epoch(model, round(state.epoch), state.global_step, trainer.log)
            control.should_log = wanted

    return TransformersWeights()


def lightning(
    *, layers: Sequence[str] | None = None, every: int = 1, tracker: Tracker | None = None
) -> Any:
    """Return a callback for the `Trainer` of Lightning; the options are those of `transformers`."""
    old = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
    names = ("pytorch_lightning",) if old else ("lightning.pytorch", "lightning")
    library = optional_package(names[-1], "", "bl.callbacks.lightning", *names[:-1])
    reader = EpochReader(layers, every, tracker, from_module, again=False)

    class LightningWeights((library if old else library.pytorch).Callback):  # type: ignore[misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            def log(numbers: dict[str, float]) -> None:
                for logger in trainer.loggers:
                    logger.log_metrics(numbers, step=trainer.global_step)

            if trainer.is_global_zero:
                reader.read_epoch(pl_module, trainer.current_epoch + 1, trainer.global_step, log)

    return LightningWeights()


def keras(
    *, layers: Sequence[str] | None = None, every: int = 1, tracker: Tracker | None = None
) -> Any:
    """Return a callback for `fit` of Keras; the options are those of `transformers`.

    Numbers go into the logs of the epoch: into the history, and to the callbacks behind this one.
    """
    library = optional_package("keras", "keras", "bl.callbacks.keras")
    reader = EpochReader(layers, every, tracker, saved_keras, again=True)

    class KerasWeights(library.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            known = {} if logs is None else logs
            reader.read_epoch(self.model, epoch + 1, epoch + 1, known.update)

    return KerasWeights()


def saved_keras(model: Any) -> LoadedModel:
    """Read a model of Keras through the file that it saves; its weights are read at once."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return load(path)
