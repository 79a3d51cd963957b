"""Tokens for people: white space made visible, and a latent called by where it is strongest."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bilens.records.base import displayable
from bilens.report.svg import shortened

MARKS = {"\n": "↵", "\r": "↵", "\t": "⇥"}
LONGEST = 18  # characters of a token in a name


def marked(value: Any) -> Any:
    """Return a copy of JSON values in whose texts line breaks and tabs can be seen."""
    if isinstance(value, str):
        return "".join(MARKS.get(character, character) for character in value)
    if isinstance(value, list):
        return [marked(item) for item in value]
    if isinstance(value, dict):
        return {key: marked(item) for key, item in value.items()}
    return value


def visible(text: str) -> str:
    """Return a text whose line breaks and tabs can be seen, and that can be shown anywhere."""
    shown: str = displayable(marked(text))
    return shown


def token_name(text: str) -> str:
    """Return a token as a word that stands alone: without the space before it, never empty."""
    return shortened(visible(text).strip(" ") or "␣", LONGEST)


def nickname(item: dict[str, Any]) -> str:
    """Return the token at which a latent is strongest most often; empty if it is never active."""
    peaks = Counter(token_name(context["tokens"][context["peak"]]) for context in item["contexts"])
    return peaks.most_common(1)[0][0] if peaks else ""


def latent_name(item: dict[str, Any]) -> str:
    """Return number and nickname of a latent."""
    return f"{item['latent']} {nickname(item)}".strip()
