"""A training run in a folder: what it needs to be interrupted, resumed and read later."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from bilens.atomic import write_error, write_file
from bilens.data.images import ImageDataset
from bilens.errors import CheckpointError, InterruptedRunError, OutputExistsError, UsageError
from bilens.io.config import read_json
from bilens.io.model_folder import CONFIG_NAME, WEIGHTS_NAME, save
from bilens.train.checkpoint import load_checkpoint, save_checkpoint
from bilens.train.loop import EpochMetrics, Run, start_run, steps_per_epoch, train
from bilens.train.recipe import Recipe
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
class TrainingResult:
    """A finished run.

    Attributes:
        folder: where the model is.
        history: the metrics of every epoch.
    """

    folder: Path
    history: tuple[EpochMetrics, ...]


def train_in_folder(
    folder: Path,
    data: ImageDataset,
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    provenance: Mapping[str, str] | None = None,
    on_epoch: Callable[[EpochMetrics], None] = lambda _metrics: None,
    say: Callable[[str], None] = lambda _text: None,
) -> TrainingResult:
    """Train a classifier and leave a model folder.

    Ctrl-C finishes the current step, writes a checkpoint and raises; the same call with
    `resume=True` goes on to the same weights, bit for bit, at the same number of threads. A run
    that is finished is left as it is.

    Args:
        folder: gets `run.json`, `history.jsonl`, `checkpoints/` and, at the end, the model.
        data: the images.
        recipe: how to train.
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
        NumericalError: If the loss is no longer finite.
        DiskError: If the disk is full.
        FileError: If the folder cannot be written to.
    """
    recipe = recipe.resolved()
    steps_per_epoch(recipe, len(data.train_images))  # refused before a folder is touched
    about = {"recipe": recipe.to_dict(), "data": data.fingerprint}
    check_folder(folder, about, resume, overwrite)
    run = start_run(recipe, data.train_images.shape[1], len(data.class_names))
    with locked(folder), earlier_run_kept(folder, resume):
        clear(folder)
        history = resume_run(folder, run, say) if resume else []
        if run.epoch == recipe.epochs and has_model(folder):
            say(f"{folder} is finished: nothing is left to do.")
            return TrainingResult(folder, tuple(history))
        write_file(folder / RUN_NAME, json.dumps(about, indent=2).encode())
        write_history(folder, history)
        with interruptible() as interrupted:
            saver = _Saver(folder, interrupted)
            for metrics in train(run, data, recipe, saver.after_step):
                history.append(metrics)
                write_history(folder, history)
                on_epoch(metrics)
                saver.after_epoch(run)
        saver.finish(run)  # what was trained outlives a model that cannot be saved
        details = {"recipe": json.dumps(recipe.to_dict()), "data_source": data.source}
        details |= {"data_sha256": data.fingerprint, "data_name": data.name}
        save(
            run.model,
            folder,
            input_shape=data.image_shape,
            output_names=data.class_names,
            provenance={**details, "seed": str(recipe.seed), **(provenance or {})},
            overwrite=True,
        )
    return TrainingResult(folder, tuple(history))


class _Saver:
    """Writes checkpoints: now and then, and when the run is interrupted."""

    def __init__(self, folder: Path, interrupted: threading.Event) -> None:
        self.folder, self.interrupted = folder, interrupted
        self.last = time.monotonic()
        self.saved = -1  # epochs in the newest checkpoint written here

    def after_step(self, run: Run) -> None:
        if self.interrupted.is_set():
            save_checkpoint(self.folder, run)
            aside = self.folder / EARLIER_NAME
            earlier = f" Until then {aside} keeps the run that it overwrites."
            raise InterruptedRunError(
                f"Interrupted in epoch {run.epoch + 1}; {self.folder} is saved: repeat the "
                f"command with --resume to go on.{earlier if aside.exists() else ''}"
            )

    def after_epoch(self, run: Run) -> None:
        if time.monotonic() - self.last > SECONDS_BETWEEN_CHECKPOINTS:
            save_checkpoint(self.folder, run)
            self.last, self.saved = time.monotonic(), run.epoch

    def finish(self, run: Run) -> None:
        if self.saved != run.epoch:
            save_checkpoint(self.folder, run)


def resume_run(folder: Path, run: Run, say: Callable[[str], None]) -> list[EpochMetrics]:
    """Bring a new run to where the one in the folder left off; return the epochs up to there.

    Raises:
        CheckpointError: If the history lacks some of them.
    """
    if load_checkpoint(folder, run, say):
        say(f"Continuing {folder} after epoch {run.epoch}, step {run.step}.")
    else:
        say(f"{folder} has no checkpoint yet: starting at the beginning.")
    history = read_history(folder)[: run.epoch]
    if len(history) < run.epoch:
        raise CheckpointError(
            f"{folder / HISTORY_NAME}: holds {len(history)} epochs, the checkpoint "
            f"{run.epoch}: restore the file, or start again with --overwrite."
        )
    return history


def has_model(folder: Path) -> bool:
    """Tell whether a run left its model."""
    return (folder / CONFIG_NAME).exists() and (folder / WEIGHTS_NAME).exists()


def check_folder(folder: Path, about: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    """Refuse a folder that may not be written to; nothing is changed."""
    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite removes it: give one of them.")
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file; expected a folder for the run.")
    if resume:
        check_same_run(folder, about)
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


def check_same_run(folder: Path, about: Mapping[str, Any]) -> None:
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
            f"{folder} was started on other images (their SHA-256 differs): resume with the data "
            "it was started on, or choose another folder."
        )


def read_history(folder: Path) -> list[EpochMetrics]:
    """Return the lines of the history; a line that was cut off ends it."""
    path = folder / HISTORY_NAME
    lines = path.read_text().splitlines() if path.exists() else []
    history = []
    for line in lines:
        try:
            history.append(EpochMetrics(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return history


def write_history(folder: Path, history: list[EpochMetrics]) -> None:
    """Write the history as JSON lines, whole."""
    text = "".join(json.dumps(metrics.to_dict()) + "\n" for metrics in history)
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
