"""Jobs as tasks of Ray."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bilens.base.errors import UsageError, first_line, optional_package
from bilens.base.memory import readable
from bilens.sweep.engines.contract import ANSWER, PROCESS, WAIT, SweepEngine
from bilens.sweep.jobs import Outcome, Spec, run_spec

PATIENCE = 60.0  # seconds; as long as it takes a node to be replaced by another one


class RayEngine(SweepEngine):
    """Tasks on the cluster that the option `address` or RAY_ADDRESS names, or that is here."""

    def __init__(self, workers: int | None, threads: int, options: Mapping[str, str]) -> None:
        super().__init__(workers, threads, options)
        self.ray = ray = optional_package("ray", "ray", "The engine ray")
        waits = "patience" in self.options
        address = self.text("address", os.environ.get("RAY_ADDRESS", ""))
        self.cpus = self.number("num_cpus", threads, 0.01)
        self.patience = self.number("patience", PATIENCE)
        environment = self.text("runtime_env")
        self.refuse_others()
        if self.cpus > 1 and self.cpus % 1:
            raise UsageError(
                f"--engine-option num_cpus={self.cpus:g}; expected a whole number, or one below 1."
            )
        self.nodes: list[dict[str, Any]] = []
        self.seen = self.changed = 0.0  # when the nodes were asked for, and were others than before
        self.running: dict[Any, tuple[int, int]] = {}  # number of a job, and its bytes
        self.started = not ray.is_initialized()
        if self.started:
            start(ray, address, environment)
        self.task = ray.remote(max_retries=0)(run_spec)  # the driver counts attempts
        self.look()
        if not waits and not self.fits(0):
            self.cancel()
            raise UsageError(
                f"--engine-option num_cpus={self.cpus:g}: {self.too_large(0)}; with patience=600 "
                "the sweep waits ten minutes for one."
            )

    def look(self) -> None:
        """See which nodes there are."""
        now = time.monotonic()
        if now > self.seen + WAIT or not self.nodes:
            found = [one for one in self.ray.nodes() if one["Alive"]]
            if {one["NodeID"] for one in found} != {one["NodeID"] for one in self.nodes}:
                self.changed = now
            self.nodes, self.seen = found, now

    def fits(self, num_bytes: int) -> bool:
        """Whether a node has what a job asks for, be it free or not."""
        wanted = {"CPU": self.cpus, "memory": num_bytes}
        return any(
            all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items())
            for node in self.nodes
        )

    def too_large(self, num_bytes: int) -> str:
        memory = f" and {readable(num_bytes)} of memory" if num_bytes else ""
        return f"no node of Ray has {self.cpus:g} CPUs{memory}"

    @property
    def capacity(self) -> int:
        self.look()
        found = sum(int(node["Resources"].get("CPU", 0) // self.cpus) for node in self.nodes)
        return max(1, min(found, self.workers or found))

    def submit(self, spec: Spec, num_bytes: int) -> None:
        task = self.task.options(num_cpus=self.cpus, memory=num_bytes + PROCESS)
        self.running[task.remote(spec)] = spec.number, num_bytes + PROCESS

    def as_completed(self) -> Iterator[Outcome]:
        some, rest = self.ray.wait([*self.running], num_returns=1, timeout=WAIT)
        if some and rest:  # what else is there already
            more, _ = self.ray.wait(rest, num_returns=len(rest), timeout=0)
            some += more
        for reference in some:
            yield self.outcome(reference, self.running.pop(reference)[0])
        if not some:
            yield from self.hopeless()

    def outcome(self, reference: Any, number: int) -> Outcome:
        errors = self.ray.exceptions
        try:
            found: Outcome = self.ray.get(reference)
            return found
        except errors.OutOfMemoryError as error:
            return Outcome(number, lost=first_line(error), memory=True)
        except errors.RuntimeEnvSetupError as error:
            return Outcome(number, ends=f"the runtime environment of Ray fails: {error}")
        except errors.RayTaskError as error:  # `run_spec` raises nothing: it was not reached
            said = str(error).strip().splitlines()[-1]
            if "ModuleNotFoundError" in said or "ImportError" in said:
                return Outcome(
                    number,
                    ends=f"a node of Ray lacks what a job needs ({said}): install bilens of this "
                    "version there, or give --engine-option runtime_env=FILE.",
                )
            return Outcome(number, lost=said)
        except (errors.RayError, OSError) as error:
            return Outcome(number, lost=first_line(error))

    def hopeless(self) -> Iterator[Outcome]:
        """Yield jobs that no node is large enough for, and to which none was added for a while."""
        self.look()
        if time.monotonic() < self.changed + self.patience:
            return
        for reference, (number, num_bytes) in [*self.running.items()]:
            if not self.fits(num_bytes):
                self.ray.cancel(reference)
                del self.running[reference]
                yield Outcome(number, refused=f"{self.too_large(num_bytes)}.")

    def cancel(self) -> None:
        for reference in self.running:
            with suppress(self.ray.exceptions.RayError):
                self.ray.cancel(reference, force=True)
        if self.started:
            self.ray.shutdown()


def start(ray: Any, address: str, environment: str) -> None:
    """Be a driver of a cluster that runs, or, where there is none, of one that ends with it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdigit():  # where nothing listens, `ray.init` waits for minutes
            socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
            # Where something else than Ray does: tried once, 40 seconds, and not 20 times.
            os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that starts here
        ray.init(
            address=address or None,
            runtime_env=json.loads(Path(environment).read_text()) if environment else None,
            log_to_driver=False,
            logging_level="error",
        )
    except Exception as error:  # of a node that does not start in time it has no name
        where = f" at {address}" if address else ""
        raise UsageError(
            f"the engine ray does not start{where} ({first_line(error)}): see to the address, the "
            "version of Ray there, and the token if it asks for one."
        ) from None
