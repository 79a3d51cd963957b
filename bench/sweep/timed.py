"""Workers of a sweep that do something else with a row, and those that time it."""

import os
import time
from pathlib import Path
from typing import Any, ClassVar

from bilens.sweep import jobs
from bilens.sweep.manifest import Plan
from bilens.sweep.output import SweepOutput

do = jobs.do


class OtherSpec(jobs.Spec):
    """What a worker is told; when it is unpickled, `done` takes the place of `jobs.do`."""

    done: ClassVar[Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        jobs.do = self.done


def timed(output: SweepOutput, plan: Plan, row: int, task: str) -> None:
    """Do a task of a row and note its time, in a file of this process."""
    began, start = time.time(), time.perf_counter()
    do(output, plan, row, task)
    line = f"{began} {time.perf_counter() - start}\n"
    with notes(Path(output.root)).joinpath(str(os.getpid())).open("a") as file:
        file.write(line)


class TimedSpec(OtherSpec):
    """What a worker is told; it then notes when it began each row, and how long that took."""

    done = staticmethod(timed)


def notes(out: Path) -> Path:
    """Return the folder of the times, beside the output."""
    return out.parent / f"{out.name}.times"


def noted(out: Path) -> list[tuple[float, float]]:
    """Return when each row was begun, again where it was done again, and its seconds."""
    lines = (line for file in notes(out).iterdir() for line in file.read_text().splitlines())
    pairs = (line.split() for line in lines)
    return [(float(began), float(seconds)) for began, seconds in pairs]
