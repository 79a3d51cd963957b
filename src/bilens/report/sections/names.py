"""How classes and inputs are called in a sentence."""

from __future__ import annotations

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import whole
from bilens.report.svg import shortened

LONGEST = 40


def class_names(document: Document) -> list[str]:
    """Return a name for each class that is neither empty nor endless."""
    names = document["model"]["output_names"]
    return [shortened(name.strip(), LONGEST) or f"#{index}" for index, name in enumerate(names)]


def input_name(t: Catalogue, document: Document, place: int) -> str:
    """Return what an input is called: its column, its pixel, or its number."""
    model = document["model"]
    named, (rows, columns) = model.get("input_names"), model["input_shape"]
    if named is not None:
        return shortened(named[place].strip(), LONGEST) or t("use.number", index=whole(place))
    if rows == 1:
        return t("use.number", index=whole(place))
    row, column = divmod(place, columns)
    return t("use.pixel", index=whole(place), row=row, column=column)
