"""The command line of a recorded audit, as a page or a watch may run it again.

Anybody who can write into the folder can write into its history. So nothing of a recorded command
is run as it stands: options are taken from a list of those that can run no code, model and files
must lie in the folder, and pages are not written again.
"""

import os
import re
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from bilens.base.errors import UsageError
from bilens.data.text import GRAMMAR
from bilens.io.file_kinds import HUB_NAME
from bilens.records.base import UNPRINTABLE
from bilens.report.text import load_catalogue

# Why a command is not run again; sentences are `explorer.why.…`.
Refused = Literal[
    "none", "command", "option", "start", "gone", "outside", "many", "unreadable", "another"
]
ENVIRONMENT = {"COLUMNS": "120", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}  # no network

# "answers": a column, a key, names or a file; "output" options, with a value or without, are left
# out.
Use = Literal["file", "answers", "value", "switch", "output", "output switch"]
OPTIONS: dict[str, Use] = {
    **dict.fromkeys(("--data", "--data-dir", "--table", "--train-data", "--text"), "file"),
    "--baseline": "file",
    **dict.fromkeys(("--labels", "--train-labels", "--classes"), "answers"),
    **dict.fromkeys(("--dataset", "--encoding", "--map", "--activation", "--fail-on"), "value"),
    **dict.fromkeys(("--tokens", "--held-out", "--null-samples", "--try-words"), "value"),
    **dict.fromkeys(("--threshold", "--seed", "--rows", "--size", "--normalise"), "value"),
    **dict.fromkeys(("--residual", "--no-residual", "--transposed", "--no-transposed"), "switch"),
    **dict.fromkeys(("--history", "--html", "--markdown", "--pdf", "--evidence"), "output"),
    "--lang": "output",
    **dict.fromkeys(("--json", "--overwrite", "--quiet", "--verbose", "-q", "-v"), "output switch"),
    "--staged": "output switch",  # the model is named as it was audited
}

SHORT = re.compile(r"-[qv]{2,}")  # switches that are left out, in one word
ENDING = re.compile(r"\.[A-Za-z]\w*$")  # of a file, and of no name in the hub


class RefusedError(UsageError):
    """Why a command is not run again; pages say it in their reader's language."""

    def __init__(self, why: Refused, about: str = "") -> None:
        super().__init__(load_catalogue("en")(f"explorer.why.{why}", about=about))
        self.why, self.about = why, about
        self.key, self.values = f"explorer.why.{why}", {"about": about}


@dataclass(frozen=True)
class RepeatedCommand:
    """Arguments of `bilens`, to be run in the folder of the history."""

    arguments: tuple[str, ...]
    files: tuple[str, ...]  # that it reads, as paths from the folder

    def start(self, folder: Path) -> subprocess.Popen[str]:
        """Start it in a process group of its own; its messages can be read as text."""
        return subprocess.Popen(  # noqa: S603 - no shell; options are of a list
            # -P: what lies in the folder must never be imported
            [sys.executable, "-P", "-m", "bilens", *self.arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that no Ctrl-C reaches it
            env=os.environ | ENVIRONMENT,
        )


def repeat_command(
    command: str, folder: Path, model: str, inputs: Sequence[Path] = ()
) -> RepeatedCommand:
    """Return how an audit of a model is run again with its data, conditions and options.

    A command that audited several models is repeated for this one alone. `model` is its path from
    the folder, and `inputs` are folders, from the root, out of which it may read, too.

    Raises:
        RefusedError: If it is no audit of the command line, or may not be run here.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # an open quotation
        raise RefusedError("command") from None
    named = [place for place, word in enumerate(words) if not word.startswith("-")]
    if [words[place] for place in named[:2]] != ["bilens", "audit"]:
        raise RefusedError("command")
    if UNPRINTABLE.search(f"{command}{model}"):
        raise RefusedError("unreadable", model)
    model = path_inside(str(folder / model), folder, command, inputs)
    arguments, files = ["audit", "--history=."], [model]
    for name, value in options_in([*words[1 : named[1]], *words[named[1] + 1 :]]):
        use = OPTIONS[name]
        if use == "switch":
            arguments.append(name)
        elif not use.startswith("output"):
            is_grammar = (name, value) == ("--text", GRAMMAR)  # and no file, whatever lies there
            if (use == "file" and not is_grammar) or (
                use == "answers" and answers_in_file(name, value, folder, command)
            ):
                value = path_inside(value, folder, command, inputs)
                files.append(value)
            arguments.append(f"{name}={value}")
    return RepeatedCommand((*arguments, "--", model), tuple(files))


def options_in(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of an audit with their values; what is none names a model."""
    waiting = deque(words)
    while waiting:
        word = waiting.popleft()
        if word == "--":
            return
        if not word.startswith("-") or SHORT.fullmatch(word):
            continue
        name, equals, value = word.partition("=")
        use = OPTIONS.get(name)
        if use is None or (use.endswith("switch") and equals):
            raise RefusedError("option", name)
        if not use.endswith("switch") and not equals:
            if not waiting:
                raise RefusedError("command")
            value = waiting.popleft()
        yield name, value


def last_value(command: str, option: str) -> str | None:
    """Return the value that a command gives last to an option, whatever else stands in it."""
    with suppress(ValueError):  # an open quotation
        words = [*shlex.split(command), ""]
        parts = [(one.partition("="), following) for one, following in pairwise(words)]
        found = [v if eq else following for (name, eq, v), following in parts if name == option]
        return found[-1] if found else None
    return None


def recorded_base(command: str, folder: Path, inputs: Sequence[Path] = ()) -> Path | None:
    """Return the baseline of a recorded audit, if it lies in the folder or in `inputs`."""
    if "--baseline" not in command:  # as thousands of a folder do not
        return None
    named = last_value(command, "--baseline")
    with suppress(RefusedError):
        return folder / path_inside(named, folder, command, inputs) if named else None
    return None


def find_path(value: str, folder: Path, command: str) -> Path | None:
    """Return where a path of a command leads; None where nobody knows from where it does.

    A relative one is known where it goes through the history, however that is reached: what lies
    beside the folder may lie beside a link to it.
    """
    path, history = Path(value), Path(last_value(command, "--history") or "/")
    if path.is_absolute() or history.is_absolute():
        return path if path.is_absolute() else None
    start, rest = path.parts[: len(history.parts)], path.parts[len(history.parts) :]
    return folder.joinpath(*rest) if start == history.parts else None


def path_inside(value: str, folder: Path, command: str, inputs: Sequence[Path]) -> str:
    """Return a path of a command as one from the folder; RefusedError where it leads elsewhere.

    What may be a name in the hub, by its form, and is not in the folder is said to be just that.
    """
    is_name = HUB_NAME.fullmatch(value) is not None and not ENDING.search(value)
    given = find_path(value, folder, command)
    if given is None:
        raise RefusedError("gone" if is_name and not (folder / value).exists() else "start", value)
    path = Path(os.path.normpath(given))
    if os.path.realpath(path) != os.path.realpath(given):  # `..` behind a link
        raise RefusedError("outside", path.name)
    if path.is_relative_to(folder):
        name = path.relative_to(folder).as_posix()
        check_place(folder, name, inputs)
        return name
    for place in (one for one in inputs if path.is_relative_to(one)):
        check_place(place, path.relative_to(place).as_posix())
        return str(path)
    raise RefusedError("gone", value) if is_name else RefusedError("outside", path.name)


def answers_in_file(option: str, value: str, folder: Path, command: str) -> bool:
    """Return whether right answers, or the names of classes, are those of a file.

    RefusedError where that is not known: a name would be taken that was a file, or the other way.
    """
    if option == "--classes" and "," in value:
        return False
    place = find_path(value, folder, command)
    if place is not None and place.is_file():
        return True
    known, is_path = place is not None, "/" in value or "." in value
    # a column that is none is refused by the audit, and any text names a class
    unsure = is_path or not known if option == "--classes" else is_path and not known
    if unsure or (folder / value).is_file():
        raise RefusedError("start", value)
    return False


def check_place(folder: Path, name: str, inputs: Sequence[Path] = ()) -> None:
    """Refuse a path that is gone or leads out of a folder, and of those that may be read, too."""
    path = Path(os.path.realpath(folder / name))  # which a loop of links does not stop
    if not path.exists() or not any(path.is_relative_to(place) for place in (folder, *inputs)):
        raise RefusedError("gone", name)
