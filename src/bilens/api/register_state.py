"""Compare what lies in a folder with the files that the last audit of a model read."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bilens.api.history import now
from bilens.api.provenance import BELOW, folder_key, read_beside, unseen_in
from bilens.base.errors import BilensError
from bilens.base.files import file_sha256
from bilens.io.formats.peft import named_base
from bilens.io.load import load
from bilens.records.history import FileDifference, ModelState


class AuditedFiles(NamedTuple):
    """Where a model lies, or lay, with the weights and the files that its last audit read.

    No files are known of an earlier release: then the model is opened.
    """

    path: Path
    weights_sha256: str
    files: tuple[tuple[str, str], ...]
    base: Path | None = None  # of an adapter that does not say where that lies

    def find_base(self) -> Path | None:
        """Return where the model below an adapter lies; None of other models, and if not known."""
        is_adapter = any(name.startswith(BELOW) for name, _ in self.files)
        return named_base(self.path) or (self.base if is_adapter else None)


@dataclass(frozen=True)
class RegisterState:
    """The state of a model's files now, compared with those of its last audit."""

    state: ModelState
    differences: tuple[FileDifference, ...] = ()
    files: frozenset[tuple[str, str]] = frozenset()  # that were read, with their hashes
    read: str = ""  # when they were, UTC

    @property
    def hashes(self) -> frozenset[str]:
        """The SHA-256 of the files that were read."""
        return frozenset(sha256 for _, sha256 in self.files)


def hash_if_file(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None


def compare_with_audit(
    audited: AuditedFiles,
    hash_file: Callable[[Path], str | None] = hash_if_file,
    hash_model: Callable[[Path], str] = lambda path: load(path).read_sha256,
) -> RegisterState:
    """Compare what lies in a folder with the last audit: its files, or else its weights.

    Args:
        audited: the model, and what was read of it.
        hash_file: returns the SHA-256 of a file, None where there is none.
        hash_model: returns the SHA-256 of the weights of a model that has to be opened.
    """
    path, read = audited.path, now()
    then, found = dict(audited.files), dict[str, str | None]()
    if not os.path.lexists(path):
        return RegisterState("gone")
    try:
        if not then:
            then, found = {path.name: audited.weights_sha256}, {path.name: hash_model(path)}
        elif path.is_dir() == (path.name in then):  # a file where a folder was, or a folder
            return RegisterState("changed", (FileDifference(path.name, "other"),), read=read)
        else:
            place = path if path.is_dir() else path.parent
            base = audited.find_base()
            if base is None and any(name.startswith(BELOW) for name in then):
                return RegisterState("unread")  # nobody knows where it lies
            lying = read_beside(path, base)
            folders = {f"{name}/": folder for name, folder in unseen_in(path).items()}
            for name in sorted({*then, *lying, *folders}):
                if {"..", "/"} & {*Path(name).parts}:
                    return RegisterState("unread")
                if name in folders:
                    found[name] = folder_key(folders[name], hash_file)
                else:
                    found[name] = hash_file(lying.get(name, place / name))
    except (BilensError, OSError, KeyError, ValueError):
        return RegisterState("unread")
    if not any(found.values()):  # of a folder that is empty
        return RegisterState("gone", read=read)
    differences = tuple(
        FileDifference(name, "missing" if sha256 is None else "other" if name in then else "new")
        for name, sha256 in found.items()
        if sha256 != then.get(name)
    )
    state: ModelState = "changed" if differences else "audited"
    there = frozenset((name, sha256) for name, sha256 in found.items() if sha256 is not None)
    return RegisterState(state, differences, there, read)
