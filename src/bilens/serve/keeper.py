"""The process that runs one job: it starts the command line, waits, and writes down how it ended.

It is no child of the server's fate: the server may be killed, and the job goes on and is kept.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from bilens.records.jobs import Ended
from bilens.serve.jobs import Jobs, Kept

GRACE = 5.0  # seconds to let go in
NICE = 10
LIMIT = 5  # exit code: not enough memory or space
Stops = list[tuple[Ended, str]]
OWN = {"COLUMNS": "120", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}  # a click never asks the network


def main(folder: Path, number: int, slot: int) -> None:
    stops: Stops = []  # why it is to end; the group is told, so the command knows already

    def stop(_number: int, _frame: FrameType | None) -> None:
        stops.append(("signal", ""))

    signal.signal(signal.SIGTERM, stop)
    os.nice(NICE)
    jobs = Jobs(folder)
    kept = jobs.begin(number)
    if kept is None:
        return
    try:
        code = run(jobs, kept, slot, stops)
    except OSError as error:
        code = LIMIT
        stops.append(("unstarted", str(error.strerror)))
    jobs.finish(number, code, *(stops[0] if stops else ("", "")))
    if stops:  # whatever the command started and left behind
        os.killpg(0, signal.SIGKILL)


def run(jobs: Jobs, kept: Kept, slot: int, stops: Stops) -> int:
    """Return the exit code of the command of a job; it holds the slot too while it lives."""
    line = [sys.executable, "-P", "-m", "bilens", *kept.job.arguments]
    number = kept.job.number
    with jobs.path(number, "out").open("wb") as out, jobs.path(number, "err").open("wb") as err:
        process = subprocess.Popen(  # noqa: S603 - no shell; options are whole words, files are named by the walk
            line,
            cwd=jobs.folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=(slot,),
            env=os.environ | OWN,
        )
    late, last = time.monotonic() + kept.limit, float("inf")
    while True:
        try:
            return process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            if time.monotonic() > late and not stops:
                stops.append(("late", f"{kept.limit / 3600:g}"))
                process.terminate()
            if stops:
                last = min(last, time.monotonic() + GRACE)
            if time.monotonic() > last:
                process.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
