"""How a command that fails ends: one sentence on stderr and the right exit code."""

from __future__ import annotations

import os
import sys
from typing import NoReturn, TextIO

import typer

from bilens.base.errors import BilensError

LIMIT, UNEXPECTED, INTERRUPTED = 5, 70, 130  # 70 is EX_SOFTWARE of sysexits.h


def explain_error(error: Exception) -> tuple[str, int]:
    """Return the sentence for an error that ends a command, and the exit code."""
    if isinstance(error, BilensError):
        return str(error), error.exit_code
    out_of_memory = isinstance(error, RuntimeError) and "allocate memory" in str(error)  # torch's
    if out_of_memory or isinstance(error, MemoryError):
        return "out of memory: use a smaller model or free some memory.", LIMIT
    if isinstance(error, OSError):
        reason = error.strerror or error
        return f"the result cannot be written ({reason}): free some space.", LIMIT
    return "this is a fault of bilens: please report it with the lines above.", UNEXPECTED


def fail(message: str, code: int) -> NoReturn:
    """Print one sentence on stderr and end the process."""
    complain(f"error: {message}\n")
    sys.exit(code)


def complain(text: str) -> None:
    """Print a text on stderr; where it is full or closed, the exit code alone must do."""
    try:
        typer.echo(text, err=True, nl=False)
    except OSError:
        sys.stderr = nowhere()  # Python would try again at the end, and change the exit code


def nowhere() -> TextIO:
    """Return a stream that keeps nothing."""
    return open(os.devnull, "w")  # noqa: PTH123 - open until the process ends
