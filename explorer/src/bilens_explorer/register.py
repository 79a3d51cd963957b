"""What lies in the folder now, by SHA-256, held against what the last audit of each model read.

A file is read where its place on the disk, its size or its times are others than when it was read
last: also the time of its last change, which no program sets. Files are read beside the pages, one
model after the other.
"""

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple

from bilens.api import now, read_beside
from bilens.base import file_sha256
from bilens.base.errors import BilensError
from bilens_explorer.inside import ADAPTER, files_of, state_of
from bilens_explorer.records.models import FileDifference, ModelState

OLD = 60.0  # seconds after which a model's files are read again where its page is opened
Marks = Mapping[str, Hashable]  # of files and folders, by path


class AuditedFiles(NamedTuple):
    """A model of the folder, and the weights and files that an audit read."""

    path: Path
    weights_sha256: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LyingModel:
    """How a model lies there, held against its last audit."""

    state: ModelState
    read: str = ""  # when its files were read, UTC
    differences: tuple[FileDifference, ...] = ()
    hashes: frozenset[str] = frozenset()  # of its files
    at: float = 0.0  # of the machine's clock that is never put back


UNREAD = LyingModel("unread")


class Register:
    """The audited models of a folder, as they lie there.

    `opened` returns the SHA-256 of a model that has to be opened for it; `patience` is how long a
    page waits for files to be read, in seconds, None for as long as it takes.
    """

    def __init__(
        self, folder: Path, opened: Callable[[Path], str], patience: float | None = None
    ) -> None:
        self.folder, self._opened, self.patience = folder, opened, patience
        self._hashes: dict[Hashable, str] = {}  # of files, by mark
        self._lying: dict[str, tuple[AuditedFiles, Marks, LyingModel]] = {}
        self._wanted: dict[str, tuple[AuditedFiles, bool]] = {}  # what is to be read, and all of it
        self._changing = Condition()
        self._reader: Thread | None = None

    def look(self, models: Mapping[str, AuditedFiles]) -> dict[str, LyingModel]:
        """Return how models lie there; unread where their files cannot be read, or not in time."""
        found = {key: self._known(key, one) for key, one in models.items()}
        if missing := {key: (models[key], False) for key, one in found.items() if one is None}:
            self._read(missing)
            found |= {key: self._known(key, models[key]) for key in missing}
        return {key: one or UNREAD for key, one in found.items()}

    def look_again(self, key: str, one: AuditedFiles) -> None:
        """Read a model again, whatever it looks like from outside; not if that was just done."""
        known = self._known(key, one)
        if known is not None and monotonic() - known.at > OLD:
            self._read({key: (one, True)})

    def where(self, sha256: str) -> list[Path]:
        """Return the models in which a file of this SHA-256 lies."""
        found = {one.path for one, _, lying in [*self._lying.values()] if sha256 in lying.hashes}
        return sorted(found)

    def lies_at(self, path: Path, sha256: str) -> bool | None:
        """Return whether a file of this SHA-256 lies in an audited model; None if not known."""
        found = [one.hashes for at, _, one in [*self._lying.values()] if at.path == path]
        return any(sha256 in hashes for hashes in found) if any(found) else None

    def _known(self, key: str, one: AuditedFiles) -> LyingModel | None:
        kept = self._lying.get(key)
        if kept is None or kept[0] != one or kept[1] != {path: mark_of(path) for path in kept[1]}:
            return None
        return kept[2]

    def _read(self, wanted: Mapping[str, tuple[AuditedFiles, bool]]) -> None:
        """Have models read by the one thread that does, and wait for it a while."""
        with self._changing:
            self._wanted |= wanted
            if self._reader is None:
                self._reader = Thread(target=self._work, name="register", daemon=True)
                self._reader.start()
            self._changing.wait_for(lambda: not {*wanted} & {*self._wanted}, self.patience)

    def _work(self) -> None:
        while True:
            with self._changing:
                if not self._wanted:
                    self._reader = None
                    return
                key, (one, again) = next(iter(self._wanted.items()))
            marks, lying = self.compare(one, again=again)
            with self._changing:
                self._lying[key] = one, marks, lying
                del self._wanted[key]
                self._changing.notify_all()

    def compare(self, audited: AuditedFiles, *, again: bool = False) -> tuple[Marks, LyingModel]:
        """Hold the files of a model against those of an audit; also the marks of all of them."""
        read, path, then = now(), audited.path, dict(audited.files)
        marks = {str(one): mark_of(str(one)) for one in folders_of(path)}
        hashes: dict[str, str] = {}
        try:
            if not then or (path / ADAPTER).exists():  # of an earlier release, or with its base
                then = {path.name: audited.weights_sha256}
                state = state_of(self.folder, path)
                marks |= {str(name): mark_of(str(name)) for name, *_ in state}
                hashes[path.name] = self._hash(state, again, partial(self._opened, path))
            else:
                place = path if path.is_dir() else path.parent
                beside = {*read_beside(path)} if path.is_dir() else set()
                for name in sorted({*then, *beside}):
                    file = place / name
                    deque(files_of(self.folder, file), maxlen=0)  # it leads nowhere else
                    mark = marks[str(file)] = mark_of(str(file))
                    if file.is_file():
                        hashes[name] = self._hash(mark, again, partial(file_sha256, file))
        except (BilensError, OSError, ValueError, KeyError):
            return marks, UNREAD
        found = tuple(differences(then, hashes))
        state_now: ModelState = "changed" if found else "audited"
        return marks, LyingModel(state_now, read, found, frozenset(hashes.values()), monotonic())

    def _hash(self, mark: Hashable, again: bool, read: Callable[[], str]) -> str:
        if again or mark not in self._hashes:
            self._hashes[mark] = read()
        return self._hashes[mark]


def mark_of(path: str) -> Hashable:
    """Return by what a file is told from what lay there before; None where there is none."""
    with suppress(OSError, ValueError):
        said = os.stat(path)  # noqa: PTH116 - five times as fast as of a `Path`
        return path, said.st_ino, said.st_size, said.st_mtime_ns, said.st_ctime_ns
    return None


def folders_of(path: Path) -> list[Path]:
    """Return a model and the folders in it, whose marks are others where a file comes or goes."""
    return [path, *(Path(here) for here, *_ in os.walk(path))]


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[FileDifference]:
    """Yield the files that are others than an audit read, as it names them, then new ones."""
    for name, sha256 in then.items():
        if name not in now:
            yield FileDifference(name, "missing")
        elif now[name] != sha256:
            yield FileDifference(name, "other")
    yield from (FileDifference(name, "new") for name in now if name not in then)
