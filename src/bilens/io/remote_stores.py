"""Size, version and byte ranges of objects at addresses, by fsspec; what passes is tried again.

Ranges that were fetched are kept in a folder of bounded size; the least recently used go. Each file
is written beside its place and renamed, so that several processes may share the folder and none
reads half a file. The caches of fsspec fetch more (`filecache` whole files, `blockcache` blocks of
one size) and remove nothing for want of room.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bilens.base.errors import BilensError, CheckpointError, UsageError, optional_package

DIGEST = hashlib.sha256().digest_size
STAGED = "range-"
OURS = re.compile(rf"[0-9a-f]{{64}}|{STAGED}.*")  # the folder may hold files of others


class RangeCache:
    """The folder as one reader uses it; each file is the SHA-256 of a range, and the range."""

    def __init__(self) -> None:
        from bilens.base.memory import parse_bytes  # loads torch

        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        self.folder = Path(os.environ.get("BILENS_CACHE") or f"{home}/bilens").expanduser()
        limit = os.environ.get("BILENS_CACHE_LIMIT") or "2GiB"
        self.limit = 0 if limit == "0" else parse_bytes(limit)
        self.room = 0  # bytes that may be written before the folder is looked through again

    def through(self, key: str, num_bytes: int, fetch: Callable[[], bytes]) -> bytes:
        """Return the bytes under a key, or else fetch them, and keep them unless they are many."""
        if 4 * num_bytes > self.limit:
            return fetch()
        file = self.folder / hashlib.sha256(key.encode()).hexdigest()
        with suppress(OSError):
            content = file.read_bytes()
            data = content[DIGEST:]
            if hashlib.sha256(data).digest() == content[:DIGEST]:
                os.utime(file)
                return data
        data = fetch()
        with suppress(OSError):  # a full disk keeps nobody from reading
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.make_room(num_bytes)
            with tempfile.NamedTemporaryFile(
                prefix=STAGED, dir=self.folder, delete=False
            ) as written:
                written.write(hashlib.sha256(data).digest() + data)
            Path(written.name).replace(file)
        return data

    def make_room(self, num_bytes: int) -> None:
        """Remove what was not used for the longest, a sixteenth at a time."""
        self.room -= num_bytes
        if self.room >= 0:
            return
        found = []
        for entry in os.scandir(self.folder):
            if not OURS.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):  # another process removed it
                found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        total = num_bytes + sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit - self.limit // 16:
                break
            Path(path).unlink(missing_ok=True)
            total -= size
        self.room = (self.limit - total) // 8  # others write, too


SCHEMES = ("s3", "gs", "hf", "http", "https", "memory")
# what stores say of an object by which it is known to be the same, the surest first
VERSIONS = ("generation", "ETag", "etag", "blob_id", "LastModified", "Last-Modified", "created")
ATTEMPTS, WAIT = 5, 0.25  # seconds before the second one, doubled each time
T = TypeVar("T")


NAMED = "is no name on the hub: expected hf://OWNER/NAME, and behind it @REVISION or /FOLDER."
HUB_FAULTS = {  # errors of huggingface_hub, or behind those of its file system
    "GatedRepoError": "asks its readers to accept its conditions first: do so on its page of the "
    "hub, and run `hf auth login`.",
    "RevisionNotFoundError": "has no such revision: put a branch, a tag or a commit behind the @.",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE keeps this machine off the hub: unset it, or pass "
    "OWNER/NAME without hf://, which is looked for in the cache of the hub.",
    **dict.fromkeys(("ValueError", "HfUriError", "HFValidationError"), NAMED),
}


class Info(NamedTuple):
    """The size and the version of an object, as its store says them."""

    size: int
    version: str  # that it is another object without; empty where the store says nothing
    checksum: tuple[str, str] | None = None  # of the whole object: algorithm, hexadecimal digest


class NoRangesError(Exception):
    """A server that sends whole files alone."""


class ObjectStore:
    """Objects of a scheme, and what is known of them; credentials are its package's business."""

    def __init__(self, scheme: str) -> None:
        self.hub = scheme == "hf"  # where a model is read at one commit, of which no file changes
        if self.hub:
            optional_package("huggingface_hub", "hub", "reading a model of the hub")
        fsspec = optional_package("fsspec", "remote", "reading a model at an address")
        # of the hub nothing that an earlier reader asked for is kept: it may be there by now
        options: dict[str, Any] = {
            "skip_instance_cache" if self.hub else "use_listings_cache": self.hub
        }
        if scheme.startswith("http"):
            options["headers"] = {"Accept-Encoding": "identity"}
            options["client_kwargs"] = {"raise_for_status": refuse_whole_files}
        if scheme == "s3":  # what passes is tried again here, and by s3fs
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
        try:
            self.files = fsspec.filesystem(scheme, **options)
        except ImportError as error:  # names the package
            raise UsageError(f"{scheme}:// cannot be read yet: {error}.") from None
        self.cache = RangeCache() if scheme != "memory" else None
        self.known: dict[str, Info | None] = {}
        self.whole: dict[Path, bytes] = {}  # small files
        self.ahead: dict[Path, list[tuple[int, bytes]]] = {}  # ranges that are soon read
        self.refused = False  # whether access to an object was

    def pinned(self, url: str) -> str:
        """Return where the hub has a model at the commit that it is at now."""

        def commit(at: Any, api: Any) -> str:
            said = api.repo_info(at.repo_id, revision=at.revision, repo_type=at.repo_type)
            return str(replace(at, revision=said.sha, _raw_revision=None).unresolve())

        return self.on_hub(url, commit)

    def downloaded(self, url: str) -> Path:
        """Fetch the files of a model of the hub, but no folders in it; return where they lie."""

        def fetch(at: Any, api: Any) -> Path:
            below = f"{at.path_in_repo}/" if at.path_in_repo else ""
            which = {"allow_patterns": [f"{below}*", at.path_in_repo], "revision": at.revision}
            which |= {"ignore_patterns": f"{below}*/*", "repo_type": at.repo_type}
            return Path(api.snapshot_download(at.repo_id, **which)) / str(at.path_in_repo)

        return self.on_hub(url, fetch)

    def on_hub(self, url: str, call: Callable[[Any, Any], T]) -> T:
        """Ask the hub, with the token that huggingface_hub has."""
        from huggingface_hub import HfApi

        try:
            return attempt(url, lambda: call(self.files.resolve_path(url), HfApi()))
        except (FileNotFoundError, PermissionError):
            raise CheckpointError(
                f"{url}: no model, or none that may be read: check the name, and run "
                "`hf auth login` where it is private."
            ) from None

    def find(self, url: str) -> Info | None:
        """Return the object at an address, asked for once; None without one, or without access."""
        if url not in self.known:
            found = None
            try:
                found = attempt(url, lambda: self.info(url))
            except FileNotFoundError:
                pass
            except PermissionError:
                self.refused = True
            self.known[url] = found
        return self.known[url]

    def info(self, url: str) -> Info:
        try:
            found = self.files.info(url)
        except FileNotFoundError as error:  # of HTTP, whatever went wrong
            raise error.__cause__ or error from None
        if found.get("type") == "directory" or found.get("size") is None:
            raise FileNotFoundError
        version = next((f"{name} {found[name]}" for name in VERSIONS if found.get(name)), "")
        checksum, md5 = None, found.get("md5Hash") or found.get("Content-MD5")
        if found.get("lfs"):
            checksum = "sha256", found["lfs"]["sha256"]
        elif md5:
            checksum = "md5", base64.b64decode(md5).hex()
        return Info(int(found["size"]), version, checksum)

    def fetch(self, url: str, start: int, stop: int, known: Info) -> bytes:
        """Return bytes of an object that is still the one that is known."""
        part = {} if stop - start == known.size else {"start": start, "end": stop}

        def once() -> bytes:
            try:  # of the hub no more than is asked for
                more = {"cache_type": "none"} if self.hub else {}
                data: bytes = self.files.cat_file(url, **part, **more)
            finally:
                if not self.hub and self.info(url) != known:
                    raise changed(url)
            if len(data) != stop - start:
                raise ConnectionError
            return data

        def fetch() -> bytes:
            try:
                return attempt(url, once)
            except FileNotFoundError:
                raise changed(url) from None
            except PermissionError:
                raise no_access(url) from None

        if self.cache is None or not known.version:
            return fetch()
        return self.cache.through(f"{url} {known} {start} {stop}", stop - start, fetch)


async def refuse_whole_files(reply: Any) -> None:
    if reply.status == 200 and "Range" in reply.request_info.headers:
        raise NoRangesError


def attempt(url: str, call: Callable[[], T], done: str = "read") -> T:
    """Ask a store, again after errors that pass; else say what went wrong."""
    for number in range(ATTEMPTS):
        if number:
            jitter = time.time_ns() % 1000 / 1000
            time.sleep(WAIT * 2 ** (number - 1) * (0.5 + jitter))
        try:
            return call()
        except BilensError:
            raise
        except (FileNotFoundError, PermissionError) as error:
            raise hub_refusal(url, error) or error from None
        except NoRangesError:
            raise CheckpointError(
                f"{url}: its server sends whole files alone, no ranges: download the model, or "
                "serve it from one that answers Range."
            ) from None
        except Exception as error:  # of many libraries, whose texts may hold keys
            code, name = status_of(error), type(error).__name__
            if refusal := hub_refusal(url, error):
                raise refusal from None
            if code in (404, 410):
                raise FileNotFoundError from None
            if code in (401, 403) or "Credential" in name:
                raise PermissionError from None
            said = f"{name} {code or ''}".rstrip()
            if 400 <= code < 500 and code not in (408, 425, 429):
                break
    times = "" if number < ATTEMPTS - 1 else f", {ATTEMPTS} times"
    raise CheckpointError(
        f"{url}: could not be {done} ({said}{times}): check address and network, and try again."
    )


def hub_refusal(url: str, error: Exception) -> CheckpointError | None:
    """Return the sentence for what the hub said of a name, a revision or an access."""
    names = (type(one).__name__ for one in (error, error.__cause__) if url.startswith("hf:"))
    why = next((HUB_FAULTS[name] for name in names if name in HUB_FAULTS), None)
    return None if why is None else CheckpointError(f"{url}: {why}")


def status_of(error: Exception) -> int:
    """Return the status of HTTP in an exception of one of the libraries; 0 for none."""
    code = getattr(error, "status", None) or getattr(error, "response", None)
    code = code or getattr(error.__cause__, "response", None)
    if isinstance(code, dict):  # of botocore, or behind what s3fs says
        code = code.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = getattr(code, "status_code", code) or getattr(error, "code", 0)
    return code if isinstance(code, int) and 400 <= code < 600 else 0


def changed(url: str) -> CheckpointError:
    return CheckpointError(
        f"{url}: was changed or removed after the model was loaded: load it again."
    )


def no_access(url: str) -> CheckpointError:
    return CheckpointError(
        f"{url}: access is refused: set up credentials that may read it (docs/addresses.md), and "
        "see that the clock of this machine is right."
    )
