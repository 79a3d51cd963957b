"""Compare what lies in a folder with the files that the last audit of a model read."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bilens.api.history import now
from bilens.api.provenance import folder_key, read_beside, unseen_in
from bilens.base.errors import BilensError
from bilens.base.files import file_sha256
from bilens.io.file_kinds import BELOW, OWN
from bilens.io.formats.peft import named_base
from bilens.io.load import load
from bilens.records.history import FileDifference, ModelState

UNREADABLE = BilensError, OSError, KeyError, ValueError


class AuditedFiles(NamedTuple):
    """Where a model lies, or lay, with the weights and the files that its last audit read.

    No files are known of an earlier release: then the model is opened, and never the audited one.
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
    seen: str = field(default="", compare=False)  # a hash of all that could be read

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
    if not os.path.lexists(os.path.realpath(path)):  # also of a link that leads nowhere
        return RegisterState("gone")
    then, found, is_sure = dict(audited.files), dict[str, str | None](), False
    if then:
        found, is_sure = hash_lying(audited, hash_file)
    else:
        then = {path.name: audited.weights_sha256}
        with suppress(*UNREADABLE):
            found, is_sure = {path.name: hash_model(path)}, True
    there = frozenset((name, sha256) for name, sha256 in found.items() if sha256 is not None)
    told = sorted((name.removeprefix(OWN), sha256) for name, sha256 in there)
    seen = hashlib.sha256(repr(told).encode()).hexdigest()
    if audited.files and path.is_dir() == (path.name in then):  # a file now, or a folder
        return RegisterState("changed", (FileDifference(path.name, "other"),), read=read, seen=seen)
    if not is_sure:
        return RegisterState("unread", seen=seen)
    if not any(found.values()):  # of a folder that is empty
        return RegisterState("gone", read=read)
    differences = tuple(
        FileDifference(name, "missing" if sha256 is None else "other" if name in then else "new")
        for name, sha256 in found.items()
        if sha256 != then.get(name)
    )
    known: ModelState = "audited" if audited.files else "unread"  # what else it read, nobody knows
    state = "changed" if differences else known
    return RegisterState(state, differences, there, read, seen)


def hash_lying(
    audited: AuditedFiles, hash_file: Callable[[Path], str | None]
) -> tuple[dict[str, str | None], bool]:
    """Return the SHA-256 of all that can be read, None of what is missing; and if that is all."""
    path, then = audited.path, dict(audited.files)
    place, is_sure = path if path.is_dir() else path.parent, False
    lying, folders, found = dict[str, Path](), dict[str, Path](), dict[str, str | None]()
    with suppress(*UNREADABLE):
        base = audited.find_base()
        lying = read_beside(path, base)
        lying = {OWN + n if OWN + n in then else n: file for n, file in lying.items()}
        folders = {f"{name}/": folder for name, folder in unseen_in(path).items()}
        # else nobody knows where the base lies
        is_sure = base is not None or not any(name.startswith(BELOW) for name in then)
    for name in sorted({*then, *lying, *folders}):
        try:
            if {"..", "/"} & {*Path(name).parts}:
                is_sure = False
            elif name in folders:
                found[name] = folder_key(folders[name], hash_file)
            elif name in lying or not name.startswith(BELOW):
                found[name] = hash_file(lying.get(name, place / name))
            else:
                found[name] = None
        except UNREADABLE:
            is_sure = False
    return found, is_sure
