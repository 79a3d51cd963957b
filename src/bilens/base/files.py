"""Files that others wrote: one guard before any is opened, their hash, and small JSON files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from bilens.base.errors import CheckpointError, FileError, UsageError

MAX_JSON_BYTES = 1 << 20


def check_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return a text or a path as a path."""
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{name} is a {type(value).__name__}; expected a text or a Path.")
    return Path(value)


def check_regular_file(
    path: Path, hint: str, error: type[FileError] = CheckpointError
) -> os.stat_result:
    """Return the status of a file with content that may be read.

    Everything that reads a file asks here first: to open a pipe waits for ever, and a device
    such as /dev/zero never ends.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"{path}: no such file; {hint}.") from None
    except (OSError, ValueError) as problem:  # ValueError: a null character in the path
        raise error(f"{path}: {why_unreadable(problem)}") from problem
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{path}: is not a regular file; {hint}.")
    if status.st_size == 0:
        raise error(f"{path}: is empty (0 bytes): download or save it again.")
    try:
        path.open("rb").close()
    except OSError as problem:
        raise error(f"{path}: {why_unreadable(problem)}") from problem
    return status


def why_unreadable(problem: Exception) -> str:
    """Return why the system would not open a file, and what to do."""
    reason = getattr(problem, "strerror", None) or str(problem)
    return f"cannot be read ({reason}): check the path and its permissions."


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file of at most `max_bytes`; raise CheckpointError otherwise."""
    status = check_regular_file(path, "a model folder needs it beside the weights")
    if status.st_size > max_bytes:
        raise CheckpointError(f"{path}: is {status.st_size} bytes; at most {max_bytes} are read.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not valid JSON ({error}): restore the file.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {why_unreadable(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a JSON object.")
    return content


def shortened(names: list[str], limit: int = 4) -> str:
    """Return names as text, the first few of many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more
