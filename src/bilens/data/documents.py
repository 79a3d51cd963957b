"""Documents of a corpus: from text files, from tables, from Hugging Face data sets."""

from __future__ import annotations

import logging
import mmap
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bilens.base.errors import BilensError, DataError, MissingExtraError, UsageError
from bilens.base.files import check_regular_file
from bilens.data.download import PROBE_SECONDS, is_reachable

END_OF_TEXT = "<|endoftext|>"  # between documents, in files and among tokens
SEPARATOR = END_OF_TEXT.encode()
BLANK_LINES = re.compile(rb"(?:\r?\n[ \t]*){2,}")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


class Document(NamedTuple):
    """One document as it was read."""

    text: str
    is_whole: bool = True  # False: its end is missing


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a text file, or of all .txt files in a folder and below it."""
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
    check_regular_file(path, "expected a text file or a folder of them", DataError)
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            for start, end, is_whole in spans(content, split_at_blank_lines):
                yield Document(decode(content[start:end], start, path), is_whole)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}): check its permissions."
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


def read_table(path: Path, column: str | None) -> Iterator[Document]:
    """Yield the documents of one column of a local .json, .jsonl, .csv or .parquet file."""
    check_regular_file(path, "expected a table with a column of text", DataError)
    files = {"train": str(path)}
    load = datasets_library(f"Reading {path}").load_dataset
    advice = "check the file, or pass a text file or a folder of .txt files."
    with reading(str(path), advice):
        table = load(BUILDERS[path.suffix], data_files=files, split="train", streaming=True)
        yield from read_column(table, str(path), column)


def read_hub(name: str, split: str, column: str | None, stream: bool) -> Iterator[Document]:
    """Yield the documents of one column of a data set of the hub."""
    repository, _, configuration = name.partition(":")
    library = datasets_library(f"Reading {name}")
    endpoint = library.config.HF_ENDPOINT
    if not (library.config.HF_HUB_OFFLINE or is_reachable([endpoint], refusal_counts=True)):
        raise DataError(
            f"{name} was not read: {endpoint} gave no answer within {PROBE_SECONDS:g} s; check "
            "the network, pass a text file or a folder of .txt files, or set HF_HUB_OFFLINE=1 if "
            "the data set was downloaded before."
        )
    advice = (
        "check the name, the configuration and the split, or pass a text file or a folder of .txt "
        "files."
    )
    with reading(name, advice):
        rows = library.load_dataset(
            repository, name=configuration or None, split=split, streaming=stream
        )
        yield from read_column(rows, name, column)


def datasets_library(purpose: str) -> Any:
    """Return the library `datasets`; its import takes about a second."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "language", purpose) from None
    return datasets


@contextmanager
def reading(title: str, advice: str) -> Iterator[None]:
    """Turn whatever the library raises, of many kinds, into one error with the reason."""
    logger = logging.getLogger("datasets")  # it logs, too, what it raises
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except BilensError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(f"{title} cannot be read ({reason}): {advice}") from None
    finally:
        logger.setLevel(level)


def read_column(
    rows: Iterable[Mapping[str, object]], title: str, column: str | None
) -> Iterator[Document]:
    """Yield one column of a table, row by row; an empty cell is a document without text."""
    for row in rows:
        column = column or only_text_column(row, title)
        if column not in row:
            raise UsageError(
                f"{title} has no column {column!r}: choose one of {', '.join(map(repr, row))}."
            )
        text = row[column]
        if text is None:
            text = ""
        if not isinstance(text, str):
            raise DataError(
                f"{title} has a row whose {column!r} is a {type(text).__name__}; text was "
                "expected: choose another column."
            )
        yield Document(text)


def only_text_column(row: Mapping[str, object], title: str) -> str:
    """Return "text", or the one column that holds text."""
    if "text" in row:
        return "text"
    names = [name for name, value in row.items() if isinstance(value, str)]
    if len(names) != 1:
        raise UsageError(
            f"{title} has {len(names)} columns of text ({', '.join(names) or 'none'}); one was "
            "expected, or one called 'text': say which with column (--column)."
        )
    return names[0]
