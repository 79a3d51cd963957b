"""Attempts at a run that are killed at random moments, until it is done: for scripts of one thread.

Each attempt is a fork of the script, which has imported torch; a pool of threads would not survive.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

KILLS = 25
KILLER = """
import functools, sys, time
from pathlib import Path
from bilens.train import distillation
from kill_sweep import sweep

distillation.STEPS_A_LINE = 2
{}
place = Path(sys.argv[1])
go(place / "whole")
began = time.perf_counter()
go(place / "whole", overwrite=True)
run = lambda folder: go(folder, resume=(folder / "run.json").exists())
print(sweep(run, time.perf_counter() - began, place, int(sys.argv[2])))
"""


def conversions_killed(setup: str, place: Path, kills: int) -> list[Path]:
    """Return folders whose conversions were killed and taken up again, beside `place/whole`.

    `setup` defines go(folder, resume=, overwrite=), with the tests of api/ to import from.
    """
    paths = os.pathsep.join([str(Path(__file__).parent / "api"), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", KILLER.format(setup), str(place), str(kills)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [place / str(index) for index in range(int(result.stdout))]


def sweep(run: Callable[[Path], object], seconds: float, place: Path, kills: int) -> int:
    """Kill so many attempts within the seconds of a whole run; return how many runs there are."""
    chance = random.Random(0)
    folders, killed = [place / "0"], 0

    def attempt(folder: Path) -> int:
        child = os.fork()
        if child == 0:
            run(folder)
            os._exit(0)
        return child

    while killed < kills:
        child = attempt(folders[-1])
        time.sleep(chance.uniform(0.0, seconds))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
            killed += 1
        else:  # it was done before
            folders.append(place / str(len(folders)))
    assert os.waitpid(attempt(folders[-1]), 0)[1] == 0
    return len(folders)
