"""A net under a change of the code: records what the public interfaces do, and compares.

Some hundred command lines and some dozens of calls of `import bilens as bl` run on models made
from seeds. A recording is a folder with one JSON file for each case: the exit code, what was
printed, what was written. Only public names are used, so that the code below them may move.

Before the change, once, from the root of the repository:

    python -m tools.net old net/old                        # folders and reports as files
    python -m tools.net record net/before --old net/old    # takes some minutes

After it:

    python -m tools.net record net/after --old net/old
    python -m tools.net compare net/before net/after --renames renames.tsv

The code that runs is the one that Python imports as `bilens`; `PYTHONPATH=…/src` chooses another.
`record --only PATTERN` runs the cases whose name matches; those that read what others write need
them, as in `--only "^train_|trace"`. `record --quick` leaves out the two slowest cases. `compare
--partial` compares what both recordings hold.

Texts, whole numbers and exit codes are compared exactly, other numbers within rounding. Each line
of the table of renames is an old word, a tab and a new one; it is applied to the first recording,
to keys and to whole words; `circuits[].place` is that key inside `circuits` alone. The exit code
is 1 where any case differs. Recordings of two machines are not comparable: models that are trained
differ in their last digits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m tools.net", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("old", help="write the artefacts that recordings open")
    making.add_argument("folder", type=Path)
    recording = commands.add_parser("record", help="run all cases")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--old", type=Path, help="artefacts of an earlier version")
    recording.add_argument("--only", default="", help="pattern of the names of cases")
    recording.add_argument("--quick", action="store_true", help="without the two slowest cases")
    comparing = commands.add_parser("compare", help="compare two recordings")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    comparing.add_argument("--partial", action="store_true", help="cases of one alone are no fault")
    comparing.add_argument("--renames", type=Path, help="table old<TAB>new")
    given = parser.parse_args()
    if given.command == "compare":
        from tools.net.compare import compare

        return compare(given.first, given.second, given.renames, given.partial)
    from tools.net import old, run

    if given.command == "old":
        return old.make(given.folder)
    readers = list(old.cases()) if given.old else []
    return run.record(given.folder, given.old, readers, given.only, given.quick)


if __name__ == "__main__":
    sys.exit(main())
