"""The queue of jobs of a folder: what is asked for is run by command lines, one after the other.

A job is a small file in `.bilens-jobs`, not a row of `bilens.db`: its state changes, and a history
is only added to. Every change is made under one lock and written whole. A second lock, `slot`, is
handed to the process that runs a job and to the command that it starts: it is held while anything
of a job lives, whoever was killed. So no two jobs run at once, no process is ever taken for
another, and a job that says that it runs while the slot is free came to an end that nobody saw.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout
from msgspec import structs

from bilens.api.history import now
from bilens.base.errors import CheckpointError, FileError, UsageError
from bilens.base.files import write_file
from bilens.findings.rules.registry import parse_conditions
from bilens.records.base import LOST, UNPRINTABLE, Record
from bilens.records.explorer import id_of
from bilens.records.jobs import OPTIONS, Command, Job, JobList, JobPage, NewJob, State
from bilens.serve.inside import MOST_OF_DATA, files_of, without_paths

FILES = ("--data", "--corpus", "--input-sae", "--output-sae")  # options that name one
RESULT = {"audit": ["--history=."], "certify": ["--json"], "trace": ["--json"]}
PLACE, REPORTS = ".bilens-jobs", "reports"  # folders in the folder
WAIT = 10.0  # seconds, for whoever else changes the queue
LIMIT = 6 * 3600.0  # seconds that a job may take
MOST_WAITING, SHOWN = 100, 200
TAIL = 1 << 16  # bytes of an output that are shown
RECORD = re.compile(r"(\d{1,9})\.json")
FAILED = 1  # exit code of an audit by a condition
FAULT = re.compile(r"(?ms)^Traceback .*?(?=^error: |\Z)")  # which holds paths of the machine
LIVE = ("running", "ending")
ENDED = ("done", "failed", "cancelled", "interrupted")
LOST_JOB = "its record is damaged; what it wrote lies beside it in .bilens-jobs."


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
        output = () if "--json" in job.arguments else self.tail(number, "out")  # else its report
        return JobPage(job=job, output=output, messages=self.tail(number, "err"))

    def add(self, command: Command, model: str, arguments: tuple[str, ...]) -> Job:
        """Put a job at the end of the queue; it is on the disk when this returns."""
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
                    made = self._made(kept.job) if kept.job.command == "audit" else None
                    seen: State = "cancelled" if kept.job.state == "ending" else "interrupted"
                    self._end(changed(kept, report=made), "done" if made else seen)
            for kept in each:
                if kept.job.state == "waiting":
                    try:
                        check_line(self.folder, kept.job.command, kept.job.arguments)
                    except UsageError as error:
                        self._end(kept, "failed", str(error))
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

    def finish(self, number: int, code: int, stopped: str) -> None:
        """Keep how a job ended, from inside of it; `stopped` says why it was made to, if it was."""
        with self._changing():
            kept = changed(self._read(number), code=code)
            if code == 0 or (code == FAILED and kept.job.command == "audit"):
                try:
                    self._end(changed(kept, report=self._made(kept.job)), "done")
                except FileError as error:
                    self._end(kept, "failed", str(error))
            elif kept.job.state == "ending":
                self._end(kept, "cancelled")
            else:
                self._end(kept, "failed", stopped)

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
            raise FileError(f"{REPORTS} is a link: it must be a folder, for the reports.")
        stem = f"{re.sub(r'[^A-Za-z0-9]+', '-', job.model).strip('-')}-{job.command}-{job.number}"
        target = place / f"{stem.lstrip('-')}.json"
        if target.exists():  # of an earlier queue, which somebody removed
            target = target.with_stem(f"{target.stem}-{now().replace(':', '')}")
        write_file(target, self.path(job.number, "out").read_bytes())
        return f"/reports/{id_of(target.relative_to(self.folder).as_posix())}"

    def _shown(self, kept: Kept) -> Job:
        job = kept.job
        return structs.replace(job, told=self.last_line(job.number)) if job.state in LIVE else job

    def _numbers(self) -> list[int]:
        """Return the numbers of all jobs, the last one first."""
        with suppress(FileNotFoundError):
            found = (RECORD.fullmatch(path.name) for path in self.place.iterdir())
            return sorted((int(match[1]) for match in found if match), reverse=True)
        return []

    def _read(self, number: int) -> Kept:
        if number in self._past:
            return self._past[number]
        try:
            kept = msgspec.json.decode(self.path(number, "json").read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError, UnicodeError):
            return Kept(Job(number, "audit", LOST, (), "failed", "", told=LOST_JOB))
        if kept.job.state in ENDED:
            self._past[number] = kept
        return kept

    def _write(self, kept: Kept) -> Kept:
        write_file(self.path(kept.job.number, "json"), msgspec.json.encode(kept))
        return kept

    def _end(self, kept: Kept, state: State, told: str = "") -> Kept:
        if state != "done":
            told = told or self.last_line(kept.job.number)
        return self._write(changed(kept, state=state, ended=now(), told=told))

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


def arguments_of(
    asked: NewJob, models: Mapping[str, str], data: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the command line of a job; all names in it are of `models` and `data`, by id."""
    parse_conditions(asked.fail_on or (), data=True, baseline=False)
    files = {"data": data, "input_sae": models, "output_sae": models}
    words: list[str] = [asked.command, *RESULT.get(asked.command, ())]
    for name in OPTIONS[asked.command]:
        given = getattr(asked, name)
        if name in files and given is not None:
            if given not in files[name]:
                raise UsageError(f"{name}: it is no longer in the folder; load the page again.")
            given = files[name][given]
        each = given if isinstance(given, tuple) else () if given is None else (given,)
        words += [f"--{spelled(asked.command, name)}={one}" for one in each]
    return (*words, "--", models[asked.model])


def check_line(folder: Path, command: Command, line: tuple[str, ...]) -> None:
    """Refuse a command line that no page can have asked for, or whose files are gone since.

    Somebody else may write into the folder, and this process has other rights.
    """
    match line:
        case (first, *words, "--", model) if first == command:
            files = [model]
        case _:
            raise UsageError("it is no command line of a job.")
    options = {f"--{spelled(command, name)}" for name in OPTIONS[command]}
    for word in words:
        option, _, value = word.partition("=")
        if option not in options and word not in RESULT.get(command, ()):
            raise UsageError(f"{option} is no option of a job.")
        if option in FILES:
            files.append(value)
    for name in files:
        if why := unfit(folder, name):
            raise UsageError(why)


def unfit(folder: Path, name: str) -> str:
    """Return why a job may not read a file or a folder; empty where it may."""
    try:
        path = Path(os.path.realpath(folder / name))  # which a loop of links does not stop
        if not path.exists() or not path.is_relative_to(folder):
            return f"{name} is no longer in the folder."
        deque(files_of(folder, path, MOST_OF_DATA), maxlen=0)
    except FileError as error:
        return str(error)
    except (OSError, ValueError):
        return f"{name} cannot be read."
    return ""


def spelled(command: Command, name: str) -> str:
    """Return the option of the command line that a field of a `NewJob` is."""
    return "corpus" if command == "trace" and name == "data" else name.replace("_", "-")


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
