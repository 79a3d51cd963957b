"""A command in a process of its own, within limits of time and memory, and what it took."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None  # None where it was stopped
    stopped: str  # "time" or "memory", empty where it ended by itself
    seconds: float
    peak_mib: float
    out: str
    err: str


def resident_mib(process: int) -> float:
    """Return the memory that a process holds, or 0 where the system does not tell it."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES / MIB
    except (OSError, IndexError):
        return 0.0


def run_under_limits(command: list[str], seconds: float, mib: float) -> Ended:
    """Run a command of Python's in a process group of its own; stop it past a limit.

    Its peak of memory is what the kernel counted.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(  # noqa: S603 - its own command
            [sys.executable, *command], stdout=out, stderr=err, start_new_session=True
        )
        stopped, status, usage = "", 0, None
        while usage is None:
            done, status, found = os.wait4(child.pid, os.WNOHANG)
            usage = found if done else None
            if usage is None and not stopped:
                over = time.perf_counter() - began > seconds
                stopped = "time" if over else "memory" if resident_mib(child.pid) > mib else ""
                if stopped:
                    os.killpg(child.pid, signal.SIGKILL)
            time.sleep(0.05)
        child.returncode = os.waitstatus_to_exitcode(status)
        took = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        return Ended(
            None if stopped else child.returncode,
            stopped,
            took,
            usage.ru_maxrss / 1024,
            out.read().decode(errors="replace"),
            err.read().decode(errors="replace"),
        )
