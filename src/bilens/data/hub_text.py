"""Documents of Hugging Face data sets, and of local tables that the same library reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bilens.base.errors import BilensError, DataError, MissingExtraError, UsageError
from bilens.data.download import PROBE_SECONDS, is_reachable
from bilens.data.text_cleaning import Document

BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def read_table(path: Path, column: str | None) -> Iterator[Document]:
    """Yield the documents of one column of a local .json, .jsonl, .csv or .parquet file."""
    files = {"train": str(path)}
    load = datasets_library(f"Reading {path}").load_dataset
    advice = "check the file, or pass a text file or a folder of .txt files."
    with reading(str(path), advice):
        table = load(BUILDERS[path.suffix], data_files=files, split="train", streaming=True)
        yield from read_column(table, str(path), column)


def read_hub(name: str, split: str, column: str | None, stream: bool) -> Iterator[Document]:
    """Yield the documents of one column of a data set of the hub.

    Args:
        name: As "owner/name", or "owner/name:configuration" where there are several.
        split: A split of the data set.
        column: The column with the text; None for "text", or for the only column of texts.
        stream: Read rows as they come instead of downloading the whole split first.

    Raises:
        MissingExtraError: If `datasets` is not installed.
        DataError: If the data set or split cannot be had, or a row is not text.
        UsageError: If there is no such column, or it is not clear which one is meant.
    """
    place, _, configuration = name.partition(":")
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
            place, name=configuration or None, split=split, streaming=stream
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
