"""Eigenvectors and inputs as small images, all eigenvectors of a report on one colour scale."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bilens.report.colours import DIVERGING, GREY, diverging_index, grey_index
from bilens.report.document import Document
from bilens.report.png import data_uri, encode_png

STRIP_RATIO = 6  # an input that is so many times wider than high is drawn as a strip
MAX_SIDE = 128  # pixels; larger images are thinned out


@dataclass(frozen=True)
class Painter:
    """How the vectors of one document are drawn."""

    rows: int
    columns: int
    scale: float  # full colour at ±scale and beyond

    @property
    def is_strip(self) -> bool:
        """Whether an input is a row of numbers and not an image."""
        return self.columns >= STRIP_RATIO * self.rows

    def eigenvector(self, vector: Sequence[float]) -> str:
        """Return an eigenvector as a data URI: blue positive, red negative, white zero."""
        pixels, width = self.thin_out(vector)
        return data_uri(
            encode_png([diverging_index(x, self.scale) for x in pixels], width, DIVERGING)
        )

    def image(self, image: Sequence[float]) -> str:
        """Return an input as a data URI: black its smallest value (or 0), white its largest."""
        pixels, width = self.thin_out(image)
        low, high = min(0.0, *image), max(image)
        return data_uri(encode_png([grey_index(x, low, high) for x in pixels], width, GREY))

    def thin_out(self, values: Sequence[float]) -> tuple[list[float], int]:
        """Return pixels and width, every n-th row and column where there are too many."""
        down, across = -(-self.rows // MAX_SIDE), -(-self.columns // MAX_SIDE)
        if self.is_strip:
            across = 1
        rows, columns = range(0, self.rows, down), range(0, self.columns, across)
        return [values[row * self.columns + column] for row in rows for column in columns], len(
            columns
        )


def painter_of(document: Document) -> Painter:
    """Return how to draw the vectors of a document.

    The scale is the median of the largest components, so that images can be compared and the few
    with one extreme pixel do not make the others pale.
    """
    rows, columns = document["model"]["input_shape"]
    largest = [
        max(abs(component) for component in pair["vector"])
        for reading in document["classes"]
        for pair in (*reading["positive"], *reading["negative"])
    ]
    return Painter(rows, columns, statistics.median(largest) if largest else 1.0)
