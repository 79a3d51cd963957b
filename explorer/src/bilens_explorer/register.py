"""Compare the files of each model, by SHA-256, with those that its last audit read.

A file is read where its place on the disk, its size or its times are others than when it was read
last: also the time of its last change, which no program sets. Files are read beside the pages, one
model after the other.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread
from time import monotonic

from bilens.api import AuditedFiles, RegisterState, compare_with_audit
from bilens.base import file_sha256
from bilens.base.errors import BilensError
from bilens.io import mark_of
from bilens_explorer.inside import files_of, state_of

OLD = 60.0  # seconds after which a model's files are read again where its page is opened
Marks = Mapping[str, Hashable]  # of files and folders, by path
UNREAD = RegisterState("unread")


class Register:
    """The audited models of a folder, as they lie there.

    `opened` returns the SHA-256 of a model that has to be opened for it, read anew each time;
    `patience` is how long a page waits for files to be read, in seconds, None for as long as it
    takes.
    """

    def __init__(
        self, folder: Path, opened: Callable[[Path], str], patience: float | None = None
    ) -> None:
        self.folder, self._opened, self.patience = folder, opened, patience
        self._hashes: dict[Hashable, str] = {}  # of files, by mark
        self._lying: dict[str, tuple[AuditedFiles, Marks, RegisterState, float]] = {}
        self._wanted: dict[str, tuple[AuditedFiles, bool]] = {}  # what is to be read, and all of it
        self._changing = Condition()
        self._reader: Thread | None = None

    def look(self, models: Mapping[str, AuditedFiles]) -> dict[str, RegisterState]:
        """Return how models lie there; unread where their files cannot be read, or not in time."""
        found = {key: self._known(key, one) for key, one in models.items()}
        if missing := {key: (models[key], False) for key, one in found.items() if one is None}:
            self._read(missing)
            found |= {key: self._known(key, models[key]) for key in missing}
        return {key: one or UNREAD for key, one in found.items()}

    def look_again(self, key: str, one: AuditedFiles) -> None:
        """Read a model again, whatever it looks like from outside; not if that was just done."""
        if self._known(key, one) is not None and monotonic() - self._lying[key][3] > OLD:
            self._read({key: (one, True)})

    def where(self, sha256: str) -> list[Path]:
        """Return the models in which a file of this SHA-256 lies, as far as they are known now."""
        kept = [
            (key, at) for key, (at, _, now, _) in [*self._lying.items()] if sha256 in now.hashes
        ]
        return sorted({at.path for key, at in kept if self._known(key, at) is not None})

    def where_all(self, files: Collection[tuple[str, str]]) -> list[Path]:
        """Return the models that are made of just these files: a single one may have any name."""
        wanted, found = frozenset(files), set[Path]()
        for key, (at, _, now, _) in [*self._lying.items()]:
            same = now.files == wanted
            if len(wanted) == len(now.files) == 1:
                same = {sha256 for _, sha256 in wanted} == now.hashes
            if same and self._known(key, at) is not None:
                found.add(at.path)
        return sorted(found)

    def lies_at(self, path: Path, sha256: str) -> bool | None:
        """Return whether a file of this SHA-256 lies in an audited model; None if not known."""
        kept = [(key, at) for key, (at, *_) in [*self._lying.items()] if at.path == path]
        found = [now.hashes for now in (self._known(key, at) for key, at in kept) if now]
        return any(sha256 in hashes for hashes in found) if any(found) else None

    def _known(self, key: str, one: AuditedFiles) -> RegisterState | None:
        kept = self._lying.get(key)
        if kept is None or kept[0] != one or kept[1] != {path: mark_of(path) for path in kept[1]}:
            return None
        with suppress(BilensError, OSError):  # a nearer base of an adapter may have come
            base = one.find_base()
            return kept[2] if base is None or str(base) in kept[1] else None
        return None

    def _read(self, wanted: Mapping[str, tuple[AuditedFiles, bool]]) -> None:
        """Have models read by the one thread that does, and wait for it a while."""
        with self._changing:
            self._wanted |= wanted
            if self._reader is None or not self._reader.is_alive():
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
            try:
                marks, lying = self.compare(one, again=again)
                self._lying[key] = one, marks, lying, monotonic()
            except Exception:  # one model that cannot be looked at stops no other
                logging.getLogger("bilens").exception("%s cannot be looked at.", one.path.name)
            finally:  # whoever waits must hear of it, whatever happens
                with self._changing:
                    del self._wanted[key]
                    self._changing.notify_all()

    def compare(self, audited: AuditedFiles, *, again: bool = False) -> tuple[Marks, RegisterState]:
        """Compare a model with an audit, and return the marks of its files, too."""
        marks = {str(one): mark_of(str(one)) for one in folders_of(audited.path, self.folder)}
        try:
            if (base := audited.find_base()) is not None:
                deque(files_of(self.folder, base), maxlen=0)  # it leads nowhere else
                marks |= {str(one): mark_of(str(one)) for one in folders_of(base, self.folder)}
        except (BilensError, OSError):
            return marks, UNREAD

        def hash_once(mark: Hashable, read: Callable[[Path], str], path: Path) -> str:
            if again or (path, mark) not in self._hashes:
                self._hashes[path, mark] = read(path)
            return self._hashes[path, mark]

        def hash_file(path: Path) -> str | None:
            deque(files_of(self.folder, path), maxlen=0)  # it leads nowhere else
            mark = marks[str(path)] = mark_of(str(path))
            return hash_once(mark, file_sha256, path) if path.is_file() else None

        def hash_model(path: Path) -> str:
            state = state_of(self.folder, path)
            marks.update({str(name): mark_of(str(name)) for name, *_ in state})
            return hash_once(state, self._opened, path)

        return marks, compare_with_audit(audited, hash_file, hash_model)


def folders_of(path: Path, home: Path) -> list[Path]:
    """Return a model and the folders in it, whose marks are others where a file comes or goes.

    Those behind links too, each once, and none that lies out of the served folder.
    """
    found, seen = [path], set[str]()
    for here, folders, _ in os.walk(path, followlinks=True):
        real = os.path.realpath(here)
        if real in seen or not Path(real).is_relative_to(home):
            folders.clear()
            continue
        seen.add(real)
        found.append(Path(here))
    return found
