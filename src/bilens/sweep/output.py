"""Where a sweep writes: a folder, or a place that fsspec knows; whole files or none."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bilens.base.errors import (
    BilensError,
    DiskError,
    FileError,
    UsageError,
    first_line,
    optional_package,
)
from bilens.base.files import write_file
from bilens.train.run_folder import lock_run

LEASE = "lease"
BEAT = 5.0  # seconds between two signs of life of a driver
MISSED = 3  # beats without one, after which another driver takes over


class SweepOutput:
    """Files by name below a folder."""

    def __init__(self, place: str) -> None:
        self.place, self.local = place, "://" not in place
        fsspec = optional_package("fsspec", "remote", "A sweep")
        if self.local:
            self.files, self.root = fsspec.filesystem("file"), str(Path(place).absolute())
            return
        try:
            self.files, self.root = fsspec.core.url_to_fs(place)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{place} cannot be written to: {error}.") from None

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def read_bytes(self, name: str) -> bytes | None:
        """Return the bytes of a file; None where there is none."""
        try:
            found: bytes = self.files.cat_file(self.path(name))
        except FileNotFoundError:
            return None
        except Exception as error:  # of many libraries
            raise self.unreadable(name, error) from error
        return found

    def write(self, name: str, data: bytes) -> None:
        try:
            if self.local:
                write_file(Path(self.path(name)), data)
            else:
                self.files.pipe_file(self.path(name), data)
        except BilensError as error:
            raise DiskError(str(error)) from error
        except Exception as error:
            raise self.unwritable(name, error) from error

    def remove(self, name: str) -> None:
        try:
            self.files.rm_file(self.path(name))
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self.unwritable(name, error) from error

    def tidy(self, folder: str) -> None:
        """Remove what was being written when its writer was killed."""
        if self.local:
            for item in Path(self.path(folder)).rglob(".*"):
                item.unlink(missing_ok=True)

    def names(self, folder: str) -> set[str]:
        """Return the files below a folder, by their names below it."""
        base = self.path(folder)
        self.files.invalidate_cache()
        try:
            found = {item[item.index(base) + len(base) + 1 :] for item in self.files.find(base)}
        except FileNotFoundError:
            return set()
        except Exception as error:
            raise self.unreadable(folder, error) from error
        return {name for name in found if not name.rpartition("/")[2].startswith(".")}

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Be the only driver of a sweep.

        A folder is locked. Elsewhere a lease is written anew every few seconds, and another driver
        waits to see whether it changes: no clock is compared with another one's.
        """
        if self.local:
            with lock_run(Path(self.root)):
                yield
            return
        before = self.read_bytes(LEASE)
        if before is not None:
            threading.Event().wait(MISSED * BEAT)
            if self.read_bytes(LEASE) != before:
                raise UsageError(self.in_use())
        ended, me = threading.Event(), uuid.uuid4().hex
        self.write(LEASE, f"{me} 0".encode())
        threading.Event().wait(BEAT / 5)  # of two that came at once, the last to write is the one
        if self.read_bytes(LEASE) != f"{me} 0".encode():
            raise UsageError(self.in_use())

        def beat() -> None:
            count = 0
            while not ended.wait(BEAT):
                count += 1
                with suppress(DiskError):
                    self.write(LEASE, f"{me} {count}".encode())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with suppress(OSError):
                self.remove(LEASE)

    def unreadable(self, name: str, error: Exception) -> FileError:
        return FileError(
            f"{self.place}: {name} cannot be read ({first_line(error)}): see to address, network "
            "and the right to read, and repeat the command."
        )

    def unwritable(self, name: str, error: Exception) -> DiskError:
        return DiskError(
            f"{self.place}: {name} cannot be written ({first_line(error)}): see to it that there "
            "is room, and the right to write, and repeat the command."
        )

    def in_use(self) -> str:
        return (
            f"{self.place} is being written by another `bilens sweep`: wait for it, end it, or "
            "choose another folder with --out."
        )
