"""Audits that are run again: one at a time, each a command line in a process of its own.

The lock file of the folder is handed to that process. So of all explorers of a folder one audits
at a time, and whoever is killed, no second audit begins while one lives. An audit ends with the
explorer that started it; the history has it whole or not at all.
"""

import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import IO, Literal

from msgspec.structs import replace

from bilens.base.errors import UsageError
from bilens.records.base import LOST, UNPRINTABLE
from bilens.records.explorer import AuditRun, Failed, Refused
from bilens.serve.inside import without_paths
from bilens.serve.recorded_command import RefusedError, RepeatedCommand

LOCK = ".bilens-audit.lock"
LIMIT = 6 * 3600.0  # seconds that an audit may take
GRACE = 5.0  # seconds to let go in, after which a process is killed
PAUSE = 0.1  # seconds between two looks at a process
NICE = 10
TAIL = 4096  # bytes of what a command wrote last
FAILED = 1  # exit code of an audit by a condition
RECORDED = re.compile(r"Recorded as audit (\d+) of ")
STEPS = re.compile(r".*: (\d{1,18})/(\d{1,18})")  # of a line on the way
LIVE = ("waiting", "running", "ending")
WAITING, RUNNING = AuditRun(state="waiting"), AuditRun(state="running")
ENVIRONMENT = {"COLUMNS": "120", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}  # no network for a click


@dataclass(eq=False)
class StartedAudit:
    """One audit, from the request to its end."""

    folder: Path
    command: RepeatedCommand
    now: AuditRun = WAITING
    messages: IO[bytes] = field(default_factory=tempfile.TemporaryFile)  # on stderr
    reading: Lock = field(default_factory=Lock)  # of the messages, until the end
    stopped: Event = field(default_factory=Event)

    @property
    def is_live(self) -> bool:
        return self.describe().state in LIVE

    def describe(self) -> AuditRun:
        """Return how the audit is now, with the last line that its command wrote."""
        with self.reading:
            if self.now not in (WAITING, RUNNING):
                return self.now
            line = self.last_line()
        if self.now is WAITING and self.stopped.is_set():  # it is left out when its turn comes
            return AuditRun(state="cancelled")
        steps = STEPS.fullmatch(line)
        done, total = (int(steps[1]), int(steps[2])) if steps else (0, 0)
        state = "ending" if self.stopped.is_set() else self.now.state
        return replace(self.now, state=state, said=line, done=min(done, total), total=total)

    def last_line(self) -> str:
        """Return the last line that the command wrote, without paths of the machine."""
        size = os.fstat(self.messages.fileno()).st_size
        # which leaves alone the place at which the command writes on
        end = os.pread(self.messages.fileno(), TAIL, max(size - TAIL, 0)).decode("utf-8", "replace")
        lines = map(str.rstrip, reversed(without_paths(end, self.folder).splitlines()))
        return UNPRINTABLE.sub(LOST, next(filter(None, lines), "")).removeprefix("error: ")

    def run(self) -> None:
        """Wait for the folder, run the command, and keep how it ended."""
        code: int | None = None
        why: Failed | Refused = ""
        about = ""
        try:
            with locked(self.folder, self.stopped) as lock:
                if lock is not None:
                    self.command.check_files(self.folder)
                    self.now = RUNNING
                    code, why = self.wait_for(self.start(lock))
                    about = f"{LIMIT / 3600:g}" if why else ""
        except RefusedError as error:
            why, about = error.why, error.about
        except OSError as error:
            why, about = "unstarted", str(error.strerror)
        finally:
            with self.reading:
                line = self.last_line()
                self.messages.close()
                recorded = RECORDED.match(line)
                if recorded and code in (0, FAILED):
                    self.now = AuditRun(state="done", code=code, report=f"/audits/{recorded[1]}")
                else:
                    self.now = AuditRun(
                        state="cancelled" if self.stopped.is_set() and not why else "failed",
                        why=why,
                        about=about,
                        said=line,
                        code=code,
                    )

    def start(self, lock: int) -> subprocess.Popen[bytes]:
        """Start the command in a session of its own, which no Ctrl-C of the explorer reaches."""
        # -P: what lies in the folder must never be imported
        line = [sys.executable, "-P", "-m", "bilens", *self.command.arguments]
        process = subprocess.Popen(  # noqa: S603 - no shell; options are of a list, files of the folder
            line,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.messages,
            pass_fds=(lock,),
            start_new_session=True,
            env=os.environ | ENVIRONMENT,
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        return process

    def wait_for(self, process: subprocess.Popen[bytes]) -> tuple[int, Literal["", "late"]]:
        """Return the exit code; a process that takes too long or is not wanted is ended."""
        last, late = time.monotonic() + LIMIT, False
        while process.poll() is None and not (late or self.stopped.wait(PAUSE)):
            late = time.monotonic() > last
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                if process.returncode is None:
                    os.killpg(process.pid, ending)
                process.wait(GRACE)
        return process.wait(), "late" if late else ""


class AuditRuns:
    """The audits that one explorer runs again, and the last one of each model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: dict[str, StartedAudit] = {}  # by the id of a model
        self._changing = Lock()
        self._worker = ThreadPoolExecutor(1, "audit")

    def start(self, key: str, command: RepeatedCommand) -> AuditRun:
        """Run a command as soon as no other one runs.

        Raises:
            UsageError: If the model is being audited.
            RefusedError: If a file may not be read.
        """
        command.check_files(self.folder)
        with self._changing:
            before = self._runs.get(key)
            if before is not None and before.is_live:
                raise UsageError("the model is being audited: wait for the end, or cancel it.")
            self._runs[key] = run = StartedAudit(self.folder, command)
            self._worker.submit(run.run)
        return run.describe()

    def cancel(self, key: str) -> AuditRun | None:
        """End the audit of a model; one that has ended stays as it is."""
        if key in self._runs:
            self._runs[key].stopped.set()
        return self.describe(key)

    def describe(self, key: str) -> AuditRun | None:
        """Return how the last audit of a model goes; None where none was asked for."""
        run = self._runs.get(key)
        return None if run is None else run.describe()

    def close(self) -> None:
        """End all audits, so that the explorer can stop."""
        for run in [*self._runs.values()]:
            run.stopped.set()


@contextmanager
def locked(folder: Path, stopped: Event) -> Iterator[int | None]:
    """Wait for the lock of a folder, and give it to be handed on; None where that was stopped."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        while not stopped.is_set():
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            stopped.wait(PAUSE)
        yield None if stopped.is_set() else lock
    finally:
        os.close(lock)
