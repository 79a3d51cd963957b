"""Jobs in processes of this machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from bilens.base.memory import memory_limit
from bilens.sweep.engines.contract import WAIT, SweepEngine
from bilens.sweep.jobs import Outcome, Spec, run_spec


class LocalEngine(SweepEngine):
    """Processes on this machine, which get one job at a time."""

    def __init__(self, workers: int | None, threads: int, options: Mapping[str, str]) -> None:
        super().__init__(workers, threads, options)
        self.refuse_others()
        self.ahead = 1
        self.memory = memory_limit()
        self.idle: list[Worker] = []
        self.running: dict[Connection, tuple[Worker, int]] = {}

    @property
    def capacity(self) -> int:
        return self.workers or max(1, len(os.sched_getaffinity(0)) // self.threads)

    def submit(self, spec: Spec, num_bytes: int) -> None:  # noqa: ARG002 - the driver adds them up
        worker = self.idle.pop() if self.idle else Worker()
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
                self.idle.append(worker)
            except (EOFError, OSError):
                worker.process.join()
                outcome = Outcome(number, lost=f"the worker ended ({worker.process.exitcode})")
            yield outcome

    def cancel(self) -> None:
        for worker in (*self.idle, *(one for one, _ in self.running.values())):
            worker.process.kill()
            worker.process.join()


class Worker:
    """A process that does the jobs it is sent."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bilens.sweep.jobs"])  # once, and not in each worker
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
