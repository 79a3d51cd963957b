"""What runs jobs: a contract of four words, and one class for each engine that exists."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from bilens.base.errors import UsageError, optional_package
from bilens.base.memory import memory_limit
from bilens.sweep.jobs import Outcome, Spec, run_spec

WAIT = 1.0  # seconds, after which a driver that waits may look at something else


class Engine(ABC):
    """Runs `run_spec` somewhere; it decides nothing about the results."""

    ahead = 2  # jobs for each that runs, so that none waits for the driver
    memory: int | None = None  # of all jobs that run; None where the engine itself shares it out

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
    """Processes on this machine, which get one job at a time."""

    ahead = 1

    def __init__(self, workers: int | None, options: Mapping[str, str]) -> None:
        super().__init__(workers, options)
        self.refuse_others()
        self.memory = memory_limit()
        self.idle = [Worker() for _ in range(self.capacity)]
        self.running: dict[Connection, tuple[Worker, int]] = {}

    @property
    def capacity(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))

    def submit(self, spec: Spec, num_bytes: int) -> None:  # noqa: ARG002 - the driver adds them up
        worker = self.idle.pop()
        if not worker.process.is_alive():  # died while it had nothing to do
            worker = Worker()
        self.running[worker.connection] = worker, spec.number
        with suppress(OSError):  # it died just now, which is seen where the outcome is awaited
            worker.connection.send(spec)

    def as_completed(self) -> Iterator[Outcome]:
        for one in wait([*self.running], WAIT):
            assert isinstance(one, Connection), "nothing else was waited for"
            worker, number = self.running.pop(one)
            try:
                outcome: Outcome = one.recv()
            except (EOFError, OSError):
                worker.process.join()
                outcome = Outcome(number, lost=f"the worker ended ({worker.process.exitcode})")
                worker = Worker()
            self.idle.append(worker)
            yield outcome

    def cancel(self) -> None:
        for worker in (*self.idle, *(one for one, _ in self.running.values())):
            worker.process.kill()
            worker.process.join()


class Worker:
    """A process that does the jobs it is sent."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=work, args=(other,), daemon=True)
        self.process.start()
        other.close()  # so that the death of the process is the end of what it says


def work(jobs: Connection) -> None:
    """Do jobs until the driver ends; leave Ctrl-C to it, which lets what runs come to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=follow, daemon=True).start()
    with suppress(EOFError):
        while True:
            jobs.send(run_spec(jobs.recv()))


def follow() -> None:
    """End this process where its driver was killed, whatever it is at: results are whole or not."""
    driver = multiprocessing.parent_process()
    assert driver is not None, "a worker is a child"
    driver.join()
    os._exit(1)


class RayEngine(Engine):
    """Tasks of Ray, on the cluster that RAY_ADDRESS or the option `address` names."""

    def __init__(self, workers: int | None, options: Mapping[str, str]) -> None:
        super().__init__(workers, options)
        self.ray = ray = optional_package("ray", "ray", "The engine ray")
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
                yield self.ray.get(reference)
            except errors.OutOfMemoryError as error:
                yield Outcome(spec.number, lost=str(error).splitlines()[0], memory=True)
            except (errors.RayError, OSError) as error:
                yield Outcome(spec.number, lost=f"{type(error).__name__}")

    def cancel(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference)


class SlurmEngine(Engine):
    """Arrays of jobs of Slurm through submitit; a job that is preempted is queued again."""

    def __init__(self, workers: int | None, options: Mapping[str, str]) -> None:
        super().__init__(workers, options)
        submitit = optional_package("submitit", "slurm", "The engine slurm")
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
        ended = [job for job in self.running if job.done()]
        if not ended:
            time.sleep(WAIT)
        for job in ended:
            spec = self.running.pop(job)
            error = job.exception()
            if error is None:
                yield job.result()
            else:
                yield Outcome(spec.number, lost=str(error).splitlines()[0])

    def cancel(self) -> None:
        for job in self.running:
            job.cancel()


class Checkpointed:
    """`run_spec`, which submitit queues again where Slurm ends it: done rows are not done again."""

    def __call__(self, spec: Spec) -> Outcome:
        return run_spec(spec)

    def checkpoint(self, spec: Spec) -> Any:
        submitit = optional_package("submitit", "slurm", "The engine slurm", "submitit.helpers")
        return submitit.helpers.DelayedSubmission(self, spec)


class DaskEngine(Engine):
    """Futures of Dask, on the scheduler that the option `address` names, or processes here."""

    def __init__(self, workers: int | None, options: Mapping[str, str]) -> None:
        super().__init__(workers, options)
        client = optional_package("distributed", "dask", "The engine dask").Client
        address = self.taken("address", "")
        self.refuse_others("address")
        try:
            self.client = client(address, timeout="10s") if address else client(n_workers=workers)
        except OSError as error:
            raise UsageError(f"the engine dask does not answer at {address}: {error}.") from None
        self.running: dict[Any, Spec] = {}

    @property
    def capacity(self) -> int:
        threads = int(sum(self.client.nthreads().values()))
        return max(1, min(threads, self.workers or threads))

    def submit(self, spec: Spec, num_bytes: int) -> None:  # noqa: ARG002 - workers have limits
        self.running[self.client.submit(run_spec, spec, pure=False, retries=0)] = spec

    def as_completed(self) -> Iterator[Outcome]:
        ended = [future for future in self.running if future.done()]
        if not ended:
            time.sleep(WAIT / 10)
        for future in ended:
            spec = self.running.pop(future)
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                yield Outcome(spec.number, lost=f"{type(error).__name__}")

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
