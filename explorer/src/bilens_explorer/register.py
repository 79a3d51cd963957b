"""Compare the files of each model, by SHA-256, with those that its last audit read.

A file is read where its place on the disk, its size or its times are others than when it was read
last: also the time of its last change, which no program sets. Files are read beside the pages, one
model after the other.
"""

import os
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from threading import Condition, Thread
from time import monotonic

from bilens.api import AuditedFiles, RegisterState, compare_with_audit
from bilens.base import file_sha256
from bilens.base.errors import BilensError
from bilens.io import mark_of, named_base
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

    def where(self, hashes: set[str], whole: bool = False) -> list[Path]:
        """Return the models in which files of these SHA-256 lie; `whole`: and no others."""
        lying = [(one.path, now.hashes) for one, _, now, _ in [*self._lying.values()]]
        found = {path for path, now in lying if hashes <= now and (now <= hashes or not whole)}
        return sorted(found)

    def lies_at(self, path: Path, sha256: str) -> bool | None:
        """Return whether a file of this SHA-256 lies in an audited model; None if not known."""
        found = [one.hashes for at, _, one, _ in [*self._lying.values()] if at.path == path]
        return any(sha256 in hashes for hashes in found) if any(found) else None

    def _known(self, key: str, one: AuditedFiles) -> RegisterState | None:
        kept = self._lying.get(key)
        if kept is None or kept[0] != one or kept[1] != {path: mark_of(path) for path in kept[1]}:
            return None
        return kept[2]

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
            finally:  # whoever waits must hear of it, whatever happens
                with self._changing:
                    del self._wanted[key]
                    self._changing.notify_all()

    def compare(self, audited: AuditedFiles, *, again: bool = False) -> tuple[Marks, RegisterState]:
        """Compare a model with an audit, and return the marks of its files, too."""
        marks = {str(one): mark_of(str(one)) for one in folders_of(audited.path)}
        try:
            if (base := named_base(audited.path) or audited.base) is not None:
                deque(files_of(self.folder, base), maxlen=0)  # it leads nowhere else
                marks |= {str(one): mark_of(str(one)) for one in folders_of(base)}
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


def folders_of(path: Path) -> list[Path]:
    """Return a model and the folders in it, whose marks are others where a file comes or goes."""
    return [path, *(Path(here) for here, *_ in os.walk(path))]
