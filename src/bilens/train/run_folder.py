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

from filelock import FileLock, Timeout

from bilens.base.atomic import write_error, write_file
from bilens.base.errors import (
    CheckpointError,
    InterruptedRunError,
    NumericalError,
    OutputExistsError,
    UsageError,
)
from bilens.io.config import read_json
from bilens.io.model_folder import CONFIG_NAME
from bilens.train.checkpoint import (
    FOLDER as CHECKPOINTS,
    found_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from bilens.train.job import Line, LineT, Model, TrainingJob, TrainingRun
from bilens.train.run_files import (
    EARLIER_NAME,
    HISTORY_NAME,
    MOVING_NAME,
    OWN_FILES,
    RUN_NAME,
    earlier_run_kept,
)

LOCK_NAME = ".lock"
SECONDS_BETWEEN_CHECKPOINTS = 30.0


@dataclass(frozen=True, eq=False)
class TrainingResult(Generic[LineT]):
    """A finished run.

    Attributes:
        folder: where the model is.
        history: the metrics of every epoch.
    """

    folder: Path
    history: tuple[LineT, ...]


def run_in_folder(
    folder: Path,
    job: TrainingJob[Model, LineT],
    *,
    resume: bool = False,
    overwrite: bool = False,
    provenance: Mapping[str, str] | None = None,
    on_epoch: Callable[[LineT], None] = lambda _line: None,
    say: Callable[[str], None] = lambda _text: None,
) -> TrainingResult[LineT]:
    """Train what a job says, and leave its model in a folder.

    Ctrl-C finishes the current step, writes a checkpoint and raises; the same call with
    `resume=True` goes on to the same weights, bit for bit, at the same number of threads. A run
    that is finished is left as it is.

    Args:
        folder: gets `run.json`, `history.jsonl`, `checkpoints/` and, at the end, the model.
        job: what is trained, on what, and how.
        resume: whether to continue the run in the folder; recipe and data must be the same.
        overwrite: whether a run that is already there may be replaced; `.earlier` in the folder
            keeps it until the new one is done.
        provenance: saved with the weights, beside recipe and data.
        on_epoch: called after each epoch, those before a resume excluded.
        say: told what a person should know.

    Raises:
        OutputExistsError: If the folder holds something and neither flag is given.
        UsageError: If the run in the folder has another recipe or other data, or is being written.
        CheckpointError: If there is no run to resume, or its files do not fit each other.
        InterruptedRunError: After Ctrl-C.
        NumericalError: If the loss is no longer finite; the newest checkpoint stays.
        DiskError: If the disk is full.
        FileError: If the folder cannot be written to.
    """
    check_folder(folder, job.about, resume, overwrite, job.data_noun)
    run = job.start()
    with locked(folder), earlier_run_kept(folder, resume):
        clear(folder)
        history = resume_run(folder, job, run, say) if resume else []
        if run.epoch == job.epochs and job.finished(folder):
            say(f"{folder} is finished: nothing is left to do.")
            return TrainingResult(folder, tuple(history))
        write_file(folder / RUN_NAME, json.dumps(dict(job.about), indent=2).encode())
        write_history(folder, history)
        with interruptible() as interrupted, last_state_named(folder):
            saver = _Saver(folder, job, interrupted)
            for line in job.train(run, saver.after_step):
                history.append(line)
                write_history(folder, history)
                on_epoch(line)
                saver.after_epoch(run)
        saver.finish(run)  # what was trained outlives a model that cannot be saved
        job.save(run, folder, provenance or {})
    return TrainingResult(folder, tuple(history))


class _Saver:
    """Writes checkpoints: now and then, and when the run is interrupted."""

    def __init__(
        self, folder: Path, job: TrainingJob[Any, Any], interrupted: threading.Event
    ) -> None:
        self.folder, self.job, self.interrupted = folder, job, interrupted
        begun = found_checkpoints(folder / CHECKPOINTS)
        self.last = time.monotonic() if begun else -math.inf  # the first epoch is kept at once
        self.saved = -1  # epochs in the newest checkpoint written here

    def after_step(self, run: TrainingRun[Any]) -> None:
        if self.interrupted.is_set():
            save_checkpoint(self.folder, run)
            aside = self.folder / EARLIER_NAME
            earlier = f" Until then {aside} keeps the run that it overwrites."
            raise InterruptedRunError(
                f"Interrupted in {self.job.current(run)}; {self.folder} is saved: repeat the "
                f"command with --resume to go on.{earlier if aside.exists() else ''}"
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
        found = found_checkpoints(folder / CHECKPOINTS)
        if not found or (folder / EARLIER_NAME).exists():  # the earlier run takes its place
            raise
        raise NumericalError(f"{error} The state before it is kept: {found[0]}.") from None


def resume_run(
    folder: Path,
    job: TrainingJob[Model, LineT],
    run: TrainingRun[Model],
    say: Callable[[str], None],
) -> list[LineT]:
    """Bring a new run to where the one in the folder left off; return the epochs up to there.

    Raises:
        CheckpointError: If the history lacks some of them.
    """
    if load_checkpoint(folder, run, say):
        say(f"Continuing {folder} after {job.reached(run)}.")
    else:
        say(f"{folder} has no checkpoint yet: starting at the beginning.")
    history = read_history(folder, job)[: run.epoch]
    if len(history) < run.epoch:
        raise CheckpointError(
            f"{folder / HISTORY_NAME}: holds {len(history)} epochs, the checkpoint "
            f"{run.epoch}: restore the file, or start again with --overwrite."
        )
    return history


def check_folder(
    folder: Path, about: Mapping[str, Any], resume: bool, overwrite: bool, data_noun: str = "data"
) -> None:
    """Refuse a folder that may not be written to; nothing is changed."""
    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite removes it: give one of them.")
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file; expected a folder for the run.")
    if resume:
        check_same_run(folder, about, data_noun)
        return
    content = sorted(item.name for item in folder.iterdir()) if folder.exists() else []
    content = [name for name in content if not is_left_over(name)]
    if content and not overwrite:
        raise OutputExistsError(
            f"{folder} already holds files ({', '.join(content[:4])}): choose another "
            "folder, continue that run with --resume, or replace it with --overwrite."
        )
    if content and not set(content) & {RUN_NAME, CONFIG_NAME, EARLIER_NAME, MOVING_NAME}:
        raise OutputExistsError(
            f"{folder} holds files that are not a run of bilens ({', '.join(content[:4])}) "
            "and is not overwritten: choose another folder."
        )


def is_left_over(name: str) -> bool:
    """Tell whether a file is a lock, or was staged by a write that a killed process began."""
    staged = tuple(f".{own}." for own in (*OWN_FILES, LOCK_NAME))
    return name == LOCK_NAME or name.startswith(staged)


def clear(folder: Path) -> None:
    """Remove what killed writes left over."""
    try:
        for item in folder.iterdir():
            if item.name != LOCK_NAME and is_left_over(item.name):
                item.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def check_same_run(folder: Path, about: Mapping[str, Any], data_noun: str) -> None:
    """Refuse to resume a run of another recipe or other data, naming what differs."""
    if not (folder / RUN_NAME).exists():
        raise CheckpointError(
            f"{folder}: holds no run to resume ({RUN_NAME} is missing): start it without --resume."
        )
    before = read_json(folder / RUN_NAME)
    old, new = before.get("recipe"), about["recipe"]
    if not isinstance(old, dict):
        raise CheckpointError(f"{folder / RUN_NAME}: is damaged (it holds no recipe).")
    differing = [name for name in new if old.get(name) != new[name]]
    if differing:
        raise UsageError(
            f"{folder} was started with "
            + ", ".join(f"{name}={old.get(name)!r}" for name in differing)
            + "; this command says "
            + ", ".join(f"{name}={new[name]!r}" for name in differing)
            + ": resume with the options it was started with, or choose another folder."
        )
    if before.get("data") != about["data"]:
        raise UsageError(
            f"{folder} was started on other {data_noun} (the SHA-256 differs): resume with "
            "those, or choose another folder."
        )


def read_history(folder: Path, job: TrainingJob[Model, LineT]) -> list[LineT]:
    """Return the lines of the history; a line that was cut off ends it."""
    path = folder / HISTORY_NAME
    lines = path.read_text().splitlines() if path.exists() else []
    history = []
    for line in lines:
        try:
            history.append(job.line(json.loads(line)))
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process from writing to the same run; the system frees it with the process.

    Raises:
        UsageError: If another process holds the lock.
        FileError: If the folder cannot be written to.
    """
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"{folder} is being written by another process: wait for it, or choose another folder."
        ) from None
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield
    finally:
        (folder / LOCK_NAME).unlink(missing_ok=True)  # held still, so nobody else can have it
        lock.release()
