"""A training run in a folder: what it needs to be interrupted, resumed and read later."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic

from bilens.base import silent
from bilens.base.errors import CheckpointError, InterruptedRunError, NumericalError
from bilens.base.files import write_file
from bilens.train.checkpoint import found_checkpoints, load_checkpoint, save_checkpoint
from bilens.train.loop import Line, LineT, Model, Task, TrainingRun, train
from bilens.train.run_files import (
    EARLIER_NAME,
    HISTORY_NAME,
    RUN_NAME,
    check_folder,
    written_by_us,
)

SECONDS_BETWEEN_CHECKPOINTS = 30.0


@dataclass(frozen=True, eq=False)
class TrainingResult(Generic[LineT]):
    """A finished run: where the model is, and the metrics of every epoch."""

    folder: Path
    history: tuple[LineT, ...]


def run_in_folder(
    folder: Path,
    task: Task[Model, LineT],
    *,
    resume: bool = False,
    overwrite: bool = False,
    provenance: Mapping[str, str] | None = None,
    on_epoch: Callable[[LineT], None] = silent,
    say: Callable[[str], None] = silent,
) -> TrainingResult[LineT]:
    """Train, and leave `run.json`, `history.jsonl`, `checkpoints/` and the model in a folder."""
    check_folder(folder, task.about, resume, overwrite, task.data_noun)
    run = task.start()
    with written_by_us(folder, resume):
        history = resume_run(folder, task, run, say) if resume else []
        if run.epoch == task.epochs and task.finished(folder):
            say(f"{folder} is finished: nothing is left to do.")
            return TrainingResult(folder, tuple(history))
        write_file(folder / RUN_NAME, json.dumps(dict(task.about), indent=2).encode())
        write_history(folder, history)
        with interruptible() as interrupted, last_state_named(folder):
            saver = _Saver(folder, task, interrupted)
            for line in train(run, task, saver.after_step):
                history.append(line)
                write_history(folder, history)
                on_epoch(line)
                saver.after_epoch(run)
        saver.finish(run)  # what was trained outlives a model that cannot be saved
        task.save(run, folder, provenance or {})
    return TrainingResult(folder, tuple(history))


class _Saver:
    """Writes checkpoints: now and then, and when the run is interrupted."""

    def __init__(self, folder: Path, task: Task[Any, Any], interrupted: threading.Event) -> None:
        self.folder, self.task, self.interrupted = folder, task, interrupted
        begun = found_checkpoints(folder)
        self.last = time.monotonic() if begun else -math.inf  # the first epoch is kept at once
        self.saved = -1  # epochs in the newest checkpoint written here

    def after_step(self, run: TrainingRun[Any]) -> None:
        if self.interrupted.is_set():
            save_checkpoint(self.folder, run)
            aside = self.folder / EARLIER_NAME
            earlier = f" Until then {aside} keeps the run that it overwrites."
            raise InterruptedRunError(
                f"Interrupted in {self.task.position(run.epoch + 1)}; {self.folder} is saved: "
                f"repeat the command with --resume to go on.{earlier if aside.exists() else ''}"
            )

    def after_epoch(self, run: TrainingRun[Any]) -> None:
        if time.monotonic() - self.last > SECONDS_BETWEEN_CHECKPOINTS:
            save_checkpoint(self.folder, run)
            self.last, self.saved = time.monotonic(), run.epoch

    def finish(self, run: TrainingRun[Any]) -> None:
        if self.saved != run.epoch:
            save_checkpoint(self.folder, run)


@contextmanager
def last_state_named(folder: Path) -> Iterator[None]:
    """Say which state is kept where a loss was no longer finite."""
    try:
        yield
    except NumericalError as error:
        found = found_checkpoints(folder)
        if not found or (folder / EARLIER_NAME).exists():  # the earlier run takes its place
            raise
        raise NumericalError(f"{error} The state before it is kept: {found[0]}.") from None


def resume_run(
    folder: Path,
    task: Task[Model, LineT],
    run: TrainingRun[Model],
    say: Callable[[str], None],
) -> list[LineT]:
    """Bring a new run to where the one in the folder left off; return the epochs up to there."""
    if load_checkpoint(folder, run, say):
        say(f"Continuing {folder} after {task.position(run.epoch)}, step {run.step}.")
    else:
        say(f"{folder} has no checkpoint yet: starting at the beginning.")
    history = read_history(folder, task)[: run.epoch]
    if len(history) < run.epoch:
        raise CheckpointError(
            f"{folder / HISTORY_NAME}: holds {len(history)} epochs, the checkpoint "
            f"{run.epoch}: restore the file, or start again with --overwrite."
        )
    return history


def read_history(folder: Path, task: Task[Model, LineT]) -> list[LineT]:
    """Return the lines of the history; a line that was cut off ends it."""
    path = folder / HISTORY_NAME
    history = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            history.append(task.line_type(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return history


def write_history(folder: Path, history: Sequence[Line]) -> None:
    """Write the history as JSON lines, whole."""
    text = "".join(json.dumps(line.to_dict()) + "\n" for line in history)
    write_file(folder / HISTORY_NAME, text.encode())


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event; the second one interrupts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals belong to the main thread
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(_number: int, _frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
