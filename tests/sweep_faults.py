"""What goes wrong in workers and drivers of a sweep; `python -m sweep_faults sweep …` has it, too.

A worker that unpickles a `FaultySpec` imports this module and meets what `faults.json` beside the
output says: rows that kill it, want more memory, find no room or are preempted (once), and how long
each row takes.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench.sweep.timed import OtherSpec
from bilens.sweep import driver, jobs, manifest
from bilens.sweep.manifest import Plan
from bilens.sweep.output import SweepOutput

FILE = "faults.json"
do = jobs.do


def faulty(output: SweepOutput, plan: Plan, row: int, task: str) -> None:
    """Do a task of a row, or what is to go wrong with it."""
    file = Path(output.root).parent / FILE
    faults = json.loads(file.read_text()) if file.exists() else {}
    time.sleep(faults.get("slow", 0))
    if row in faults.get("kills", ()):
        os._exit(7)
    if row in faults.get("memory", ()):
        raise MemoryError
    if row in faults.get("preempted", ()) and not file.with_suffix(".met").exists():
        file.with_suffix(".met").touch()
        os.kill(os.getpid(), signal.SIGUSR2)  # as Slurm does, told by submitit
    if row in faults.get("full", ()):  # the file that is written becomes too large
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, resource.RLIM_INFINITY))
    do(output, plan, row, task)


class FaultySpec(OtherSpec):
    """What a worker is told, and what it meets."""

    done = staticmethod(faulty)


def planted(folder: Path, **faults: Any) -> None:
    """Let the workers of a sweep into a folder beside this file meet faults."""
    (folder / FILE).write_text(json.dumps(faults))


if __name__ == "__main__":
    from bilens.cli.app import main

    driver.Spec = FaultySpec  # type: ignore[misc]
    manifest.MOST_ROWS = 1
    sys.exit(main())
