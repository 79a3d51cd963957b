"""The driver of a sweep: what is left is handed to an engine, what is lost is handed out again."""

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from bilens.base import Progress, silent
from bilens.base.errors import FileError, InterruptedRunError, UsageError
from bilens.records.sweep import SweepOptions
from bilens.sweep.engines.contract import SweepEngine
from bilens.sweep.jobs import Outcome, Piece, Spec, folder_of, result_name
from bilens.sweep.manifest import NAME, Job, Plan, check_release, kept_plan, make_plan
from bilens.sweep.output import SweepOutput
from bilens.train.run_folder import interruptible

ATTEMPTS = 4  # of a row; a worker that dies takes others along, which have done nothing wrong
FAILED = "failed.json"


@dataclass(frozen=True)
class SweepState:
    """The state of a sweep: results there, results wanted, and failures."""

    pieces: int  # results that there are
    wanted: int  # that there should be
    failed: Mapping[str, str]  # "task row" → why

    @property
    def is_complete(self) -> bool:
        return self.pieces == self.wanted


def plan_of(path: str, options: SweepOptions, output: SweepOutput) -> Plan:
    """Return the plan that an output holds, or a new one; refuse that of something else."""
    kept = kept_plan(output)
    if kept is None:
        return make_plan(path, options)
    check_release(kept, output.place)
    if kept.head.options != options or kept.head.path != path:
        raise UsageError(
            f"{output.place} holds a sweep of {kept.head.path} with other options: choose another "
            "folder, or repeat that command to go on with it."
        )
    return kept


def pieces_left(plan: Plan, output: SweepOutput, rows: Sequence[int] | None = None) -> list[int]:
    """Return the rows, all or of some, that lack a result of some task."""
    wanted, tasks = range(len(plan.rows)) if rows is None else rows, plan.head.options.tasks
    folders = (
        ["results"] if rows is None else sorted({folder_of(t, r) for t in tasks for r in rows})
    )
    there = {f"{folder}/{name}" for folder in folders for name in output.names(folder)}
    return [row for row in wanted if any(result_name(task, row) not in there for task in tasks)]


def drive(
    plan: Plan,
    output: SweepOutput,
    engine: Callable[[], SweepEngine],
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> SweepState:
    """Do what is left of a plan; only one driver does so at a time.

    What a worker did not end is handed out again; the row that it was at up to four times, and
    one that wanted memory once, with twice of it. What fails in the end is named, and everything
    else is there.
    """
    with output.driven():
        left = pieces_left(plan, output)
        failed: dict[str, str] = {}
        opened = engine() if left else None  # what is wrong with it is said before anything is kept
        if output.read_bytes(NAME) is None:
            output.write(NAME, plan.text)
        if opened is not None:
            jobs = deque(plan.jobs(left, opened.capacity))
            failed = Drive(plan, output, opened, progress, say, jobs).run()
        if failed:
            output.write(FAILED, json.dumps(failed, indent=1).encode())
        elif output.read_bytes(FAILED) is not None:
            output.remove(FAILED)
        found = ended(plan, output)
        if found.is_complete:  # else a job of a driver before might be at it still
            output.tidy("results")
    return found


def ended(plan: Plan, output: SweepOutput) -> SweepState:
    """Count the results of a plan that an output holds."""
    pieces = sum(name.endswith(".json") for name in output.names("results"))
    failed = json.loads(output.read_bytes(FAILED) or b"{}")
    return SweepState(pieces, len(plan.rows) * len(plan.head.options.tasks), failed)


@dataclass(eq=False)
class Drive:
    """One run of a driver."""

    plan: Plan
    output: SweepOutput
    engine: SweepEngine
    progress: Progress
    say: Callable[[str], None]
    waiting: deque[Job]
    attempts: Counter[int] = field(default_factory=Counter)  # of a row that ended badly
    enlarged: set[int] = field(default_factory=set)  # rows that were given more memory
    failed: dict[str, str] = field(default_factory=dict)
    done: int = 0

    def run(self) -> dict[str, str]:
        running: dict[int, Job] = {}
        numbers = count()
        total, told = sum(len(job.rows) for job in self.waiting), False
        place, here = self.output.place, str(Path.cwd())
        try:
            with interruptible() as interrupted:  # an exception might lose an outcome
                while (self.waiting and not interrupted.is_set()) or running:
                    while (
                        self.waiting and not interrupted.is_set() and self.room([*running.values()])
                    ):
                        job, number = self.waiting.popleft(), next(numbers)
                        spec = Spec(place, self.plan.sha256, number, job.rows, here)
                        self.engine.submit(spec, job.num_bytes)
                        running[number] = job
                    for outcome in self.engine.as_completed():
                        self.settle(running.pop(outcome.number), outcome)
                        self.progress("layers", self.done, total)
                    if interrupted.is_set() and not told:
                        told = True
                        self.say("Interrupted: what runs comes to its end; once more ends it now.")
        finally:
            self.engine.cancel()
        if self.waiting:
            raise InterruptedRunError(
                f"Interrupted: what was done is kept in {self.output.place}; the same command goes "
                "on."
            )
        return self.failed

    def room(self, running: Sequence[Job]) -> bool:
        """Whether the next job may be handed out; one that is alone always may."""
        taken = sum(job.num_bytes for job in (*running, self.waiting[0]))
        fits = self.engine.memory is None or not running or taken <= self.engine.memory
        return fits and len(running) < self.engine.ahead * self.engine.capacity

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Count what is done, hand out again what is not, and name what failed for good."""
        if outcome.lost:
            left = pieces_left(self.plan, self.output, job.rows)
            self.done += len(job.rows) - len(left)
            if left:  # rows are done in turn: the first one ended the worker, or was at work then
                self.again(job, left[0], dict.fromkeys(self.tasks, outcome.lost), outcome.memory)
                self.queue(left[1:])
            return
        if outcome.refused:
            self.give_up(job, outcome.refused)
            return
        if outcome.ends:
            raise FileError(outcome.ends)
        faults: dict[int, list[Piece]] = {}
        for piece in outcome.faults:
            faults.setdefault(piece.row, []).append(piece)
        self.done += len(job.rows) - len(faults)
        for row, pieces in faults.items():
            told = {piece.task: piece.fault for piece in pieces}
            self.again(job, row, told, any(piece.memory for piece in pieces))

    def again(self, job: Job, row: int, why: Mapping[str, str], memory: bool) -> None:
        """Queue a row once more where it may be; else it has failed."""
        self.attempts[row] += 1
        if self.attempts[row] >= ATTEMPTS or (memory and row in self.enlarged):
            self.fail(row, why)
            return
        if memory:
            self.enlarged.add(row)
        self.queue([row], job.num_bytes * (2 if memory else 1))

    def give_up(self, job: Job, why: str) -> None:
        """Name the rows for whose sake a job was too large, and queue the others."""
        # all rows of a job that was given more than they were estimated to take
        large = [x for x in job.rows if self.plan.cost(x).num_bytes >= job.num_bytes] or job.rows
        for row in large:
            self.fail(row, dict.fromkeys(self.tasks, why))
        self.queue([row for row in job.rows if row not in large])

    def fail(self, row: int, why: Mapping[str, str]) -> None:
        """Name what a row lacks in the end."""
        for task, fault in why.items():
            if self.output.read_bytes(result_name(task, row)) is None:
                self.failed[f"{task} {row}"] = fault
        self.done += 1

    def queue(self, rows: Sequence[int], num_bytes: int = 0) -> None:
        if rows:
            job = self.plan.job(rows)
            self.waiting.append(replace(job, num_bytes=max(job.num_bytes, num_bytes)))

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.plan.head.options.tasks
