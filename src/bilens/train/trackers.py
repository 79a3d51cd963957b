"""Trackers of experiments: TensorBoard, W&B, trackio and MLflow take the lines of a training."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, get_args
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from bilens.base.errors import (
    InterruptedRunError,
    UsageError,
    first_line,
    optional_package,
)
from bilens.base.files import read_json, write_file
from bilens.base.option_rules import TrackerName

TRACKING_NAME, EVENTS = "tracking.json", "tensorboard"  # in a run folder: what was told; a folder
PROJECT = "bilens"  # where the tracker's own variable names no other
EXTRA = "tracking"

Picture: TypeAlias = NDArray[np.uint8]  # (height, width, 3)


class Tracker(Protocol):
    """Takes the numbers and pictures of a training, step by step."""

    def log(
        self, step: int, numbers: Mapping[str, float], figures: Mapping[str, Picture]
    ) -> None: ...


class TensorBoardTracker:
    """Event files in the folder of the run."""

    def __init__(self, folder: Path, _recipe: Mapping[str, Any], _run: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run, self.writer = EVENTS, SummaryWriter(str(folder / EVENTS))

    def log(self, step: int, numbers: Mapping[str, float], figures: Mapping[str, Picture]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        for name, picture in figures.items():
            self.writer.add_image(name, picture, step, dataformats="HWC")
        self.writer.flush()

    def close(self, _status: str) -> None:
        self.writer.close()


class WandbTracker:
    """A run of Weights & Biases."""

    package: TrackerName = "wandb"

    def __init__(self, folder: Path, recipe: Mapping[str, Any], run: str) -> None:
        self.library = optional_package(self.package, EXTRA, f"--track {self.package}")
        self.run = run or f"{folder.name}-{uuid4().hex[:8]}"
        project = os.environ.get(f"{self.package.upper()}_PROJECT", PROJECT)
        how = {"name": self.run, "config": dict(recipe), "resume": "allow"}
        if self.package == "wandb":  # a run that is open in this process stays as it is
            how |= {"id": self.run, "reinit": "create_new"}
        # in a context of its own trackio sees no open run that it would finish
        self.open: Any = Context().run(self.library.init, project=project, **how)

    def log(self, step: int, numbers: Mapping[str, float], figures: Mapping[str, Picture]) -> None:
        images = {name: self.library.Image(picture) for name, picture in figures.items()}
        self.open.log({**numbers, **images}, step=step)

    def close(self, status: str) -> None:
        self.open.finish(exit_code=0 if status == "FINISHED" else 1)


class TrackioTracker(WandbTracker):
    """A run of trackio, which is called as W&B is."""

    package = "trackio"

    def close(self, _status: str) -> None:
        self.open.finish()


class MLflowTracker:
    """A run of MLflow, in the experiment and at the address that its variables name."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any], run: str) -> None:
        self.library = optional_package("mlflow", EXTRA, "--track mlflow")
        how = {"run_id": run} if run else {"run_name": folder.name}
        self.run = str(self.library.start_run(nested=True, **how).info.run_id)
        if not run:
            self.library.log_params(dict(recipe))

    def log(self, step: int, numbers: Mapping[str, float], figures: Mapping[str, Picture]) -> None:
        self.library.log_metrics(dict(numbers), step=step, run_id=self.run)
        for name, picture in figures.items():
            self.library.log_image(picture, key=name, step=step, synchronous=True)

    def close(self, status: str) -> None:
        self.library.end_run(status)


TRACKERS: Mapping[str, Any] = dict(
    zip(
        get_args(TrackerName),
        (TensorBoardTracker, WandbTracker, TrackioTracker, MLflowTracker),
        strict=True,
    )
)
Chosen: TypeAlias = TrackerName | Tracker | Sequence[TrackerName | Tracker]


def check_trackers(given: Any) -> tuple[TrackerName | Tracker, ...]:
    """Return trackers as a tuple; refuse what is none, or whose package is not installed."""
    several = isinstance(given, list | tuple)
    chosen = given if several else [] if given is None else [given]
    for one in chosen:
        if isinstance(one, str) and one in TRACKERS:
            optional_package(one, EXTRA, f"--track {one}")
        elif isinstance(one, str) or not callable(getattr(one, "log", None)):
            raise UsageError(
                f"tracker is {one!r}; expected one of {', '.join(get_args(TrackerName))}, or an "
                "object with log(step, numbers, figures)."
            )
    return tuple(dict.fromkeys(chosen))


def numbers_in(line: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """Return the numbers of a line of a history by name, those of a mapping as name/key."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= numbers_in(value, f"{before}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[before + name] = float(value)
    return found


@dataclass(eq=False)
class Telling:
    """The trackers of a run that is going on, and the last step that each was told."""

    folder: Path
    say: Callable[[str], None]
    open: dict[str, Any]
    told: dict[str, dict[str, Any]]  # name → run and step

    def log(
        self,
        step: int,
        line: Mapping[str, Any],
        figures: Callable[[], Mapping[str, Picture]] = dict,
    ) -> None:
        """Tell a line to each tracker that does not know its step; one that fails is left out."""
        waiting = [name for name in self.open if step > self.told[name]["step"]]
        drawn = figures() if waiting else {}
        for name in waiting:
            try:
                self.open[name].log(step, numbers_in(line), drawn)
            except Exception as error:  # the training is worth more than its curve
                del self.open[name]
                self.say(f"{name} failed ({first_line(error)}): the training goes on without it.")
            else:
                self.told[name]["step"] = step
                self.remember()

    def log_lines(self, lines: Iterable[Any]) -> None:
        """Tell the lines of a history, of which a tracker that is new knows none."""
        for line in lines:
            self.log(line.place, line.to_dict())

    def remember(self) -> None:
        write_file(self.folder / TRACKING_NAME, json.dumps(self.told, indent=2).encode())


@contextmanager
def tracked(
    folder: Path,
    given: Sequence[TrackerName | Tracker],
    recipe: Mapping[str, Any],
    say: Callable[[str], None],
    last: float = math.inf,
) -> Iterator[Telling]:
    """Open trackers for the run in a folder, and close those that were named, however it ends.

    Those that were told the step `last` already stay closed.
    """
    path = folder / TRACKING_NAME
    told = read_json(path) if given and path.exists() else {}
    telling = Telling(folder, say, {}, told)
    status, opened, counts = "FAILED", list[Any](), Counter[str]()
    with ExitStack() as stack:
        stack.callback(lambda: close_all(opened, status, say))
        for one in given:
            name = one if isinstance(one, str) else type(one).__name__
            counts[name] += 1
            if counts[name] > 1:  # of one class, in their order
                name = f"{name} {counts[name]}"
            known = told.setdefault(name, {"run": "", "step": -1})
            if known["step"] >= last:
                continue
            telling.open[name] = one
            if isinstance(one, str):
                made = open_tracker(one, folder, recipe, known["run"])
                telling.open[name], known["run"] = made, made.run
                opened.append(made)
            telling.remember()
        try:
            yield telling
        except (InterruptedRunError, KeyboardInterrupt):
            status = "KILLED"
            raise
        status = "FINISHED"


def open_tracker(name: TrackerName, folder: Path, recipe: Mapping[str, Any], run: str) -> Any:
    """Return an open tracker; UsageError if it does not start, as without a login."""
    try:
        with redirect_stdout(sys.stderr):  # where trackio greets; stdout is the result's
            return TRACKERS[name](folder, recipe, run)
    except Exception as error:
        raise UsageError(
            f"{name} does not start ({first_line(error)}): log in or set it up as its own pages "
            "say, or leave out --track."
        ) from error


def close_all(opened: Sequence[Any], status: str, say: Callable[[str], None]) -> None:
    """Close trackers; what one cannot keep is said, and takes nothing from the run."""
    for tracker in reversed(opened):
        try:
            with redirect_stdout(sys.stderr):
                tracker.close(status)
        except Exception as error:
            say(f"{type(tracker).__name__} did not close ({first_line(error)}).")
