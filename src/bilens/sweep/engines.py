"""What runs jobs: a contract of four words, and one class for each engine that exists."""

from __future__ import annotations

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from bilens.base.errors import MissingExtraError, UsageError
from bilens.base.memory import memory_limit
from bilens.sweep.jobs import Piece, Spec, run_spec

WAIT = 1.0  # seconds, after which a driver that waits may look at something else


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its pieces, or why there are none."""

    spec: Spec
    pieces: tuple[Piece, ...] = ()
    lost: str = ""  # the worker or its node died; empty where it did not
    memory: bool = False  # for want of memory


class Engine(ABC):
    """Runs `run_spec` somewhere; it decides nothing about the results."""

    ahead = 2  # jobs for each that runs, so that none waits for the driver

    def __init__(self, workers: int | None, options: Mapping[str, str]) -> None:
        self.workers = workers
        self.options = dict(options)

    def taken(self, name: str, default: str) -> str:
        return self.options.pop(name, default)

    def refuse_others(self, *known: str) -> None:
        if self.options:
            raise UsageError(
                f"--engine-option {next(iter(self.options))} is not known to this engine: it has "
                f"{', '.join(known) or 'none'}."
            )

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many jobs can run at a time."""

    @abstractmethod
    def submit(self, spec: Spec, num_bytes: int) -> None: ...

    @abstractmethod
    def as_completed(self) -> Iterator[Outcome]:
        """Yield jobs that have ended; nothing, after a second without one."""

    @abstractmethod
    def cancel(self) -> None:
        """Start nothing more, and end what runs."""


class LocalEngine(Engine):
    """Processes on this machine, each a pool of its own: one that dies takes one job along."""

    ahead = 1

    def __init__(self, workers: int | None, options: Mapping[str, str]) -> None:
        super().__init__(workers, options)
        self.refuse_others()
        self.pools = [new_pool() for _ in range(self.capacity)]
        self.running: dict[Future[list[Piece]], tuple[Spec, int]] = {}

    @property
    def capacity(self) -> int:
        return self.workers or os.cpu_count() or 1

    def submit(self, spec: Spec, num_bytes: int) -> None:  # noqa: ARG002 - of the whole machine
        taken = {place for _, place in self.running.values()}
        place = next(place for place in range(self.capacity) if place not in taken)
        try:
            future = self.pools[place].submit(run_spec, spec)
        except BrokenProcessPool:  # died while it had nothing to do
            self.pools[place] = new_pool()
            future = self.pools[place].submit(run_spec, spec)
        self.running[future] = spec, place

    def as_completed(self) -> Iterator[Outcome]:
        ended, _ = wait(self.running, WAIT, FIRST_COMPLETED)
        for future in ended:
            spec, place = self.running.pop(future)
            try:
                yield Outcome(spec, tuple(future.result()))
            except BrokenProcessPool:
                self.pools[place] = new_pool()
                yield Outcome(spec, lost="a worker process died")

    def cancel(self) -> None:
        for pool in self.pools:
            pool.shutdown(wait=True, cancel_futures=True)


def new_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=quiet)


def quiet() -> None:
    """Leave Ctrl-C to the driver, which lets what runs come to its end."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


class RayEngine(Engine):
    """Tasks of Ray, on the cluster that RAY_ADDRESS or the option `address` names."""

    def __init__(self, workers: int | None, options: Mapping[str, str]) -> None:
        super().__init__(workers, options)
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray", "The engine ray") from None
        self.ray = ray
        self.cpus = float(self.taken("num_cpus", "1"))
        address = self.taken("address", "")
        self.refuse_others("num_cpus", "address")
        if not ray.is_initialized():
            try:
                ray.init(address=address or None, log_to_driver=False, logging_level="error")
            except ConnectionError as error:
                raise UsageError(f"the engine ray does not answer: {error}.") from None
        self.task = ray.remote(max_retries=0)(run_spec)  # the driver counts attempts
        self.running: dict[Any, Spec] = {}

    @property
    def capacity(self) -> int:
        found = int(self.ray.cluster_resources().get("CPU", 1) // self.cpus)
        return max(1, min(found, self.workers or found))

    def submit(self, spec: Spec, num_bytes: int) -> None:
        asked = self.task.options(num_cpus=self.cpus, memory=num_bytes)
        self.running[asked.remote(spec)] = spec

    def as_completed(self) -> Iterator[Outcome]:
        ended, _ = self.ray.wait([*self.running], num_returns=1, timeout=WAIT)
        errors = self.ray.exceptions
        for reference in ended:
            spec = self.running.pop(reference)
            try:
                yield Outcome(spec, tuple(self.ray.get(reference)))
            except errors.OutOfMemoryError as error:
                yield Outcome(spec, lost=str(error).splitlines()[0], memory=True)
            except (errors.RayError, OSError) as error:
                yield Outcome(spec, lost=f"{type(error).__name__}")

    def cancel(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference)


class SlurmEngine(Engine):
    """Arrays of jobs of Slurm through submitit; a job that is preempted is queued again."""

    def __init__(self, workers: int | None, options: Mapping[str, str]) -> None:
        super().__init__(workers, options)
        try:
            import submitit
        except ImportError:
            raise MissingExtraError("submitit", "slurm", "The engine slurm") from None
        folder = self.taken("folder", "slurm-logs")
        cluster = self.taken("cluster", "slurm")
        self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        known = {name: int(x) if x.isdigit() else x for name, x in self.options.items()}
        self.executor.update_parameters(**known)
        self.failed = submitit.core.utils.FailedJobError
        self.running: dict[Any, Spec] = {}

    @property
    def capacity(self) -> int:
        return self.workers or 100

    def submit(self, spec: Spec, num_bytes: int) -> None:
        self.executor.update_parameters(mem_gb=max(1, round(num_bytes / 2**30 + 0.5)))
        self.running[self.executor.submit(Checkpointed(), spec)] = spec

    def as_completed(self) -> Iterator[Outcome]:
        import time

        ended = [job for job in self.running if job.done()]
        if not ended:
            time.sleep(WAIT)
        for job in ended:
            spec = self.running.pop(job)
            error = job.exception()
            if error is None:
                yield Outcome(spec, tuple(job.result()))
            else:
                yield Outcome(spec, lost=str(error).splitlines()[0])

    def cancel(self) -> None:
        for job in self.running:
            job.cancel()


class Checkpointed:
    """`run_spec`, which submitit queues again where Slurm ends it: done rows are not done again."""

    def __call__(self, spec: Spec) -> list[Piece]:
        return run_spec(spec)

    def checkpoint(self, spec: Spec) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, spec)


class DaskEngine(Engine):
    """Futures of Dask, on the scheduler that the option `address` names, or processes here."""

    def __init__(self, workers: int | None, options: Mapping[str, str]) -> None:
        super().__init__(workers, options)
        try:
            from distributed import Client
        except ImportError:
            raise MissingExtraError("distributed", "dask", "The engine dask") from None
        address = self.taken("address", "")
        self.refuse_others("address")
        try:
            self.client = Client(address, timeout="10s") if address else Client(n_workers=workers)
        except OSError as error:
            raise UsageError(f"the engine dask does not answer at {address}: {error}.") from None
        self.running: dict[Any, Spec] = {}

    @property
    def capacity(self) -> int:
        threads = sum(self.client.nthreads().values())
        return max(1, min(threads, self.workers or threads))

    def submit(self, spec: Spec, num_bytes: int) -> None:
        self.running[self.client.submit(run_spec, spec, pure=False, retries=0)] = spec

    def as_completed(self) -> Iterator[Outcome]:
        import time

        ended = [future for future in self.running if future.done()]
        if not ended:
            time.sleep(WAIT / 10)
        for future in ended:
            spec = self.running.pop(future)
            error = future.exception()
            if error is None:
                yield Outcome(spec, tuple(future.result()))
            else:
                yield Outcome(spec, lost=f"{type(error).__name__}")

    def cancel(self) -> None:
        self.client.cancel([*self.running])
        self.client.close()


ENGINES: Mapping[str, type[Engine]] = {
    "local": LocalEngine,
    "ray": RayEngine,
    "slurm": SlurmEngine,
    "dask": DaskEngine,
}


def open_engine(name: str, workers: int | None, options: Mapping[str, str]) -> Engine:
    if name not in ENGINES:
        raise UsageError(f"--engine {name} is not known: use one of {', '.join(ENGINES)}.")
    memory_limit()  # refuses a limit that is none, before anything starts
    return ENGINES[name](workers, options)
