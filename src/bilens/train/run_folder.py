"""A training run in a folder: interrupted, resumed and read later, and its files kept apart."""

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Generic

from filelock import FileLock, Timeout

from bilens.base import silent
from bilens.base.errors import (
    CheckpointError,
    InterruptedRunError,
    NumericalError,
    OutputExistsError,
    UsageError,
)
from bilens.base.files import check_path, names_in, read_json, write_error, write_file
from bilens.base.frame import frame_of
from bilens.base.model_card import CARD_NAME
from bilens.base.notebook import frozen_result
from bilens.io.host import COMPANIONS
from bilens.io.model_folder import CONFIG_NAME, WEIGHTS_NAME
from bilens.nn.block import NAME as HOOK_NAME
from bilens.train.loop import (
    CHECKPOINTS,
    Line,
    LineT,
    Model,
    TrainingRun,
    TrainingTask,
    found_checkpoints,
    load_checkpoint,
    save_checkpoint,
    train,
)
from bilens.train.processes import Processes
from bilens.train.trackers import EVENTS, TRACKING_NAME, Chosen, Picture, check_trackers, tracked

RUN_NAME, HISTORY_NAME = "run.json", "history.jsonl"
TOKENIZER_NAME, CORPUS_NAME, CURVE_NAME = "tokenizer.json", "corpus.json", "loss.svg"  # of text
METRICS_NAME, TEST_NAME = "metrics.json", "test.csv"  # of a table
CONVERSION_NAME = "conversion.json"
RESULTS = (CURVE_NAME, METRICS_NAME, TEST_NAME, CONVERSION_NAME, TRACKING_NAME)
# Tokenizer and corpus are among the companions.
OWN_FILES = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME, RUN_NAME, HISTORY_NAME, *RESULTS, *COMPANIONS)
LOCK_NAME = ".lock"
EARLIER_NAME = ".earlier"  # the run that is being overwritten, whole
MOVING_NAME = ".earlier.moving"  # a part of it, on its way there or back
SECONDS_BETWEEN_CHECKPOINTS = 30.0


@frozen_result("folder", "history")
class TrainingResult(Generic[LineT]):
    """A finished run: where the model is, and the metrics of every epoch."""

    folder: Path
    history: tuple[LineT, ...]

    def to_frame(self) -> Any:
        """Return the history as a DataFrame of pandas, one line of it a row.

        Raises: MissingExtraError if pandas is not installed.
        """
        return frame_of([line.to_dict() for line in self.history])


def run_in_folder(
    folder: str | Path,
    task: TrainingTask[Model, LineT],
    *,
    resume: bool = False,
    overwrite: bool = False,
    provenance: Mapping[str, str] | None = None,
    on_epoch: Callable[[LineT], None] = silent,
    say: Callable[[str], None] = silent,
    tracker: Chosen = (),
    figures: Callable[[Model], Mapping[str, Picture]] = lambda _model: {},
) -> TrainingResult[LineT]:
    """Train, and leave `run.json`, `history.jsonl`, `checkpoints/` and the model in a folder.

    Each line is told to `tracker`, with the `figures` of the model.
    """
    folder, group, trackers = check_path("folder", folder), task.group, check_trackers(tracker)
    if not group.first:
        on_epoch, say, trackers = silent, silent, ()
    group.on_first(lambda: check_folder(folder, task.about, resume, overwrite, task.data_noun))
    run = task.start()
    with written_by_first(folder, group, resume):
        history = resume_run(folder, task, run, say) if resume else []
        if (run.epoch == task.epochs or task.stopped(run)) and task.finished(folder):
            last = max((line.place for line in history), default=-1)
            with tracked(folder, trackers, task.about["recipe"], say, last) as telling:
                telling.log_lines(history)
            say(f"{folder} is finished: nothing is left to do.")
            return TrainingResult(folder, tuple(history))
        if group.first:
            write_file(folder / RUN_NAME, json.dumps(dict(task.about), indent=2).encode())
            write_history(folder, history)
        # the first epoch is kept at once; what a run that has ended was loaded from is kept already
        kept, saved = time.monotonic() if found_checkpoints(folder) else -math.inf, run.epoch
        with (
            tracked(folder, trackers, task.about["recipe"], say) as telling,
            interruptible() as interrupted,
            last_state_named(folder),
        ):
            telling.log_lines(history)

            def after_step(run: TrainingRun[Model]) -> None:
                if group.any(interrupted.is_set()):
                    save_checkpoint(folder, run)
                    raise interrupted_in(task.position(run.epoch + 1), folder)

            for line in train(run, task, after_step):
                history.append(line)
                if group.first:
                    write_history(folder, history)
                on_epoch(line)
                telling.log(line.place, line.to_dict(), partial(figures, run.model))
                if group.any(group.first and time.monotonic() - kept > SECONDS_BETWEEN_CHECKPOINTS):
                    save_checkpoint(folder, run)
                    kept, saved = time.monotonic(), run.epoch
        if saved != run.epoch:  # what was trained outlives a model that cannot be saved
            save_checkpoint(folder, run)
        run.model = group.gather_model(run.model, run.blank)
        group.on_first(lambda: task.save(run, folder, provenance or {}))
    return TrainingResult(folder, tuple(history))


def interrupted_in(position: str, folder: Path) -> InterruptedRunError:
    """Return the error of a run that Ctrl-C ended, which says how to go on."""
    aside = folder / EARLIER_NAME
    earlier = f" Until then {aside} keeps the run that it overwrites." if aside.exists() else ""
    return InterruptedRunError(
        f"Interrupted in {position}; {folder} is saved: repeat the command with --resume to go "
        f"on.{earlier}"
    )


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
    task: TrainingTask[Model, LineT],
    run: TrainingRun[Model],
    say: Callable[[str], None],
) -> list[LineT]:
    """Bring a new run to where the one in the folder left off; return the epochs up to there."""
    if load_checkpoint(folder, run, say):
        say(f"Continuing {folder} after {task.position(run.epoch)}, step {run.step}.")
    else:
        say(f"{folder} has no checkpoint yet: starting at the beginning.")
    path = folder / HISTORY_NAME
    history: list[LineT] = []
    for line in path.read_text().splitlines()[: run.epoch] if path.exists() else []:
        try:
            history.append(task.line_type(**json.loads(line)))
        except (ValueError, TypeError):  # a line that was cut off ends it
            break
    if len(history) < run.epoch:
        raise CheckpointError(
            f"{path}: holds {len(history)} epochs, the checkpoint {run.epoch}: restore the file, "
            "or start again with --overwrite."
        )
    return history


def write_history(folder: Path, history: Sequence[Line]) -> None:
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


def check_folder(
    folder: Path, about: Mapping[str, Any], resume: bool, overwrite: bool, data_noun: str = "data"
) -> None:
    """Refuse a folder that may not be written to; nothing is changed."""
    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite removes it: give one of them.")
    names = names_in(folder, "run")
    if resume:
        check_same_run(folder, about, data_noun)
        return
    content = sorted(name for name in names if not is_left_over(name))
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
    differing = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    if differing:
        raise UsageError(
            f"{folder} was started with "
            + ", ".join(f"{name}={old.get(name)!r}" for name in differing)
            + "; this command says "
            + ", ".join(f"{name}={new.get(name)!r}" for name in differing)
            + ": resume with the options and data it was started with, or choose another folder."
        )
    if before.get("data") != about["data"]:
        raise UsageError(
            f"{folder} was started on other {data_noun} (the SHA-256 differs): resume with "
            "those, or choose another folder."
        )


@contextmanager
def written_by_first(folder: Path, group: Processes, resume: bool = False) -> Iterator[None]:
    """Let the first process hold the folder for all, until all are done or one has ended."""
    with ExitStack() as stack:
        group.on_first(lambda: stack.enter_context(written_by_us(folder, resume)))
        with group.watched(folder):
            yield


@contextmanager
def written_by_us(folder: Path, resume: bool = False) -> Iterator[None]:
    """Hold the lock of a run's folder, and keep an earlier run in it until the new one is done."""
    with lock_run(folder), earlier_run_kept(folder, resume):
        try:
            for item in folder.iterdir():
                if item.name != LOCK_NAME and is_left_over(item.name):
                    item.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        yield


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Keep a second process from writing to the same run; the system frees it with the process."""
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


def is_left_over(name: str) -> bool:
    """Tell whether a file is a lock, or was staged by a write that a killed process began."""
    staged = tuple(f".{own}." for own in (*OWN_FILES, LOCK_NAME))
    return name == LOCK_NAME or name.startswith(staged)


@contextmanager
def earlier_run_kept(folder: Path, resume: bool) -> Iterator[None]:
    """Set the run in the folder aside until the new one is done; a failure brings it back."""
    # Ctrl-C leaves it aside, for the new run can be resumed. Wherever the process is killed, each
    # file of the earlier run is in one of the three folders, and the next run puts them together.
    try:
        if not resume:
            set_aside(folder)
        yield
    except InterruptedRunError:
        raise
    except BaseException:
        if not resume:
            bring_back(folder)
        raise
    shutil.rmtree(folder / EARLIER_NAME, ignore_errors=True)


def set_aside(folder: Path) -> None:
    """Move the run in the folder to `.earlier`; what is there already is the one to keep."""
    aside, moving = folder / EARLIER_NAME, folder / MOVING_NAME
    if aside.exists():
        remove_own(folder)  # of an overwriting run that was interrupted
        return
    move_own(folder, moving)
    if moving.exists():
        moving.replace(aside)


def bring_back(folder: Path) -> None:
    """Put the run in `.earlier`, or on its way there, in the place of the one in the folder."""
    aside, moving = folder / EARLIER_NAME, folder / MOVING_NAME
    if aside.exists():
        remove_own(folder)
        aside.replace(moving)
    if moving.exists():
        move_own(moving, folder)
        shutil.rmtree(moving, ignore_errors=True)


def own_folders(folder: Path) -> list[str]:
    """Return the names of a run's folders: checkpoints, events, and one a hook point."""
    present = sorted(item.name for item in folder.iterdir() if item.is_dir())
    return [name for name in present if name in (CHECKPOINTS, EVENTS) or HOOK_NAME.fullmatch(name)]


def remove_own(folder: Path) -> None:
    """Remove the files of a run from a folder, and nothing else."""
    for name in own_folders(folder):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in OWN_FILES:
        (folder / name).unlink(missing_ok=True)


def move_own(source: Path, target: Path) -> None:
    present = [name for name in OWN_FILES if (source / name).exists()]
    try:
        for name in present + own_folders(source):
            target.mkdir(exist_ok=True)
            (source / name).replace(target / name)
    except OSError as error:
        raise write_error(target, error) from error
