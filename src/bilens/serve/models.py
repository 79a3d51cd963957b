"""Models that are open: read when a page asks, the last few kept, read again where they changed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock, RLock
from typing import Any, TypeVar

from bilens.base.errors import FileError
from bilens.io.load import load
from bilens.io.loaded_model import LoadedModel

MOST_FILES = 1000  # of a model, that are looked at for changes
KEPT_BYTES, KEPT = 1 << 27, 10  # of weights and large results, and models
VIEWS = 40  # results kept of each model
State = tuple[tuple[str, int, int, int], ...]
Result = TypeVar("Result")


@dataclass(eq=False)
class Results:
    """What was computed, one after the other."""

    results: OrderedDict[Any, Any] = field(default_factory=OrderedDict, kw_only=True)
    working: RLock = field(default_factory=RLock, kw_only=True)  # one result may ask for another

    def once(self, what: Any, compute: Callable[[], Result], most: int = VIEWS) -> Result:
        """Return a result, computed when it is first asked for; `what` says of what.

        Of large results `what` is a tuple, and the last `most` with the same first entry are kept.
        """
        with self.working:
            if what not in self.results:
                self.results[what] = compute()
                alike = [one for one in self.results if most < VIEWS and one[0] == what[0]]
                for one in alike[:-most]:
                    del self.results[one]
                while len(self.results) > VIEWS:
                    self.results.popitem(last=False)
            self.results.move_to_end(what)
            found: Result = self.results[what]
            return found


@dataclass(eq=False)
class OpenModel(Results):
    """A model with what was computed of it."""

    name: str  # its path from the folder
    model: LoadedModel
    state: State  # of its files when it was read
    slow: Results = field(default_factory=Results)  # what a page does not wait for

    @property
    def nbytes(self) -> int:
        module = self.model.module
        weights = 0 if module is None else sum(one.nbytes for one in module.parameters())
        return weights + sum(getattr(one, "nbytes", 0) for one in [*self.results.values()])


class OpenModels:
    """The models of a folder that are open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[Path, OpenModel] = OrderedDict()
        self._lock = Lock()

    def get(self, path: Path, name: str) -> OpenModel:
        """Return a model of the folder.

        Raises:
            FileError: If a file of it is a link out of the folder.
            BilensError: If it cannot be read; the message says why.
        """
        with self._lock:
            state = state_of(self.folder, path)
            found = self._open.get(path)
            if found is None or found.state != state:
                found = OpenModel(name, load(path), state)
                self._open[path] = found
            self._open.move_to_end(path)
            while len(self._open) > 1 and (
                len(self._open) > KEPT
                or sum(one.nbytes for one in self._open.values()) > KEPT_BYTES
            ):
                self._open.popitem(last=False)
            return found


def state_of(folder: Path, path: Path) -> State:
    """Return size and time of each file of a model; none may be a link out of the folder."""
    found = []
    for file in islice(files_of(path), MOST_FILES):
        if not file.resolve().is_relative_to(folder):
            raise FileError(f"{path.name}: {file.name} is a link out of the folder: not opened.")
        with suppress(OSError):
            said = file.stat()
            found.append((file.name, said.st_ino, said.st_size, said.st_mtime_ns))
    return tuple(found)


def files_of(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir():
        yield from sorted(each for each in path.iterdir() if not each.is_dir())
