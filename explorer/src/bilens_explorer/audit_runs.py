"""Audits that are run again: one at a time, each a command line in a process of its own.

An audit ends with the explorer that started it; the history has it whole or not at all.
"""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock, Timer
from typing import Literal

from msgspec.structs import replace

from bilens.base.errors import UsageError
from bilens.records.base import LOST, UNPRINTABLE
from bilens_explorer.inside import without_paths
from bilens_explorer.recorded_command import RefusedError, RepeatedCommand
from bilens_explorer.records.models import AuditRun

LIMIT = 6 * 3600.0  # seconds that an audit may take
NICE = 10
LONGEST = 4096  # letters of a line that are read at once
FAILED = 1  # exit code of an audit by a condition
RECORDED = re.compile(r"Recorded as audit (\d+) of ")
STEPS = re.compile(r".*: (\d{1,18})/(\d{1,18})")  # of a line on the way
LIVE = ("waiting", "running", "ending")
ENVIRONMENT = {"COLUMNS": "120", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}  # no network for a click


class StartedAudit:
    """One audit, from the request to its end."""

    def __init__(self, folder: Path, command: RepeatedCommand) -> None:
        self.folder, self.command = folder, command
        self._now, self._line = AuditRun(state="waiting"), ""
        self._process: subprocess.Popen[str] | None = None
        self._stopped: Literal["", "cancelled", "late"] = ""
        self._changing = Lock()

    def describe(self) -> AuditRun:
        """Return how the audit is now, with the last line that its command wrote."""
        now, line = self._now, self._line
        if now.state != "running":
            return now
        steps = STEPS.fullmatch(line)
        done, total = (int(steps[1]), int(steps[2])) if steps else (0, 0)
        state = "ending" if self._stopped else now.state
        return replace(now, state=state, said=line, done=min(done, total), total=total)

    def run(self) -> None:
        """Run the command, unless it was cancelled meanwhile, and keep how it ended."""
        try:
            self.command.check_files(self.folder)
            with self._changing:
                if self._now.state != "waiting":
                    return
                self._process = process = self._start()
                self._now = AuditRun(state="running")
        except RefusedError as error:
            self._now = AuditRun(state="failed", why=error.why, about=error.about)
            return
        except OSError as error:
            self._now = AuditRun(state="failed", why="unstarted", about=str(error.strerror))
            return
        timer = Timer(LIMIT, self.stop, ["late"])
        timer.start()
        with process:
            assert process.stderr is not None, "it is a pipe"
            for line in iter(partial(process.stderr.readline, LONGEST), ""):
                told = without_paths(line.strip(), self.folder).removeprefix("error: ")
                self._line = UNPRINTABLE.sub(LOST, told) or self._line
        timer.cancel()
        self._now = self._ended(process.returncode)

    def _start(self) -> subprocess.Popen[str]:
        """Start the command in a session of its own, which no Ctrl-C of the explorer reaches."""
        # -P: what lies in the folder must never be imported
        line = [sys.executable, "-P", "-m", "bilens", *self.command.arguments]
        process = subprocess.Popen(  # noqa: S603 - no shell; options are of a list, files of the folder
            line,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            env=os.environ | ENVIRONMENT,
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        return process

    def _ended(self, code: int) -> AuditRun:
        recorded = RECORDED.match(self._line)
        if recorded and code in (0, FAILED):
            return AuditRun(state="done", code=code, report=f"/audits/{recorded[1]}")
        found = AuditRun(state="failed", said=self._line, code=code)
        if self._stopped == "late":
            return replace(found, why="late", about=f"{LIMIT / 3600:g}")
        return replace(found, state="cancelled") if self._stopped else found

    def stop(self, why: Literal["cancelled", "late"] = "cancelled") -> None:
        """End the audit at once: it writes in one step, so nothing of it is half there."""
        with self._changing:
            if self._now.state == "waiting":
                self._now = AuditRun(state="cancelled")
            elif self._process is not None and self._process.poll() is None:
                self._stopped = why
                os.killpg(self._process.pid, signal.SIGKILL)


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
            before = self.describe(key)
            if before is not None and before.state in LIVE:
                raise UsageError("the model is being audited: wait for the end, or cancel it.")
            self._runs[key] = started = StartedAudit(self.folder, command)
            self._worker.submit(started.run)
        return started.describe()

    def cancel(self, key: str) -> AuditRun | None:
        """End the audit of a model; one that has ended stays as it is."""
        if key in self._runs:
            self._runs[key].stop()
        return self.describe(key)

    def describe(self, key: str) -> AuditRun | None:
        """Return how the last audit of a model goes; None where none was asked for."""
        return self._runs[key].describe() if key in self._runs else None

    def close(self) -> None:
        """End all audits, so that the explorer can stop."""
        for one in reversed([*self._runs.values()]):  # those that wait do not begin meanwhile
            one.stop()
