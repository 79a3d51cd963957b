"""Documents of Hugging Face data sets, and of local tables that the same library reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bilens.data.text_cleaning import Document
from bilens.errors import DataError, MissingExtraError, UsageError

BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def read_table(path: Path, column: str | None) -> Iterator[Document]:
    """Yield the documents of one column of a local .json, .jsonl, .csv or .parquet file."""
    files = {"train": str(path)}
    table = open_data_set(BUILDERS[path.suffix], f"{path}", "train", True, data_files=files)
    return read_column(table, str(path), column)


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
    data_set = open_data_set(place, name, split, stream, name=configuration or None)
    return read_column(data_set, name, column)


def open_data_set(builder: str, title: str, split: str, stream: bool, **arguments: Any) -> Any:
    """Return what `datasets.load_dataset` makes of it."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingExtraError("datasets", "language", f"Reading {title}") from None
    try:
        return load_dataset(builder, split=split, streaming=stream, **arguments)
    except Exception as error:  # of many kinds
        raise unreadable(title, error) from None


def read_column(table: Any, title: str, column: str | None) -> Iterator[Document]:
    """Yield one column of a table, row by row."""
    rows = iter(table)
    chosen = column
    while True:
        try:
            row: Mapping[str, object] | None = next(rows, None)
        except Exception as error:  # the network, a damaged shard and others
            raise unreadable(title, error) from None
        if row is None:
            return
        chosen = chosen or only_text_column(row, title)
        if chosen not in row:
            raise UsageError(
                f"{title} has no column {chosen!r}: choose one of {', '.join(map(repr, row))}."
            )
        text = row[chosen]
        if not isinstance(text, str):
            raise DataError(
                f"{title} has a row whose {chosen!r} is a {type(text).__name__}; text was "
                "expected: choose another column."
            )
        yield Document(text)


def only_text_column(row: Mapping[str, object], title: str) -> str:
    """Return "text", or the one column that holds text."""
    names = [name for name, value in row.items() if isinstance(value, str)]
    if "text" in names:
        return "text"
    if len(names) != 1:
        raise UsageError(
            f"{title} has the columns of text {names or 'none'}; one was expected, or one called "
            "'text': say which with column."
        )
    return names[0]


def unreadable(title: str, error: Exception) -> DataError:
    """Return the error for a data set that cannot be had."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return DataError(
        f"{title} cannot be read ({reason}): check the name, the split and the network, or pass "
        "a text file or a folder of .txt files."
    )
