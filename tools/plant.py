"""How many silent errors the tests notice, planted one at a time.

`python -m tools.plant` puts each error of `tools/planted_errors.json` into a copy of `src` and runs
`tests/contract` on it, then the tests of the folder that the error is in. An error is noticed where
a test fails; that none fails on the source as it is, is seen first. Results are kept in
`docs/benchmarks/planted.json`, so that some errors can be planted again, and shown on the page
`docs/benchmarks/planted.md`.
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
RESULTS = ROOT / "docs/benchmarks/planted.json"
PAGE = RESULTS.with_suffix(".md")
LONGEST = 1800  # seconds of tests for one error
FIRST = (  # 2026-12-01, on 491e5da0 and 27377545
    "Two sets of 60 errors were thought of by somebody who had not seen the tests. When each was "
    "planted for the first time, the contract suite noticed 34 of 60 and 26 of 60, with the tests "
    "of the folder 49 and 45. Tests for those that went unnoticed were added after each, so that "
    "no set is held out any more; the counts are of later runs, each of the error alone."
)
FAILED = 1  # how pytest ends where tests fail, and not for another reason


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


def run_tests(copy: Path, tests: list[Path]) -> str:
    """Return the first of some tests that fails on a copy; empty where none does."""
    names = [str(one.relative_to(copy)) for one in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-n0", "-p", "no:cacheprovider", *names]
    paths = os.pathsep.join(str(copy / one) for one in ("src", "studies/src", "explorer/src"))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("BILENS_TEST_DATA", str(ROOT.parent / "shared/data"))
    done = subprocess.run(  # noqa: S603 - the project's own tests
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LONGEST
    )
    if done.returncode not in (0, FAILED):
        raise RuntimeError(f"the tests did not run: {done.stdout[-2000:]}")
    lines = done.stdout.splitlines()
    failed = (
        line.split(" ", 1)[1].split(" - ")[0]
        for line in lines
        if line.startswith(("FAILED ", "ERROR "))
    )
    return next(failed, names[0]) if done.returncode else ""


def copy_into(copy: Path) -> None:
    """Copy what the tests need of the repository."""
    for name in ("src", "studies", "explorer", "tests", "pyproject.toml", "docs", "bench", "tools"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)


def contract_tests(copy: Path) -> list[Path]:
    """Return the files of the contract but the one that looks for the place of each error."""
    return sorted({*(copy / SUITE).glob("test_*.py")} - {copy / SUITE / "test_table.py"})


def test_that_notices(error: PlantedError) -> str:
    """Return the test that notices an error; empty where none does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_into(copy)
        error.put_into(copy)
        first, parts = copy / error.first, Path(error.path).parts[2:-1]
        contract = [one for one in contract_tests(copy) if one != first]
        nearest = copy.joinpath("tests", *parts)
        for tests in ([first], contract, [nearest] if parts and nearest.is_dir() else []):
            if tests and (test := run_tests(copy, tests)):
                return test
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="errors whose path, words or group contain this")
    only = parser.parse_args().only or ""
    planted = read_errors()
    chosen = [one for one in planted if only in one.path or only in one.what or only in one.group]
    with tempfile.TemporaryDirectory() as folder:
        copy_into(Path(folder))
        if failed := run_tests(Path(folder), contract_tests(Path(folder))):
            sys.exit(f"{failed} fails on the source as it is.")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for number, error in enumerate(chosen, 1):
        found[error.what] = test = test_that_notices(error)
        print(f"{number}/{len(chosen)} {test or 'NOT NOTICED'}: {error.what}", flush=True)
        RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    rows = [(error, found[error.what]) for error in planted if error.what in found]
    PAGE.write_text(page(rows, len(planted) - len(rows)))
    return 0 if all(test for _, test in rows) else 1


def page(rows: list[tuple[PlantedError, str]], left: int) -> str:
    """Return the page of the results, with how many errors were not planted as they now stand."""
    groups = dict.fromkeys(error.group for error, _ in rows)
    folders: dict[str, list[str]] = {}
    for error, test in rows:
        folders.setdefault("/".join(Path(error.path).parts[:-1]), []).append(test)
    counts = (
        (folder, len(tests), sum(t.startswith(f"{SUITE}") for t in tests), tests.count(""))
        for folder, tests in sorted(folders.items())
    )
    lines = "\n".join(
        [
            "# Silent errors, planted",
            "",
            "`python -m tools.plant` puts errors into the source one at a time "
            "(`tools/planted_errors.json`) and runs the contract suite (`tests/contract`) on each, "
            "then the tests of the folder that the error is in. Which test noticed which error "
            "stands in `docs/benchmarks/planted.json`.",
            "",
            *(f"* {count_noticed(rows, group)}" for group in groups),
            f"* {left} of the list, as it now stands, were not planted yet",
            "",
            FIRST,
            "",
            "| folder | errors | noticed by the contract suite | by nothing |",
            "|---|---|---|---|",
            *(f"| `{folder}` | {' | '.join(map(str, cells))} |" for folder, *cells in counts),
            "",
            *(f"* Not noticed: {error.what} (`{error.path}`)" for error, test in rows if not test),
        ]
    )
    return lines.rstrip() + "\n"


def count_noticed(rows: list[tuple[PlantedError, str]], group: str) -> str:
    """Return a sentence: how many errors of a group were noticed."""
    tests = [test for error, test in rows if error.group == group]
    contract = sum(test.startswith(f"{SUITE}") for test in tests)
    noticed = sum(map(bool, tests))
    return f"{group}: {noticed} of {len(tests)} noticed, {contract} by the contract suite"


if __name__ == "__main__":
    sys.exit(main())
