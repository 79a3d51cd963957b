"""How one class comes to its score: one row for each part, and the running sum beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.charts.scores import running_scale, running_strip
from bilens.report.numbers import decimals, signed, signed_quantity, whole
from bilens.report.plot import Scale
from bilens.report.raster import Painter
from bilens.report.svg import Figure


@dataclass(frozen=True)
class Part:
    """One part of a score, before it is drawn."""

    name: str
    value: float
    src: str = ""  # the image of an eigenvector, or nothing
    alt: str = ""
    eigenvalue: str = ""
    overlap: str = ""


@dataclass(frozen=True)
class SumRow:
    """One part of a score, with its place in the running sum."""

    part: Part
    value: str
    strip: Figure


@dataclass(frozen=True)
class SumTable:
    """How one class comes to its score."""

    caption: str
    is_answer: bool
    is_label: bool
    rows: list[SumRow]
    score: str
    strip: Figure


@dataclass(frozen=True)
class SumReader:
    """What the tables of one prediction share."""

    t: Catalogue
    item: dict[str, Any]  # the explanation
    names: list[str]
    num_inputs: int
    painter: Painter

    @property
    def digits(self) -> int:
        """How many decimals the scores of this prediction are shown with."""
        return decimals(self.item["scores"])

    def tables(self) -> list[SumTable]:
        """Return answer and label first, on one scale, so that the classes can be compared."""
        first = (self.item["predicted"], self.item["label"])
        scores = sorted(self.item["classes"], key=lambda score: score["index"] not in first)
        parts = [self.parts(score) for score in scores]
        x = running_scale([[part.value for part in of_class] for of_class in parts])
        return [
            self.table(score, of_class, x) for score, of_class in zip(scores, parts, strict=True)
        ]

    def table(self, score: dict[str, Any], parts: list[Part], x: Scale) -> SumTable:
        """Return the table of one class."""
        rows, start = [], 0.0
        for part in parts:
            side = "pos" if part.value >= 0 else "neg"
            strip = running_strip(self.t, x, start, part.value, side, self.digits)
            rows.append(SumRow(part, signed(part.value, self.digits), strip))
            start += part.value
        total = signed(score["score"], self.digits)
        return SumTable(
            caption=self.t(
                "predictions.class_caption", name=self.names[score["index"]], score=total
            ),
            is_answer=score["index"] == self.item["predicted"],
            is_label=score["index"] == self.item["label"],
            rows=rows,
            score=total,
            strip=running_strip(self.t, x, 0.0, score["score"], "total", self.digits),
        )

    def parts(self, score: dict[str, Any]) -> list[Part]:
        """Return the eigenvectors that are shown one by one, and the rest of the sum."""
        name, t = self.names[score["index"]], self.t
        digits = decimals(pair["overlap"] for pair in score["contributions"])
        shown = [
            Part(
                t("predictions.eigenvector", rank=pair["rank"]),
                pair["value"],
                self.painter.vector(pair["vector"]),
                t("predictions.vector_alt", rank=pair["rank"], name=name),
                signed_quantity(pair["eigenvalue"]),
                signed(pair["overlap"], digits),
            )
            for pair in score["contributions"]
        ]
        others = self.num_inputs - len(shown)
        rest = [Part(t("predictions.rest", count=whole(others)), score["rest"])]
        return [*shown, *(rest if others > 0 else []), *self.lower_terms(score)]

    def lower_terms(self, score: dict[str, Any]) -> list[Part]:
        """Return the linear term and the constant, as one row where the model has neither."""
        linear, constant = score["linear"], score["constant"]
        if linear == 0 and constant == 0:
            return [Part(self.t("predictions.no_terms"), 0.0)]
        return [
            Part(self.t("predictions.linear"), linear),
            Part(self.t("predictions.constant"), constant),
        ]
