"""What lies in the folder alone: no file of another place is read, no path of it is told."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bilens.base.errors import FileError
from bilens.io.file_kinds import is_model

MOST_FILES = 1000  # of a model
MOST_OF_DATA = 200_000  # of a folder of images
ELSEWHERE = re.compile(r"(?<![\w.:/~<])(?:/+[^\s/'\",:;()=]+)+")  # an absolute path


def files_of(folder: Path, path: Path, most: int = MOST_FILES) -> Iterator[Path]:
    """Yield a file, or a folder and all in it at any depth.

    Raises:
        FileError: If a link in it leads out of the served folder, or it holds more than `most`.
    """
    waiting, seen, looked = [path], set(), 0
    while waiting:
        here = waiting.pop()
        real = Path(os.path.realpath(here))  # which a loop of links does not stop
        if not real.is_relative_to(folder):
            raise FileError(f"{path.name}: {here.name} is a link out of the folder: not opened.")
        yield here
        if real in seen or not real.is_dir():
            continue
        seen.add(real)
        with os.scandir(real) as inside:
            for item in islice(inside, most + 1 - looked):
                looked += 1
                # the served folder, where it is a model: others in it are none of its parts
                other = path == folder and (item.name.startswith(".") or is_model(Path(item.path)))
                if item.is_symlink() or item.is_dir():
                    if not (other and item.is_dir()):
                        waiting.append(Path(item.path))
                else:
                    yield Path(item.path)
        if looked > most:
            raise FileError(f"{path.name}: holds more than {most} files: not opened.")


def without_paths(text: str, folder: Path) -> str:
    """Return a text with each path of the machine cut: from the folder on, else its last part."""
    text = text.replace(str(folder), folder.name)
    return ELSEWHERE.sub(lambda found: found[0].rpartition("/")[2], text)
