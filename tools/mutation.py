"""How many small faults in `algebra/` and `certify/` the tests of these two folders notice.

`make mutation` draws mutants by a seed. A first run notes which tests execute which line; then, for
each mutant, a forked process puts the changed code in place and runs the tests that execute it. It
is noticed where a test fails or takes far too long. The result goes to
`docs/benchmarks/mutation.json` and `.md`; what was written there about a survivor stays.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import coverage
import pytest

from tools.mutants import ROOT, SOURCES, Changes, Mutant, drawn

PAGE = ROOT / "docs/benchmarks/mutation.md"
OUTCOMES = ("killed", "timed out", "survived", "not reached")
TESTS = ("tests/algebra", "tests/certify", "tests/base/test_notebook.py")
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no")
LONGEST = 20.0  # seconds of tests for a mutant, the quickest first
MEMORY = 12 << 30  # bytes of addresses that a mutant's tests may ask for


@dataclass(eq=False)
class Watch:
    """A pytest plugin: which test executes which line, and how long it takes."""

    data: coverage.Coverage
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.data.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration


@dataclass(eq=False)
class Loop:
    """A pytest plugin: tests are collected once, and each mutant is a fork that runs its own."""

    runner: Runner
    sample: Sequence[Mutant]
    ended: list[str] = field(default_factory=list)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        for folder in SOURCES:
            for path in (self.runner.copy / folder).rglob("*.py"):
                name = ".".join(path.relative_to(self.runner.copy / "src").with_suffix("").parts)
                importlib.import_module(name.removesuffix(".__init__"))
        items = {item.nodeid: item for item in session.items}
        gc.collect()
        changes = Changes()
        gc.freeze()
        for mutant in self.sample:
            self.ended.append(self.runner.judged(mutant, changes, session, items))
        return True


def in_fork(work: Callable[[], int], limit: float) -> int:
    """Return how the work ended in a process of its own that is stopped after some seconds."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        signal.setitimer(signal.ITIMER_REAL, limit)  # ends the process
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = work()
    finally:
        os._exit(code)


def run_items(session: pytest.Session, items: Sequence[pytest.Item]) -> int:
    """Run tests until one fails."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for item, following in zip_longest(items, items[1:]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return 1
    return 0


class Runner:
    """A copy of the tree, and which test of it executes what."""

    def __init__(self, copy: Path) -> None:
        for name in (
            "src",
            "studies",
            "explorer",
            "tests",
            "tools",
            "bench",
            "docs",
            "pyproject.toml",
            "README.md",
        ):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        self.copy = copy
        os.chdir(copy)
        sys.path[:0] = [
            str(copy / "src"),
            str(copy / "studies/src"),
            str(copy / "explorer/src"),
            str(copy),
            str(copy / "tests"),
        ]
        if in_fork(self.watch, 3600):
            raise SystemExit("the tests fail without a mutant")
        self.load()

    def load(self) -> None:
        self.seconds: dict[str, float] = json.loads((self.copy / "seconds.json").read_text())
        self.data = coverage.CoverageData(str(self.copy / "lines.sqlite"))
        self.data.read()
        self.lines: dict[str, dict[int, list[str]]] = {}

    def watch(self) -> int:
        """Run all tests; write who executes what, and how long each takes."""
        include = [f"{self.copy / folder}/*" for folder in SOURCES]
        path = self.copy / "lines.sqlite"
        data = coverage.Coverage(data_file=path, include=include, config_file=False)
        plugin = Watch(data)
        data.start()
        code = pytest.main([*OPTIONS, *TESTS], plugins=[plugin])
        data.stop()
        data.save()
        (self.copy / "seconds.json").write_text(json.dumps(plugin.seconds))
        return code

    def all_judged(self, sample: Sequence[Mutant]) -> list[str]:
        loop = Loop(self, sample)
        pytest.main([*OPTIONS, *TESTS], plugins=[loop])
        return loop.ended

    def executed(self, path: str) -> dict[int, list[str]]:
        """Return the tests that execute each line of a file; an empty name is an import."""
        if path not in self.lines:
            self.lines[path] = self.data.contexts_by_lineno(str(self.copy / path))
        return self.lines[path]

    def reaching(self, mutant: Mutant) -> tuple[list[str], bool]:
        """Return the tests that execute the lines, and whether an import does too.

        What runs at import is all tests' of the file.
        """
        executed = self.executed(mutant.path)
        lines = range(mutant.line, mutant.last_line + 1)
        own = [name for line in lines for name in executed.get(line, [])]
        imported = "" in own
        if imported:
            own = [name for names in executed.values() for name in names]
            own = own if any(own) else list(self.seconds)
        tests: list[str] = []
        total = 0.0
        for name in sorted(set(own) - {""}, key=lambda name: self.seconds[name]):
            total += self.seconds[name]
            if total > LONGEST and tests:
                break
            tests.append(name)
        return tests, imported

    def judged(
        self,
        mutant: Mutant,
        changes: Changes,
        session: pytest.Session,
        items: dict[str, pytest.Item],
    ) -> str:
        """Return how the tests end with the mutant in place."""
        tests, imported = self.reaching(mutant)
        if not tests:
            return "not reached"
        file = self.copy / mutant.path
        expected = sum(self.seconds[name] for name in tests)
        found = changes.of(file, mutant.code)

        def work() -> int:
            for function, code in found or ():
                function.__code__ = code
            return run_items(session, [items[name] for name in tests])

        code = in_fork(work, 30 + 10 * expected) if found else 0
        if code == 0 and (imported or not found):
            code = self.afresh(file, mutant.code, tests, 60 + 10 * expected)
        return {0: "survived", -signal.SIGALRM: "timed out"}.get(code, "killed")

    def afresh(self, file: Path, text: str, tests: Sequence[str], limit: float) -> int:
        """Run the tests in a new interpreter with the changed file."""
        original = file.read_text()
        Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
        file.write_text(text)
        command = [sys.executable, "-B", "-m", "pytest", "-x", *OPTIONS, *tests]
        path = os.pathsep.join(sys.path[:3])
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter
                command,
                cwd=self.copy,
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -signal.SIGALRM
        finally:
            file.write_text(original)
        return done.returncode


def page(result: dict[str, Any]) -> str:
    """Return the page of a result."""
    run, counts, survivors = result["run"], result["outcomes"], result["survivors"]
    total, noticed = sum(counts.values()), counts["killed"] + counts["timed out"]
    same = sum(survivor["kind"] == "equivalent" for survivor in survivors)
    parts = [
        "# Mutants",
        "Generated by `make mutation` from `mutation.json`; do not edit.",
        f"**{noticed} of {total} mutants noticed: {noticed / total:.1%}.** {same} of the others "
        f"compute the same as before; without them {noticed / (total - same):.1%}.",
        result["note"],
        f"Drawn with seed {result['seed']} from the {result['made']:,} mutants of `algebra/` and "
        "`certify/`, all files and all functions. A mutant changes one thing: an operator, a "
        "comparison, a number (+1), `and` and `or`, `True` and `False`, `is` and `in`, a string, "
        "an argument of a call (left out, or None), an assigned value (None), a branch of a "
        "conditional expression, `break` and `continue` (mutmut's), and also an `if` (negated) "
        "and a returned value (None). Left out: types, decorators, calls of `len` and "
        "`isinstance`, docstrings, f-strings and strings with a space, which are the wording of "
        "messages.",
        "Each is run with the tests of these two folders, and those of the tables of a notebook, "
        f"that execute its lines, the quickest first, {result['seconds']:g} seconds of them at "
        "most; the slow sweeps are not run.",
        "| outcome | mutants |\n|---|---|\n"
        + "\n".join(f"| {name} | {count} |" for name, count in counts.items()),
        f"{run['date']}; {run['hardware']}; "
        + ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        + ".",
        "## Those that were not noticed",
    ]
    for survivor in survivors:
        path, _, change = survivor["mutant"].partition("\n")
        kind = survivor["kind"] or survivor["outcome"]
        parts.append(f"`{path}`, {kind}: {survivor['reason']}\n\n```diff\n{change}\n```")
    return "\n\n".join(filter(None, parts)) + "\n"


def result_of(
    made: int, seed: int, sample: Sequence[Mutant], ended: Sequence[str]
) -> dict[str, Any]:
    """Return what is written; what a person wrote about a survivor is kept."""
    data = PAGE.with_suffix(".json")
    old: dict[str, Any] = json.loads(data.read_text()) if data.exists() else {}
    known = {survivor["mutant"]: survivor for survivor in old.get("survivors", ())}
    counts = Counter(ended)
    return {
        "made": made,
        "seed": seed,
        "seconds": LONGEST,
        "outcomes": {name: counts[name] for name in OUTCOMES},
        "note": old.get("note", "") if old.get("made") == made else "",
        "survivors": [
            {"kind": "", "reason": "", **known.get(mutant.label, {})}
            | {"mutant": mutant.label, "outcome": end}
            for mutant, end in zip(sample, ended, strict=True)
            if end in OUTCOMES[2:]
        ],
    }


def main() -> None:
    """Draw mutants, run them, write data and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=420)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    made, sample = drawn(options.sample, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        ended = Runner(Path(folder)).all_judged(sample)
        # Not imported before: bilens is the one of the copy.
        from bilens.api.provenance import describe_run
        from bilens.records.base import to_json

        run = to_json(describe_run("make mutation", options.seed))
    result = {"run": run, **result_of(made, options.seed, sample, ended)}
    PAGE.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page(result))


if __name__ == "__main__":
    main()
