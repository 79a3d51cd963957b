"""How many silent errors the contract suite notices, planted one at a time.

`python -m tools.plant` puts each error of `tools/planted_errors.json` into a copy of `src` and runs
`tests/contract` on it. An error is noticed where a test fails that passes on the source as it is.
The result goes to `docs/benchmarks/planted.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUITE = Path("tests/contract")
ERRORS = ROOT / "tools/planted_errors.json"
PAGE = ROOT / "docs/benchmarks/planted.md"
LONGEST = 900  # seconds of tests for one error
TOO_LONG = -1


@dataclass(frozen=True)
class PlantedError:
    """A change of one place in the source that makes an answer wrong without an error.

    Attributes:
        path: the file, from the root of the repository.
        old: what stands there, exactly once.
        new: what is put in its place.
        what: the error in words.
        first: the test file that is run before the others, to save time.
        group: who thought of it: those who wrote the suite, or somebody who had not seen it.
    """

    path: str
    old: str
    new: str
    what: str
    first: str
    group: str

    def put_into(self, copy: Path) -> None:
        """Change the file of a copy of the repository."""
        file = copy / self.path
        text = file.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.path} has {text.count(self.old)} times: {self.old!r}")
        file.write_text(text.replace(self.old, self.new))


def read_errors() -> list[PlantedError]:
    """Return the errors of the list."""
    return [PlantedError(**row) for row in json.loads(ERRORS.read_text())]


def run_tests(copy: Path, tests: list[Path]) -> tuple[int, str]:
    """Return the exit status of some test files on a copy, and the first test that failed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-n0",
        "-p",
        "no:cacheprovider",
        *map(str, tests),
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("BILENS_TEST_DATA", str(ROOT.parent / "shared/data"))
    try:
        done = subprocess.run(  # noqa: S603 - the project's own tests
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return TOO_LONG, "took too long"
    lines = done.stdout.splitlines()
    found = (line.split(" ")[1] for line in lines if line.startswith(("FAILED ", "ERROR ")))
    return done.returncode, next(found, "")


def judge(error: PlantedError) -> str:
    """Return the test that notices an error; empty where none does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("src", "tests", "pyproject.toml", "docs", "bench", "tools"):
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, copy / name, ignore=ignored)
            else:
                shutil.copy(source, copy / name)
        error.put_into(copy)
        first = copy / error.first
        others = {*(copy / SUITE).glob("test_*.py")} - {first, copy / SUITE / "test_table.py"}
        for tests in ([first], sorted(others)):
            status, test = run_tests(copy, tests)
            if status != 0:
                return test or f"pytest ended with {status}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="errors whose path or words contain this")
    only = parser.parse_args().only or ""
    chosen = [
        one for one in read_errors() if only in one.path or only in one.what or only in one.group
    ]
    rows = []
    for number, error in enumerate(chosen, 1):
        test = judge(error)
        rows.append((error, test))
        print(f"{number}/{len(chosen)} {test or 'NOT NOTICED'}: {error.what}", flush=True)
    groups = list(dict.fromkeys(error.group for error, _ in rows))
    counts = [count_noticed(rows, group) for group in groups]
    print("\n".join(counts))
    if not only:
        lines = [
            "# Silent errors, planted",
            "",
            "`python -m tools.plant` puts errors into the source one at a time "
            "(`tools/planted_errors.json`) and runs the contract suite (`tests/contract`) on each.",
            "",
            *(f"* {count}" for count in counts),
            "",
            "| error | thought of | file | noticed by |",
            "|---|---|---|---|",
            *(
                f"| {e.what} | {e.group} | `{e.path}` | {f'`{t}`' if t else '**nothing**'} |"
                for e, t in rows
            ),
            "",
        ]
        PAGE.write_text("\n".join(lines))
    return 0 if all(test for _, test in rows) else 1


def count_noticed(rows: list[tuple[PlantedError, str]], group: str) -> str:
    """Return a sentence: how many errors of a group were noticed."""
    tests = [test for error, test in rows if error.group == group]
    return f"{group}: {sum(map(bool, tests))} of {len(tests)} noticed"


if __name__ == "__main__":
    sys.exit(main())
