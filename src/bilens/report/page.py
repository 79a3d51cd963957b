"""What differs from one kind of report to another: the parts of an HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Page:
    """A page; what every kind has stands in `html.py`."""

    keys: str  # of its title, heading and lead in the catalogue
    footer: str
    title: str
    count: int  # of what the lead speaks of: classes, layers or outputs
    facts: Sequence[tuple[str, str]]
    parts: Iterable[tuple[str, Markup]]  # by the names in the navigation; empty ones are left out
    limits: Sequence[str]
    conventions: Sequence[tuple[str, str]] = ()
    styles: Sequence[str] = ()  # further style sheets
