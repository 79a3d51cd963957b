"""Attempts at a run that are killed at random moments, until it is done: for scripts of one thread.

Each attempt is a fork of the script, which has imported torch; a pool of threads would not survive.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path


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
