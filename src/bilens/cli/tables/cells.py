"""Texts and numbers in the cells of a terminal table."""

from __future__ import annotations

from rich.markup import escape

from bilens.records.base import displayable


def plain(text: str) -> str:
    """Return a text from a file so that it cannot style or drive the terminal."""
    return escape(displayable(text))


def number(value: float | None, form: str) -> str:
    """Return a number as text, a dash for None."""
    return "—" if value is None else format(value, form)


def short(value: float) -> str:
    """Return a number from 0 to 9999 in at most four digits."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"
