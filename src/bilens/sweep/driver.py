"""The driver of a sweep: what is left is handed to an engine, what is lost is handed out again."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bilens.base import Progress, silent
from bilens.base.errors import InterruptedRunError, UsageError
from bilens.records.sweep import SweepOptions
from bilens.sweep.engines import Engine, Outcome
from bilens.sweep.jobs import Spec, result_name
from bilens.sweep.manifest import NAME, Job, Plan, kept_plan, make_plan
from bilens.sweep.output import Output

ATTEMPTS = 4  # of a job; a worker that dies takes others along, which have done nothing wrong
FAILED = "failed.json"


@dataclass(frozen=True)
class Ended:
    """What a sweep came to."""

    pieces: int  # results that there are
    wanted: int  # that there should be
    failed: Mapping[str, str]  # "task row" → why

    @property
    def whole(self) -> bool:
        return self.pieces == self.wanted


def plan_of(path: str, options: SweepOptions, output: Output) -> Plan:
    """Return the plan that an output holds, or a new one; refuse that of something else."""
    kept = kept_plan(output)
    if kept is None:
        return make_plan(path, options)
    if kept.head.options != options or kept.head.path != path:
        raise UsageError(
            f"{output.place} holds a sweep of {kept.head.path} with other options: choose another "
            "folder, or repeat that command to go on with it."
        )
    return kept


def pieces_left(plan: Plan, output: Output) -> list[int]:
    """Return the rows that lack a result of some task."""
    there = output.names("results")
    tasks = plan.head.options.tasks

    def lacks(row: int) -> bool:
        return any(result_name(t, row).removeprefix("results/") not in there for t in tasks)

    return [row.index for row in plan.rows if lacks(row.index)]


def drive(
    plan: Plan,
    output: Output,
    engine: Callable[[], Engine],
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Ended:
    """Do what is left of a plan; only one driver does so at a time.

    A job whose worker died is tried again, up to four times; one that wanted memory once, with
    twice of it. What fails in the end is named, and everything else is there.
    """
    with output.driven():
        if output.read(NAME) is None:
            output.write(NAME, plan.text)
        left = pieces_left(plan, output)
        failed: dict[str, str] = {}
        if left:
            failed = Drive(plan, output, engine(), progress, say).run(plan.jobs(left))
        if failed:
            output.write(FAILED, json.dumps(failed, indent=1).encode())
        else:
            output.remove(FAILED)
    return ended(plan, output)


def ended(plan: Plan, output: Output) -> Ended:
    """Return what an output holds of a plan."""
    names = output.names("results")
    count = sum(name.endswith(".json") for name in names)
    failed = json.loads(output.read(FAILED) or b"{}")
    return Ended(count, len(plan.rows) * len(plan.head.options.tasks), failed)


class Drive:
    """One run of a driver."""

    def __init__(
        self,
        plan: Plan,
        output: Output,
        engine: Engine,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.plan, self.output, self.engine = plan, output, engine
        self.progress, self.say = progress, say
        self.attempts: Counter[int] = Counter()
        self.enlarged: set[int] = set()
        self.failed: dict[str, str] = {}
        self.waiting: deque[Job] = deque()
        self.next_number = 0

    def run(self, jobs: list[Job]) -> dict[str, str]:
        self.waiting.extend(jobs)
        self.next_number = len(jobs)
        running: dict[int, Job] = {}
        done, total = 0, sum(len(job.rows) for job in jobs)
        interrupted = False
        try:
            while self.waiting or running:
                try:
                    while not interrupted and self.waiting and self.room(len(running)):
                        job = self.waiting.popleft()
                        self.attempts[job.number] += 1
                        self.engine.submit(self.spec(job), job.num_bytes)
                        running[job.number] = job
                    if not running:
                        break
                    for outcome in self.engine.as_completed():
                        job = running.pop(outcome.spec.number)
                        done += self.settle(job, outcome)
                        self.progress("layers", done, total)
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    self.say("Interrupted: what runs comes to its end; once more ends it now.")
        finally:
            self.engine.cancel()
        if interrupted:
            raise InterruptedRunError(
                f"Interrupted: what was done is kept in {self.output.place}; the same command goes "
                "on."
            )
        return self.failed

    def room(self, running: int) -> bool:
        return running < self.engine.ahead * self.engine.capacity

    def spec(self, job: Job) -> Spec:
        return Spec(self.output.place, self.plan.sha256, job.number, job.rows)

    def settle(self, job: Job, outcome: Outcome) -> int:
        """Hand out again what is lost, name what failed; return how many rows are settled."""
        wrong = [piece for piece in outcome.pieces if piece.fault]
        if outcome.lost:
            if self.again(job, outcome.memory):
                return 0
            names = [(row, task) for row in job.rows for task in self.plan.head.options.tasks]
            self.failed |= {f"{task} {row}": outcome.lost for row, task in names}
            return len(job.rows)
        if wrong:
            rows = tuple(dict.fromkeys(piece.row for piece in wrong))
            part = self.plan.job(job.number, rows)
            if self.again(part, any(piece.memory for piece in wrong)):
                return len(job.rows) - len(rows)
            self.failed |= {f"{piece.task} {piece.row}": piece.fault for piece in wrong}
        return len(job.rows)

    def again(self, job: Job, memory: bool) -> bool:
        """Queue a job once more where it may be; whether it was."""
        if memory:
            if job.number in self.enlarged:
                return False
            self.enlarged.add(job.number)
            job = Job(job.number, job.rows, job.seconds, 2 * job.num_bytes)
        elif self.attempts[job.number] >= ATTEMPTS:
            return False
        self.waiting.append(job)
        return True
