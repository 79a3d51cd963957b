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
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import unified_diff
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import coverage
import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/benchmarks/mutation.md"
SOURCES = ("src/bilens/algebra", "src/bilens/certify")
OUTCOMES = ("killed", "timed out", "survived", "not reached")
TESTS = ("tests/algebra", "tests/certify", "tests/base/test_notebook.py")
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no")
LONGEST = 20.0  # seconds of tests for a mutant, the quickest first
MEMORY = 12 << 30  # bytes of addresses that a mutant's tests may ask for


def negated(node: cst.If) -> Iterator[cst.If]:
    """`if a` becomes `if not a`."""
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    space = cst.SimpleWhitespace(" ")
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test), whitespace_before_test=space)


def empty(node: cst.Return) -> Iterator[cst.Return]:
    """`return a` becomes `return None`."""
    if node.value is not None:
        space = cst.SimpleWhitespace(" ")
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=space)


OPERATORS: list[tuple[type, Callable[[Any], Iterable[cst.CSTNode]]]] = [
    *mutation_operators,
    (cst.If, negated),
    (cst.Return, empty),
]


class Mutants(MutationVisitor):
    """mutmut's mutants, also in decorated functions; no wording of messages: text with a space."""

    def __init__(self) -> None:
        super().__init__(OPERATORS, IgnoredCode(set(), set(), set()))

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.SimpleString):
            return " " in node.value
        if isinstance(node, cst.FunctionDef):
            return False
        return bool(super()._skip_node_and_children(node))


@dataclass(frozen=True)
class Mutant:
    path: str
    line: int
    last_line: int
    change: str  # the lines of the diff
    code: str

    @property
    def label(self) -> str:
        return f"{self.path}\n{self.change}"


def drawn(count: int, seed: int) -> tuple[int, list[Mutant]]:
    """Return how many mutants there are, and a sample without those that change no text."""
    made: list[tuple[Path, MetadataWrapper, Mutation]] = []
    for path in sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")):
        wrapper, visitor = MetadataWrapper(cst.parse_module(path.read_text())), Mutants()
        wrapper.visit(visitor)
        made += [(path, wrapper, mutation) for mutation in visitor.mutations]
    sample = random.Random(seed).sample(made, count)  # noqa: S311
    return len(made), [found for chosen in sample if (found := mutant(*chosen)).change]


def mutant(path: Path, wrapper: MetadataWrapper, mutation: Mutation) -> Mutant:
    replaced = wrapper.module.deep_replace(mutation.original_node, mutation.mutated_node)
    assert isinstance(replaced, cst.Module)
    before, after = wrapper.module.code, replaced.code
    lines = unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    change = "\n".join(line for line in lines if line[:3] not in ("---", "+++", "@@ "))
    where = wrapper.resolve(PositionProvider)[mutation.original_node]
    last = where.start.line if isinstance(mutation.original_node, cst.If) else where.end.line
    name = str(path.relative_to(ROOT))
    return Mutant(name, where.start.line, last, change, after)


@dataclass(eq=False)
class Watch:
    """A pytest plugin: which test executes which line, and how long it takes."""

    data: coverage.Coverage
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.data.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration


class Changes:
    """The functions of the imported modules, and how to change their code where they are."""

    def __init__(self) -> None:
        self.live: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        for found in gc.get_objects():
            if isinstance(found, FunctionType):
                code = found.__code__
                self.live[code.co_filename, code.co_qualname, code.co_firstlineno].append(found)

    def of(self, file: Path, changed: str) -> list[tuple[FunctionType, CodeType]] | None:
        """Return which functions get which code; None where more than functions changes."""
        before = compile(file.read_text(), str(file), "exec", dont_inherit=True)
        after = compile(changed, str(file), "exec", dont_inherit=True)
        found: list[tuple[FunctionType, CodeType]] = []
        return found if self._collect(before, after, found) else None

    def _collect(
        self, before: CodeType, after: CodeType, found: list[tuple[FunctionType, CodeType]]
    ) -> bool:
        if before == after:
            return True
        live = self.live[before.co_filename, before.co_qualname, before.co_firstlineno]
        found += [(function, after) for function in live]
        old, new = inner(before), inner(after)
        if live:
            return before.co_freevars == after.co_freevars and len(live) == 1
        same = skeleton(before) == skeleton(after)
        pairs = zip(old, new, strict=False)
        return same and len(old) == len(new) and all(self._collect(*pair, found) for pair in pairs)


def inner(code: CodeType) -> list[CodeType]:
    return [const for const in code.co_consts if isinstance(const, CodeType)]


def skeleton(code: CodeType) -> CodeType:
    """Return the code without the code inside it, and without its lines."""
    consts = (const.co_name if isinstance(const, CodeType) else const for const in code.co_consts)
    return code.replace(co_consts=tuple(consts), co_linetable=b"")


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
        for name in ("src", "tests", "tools", "bench", "docs", "pyproject.toml", "README.md"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        self.copy = copy
        os.chdir(copy)
        sys.path[:0] = [str(copy / "src"), str(copy), str(copy / "tests")]
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
