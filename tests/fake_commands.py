"""A Python that runs, in place of `bilens audit`, what a test planned.

What is planned lies in the folder as `plan.json`, by the name of the model: a list of steps. Each
command writes its own start and end into `ran.txt`.
"""

import json
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

SOURCE = """#!{python} -P
import sys
sys.path[:0] = {path!r}
import fake_commands
fake_commands.main()
"""


def install(place: Path) -> str:
    """Write such a Python; return its path."""
    place.write_text(SOURCE.format(python=sys.executable, path=sys.path))
    place.chmod(place.stat().st_mode | stat.S_IXUSR)
    return str(place)


def main() -> None:
    _, safe, _, module, *arguments = sys.argv
    assert (safe, module) == ("-P", "bilens")  # else what lies in the folder is imported
    steps: list[list[Any]] = json.loads(Path("plan.json").read_text())[arguments[-1]]
    mark("start", arguments[-1])
    for what, *values in steps:
        if what == "say":
            sys.stderr.write(f"{values[0]}\n")
            sys.stderr.flush()
        elif what == "sleep":
            time.sleep(values[0])
        elif what == "ignore":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif what == "remember":
            remember(*values)
        elif what == "kill":
            os.kill(os.getpid(), values[0])
    mark("end", arguments[-1])
    sys.exit(steps[-1][1] if steps and steps[-1][0] == "exit" else 0)


def remember(document: Any = None) -> None:
    """Record an audit, as `bilens audit --history .` does at its end."""
    from bilens.api.history import History
    from bilens.base.files import file_sha256
    from bilens.records.audit import Audit
    from bilens.records.base import read_document

    history = History(".")
    document = document or json.loads(Path("document.json").read_text())
    place = Path(document["source"]["path"] or "none")
    if place.is_dir() and not document["source"]["files"]:  # what lies there, as of an audit
        found = {one.name: file_sha256(one) for one in sorted(place.iterdir())}
        document["source"]["files"] = found
    number = history.add(read_document(Audit, document)).number
    sys.stderr.write(f"Recorded as audit {number} of {history.path}\n")


def mark(what: str, name: str) -> None:
    with Path("ran.txt").open("a") as file:
        file.write(f"{what} {name}\n")
