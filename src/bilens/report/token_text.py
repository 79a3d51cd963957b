"""Tokens for people: white space made visible, and a latent called by where it is strongest."""

from __future__ import annotations

from collections import Counter

from bilens.records.base import displayable
from bilens.records.trace import LatentReading
from bilens.report.svg import shortened

MARKS = {"\n": "↵", "\r": "↵", "\t": "⇥"}
LONGEST = 18  # characters of a token in a name


def visible(text: str) -> str:
    """Return a text whose line breaks and tabs can be seen, and that can be shown anywhere."""
    return displayable(text, MARKS)


def token_name(text: str) -> str:
    """Return a token as a word that stands alone: without the space before it, never empty."""
    return shortened(visible(text).strip(" ") or "␣", LONGEST)


def latent_name(item: LatentReading) -> str:
    """Return the number of a latent, and the token at which it is strongest most often."""
    peaks = Counter(token_name(context.tokens[context.peak]) for context in item.contexts)
    return " ".join([str(item.latent), *(name for name, _ in peaks.most_common(1))])
