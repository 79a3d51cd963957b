"""What runs jobs: a contract of four words, and a file for each engine that exists."""

from __future__ import annotations

from collections.abc import Mapping

from bilens.base.errors import UsageError
from bilens.base.memory import memory_limit
from bilens.sweep.engines.contract import Engine
from bilens.sweep.engines.dask import DaskEngine
from bilens.sweep.engines.local import LocalEngine
from bilens.sweep.engines.ray import RayEngine
from bilens.sweep.engines.slurm import SlurmEngine

ENGINES: Mapping[str, type[Engine]] = {
    "local": LocalEngine,
    "ray": RayEngine,
    "slurm": SlurmEngine,
    "dask": DaskEngine,
}


def open_engine(
    name: str,
    workers: int | None = None,
    threads: int = 1,
    options: Mapping[str, str] | None = None,
) -> Engine:
    """Return an engine that is ready for jobs of so many threads each."""
    if name not in ENGINES:
        raise UsageError(f"--engine {name} is not known: use one of {', '.join(ENGINES)}.")
    memory_limit()  # refuses a limit that is none, before anything starts
    return ENGINES[name](workers, threads, options or {})
