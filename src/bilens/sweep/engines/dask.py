"""Jobs as futures of Dask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bilens.base.errors import UsageError, first_line, optional_package
from bilens.base.memory import readable
from bilens.sweep.engines.contract import ANSWER, PROCESS, WAIT, Engine
from bilens.sweep.jobs import Outcome, Spec, run_spec


class DaskEngine(Engine):
    """Futures on the scheduler that the option `address` names, or in processes here."""

    def __init__(self, workers: int | None, threads: int, options: Mapping[str, str]) -> None:
        super().__init__(workers, threads, options)
        self.distributed = distributed = optional_package("distributed", "dask", "The engine dask")
        config = optional_package("dask.config", "dask", "The engine dask")
        address = self.text("address")
        self.refuse_others()
        # A task is not tried again by the scheduler, where it is ours: the driver counts attempts.
        with config.set({"distributed.scheduler.allowed-failures": 0}):
            given = (
                {"address": address, "timeout": ANSWER}
                if address
                else {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
            )
            try:
                self.client = distributed.Client(**given)
            except (OSError, ValueError) as error:
                where = f" at {address}" if address else ""
                raise UsageError(
                    f"the engine dask does not answer{where} ({first_line(error)}): start a "
                    "scheduler and give its --engine-option address=tcp://HOST:PORT, or leave the "
                    "address out for workers on this machine."
                ) from None
        self.running: dict[Any, Spec] = {}
        self.refused: list[Outcome] = []

    @property
    def capacity(self) -> int:
        there = int(sum(self.client.nthreads().values()))
        return max(1, min(there, self.workers or there))

    def submit(self, spec: Spec, num_bytes: int) -> None:
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        most = max((one["memory_limit"] or 2**62 for one in workers), default=2**62)
        if num_bytes + PROCESS > most:
            why = f"no worker of Dask has {readable(num_bytes + PROCESS)} of memory."
            self.refused.append(Outcome(spec.number, refused=why))
        else:
            self.running[self.client.submit(run_spec, spec, pure=False, retries=0)] = spec

    def as_completed(self) -> Iterator[Outcome]:
        refused, self.refused = self.refused, []
        yield from refused
        if not self.running:
            return
        try:
            ended = self.distributed.wait([*self.running], WAIT, "FIRST_COMPLETED").done
        except TimeoutError:
            return
        for future in ended:
            error = future.exception()
            number = self.running.pop(future).number
            yield future.result() if error is None else Outcome(number, lost=first_line(error))

    def cancel(self) -> None:
        self.client.cancel([*self.running], force=True)
        self.client.close()
        if self.client.cluster is not None:
            self.client.cluster.close()
