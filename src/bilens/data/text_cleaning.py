"""Which documents of a corpus are worth training on: no duplicates, nothing corrupted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# What is left of text that was decoded with the wrong table somewhere on its way:
# U+FFFD, control characters, or UTF-8 read as Windows-1252 ("â€œ" for “, "Ã©" for é).
CORRUPTED = re.compile(
    "[\ufffd\x00-\x08\x0b-\x1f\x7f-\x9f]|â€|[ÂÃ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
)


@dataclass(frozen=True)
class CleanText:
    """Documents that are kept, in their order, and how many were not."""

    documents: tuple[str, ...]
    num_empty: int
    num_duplicates: int
    num_corrupted: int

    def describe(self) -> str:
        """Return one line for people: what was kept and what was left out."""
        counts = {
            "empty": self.num_empty,
            "duplicate": self.num_duplicates,
            "corrupted": self.num_corrupted,
        }
        out = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        return f"{len(self.documents):,} documents" + (f"; left out: {out}" if out else "")


def clean(documents: Iterable[str]) -> CleanText:
    """Return the documents without white space at their ends, each one once, none corrupted.

    A document counts as a duplicate if its text equals an earlier one, and as corrupted if it
    holds U+FFFD, a control character or a trace of UTF-8 read as Windows-1252. Line ends are
    unified first.

    Cost: O(characters) time; one set of all texts in memory.

    Source: Pearce et al., 2024, arXiv:2410.08417, train on TinyStories without exact duplicates
        and corrupted stories; how a corrupted one is told is ours.
    """
    kept: dict[str, None] = {}
    num_empty = num_duplicates = num_corrupted = 0
    for raw in documents:
        text = raw.replace("\r\n", "\n").replace("\r", "\n").strip()
        if not text:
            num_empty += 1
        elif CORRUPTED.search(text):
            num_corrupted += 1
        elif text in kept:
            num_duplicates += 1
        else:
            kept[text] = None
    return CleanText(tuple(kept), num_empty, num_duplicates, num_corrupted)
