"""Every link in what a recorded command reads, beyond what `bilens.api` checks of it."""

import shlex
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from bilens.api import RefusedError, answers_in_file, check_place, options_in
from bilens.base.errors import FileError, UsageError
from bilens.cli.options import parse_roles
from bilens_explorer.inside import MOST_OF_DATA, ElsewhereError, files_of


def reading_options(command: str, folder: Path) -> dict[str, Any]:
    """Return how a recorded audit read its model, as arguments of `bl.load`; nothing if unknown.

    Names of classes that stand in a file are not among them: its audit says them.
    """
    found: dict[str, Any] = {}
    with suppress(UsageError, ValueError):
        given = [*options_in(shlex.split(command))]
        if roles := [value for name, value in given if name == "--map"]:
            found["roles"] = parse_roles(roles)
        for name, value in given:
            if name == "--activation":
                found["activation"] = value
            elif name == "--classes":
                with suppress(RefusedError):
                    if not answers_in_file(name, value, folder, command):
                        found["output_names"] = value.split(",")
            elif name.removeprefix("--no-").lstrip("-") in ("residual", "transposed"):
                found[name.removeprefix("--no-").lstrip("-")] = not name.startswith("--no-")
    return found


def check_file(folder: Path, name: str) -> None:
    """Refuse a file, or a folder of them, that is gone or has a link out of the served folder."""
    try:
        check_place(folder, name)
        deque(files_of(folder, folder / name, MOST_OF_DATA), maxlen=0)
    except RefusedError:
        raise
    except ElsewhereError:
        raise RefusedError("outside", name) from None
    except FileError:
        raise RefusedError("many", name) from None
    except (OSError, ValueError):
        raise RefusedError("unreadable", name) from None
