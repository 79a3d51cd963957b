"""IDX files, the format of MNIST, the folder of four that makes a data set, and its download.

The reader is strict: a file says how many bytes it holds, and exactly these must follow.
Nothing is allocated or decompressed beyond what the header declares, whatever the file holds.
"""

import gzip
import math
import socket
import threading
import urllib.request
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from io import BufferedIOBase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias
from urllib.error import HTTPError

import numpy as np
from numpy.typing import NDArray

from bilens.base.errors import DataError, MissingExtraError
from bilens.base.files import check_regular_file

ByteArray: TypeAlias = NDArray[np.uint8]

GZIP_MAGIC = b"\x1f\x8b"
# two zeros, then the code of unsigned bytes; the number of axes follows
IDX_MAGIC = b"\x00\x00\x08"
MAX_AXES = 4
SIZE_LIMIT = 2**30  # bytes; the largest file of MNIST declares 47 million
CHUNK = 2**20  # bytes read at a time, so that memory follows the content and not the header
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Data set -> names of its own subfolder; the first one is torchvision's.
SUBFOLDERS = {"mnist": ("MNIST", "mnist"), "fashion-mnist": ("FashionMNIST", "fashion-mnist")}
SILENCE_SECONDS = 10.0  # a connection that is silent for so long is given up
PROBE_SECONDS = 6.0  # with the import of torchvision, an offline machine gives up within 10 s
KINDS = {1: "a label file (1 axis)", 3: "an image file (3 axes)"}


def read_idx(path: Path) -> ByteArray:
    """Return the array of an IDX file of unsigned bytes, plain or compressed, by its content."""
    check_regular_file(path, "expected an IDX file", DataError)
    try:
        with path.open("rb") as file:
            is_compressed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if not is_compressed:
                return parse(file, path)
            with gzip.GzipFile(fileobj=file) as content:
                return parse(content, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is a damaged gzip file ({error}); a complete one was expected: "
            "download it again."
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); a readable IDX file was expected: "
            "check its permissions."
        ) from None


def read_kind(path: Path, num_axes: int) -> ByteArray:
    """Return the array of an IDX file that must have so many axes: 3 of images, 1 of labels."""
    array = read_idx(path)
    if array.ndim != num_axes:
        found = KINDS.get(array.ndim, f"an IDX file with {array.ndim} axes")
        raise DataError(
            f"{path} is {found}, where {KINDS[num_axes]} was expected: "
            "check that the image and label files are not swapped."
        )
    return array


def parse(content: BufferedIOBase, path: Path) -> ByteArray:
    magic = content.read(4)
    if not magic:
        raise DataError(f"{path} is empty; an IDX file was expected: download it again.")
    if len(magic) < 4 or magic[:3] != IDX_MAGIC or not 1 <= magic[3] <= MAX_AXES:
        raise DataError(
            f"{path} starts with the bytes {magic.hex(' ')}; an IDX file of unsigned bytes with "
            f"1 to {MAX_AXES} axes was expected, which starts with {IDX_MAGIC.hex(' ')} 01 to "
            f"{MAX_AXES:02x}: check that this is the right file, or download it again."
        )
    header = content.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise DataError(
            f"{path} ends inside its header; the sizes of {magic[3]} axes were expected: "
            "the file is truncated, download it again."
        )
    shape = tuple(np.frombuffer(header, dtype=">u4").tolist())
    expected = math.prod(shape)
    if expected > SIZE_LIMIT:
        raise DataError(
            f"{path} declares the shape {shape}, {expected:,} bytes; at most {SIZE_LIMIT:,} bytes "
            "were expected: the header is damaged, download the file again."
        )
    data = bytearray()
    while len(data) <= expected:  # one byte too many is enough to know
        chunk = content.read(min(CHUNK, expected + 1 - len(data)))
        if not chunk:
            break
        data += chunk
    if len(data) != expected:
        found = f"only {len(data):,}" if len(data) < expected else "more"
        raise DataError(
            f"{path} holds {found} bytes of data, exactly {expected:,} were expected for the "
            f"declared shape {shape}: the file is damaged, download it again."
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


class RawSplits(NamedTuple):
    """The arrays of the four files, as stored."""

    train_images: ByteArray  # (images, rows, columns)
    train_labels: ByteArray  # (images,)
    test_images: ByteArray
    test_labels: ByteArray


def read_folder(name: str, folder: Path) -> tuple[Path, RawSplits]:
    """Return the location inside `folder` that holds the four files, and what they hold."""
    try:
        location, files = locate(name, folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be searched ({error.strerror}); a folder with the four IDX files of "
            f"{name} was expected: check its permissions."
        ) from None
    train_images, train_labels = read_split(*files[:2])
    test_images, test_labels = read_split(*files[2:])
    return location, RawSplits(train_images, train_labels, test_images, test_labels)


def read_split(image_file: Path, label_file: Path) -> tuple[ByteArray, ByteArray]:
    images, labels = read_kind(image_file, num_axes=3), read_kind(label_file, num_axes=1)
    if len(images) != len(labels):
        raise DataError(
            f"{image_file} holds {len(images):,} images and {label_file} {len(labels):,} labels; "
            "one label for each image was expected: check that the two files belong together."
        )
    return images, labels


def locate(name: str, folder: Path) -> tuple[Path, list[Path]]:
    """Return the first complete location and the paths of its four files, in the order of FILES."""
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"{folder} {problem}; a folder with the four IDX files of {name} was expected: "
            "check the path."
        )
    inside = [Path(own, raw) for own in (*SUBFOLDERS[name], "") for raw in ("raw", "")]
    found = {location: find_files(folder / location) for location in inside}
    best = max(inside, key=lambda location: len(found[location]))  # the first one of the fullest
    missing = [file for file in FILES if file not in found[best]]
    if missing:
        searched = ", ".join(str(location) for location in inside if location != Path())
        raise DataError(
            f"{folder} lacks {', '.join(missing)}; the four IDX files of {name} were expected in "
            f"it or in one of {searched}: add the missing files, with or without .gz."
        )
    return folder / best, [found[best][file] for file in FILES]


def find_files(location: Path) -> dict[str, Path]:
    """Return standard name -> path of those of the four files that are in a folder."""
    found: dict[str, Path] = {}
    for file in FILES:
        dotted = file.replace("-idx", ".idx")
        for name in (file, f"{file}.gz", dotted, f"{dotted}.gz"):
            if (location / name).exists():
                found.setdefault(file, location / name)
    return found


def download(name: str, cache: Path) -> Path:
    """Return the folder cache/name, filled with the four files of a data set."""
    title = SUBFOLDERS[name][0]
    try:
        from torchvision import datasets  # its import takes over a second

        source: Any = getattr(datasets, title)
        if not is_reachable([mirror + source.resources[0][0] for mirror in source.mirrors]):
            raise DataError(
                f"{title} was not downloaded: no server answered within {PROBE_SECONDS:g} s; "
                "check the network, or pass a folder with the four IDX files."
            )
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=cache) as temporary:
            before = socket.getdefaulttimeout()
            socket.setdefaulttimeout(SILENCE_SECONDS)  # torchvision sets no time-out itself
            try:
                source(temporary, download=True)
            finally:
                socket.setdefaulttimeout(before)
            complete, _ = read_folder(name, Path(temporary))
            if (cache / name).exists():
                (cache / name).replace(Path(temporary, "old"))
            return complete.replace(cache / name)
    except ImportError:
        raise MissingExtraError("torchvision", "images", f"Downloading {title}") from None
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())  # torchvision writes a line for each mirror
        raise DataError(
            f"{title} was not downloaded ({reason}): try again later, or pass a folder with the "
            "four IDX files."
        ) from None


def is_reachable(urls: Sequence[str], refusal_counts: bool = False) -> bool:
    """Say within PROBE_SECONDS whether one of the addresses answers."""
    answered = threading.Event()

    def probe() -> None:
        for url in urls:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 (torchvision's URLs)
            try:
                urllib.request.urlopen(request, timeout=PROBE_SECONDS / len(urls)).close()  # noqa: S310
            except (OSError, HTTPException) as error:
                if not (refusal_counts and isinstance(error, HTTPError)):
                    continue
            answered.set()
            return

    # Looking up a host name knows no time-out, so the wait for the thread is what is limited.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()
