"""Documents of local text files, read one after the other from the mapped file."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from bilens.base.errors import DataError
from bilens.data.text_cleaning import END_OF_TEXT, Document

SEPARATOR = END_OF_TEXT.encode()
BLANK_LINES = re.compile(rb"(?:\r?\n[ \t]*){2,}")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a text file, or of all .txt files in a folder and below it.

    In a file that holds "<|endoftext|>" (the layout of TinyStories) each document ends with it;
    what follows the last one is not whole. Any other file is split at its blank lines; any other
    file of a folder is one document.

    Raises:
        DataError: If the path is missing or unreadable, a folder has no .txt file, a file is
            empty or not UTF-8 (with the offset of the first bad byte).
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.txt") if file.is_file())
        if not files:
            raise DataError(
                f"{path} holds no .txt file; a folder of text files was expected: "
                "name the file itself if it has another ending."
            )
        for file in files:
            yield from read_file(file, split_at_blank_lines=False)
    else:
        yield from read_file(path, split_at_blank_lines=True)


def read_file(path: Path, split_at_blank_lines: bool) -> Iterator[Document]:
    """Yield the documents of one file."""
    if not path.exists():
        raise DataError(f"{path} does not exist; a text file was expected: check the path.")
    if not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path} is not a file; a text file was expected: name a file or folder.")
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise DataError(f"{path} is empty; text was expected: check the file.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for start, end, is_whole in spans(content, split_at_blank_lines):
                    yield Document(decode(content[start:end], start, path), is_whole)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); a readable text file was "
            "expected: check its permissions."
        ) from None


def spans(content: mmap.mmap, split_at_blank_lines: bool) -> Iterator[tuple[int, int, bool]]:
    """Yield where the documents of a file begin and end, in bytes, and whether they are whole."""
    start = len(BYTE_ORDER_MARK) if content[: len(BYTE_ORDER_MARK)] == BYTE_ORDER_MARK else 0
    if content.find(SEPARATOR) >= 0:
        while (end := content.find(SEPARATOR, start)) >= 0:
            yield start, end, True
            start = end + len(SEPARATOR)
        yield start, len(content), False
        return
    if split_at_blank_lines:
        for gap in BLANK_LINES.finditer(content, start):
            yield start, gap.start(), True
            start = gap.end()
    yield start, len(content), True


def decode(data: bytes, start: int, path: Path) -> str:
    """Return the text of bytes that begin at `start` of a file."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte {start + error.start:,} is 0x{data[error.start]:02x} "
            f"({error.reason}); convert the file, for example with iconv -t utf-8."
        ) from None
