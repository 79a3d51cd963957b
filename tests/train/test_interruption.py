"""What cannot be caught: kill -9 at random moments, and a disk that is full at every write."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bilens
import runs
import tiny
from bilens.base.errors import CheckpointError, DiskError
from bilens.train.run_folder import RUN_NAME

KILLS = 50
PATHS = os.pathsep.join(str(Path(file).parent) for file in (runs.__file__, bilens.__path__[0]))
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import runs
from bilens.base.errors import CheckpointError
from bilens.train import run_folder

# One process imports torch; each attempt is a fork of it that is killed after a random while.
# It has one thread: those of a pool would not survive a fork.
run_folder.SECONDS_BETWEEN_CHECKPOINTS = -1.0
place, kills, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
runs.go(place / "warm")
began = time.perf_counter()
runs.go(place / "warm", overwrite=True)
whole = time.perf_counter() - began
folders, killed = [place / "0"], 0

def attempt(folder):
    child = os.fork()
    if child == 0:
        try:
            runs.go(folder, resume=True)
        except CheckpointError:  # killed before there was a run
            runs.go(folder)
        os._exit(0)
    return child

while killed < kills:
    child = attempt(folders[-1])
    time.sleep(chance.uniform(0.0, whole))
    os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
        killed += 1
    else:  # it was done before
        folders.append(place / str(len(folders)))
assert os.waitpid(attempt(folders[-1]), 0)[1] == 0
print(len(folders))
"""


def test_kill_9_at_random_moments_costs_nothing_but_time(
    tmp_path: Path, sweep_share: float
) -> None:
    kills = round(sweep_share * KILLS)
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path), str(kills)],
        env=tiny.environment(PYTHONPATH=PATHS),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for index in range(int(result.stdout)):
        runs.assert_as_uninterrupted(tmp_path / str(index))


def writes_of_a_run(folder: Path, fail_at: int | None = None) -> int:
    """Run with a checkpoint each epoch; the disk is full from the write `fail_at` on."""
    calls = 0

    def fsync(_descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if fail_at is not None and calls >= fail_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch, runs.checkpoint_every_epoch():
        patch.setattr(os, "fsync", fsync)
        runs.go(folder)
    return calls


def test_a_full_disk_at_any_write_leaves_a_run_that_goes_on(
    tmp_path: Path, sweep_share: float
) -> None:
    total = writes_of_a_run(tmp_path / "whole")
    # A file and its folder are synced: run.json 2, history 2; each of four epochs a history 2, two
    # files of a checkpoint 4 and the folder it is in 1; the two files of the model 2 and 1.
    assert total == 2 + 2 + 4 * (2 + 4 + 1) + 3
    for fail_at in range(1, total + 1, 3 if sweep_share == 1 else 7):
        folder = tmp_path / f"run-{fail_at}"
        with pytest.raises(DiskError, match=r"No space left on device.*free some space"):
            writes_of_a_run(folder, fail_at)
        found = runs.checkpoints(folder)
        said: list[str] = []
        if (folder / RUN_NAME).exists():
            runs.go(folder, resume=True, say=said.append)
        else:
            with pytest.raises(CheckpointError, match="start it without --resume"):
                runs.go(folder, resume=True)
            runs.go(folder)
        if found:  # the last one that was there is sound
            assert said == [f"Continuing {folder} after epoch {int(found[-1][5:11])}, step 0."]
        runs.assert_as_uninterrupted(folder)


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    """Permissions do not stop a superuser, so the error is made, not met."""

    def refused(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refused)
        with pytest.raises(Exception, match=r"cannot be written \(Permission denied\)") as caught:
            runs.go(tmp_path / "run")
    assert str(tmp_path / "run") in str(caught.value)
