"""Runs command lines one after the other, each in a fork of a process that has torch already.

Importing torch takes longer than most lines do. What is imported here belongs to others: bilens
itself is imported by each line anew, as `python -m bilens` does.

A line of stdin is a JSON object with words, environment and the files for stdout and stderr; the
answer on stdout is the exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from typing import Any

HEAVY = ("torch", "numpy", "scipy.linalg", "scipy.stats", "safetensors.torch", "typer", "jinja2")
LIMIT = 500  # seconds of one line


def child(job: dict[str, Any]) -> int:
    """Become `python -m bilens WORDS`; the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(LIMIT)
    os.environ.update(job["environment"])
    for number, path in ((1, job["stdout"]), (2, job["stderr"])):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(target, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["bilens", *job["words"]]
    code = 0
    try:
        runpy.run_module("bilens", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def main() -> None:
    """Answer each line."""
    for name in HEAVY:
        importlib.import_module(name)
    for line in iter(sys.stdin.readline, ""):
        number = os.fork()
        if number == 0:
            code = 1
            try:
                code = child(json.loads(line))
            finally:
                os._exit(code)
        _, status = os.waitpid(number, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
