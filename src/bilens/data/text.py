"""A corpus: documents to train on, documents held out, each whole, once and uncorrupted.

They come from text files, tables, data sets of Hugging Face, or the story grammar.
"""

from __future__ import annotations

import hashlib
import logging
import math
import mmap
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bilens.base.checks import check_count
from bilens.base.errors import BilensError, DataError, UsageError, optional_package
from bilens.base.files import check_regular_file
from bilens.data.idx import PROBE_SECONDS, is_reachable
from bilens.data.story_grammar import StoryGrammar

END_OF_TEXT = "<|endoftext|>"  # between documents, in files and among tokens
SEPARATOR = END_OF_TEXT.encode()
BLANK_LINES = re.compile(rb"(?:\r?\n[ \t]*){2,}")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
GRAMMAR = "grammar"  # stories with a known rule
GIVEN = "texts of the caller"
GRAMMAR_STORIES = 20_000
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")  # owner/name, perhaps :configuration
# What is left of text that was damaged on its way: U+FFFD, control characters, UTF-8 that was
# read as Windows-1252 ("â€œ" for “, "Ã©" for é), or the mark between documents inside of one.
CORRUPTED = re.compile(
    "[\ufffd\x00-\x08\x0b-\x1f\x7f-\x9f]"
    "|â€|[ÂÃ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
    f"|{re.escape(END_OF_TEXT)}"
)


@dataclass(frozen=True)
class TextCorpus:
    """Documents in two parts that share none."""

    documents: tuple[str, ...]  # to train on
    held_out: tuple[str, ...]
    name: str
    source: str  # where the documents came from, one plain sentence for people

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of both parts, in their order: equal data, equal print."""
        digest = hashlib.sha256()
        for part in (self.documents, self.held_out):
            digest.update(f"{len(part)} documents".encode())
            for document in part:
                data = document.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def load_text(
    corpus: str | Path | Sequence[str],
    *,
    column: str | None = None,
    split: str = "train",
    held_out: float = 0.05,
    limit: int | None = None,
    seed: int = 0,
    stream: bool = False,
    report: Callable[[str], None] | None = None,
) -> TextCorpus:
    """Return a corpus, cleaned and split."""
    if not (math.isfinite(held_out) and 0 < held_out < 1):
        raise UsageError(f"held_out must be more than 0 and less than 1, got {held_out!r}.")
    if limit is not None:
        limit = check_count("limit", limit, 2)
    if stream and limit is None:
        raise UsageError("stream is set without a limit: say how many documents to read.")
    seed = check_count("seed", seed, 0)
    name, location, documents = open_corpus(corpus, column, split, stream, limit, seed)
    cleaned = clean(islice(documents, limit))
    source = f"{location}: {cleaned.describe()}"
    if report is not None:
        report(source)
    if len(cleaned.documents) < 2:
        raise DataError(
            f"{source}; at least 2 were expected, one to train on and one to hold out: pass a "
            f"larger corpus, or set documents apart by {END_OF_TEXT} or blank lines."
        )

    def key(index: int) -> bytes:  # neither order nor growth of a corpus moves more than the share
        return hashlib.sha256(f"{seed} {cleaned.documents[index]}".encode()).digest()

    num = len(cleaned.documents)
    count = min(max(1, round(held_out * num)), num - 1)
    chosen = set(sorted(range(num), key=key)[:count])
    known = tuple(text for i, text in enumerate(cleaned.documents) if i not in chosen)
    return TextCorpus(known, tuple(cleaned.documents[i] for i in sorted(chosen)), name, source)


def open_corpus(
    corpus: str | Path | Sequence[str],
    column: str | None,
    split: str,
    stream: bool,
    limit: int | None,
    seed: int,
) -> tuple[str, str, Iterator[TextDocument]]:
    """Return the name of a corpus, its location in words, and its documents."""
    if not isinstance(corpus, str | Path):
        if stream or split != "train" or column is not None:
            raise UsageError("column, split and stream are of tables and data sets, not of texts.")
        if odd := [type(one).__name__ for one in corpus if not isinstance(one, str)]:
            raise UsageError(f"a text is a {odd[0]}; expected a list of texts, each a str.")
        return GIVEN, GIVEN, map(TextDocument, corpus)
    path = Path(corpus)
    is_table = path.suffix in BUILDERS
    is_local = corpus == GRAMMAR or (corpus != "" and path.exists())  # Path("") is this folder
    if is_local and (stream or split != "train"):
        raise UsageError(f"stream and split are for Hugging Face data sets; {corpus} is none.")
    if is_local and column is not None and not is_table:
        raise UsageError(f"{corpus} has no columns: leave out column={column!r}.")
    if corpus == GRAMMAR:
        stories = StoryGrammar().generate(limit or GRAMMAR_STORIES, seed)
        return GRAMMAR, f"the story grammar, seed {seed}", map(TextDocument, stories)
    if is_local:
        documents = read_table(path, column) if is_table else read_documents(path)
        return path.stem, f"the {'folder' if path.is_dir() else 'file'} {path}", documents
    if isinstance(corpus, str) and HUB_NAME.fullmatch(corpus) and path.suffix != ".txt":
        location = f"the Hugging Face data set {corpus}, split {split}"
        return corpus, location, read_hub(corpus, split, column, stream)
    raise DataError(
        f"{corpus} does not exist; a text file, a folder of .txt files, {GRAMMAR!r} or the name of "
        "a Hugging Face data set (owner/name) was expected: check the path."
    )


@dataclass(frozen=True)
class CleanText:
    """The texts that are kept, in their order, and how many were left out."""

    documents: tuple[str, ...]
    left_out: Counter[str]  # by why

    def describe(self) -> str:
        found = ((self.left_out[why], why) for why in ("cut", "duplicate", "corrupted"))
        left_out = ", ".join(f"{count:,} {why}" for count, why in found if count)
        noun = "document" if len(self.documents) == 1 else "documents"
        return f"{len(self.documents):,} {noun}" + (f" (without {left_out})" if left_out else "")


def clean(documents: Iterable[TextDocument]) -> CleanText:
    """Return the texts of whole documents, each one once, none empty and none corrupted."""
    kept, left_out = dict[str, None](), Counter[str]()
    for document in documents:
        text = document.text.replace("\r\n", "\n").replace("\r", "\n").strip()
        if not text:
            continue
        if not document.is_whole:
            left_out["cut"] += 1
        elif CORRUPTED.search(text):
            left_out["corrupted"] += 1
        elif text in kept:
            left_out["duplicate"] += 1
        else:
            kept[text] = None
    return CleanText(tuple(kept), left_out)


class TextDocument(NamedTuple):
    text: str
    is_whole: bool = True  # False: its end is missing


def read_documents(path: Path) -> Iterator[TextDocument]:
    """Yield the documents of a text file, or of all .txt files in a folder and below it."""
    files, is_folder = [path], path.is_dir()
    if is_folder:
        files = sorted(file for file in path.rglob("*.txt") if file.is_file())
    if not files:
        raise DataError(
            f"{path} holds no .txt file; a folder of text files was expected: "
            "name the file itself if it has another ending."
        )
    for file in files:
        yield from read_file(file, split_at_blank_lines=not is_folder)


def read_file(path: Path, split_at_blank_lines: bool) -> Iterator[TextDocument]:
    check_regular_file(path, "expected a text file or a folder of them", DataError)
    start = 0
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            for start, end, is_whole in spans(content, split_at_blank_lines):
                yield TextDocument(content[start:end].decode("utf-8"), is_whole)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte {start + error.start:,} is "
            f"0x{error.object[error.start]:02x} ({error.reason}); convert the file, for example "
            "with iconv -t utf-8."
        ) from None
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


def read_table(path: Path, column: str | None) -> Iterator[TextDocument]:
    """Yield the documents of one column of a local .json, .jsonl, .csv or .parquet file."""
    check_regular_file(path, "expected a table with a column of text", DataError)
    kind, files = BUILDERS[path.suffix], {"train": str(path)}
    load = optional_package("datasets", "language", f"Reading {path}").load_dataset
    with reading(str(path), "check the file, or pass a text file or a folder of .txt files."):
        table = load(kind, data_files=files, split="train", streaming=True)
        yield from read_column(table, str(path), column)


def read_hub(name: str, split: str, column: str | None, stream: bool) -> Iterator[TextDocument]:
    """Yield the documents of one column of a data set of the hub."""
    repository, _, configuration = name.partition(":")
    library = optional_package("datasets", "language", f"Reading {name}")
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
) -> Iterator[TextDocument]:
    """Yield one column of a table, row by row; an empty cell is a document without text."""
    for row in rows:
        column = column or only_text_column(row, title)
        if column not in row:
            raise UsageError(
                f"{title} has no column {column!r}: choose one of {', '.join(map(repr, row))}."
            )
        text = "" if row[column] is None else row[column]
        if not isinstance(text, str):
            raise DataError(
                f"{title} has a row whose {column!r} is a {type(text).__name__}; text was "
                "expected: choose another column."
            )
        yield TextDocument(text)


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
