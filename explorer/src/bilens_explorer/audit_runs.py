"""Audits that are run again: one at a time, each a command line in a process of its own.

An audit ends with the explorer that started it; the history has it whole or not at all.
"""

import os
import re
import shlex
import signal
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock, Thread, Timer
from typing import Literal

from msgspec.structs import replace

from bilens.api import RefusedError, RepeatedCommand, check_place, repeat_command
from bilens.base.errors import FileError, UsageError
from bilens.records import LOST, UNPRINTABLE
from bilens_explorer.inside import MOST_OF_DATA, ElsewhereError, ToldError, files_of, without_paths
from bilens_explorer.records.models import AuditRun

LIMIT = 6 * 3600.0  # seconds that an audit may take
NICE, PATIENCE = 10, 5.0  # seconds in which one that was killed is gone
LONGEST = 4096  # letters of a line that are read at once
FAILED = 1  # exit code of an audit by a condition
RECORDED = re.compile(r"Recorded as audit (\d+) of ")
RUNNING: Literal["running"] = "running"
STEPS = re.compile(r".*: (\d{1,18})/(\d{1,18})")  # of a line on the way


class StartedAudit:
    """One audit, from its start to its end."""

    def __init__(self, folder: Path, command: RepeatedCommand) -> None:
        self.folder, self.now = folder, AuditRun(state=RUNNING)
        self._ended = ""  # why it was: "cancelled" or "late"
        self._process = command.start(folder)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)
        self._following = Thread(target=self._follow, name="audit", daemon=True)
        self._following.start()

    def _follow(self) -> None:
        """Keep the last line that the command writes, and then how it ended."""
        timer = Timer(LIMIT, self.end, ["late"])
        timer.start()
        with self._process as process:
            assert process.stderr is not None, "it is a pipe"
            for line in iter(partial(process.stderr.readline, LONGEST), ""):
                told = without_paths(line.strip(), self.folder).removeprefix("error: ")
                told = UNPRINTABLE.sub(LOST, told) or self.now.said
                steps = STEPS.fullmatch(told)
                done, total = (int(steps[1]), int(steps[2])) if steps else (0, 0)
                self.now = AuditRun(state=RUNNING, said=told, done=min(done, total), total=total)
        timer.cancel()
        self.now = self._outcome(self.now.said, process.returncode)

    def _outcome(self, said: str, code: int) -> AuditRun:
        recorded = RECORDED.match(said)
        if recorded and code in (0, FAILED):
            return AuditRun(state="done", code=code, report=f"/audits/{recorded[1]}")
        found = AuditRun(state="failed", said=said, code=code)
        if self._ended == "late":
            return replace(found, why="late", about=f"{LIMIT / 3600:g}")
        return replace(found, state="cancelled") if self._ended else found

    def end(self, why: str = "cancelled") -> None:
        """End the audit at once: it writes in one step, so nothing of it is half there."""
        if self._process.poll() is None:
            self._ended = why
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._following.join(PATIENCE)


class AuditRuns:
    """The audits that one explorer runs again, and the last one of each model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: dict[str, StartedAudit] = {}  # by the id of a model
        self._starting = Lock()

    def start(self, key: str, command: RepeatedCommand) -> AuditRun:
        """Run a command, where no other one runs.

        Raises:
            UsageError: If an audit runs, or this one cannot be started.
            RefusedError: If a file may not be read.
        """
        for name in command.files:
            check_file(self.folder, name)
        with self._starting:
            if any(one.now.state == RUNNING for one in self._started.values()):
                raise ToldError("running")
            try:
                started = self._started[key] = StartedAudit(self.folder, command)
            except OSError as error:
                raise UsageError(f"the audit cannot be started: {error.strerror}.") from None
        return started.now

    def cancel(self, key: str) -> None:
        """End the audit of a model; one that has ended stays as it is."""
        if key in self._started:
            self._started[key].end()

    def describe(self, key: str) -> AuditRun | None:
        """Return how the last audit of a model goes; None where none was asked for."""
        return self._started[key].now if key in self._started else None

    def close(self) -> None:
        """End the audit that runs, so that the explorer can stop."""
        with self._starting:
            for one in self._started.values():
                one.end()


def repeated_line(command: str, folder: Path, name: str) -> str:
    """Return the line that repeats a recorded audit in the folder; empty where none may."""
    with suppress(RefusedError):
        return shlex.join(["bilens", *repeat_command(command, folder, name).arguments])
    return ""


def check_file(folder: Path, name: str) -> None:
    """Refuse a file, or a folder of them, that is gone or has a link out of the served folder."""
    try:
        check_place(folder, name)
        deque(files_of(folder, folder / name, MOST_OF_DATA), maxlen=0)
    except RefusedError:
        raise
    except ElsewhereError:
        raise RefusedError("outside", name) from None
    except FileError:
        raise RefusedError("many", name) from None
    except (OSError, ValueError):
        raise RefusedError("unreadable", name) from None
