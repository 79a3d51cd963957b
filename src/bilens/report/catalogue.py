"""The sentences of a report, one catalogue for each language; placeholders stand in braces."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Final

from bilens.base.errors import UsageError

LANGUAGES: Final = ("en", "ja")


class Catalogue:
    """The sentences of one language, by key."""

    def __init__(self, lang: str, sentences: dict[str, str]) -> None:
        self.lang = lang
        self.sentences = sentences

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence with its placeholders filled; the values are never read as patterns."""
        return self.sentences[key].format(**values)

    def has(self, key: str) -> bool:
        """Return whether there is a sentence of that key."""
        return key in self.sentences

    def listing(self, items: list[str]) -> str:
        """Return items as one text: a, b and c."""
        if len(items) < 2:
            return "".join(items)
        return self("list.last", rest=self("list.comma").join(items[:-1]), last=items[-1])


@cache
def load_catalogue(lang: str) -> Catalogue:
    """Return the catalogue of a language."""
    if lang not in LANGUAGES:
        raise UsageError(f"there is no report in {lang!r}: choose one of {', '.join(LANGUAGES)}.")
    text = files("bilens.report").joinpath("strings", f"{lang}.json").read_text("utf-8")
    return Catalogue(lang, json.loads(text))
