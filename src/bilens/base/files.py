"""Files: one guard before any is opened, and writes that leave the old state or the new one."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bilens.base.errors import (
    BilensError,
    CheckpointError,
    DiskError,
    FileError,
    OutputExistsError,
    UsageError,
)

MAX_JSON_BYTES, MAX_JSON_VALUES, MAX_JSON_DEPTH = 1 << 20, 1_000_000, 50
ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/+")  # of the web; `Path` leaves one slash of two
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return a path, or refuse an argument that is none; an empty one would be this folder."""
    if value == "":
        raise UsageError(f"{name} is empty; expected a path, and . for the current folder.")
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{name} is a {type(value).__name__}; expected a text or a Path.")
    return value if isinstance(value, Path) else Path(value)


def check_regular_file(
    path: Path, hint: str, error: type[FileError] = CheckpointError
) -> os.stat_result:
    """Return the status of a file with content that may be read."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise not_there(path, f"no such file; {hint}.", error) from None
    except (OSError, ValueError) as problem:  # ValueError: a null character in the path
        raise error(f"{path}: {why_unreadable(problem)}") from problem
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{path}: is not a regular file; {hint}.")
    if status.st_size == 0:
        raise error(f"{path}: is empty (0 bytes): download or save it again.")
    try:
        path.open("rb").close()
    except OSError as problem:
        raise error(f"{path}: {why_unreadable(problem)}") from problem
    return status


def not_there(path: Path, said: str, error: type[FileError] = CheckpointError) -> FileError:
    """Return the error for a path where nothing is; for a web address it says to download first."""
    if found := ADDRESS.match(text := str(path)):
        text = f"{found[1]}://{text[found.end() :]}"
        said = "is an address, and bilens reads files of this machine: download it, pass the file."
    return error(f"{text}: {said}")


def why_unreadable(problem: Exception) -> str:
    """Say why a file cannot be read, and what to do."""
    reason = getattr(problem, "strerror", None) or str(problem)
    return f"cannot be read ({reason}): check the path and its permissions."


def file_sha256(*paths: Path) -> str:
    """Return the SHA-256 of a file, or that of those of several."""
    if len(paths) != 1:
        return hashlib.sha256("".join(map(file_sha256, paths)).encode()).hexdigest()
    with paths[0].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file of at most `max_bytes`; raise CheckpointError otherwise."""
    status = check_regular_file(path, "a model folder needs it beside the weights")
    if status.st_size > max_bytes:
        raise CheckpointError(f"{path}: is {status.st_size} bytes; at most {max_bytes} are read.")
    try:
        return parse_object(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}: restore the file.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {why_unreadable(error)}") from error


def parse_object(text: bytes) -> dict[str, Any]:
    """Return the object in a JSON text of unknown origin.

    Raises: ValueError if it is none, or one that would take all memory or end Python's stack.
    """
    if sum(map(text.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise ValueError(f"holds more than {MAX_JSON_VALUES:,} values")
    try:
        content = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}; expected a JSON object")
    level: list[Any] = [content]
    for _ in range(MAX_JSON_DEPTH):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [one for each in inner for one in each if isinstance(one, dict | list)]
        if not level:
            return content
    raise ValueError(f"is nested more than {MAX_JSON_DEPTH} deep")


def with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return a file of safetensors with metadata in order, where the library shuffles the keys."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8:start])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def shortened(names: list[str], limit: int = 4) -> str:
    """Return names as text, the first few of many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


def names_in(folder: Path, of: str) -> set[str]:
    """Return the names in a folder, none where there is none yet; refuse a file in its place."""
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file; expected a folder for the {of}.")
    return {item.name for item in folder.iterdir()} if folder.exists() else set()


def write_error(path: Path, error: OSError, replaced: Collection[Path] = ()) -> BilensError:
    """Make the error of a file that cannot be written; it names those replaced before it."""
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError):  # of `mkdir`, where a file has the name of a folder
        reason = os.strerror(errno.ENOTDIR)
    state = "What was there before is unchanged."
    if replaced:
        state = f"Replaced already: {', '.join(map(str, replaced))}; write all files again."
    kind: type[BilensError] = FileError
    advice = "choose an output folder that you may write to"
    if error.errno in FULL:
        kind, advice = DiskError, "free some space or choose another output folder"
    return kind(f"{path}: cannot be written ({reason}): {advice}. {state}")


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole, or leave what was there."""
    write_files({path: data})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write whole files: all are staged beside their targets and synced before any is renamed.

    A device or a pipe, as /dev/null, is written to where it is: a file must not take its place.
    """
    staged: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in contents.items():
            if path.exists() and not (path.is_file() or path.is_dir()):
                descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # a pipe without a reader
                os.set_blocking(descriptor, True)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                continue
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
        for folder in {path.parent for path in staged}:
            sync_folder(folder)
    except OSError as error:
        replaced = [target for target, temporary in staged.items() if not temporary.exists()]
        raise write_error(path, error, replaced) from error
    finally:
        for temporary in staged.values():
            with suppress(OSError):  # gone where the rename worked; stuck on a read-only disk
                temporary.unlink()


def write_new_files(folder: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    """Write files into a folder whole; where one is there already only if it may be replaced."""
    check_new_files(folder, files, overwrite)
    is_new = not folder.exists()
    try:
        write_files({folder / name: content for name, content in files.items()})
    except BilensError:
        if is_new:
            with suppress(OSError):  # never made, or not empty
                folder.rmdir()
        raise


def check_new_files(folder: Path, names: Collection[str], overwrite: bool) -> None:
    """Refuse a folder that files may not be written into; nothing is written."""
    try:
        present = [name for name in names if (folder / name).exists()]
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise write_error(folder, error) from error
    if present and not overwrite:
        raise OutputExistsError(
            f"{folder} already holds {', '.join(present)}: choose another folder, or pass "
            "overwrite=True (--overwrite) to replace what is there."
        )
    for fails, code in (
        (not nearest.is_dir(), errno.ENOTDIR),
        (not os.access(nearest, os.W_OK | os.X_OK), errno.EACCES),
    ):
        if fails:
            raise write_error(folder, OSError(code, os.strerror(code)))


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target` to fill; it takes its place when all went well."""
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        temporary.chmod(0o777 & ~current_umask())
        yield temporary
        replace_folder(target, temporary)
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
