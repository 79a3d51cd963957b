"""The two streams: the result on stdout, progress and messages on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

LINES = 10  # how many progress lines a job prints where there is no terminal


class ResultConsole(Console):
    """Stdout. Where its reader has gone, as with `| head`, the command ends without a word."""

    def on_broken_pipe(self) -> None:
        """Leave nothing to be flushed to the pipe, and report success: nothing went wrong."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)


class Output:
    """Prints results and progress; quiet leaves the results only."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.result = ResultConsole()
        self.messages = Console(stderr=True, quiet=quiet)
        self.verbose = verbose
        self.as_json = False
        self.first = True  # of several processes, the one that prints

    def set_flags(self, quiet: bool, verbose: bool, as_json: bool = False) -> None:
        """Take what stands before a command, and again what stands behind it."""
        self.as_json = as_json
        self.messages.quiet = self.messages.quiet or quiet
        self.verbose = self.verbose or verbose

    def say(self, text: str) -> None:
        self.messages.print(text, markup=False, highlight=False, soft_wrap=True)

    def answer(self, document: dict[str, Any], *parts: Table | str) -> None:
        """Print a result: as JSON in ASCII for machines, or as tables and lines for people."""
        if not self.first:
            return
        if self.as_json:
            self.result.out(json.dumps(document, allow_nan=False, indent=1), highlight=False)
        for part in () if self.as_json else parts:
            if isinstance(part, str):
                self.result.print(part, highlight=False, markup=False, soft_wrap=True)
            else:
                self.result.print(part)

    @contextmanager
    def progress(self) -> Iterator[Reporter]:
        """Show the progress of a job: a bar on a terminal, a few lines elsewhere."""
        if not self.messages.is_terminal or self.messages.quiet:
            yield Reporter(self, None)
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}")
        with Progress(text, BarColumn(), TimeElapsedColumn(), console=self.messages) as bar:
            yield Reporter(self, bar)


def after(seconds: float, report: Callable[[str, int, int], None]) -> Callable[..., None]:
    """Return a progress callback that says nothing about what is over in a moment."""
    start = time.monotonic()

    def patient(stage: str, done: int, total: int) -> None:
        if time.monotonic() - start >= seconds:
            report(stage, done, total)

    return patient


class Reporter:
    """Takes (stage, done, total) and draws it."""

    def __init__(self, output: Output, bar: Progress | None) -> None:
        self.output, self.bar = output, bar
        self.tasks: dict[str, TaskID] = {}
        self.stage = ""

    def __call__(self, stage: str, done: int, total: int, text: str = "") -> None:
        label = f"{stage} {text}".strip()
        if self.bar is None:
            step = max(-(-total // LINES), 1)
            if stage != self.stage or (done and (done % step == 0 or done == total)):
                self.output.say(f"{label}: {done}/{total}" if total > 1 else f"{label} …")
        else:
            if stage not in self.tasks:
                self.tasks[stage] = self.bar.add_task(label, total=total)
            self.bar.update(self.tasks[stage], completed=done, description=label)
            for other, task in self.tasks.items():
                if other != stage:
                    self.bar.update(task, completed=self.bar.tasks[task].total)
        self.stage = stage
