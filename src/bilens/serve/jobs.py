"""The queue of jobs of a folder: what is asked for is run by command lines, one after the other.

A job is a small file in `.bilens-jobs`, not a row of `bilens.db`: its state changes, and a history
is only added to. Every change is made under one lock and written whole. A second lock, `slot`, is
handed to the process that runs a job and to the command that it starts: it is held while anything
of a job lives, whoever was killed. So no two jobs run at once, no process is ever taken for
another, and a job that says that it runs while the slot is free came to an end that nobody saw.
"""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout
from msgspec import structs

from bilens.api.history import History, now
from bilens.base.errors import BilensError, CheckpointError, FileError, UsageError
from bilens.base.files import write_file
from bilens.records.audit import Explanations
from bilens.records.base import LOST, UNPRINTABLE, Record, read_document
from bilens.records.explorer import id_of
from bilens.records.jobs import Command, Ended, Job, JobList, JobPage, Refused, State
from bilens.serve.inside import without_paths
from bilens.serve.job_lines import RefusedError, check_line

PLACE, REPORTS = ".bilens-jobs", "reports"  # folders in the folder
WAIT = 10.0  # seconds, for whoever else changes the queue
LIMIT = 6 * 3600.0  # seconds that a job may take
MOST_WAITING, SHOWN = 100, 200
TAIL = 1 << 16  # bytes of an output that are shown
RECORD = re.compile(r"(\d{1,9})\.json")
FAILED = 1  # exit code of an audit by a condition
STEPS = re.compile(r".*: (\d{1,18})/(\d{1,18})")  # of a line on the way
FAULT = re.compile(r"(?ms)^Traceback .*?(?=^error: |\Z)")  # which holds paths of the machine
LIVE = ("running", "ending")
ENDED = ("done", "failed", "cancelled", "interrupted")


class Kept(Record, frozen=True):
    """A job as it lies on the disk, with who runs it."""

    job: Job
    limit: float = LIMIT  # seconds
    pid: int = 0  # of the process group; 0 before it has begun
    machine: str = ""


class Jobs:
    """The jobs of a folder; any number of servers may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, folder / PLACE
        self._past: dict[int, Kept] = {}  # ended jobs stay as they are
        self._keepers: list[subprocess.Popen[bytes]] = []  # to be waited for, once they have ended

    def overview(self, most: int = SHOWN) -> JobList:
        """Return the last jobs, the last one first."""
        found = [self._shown(self._read(number)) for number in self._numbers()[:most]]
        return JobList(jobs=tuple(found))

    def page(self, number: int) -> JobPage | None:
        if number not in self._numbers():
            return None
        job = self._shown(self._read(number))
        output: tuple[str, ...] = ()
        if "--json" not in job.arguments:
            output = self.tail(number, "out")
        elif job.command == "explain" and job.state in ENDED:
            output = self._tables(number)  # of others their report
        return JobPage(job=job, output=output, messages=self.tail(number, "err"))

    def _tables(self, number: int) -> tuple[str, ...]:
        """Return an explanation as on a terminal; nothing where it is not whole."""
        from rich.console import Console

        from bilens.report.terminal_readings import attribution_tables, explanation_tables

        with suppress(OSError, ValueError, BilensError):
            document = json.loads(self.path(number, "out").read_bytes())
            record, drawn = read_document(Explanations, document), StringIO()
            for each in (*explanation_tables(record), *attribution_tables(record)):
                Console(width=120, file=drawn, color_system=None).print(each)
            return tuple(line.rstrip() for line in drawn.getvalue().splitlines())
        return ()

    def add(
        self, command: Command, model: str, arguments: tuple[str, ...], weights_sha256: str = ""
    ) -> Job:
        """Put a job at the end of the queue; it is on the disk when this returns.

        The result must be of the weights, where they are said.
        """
        for text in (model, *arguments):
            if UNPRINTABLE.search(text):
                raise UsageError(f"{text!r:.80} is no text that a command can be given: rename it.")
        with self._changing():
            numbers = self._numbers()
            waiting = sum(self._read(one).job.state == "waiting" for one in numbers)
            if waiting >= MOST_WAITING:
                raise UsageError(f"{waiting} jobs wait already: wait, or cancel some.")
            number = max(numbers, default=0) + 1
            job = Job(number, command, model, arguments, "waiting", now())
            job = structs.replace(job, weights_sha256=weights_sha256)
            self._write(Kept(job, LIMIT))
        return job

    def cancel(self, number: int) -> Job | None:
        """End a job: one that waits at once, one that runs when it has let go.

        It is asked to; after a second call it has no choice.
        """
        if number not in self._numbers():
            return None
        with self._changing():
            kept = self._read(number)
            if kept.job.state == "waiting":
                kept = self._end(kept, "cancelled")
            elif kept.job.state in LIVE and not self._is_free():
                if kept.machine not in ("", socket.gethostname()):
                    raise UsageError(f"it runs on the machine {kept.machine}: cancel it there.")
                if kept.pid:
                    if not self._runs(kept.pid):  # whoever wrote the file
                        raise UsageError("its record names a process that is none of this job.")
                    hard = kept.job.state == "ending"
                    with suppress(ProcessLookupError):
                        os.killpg(kept.pid, signal.SIGKILL if hard else signal.SIGTERM)
                kept = self._write(changed(kept, state="ending"))
        return self._shown(kept)

    def advance(self) -> None:
        """Say of jobs whose processes are gone that they are, and start the next one."""
        self._keepers = [keeper for keeper in self._keepers if keeper.poll() is None]
        if all(self._read(number).job.state in ENDED for number in self._numbers()):
            return
        with self._changing(), self._slot() as slot:
            if slot is None:
                return
            each = [self._read(number) for number in reversed(self._numbers())]
            for kept in each:
                if kept.job.state in LIVE:  # an audit that is in the history has come to its end
                    if kept.job.command == "audit" and self._made(kept.job):
                        self._end_well(kept)
                    else:
                        self._end(
                            kept, "cancelled" if kept.job.state == "ending" else "interrupted"
                        )
            for kept in each:
                if kept.job.state == "waiting":
                    try:
                        check_line(self.folder, kept.job.command, kept.job.arguments)
                    except RefusedError as error:
                        self._end(kept, "failed", error.why, error.about)
                        continue
                    self._write(changed(kept, state="running", started=now()))
                    self._keepers.append(keep(self.folder, kept.job.number, slot))
                    break

    def begin(self, number: int) -> Kept | None:
        """Say who runs a job, from inside of it; None where it is no longer wanted."""
        with self._changing():
            kept = self._read(number)
            if kept.job.state == "running":
                whose = {"pid": os.getpid(), "machine": socket.gethostname()}
                return self._write(structs.replace(kept, **whose))
            self._end(kept, "cancelled")
            return None

    def finish(self, number: int, code: int, why: Ended, about: str) -> None:
        """Keep how a job ended, from inside of it; `why` says why it was made to, if it was."""
        with self._changing():
            kept = changed(self._read(number), code=code)
            if code == 0 or (code == FAILED and kept.job.command == "audit"):
                self._end_well(kept)
            elif kept.job.state == "ending":
                self._end(kept, "cancelled")
            else:
                self._end(kept, "failed", why, about)

    def _end_well(self, kept: Kept) -> None:
        """End a job that has a result, unless that cannot be laid or is of other weights."""
        try:
            kept = changed(kept, report=self._made(kept.job))
        except (BilensError, OSError):
            self._end(kept, "failed", "unwritten")
            return
        asked, read = kept.job.weights_sha256, self._weights(kept.job)
        if asked and read and asked != read:
            self._end(kept, "failed", "changed")
        else:
            self._end(kept, "done")

    def _weights(self, job: Job) -> str:
        """Return the SHA-256 of the weights that a result is of; empty where it says none."""
        with suppress(BilensError, OSError, ValueError, LookupError, TypeError):
            if job.command == "audit":
                number = int(str(job.report).rpartition("/")[2])
                history = History(self.folder, reading=True, writing=False)
                (*_, audit) = history.audits(after=number - 1)
                return audit.weights_sha256
            document = json.loads(self.path(job.number, "out").read_bytes())
            return str(document["source"]["weights_sha256"])
        return ""

    def path(self, number: int, suffix: str) -> Path:
        return self.place / f"{number}.{suffix}"

    def tail(self, number: int, suffix: str, size: int = TAIL) -> tuple[str, ...]:
        """Return the last lines that a job wrote; none where it wrote nothing."""
        with suppress(OSError), self.path(number, suffix).open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - size, 0))
            text = file.read(size).decode("utf-8", "replace")
            text = FAULT.sub(f"({PLACE}/{number}.{suffix} has the lines of the fault)\n", text)
            text = without_paths(text, self.folder)
            return tuple(UNPRINTABLE.sub(LOST, line.rstrip()) for line in text.splitlines())
        return ()

    def last_line(self, number: int) -> str:
        lines = self.tail(number, "err", 4096)
        return next(filter(None, reversed(lines)), "").removeprefix("error: ")

    def _made(self, job: Job) -> str | None:
        """Return the address of what a job made; a document is laid where the walk finds it."""
        if job.command == "audit":
            found = re.match(r"Recorded as audit (\d+) of ", self.last_line(job.number))
            return f"/audits/{found[1]}" if found else None
        if job.command == "explain":
            return None
        place = self.folder / REPORTS
        if place.is_symlink():
            raise FileError(f"{REPORTS} is a link.")
        stem = f"{re.sub(r'[^A-Za-z0-9]+', '-', job.model).strip('-')}-{job.command}-{job.number}"
        target = place / f"{stem.lstrip('-')}.json"
        if target.exists():  # of an earlier queue, which somebody removed
            target = target.with_stem(f"{target.stem}-{now().replace(':', '')}")
        write_file(target, self.path(job.number, "out").read_bytes())
        return f"/reports/{id_of(target.relative_to(self.folder).as_posix())}"

    def _shown(self, kept: Kept) -> Job:
        job = kept.job
        if job.state not in LIVE:
            return job
        told = self.last_line(job.number)
        steps = STEPS.fullmatch(told)
        done, total = (int(steps[1]), int(steps[2])) if steps else (0, 0)
        return structs.replace(job, told=told, done=min(done, total), total=total)

    def _numbers(self) -> list[int]:
        """Return the numbers of all jobs, the last one first."""
        numbers: list[int] = []
        with suppress(FileNotFoundError):
            found = (RECORD.fullmatch(path.name) for path in self.place.iterdir())
            numbers = sorted((int(match[1]) for match in found if match), reverse=True)
        for gone in self._past.keys() - {*numbers}:  # somebody removed the queue: they begin again
            self._past.pop(gone, None)
        return numbers

    def _read(self, number: int) -> Kept:
        if (known := self._past.get(number)) is not None:
            return known
        try:
            kept = msgspec.json.decode(self.path(number, "json").read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError, UnicodeError):
            return Kept(Job(number, "audit", LOST, (), "failed", "", why="lost"))
        if kept.job.state in ENDED:
            self._past[number] = kept
        return kept

    def _write(self, kept: Kept) -> Kept:
        self._past.pop(kept.job.number, None)
        write_file(self.path(kept.job.number, "json"), msgspec.json.encode(kept))
        return kept

    def _end(self, kept: Kept, state: State, why: Ended | Refused = "", about: str = "") -> Kept:
        told = "" if state == "done" else self.last_line(kept.job.number)
        ended = {"state": state, "ended": now(), "told": told, "why": why, "about": about}
        return self._write(changed(kept, **ended))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the queue; it is made where there is none."""
        try:
            if self.place.is_symlink():
                raise CheckpointError(f"{self.place}: is a link; expected a folder for the jobs.")
            self.place.mkdir(exist_ok=True)
            with FileLock(self.place / "queue.lock", timeout=WAIT):
                yield
        except (OSError, Timeout) as error:
            if isinstance(error, FileError):
                raise
            raise FileError(
                f"{self.place}: cannot be written ({error}): check the folder's permissions and "
                "free space."
            ) from None

    @contextmanager
    def _slot(self) -> Iterator[int | None]:
        """Give the lock of what runs, to be handed on; None while something runs."""
        slot = os.open(self.place / "slot", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield slot
        finally:
            os.close(slot)

    def _runs(self, group: int) -> bool:
        """Return whether the slot is held in a process group; true where no system says it."""
        slot, processes = os.path.realpath(self.place / "slot"), Path("/proc")
        if not (processes / "self" / "fd").is_dir():
            return True
        for each in processes.glob("[0-9]*"):
            with suppress(OSError):  # gone since, or of somebody else
                own = os.getpgid(int(each.name)) == group
                if own and slot in map(os.readlink, (each / "fd").iterdir()):
                    return True
        return False

    def _is_free(self) -> bool:
        with self._slot() as slot:
            return slot is not None


def changed(kept: Kept, **fields: Any) -> Kept:
    return structs.replace(kept, job=structs.replace(kept.job, **fields))


def keep(folder: Path, number: int, slot: int) -> subprocess.Popen[bytes]:
    """Start the process that runs a job: in a session of its own, which no Ctrl-C reaches."""
    # -P: what lies in the folder must never be imported
    line = [sys.executable, "-P", "-m", "bilens.serve.keeper", str(folder), str(number), str(slot)]
    return subprocess.Popen(  # noqa: S603 - no text of a request is in it
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(slot,),
        start_new_session=True,
    )
