"""Access to the folder alone: no file elsewhere is read, and no path of it is shown."""

import errno
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from msgspec import structs

from bilens.base.errors import BilensError, CheckpointError, FileError, UsageError
from bilens.io import is_model, mark_of, named_base
from bilens.records import Record
from bilens.report import load_catalogue

MOST_FILES = 1000  # of a model
MOST_OF_DATA = 200_000  # of a folder of images
ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
State = tuple[tuple[object, ...], ...]
# An absolute path, to the end of a text, or of a quotation or a word; and what is cut of it.
START = r"(?<![\w./~<)\]}])(?<!:(?=//))"
TO_THE_END = re.compile(rf"{START}(?<![^\s=:])/.+", re.DOTALL)
ELSEWHERE = re.compile(rf"{START}(?:(?<=')/[^'\n]+(?=')|(?<=\")/[^\"\n]+(?=\")|/\S+)")
ABOVE = re.compile(r"\A(?:/+[^\s/]|[~\\]|\w:).*[/\\](?=[^/\\]*\w)", re.DOTALL)
# A path below a folder that machines have at their root, a drive, a share or a home: the name of a
# tensor may begin with "/", and not so. Blanks in it stand before a further part.
ROOT = "home|Users|root|tmp|var|mnt|media|srv|opt|private|Volumes|content|kaggle|data[0-9]*|work"
ROOT += r"|workspace|projects?|storage|shared?|fsx|efs|dbfs|cluster|(?:scratch|nfs|gpfs|lustre)\w*"
LETTER, BETWEEN = r"(?:[^\s/\\'\"<>|]|(?<=\w)'(?=\w))+", r"[/\\]+"
PART = rf"{LETTER}(?:(?<![,;:.]) (?![-~]){LETTER}){{,4}}{BETWEEN}"
DRIVE = rf"~(?:[A-Za-z_]\w*)?(?=/)|[A-Za-z]:(?={BETWEEN}{PART})|\\\\\w[\w.-]*(?=\\)"
PLACE = re.compile(
    rf"(?:{START}\\?/(?:{ROOT})(?=[/\\])|(?<![\w./\\~])(?:{DRIVE})){BETWEEN}(?:{PART})*{LETTER}"
)
WHOLE: tuple[re.Pattern[str], ...] = (TO_THE_END, ELSEWHERE, PLACE)
# What is cut of a field that is a path or names one in a sentence, and of what files say. All else
# may be a name, of a layer or a class: one that is cut may be that of another.
PATHS = "path", "folder", "activations", "source", "baseline", "provenance", "reason"
FIELDS: dict[str, tuple[re.Pattern[str], ...]] = dict.fromkeys(PATHS, WHOLE)
FIELDS |= dict.fromkeys(("value", "said"), (PLACE, ELSEWHERE))
NOWHERE = ".../"  # for folders of a path in a command: no other file is meant by its end
URL = re.compile(r"\b(?:file:/*(?:localhost)?|\w+://)(?=/)", re.IGNORECASE)  # of a file here
Wanted = TypeVar("Wanted")
Cut = TypeVar("Cut", bound=Record)
Told = Literal["running", "another", "nobody", "nothing", "not_drawn", "too_large", "not_compared"]


class ElsewhereError(FileError):
    """Something of the folder leads out of it."""


class MissingError(BilensError):
    """The model or document asked for is not in the folder, or no longer."""


class ToldError(UsageError):
    """A refusal whose reason a page says in the language of its reader."""

    def __init__(self, key: Told, **values: object) -> None:
        self.key, self.values = f"explorer.told.{key}", values
        super().__init__(load_catalogue("en")(self.key, **values))


def require_found(found: Wanted | None) -> Wanted:
    """Return a value that was looked up; raise MissingError where it is None."""
    if found is None:
        raise MissingError("It is gone.")
    return found


def files_of(folder: Path, path: Path, most: int = MOST_FILES) -> Iterator[Path]:
    """Yield a file, or a folder and all in it at any depth, and the model below an adapter.

    ElsewhereError where a link or a name leads out of the served folder; FileError beyond `most`.
    """
    waiting, seen, looked = [path], set[Path](), 0
    if path.name == WEIGHTS and (path.parent / ADAPTER).exists():
        waiting.append(path.parent / ADAPTER)
    while waiting:
        here = waiting.pop()
        real = Path(os.path.realpath(here))  # which a loop of links does not stop
        if not real.is_relative_to(folder):
            raise ElsewhereError(
                f"{path.name}: {here.name} is a link out of the folder, or lies there: not opened."
            )
        yield here
        if here.name == ADAPTER and here.is_file():
            with suppress(CheckpointError):  # damaged: told when it is read
                if (base := named_base(here.parent)) is not None:
                    waiting.append(base)
        if real in seen or not real.is_dir():
            continue
        seen.add(real)
        with os.scandir(real) as inside:
            for item in islice(inside, most + 1 - looked):
                looked += 1
                # the served folder, where it is a model: others in it are none of its parts
                other = path == folder and (item.name.startswith(".") or is_model(Path(item.path)))
                if item.is_symlink() or item.is_dir() or item.name == ADAPTER:
                    if not (other and item.is_dir()):
                        waiting.append(Path(item.path))
                else:
                    yield Path(item.path)
        if looked > most:
            raise FileError(f"{path.name}: holds more than {most} files: not opened.")


def state_of(folder: Path, path: Path) -> State:
    """Return the marks of all files of a model; none may be a link out of the folder."""
    found = {str(file): mark_of(str(file)) for file in files_of(folder, path)}
    return tuple(sorted((file, *mark) for file, mark in found.items() if mark))


@contextmanager
def opened(folder: Path, path: Path) -> Iterator[BinaryIO]:
    """Open a file below a folder, step by step: no link is followed, whatever was put there."""
    here = os.open(folder, os.O_RDONLY)
    try:
        for part in path.relative_to(folder).parts:
            inside = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
            os.close(here)
            here = inside
        if not stat.S_ISREG(os.fstat(here).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(here, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(here)


def without_paths(text: str, folder: Path, *paths: re.Pattern[str], instead: str = "") -> str:
    """Return a text with each path of the machine cut: from the folder on, else its last part.

    A space ends a path that is not quoted, unless `paths` say otherwise. `instead` stands for what
    is cut.
    """
    here = rf"{START}{re.escape(str(folder))}(?![.-]*\w)"
    text = re.sub(here, lambda _: f"{instead}{folder.name}", URL.sub("", text))
    for path in paths or (ELSEWHERE, PLACE):
        text = path.sub(lambda found: ABOVE.sub(lambda _: instead, found[0]), text)
    return text


def command_told(command: str, folder: Path) -> str:
    """Return a command line with each path of the machine cut, so that it leads nowhere."""
    try:
        words = shlex.split(command)
    except ValueError:  # an open quotation
        return without_paths(command, folder, instead=NOWHERE)
    told = [without_paths(word, folder, *WHOLE, instead=NOWHERE) for word in words]
    return command if told == words else shlex.join(told)


def cut_paths(record: Cut, folder: Path) -> Cut:
    """Return a record with the paths of machines cut, this one's and those that others name."""
    told = {name: field_told(name, one, folder) for name, one in record.fields().items()}
    return structs.replace(record, **told)


def field_told(name: str, value: Any, folder: Path) -> Any:
    match value:
        case Record():
            return cut_paths(value, folder)
        case tuple() if value and not isinstance(value[0], float):
            return tuple(field_told(name, one, folder) for one in value)
        case dict():
            named = ((key, key if key == "command" else name, one) for key, one in value.items())
            return {key: field_told(n, one, folder) for key, n, one in named}
        case str() if name == "command":
            return command_told(value, folder)
        case str() if name in FIELDS:
            return without_paths(value, folder, *FIELDS[name])
    return value
