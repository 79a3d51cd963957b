"""Every link in what a recorded command reads, beyond what `bilens.api` checks of it."""

from collections import deque
from pathlib import Path

from bilens.api import (
    RefusedError as RefusedError,
    RepeatedCommand as RepeatedCommand,
    check_place,
    repeat_command as repeat_command,
)
from bilens.base.errors import FileError
from bilens_explorer.inside import MOST_OF_DATA, ElsewhereError, files_of


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
