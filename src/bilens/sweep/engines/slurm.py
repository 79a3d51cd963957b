"""Jobs in arrays of Slurm, through submitit."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from typing import Any

from bilens.base.errors import UsageError, first_line, optional_package
from bilens.sweep.engines.contract import PROCESS, WAIT, SweepEngine
from bilens.sweep.jobs import Outcome, Spec, run_spec

AT_A_TIME = 100  # jobs, where --workers does not say
TOO_LARGE = ("emory specification", "node configuration is not available")  # says sbatch


class SlurmEngine(SweepEngine):
    """Arrays of jobs; one that is preempted or times out is queued again, by Slurm itself."""

    def __init__(self, workers: int | None, threads: int, options: Mapping[str, str]) -> None:
        super().__init__(workers, threads, options)
        submitit = optional_package("submitit", "slurm", "The engine slurm", "submitit.helpers")
        self.helpers = submitit.helpers
        folder, cluster = self.text("folder", "slurm-logs"), self.text("cluster", "slurm")
        self.least = math.ceil(self.number("mem_gb", 1, 1))
        given: dict[str, int | str] = {"timeout_min": 60, "cpus_per_task": threads}
        given |= {name: int(x) if x.isdigit() else x for name, x in self.options.items()}
        try:
            self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self.executor.update_parameters(**given)
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError, OSError) as error:
            raise UsageError(
                f"the engine slurm does not start ({first_line(error)}): run this where sbatch is, "
                "with --engine-option that submitit knows (docs/engines.md)."
            ) from None
        self.waiting: list[tuple[int, Spec]] = []  # GiB, and what is to be done in them
        self.running: dict[Any, Spec] = {}

    @property
    def capacity(self) -> int:
        return self.workers or AT_A_TIME

    def submit(self, spec: Spec, num_bytes: int) -> None:
        size = max(self.least, math.ceil((num_bytes + PROCESS) / 2**30))
        self.waiting.append((size, spec))

    def checkpointed(self, spec: Spec) -> Any:
        """Return `run_spec` of a job, which is queued again where Slurm ends it."""
        found = self.helpers.FunctionSequence()
        found.add(run_spec, spec)
        return found

    def hand_over(self) -> Iterator[Outcome]:
        """Make one array of all that wants the same memory; yield what is larger than any node."""
        waiting, self.waiting = sorted(self.waiting, key=lambda one: one[0]), []
        for size, group in groupby(waiting, lambda one: one[0]):
            specs = [spec for _, spec in group]
            self.executor.update_parameters(mem_gb=size)
            try:
                with self.executor.batch():
                    jobs = [self.executor.submit(self.checkpointed(spec)) for spec in specs]
            except (RuntimeError, OSError) as error:
                said = " ".join(str(error).split())
                if not any(words in said for words in TOO_LARGE):
                    raise UsageError(f"the engine slurm takes no jobs: {said}") from None
                why = f"no node of Slurm has {size} GiB of memory and the CPUs asked for ({said})"
                yield from (Outcome(spec.number, refused=why) for spec in specs)
            else:
                self.running |= zip(jobs, specs, strict=True)

    def as_completed(self) -> Iterator[Outcome]:
        yield from self.hand_over()
        ended = [job for job in self.running if job.done()]
        if not ended:
            time.sleep(WAIT)
        for job in ended:
            error = job.exception()
            number = self.running.pop(job).number
            if error is None:
                yield from job.result()
            else:
                memory = job.state.startswith("OUT_OF_ME")
                yield Outcome(number, lost=" ".join(str(error).split("\n")[:2]), memory=memory)

    def cancel(self) -> None:
        for job in self.running:
            with suppress(OSError):
                job.cancel(check=False)
