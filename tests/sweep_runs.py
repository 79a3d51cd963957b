"""A tiny model of experts, and sweeps over it in this process and by commands."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bilens
import tiny
from bench.sweep.deepseek import write_model
from bilens.base import Progress, silent
from bilens.records.sweep import SweepOptions
from bilens.sweep.driver import SweepState, drive, plan_of
from bilens.sweep.engines.contract import open_engine
from bilens.sweep.jobs import Spec, run_spec
from bilens.sweep.manifest import NAME, Plan, plan_at
from bilens.sweep.output import SweepOutput
from bilens.train.run_folder import LOCK_NAME

OPTIONS = SweepOptions(tasks=("fit",))
ROWS = 8  # three dense layers, four experts and a shared one
HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (HERE, HERE.parent, Path(bilens.__path__[0]).parent)))


@dataclass(frozen=True)
class Swept:
    """A model, and a folder that it is swept into: `out`."""

    model: Path
    folder: Path

    @property
    def output(self) -> SweepOutput:
        return SweepOutput(str(self.folder / "out"))

    def plan(self) -> Plan:
        return plan_of(str(self.model), OPTIONS, self.output)

    def sweep(
        self, engine: str, progress: Progress = silent, workers: int = 1, **options: str
    ) -> SweepState:
        """Sweep in this process."""

        def opened() -> object:
            return open_engine(engine, workers, 1, options)

        return drive(self.plan(), self.output, opened, progress)  # type: ignore[arg-type]

    def command(self, *words: str, **variables: str) -> "subprocess.Popen[str]":
        """Start a driver of its own, which may be killed."""
        line = ["sweep", str(self.model), "--do", "fit", *words]
        return subprocess.Popen(
            [sys.executable, "-m", "sweep_faults", *line, "--out", str(self.folder / "out")],
            env=tiny.environment(PYTHONPATH=PATHS, **variables),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def alone(self) -> dict[str, bytes]:
        """Do one row after another in this process; return what there is then."""
        plan = self.plan()
        self.output.write(NAME, plan.text)
        found = run_spec(Spec(self.output.place, plan.sha256, 0, tuple(range(ROWS))))
        plan_at.cache_clear()
        assert found.faults == ()
        assert found.ends == ""
        return self.written()

    def written(self) -> dict[str, bytes]:
        """Every file of the output, but for the lock."""
        home = self.folder / "out"
        files = (file for file in home.rglob("*") if file.is_file() and file.name != LOCK_NAME)
        return {str(file.relative_to(home)): file.read_bytes() for file in files}

    def results(self) -> int:
        return len(list((self.folder / "out").glob("results/*/*/*.json")))


def made(folder: Path) -> Swept:
    """Write the model."""
    return Swept(write_model(folder / "model", layers=4, experts=4, files=2), folder)


def until(reached: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def of_session(leader: int) -> list[int]:
    """Return the processes that a driver started, and theirs."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has ended
            continue
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found
