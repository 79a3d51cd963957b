"""How classes are called in a sentence."""

from __future__ import annotations

from bilens.report.document import Document
from bilens.report.svg import shortened

LONGEST = 40


def class_names(document: Document) -> list[str]:
    """Return a name for each class that is neither empty nor endless."""
    names = document["model"]["output_names"]
    return [shortened(name.strip(), LONGEST) or f"#{index}" for index, name in enumerate(names)]
