"""The interface between the driver of a sweep and the engines that run its jobs."""

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from bilens.base.errors import UsageError
from bilens.base.memory import memory_limit
from bilens.sweep.jobs import Outcome, Spec

WAIT = 1.0  # seconds, after which a driver that waits may look at something else
ANSWER = 10.0  # seconds that an engine has to answer
PROCESS = 1 << 29  # bytes of a worker before it has read anything: Python, torch and bilens
ENGINES = ("local", "ray", "slurm")


class SweepEngine(ABC):
    """Runs `run_spec` somewhere; it decides nothing about the results.

    A job that ends is one outcome: that of `run_spec`, or `lost` with its worker, or `refused`
    where nothing that there is could run it. An engine tries nothing again: the driver does.
    """

    memory: int | None = None  # of all jobs that run; None where the engine itself shares it out

    def __init__(self, workers: int | None, threads: int, options: Mapping[str, str]) -> None:
        self.workers, self.threads, self.options = workers, threads, dict(options)
        # Jobs for each that runs, so that none waits for the driver; a limit is one on all of them.
        self.ahead = 1 if workers else 2
        self.known: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """Take an option."""
        self.known.append(name)
        return self.options.pop(name, default)

    def number(self, name: str, default: float, least: float = 0.0) -> float:
        """Take an option that is a number."""
        text = self.text(name)
        try:
            value = float(text) if text else default
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise UsageError(
                f"--engine-option {name}={text}; expected a number of at least {least:g}."
            )
        return value

    def refuse_others(self) -> None:
        if self.options:
            raise UsageError(
                f"--engine-option {next(iter(self.options))} is not known to this engine: it has "
                f"{', '.join(self.known) or 'none'}."
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


def open_engine(
    name: str,
    workers: int | None = None,
    threads: int = 1,
    options: Mapping[str, str] | None = None,
) -> SweepEngine:
    """Return an engine that is ready for jobs of so many threads each."""
    if name not in ENGINES:
        raise UsageError(f"--engine {name} is not known: use one of {', '.join(ENGINES)}.")
    memory_limit()  # refuses a limit that is none, before anything starts
    kind = getattr(importlib.import_module(f"bilens.sweep.engines.{name}"), f"{name.title()}Engine")
    engine: SweepEngine = kind(workers, threads, options or {})
    return engine
