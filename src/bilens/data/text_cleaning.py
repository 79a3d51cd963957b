"""Which documents are worth training on: whole ones, each one once, none corrupted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

END_OF_TEXT = "<|endoftext|>"  # between documents, in files and among tokens
# What is left of text that was damaged on its way: U+FFFD, control characters, UTF-8 that was
# read as Windows-1252 ("â€œ" for “, "Ã©" for é), or the mark between documents inside of one.
CORRUPTED = re.compile(
    "[\ufffd\x00-\x08\x0b-\x1f\x7f-\x9f]"
    "|â€|[ÂÃ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
    f"|{re.escape(END_OF_TEXT)}"
)


class Document(NamedTuple):
    """One document as it was read."""

    text: str
    is_whole: bool = True  # False: its end is missing


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
    """Return the texts of whole documents, each one once, none empty and none corrupted.

    White space at the ends is dropped and line ends are unified first. A duplicate is a text that
    equals an earlier one; a corrupted text holds U+FFFD, a control character, a trace of UTF-8
    read as Windows-1252, or "<|endoftext|>".

    Cost: O(characters) time; one table of all texts in memory.

    Source: arXiv:2410.08417, App. G, trains on TinyStories without exact duplicates and corrupted
        stories; how a corrupted one is told is ours.
    """
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
