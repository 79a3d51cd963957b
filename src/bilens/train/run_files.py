"""The files of a run, and how an earlier run is kept while another one takes its place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bilens.base.atomic import write_error
from bilens.base.errors import InterruptedRunError
from bilens.io.model_folder import CONFIG_NAME, WEIGHTS_NAME
from bilens.nn.hooks import NAME as HOOK_NAME
from bilens.train.checkpoint import FOLDER as CHECKPOINTS

RUN_NAME, HISTORY_NAME = "run.json", "history.jsonl"
TOKENIZER_NAME, CORPUS_NAME, CURVE_NAME = "tokenizer.json", "corpus.json", "loss.svg"  # of text
METRICS_NAME, TEST_NAME = "metrics.json", "test.csv"  # of a table
OWN_FILES = (
    *(CONFIG_NAME, WEIGHTS_NAME, RUN_NAME, HISTORY_NAME),
    *(TOKENIZER_NAME, CORPUS_NAME, CURVE_NAME, METRICS_NAME, TEST_NAME),
)
EARLIER_NAME = ".earlier"  # the run that is being overwritten, whole
MOVING_NAME = ".earlier.moving"  # a part of it, on its way there or back


@contextmanager
def earlier_run_kept(folder: Path, resume: bool) -> Iterator[None]:
    """Set the run in the folder aside until the new one is done; a failure brings it back.

    After Ctrl-C it stays aside: the new run can be resumed, and removes it when it is done.
    Wherever the process is killed, each file of the earlier run is in one of the three folders,
    and the next run that overwrites puts them together.
    """
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
    """Return the names of a run's folders in its folder: checkpoints, and one a hook point."""
    present = sorted(item.name for item in folder.iterdir() if item.is_dir())
    return [name for name in present if name == CHECKPOINTS or HOOK_NAME.fullmatch(name)]


def remove_own(folder: Path) -> None:
    """Remove the files of a run from a folder, and nothing else."""
    for name in own_folders(folder):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in OWN_FILES:
        (folder / name).unlink(missing_ok=True)


def move_own(source: Path, target: Path) -> None:
    """Move the files of a run, where there are any."""
    present = [name for name in OWN_FILES if (source / name).exists()]
    try:
        for name in present + own_folders(source):
            target.mkdir(exist_ok=True)
            (source / name).replace(target / name)
    except OSError as error:
        raise write_error(target, error) from error
