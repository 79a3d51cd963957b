"""A corpus: documents to train on, documents held out, each whole, once and uncorrupted."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from bilens.base.checks import check_count
from bilens.base.errors import DataError, UsageError
from bilens.data.documents import (
    BUILDERS,
    END_OF_TEXT,
    Document,
    read_documents,
    read_hub,
    read_table,
)
from bilens.data.story_grammar import StoryGrammar

GRAMMAR = "grammar"
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
    corpus: str | Path,
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
    return split_off(cleaned.documents, name, source, held_out, seed)


def open_corpus(
    corpus: str | Path, column: str | None, split: str, stream: bool, limit: int | None, seed: int
) -> tuple[str, str, Iterator[Document]]:
    """Return the name of a corpus, its location in words, and its documents."""
    path = Path(corpus)
    is_table = path.suffix in BUILDERS
    is_local = corpus == GRAMMAR or (corpus != "" and path.exists())  # Path("") is this folder
    if is_local and (stream or split != "train"):
        raise UsageError(f"stream and split are for Hugging Face data sets; {corpus} is none.")
    if is_local and column is not None and not is_table:
        raise UsageError(f"{corpus} has no columns: leave out column={column!r}.")
    if corpus == GRAMMAR:
        stories = StoryGrammar().generate(limit or GRAMMAR_STORIES, seed)
        return GRAMMAR, f"the story grammar, seed {seed}", map(Document, stories)
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


def split_off(
    documents: Sequence[str], name: str, source: str, held_out: float, seed: int
) -> TextCorpus:
    """Return documents in two parts: those with the smallest hash are held out."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{seed} {documents[index]}".encode()).digest()

    count = min(max(1, round(held_out * len(documents))), len(documents) - 1)
    chosen = set(sorted(range(len(documents)), key=key)[:count])
    return TextCorpus(
        documents=tuple(text for i, text in enumerate(documents) if i not in chosen),
        held_out=tuple(documents[i] for i in sorted(chosen)),
        name=name,
        source=source,
    )


@dataclass(frozen=True)
class CleanText:
    """The texts that are kept, in their order, and how many were left out."""

    documents: tuple[str, ...]
    num_cut: int
    num_duplicates: int
    num_corrupted: int

    def describe(self) -> str:
        """Return what was kept and what was left out, for people."""
        counts = {
            "cut": self.num_cut,
            "duplicate": self.num_duplicates,
            "corrupted": self.num_corrupted,
        }
        left_out = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        noun = "document" if len(self.documents) == 1 else "documents"
        return f"{len(self.documents):,} {noun}" + (f" (without {left_out})" if left_out else "")


def clean(documents: Iterable[Document]) -> CleanText:
    """Return the texts of whole documents, each one once, none empty and none corrupted."""
    kept: dict[str, None] = {}
    num_cut = num_duplicates = num_corrupted = 0
    for document in documents:
        text = document.text.replace("\r\n", "\n").replace("\r", "\n").strip()
        if not text:
            continue
        if not document.is_whole:
            num_cut += 1
        elif CORRUPTED.search(text):
            num_corrupted += 1
        elif text in kept:
            num_duplicates += 1
        else:
            kept[text] = None
    return CleanText(tuple(kept), num_cut, num_duplicates, num_corrupted)
