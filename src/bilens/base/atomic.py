"""Writing files so that a reader sees the old state or the new one, never half of it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from bilens.base.errors import BilensError, DiskError, FileError, OutputExistsError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_error(path: Path, error: OSError, replaced: Collection[Path] = ()) -> BilensError:
    """Return the error of ours for a write that failed, naming the path and what to do."""
    reason = error.strerror or str(error)
    state = "What was there before is unchanged."
    if replaced:
        state = f"Replaced already: {', '.join(map(str, replaced))}; write all files again."
    if error.errno in FULL:
        return DiskError(
            f"{path}: cannot be written ({reason}): free some space or choose another output "
            f"folder. {state}"
        )
    return FileError(
        f"{path}: cannot be written ({reason}): choose an output folder that you may write to. "
        f"{state}"
    )


def write_file(path: Path, data: bytes) -> None:
    """Write one whole file; see `write_files`."""
    write_files({path: data})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write whole files: all are staged beside their targets and synced before any is renamed.

    A full disk or a read-only folder is met while staging, when nothing has been replaced yet.
    """
    staged: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            staged[path] = Path(name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            staged[path].chmod(0o666 & ~current_umask())  # mkstemp makes files private
        for path, temporary in staged.items():
            temporary.replace(path)
        for folder in {path.parent for path in contents}:
            sync_folder(folder)
    except OSError as error:
        replaced = [target for target, temporary in staged.items() if not temporary.exists()]
        raise write_error(path, error, replaced) from error
    finally:
        for temporary in staged.values():
            with suppress(OSError):  # gone where the rename worked; stuck on a read-only disk
                temporary.unlink()


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target` to fill; it becomes `target` when all went well."""
    if target.exists():
        raise OutputExistsError(f"{target} exists already: choose another folder.")
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        temporary.chmod(0o777 & ~current_umask())
        yield temporary
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, BilensError):
            raise
        raise write_error(target, error) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(target: Path, source: Path) -> None:
    """Put `source` in the place of `target`; what was there is removed only after the switch."""
    aside = target.with_name(f".{target.name}.old-{os.getpid()}")
    try:
        if target.exists():
            target.replace(aside)
        source.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        if aside.exists() and not target.exists():
            aside.replace(target)
        raise write_error(target, error) from error
    shutil.rmtree(aside, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def current_umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
